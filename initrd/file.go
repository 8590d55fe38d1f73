package initrd

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

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
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, writeFile{File: f}, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	write := writeFile{File: f, was: was(entry)}
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

// dressed compares owner and mode.
func (f File) dressed(look Look, entry Entry) (bool, error) {
	if f.Mode != nil && entry.Mode&permissions != *f.Mode {
		return false, nil
	}
	uid, gid, err := look.Owner(f.Root, f.Owner)
	if err != nil {
		return false, err
	}
	uid, gid = f.Owner.over(entry, uid, gid)
	return entry.UID == uid && entry.GID == gid, nil
}

// holds says whether the file has the content that is wished.
func (f File) holds(look Look, entry Entry) (bool, error) {
	if f.Contents == nil && len(f.Append) == 0 {
		return true, nil // a file that merely exists is what was asked for
	}
	if f.Contents == nil && entry.Size > oldLimit {
		return false, fmt.Errorf("%s: %w: there are %d bytes already, and at most %d are appended to", f.Path, errTooLong, entry.Size, oldLimit)
	}
	switch {
	case f.blind():
		return look.Done(f.receipt()), nil
	case !f.remote():
		if w, ok := look.(wrote); ok && len(f.Append) == 0 && w.Wrote(f.Root, f.Path, entry, f.Contents) {
			return true, nil
		}
		want, err := f.local()
		if err != nil {
			return false, err
		}
		if f.Contents != nil && entry.Size != int64(len(want)) || entry.Size < int64(len(want)) {
			return false, nil
		}
		return ends(look, f.Root, f.Path, entry.Size, want)
	}
	if look.Verified(f.Root, f.Path, entry, f.Contents.Hash) {
		return true, nil
	}
	in, err := look.Open(f.Root, f.Path)
	if err != nil {
		return false, err
	}
	defer in.Close()
	return hashEqual(io.LimitReader(in, resource.DefaultLimit), f.Contents.Hash)
}

// wrote is a look that knows what this process put there itself.
type wrote interface {
	// Wrote says whether what lies at path is, unchanged since, what a deed of this process
	// filled with exactly these contents. To decode and to read it once more would take as
	// long as to write it.
	Wrote(root, path string, e Entry, contents *resource.Resource) bool
}

func (l look) Wrote(root, name string, e Entry, contents *resource.Resource) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	v, ok := l.m.verified[path.Join(root, name)]
	return ok && v.entry == e && v.contents == contents && contents != nil
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

// ends says whether a file of that size ends with these bytes.
func ends(look Look, root, name string, size int64, with []byte) (bool, error) {
	in, err := look.Open(root, name)
	if err != nil {
		return false, err
	}
	defer in.Close()
	if before := size - int64(len(with)); before > 0 {
		if s, ok := in.(io.Seeker); ok {
			_, err = s.Seek(before, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, in, before)
		}
		if err != nil {
			return false, err
		}
	}
	// One byte more: a file that has grown since is another one.
	have := make([]byte, len(with)+1)
	n, err := io.ReadFull(in, have)
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return bytes.Equal(have[:n], with), nil
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
