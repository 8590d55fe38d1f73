package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
	"pilotlight/initrd/tpm"
	"pilotlight/providers"
	"pilotlight/stages"
)

// A failing is one way in which a part of a boot ends, and what is told of it.
type failing struct {
	of   string // the exported error that it is about, "" for none
	part string
	err  error
	what string
	next string // without what every failure of that part has
}

// step wraps what one step of a stage fails with, as initrd.Run does.
func step(s initrd.Step, err error) error { return &initrd.Error{Step: s, Err: err} }

// fetched is what a fetch ends with.
func fetched(kind, cause error, hint string) error {
	return &config.CollectError{Level: 1, Doing: "fetch", Err: &resource.Error{What: "http://boot.example/web", Err: kind, Cause: cause, Hint: hint}}
}

// program is what a program ends with.
func program(name string, code int, stderr string) error {
	return &initrd.ProgramError{Name: name, Code: code, Stderr: stderr}
}

func failings() []failing {
	const anew = "boot once with pilotlight.firstboot=yes to provision anew, with all that the config erases"
	esp := initrd.Place{Node: "/dev/vda1", Kind: "ESP"}
	system := initrd.Repart{Name: "system", On: initrd.Selector{Device: "boot"}}
	usr := initrd.Verity{Name: "usr", RootHash: "ab12"}
	root := initrd.Mount{What: initrd.Source{Path: "/dev/vda4"}, Where: "/sysroot"}
	motd := initrd.File{Path: "/etc/motd"}
	layout := initrd.Layout{Device: "/dev/vdb"}
	data := initrd.Filesystem{Device: "/dev/vdb1", Format: "ext4"}
	word := initrd.Extend{Word: "pilotlight:config:v1:user:sha256:dd34", PCR: 12}
	late := &resource.Error{What: "http://boot.example/ignition", Err: resource.ErrUnreachable, Cause: errors.New("connection refused until the deadline, 31 tries in 5m0s")}
	missing := &fs.PathError{Op: "stat", Path: "/dev/disk/by-id/x", Err: fs.ErrNotExist}
	return []failing{
		// The record.
		{"initrd.RecordError", "fetch", &initrd.RecordError{Place: esp, Err: errors.New("it was written on another disk")},
			"record on ESP /dev/vda1: it was written on another disk", "repair or restore the record on the ESP; or " + anew},
		{"initrd.ErrNoTPM", "fetch", &initrd.RecordError{Place: esp, Err: fmt.Errorf("unseal the kept copy: it is sealed to a TPM, and %w", initrd.ErrNoTPM)},
			"record on ESP /dev/vda1: unseal the kept copy: it is sealed to a TPM, and this machine has no TPM", "switch the TPM on in the firmware's setup; or " + anew},
		{"initrd.RecordError", "report", &initrd.RecordError{Place: esp, Err: errors.New("no space left on device")},
			"record on ESP /dev/vda1: no space left on device", "see that the ESP is neither full nor read-only nor damaged"},
		{"initrd.ErrNoPlace", "repart", initrd.ErrNoPlace,
			"there is no ESP, XBOOTLDR or state partition for a record: every boot is a first boot", "give the disk an ESP, or say policy.disks: wipe if each boot may erase"},
		{"initrd.ErrNotFrozen", "verity", initrd.ErrNotFrozen,
			"no config was fetched in this boot", "see why there is no config: systemctl status pilotlight-fetch"},

		// The config and who asks for it.
		{"config.InvalidError", "fetch", &config.CollectError{Level: 0, Doing: "parse", Err: &config.InvalidError{Report: config.Report{
			{Severity: config.Warning, Document: "user", Line: 1, Column: 1, Path: "$", Message: "unused"},
			{Severity: config.Error, Document: "user", Line: 62, Column: 9, Path: "$.pilotlight.repart.0.devices", Message: "unknown key", Hint: `did you mean "device"?`},
			{Severity: config.Error, Document: "user", Line: 63, Column: 9, Path: "$.x", Message: "unknown key"}}}},
			`config: unknown key (did you mean "device"?); there is 1 more fault`, "correct the config (pilotlight validate shows every fault)"},
		{"config.CollectError", "fetch", &config.CollectError{Level: 9, Doing: "bound", Err: errors.New("the config pulls in more than 64 documents: does one pull itself in?")},
			"the config pulls in more than 64 documents: does one pull itself in?", "correct the part ignition of the config"},
		{"config.KnobError", "fetch", errors.Join(
			&config.KnobError{Name: "pilotlight.deadline", Err: errors.New("is not a time span")},
			&config.KnobError{Name: "pilotlight.x", Err: errors.New("is not known"), Credential: true}),
			"kernel argument pilotlight.deadline: is not a time span; system credential pilotlight.x: is not known", "correct the kernel argument or credential"},
		{"stages.Error", "fetch", &stages.Error{List: "verity", Name: "usr", Err: errors.New("the kernel arguments open it with another root hash")},
			`verity "usr": the kernel arguments open it with another root hash`, "correct the config"},
		{"providers.DetectError", "fetch", &providers.DetectError{},
			"no platform is known by these markers: : name the platform with pilotlight.platform=", "add pilotlight.platform= to the kernel arguments (with pilotlight.config.url= for metal)"},
		{"providers.DriveError", "fetch", &providers.DriveError{Waited: time.Minute},
			"no drive is labelled cidata or CIDATA after 1m0s: no vfat or iso9660 has a label", "attach the drive (vfat or iso9660, labelled cidata), or correct pilotlight.platform="},
		{"providers.DriveError", "fetch", &providers.DriveError{Fit: make([]providers.Drive, 2)},
			"2 drives are labelled cidata, and only one may be", "detach all but one of those drives"},
		{"", "fetch", advised{errors.New("this initrd lacks what the config needs: program mkfs.xfs\nkernel module dm_verity"), "pack the initrd anew"},
			"this initrd lacks what the config needs: program mkfs.xfs; kernel module dm_verity", "pack the initrd anew"},

		// What comes from a server.
		{"providers.ServiceError", "fetch", &providers.ServiceError{Address: "http://169.254.169.254", Status: 403, What: "asked for user data"},
			"http://169.254.169.254: status 403 Forbidden (asked for user data)", "allow this machine its metadata service"},
		{"providers.ServiceError", "fetch", &providers.ServiceError{Address: "http://169.254.169.254", Status: 500, What: "asked for user data"},
			"http://169.254.169.254: status 500 Internal Server Error (asked for user data)", "ask whoever runs the cloud: its metadata service is at fault"},
		{"providers.ServiceError", "fetch", &providers.ServiceError{Address: "http://169.254.169.254", What: "this is no metadata service"},
			"http://169.254.169.254: this is no metadata service", "see that pilotlight.platform= names the cloud that this machine is in"},
		{"resource.ErrUnreachable", "fetch", fmt.Errorf("platform metal: matchbox: %w", late),
			"platform metal: matchbox: http://boot.example/ignition: not fetched: connection refused until the deadline, 31 tries in 5m0s",
			"see that the server is up and the network reaches it (networkctl; journalctl -b -u pilotlight-fetch has each try)"},
		{"resource.ErrUnreachable", "etc", step(motd, &resource.Error{What: "http://h.example/x", Err: resource.ErrUnreachable, Cause: errors.New("lookup h.example: no such host"), Hint: "check the name"}),
			"file /etc/motd: http://h.example/x: not fetched: lookup h.example: no such host", "check the name"},
		{"resource.Error", "fetch", &resource.Error{What: "https://boot.example/a", Err: resource.ErrRefused, Cause: errors.New("status 418 I'm a teapot"), Status: 418},
			"https://boot.example/a: refused: status 418 I'm a teapot", "see in the server's log why it refuses that"},
		{"resource.ErrRefused", "fetch", fetched(resource.ErrRefused, errors.New("status 403 Forbidden"), "credentials go into httpHeaders"),
			"http://boot.example/web: refused: status 403 Forbidden", "credentials go into httpHeaders"},
		{"resource.ErrUntrusted", "fetch", fetched(resource.ErrUntrusted, nil, ""),
			"http://boot.example/web: not trusted", "see that this is the right server, or make its authority known: ignition.security.tls.certificateAuthorities"},
		{"resource.ErrNotFound", "fetch", fetched(resource.ErrNotFound, nil, ""),
			"http://boot.example/web: not found", "correct the address, or put there what it names"},
		{"resource.ErrHash", "fetch", fetched(resource.ErrHash, nil, ""),
			"http://boot.example/web: hash mismatch", "put on the server what the hash in the config is of, or correct the hash"},
		{"resource.ErrTooLarge", "fetch", fetched(resource.ErrTooLarge, nil, ""),
			"http://boot.example/web: too large", "see that the address is the right one, and make what is there smaller"},
		{"resource.ErrCompression", "fetch", fetched(resource.ErrCompression, nil, ""),
			"http://boot.example/web: cannot decompress", "see that what the server has is whole, and that the config names its compression"},
		{"resource.ErrScheme", "fetch", fetched(resource.ErrScheme, nil, ""),
			"http://boot.example/web: scheme not supported", "correct that address, hash or header"},
		{"resource.ErrSyntax", "fetch", fetched(resource.ErrSyntax, nil, ""),
			"http://boot.example/web: malformed", "correct that address, hash or header"},
		{"resource.ErrRedirect", "fetch", fetched(resource.ErrRedirect, nil, ""),
			"http://boot.example/web: redirect refused", "give the address that the server leads to"},
		{"", "fetch", fmt.Errorf("network: still coming up: %w", overdue{5 * time.Minute}),
			"network: still coming up: the deadline of 5m0s is over (pilotlight.deadline=)",
			"see what is waited for: is a cable in, and does DHCP answer (networkctl)? or give it longer: pilotlight.deadline="},

		// The TPM.
		{"initrd.ErrNoTPM", "fetch", step(word, fmt.Errorf("%w, and measure.required asks for one", initrd.ErrNoTPM)),
			"measure pilotlight:config:v1:user:sha256:dd34 into PCR 12: this machine has no TPM, and measure.required asks for one",
			"switch the TPM on in the firmware's setup, or do not ask for one: measure.required"},
		{"initrd.ErrSilentTPM", "fetch", step(word, initrd.ErrSilentTPM),
			"measure pilotlight:config:v1:user:sha256:dd34 into PCR 12: the TPM of this machine does not answer", "power the machine off, for the TPM to begin anew"},
		{"tpm.ErrAbsent", "fetch", &tpm.DeviceError{Path: "/dev/tpmrm0", Op: "open", Err: tpm.ErrAbsent},
			"tpm /dev/tpmrm0: open: no TPM device", "switch the TPM on in the firmware's setup, or do not ask for one: measure.required"},
		{"tpm.DeviceError", "fetch", &tpm.DeviceError{Path: "/dev/tpmrm0", Op: "TPM2_PCR_Extend", Err: context.DeadlineExceeded},
			"tpm /dev/tpmrm0: TPM2_PCR_Extend: context deadline exceeded", "power the machine off, for the TPM to begin anew"},
		{"tpm.ExtendError", "fetch", &tpm.ExtendError{PCR: 12, Outcome: tpm.Unknown, Err: errors.New("x")},
			"PCR 12 perhaps extended: x", "power the machine off, for the TPM to begin anew"},
		{"tpm.BankError", "fetch", &tpm.ExtendError{PCR: 12, Err: &tpm.BankError{Path: "/dev/tpmrm0", PCR: 12, Bank: "sm3_256"}},
			"PCR 12 not extended: tpm /dev/tpmrm0: PCR 12 is active in bank sm3_256, which cannot be measured into", "switch the PCR bank sm3_256 off in the firmware's setup"},
		{"tpm.LogError", "fetch", &tpm.LogError{Path: "/run/log/systemd/tpm2-measure.log", Record: 3, Err: tpm.ErrTorn},
			"event log /run/log/systemd/tpm2-measure.log: record 3: torn: it has no end", "power the machine off: the log of measurements is that of this boot alone"},
		{"tpm.ErrTorn", "fetch", &tpm.LogError{Err: tpm.ErrTorn}, "event log: torn: it has no end", "power the machine off: the log of measurements is that of this boot alone"},
		{"tpm.ErrDirtyLog", "fetch", tpm.ErrDirtyLog, "event log is marked incomplete", "power the machine off: the log of measurements is that of this boot alone"},

		// Disks.
		{"disk.SelectError", "repart", step(system, &disk.SelectError{Match: disk.Match{Serial: "A1"}}),
			`partitions "system" on boot by 0 definitions: no disk matches serial "A1": there is no disk at all`, "correct match, so that it fits exactly one disk of this machine"},
		{"disk.PartitionError", "repart", &disk.PartitionError{Path: "/dev/vda2", Disk: disk.Disk{Node: "/dev/vda"}, Number: 2},
			"/dev/vda2 is partition 2 of /dev/vda, not a whole disk", "correct device: the whole disk is /dev/vda"},
		{"disk.CountError", "verity", &disk.CountError{What: "the data partition", Found: make([]disk.Found, 2)},
			"the data partition: 2 of them", "detach the disk that is a copy of the other"},
		{"disk.CountError", "verity", &disk.CountError{What: "the data partition"},
			"the data partition: on no disk", "see that the disk is attached, and its driver in the initrd"},
		{"disk.ErrNotSet", "repart", step(system, fmt.Errorf("boot disk: %w", disk.ErrNotSet)),
			`partitions "system" on boot by 0 definitions: boot disk: no boot partition is known to the firmware`,
			"name the disk in the config: device: /dev/disk/by-id/…, or match; only some boot loaders say where they are"},
		{"disk.ErrNoVariables", "repart", disk.ErrNoVariables, "no EFI variables: efivarfs is not mounted",
			"name the disk in the config: device: /dev/disk/by-id/…, or match; only some boot loaders say where they are"},
		{"disk.ErrDamaged", "repart", &disk.TableError{Node: "/dev/vda", Err: disk.ErrDamaged},
			"partition table of /dev/vda: damaged GPT", "repair the table (sfdisk(8)), or say empty: force (of repart) or wipeTable (of storage.disks), which erase all that is on the disk"},
		{"disk.ErrMBR", "repart", &disk.TableError{Node: "/dev/vda", Err: disk.ErrMBR},
			"partition table of /dev/vda: an MBR label, not a GPT", "repair the table (sfdisk(8)), or say empty: force (of repart) or wipeTable (of storage.disks), which erase all that is on the disk"},
		{"disk.ErrSectorSize", "repart", &disk.TableError{Node: "/dev/vda", Err: disk.ErrSectorSize},
			"partition table of /dev/vda: GPT for another sector size", "write the image again, for the sector size of this disk"},
		{"disk.TableError", "repart", &disk.TableError{Node: "/dev/vda", Err: errors.New("read: no medium")},
			"partition table of /dev/vda: read: no medium", "see whether /dev/vda is failing: journalctl -k"},
		{"disk.ErrNoTable", "root", step(root, fmt.Errorf("%w: %w", disk.ErrNoTable, initrd.ErrStillAfter)),
			"/dev/vda4 mounted at /sysroot: no partition table: what it needs was not made by any earlier step",
			"let a definition of repart make what belongs at /sysroot, or write an image that has it"},
		{"disk.LookError", "repart", step(system, &disk.LookError{Path: "/dev/disk/by-id/x", Err: fs.ErrNotExist}),
			`partitions "system" on boot by 0 definitions: look at /dev/disk/by-id/x: file does not exist`,
			"see that /dev/disk/by-id/x is attached and its driver in the initrd, or correct device (ls /dev/disk/by-id)"},
		{"disk.LookError", "repart", &disk.LookError{Path: "/sys/block/vda/size", Err: fs.ErrInvalid},
			"look at /sys/block/vda/size: invalid argument", "see what the kernel says of it: journalctl -k"},
		{"disk.ScanError", "verity", &disk.ScanError{Failed: []error{&disk.TableError{Node: "/dev/vdb", Err: errors.New("read: no medium")}}},
			"partition table of /dev/vdb: read: no medium", "see whether /dev/vdb is failing: journalctl -k"},

		{"disk.LayoutError", "disks", step(layout, &disk.LayoutError{Partition: `partition 2 "var"`, Err: errors.New("it has 4 GiB, and 8 GiB were asked for")}),
			`partition 2 "var": it has 4 GiB, and 8 GiB were asked for`, "correct that partition in the config, or say what may be lost for it: wipePartitionEntry, wipeTable"},
		{"disk.ErrBootSector", "disks", step(layout, &disk.TableError{Node: "/dev/vdb", Err: fmt.Errorf("%w, but %w", disk.ErrNoTable, disk.ErrBootSector)}),
			"no partition table, but a boot sector", "correct the device: a file system may fill that disk; wipeTable erases it"},
		{"initrd.ErrOccupied", "disks", step(data, fmt.Errorf("/dev/vdb1 has btrfs, and ext4 was asked for: %w", initrd.ErrOccupied)),
			"/dev/vdb1 has btrfs, and ext4 was asked for: wipeFilesystem is not set", "correct the device, or say wipeFilesystem: true, which erases all that is on it"},
		{"disk.AmbivalentError", "disks", step(data, &disk.LookError{Path: "/dev/vdb1", Err: &disk.AmbivalentError{Found: []disk.Superblock{{Type: "ext4"}, {Type: "xfs"}}}}),
			"more than one signature: ext4, xfs", "see which of them is meant (wipefs(8) without options lists them) and wipe the other, or say wipeFilesystem: true"},
		{"initrd.ErrKeyLost", "etc", initrd.ErrKeyLost, "its key was generated, and /etc does not outlive this boot", "give that volume a keyFile, clevis or tpm2"},
		{"initrd.ErrNoLabels", "etc", fmt.Errorf("SELinux contexts: %w: the policy has no file_contexts", initrd.ErrNoLabels),
			"what was written gets no SELinux contexts: the policy has no file_contexts",
			"give the image setfiles and the policy's file_contexts, or switch SELinux off in its /etc/selinux/config"},

		// Programs.
		{"initrd.ProgramError", "repart", step(system, program("systemd-repart", 1, "Can't fit requested partitions into available free space (3.8G), refusing.; Automatically determined minimal disk image size as 64.9G, current image size is 4G.")),
			`partitions "system" on boot by 0 definitions: systemd-repart: exit 1: Can't fit requested partitions into available free space (3.8G), refusing; Automatically determined minimal disk image size as 64.9G, current image size is 4G.`,
			"give this machine a larger disk, or ask for less (SizeMinBytes=, PaddingMinBytes=)"},
		{"", "repart", step(system, fmt.Errorf("nothing was done: %w", program("systemd-repart", 77, "Disk already partitioned"))),
			"systemd-repart: exit 77", "say in the config what may become of that disk: empty: allow, or force, which erases all that is on it"},
		{"", "repart", program("systemd-repart", 1, "mkfs.xfs: No such file or directory"), "mkfs.xfs", "see that the initrd has mkfs for every Format= (pilotlight initrd addon --check)"},
		{"", "kargs", step(initrd.KernelArguments{ShouldExist: []string{"audit=1"}}, &initrd.ProgramError{Name: initrd.KernelArgumentsHelper, Err: errors.New("executable file not found in $PATH")}),
			"kernel arguments with audit=1: ignition-kargs-helper: executable file not found in $PATH",
			"give the image those kernel arguments, or its initrd the distribution's ignition-kargs-helper"},
		{"", "disks", errors.New("out of luck"), "out of luck", "see why: journalctl -b -u pilotlight-repart"},
		{"", "repart", program("systemd-repart", 1, "Unknown partition type: bogus"),
			"systemd-repart: exit 1: Unknown partition type: bogus", "correct the definitions (repart.d(5)); journalctl -b -u pilotlight-repart has all of it"},
		{"", "repart", &initrd.ProgramError{Name: "systemd-repart", Err: errors.New("executable file not found in $PATH: systemd-repart is in none of /usr/bin")},
			"is in none of", "pack the initrd anew with systemd-repart (pilotlight initrd addon --check names all that one lacks)"},
		{"", "repart", &initrd.ProgramError{Name: "systemd-repart", Err: context.Canceled},
			"systemd-repart: context canceled", "see who ended it: journalctl -b"},
		{"", "verity", step(usr, program("systemd-veritysetup", 1, "Failed to set up verity device 'usr': Invalid argument")),
			"/dev/mapper/usr open with root hash ab12: systemd-veritysetup: exit 1", "write the image anew: what is on the disk is damaged, or not of this root hash"},
		{"", "luks", program("systemd-cryptsetup", 1, "PCR policy"), "systemd-cryptsetup: exit 1: PCR policy",
			"boot what the data was sealed to (the same PCRs, this TPM, this key), or unlock it by hand with a recovery key"},
		{"", "root", step(root, fmt.Errorf("check of /dev/vda4: %w", program("systemd-fsck", 4, ""))), "/dev/vda4 mounted at /sysroot: check of /dev/vda4: systemd-fsck: exit 4", "repair that file system by hand with fsck"},
		{"", "root", step(root, program("mount", 32, "wrong fs type")), "mount: exit 32: wrong fs type", "see what is on that device (blkid), and that the initrd has the file system's driver"},
		{"", "etc", program("systemd-sysusers", 1, ""), "systemd-sysusers: exit 1", "correct etc.sysusers of the config, or the image's own lines in sysusers.d"},
		{"", "etc", program("systemd-tmpfiles", 1, ""), "systemd-tmpfiles: exit 1", "correct etc.tmpfiles of the config, or the image's own lines in tmpfiles.d"},
		{"", "etc", program("systemd-creds", 1, ""), "systemd-creds: exit 1", "see that the credential is sealed to this machine (systemd-creds(1))"},
		{"", "etc", program("systemctl", 1, "Unit x.service does not exist"), "systemctl: exit 1: Unit x.service does not exist", "see that the image has the units that the config enables"},
		{"", "fetch", fmt.Errorf("network: %w", program("systemctl", 1, "A dependency job failed")), "network: systemctl: exit 1", "see that a link is up and has an address: networkctl"},

		// The new root.
		{"initrd.ErrExists", "etc", step(motd, fmt.Errorf("/etc/motd: %w", initrd.ErrExists)),
			"file /etc/motd: something else is there already, and overwrite is not set", "say overwrite: true for it in the config, or remove what is there"},
		{"initrd.ErrUnknownOwner", "etc", step(motd, fmt.Errorf("/sysroot/etc/passwd: %w %q: %w", initrd.ErrUnknownOwner, "web", initrd.ErrStillAfter)),
			`file /etc/motd: /sysroot/etc/passwd: unknown user or group "web": what it needs was not made by any earlier step`, "let etc.sysusers make that user or group, or give its number"},
		{"initrd.Error", "etc", step(initrd.MadeAnew{Step: motd}, errors.New("x")), "file /etc/motd: x", "see why: journalctl -b -u pilotlight-etc"},
		{"initrd.ErrStillNotSo", "etc", step(motd, initrd.ErrStillNotSo), "file /etc/motd: done without an error, and yet it is not so", "see what changed it at once, and report it if nobody did"},
		{"initrd.ErrStillAfter", "etc", step(motd, initrd.ErrStillAfter), "file /etc/motd: what it needs was not made by any earlier step", "let the config make what it needs"},
		{"initrd.ErrOtherHash", "verity", step(usr, fmt.Errorf("/dev/mapper/usr: %w, cd34", initrd.ErrOtherHash)),
			"/dev/mapper/usr open with root hash ab12: it is open with another root hash, cd34", "make roothash= or usrhash= of the kernel arguments and rootHash of the config agree"},
		{"", "verity", step(usr, fmt.Errorf("waited 30 s for the data partition of this root hash: %w", fs.ErrNotExist)),
			"waited 30 s for the data partition", "write that image to the disk, or correct rootHash"},
		{"", "root", step(initrd.MadeAnew{Step: root}, missing), "/dev/vda4 mounted at /sysroot: stat /dev/disk/by-id/x: file does not exist",
			"let a definition of repart make what belongs at /sysroot, or write an image that has it"},

		// The kernel.
		{"", "etc", step(motd, errors.New("write /etc/.new: no space left on device")), "no space left on device", "make that file system larger, or write less to it"},
		{"", "etc", step(motd, errors.New("open /etc/.new: read-only file system")), "read-only file system", "let that path lie on what can be written: etc.upper, or a definition with MountPoint="},
		{"", "etc", step(motd, errors.New("read: input/output error")), "input/output error", "see whether the disk is failing: journalctl -k"},
		{"", "etc", errors.New("something nobody thought of"), "something nobody thought of", "see why: journalctl -b -u pilotlight-etc"},
		{"", "luks", errors.New("something nobody thought of"), "something nobody thought of", "see why: journalctl -b -u pilotlight-root"},
	}
}

