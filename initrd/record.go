package initrd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// A Record is what makes a machine provisioned: the little that looking at it
// cannot tell. It lies where it can be read before any disk is unlocked or
// mounted, on the ESP, on XBOOTLDR, or on a partition of our own type:
//
//	pilotlight/record.json   this
//	pilotlight/kept-DIGEST   the kept copy of the config; the record names it
//	pilotlight/failures      how many boots in a row have failed
//
// The zero value is a machine without a record.
type Record struct {
	Version   int        `json:"version"`
	State     string     `json:"state"`     // Started or Complete
	Provision string     `json:"provision"` // the provision id, a UUID
	Platform  string     `json:"platform"`
	Config    string     `json:"config"`             // SHA-256 over the documents, hexadecimal
	Disks     []Identify `json:"disks"`              // the disk that the record lies on
	Receipts  []string   `json:"receipts,omitempty"` // of ScopeProvision
	Kept      *Kept      `json:"kept,omitempty"`
	// Failures are the failed boots in a row. They are in a file of their own, since
	// boots can fail before there is a record.
	Failures int `json:"-"`
}

// The states of a record.
const (
	Started  = "started"  // before the first step that can lose data
	Complete = "complete" // after the last step
)

// recordVersion is the version of the format that this program writes. It reads no other.
const recordVersion = 1

// Identify is what a disk is known by.
type Identify struct {
	GPT    string `json:"gpt"`              // the disk GUID
	Serial string `json:"serial,omitempty"` // the drive's own, where it has one
	WWN    string `json:"wwn,omitempty"`
}

// Memory is what earlier boots left, and where.
type Memory struct {
	Record Record
	Place  Place
	kept   []byte
}

// A Place is where a record can lie. The zero value is none: a diskless machine.
type Place struct {
	Node string
	Disk Identify
	Kind string // "ESP", "XBOOTLDR" or "state partition"
}

func (p Place) String() string {
	if p.Node == "" {
		return "nowhere"
	}
	return p.Kind + " " + p.Node
}

// RecordError says that there is a record, or a place for one, which cannot be
// read or cannot be this machine's. It stops a boot before anything is lost:
// unreadable is never taken for "not there".
type RecordError struct {
	Place Place
	Err   error
}

func (e *RecordError) Error() string { return fmt.Sprintf("record on %s: %v", e.Place, e.Err) }
func (e *RecordError) Unwrap() error { return e.Err }

// Recall finds the place of the record and reads what is there.
func (m *Machine) Recall(ctx context.Context) (Memory, error) {
	places, err := m.places(ctx)
	if err != nil || len(places) == 0 {
		return Memory{}, err
	}
	return m.recall(places...)
}

// recall reads what is at the places where a record can lie, the best one first.
// One of them has it; where none has, the first one is where it will be. Two records
// are an error, and so is a place that cannot be read, unless another one has the
// record: there is never more than one.
func (m *Machine) recall(places ...Place) (Memory, error) {
	memory, found := Memory{Place: places[0]}, false
	var unreadable *RecordError
	for _, p := range places {
		var here Memory
		var fault error // of what is there
		err := m.at(p, false, func(dir string) error {
			here, fault = readMemory(dir, p)
			return nil
		})
		switch {
		case err != nil:
			if unreadable == nil {
				unreadable = &RecordError{p, err}
			}
		case fault != nil:
			return Memory{Place: p}, &RecordError{p, fault}
		case here.Record.State != "" && found:
			return Memory{Place: p}, &RecordError{p, fmt.Errorf("there is another record on %s: remove the one that is not this machine's", memory.Place)}
		case here.Record.State != "":
			memory, found = here, true
		case p == memory.Place:
			memory = here
		}
	}
	if unreadable != nil && !found {
		return Memory{Place: unreadable.Place}, unreadable
	}
	m.memory = memory
	return memory, nil
}

// The files of a record, and how much of each is read.
const (
	recordFile    = "record.json"
	failuresFile  = "failures"
	keptPrefix    = "kept-"
	recordLimit   = 1 << 20
	failuresLimit = 16
)

