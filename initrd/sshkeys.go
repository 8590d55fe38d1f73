package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// AuthorizedKeys wishes that a user's SSH keys are those of the config. It is
// sshAuthorizedKeys of Ignition's passwd.users.
//
// The file is the config's own: what it held before is replaced, in either layout.
type AuthorizedKeys struct {
	Root   string
	User   string
	Keys   []string // lines of sshd(8)'s AUTHORIZED_KEYS FILE FORMAT
	Layout KeysLayout
	// Home is where the config says that the home is, "" if it does not: by it the order of
	// steps is found. The keys go where the target's passwd(5) says.
	Home string
}

// A KeysLayout is where a user's keys are, below the home.
type KeysLayout string

// The layouts. LayoutByLook is the fragment where the target's sshd reads those, and
// else the file that every sshd reads.
const (
	LayoutByLook   KeysLayout = ""
	LayoutFragment KeysLayout = "fragment" // .ssh/authorized_keys.d/ignition
	LayoutFile     KeysLayout = "file"     // .ssh/authorized_keys
)

// keysFile is the path below the home.
func keysFile(l KeysLayout) string {
	if l == LayoutFragment {
		return ".ssh/authorized_keys.d/ignition"
	}
	return ".ssh/authorized_keys"
}

func (k AuthorizedKeys) String() string {
	return fmt.Sprintf("%d SSH keys of user %s", len(k.Keys), k.User)
}

// Touches is the user's file, in either layout.
func (k AuthorizedKeys) Touches() []string {
	ssh := path.Join("/", k.Root, likelyHome(k.Home, k.User), ".ssh")
	return []string{path.Join(ssh, "authorized_keys"), path.Join(ssh, "authorized_keys.d/ignition")}
}

// Reads is passwd, and what sshd goes by.
func (k AuthorizedKeys) Reads() []string {
	at := func(name string) string { return path.Join("/", k.Root, name) }
	return []string{at("etc/passwd"), at("etc/nsswitch.conf"), at("usr/lib/passwd"), at("etc/ssh"), at("usr/etc/ssh"), at("usr/lib/ssh")}
}

func (k AuthorizedKeys) text() string { return strings.Join(k.Keys, "\n") + "\n" }

