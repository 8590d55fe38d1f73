package initrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A change is what a wish makes of the accounts of a root.
//
// Several files change at once, and a machine may lose its power between two of them. A
// user would then be in passwd and not in shadow, and the next run, which finds him,
// would take him for somebody's own. So what is to be written is written down first:
//
//	first       homes and spools made, or removed: to find them so a second time is no
//	            different, since the account is not yet there, or is still there
//	journal     /etc/.pilotlight-accounts gets its name: from here on the change is made
//	writes      the files, each in one step
//	then        homes moved or given away
//	journal     is removed
//
// Whoever finds a journal carries it out before anything else.
type change struct {
	first []homeDeed
	journal
}

// A journal is the part of a change that is written down. It holds hashes of
// passwords: only root can read it, and it is gone when the change is made.
type journal struct {
	Writes []accountsWrite `json:"writes"`
	Then   []homeDeed      `json:"then"`
}

// accountsWrite is new contents of one file.
type accountsWrite struct {
	Path string      `json:"path"`
	Was  string      `json:"was"` // the hash of what is replaced
	Text string      `json:"text"`
	Mode fs.FileMode `json:"mode"` // of a file that is not there yet
}

const (
	journalFile  = "/etc/.pilotlight-accounts"
	accountsLock = "/etc/.pwd.lock" // lckpwdf(3)
)

// errJournal is the fault of a file that somebody else has changed since a run was cut
// short.
var errJournal = errors.New("was changed by somebody else while " + journalFile +
	" of a run that was cut short lay there; look at both, and remove the latter")

func (c change) empty() bool { return len(c.first)+len(c.Writes)+len(c.Then) == 0 }

// written adds the files that come out changed.
func (c change) written(a *accounts) change {
	// passwd is the last: without a journal too, nobody is there before all is.
	for _, t := range []*table{a.subuid, a.subgid, a.gshadow, a.group, a.shadow, a.passwd} {
		if t.there && t.changed() {
			c.Writes = append(c.Writes, accountsWrite{t.path, hashOf(t.text), t.content(), t.mode})
		}
	}
	return c
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// interrupted says whether a run was cut short over a change.
func interrupted(look Look, root string) (bool, error) {
	_, err := look.Stat(root, journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// changeAccounts carries out what a wish makes of the accounts, which are read anew
// under the lock that all who write them take.
func (m *Machine) changeAccounts(ctx context.Context, root string, work func(Look) (change, error)) error {
	t, err := m.tree(root)
	if err != nil {
		return err
	}
	unlock, err := t.lockAccounts()
	if err != nil {
		return err
	}
	defer unlock()
	look := m.Look(ctx)
	if err := t.redo(look, root); err != nil {
		return err
	}
	m.anew() // homes may have come and gone
	c, err := work(look)
	if err != nil {
		return err
	}
	for _, d := range c.first {
		if err := t.home(d); err != nil {
			return err
		}
	}
	if len(c.Writes) == 1 && len(c.Then) == 0 {
		return t.writeAccounts(look, root, c.Writes[0]) // one step as it is
	}
	if len(c.Writes)+len(c.Then) == 0 {
		return nil
	}
	data, err := json.Marshal(c.journal)
	if err != nil {
		return err
	}
	if err := t.place(journalFile, string(data), 0, 0, 0o600, anyFile); err != nil {
		return err
	}
	return t.redo(look, root)
}

// redo carries out the journal that lies there, if one does. What it says is done in
// part perhaps; it can be done again.
func (t *tree) redo(look Look, root string) error {
	data, err := readFile(look, root, journalFile, 8*accountsLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		return errors.New(journalFile + " cannot be read")
	}
	for _, w := range j.Writes {
		if err := t.writeAccounts(look, root, w); err != nil {
			return err
		}
	}
	for _, d := range j.Then {
		if err := t.home(d); err != nil {
			return err
		}
	}
	dir, base, err := t.parent(journalFile, false)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// The new names are on the disk before the journal is not.
	if err := syncAt(dir, "."); err != nil {
		return err
	}
	return obstacle(dir, base, "remove", unix.Unlinkat(dir, base, 0))
}

// writeAccounts writes one file, which keeps its owner and mode.
func (t *tree) writeAccounts(look Look, root string, w accountsWrite) error {
	e, err := look.Stat(root, w.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e = Entry{Mode: w.Mode}
		if w.Was != hashOf("") {
			return fmt.Errorf("%s %w", w.Path, errJournal)
		}
	case err != nil:
		return err
	default:
		data, err := readFile(look, root, w.Path, accountsLimit)
		if err != nil {
			return err
		}
		if string(data) == w.Text {
			return nil
		}
		if hashOf(string(data)) != w.Was {
			return fmt.Errorf("%s %w", w.Path, errJournal)
		}
	}
	return t.place(w.Path, w.Text, e.UID, e.GID, e.Mode&permissions, anyFile)
}

// place writes a small file that gets its name when it is whole.
func (t *tree) place(name, text string, uid, gid int, mode fs.FileMode, may over) error {
	dir, base, err := t.parent(name, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return placeAt(dir, base, text, uid, gid, mode, may)
}

func placeAt(dir int, base, text string, uid, gid int, mode fs.FileMode, may over) error {
	d, err := newDraft(dir, base)
	if err != nil {
		return err
	}
	defer d.discard()
	if _, err := d.Write([]byte(text)); err != nil {
		return &fs.PathError{Op: "write", Path: base, Err: err}
	}
	if err := d.dress(uid, gid, mode); err != nil {
		return err
	}
	return d.publish(may)
}

// lockAccounts takes the lock of lckpwdf(3). In an initrd nobody else wants it; where
// somebody has it, that is told at once rather than waited for.
func (t *tree) lockAccounts() (unlock func(), err error) {
	dir, base, err := t.parent(accountsLock, true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: accountsLock, Err: err}
	}
	// An OFD lock, which others' locks of fcntl(2) know: closing the file elsewhere in
	// this process does not give it up.
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errors.New("somebody else is changing users and groups")
		}
		return nil, &fs.PathError{Op: "lock", Path: accountsLock, Err: err}
	}
	return func() { unix.Close(fd) }, nil
}

// syncAt waits until all of the file system that name of a directory lies on is on its
// disk.
func syncAt(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("fsync", unix.Fsync(fd))
}
