package initrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
	"pilotlight/initrd/tpm"
)

// look is the machine, read-only, as long as ctx holds.
type look struct {
	ctx context.Context
	m   *Machine
}

func (l look) Stat(root, path string) (Entry, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return Entry{}, err
	}
	return t.stat(path)
}

func (l look) Open(root, path string) (io.ReadCloser, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return nil, err
	}
	return t.read(path)
}

// readFile reads a regular file of at most limit bytes.
func readFile(look Look, root, name string, limit int64) ([]byte, error) {
	in, err := look.Open(root, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return readBounded(in, path.Join(root, name), limit)
}

func (l look) Volatile(root, path string) (bool, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return false, err
	}
	return t.volatile(path)
}

func (l look) Verified(root, path string, e Entry, hash resource.Hash) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	v, ok := l.m.verified[filepath.Join(root, path)]
	return ok && v.entry == e && v.hash == hash.String()
}

func (l look) Owner(root string, o Owner) (int, int, error) { return l.m.owner(root, o) }

func (l look) Disk(s Selector) (disk.Disk, error) { return l.m.Choose(s) }

func (l look) Node(path string) (string, error) {
	return waitFor(l.ctx, l.m, path, func() (string, error) { return l.m.Disks.Follow(path) })
}

func (l look) Table(d disk.Disk) (*disk.Table, error) { return l.m.Disks.Table(d) }

func (l look) Partitions(uuid disk.GUID) ([]disk.Found, error) {
	return l.m.Disks.PartitionByUUID(uuid)
}

func (l look) LUKS(node string) (*disk.LUKS, error) { return l.m.Disks.LUKS(node) }

func (l look) Superblock(node string) (disk.Superblock, error) {
	have, err := l.m.Disks.Superblock(node)
	if err != nil || have == (disk.Superblock{}) || !l.m.Disks.UdevRuns() {
		return have, err
	}
	if seen, err := l.m.Disks.Probed(node); err != nil || seen != (disk.Superblock{}) {
		return seen, err
	}
	// Only udev says that there is something: it may not have heard yet that it is gone.
	if _, err := l.Ask(Query{Program: "udevadm", Args: []string{"settle", "--timeout=60"}}); err != nil {
		return disk.Superblock{}, err
	}
	return l.m.Disks.Superblock(node)
}

func (l look) Known(d disk.Disk) ([]disk.Known, error) { return l.m.Disks.Known(d) }

func (l look) InUse(node string) (string, error) { return l.m.inUse(node) }

func (l look) Mapper(name string) (Mapper, error) {
	node, uuid, on, err := disk.Mapper(l.m.Disks.Sys, name)
	return Mapper{Node: node, UUID: uuid, On: on}, err
}

func (l look) Mounted(path string) (Mounted, error) {
	mounts, _, err := mountinfo()
	if err != nil {
		return Mounted{}, err
	}
	for _, m := range slices.Backward(mounts) {
		if m.Where == filepath.Clean(path) {
			return m, nil
		}
	}
	return Mounted{}, absentf("nothing is mounted at %s", path)
}

func (l look) Within(path string) (Mounted, error) {
	m, _, err := mountOf(path)
	if err != nil {
		return Mounted{}, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/ro", m.Major, m.Minor))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a file system without a device
	case err != nil:
		return Mounted{}, err
	default:
		m.Fixed = strings.TrimSpace(string(data)) == "1"
	}
	return m, nil
}

// ErrNoTPM says that this machine has no TPM.
var ErrNoTPM = errors.New("this machine has no TPM")

func (l look) Measured(pcr int, word string) (bool, error) {
	if _, err := os.Stat(l.m.TPM); errors.Is(err, fs.ErrNotExist) {
		return false, ErrNoTPM
	} else if err != nil {
		return false, err
	}
	events, err := l.m.Log.Events()
	if err != nil {
		return false, err
	}
	return tpm.Has(events, l.m.Log.BootID, pcr, word) || l.Done(measured(pcr, word)), nil
}

func (l look) Ask(q Query) ([]byte, error) {
	argv, err := q.Argv()
	if err != nil {
		return nil, err
	}
	if len(q.Files) > 0 {
		dir, err := os.MkdirTemp(l.m.Run, "ask-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		if err := fill(dir, q.Files); err != nil {
			return nil, err
		}
		for i := range argv {
			argv[i] = strings.ReplaceAll(argv[i], "{files}", dir)
		}
	}
	out, _, err := l.m.run(l.ctx, Program{Argv: argv, Stdin: q.Stdin})
	return out, err
}

// fill writes files into a private directory.
func fill(dir string, files map[string][]byte) error {
	for name, data := range files {
		if name != filepath.Base(name) {
			return fmt.Errorf("%q is not a file name", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (l look) Done(r Receipt) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.receipts[r] {
		return true
	}
	return r.Scope == ScopeProvision && slices.Contains(l.m.memory.Record.Receipts, r.Name)
}

func (l look) Record() Record {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.memory.Record
}

func (l look) Placed() bool { return l.m.memory.Place.Node != "" }

func (l look) Has(program string) bool {
	_, err := l.m.find(program)
	return err == nil
}

func (l look) Context(root, path string) (Labelled, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return Labelled{}, err
	}
	return t.context(path)
}

func (l look) Bare(root, dir string) ([]string, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return nil, err
	}
	return t.bare(dir)
}