// TestThreeLines: what failed and what to do, by what went wrong.
func TestThreeLines(t *testing.T) {
	for _, c := range failings() {
		f := failure(c.part, c.err, nil)
		want := c.next + ", then boot again: it goes on from here"
		if c.part == "fetch" {
			want = "nothing was changed; " + c.next + ", then boot again"
		}
		if !strings.Contains(f.What, c.what) || f.Next != want {
			t.Errorf("%s: %v\n  what %s\n  next %s\n  want %s", c.part, c.err, f.What, f.Next, want)
		}
		for _, line := range f.Lines() {
			if n := utf8.RuneCountInString(line); n > 320 || strings.ContainsAny(line, "\n\t\x1b") {
				t.Errorf("%d letters: %q", n, line)
			}
		}
	}
}

// TestFailedFetchIsWhereItsAddressStands, which the error gives without its query.
func TestFailedFetchIsWhereItsAddressStands(t *testing.T) {
	documents := []config.Document{
		{Name: "broken", Bytes: []byte(`{`)},
		{Name: "user", Bytes: []byte(`{"ignition": {"version": "3.4.0", "config": {"merge": [{"source": "http://a.example/x"},
{"source": "http://b.example/y?token=hunter2"}]},
"security": {"tls": {"certificateAuthorities": [{"source": "http://c.example/ca"}]}}}}`)},
	}
	for address, want := range map[string]string{
		"http://b.example/y?token=hunter2": "user:2:1: $.ignition.config.merge.1",
		"http://c.example/ca":              "user:3:49: $.ignition.security.tls.certificateAuthorities.0",
		"http://d.example/z":               "",
	} {
		u, err := resource.ParseURL(address)
		if err != nil {
			t.Fatal(err)
		}
		fetch := &resource.Error{What: (resource.Resource{Source: u}).String(), Err: resource.ErrNotFound}
		f := failure("fetch", fmt.Errorf("a: %w", fetch), documents)
		if f.Where != want {
			t.Errorf("%s is at %q, want %q", address, f.Where, want)
		}
		if strings.Contains(strings.Join(f.Lines(), ""), "hunter2") {
			t.Errorf("%q", f.Lines())
		}
	}
}

