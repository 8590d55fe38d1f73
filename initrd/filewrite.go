package initrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
	"pilotlight/config/resource"
)

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