// Resolve looks at the user's file. Where the layout is a matter of looking, either of
// the files will do: a drop-in of the config for sshd, which is written later, must not
// change what was chosen before.
func (k AuthorizedKeys) Resolve(look Look) (State, Act, error) {
	a, err := readAccounts(look, k.Root)
	if err != nil {
		return unresolved, nil, err
	}
	entry, ok := a.user(k.User)
	if !ok {
		return After, nil, fmt.Errorf("%w %q", ErrUnknownOwner, k.User)
	}
	ids, err := uint32s(entry[passwdUID], entry[passwdGID])
	if err != nil {
		return unresolved, nil, fmt.Errorf("the entry of %s: %w", k.User, err)
	}
	chosen, either := k.Layout, []KeysLayout{k.Layout}
	if k.Layout == LayoutByLook {
		either = []KeysLayout{LayoutFragment, LayoutFile}
		if chosen, err = layoutOf(look, k.Root); err != nil {
			return unresolved, nil, err
		}
	}
	act := writeKeys{AuthorizedKeys: k, home: entry[passwdHome], file: keysFile(chosen), uid: int(ids[0]), gid: int(ids[1]), mode: 0o600}
	for _, l := range either {
		e, err := look.Stat(k.Root, path.Join(act.home, keysFile(l)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return unresolved, nil, err
		}
		if e.Mode.IsRegular() {
			same, err := holdsText(look, k.Root, path.Join(act.home, keysFile(l)), e.Size, k.text())
			if err != nil {
				return unresolved, nil, err
			}
			if same {
				return So, nil, nil
			}
		}
		if l == chosen {
			act.was = was(e)
			if e.Mode.IsRegular() && e.UID == act.uid {
				act.mode = e.Mode & permissions
			}
		}
	}
	return NotSo, act, nil
}

// holdsText says whether a file of that size holds exactly that text.
func holdsText(look Look, root, name string, size int64, text string) (bool, error) {
	if size != int64(len(text)) {
		return false, nil
	}
	return ends(look, root, name, size, []byte(text))
}

// layoutOf looks whether the target's sshd reads fragments: whether a line of its
// configuration names the directory, or the program that reads it (ssh-key-dir, which
// Fedora CoreOS has).
func layoutOf(look Look, root string) (KeysLayout, error) {
	for _, dir := range []string{"/etc/ssh", "/usr/etc/ssh", "/usr/lib/ssh"} {
		files := []string{path.Join(dir, "sshd_config")}
		more := path.Join(dir, "sshd_config.d")
		names, err := look.Names(root, more)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for _, name := range names {
			if strings.HasSuffix(name, ".conf") {
				files = append(files, path.Join(more, name))
			}
		}
		for _, file := range files {
			f, err := followed(look, root, file)
			if err != nil {
				return "", err
			}
			for line := range strings.Lines(f.text) {
				line = strings.TrimSpace(line)
				if !strings.HasPrefix(line, "#") && (strings.Contains(line, "authorized_keys.d") || strings.Contains(line, "ssh-key-dir")) {
					return LayoutFragment, nil
				}
			}
		}
	}
	return LayoutFile, nil
}

func (l look) Names(root, dir string) ([]string, error) {
	t, err := l.m.tree(root)
	if err != nil {
		return nil, err
	}
	fd, err := t.open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, absentf("%s is no directory", dir)
	}
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

type writeKeys struct {
	AuthorizedKeys
	home, file string
	uid, gid   int
	mode       fs.FileMode
	was        before
}

// Effect tells what has the file's name.
func (w writeKeys) Effect() (Effect, []string) { return w.was.replaced(path.Join(w.home, w.file)) }

func (w writeKeys) String() string { return "write " + path.Join(w.home, w.file) }

// do writes with the rights of the user: whatever links and directories he left in his
// home, nothing comes of them that he could not have done himself. Out of the home no
// link is followed at all.
func (w writeKeys) do(_ context.Context, m *Machine) error {
	t, err := m.tree(w.Root)
	if err != nil {
		return err
	}
	home, err := t.open(w.home, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("the home of %s: %w", w.User, err)
	}
	defer unix.Close(home)
	asUser(w.uid, w.gid, func(denied error) {
		if err = denied; err == nil {
			err = w.write(home)
		}
	})
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: %s is not the user's own", err, w.home)
	}
	return err
}

func (w writeKeys) write(home int) error {
	dir, base := path.Split(w.file)
	at := ""
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		at = path.Join(at, part)
		if err := mkdirBeneath(home, at); err != nil {
			return &fs.PathError{Op: "mkdir", Path: path.Join(w.home, at), Err: err}
		}
	}
	fd, err := beneath(home, at)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path.Join(w.home, at), Err: err}
	}
	defer unix.Close(fd)
	return placeAt(fd, base, w.text(), w.uid, w.gid, w.mode, anyFile)
}

// mkdirBeneath makes a directory, 0700, whose parent is there.
func mkdirBeneath(home int, name string) error {
	parent, err := beneath(home, path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	err = unix.Mkdirat(parent, path.Base(name), 0o700)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// beneath opens a directory of a home. A link in the home may lead to another place of
// the same home.
func beneath(home int, name string) (int, error) {
	fd, err := unix.Openat2(home, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.EXDEV) {
		err = fmt.Errorf("%w: a link leads out of the home", err)
	}
	return fd, err
}

// asUser does something on a thread that has a user's rights to files, and no other
// (setfsuid(2)). Where they cannot be had, do is told why.
func asUser(uid, gid int, do func(denied error)) {
	onThread(func() {
		if uid == 0 {
			do(nil)
			return
		}
		// Of this thread alone: the calls of that name in Go's library change all.
		if _, _, no := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); no != 0 {
			do(os.NewSyscallError("setgroups", no))
			return
		}
		if err := errors.Join(unix.Setfsgid(gid), unix.Setfsuid(uid)); err != nil {
			do(err)
			return
		}
		// These calls tell nothing; a second one tells what there is now.
		isGID, _ := unix.SetfsgidRetGid(-1)
		isUID, _ := unix.SetfsuidRetUid(-1)
		if isGID != gid || isUID != uid {
			do(fmt.Errorf("the rights of user %d cannot be taken on", uid))
			return
		}
		do(nil)
	})
}
