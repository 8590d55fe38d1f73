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

// Memory is what earlier boots left, and where.
type Memory struct {
	Record Record
	Place  Place
	kept   []byte
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
