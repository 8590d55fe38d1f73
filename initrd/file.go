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

// readFile reads a regular file of at most limit bytes.
func readFile(look Look, root, name string, limit int64) ([]byte, error) {
	in, err := look.Open(root, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return readBounded(in, path.Join(root, name), limit)
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

// writeFile writes a draft, and gives it the file's name when its bytes are verified.
// What has that name already is never written to: another name of it may lead to
// somewhere else.
type writeFile struct {
	File
	was  before // a file, or something else, has the name
	keep bool   // and the content is right; only owner and mode are not
}

// Effect tells what has the name.
func (w writeFile) Effect() (Effect, []string) { return w.was.replaced(w.Path) }

func (w writeFile) String() string {
	if w.keep {
		return "set owner and mode of " + w.Path
	}
	return "write " + w.Path
}

func (w writeFile) do(ctx context.Context, m *Machine) error {
	dirs := newParents(m)
	defer dirs.close()
	if w.keep {
		dir, base, err := dirs.of(w.Root, w.Path)
		if err != nil {
			return err
		}
		uid, gid, err := m.owner(w.Root, w.Owner)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: w.Path, Err: err}
		}
		uid, gid = w.Owner.over(Entry{UID: int(st.Uid), GID: int(st.Gid)}, uid, gid)
		err = dress(dir.fd, base, unix.S_IFREG, uid, gid, w.Mode)
		if !errors.Is(err, errShared) {
			return err
		}
	}
	p, err := w.begin(ctx, m, dirs)
	if err != nil {
		return err
	}
	defer p.draft.discard()
	if err := p.draft.sync(); err != nil {
		return err
	}
	return p.finish(m)
}

// Weight tells that the bytes are in the config.
func (w writeFile) Weight() (bytes int64, joint bool) {
	if w.keep || w.remote() {
		return 0, false
	}
	for _, r := range append([]resource.Resource{*orEmpty(w.Contents)}, w.Append...) {
		bytes += int64(len(r.Source.Reveal()))
		if r.Inline != nil {
			bytes += int64(len(r.Inline.Reveal()))
		}
	}
	return bytes, true
}

// begin writes the draft, and gives it owner and mode.
func (w writeFile) begin(ctx context.Context, m *Machine, dirs *parents) (*writing, error) {
	t, err := m.tree(w.Root)
	if err != nil {
		return nil, err
	}
	uid, gid, err := m.owner(w.Root, w.Owner)
	if err != nil {
		return nil, err
	}
	dir, base, err := dirs.of(w.Root, w.Path)
	if err != nil {
		return nil, err
	}
	d, err := newDraft(dir.fd, base)
	if err != nil {
		return nil, err
	}
	if w.Owner.AnyGID && dir.setgid {
		gid = dir.gid
	}
	mode, uid, gid, err := w.fill(ctx, m, t, d, uid, gid)
	d.owned = dirs.gives(dir, uid, gid)
	if err == nil {
		err = d.dress(uid, gid, mode)
	}
	if err != nil {
		d.discard()
		return nil, err
	}
	may := nothing
	switch {
	case w.Overwrite:
		may = anything
	case w.was.there:
		may = anyFile // it was compared
	}
	return &writing{of: w, draft: d, dev: dir.dev, may: may}, nil
}

// finish gives the draft its name, and notes what is known of the file from now on.
func (p *writing) finish(m *Machine) error {
	w := p.of
	if err := p.draft.name(p.may); err != nil {
		return err
	}
	if w.blind() {
		m.leave(w.receipt())
		return nil
	}
	if w.Contents == nil || len(w.Append) > 0 {
		return nil
	}
	e, err := entryOf(int(p.draft.handle))
	if err != nil {
		return err
	}
	v := verified{entry: e, contents: w.Contents}
	if w.remote() {
		v.hash = w.Contents.Hash.String()
	}
	m.mu.Lock()
	m.verified[path.Join(w.Root, w.Path)] = v
	m.mu.Unlock()
	return nil
}

