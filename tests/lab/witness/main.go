// Witness tells what a guest looks like from inside.
//
// It runs in stage 2 of a laboratory guest as lab-witness.service, whose standard output is the second serial port, and prints [lab.Facts] as
// one line of JSON. It waits until the boot has settled, at most two minutes, and changes nothing: it mounts the ESP, read-only, when all else
// has been seen, and only if nobody else has it mounted. The unit powers the guest off when it ends.
//
//	witness [UNIT-PATTERN]...
//
// The patterns choose the units whose journal messages are told (journalctl -u).
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pilotlight/tests/lab"
)

const (
	settleDeadline = 120 * time.Second
	askDeadline    = 30 * time.Second
	pollEvery      = 500 * time.Millisecond
	maxHashed      = 4 << 20 // bytes of a file that is hashed; nothing in an /etc is larger
	maxEntries     = 2000    // journal messages
)

func main() {
	state := settle()
	facts := gather(os.Args[1:])
	facts.State = state
	line, err := json.Marshal(facts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// settle waits until systemd has no more jobs of the boot to do, and gives its state.
func settle() string {
	deadline := time.Now().Add(settleDeadline)
	for {
		// It exits 1 for every state but "running".
		out, err := ask("systemctl", "is-system-running")
		state := strings.TrimSpace(string(out))
		if err != nil && state == "" {
			state = err.Error()
		}
		if state != "initializing" && state != "starting" || time.Now().After(deadline) {
			return state
		}
		time.Sleep(pollEvery)
	}
}

// ask runs a program that only reads, and gives its standard output also beside an error.
func ask(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// gather fills in everything but the state. A fact that cannot be had does not stop the others.
func gather(patterns []string) lab.Facts {
	var f lab.Facts
	f.Problems = map[string]string{}
	for _, fact := range []struct {
		name string
		fill func(*lab.Facts) error
	}{
		{"times", times},
		{"units", units},
		{"report", report},
		{"pcr12", pcr12},
		{"event log", eventLog},
		{"firmware log", firmwareLog},
		{"blocks", blocks},
		{"mapper", mapper},
		{"mounts", mounts},
		{"etc", func(f *lab.Facts) (err error) { f.Etc, err = list("/etc", "/etc"); return err }},
		{"machine id", func(f *lab.Facts) error { return word(&f.MachineID, "/etc/machine-id") }},
		{"hostname", func(f *lab.Facts) error { return word(&f.Hostname, "/proc/sys/kernel/hostname") }},
		{"command line", func(f *lab.Facts) error { return word(&f.CommandLine, "/proc/cmdline") }},
		{"kernel", func(f *lab.Facts) error { return word(&f.Kernel, "/proc/sys/kernel/osrelease") }},
		{"credentials", credentials},
		{"journal", func(f *lab.Facts) error { return journal(f, patterns) }},
		{"esp", esp},
	} {
		if err := fact.fill(&f); err != nil {
			f.Problems[fact.name] = err.Error()
		}
	}
	return f
}

func word(to *string, path string) error {
	raw, err := os.ReadFile(path)
	*to = strings.TrimSpace(string(raw))
	return err
}

func times(f *lab.Facts) error {
	out, err := ask("systemctl", "show", "--property=KernelTimestampMonotonic,InitRDTimestampMonotonic,UserspaceTimestampMonotonic,FinishTimestampMonotonic,"+
		"InitRDUnitsLoadStartTimestampMonotonic,InitRDUnitsLoadFinishTimestampMonotonic,UnitsLoadStartTimestampMonotonic,UnitsLoadFinishTimestampMonotonic")
	if err != nil {
		return err
	}
	f.Times = map[string]uint64{}
	for line := range strings.Lines(string(out)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		micros, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.Times[name] = micros
	}
	return nil
}

func units(f *lab.Facts) error {
	out, err := ask("systemctl", "list-units", "--all", "--output=json")
	if err != nil {
		return err
	}
	var list []struct{ Unit, Load, Active, Sub string }
	if err := json.Unmarshal(out, &list); err != nil {
		return err
	}
	f.Units = map[string]lab.Unit{}
	for _, u := range list {
		f.Units[u.Unit] = lab.Unit{Load: u.Load, Active: u.Active, Sub: u.Sub}
	}
	return nil
}

func report(f *lab.Facts) error {
	raw, err := os.ReadFile("/run/pilotlight/report.json")
	if err != nil {
		return err
	}
	if !json.Valid(raw) {
		return errors.New("not JSON")
	}
	f.Report = raw
	return nil
}

func pcr12(f *lab.Facts) error {
	const tpm = "/sys/class/tpm/tpm0/"
	banks, err := filepath.Glob(tpm + "pcr-*/12")
	if err != nil {
		return err
	}
	if len(banks) == 0 {
		return fmt.Errorf("no %spcr-*/12", tpm)
	}
	f.PCR12 = map[string]string{}
	for _, path := range banks {
		var value string
		if err := word(&value, path); err != nil {
			return err
		}
		f.PCR12[strings.TrimPrefix(filepath.Base(filepath.Dir(path)), "pcr-")] = strings.ToLower(value)
	}
	return nil
}

func eventLog(f *lab.Facts) (err error) {
	f.EventLog, err = os.ReadFile("/run/log/systemd/tpm2-measure.log")
	return err
}

func firmwareLog(f *lab.Facts) (err error) {
	f.FirmwareLog, err = os.ReadFile("/sys/kernel/security/tpm0/binary_bios_measurements")
	return err
}

func blocks(f *lab.Facts) error {
	out, err := ask("lsblk", "--json", "--bytes", "--list", "--output",
		"NAME,PKNAME,TYPE,SIZE,START,RO,SERIAL,PARTTYPE,PARTUUID,PARTLABEL,FSTYPE,LABEL,UUID")
	if err != nil {
		return err
	}
	var list struct {
		Blockdevices []lab.Block `json:"blockdevices"`
	}
	err = json.Unmarshal(out, &list)
	f.Blocks = list.Blockdevices
	return err
}

// mapper reads "NAME: TABLE" lines of dmsetup.
func mapper(f *lab.Facts) error {
	f.Mapper = map[string]lab.Mapping{}
	for _, verb := range []string{"table", "status"} {
		out, err := ask("dmsetup", verb)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(out)) {
			name, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if !ok {
				continue // "No devices found"
			}
			mapping := f.Mapper[name]
			if verb == "table" {
				mapping.Table = text
			} else {
				mapping.Status = text
			}
			f.Mapper[name] = mapping
		}
	}
	return nil
}

// mounts reads proc_pid_mountinfo(5): "id parent major:minor root target options [optional...] - type source superoptions".
func mounts(f *lab.Facts) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			return fmt.Errorf("mountinfo: %q", line)
		}
		f.Mounts = append(f.Mounts, lab.Mount{Target: left[4], Type: right[0], Source: right[1], Options: left[5] + "," + right[2]})
	}
	return nil
}

