package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
	"pilotlight/initrd/tpm"
	"pilotlight/providers"
	"pilotlight/stages"
)

// mostLetters bounds what a failure says in one line: four lines of a console of 80.
const mostLetters = 280

// An advised error knows itself what to do about it.
type advised struct {
	error
	advice string // as advice gives it
}

func (a advised) Unwrap() error { return a.error }

// An overdue error ends what took longer than a config may take to come.
type overdue struct{ deadline time.Duration }

func (o overdue) Error() string {
	return fmt.Sprintf("the deadline of %s is over (pilotlight.deadline=)", o.deadline)
}

// Is makes it a context.DeadlineExceeded.
func (o overdue) Is(target error) bool { return target == context.DeadlineExceeded }

// failure makes of an error that ended a part of the boot what an operator is to
// know: what failed, where in the config it was asked for, and what to do next.
func failure(part string, err error, documents []config.Document) initrd.Failure {
	return initrd.Failure{
		Stage: part, What: what(err), Where: cmp.Or(where(err, documents), named(err, documents)), Next: next(part, err),
	}
}

// named tells where a document names an address that could not be fetched, "" where
// none does: then an argument or the platform does.
func named(err error, documents []config.Document) string {
	failed, ok := errors.AsType[*resource.Error](err)
	if !ok {
		return ""
	}
	for _, list := range [][]string{{"ignition", "config", "merge"}, {"ignition", "security", "tls", "certificateAuthorities"}} {
		for _, source := range sources(documents, list) {
			u, err := resource.ParseURL(source)
			if err != nil || (resource.Resource{Source: u}).String() != failed.What {
				continue
			}
			if at, ok := config.Find(documents, list, "source", source); ok {
				return at.String()
			}
		}
	}
	return ""
}

// sources are the addresses in a list of all documents.
func sources(documents []config.Document, list []string) []string {
	var all []string
	for _, d := range documents {
		var at any
		if json.Unmarshal(d.Bytes, &at) != nil {
			continue // that is a fault of its own
		}
		for _, key := range list {
			object, _ := at.(map[string]any)
			at = object[key]
		}
		items, _ := at.([]any)
		for _, item := range items {
			object, _ := item.(map[string]any)
			if source, ok := object["source"].(string); ok {
				all = append(all, source)
			}
		}
	}
	return all
}

// what says what failed, from outside in, on one line, each thing named once.
func what(err error) string {
	if invalid, ok := errors.AsType[*config.InvalidError](err); ok {
		return brief(faults(invalid.Report))
	}
	if c, ok := errors.AsType[*config.CollectError](err); ok {
		err = c.Err // the level of a document in a config is our own bookkeeping
	}
	text := err.Error()
	if r, ok := errors.AsType[*resource.Error](err); ok && r.Hint != "" {
		text = strings.Replace(text, " ("+r.Hint+")", "", 1) // it is what to do next
	}
	return brief(text)
}

// faults tells the first fault of a config that cannot be used, and how many more
// there are. Where it is, is a line of its own.
func faults(r config.Report) string {
	r = slices.DeleteFunc(slices.Clone(r), func(f config.Fault) bool { return f.Severity != config.Error })
	if len(r) == 0 {
		return "the config cannot be used"
	}
	text := "config: " + r[0].Message
	if r[0].Hint != "" {
		text += " (" + r[0].Hint + ")"
	}
	switch more := len(r) - 1; more {
	case 0:
	case 1:
		text += "; there is 1 more fault"
	default:
		text += fmt.Sprintf("; there are %d more faults", more)
	}
	return text
}

