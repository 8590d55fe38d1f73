package initrd

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

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
	m.mu.Lock()
	defer m.mu.Unlock()
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
	// Disks are made side by side, and each may have a receipt to leave.
	m.keeping.Lock()
	defer m.keeping.Unlock()
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