// fill writes what the file shall hold, and gives the mode that it shall have and whom it
// shall belong to: what is kept of a file that is there keeps those, too, of which nothing
// is said.
func (w writeFile) fill(ctx context.Context, m *Machine, t *tree, d *draft, uid, gid int) (fs.FileMode, int, int, error) {
	fault := func(err error) (fs.FileMode, int, int, error) { return 0, 0, 0, err }
	mode := fs.FileMode(0o644)
	keep := func(st *unix.Stat_t) {
		if st != nil {
			uid, gid = w.Owner.over(Entry{UID: int(st.Uid), GID: int(st.Gid)}, uid, gid)
			mode = inherited(*st, uid, gid)
		}
	}
	var before int64 // bytes that are there, and appended to
	if w.Contents == nil || w.keep {
		old, size, err := w.copyOld(t, d)
		if err != nil {
			return fault(err)
		}
		keep(old)
		before = size
	} else if _, err := m.Client.Copy(ctx, *w.Contents, d); err != nil {
		return fault(err)
	}
	if !w.keep {
		for _, a := range w.Append {
			if _, err := d.Seek(0, io.SeekEnd); err != nil {
				return fault(err)
			}
			if err := appendTo(ctx, m, a, d); err != nil {
				return fault(err)
			}
		}
	}
	switch {
	case w.Contents == nil:
		if err := dropRepeated(d, before); err != nil {
			return fault(err)
		}
	case w.was.there && !w.Overwrite && !w.keep:
		old, err := w.compareOld(t, d)
		if err != nil {
			return fault(err)
		}
		keep(old)
	}
	if w.Mode != nil {
		mode = *w.Mode
	}
	return mode, uid, gid, nil
}

// appendTo adds one part. The client may have to begin its destination again
// after a broken transfer, so each part comes in by a file of its own.
func appendTo(ctx context.Context, m *Machine, part resource.Resource, out io.Writer) error {
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

// oldLimit bounds what is taken over from a file that is there, in bytes.
const oldLimit = 1 << 30

// copyOld begins a file with what is there, and says what that is; nil where there is nothing.
func (w writeFile) copyOld(t *tree, d *draft) (*unix.Stat_t, int64, error) {
	old, err := t.read(w.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer old.Close()
	st, err := old.regular()
	if err != nil {
		return nil, 0, err
	}
	if st.Size > oldLimit {
		return nil, 0, fmt.Errorf("%s: %w: more than %d bytes are there already", w.Path, errTooLong, oldLimit)
	}
	n, err := io.Copy(d, io.LimitReader(old, oldLimit))
	return &st, n, err
}

// compareOld allows a file that is there already only if it holds what was fetched,
// and says what that is.
func (w writeFile) compareOld(t *tree, d *draft) (*unix.Stat_t, error) {
	old, err := t.read(w.Path)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	st, err := old.regular()
	if err != nil {
		return nil, err
	}
	size, err := d.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	same := size == st.Size
	if same {
		same, err = equal(old, io.NewSectionReader(d, 0, size))
	}
	if err == nil && !same {
		err = fmt.Errorf("%s: %w", w.Path, ErrExists)
	}
	return &st, err
}

// inherited is the mode that something keeps when no other is wished for it. With its
// owner a file loses setuid and setgid, as with chown(2): whoever left them there meant
// another owner's rights, if he meant well. On a directory setgid is no right.
func inherited(st unix.Stat_t, uid, gid int) fs.FileMode {
	mode := permissionsOf(st.Mode)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && (int(st.Uid) != uid || int(st.Gid) != gid) {
		mode &^= fs.ModeSetuid | fs.ModeSetgid
	}
	return mode
}

// dropRepeated takes back what was appended where the bytes before it end with the
// same already.
func dropRepeated(d *draft, before int64) error {
	size, err := d.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	added := size - before
	if added == 0 || added > before {
		return nil
	}
	same, err := equal(io.NewSectionReader(d, before-added, added), io.NewSectionReader(d, before, added))
	if err == nil && same {
		err = d.Truncate(before)
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

// errShared says of a file that it has other names, which must stay as they are.
var errShared = errors.New("the file has more than one name")

// dress sets owner and mode of something that is there: a regular file or a directory,
// as kind says (S_IFREG, S_IFDIR). It fails with errShared, before anything is changed,
// where a file has another name: that may lie anywhere.
func dress(dir int, base string, kind uint32, uid, gid int, mode *fs.FileMode) error {
	// By descriptor: fchmodat with AT_SYMLINK_NOFOLLOW is newer than the kernels
	// that are supported, and the name must not become a link between two calls.
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: base, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: base, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != kind:
		return &fs.PathError{Op: "open", Path: base, Err: errors.New("something else has come into its place")}
	case kind == unix.S_IFREG && st.Nlink > 1:
		return errShared
	}
	bits := unixMode(inherited(st, uid, gid))
	if mode != nil {
		bits = unixMode(*mode)
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return obstacle(dir, base, "chown", err)
		}
	}
	return obstacle(dir, base, "chmod", unix.Fchmod(fd, bits))
}
