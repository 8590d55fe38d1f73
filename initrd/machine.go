package initrd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// A Program is one run of a program: the whole of what it is given.
type Program struct {
	Argv  []string
	Env   []string // beside PATH; nothing else is passed on
	Stdin []byte
	OK    []int // exit codes that are a success beside 0
	Quiet bool  // what it says may quote the contents of files, which are secret
}

// A ProgramError says how a program failed. Stderr is bounded.
type ProgramError struct {
	Name   string
	Code   int // -1 when it did not exit by itself
	Stderr string
	Err    error // where it could not be started
}

func (e *ProgramError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	text := fmt.Sprintf("%s: exit %d", e.Name, e.Code)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *ProgramError) Unwrap() error { return e.Err }

// find looks a program up in the machine's directories.
func (m *Machine) find(name string) (string, error) {
	for _, dir := range m.Programs {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: %s is in none of %s", exec.ErrNotFound, name, strings.Join(m.Programs, ", "))
}

// run runs a program to its end and gives its standard output and what it said
// on standard error.
func (m *Machine) run(ctx context.Context, p Program) (stdout []byte, stderr string, err error) {
	name := p.Argv[0]
	file, err := m.find(name)
	if err != nil {
		return nil, "", &ProgramError{Name: name, Err: err}
	}
	var out, bad bounded
	out.limit, bad.limit = 64<<20, 64<<10
	cmd := exec.CommandContext(ctx, file, p.Argv[1:]...)
	cmd.Args[0] = name
	cmd.Env = append([]string{"PATH=" + strings.Join(m.Programs, ":"), "LC_ALL=C"}, p.Env...)
	cmd.Stdin = bytes.NewReader(p.Stdin)
	cmd.Stdout, cmd.Stderr = &out, &bad
	cmd.WaitDelay = 5 * time.Second
	// Asked to end before it is killed: mkfs and repart then clean up.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }

	done := make(chan struct{})
	go m.heartbeat(name, done)
	err = cmd.Run()
	close(done)

	text := tidy(bad.String())
	if p.Quiet {
		text = unquoted(text)
	}
	var exit *exec.ExitError
	switch {
	case err == nil && out.over:
		return nil, text, &ProgramError{Name: name, Err: fmt.Errorf("printed more than %d bytes", out.limit)}
	case err == nil:
		return out.Bytes(), text, nil
	case ctx.Err() != nil:
		return nil, text, &ProgramError{Name: name, Err: context.Cause(ctx)}
	case errors.As(err, &exit) && slices.Contains(p.OK, exit.ExitCode()):
		return out.Bytes(), text, nil
	case errors.As(err, &exit):
		return nil, text, &ProgramError{Name: name, Code: exit.ExitCode(), Stderr: text}
	}
	return nil, text, &ProgramError{Name: name, Err: err}
}

// heartbeat says every ten seconds that a program still runs.
func (m *Machine) heartbeat(name string, done <-chan struct{}) {
	begin := time.Now()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			m.say("%s runs since %d s", name, int(time.Since(begin).Seconds()))
		}
	}
}

// tidy makes what a program said fit for one line of an error.
func tidy(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if n := len(lines); n > 4 {
		lines = lines[n-4:]
	}
	return strings.Join(lines, "; ")
}

// unquoted takes the words between quotation marks out of what a program said.
func unquoted(text string) string {
	var b strings.Builder
	var open rune
	for _, r := range text {
		switch {
		case open == 0 && (r == '\'' || r == '"'):
			open = r
			b.WriteRune(r)
			b.WriteRune('…')
		case r == open:
			open = 0
			b.WriteRune(r)
		case open == 0:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// bounded keeps the first limit bytes and notes whether there were more.
type bounded struct {
	bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room < len(p) {
		b.over = true
		b.Buffer.Write(p[:max(room, 0)])
	} else {
		b.Buffer.Write(p)
	}
	return len(p), nil
}

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

func (l look) Volatile(root, path string) (bool, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return false, err
	}
	return t.volatile(path)
}

func (l look) Owner(root string, o Owner) (int, int, error) { return l.m.owner(root, o) }

func (l look) Disk(s Selector) (disk.Disk, error) { return l.m.Choose(s) }

func (l look) Table(d disk.Disk) (*disk.Table, error) { return l.m.Disks.Table(d) }

func (l look) Partitions(uuid disk.GUID) ([]disk.Found, error) {
	return l.m.Disks.PartitionByUUID(uuid)
}

func (l look) Mapper(name string) (Mapper, error) {
	node, uuid, _, err := disk.Mapper(l.m.Disks.Sys, name)
	return Mapper{Node: node, UUID: uuid}, err
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
	return Mounted{}, fmt.Errorf("nothing is mounted at %s: %w", path, fs.ErrNotExist)
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

func (l look) Record() Record { return l.m.memory.Record }

func (l look) Placed() bool { return l.m.memory.Place.Node != "" }