// TestEveryErrorHasItsAdvice: an error that a package promises to its callers is told
// with advice of its own, or cannot end a boot.
func TestEveryErrorHasItsAdvice(t *testing.T) {
	told := map[string]bool{
		"providers.ErrNone":  true, // is no failure
		"resource.ErrNobody": true, // leads to an anonymous request
		"initrd.ErrNoBoot":   true, // outside a boot alone
		"disk.ErrNoLUKS":     true, // leads to a new volume
	}
	for _, f := range failings() {
		told[f.of] = true
	}
	declared := regexp.MustCompile(`(?m)^(?:type (\w+Error) struct|(?:var |\t)(Err\w+)\s+= errors\.New)`)
	for _, dir := range []string{"config", "config/resource", "initrd", "initrd/disk", "initrd/tpm", "providers", "stages"} {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v %v", dir, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
				name := filepath.Base(dir) + "." + m[1] + m[2]
				exported := m[1]+m[2] != "" && (m[1] + m[2])[0] < 'a'
				if exported && !strings.HasSuffix(file, "_test.go") && !told[name] {
					t.Errorf("%s of %s is not told of", name, file)
				}
			}
		}
	}
}

func TestBriefIsFitForAConsole(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a: b: c", "a: b: c"},
		{"x: x: y", "x: y"},
		{"file /etc/motd: /etc/motd: no", "file /etc/motd: no"},
		{"file /etc/motdx: /etc/motd: no", "file /etc/motdx: /etc/motd: no"},
		{"mount: exit 32: mount: bad", "mount: exit 32: bad"},
		{"one.\ntwo\n", "one; two"},
		{"\x1b[31mred\x07", "?[31mred?"},
	} {
		if got := brief(c.text); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
	long := brief("begin " + strings.Repeat("ä", 1000) + " end")
	if n := utf8.RuneCountInString(long); n != mostLetters || !strings.HasPrefix(long, "begin ") || !strings.HasSuffix(long, " end") {
		t.Errorf("%d letters: %s", n, long)
	}
}