// brief makes a text fit for a line of a console: without what a terminal would take
// for its own, without a part that only repeats what was said before it, and no longer
// than mostLetters. What is cut is the middle, since what failed is at the begin and why
// at the end.
func brief(text string) string {
	text = strings.NewReplacer(".\n", "; ", "\n", "; ", ".; ", "; ").Replace(strings.TrimSpace(text))
	text = printable(text)
	var parts []string
	for part := range strings.SplitSeq(text, ": ") {
		if len(parts) == 0 || !says(parts[len(parts)-1], part) && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	letters := []rune(strings.Join(parts, ": "))
	if len(letters) <= mostLetters {
		return string(letters)
	}
	const begin = mostLetters * 3 / 5
	return string(letters[:begin]) + " … " + string(letters[len(letters)-(mostLetters-begin-3):])
}

// printable is a text of one line, without what a terminal would take for its own. Names
// of files and the words of a server may hold anything.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// says says whether a part of an error names the next one already, in whole words.
func says(text, part string) bool {
	return part != "" && strings.Contains(" "+text+" ", " "+part+" ")
}

// next says what to do about a failure.
func next(part string, err error) string {
	text := advice(part, err) + ", then boot again"
	if part == "fetch" {
		// Only this part comes before everything that changes something.
		return "nothing was changed; " + text
	}
	return text + ": it goes on from here"
}

// advice is what to do about a failure, in the imperative. The order counts: whatever
// is more particular is asked first.
func advice(part string, err error) string {
	if a, ok := errors.AsType[advised](err); ok {
		return a.advice
	}
	return cmp.Or(
		onRecord(part, err),
		onConfig(err),
		onFetching(part, err),
		onTPM(err),
		onDisks(err),
		onPrograms(part, err),
		onFiles(err),
		onKernel(err),
		onTime(err),
		"see why: "+journal(part),
	)
}

// journal is the command that shows what a part said.
func journal(part string) string {
	switch part { // some are one unit
	case "luks":
		part = "root"
	case "kargs", "disks":
		part = "repart"
	}
	return "journalctl -b -u pilotlight-" + part
}

// onRecord advises on the record of earlier boots, and on the config that was kept.
func onRecord(part string, err error) string {
	const anew = "boot once with pilotlight.firstboot=yes to provision anew, with all that the config erases"
	r, ok := errors.AsType[*initrd.RecordError](err)
	switch {
	case ok && part != "fetch":
		return "see that the " + r.Place.Kind + " is neither full nor read-only nor damaged"
	case ok && errors.Is(err, initrd.ErrNoTPM):
		return "switch the TPM on in the firmware's setup; or " + anew
	case ok:
		return "repair or restore the record on the " + r.Place.Kind + "; or " + anew
	case errors.Is(err, initrd.ErrNoPlace):
		return "give the disk an ESP, or say policy.disks: wipe if each boot may erase"
	case errors.Is(err, initrd.ErrNotFrozen):
		return "see why there is no config: systemctl status pilotlight-fetch"
	}
	return ""
}

// onConfig advises on what was asked for, and on who asks.
func onConfig(err error) string {
	if _, ok := errors.AsType[*config.InvalidError](err); ok {
		return "correct the config (pilotlight validate shows every fault)"
	}
	if _, ok := errors.AsType[*stages.Error](err); ok {
		return "correct the config"
	}
	if _, ok := errors.AsType[*config.KnobError](err); ok {
		return "correct the kernel argument or credential"
	}
	if _, ok := errors.AsType[*providers.DetectError](err); ok {
		return "add pilotlight.platform= to the kernel arguments (with pilotlight.config.url= for metal)"
	}
	if d, ok := errors.AsType[*providers.DriveError](err); ok {
		if len(d.Fit) > 1 {
			return "detach all but one of those drives"
		}
		return "attach the drive (vfat or iso9660, labelled cidata), or correct pilotlight.platform="
	}
	if c, ok := errors.AsType[*config.CollectError](err); ok && (c.Doing == "bound" || c.Doing == "settings") {
		return "correct the part ignition of the config"
	}
	return ""
}

// onFetching advises on what comes from a server.
func onFetching(part string, err error) string {
	if s, ok := errors.AsType[*providers.ServiceError](err); ok {
		switch {
		case s.Status == 401 || s.Status == 403:
			return "allow this machine its metadata service"
		case s.Status == 0:
			return "see that pilotlight.platform= names the cloud that this machine is in"
		}
		return "ask whoever runs the cloud: its metadata service is at fault"
	}
	r, ok := errors.AsType[*resource.Error](err)
	if !ok {
		return ""
	}
	if r.Hint != "" {
		return r.Hint
	}
	switch {
	case errors.Is(err, resource.ErrUnreachable):
		return "see that the server is up and the network reaches it (networkctl; " + journal(part) + " has each try)"
	case errors.Is(err, resource.ErrUntrusted):
		return "see that this is the right server, or make its authority known: ignition.security.tls.certificateAuthorities"
	case errors.Is(err, resource.ErrNotFound):
		return "correct the address, or put there what it names"
	case errors.Is(err, resource.ErrRefused):
		return "see in the server's log why it refuses that"
	case errors.Is(err, resource.ErrHash):
		return "put on the server what the hash in the config is of, or correct the hash"
	case errors.Is(err, resource.ErrTooLarge):
		return "see that the address is the right one, and make what is there smaller"
	case errors.Is(err, resource.ErrCompression):
		return "see that what the server has is whole, and that the config names its compression"
	case errors.Is(err, resource.ErrScheme), errors.Is(err, resource.ErrSyntax):
		return "correct that address, hash or header"
	case errors.Is(err, resource.ErrRedirect):
		return "give the address that the server leads to"
	}
	return ""
}

// onTPM advises on measuring and sealing.
func onTPM(err error) string {
	if b, ok := errors.AsType[*tpm.BankError](err); ok {
		return fmt.Sprintf("switch the PCR bank %s off in the firmware's setup", b.Bank)
	}
	if _, ok := errors.AsType[*tpm.LogError](err); ok {
		return "power the machine off: the log of measurements is that of this boot alone"
	}
	_, device := errors.AsType[*tpm.DeviceError](err)
	_, extend := errors.AsType[*tpm.ExtendError](err)
	switch {
	case errors.Is(err, initrd.ErrNoTPM), errors.Is(err, tpm.ErrAbsent):
		return "switch the TPM on in the firmware's setup, or do not ask for one: measure.required"
	case errors.Is(err, tpm.ErrDirtyLog):
		return "power the machine off: the log of measurements is that of this boot alone"
	case errors.Is(err, initrd.ErrSilentTPM), device, extend:
		return "power the machine off, for the TPM to begin anew"
	}
	return ""
}

// onDisks advises on finding a disk, and on what is on it.
func onDisks(err error) string {
	if _, ok := errors.AsType[*disk.SelectError](err); ok {
		return "correct match, so that it fits exactly one disk of this machine"
	}
	if p, ok := errors.AsType[*disk.PartitionError](err); ok {
		return "correct device: the whole disk is " + p.Disk.Node
	}
	if c, ok := errors.AsType[*disk.CountError](err); ok && len(c.Found) > 1 {
		return "detach the disk that is a copy of the other"
	}
	if _, ok := errors.AsType[*disk.CountError](err); ok {
		return "see that the disk is attached, and its driver in the initrd"
	}
	if _, ok := errors.AsType[*disk.LayoutError](err); ok {
		return "correct that partition in the config, or say what may be lost for it: wipePartitionEntry, wipeTable"
	}
	table, isTable := errors.AsType[*disk.TableError](err)
	look, isLook := errors.AsType[*disk.LookError](err)
	_, isAmbivalent := errors.AsType[*disk.AmbivalentError](err)
	switch {
	case errors.Is(err, disk.ErrNotSet), errors.Is(err, disk.ErrNoVariables):
		return "name the disk in the config: device: /dev/disk/by-id/…, or match; only some boot loaders say where they are"
	case errors.Is(err, initrd.ErrOccupied):
		return "correct the device, or say wipeFilesystem: true, which erases all that is on it"
	case errors.Is(err, disk.ErrDamaged), errors.Is(err, disk.ErrMBR):
		return "repair the table (sfdisk(8)), or say empty: force (of repart) or wipeTable (of storage.disks), which erase all that is on the disk"
	case errors.Is(err, disk.ErrBootSector):
		return "correct the device: a file system may fill that disk; wipeTable erases it"
	case errors.Is(err, disk.ErrSectorSize):
		return "write the image again, for the sector size of this disk"
	case isTable && !errors.Is(err, disk.ErrNoTable):
		return "see whether " + cmp.Or(table.Node, "the disk") + " is failing: journalctl -k"
	case isAmbivalent:
		return "see which of them is meant (wipefs(8) without options lists them) and wipe the other, or say wipeFilesystem: true"
	case isLook && errors.Is(err, fs.ErrNotExist):
		return "see that " + look.Path + " is attached and its driver in the initrd, or correct device (ls /dev/disk/by-id)"
	case isLook:
		return "see what the kernel says of it: journalctl -k"
	case errors.Is(err, initrd.ErrOtherHash):
		return "make roothash= or usrhash= of the kernel arguments and rootHash of the config agree"
	}
	return ""
}

// onPrograms advises on what the programs that are run have to say.
func onPrograms(part string, err error) string {
	p, ok := errors.AsType[*initrd.ProgramError](err)
	if !ok {
		return ""
	}
	said := func(words string) bool { return strings.Contains(p.Stderr, words) }
	switch {
	case p.Err != nil && (errors.Is(p.Err, context.Canceled) || errors.Is(p.Err, context.DeadlineExceeded)):
		return "" // it is not its fault
	case p.Name == initrd.KernelArgumentsHelper:
		return "give the image those kernel arguments, or its initrd the distribution's " + p.Name
	case p.Err != nil:
		return "pack the initrd anew with " + p.Name + " (pilotlight initrd addon --check names all that one lacks)"
	case p.Name == "systemd-repart":
		switch {
		case said("Can't fit"):
			return "give this machine a larger disk, or ask for less (SizeMinBytes=, PaddingMinBytes=)"
		case p.Code == 77:
			return "say in the config what may become of that disk: empty: allow, or force, which erases all that is on it"
		case said("mkfs"):
			return "see that the initrd has mkfs for every Format= (pilotlight initrd addon --check)"
		}
		return "correct the definitions (repart.d(5)); " + journal(part) + " has all of it"
	case p.Name == "systemd-veritysetup":
		return "write the image anew: what is on the disk is damaged, or not of this root hash"
	case p.Name == "systemd-cryptsetup":
		return "boot what the data was sealed to (the same PCRs, this TPM, this key), or unlock it by hand with a recovery key"
	case p.Name == "systemd-fsck":
		return "repair that file system by hand with fsck"
	case p.Name == "mount":
		return "see what is on that device (blkid), and that the initrd has the file system's driver"
	case p.Name == "systemd-sysusers":
		return "correct etc.sysusers of the config, or the image's own lines in sysusers.d"
	case p.Name == "systemd-tmpfiles":
		return "correct etc.tmpfiles of the config, or the image's own lines in tmpfiles.d"
	case p.Name == "systemd-creds":
		return "see that the credential is sealed to this machine (systemd-creds(1))"
	case p.Name == "networkctl", p.Name == "systemctl" && part == "fetch":
		return "see that a link is up and has an address: networkctl"
	case p.Name == "systemctl":
		return "see that the image has the units that the config enables"
	}
	return ""
}

// onFiles advises on what lies in the new root.
func onFiles(err error) string {
	failed, _ := errors.AsType[*initrd.Error](err)
	var step initrd.Step
	if failed != nil {
		step = failed.Step
		if anew, ok := step.(initrd.MadeAnew); ok {
			step = anew.Step
		}
	}
	_, isVerity := step.(initrd.Verity)
	mount, isMount := step.(initrd.Mount)
	switch {
	case errors.Is(err, initrd.ErrExists):
		return "say overwrite: true for it in the config, or remove what is there"
	case errors.Is(err, initrd.ErrUnknownOwner):
		return "let etc.sysusers make that user or group, or give its number"
	case errors.Is(err, initrd.ErrKeyLost):
		return "give that volume a keyFile, clevis or tpm2"
	case errors.Is(err, initrd.ErrNoLabels):
		return "give the image setfiles and the policy's file_contexts, or switch SELinux off in its /etc/selinux/config"
	case errors.Is(err, initrd.ErrStillNotSo):
		return "see what changed it at once, and report it if nobody did"
	case isVerity && errors.Is(err, fs.ErrNotExist):
		return "write that image to the disk, or correct rootHash"
	case isMount && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, initrd.ErrStillAfter)):
		return "let a definition of repart make what belongs at " + mount.Where + ", or write an image that has it"
	case errors.Is(err, initrd.ErrStillAfter):
		return "let the config make what it needs"
	}
	return ""
}

// onKernel advises on what the kernel refuses. Its words are the same whoever passes
// them on: a system call of ours, or a program.
func onKernel(err error) string {
	text := strings.ToLower(err.Error())
	for _, c := range []struct{ words, advice string }{
		{"no space left on device", "make that file system larger, or write less to it"},
		{"read-only file system", "let that path lie on what can be written: etc.upper, or a definition with MountPoint="},
		{"input/output error", "see whether the disk is failing: journalctl -k"},
		{"operation not permitted", "take away what protects it (chattr(1), a read-only mount)"},
		{"too many levels of symbolic links", "correct the links in that path: they lead in a circle"},
		{"not a directory", "correct the path: something in it is no directory"},
		{"is a directory", "correct the path: a directory is there"},
	} {
		if strings.Contains(text, c.words) {
			return c.advice
		}
	}
	return ""
}

// onTime advises on what did not end.
func onTime(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "see what is waited for: is a cable in, and does DHCP answer (networkctl)? or give it longer: pilotlight.deadline="
	case errors.Is(err, context.Canceled):
		return "see who ended it: journalctl -b"
	}
	return ""
}