// readMemory reads what is in our directory of a place.
func readMemory(dir string, place Place) (Memory, error) {
	memory := Memory{Place: place}
	data, err := readRegular(filepath.Join(dir, recordFile), recordLimit)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = unfinished(dir)
	}
	if err != nil {
		return memory, err
	}
	if data != nil {
		if memory.Record, err = parseRecord(data, place); err != nil {
			return Memory{Place: place}, err
		}
	}
	if memory.Record.Failures, err = readFailures(dir); err != nil {
		return Memory{Place: place}, err
	}
	k := memory.Record.Kept
	if k == nil || k.Form == "digest" {
		return memory, nil
	}
	memory.kept, err = readRegular(filepath.Join(dir, k.file()), keptLimit)
	if err != nil {
		return Memory{Place: place}, fmt.Errorf("the kept copy of the config: %w", err)
	}
	if sum := sha256.Sum256(memory.kept); hex.EncodeToString(sum[:]) != k.SHA256 {
		return Memory{Place: place}, errors.New("the kept copy of the config is not the one that the record names")
	}
	return memory, nil
}

// unfinished gives a record that was written under its second name alone, nil for
// none. Replacing a file on FAT is not one step, and a crash can leave the new name
// alone: then it is whole, since the rename comes after the disk has all of it. One
// that is not whole is the very first record, whose writing never ended: nothing was
// begun yet, and there is no record.
func unfinished(dir string) ([]byte, error) {
	data, err := readRegular(filepath.Join(dir, recordFile+".new"), recordLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || json.Valid(data) {
		return data, err
	}
	kept, err := filepath.Glob(filepath.Join(dir, keptPrefix+"*"))
	if err == nil && len(kept) > 0 {
		err = errors.New("the record is gone, and what was to replace it is not whole")
	}
	return nil, err
}

// readFailures reads the count of failed boots. One that is damaged counts as one
// failure: a boot that completes removes it.
func readFailures(dir string) (int, error) {
	data, err := readRegular(filepath.Join(dir, failuresFile), failuresLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 1 {
		return 1, nil
	}
	return n, nil
}

// readRegular reads a regular file of at most limit bytes. What lies on a disk may
// have been put there by anybody: a FIFO would be waited for, a device read for ever.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %v", filepath.Base(name), info.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", filepath.Base(name), limit)
	}
	return data, err
}

// Disown forgets what the record says: this boot is a first boot, and its record
// will replace the old one.
func (m *Machine) Disown(p Place) Memory {
	m.memory = Memory{Place: p}
	return m.memory
}

// parseRecord decodes and judges a record.
func parseRecord(data []byte, place Place) (Record, error) {
	// First of all: what a newer format means, this version cannot know.
	var format struct{ Version int }
	if err := json.Unmarshal(data, &format); err == nil && format.Version > recordVersion {
		return Record{}, fmt.Errorf("format %d is not known to this version", format.Version)
	}
	var r Record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return Record{}, errors.New("something follows the record")
	}
	switch {
	case r.Version != recordVersion:
		return Record{}, fmt.Errorf("format %d is not known to this version", r.Version)
	case r.State != Started && r.State != Complete:
		return Record{}, fmt.Errorf("state %q is neither %s nor %s", r.State, Started, Complete)
	case r.Provision == "":
		return Record{}, errors.New("it has no provision id")
	case r.Kept != nil && !r.Kept.valid():
		return Record{}, errors.New("it names no kept copy that there could be")
	case !slices.ContainsFunc(r.Disks, place.Disk.same):
		return Record{}, fmt.Errorf("it was written on another disk (%v); this one is %+v", r.Disks, place.Disk)
	}
	return r, nil
}

// same compares what both know.
func (d Identify) same(o Identify) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return d.GPT == o.GPT && !differ(d.Serial, o.Serial) && !differ(d.WWN, o.WWN)
}

// places finds where the record can lie, the best place first: on XBOOTLDR or the ESP
// of the disk that we were started from; else on the one partition of our own type.
func (m *Machine) places(ctx context.Context) ([]Place, error) {
	boot, err := bootPartition()
	if err == nil {
		what := fmt.Sprintf("the boot partition (UUID %s)", boot)
		found, err := waitFor(ctx, m, what, func() ([]disk.Found, error) { return m.partitions(boot) })
		if err != nil {
			return nil, err
		}
		one, err := disk.Only(what, found)
		if err != nil {
			return nil, err
		}
		return m.bootPlaces(one)
	}
	if !errors.Is(err, disk.ErrNotSet) {
		return nil, err
	}
	// Without the firmware's word no single device can be waited for: only for udev
	// to be done with what the kernel found.
	if _, err := m.Look(ctx).Ask(Query{Program: "udevadm", Args: []string{"settle", "--timeout=60"}}); err != nil {
		return nil, err
	}
	found, err := m.Disks.PartitionsByType(disk.TypeState())
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, nil
	}
	one, err := disk.Only("state partition", found)
	if err != nil {
		return nil, err
	}
	id, err := m.identify(one)
	return []Place{{Node: one.Partition.Node, Disk: id, Kind: "state partition"}}, err
}