// list describes a folder and everything below it on the same file system; paths begin with prefix instead of dir.
func list(dir, prefix string) ([]lab.File, error) {
	out, err := ask("find", dir, "-xdev", "-printf", `%P\0%y\0%m\0%U\0%G\0%s\0%l\0`)
	if err != nil {
		return nil, err
	}
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(fields)%7 != 0 {
		return nil, fmt.Errorf("find %s: %d fields", dir, len(fields))
	}
	var files []lab.File
	for ; len(fields) > 0; fields = fields[7:] {
		size, err := strconv.ParseInt(fields[5], 10, 64)
		if err != nil {
			return nil, err
		}
		file := lab.File{Path: filepath.Join(prefix, fields[0]), Type: fields[1], Mode: fmt.Sprintf("%04s", fields[2]), UID: fields[3], GID: fields[4], Size: size, Link: fields[6]}
		if file.Type == "f" && size <= maxHashed {
			if file.SHA256, err = digest(filepath.Join(dir, fields[0])); err != nil {
				return nil, err
			}
		}
		files = append(files, file)
	}
	return files, nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// credentials reads the system credentials where systemd.exec(5) says that the service manager keeps them, and the credential store.
func credentials(f *lab.Facts) error {
	f.Credentials = map[string]string{}
	for _, dir := range []string{"/run/credstore", "/run/credentials/@system", "/run/credentials/@encrypted"} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, entry := range entries {
			sum, err := digest(filepath.Join(dir, entry.Name()))
			if err != nil {
				return err
			}
			f.Credentials[entry.Name()] = sum
		}
	}
	return nil
}

// journal reads messages of this boot. The initrd had a machine id of its own, so that its journal lies beside that of stage 2: hence --merge,
// which journalctl does not take together with --boot.
func journal(f *lab.Facts, patterns []string) error {
	if len(patterns) == 0 {
		return nil
	}
	var boot string
	if err := word(&boot, "/proc/sys/kernel/random/boot_id"); err != nil {
		return err
	}
	args := []string{"--merge", "_BOOT_ID=" + strings.ReplaceAll(boot, "-", ""), "--output=json", "--output-fields=MESSAGE,UNIT,_SYSTEMD_UNIT", "--quiet", "--no-pager", "--lines=" + strconv.Itoa(maxEntries)}
	for _, pattern := range patterns {
		args = append(args, "--unit="+pattern)
	}
	out, err := ask("journalctl", args...)
	if err != nil {
		return err
	}
	switched := f.Times["UserspaceTimestampMonotonic"]
	for line := range strings.Lines(string(out)) {
		var raw struct {
			Micros  string          `json:"__MONOTONIC_TIMESTAMP"`
			About   string          `json:"UNIT"`
			By      string          `json:"_SYSTEMD_UNIT"`
			Message json.RawMessage `json:"MESSAGE"`
		}
		if err := json.Unmarshal([]byte(line), &raw); err != nil {
			return err
		}
		micros, err := strconv.ParseUint(raw.Micros, 10, 64)
		if err != nil {
			return err
		}
		entry := lab.Entry{Micros: micros, Unit: raw.About, Initrd: micros < switched}
		if entry.Unit == "" {
			entry.Unit = raw.By
		}
		// A message that is not text comes as a list of bytes; its JSON is as good a description.
		if json.Unmarshal(raw.Message, &entry.Message) != nil {
			entry.Message = string(raw.Message)
		}
		f.Journal = append(f.Journal, entry)
	}
	return nil
}

// espType is the GPT type of an ESP (Discoverable Partitions Specification).
const espType = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

func esp(f *lab.Facts) (err error) {
	for _, b := range f.Blocks {
		if b.PartType != espType {
			continue
		}
		device := "/dev/" + b.Name
		for _, m := range f.Mounts {
			if m.Source == device {
				f.ESP, err = list(m.Target, "/")
				return err
			}
		}
		dir, err := os.MkdirTemp("/run", "lab-esp-")
		if err != nil {
			return err
		}
		defer os.Remove(dir)
		if _, err := ask("mount", "-t", "vfat", "-o", "ro", device, dir); err != nil {
			return err
		}
		f.ESP, err = list(dir, "/")
		_, unmountErr := ask("umount", dir)
		return errors.Join(err, unmountErr)
	}
	return errors.New("no ESP")
}
