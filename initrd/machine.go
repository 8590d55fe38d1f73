package initrd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
	"pilotlight/initrd/tpm"
)

// Machine is the real host.
type Machine struct {
	Client   *resource.Client
	Disks    disk.System
	TPM      string        // the device, "/dev/tpmrm0"
	Log      tpm.Log       // this boot's event log
	Run      string        // our directory, "/run/pilotlight"
	Programs []string      // directories where programs are looked up, in order
	Wait     time.Duration // how long to wait for a device that must come
	Tell     func(string)  // progress; nil is silence

	uid      int
	memory   Memory
	mu       sync.Mutex
	trees    map[string]*tree
	receipts map[Receipt]bool
}

// NewMachine gives the machine that this process runs on. Receipts of this boot
// are read from run, a directory that is there; what earlier boots left is known
// after Recall.
func NewMachine(run string, client *resource.Client) (*Machine, error) {
	m := &Machine{
		Client:   client,
		Disks:    disk.Machine(),
		TPM:      tpm.DefaultDevice,
		Run:      run,
		Programs: []string{"/usr/bin", "/usr/sbin", "/usr/lib/systemd", "/bin", "/sbin"},
		Wait:     90 * time.Second,
		uid:      os.Geteuid(),
		trees:    map[string]*tree{},
		receipts: map[Receipt]bool{},
	}
	boot, err := tpm.BootID()
	if err != nil {
		return nil, err
	}
	m.Log = tpm.Log{BootID: boot, Path: tpm.DefaultLog}
	names, err := os.ReadFile(m.receiptFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(names)) {
		// A line cut short by a crash is a receipt that was not left.
		if name, err := strconv.Unquote(strings.TrimSuffix(line, "\n")); err == nil {
			m.receipts[Receipt{Name: name}] = true
		}
	}
	return m, nil
}

// Close gives back what the machine holds open.
func (m *Machine) Close() error {
	var errs []error
	for _, t := range m.trees {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// Look gives the machine as it is now.
func (m *Machine) Look(ctx context.Context) Look { return look{ctx, m} }

// Do does one deed.
func (m *Machine) Do(ctx context.Context, act Act) error { return act.do(ctx, m) }

func (m *Machine) say(format string, args ...any) {
	if m.Tell != nil {
		m.Tell(fmt.Sprintf(format, args...))
	}
}

// tree gives the opened root; it is kept, since every step below it needs it.
func (m *Machine) tree(root string) (*tree, error) {
	root = filepath.Clean("/" + root)
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.trees[root]; t != nil {
		return t, nil
	}
	t, err := openTree(root)
	if err == nil {
		m.trees[root] = t
	}
	return t, err
}

// forget closes what was opened at or below a directory that is mounted over.
func (m *Machine) forget(where string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for root, t := range m.trees {
		if root == where || strings.HasPrefix(root, where+"/") {
			t.Close()
			delete(m.trees, root)
		}
	}
}

func (m *Machine) receiptFile() string { return filepath.Join(m.Run, "receipts") }

// leave notes that something was done. A receipt that could not be written costs
// a repetition of something that is harmless to repeat; one of ScopeProvision
// goes through the record, which reports errors.
func (m *Machine) leave(r Receipt) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.receipts[r] = true
	if r.Scope != ScopeBoot {
		return
	}
	f, err := os.OpenFile(m.receiptFile(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, strconv.Quote(r.Name))
}

// replace gives the file temp its real name. With overwrite a directory in the
// way is removed with all that is in it, as Ignition's overwrite asks.
func (m *Machine) replace(dir int, temp, base string, overwrite bool) error {
	err := unix.Renameat(dir, temp, dir, base)
	if overwrite && errors.Is(err, unix.EISDIR) {
		if err := removeAllAt(dir, base, 0); err != nil {
			return err
		}
		err = unix.Renameat(dir, temp, dir, base)
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: base, Err: err}
	}
	return nil
}

// removeAllAt removes a directory by descriptors alone, so that no name can be
// swapped for a link under it.
func removeAllAt(dir int, base string, depth int) error {
	if depth > 256 {
		return &fs.PathError{Op: "remove", Path: base, Err: errors.New("more than 256 directories deep")}
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: base, Err: err}
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = removeAllAt(fd, e.Name(), depth+1)
		} else {
			err = unix.Unlinkat(fd, e.Name(), 0)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

// temporary is the random end of a temporary name.
func temporary() string {
	var b [8]byte
	rand.Read(b[:]) // it cannot fail: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// owner turns names into numbers by the passwd and group files of root.
func (m *Machine) owner(root string, o Owner) (uid, gid int, err error) {
	uid, gid = o.UID, o.GID
	if !o.Named() {
		if o.User == "root" {
			uid = 0
		}
		if o.Group == "root" {
			gid = 0
		}
		return uid, gid, nil
	}
	t, err := m.tree(root)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range []struct {
		file, name string
		id         *int
	}{{"/etc/passwd", o.User, &uid}, {"/etc/group", o.Group, &gid}} {
		if n.name == "" {
			continue
		}
		if n.name == "root" {
			*n.id = 0
			continue
		}
		data, err := t.readAll(n.file, 16<<20)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
		if *n.id, err = idOf(string(data), n.name); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", filepath.Join(root, n.file), err)
		}
	}
	return uid, gid, nil
}

// ErrUnknownOwner is the fault of a user or group that the target root does not have.
var ErrUnknownOwner = errors.New("unknown user or group")

// idOf finds a name in passwd(5) or group(5); the number is the third field in both.
func idOf(data, name string) (int, error) {
	for line := range strings.Lines(data) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		var id int
		if _, err := fmt.Sscanf(f[2], "%d", &id); err != nil || id < 0 {
			return 0, fmt.Errorf("%q has no number", name)
		}
		return id, nil
	}
	return 0, fmt.Errorf("%w %q", ErrUnknownOwner, name)
}
