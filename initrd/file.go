package initrd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
	"pilotlight/config/resource"
)

// File wishes a regular file. It is Ignition's storage.files (spec 3.x).
type File struct {
	Root      string // the target root, "" for the running system
	Path      string // absolute, in the target
	Contents  *resource.Resource
	Append    []resource.Resource
	Overwrite bool         // an existing node of other content or type may be replaced
	Mode      *fs.FileMode // nil: 0644 for a new file, left alone for one that exists
	Owner     Owner
}

func (f File) String() string {
	what := "file " + f.Path
	switch {
	case f.Contents != nil && f.Contents.Remote():
		what += " from " + f.Contents.String()
	case len(f.Append) > 0:
		what += fmt.Sprintf(" with %d parts appended", len(f.Append))
	}
	return what
}

// Touches is the path in the target.
func (f File) Touches() []string { return []string{path.Join("/", f.Root, f.Path)} }

// ErrExists is the fault of a path that holds something else which the config
// does not allow to be replaced.
var ErrExists = errors.New("something else is there already, and overwrite is not set")

// Resolve compares type, owner, mode and content. Content that is remote and
// carries no hash cannot be compared; a receipt says that it was written.
func (f File) Resolve(look Look) (State, Act, error) {
	entry, err := look.Stat(f.Root, f.Path)
	write := writeFile{File: f}
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, write, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	if !entry.Mode.IsRegular() {
		if !f.Overwrite {
			return unresolved, nil, fmt.Errorf("%s is a %s: %w", f.Path, typeOf(entry.Mode), ErrExists)
		}
		return NotSo, write, nil
	}
	same, err := f.holds(look, entry)
	if err != nil {
		return unresolved, nil, err
	}
	if !same {
		if f.Contents != nil && !f.Overwrite {
			return unresolved, nil, fmt.Errorf("%s: %w", f.Path, ErrExists)
		}
		return NotSo, write, nil
	}
	write.keep = true
	ok, err := f.dressed(look, entry)
	if err != nil || !ok {
		return NotSo, write, err
	}
	return So, nil, nil
}

// dressed compares owner and mode.
func (f File) dressed(look Look, entry Entry) (bool, error) {
	if f.Mode != nil && entry.Mode&permissions != *f.Mode {
		return false, nil
	}
	uid, gid, err := look.Owner(f.Root, f.Owner)
	if err != nil {
		return false, err
	}
	return entry.UID == uid && entry.GID == gid, nil
}

// holds says whether the file has the content that is wished.
func (f File) holds(look Look, entry Entry) (bool, error) {
	if f.Contents == nil && len(f.Append) == 0 {
		return true, nil // a file that merely exists is what was asked for
	}
	local := f.Contents == nil || !f.Contents.Remote()
	for _, a := range f.Append {
		local = local && !a.Remote()
	}
	switch {
	case local:
		want, err := f.local()
		if err != nil {
			return false, err
		}
		if f.Contents != nil && entry.Size != int64(len(want)) || entry.Size < int64(len(want)) {
			return false, nil
		}
		have, err := readFile(look, f.Root, f.Path)
		if err != nil {
			return false, err
		}
		if f.Contents == nil {
			return bytes.HasSuffix(have, want), nil
		}
		return bytes.Equal(have, want), nil
	case f.Contents != nil && len(f.Append) == 0 && !f.Contents.Hash.IsZero():
		in, err := look.Open(f.Root, f.Path)
		if err != nil {
			return false, err
		}
		defer in.Close()
		return hashEqual(in, f.Contents.Hash)
	}
	return look.Done(f.receipt()), nil
}