// bootPlaces are those on the boot disk. XBOOTLDR first: where there is one, the ESP
// is small. But it may be younger than a record on the ESP.
func (m *Machine) bootPlaces(boot disk.Found) ([]Place, error) {
	table, err := m.Disks.Table(boot.Disk)
	if err != nil {
		return nil, err
	}
	id, err := m.identify(boot)
	if err != nil {
		return nil, err
	}
	var list []Place
	for _, p := range table.Partitions {
		if p.Type == disk.TypeXBOOTLDR() && p.Node != "" {
			list = append(list, Place{Node: p.Node, Disk: id, Kind: "XBOOTLDR"})
		}
	}
	if boot.Partition.Type != disk.TypeXBOOTLDR() {
		return append(list, Place{Node: boot.Partition.Node, Disk: id, Kind: "ESP"}), nil
	}
	for _, p := range table.Partitions {
		if p.Type == disk.TypeESP() && p.Node != "" {
			list = append(list, Place{Node: p.Node, Disk: id, Kind: "ESP"})
		}
	}
	return list, nil
}

func (m *Machine) identify(f disk.Found) (Identify, error) {
	table, err := m.Disks.Table(f.Disk)
	if err != nil {
		return Identify{}, err
	}
	return Identify{GPT: table.GUID.String(), Serial: f.Disk.Serial, WWN: f.Disk.WWN}, nil
}

// at mounts the place, privately and only for as long as do runs, and gives it
// our directory there.
func (m *Machine) at(p Place, write bool, do func(dir string) error) (err error) {
	point, err := os.MkdirTemp(m.Run, "place-")
	if err != nil {
		return err
	}
	defer os.Remove(point)
	// No links: what lies there may lead anywhere.
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW)
	if !write {
		flags |= unix.MS_RDONLY
	}
	types := []string{"vfat"}
	if p.Kind != "ESP" {
		types = append(types, "ext4", "btrfs", "xfs")
	}
	for _, t := range types {
		options := ""
		if t == "vfat" {
			options = "umask=0077"
		}
		refused := unix.Mount(p.Node, point, t, flags, options)
		if refused == nil {
			err = nil
			break
		}
		if err == nil {
			err = fmt.Errorf("mount %s as %s: %w", p.Node, t, refused)
		} else {
			err = fmt.Errorf("%w, as %s: %w", err, t, refused)
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if uerr := unix.Unmount(point, 0); err == nil && uerr != nil {
			err = fmt.Errorf("unmount %s: %w", p.Node, uerr)
		}
	}()
	return do(filepath.Join(point, "pilotlight"))
}

