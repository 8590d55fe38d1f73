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
	"slices"

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

// Touches is the path in the target, and what tells its owner.
func (f File) Touches() []string {
	return append([]string{path.Join("/", f.Root, f.Path)}, f.Owner.reads(f.Root, f.Path)...)
}

// ErrExists is the fault of a path that holds something else which the config
// does not allow to be replaced.
var ErrExists = errors.New("something else is there already, and overwrite is not set")

// Resolve compares type, owner, mode and content. Content that is remote and
// carries no hash cannot be compared; a receipt says that it was written in this
// boot. Without one, it is fetched, and compared then: a boot that was cut short
// must not stumble over its own file, nor append a second time.
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
		if f.Contents != nil && !f.Overwrite && !f.blind() {
			return unresolved, nil, fmt.Errorf("%s: %w", f.Path, ErrExists)
		}
		return NotSo, write, nil
	}
	write.keep = true
	ok, err := f.dressed(look, entry)
	return dressing(ok, err, write)
}

// dressing is the state of something that lacks nothing but, perhaps, owner and
// mode. A name that nobody knows may be that of a user who is yet to be made.
func dressing(ok bool, err error, act Act) (State, Act, error) {
	switch {
	case errors.Is(err, ErrUnknownOwner):
		return After, nil, err
	case err != nil:
		return unresolved, nil, err
	case !ok:
		return NotSo, act, nil
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
	switch {
	case f.blind():
		return look.Done(f.receipt()), nil
	case !f.remote():
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
	}
	in, err := look.Open(f.Root, f.Path)
	if err != nil {
		return false, err
	}
	defer in.Close()
	return hashEqual(in, f.Contents.Hash)
}

// Lingers says that the content comes from a server.
func (f File) Lingers() bool { return f.remote() }

// remote says whether any of the content must be fetched.
func (f File) remote() bool {
	return f.Contents != nil && f.Contents.Remote() ||
		slices.ContainsFunc(f.Append, func(a resource.Resource) bool { return a.Remote() })
}

// blind says that looking cannot tell whether the file holds what it shall: some of
// that is remote, and no hash is that of the whole file.
func (f File) blind() bool {
	return f.remote() && (f.Contents == nil || len(f.Append) > 0 || f.Contents.Hash.IsZero())
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
	var before int64 // bytes that are there and appended to
	err = func() error {
		if w.Contents == nil {
			if old, kept, err := w.copyOld(t, out); err != nil {
				return err
			} else if old {
				mode = kept
			}
			if before, err = out.Seek(0, io.SeekEnd); err != nil {
				return err
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
		switch {
		case w.Contents == nil:
			if err := dropRepeated(out, before); err != nil {
				return err
			}
		case !w.Overwrite:
			if kept, err := w.compareOld(t, out); err != nil {
				return err
			} else if kept != nil {
				mode = *kept
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
	if w.blind() {
		m.leave(w.receipt())
	}
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

// compareOld allows a file that is there already only if it holds what was fetched,
// and gives its mode; nil where there is none.
func (w writeFile) compareOld(t *tree, out *os.File) (*fs.FileMode, error) {
	old, err := t.read(w.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return nil, err
	}
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	same := size == info.Size()
	if same {
		same, err = equal(old, io.NewSectionReader(out, 0, size))
	}
	if err == nil && !same {
		err = fmt.Errorf("%s: %w", w.Path, ErrExists)
	}
	mode := info.Mode() & permissions
	return &mode, err
}

// dropRepeated takes back what was appended where the bytes before it end with the
// same already.
func dropRepeated(out *os.File, before int64) error {
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	added := size - before
	if added > before {
		return nil
	}
	same, err := equal(io.NewSectionReader(out, before-added, added), io.NewSectionReader(out, before, added))
	if err == nil && same {
		err = out.Truncate(before)
	}
	return err
}

// equal compares two streams of one length.
func equal(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, x)
		m, berr := io.ReadFull(b, y[:n])
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return true, nil
		case err != nil:
			return false, err
		case berr != nil:
			return false, berr
		}
	}
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