// local is the content, or what is appended, where all of it is in the config.
func (f File) local() ([]byte, error) {
	var all []byte
	parts := f.Append
	if f.Contents != nil {
		parts = append([]resource.Resource{*f.Contents}, parts...)
	}
	for _, p := range parts {
		b, err := p.Local()
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

func (f File) receipt() Receipt {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %v %v", f.Root, f.Path, f.Mode, f.Owner)
	for _, r := range append([]resource.Resource{*orEmpty(f.Contents)}, f.Append...) {
		id := r.Identity()
		sum.Write(id[:])
	}
	return Receipt{Name: "file:" + f.Path + ":" + hex.EncodeToString(sum.Sum(nil)[:16])}
}

func orEmpty(r *resource.Resource) *resource.Resource {
	if r == nil {
		return &resource.Resource{}
	}
	return r
}

func readFile(look Look, root, name string) ([]byte, error) {
	in, err := look.Open(root, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

func hashEqual(in io.Reader, want resource.Hash) (bool, error) {
	sum := sha256.New()
	if want.Algorithm == "sha512" {
		sum = sha512.New()
	}
	if _, err := io.Copy(sum, in); err != nil {
		return false, err
	}
	return bytes.Equal(sum.Sum(nil), want.Sum), nil
}

func typeOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m.IsRegular():
		return "regular file"
	}
	return "special file"
}

// writeFile writes beside the file, under a name that says that the bytes are
// not yet verified, and renames when they are.
type writeFile struct {
	File
	keep bool // the content is right; only owner and mode are not
}

func (w writeFile) String() string {
	if w.keep {
		return "set owner and mode of " + w.Path
	}
	return "write " + w.Path
}

// unverified begins the name of a file whose bytes are still coming in.
const unverified = ".pilotlight-unverified-"

func (w writeFile) do(ctx context.Context, m *Machine) error {
	t, err := m.tree(w.Root)
	if err != nil {
		return err
	}
	uid, gid, err := m.owner(w.Root, w.Owner)
	if err != nil {
		return err
	}
	dir, base, err := t.parent(w.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if w.keep {
		return dress(dir, base, w.Path, uid, gid, w.Mode)
	}

	temp := unverified + temporary()
	fd, err := unix.Openat(dir, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: path.Dir(w.Path) + "/" + temp, Err: err}
	}
	out := os.NewFile(uintptr(fd), w.Path)
	defer out.Close()
	mode := fs.FileMode(0o644)
	err = func() error {
		if w.Contents == nil {
			if old, kept, err := w.copyOld(t, out); err != nil {
				return err
			} else if old {
				mode = kept
			}
		} else if _, err := m.Client.Copy(ctx, *w.Contents, out); err != nil {
			return err
		}
		for _, a := range w.Append {
			if _, err := out.Seek(0, io.SeekEnd); err != nil {
				return err
			}
			if err := appendTo(ctx, m, a, out); err != nil {
				return err
			}
		}
		if w.Mode != nil {
			mode = *w.Mode
		}
		if uid != 0 || gid != 0 || m.uid != 0 {
			if err := unix.Fchown(fd, uid, gid); err != nil {
				return fmt.Errorf("owner of %s: %w", w.Path, err)
			}
		}
		// After chown, which clears setuid and setgid.
		if err := unix.Fchmod(fd, unixMode(mode)); err != nil {
			return fmt.Errorf("mode of %s: %w", w.Path, err)
		}
		return m.replace(dir, temp, base, w.Overwrite)
	}()
	if err != nil {
		// The first error is the one to tell; a temporary name that stays is harmless.
		_ = unix.Unlinkat(dir, temp, 0)
		return err
	}
	m.leave(w.receipt())
	return nil
}

// appendTo adds one part. The client may have to begin its destination again
// after a broken transfer, so each part comes in by a file of its own.
func appendTo(ctx context.Context, m *Machine, part resource.Resource, out *os.File) error {
	if !part.Remote() {
		b, err := m.Client.Bytes(ctx, part)
		if err == nil {
			_, err = out.Write(b)
		}
		return err
	}
	spool, err := os.CreateTemp(m.Run, unverified)
	if err != nil {
		return err
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil {
		return err
	}
	if _, err := m.Client.Copy(ctx, part, spool); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(out, spool)
	return err
}

// copyOld begins an appended file with what is there.
func (w writeFile) copyOld(t *tree, out *os.File) (bool, fs.FileMode, error) {
	old, err := t.read(w.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return false, 0, err
	}
	_, err = io.Copy(out, old)
	return true, info.Mode() & permissions, err
}

// dress sets owner and mode of something that is there.
func dress(dir int, base, shown string, uid, gid int, mode *fs.FileMode) error {
	// By descriptor: fchmodat with AT_SYMLINK_NOFOLLOW is newer than the kernels
	// that are supported, and the name must not become a link between two calls.
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: shown, Err: err}
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("owner of %s: %w", shown, err)
		}
	}
	bits := st.Mode & 0o7777
	if mode != nil {
		bits = unixMode(*mode)
	}
	if err := unix.Fchmod(fd, bits); err != nil {
		return fmt.Errorf("mode of %s: %w", shown, err)
	}
	return nil
}