// remember writes the record, and with kept not nil the kept copy. The copy is on
// the disk before the record names it.
func (m *Machine) remember(r Record, kept []byte) error {
	if m.memory.Place.Node == "" {
		return nil
	}
	r.Version = recordVersion
	r.Disks = []Identify{m.memory.Place.Disk}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	err = m.at(m.memory.Place, true, func(dir string) error {
		for _, move := range moves(dir, r, append(data, '\n'), kept) {
			if err := move(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return &RecordError{m.memory.Place, err}
	}
	m.memory.Record = r
	if kept != nil {
		m.memory.kept = kept
	}
	return nil
}

// moves are what writes a record, in order. The power may go before, after and in the
// midst of each of them, and what is read then is the old record or the new one: no
// file that a record names is ever written over, and the record itself is replaced in
// one move, when the disk has all that it names.
func moves(dir string, r Record, data, kept []byte) []func() error {
	list := []func() error{func() error { return os.MkdirAll(dir, 0o700) }}
	if kept != nil {
		list = append(list, replacing(filepath.Join(dir, r.Kept.file()), kept)...)
	}
	list = append(list, replacing(filepath.Join(dir, recordFile), data)...)
	if r.State == Complete && r.Failures == 0 {
		list = append(list, func() error { return ignoreAbsent(os.Remove(filepath.Join(dir, failuresFile))) })
	}
	return append(list, func() error { return tidyUp(dir, r) })
}

// tidyUp removes what no record names any more: other kept copies, and what a crash
// left half written.
func tidyUp(dir string, r Record) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		old := strings.HasPrefix(name, keptPrefix) && (r.Kept == nil || name != r.Kept.file())
		if old || strings.HasSuffix(name, ".new") {
			err = errors.Join(err, ignoreAbsent(os.Remove(filepath.Join(dir, name))))
		}
	}
	return err
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replacing are the moves that replace a file: written under a second name, until the
// disk has it all; renamed; and that on the disk too.
func replacing(name string, data []byte) []func() error {
	return []func() error{
		func() error {
			err := writeOnDisk(name+".new", data)
			if err != nil {
				// Such as on a full disk, where the space is wanted back.
				err = errors.Join(err, ignoreAbsent(os.Remove(name+".new")))
			}
			return err
		},
		func() error { return os.Rename(name+".new", name) },
		func() error {
			d, err := os.Open(filepath.Dir(name))
			if err != nil {
				return err
			}
			defer d.Close()
			return unix.Syncfs(int(d.Fd()))
		},
	}
}

func writeOnDisk(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// Keep leaves a receipt, one of ScopeProvision in the record too. Without a place
// for a record it holds for this boot.
func (m *Machine) Keep(r Receipt) error {
	m.leave(r)
	record := m.memory.Record
	if r.Scope != ScopeProvision || slices.Contains(record.Receipts, r.Name) {
		return nil
	}
	record.Receipts = append(slices.Clone(record.Receipts), r.Name)
	return m.remember(record, nil)
}

// Failed counts one more failed boot, beside the record or, before there is one,
// where it would be, and gives the new count. A boot that completes ends it.
//
// The error is ErrNoPlace where there is no such place, or where what is there cannot
// be read (see Recall); a *RecordError where it cannot be written. Who reboots after
// a failure must not do so then: nothing would ever end it.
func (m *Machine) Failed() (int, error) {
	if m.memory.Place.Node == "" {
		return 0, ErrNoPlace
	}
	n := 0
	err := m.at(m.memory.Place, true, func(dir string) error {
		have, err := readFailures(dir)
		if err != nil {
			return err
		}
		n = have + 1
		list := append([]func() error{func() error { return os.MkdirAll(dir, 0o700) }},
			replacing(filepath.Join(dir, failuresFile), []byte(strconv.Itoa(n)+"\n"))...)
		for _, move := range list {
			if err := move(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, &RecordError{m.memory.Place, err}
	}
	m.memory.Record.Failures = n
	return n, nil
}

// Recorded wishes that the record says how far this machine is.
type Recorded struct {
	State     string
	Provision string
	Platform  string
	Config    string // digest of the documents
	Form      string // of the kept copy
	Documents []byte // what is kept, as Freeze packs it
}

func (r Recorded) String() string {
	return fmt.Sprintf("record says %s, provision %s", r.State, r.Provision)
}

// Touches is the record, and the disks, since it lies on one: what could lose data
// waits until the record says that it began.
func (r Recorded) Touches() []string { return []string{"record", "disks"} }

// ErrNoPlace says that this machine has no place for a record: each of its boots
// is a first boot.
var ErrNoPlace = errors.New("there is no ESP, XBOOTLDR or state partition for a record: every boot is a first boot")

// Resolve reads the record.
func (r Recorded) Resolve(look Look) (State, Act, error) {
	have := look.Record()
	done := r.State == Started || have.Failures == 0
	if have.State == r.State && have.Provision == r.Provision && have.Config == r.Config && done {
		return So, nil, nil
	}
	if !look.Placed() {
		return Moot, nil, ErrNoPlace
	}
	return NotSo, recorded{r}, nil
}

type recorded struct{ Recorded }

func (r recorded) String() string { return "write the record: " + r.State }

func (r recorded) do(ctx context.Context, m *Machine) error {
	next := m.memory.Record
	next.State, next.Provision, next.Platform = r.State, r.Provision, r.Platform
	next.Config = r.Config
	if r.State == Started {
		// Failed boots are counted until one is complete.
		return m.remember(next, nil)
	}
	next.Failures = 0
	if have := m.memory.Record; have.State == Complete && have.Config == r.Config && have.Kept != nil && have.Kept.Form == r.Form {
		// The copy is of this config. Another one beside a record that does not name
		// it yet is what a crash here would leave.
		return m.remember(next, nil)
	}
	kept, file, err := m.seal(ctx, r.Form, r.Documents)
	if err != nil {
		return err
	}
	next.Kept = kept
	return m.remember(next, file)
}
