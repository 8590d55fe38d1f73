package initrd

import (
	"context"
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

	// Instead names other programs for some, by the names that the kinds of step know:
	// another name, or an absolute path.
	Instead map[string]string

	memory   Memory
	keeping  sync.Mutex // held while the record is read, changed and written
	mu       sync.Mutex
	trees    map[string]*tree
	receipts map[Receipt]bool
	verified map[string]verified // by path
	occupied map[string]bool     // nodes that a deed is at work on
}

// verified is a file as it was when it got its name, and the hash that its bytes had
// while they came in. To read a large file once more would take as long again.
type verified struct {
	entry    Entry
	hash     string
	contents *resource.Resource // what it was filled with, alone
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
		trees:    map[string]*tree{},
		receipts: map[Receipt]bool{},
		verified: map[string]verified{},
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
func (m *Machine) Do(ctx context.Context, act Act) error {
	m.anew()
	defer m.anew()
	return act.do(ctx, m)
}

// anew lets the next look see what a deed has changed, and leaves nothing open that could
// be in the way of one.
func (m *Machine) anew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.trees {
		t.anew()
	}
}

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

// Settle waits until what a boot wrote below its new root is on the disks. The record
// says "complete" after that; a power cut must not then leave empty files, which no later
// boot would look for. Below any other root there is no record, and what is written is
// as safe as what cp(1) writes.
func (m *Machine) Settle() error {
	m.mu.Lock()
	boot := m.trees[BootRoot] != nil
	m.mu.Unlock()
	if !boot {
		return nil
	}
	mounts, _, err := mountinfo()
	if err != nil {
		return err
	}
	for _, where := range lastingBelow(mounts, BootRoot) {
		if err := syncfs(where); err != nil {
			return &fs.PathError{Op: "sync", Path: where, Err: err}
		}
	}
	return nil
}

// lastingBelow gives the mount points at and below a directory of what can be written
// and has a disk.
func lastingBelow(mounts []Mounted, dir string) (where []string) {
	for _, m := range mounts {
		if (m.Where == dir || strings.HasPrefix(m.Where, dir+"/")) && !m.ReadOnly && m.Type != "tmpfs" && m.Type != "autofs" {
			where = append(where, m.Where)
		}
	}
	return where
}

func syncfs(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
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
		if *n.id, err = idOf(string(data), n.name); errors.Is(err, ErrUnknownOwner) {
			*n.id, err = t.elsewhere(n.file, n.name)
		}
		if err != nil {
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
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || id == 1<<32-1 || id == 1<<16-1 {
			// Those two mean "none" and "do not change" to the kernel.
			return 0, fmt.Errorf("%q has no number that can be used", name)
		}
		return int(id), nil
	}
	return 0, fmt.Errorf("%w %q", ErrUnknownOwner, name)
}
