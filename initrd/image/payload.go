package image

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// entry is what stands at one path of an archive. data is the content of a file, the target of a link.
type entry struct {
	mode fs.FileMode
	data []byte
}

// payload collects an archive. Names are without the leading slash.
type payload struct {
	entries map[string]entry
}

func newPayload() *payload { return &payload{entries: make(map[string]entry)} }

// put sets what stands at a path. The same thing twice is fine, two different things are not.
func (p *payload) put(name string, e entry) error {
	name = strings.TrimPrefix(name, "/")
	if old, ok := p.entries[name]; ok && (old.mode != e.mode || !bytes.Equal(old.data, e.data)) {
		return &PathError{Path: "/" + name, Reason: "wanted twice, with different contents"}
	}
	p.entries[name] = e
	return nil
}

func (p *payload) has(name string) bool {
	_, ok := p.entries[strings.TrimPrefix(name, "/")]
	return ok
}

// size is the sum of the contents in bytes.
func (p *payload) size() (n int64) {
	for _, e := range p.entries {
		n += int64(len(e.data))
	}
	return n
}

// withParents adds the directories above every entry, and fails where one of them is something else.
func (p *payload) withParents() error {
	for _, name := range slices.Sorted(maps.Keys(p.entries)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			e, ok := p.entries[dir]
			if !ok {
				p.entries[dir] = entry{mode: fs.ModeDir | 0o755}
			} else if !e.mode.IsDir() {
				return &PathError{Path: "/" + name, Reason: "/" + dir + " is not a directory"}
			}
		}
	}
	return nil
}

// writeTo writes the archive, sorted by path, which puts a directory before what is in it. Owners, times and device
// numbers are zero; inodes are counted.
func (p *payload) writeTo(w io.Writer) error {
	if err := p.withParents(); err != nil {
		return err
	}
	records := cpio.Newc.Writer(w)
	for i, name := range slices.Sorted(maps.Keys(p.entries)) {
		e := p.entries[name]
		info := cpio.Info{Name: name, Ino: uint64(i + 1), NLink: 1, Mode: cpioMode(e.mode), FileSize: uint64(len(e.data))}
		if err := records.WriteRecord(cpio.Record{Info: info, ReaderAt: bytes.NewReader(e.data)}); err != nil {
			return err
		}
	}
	return cpio.WriteTrailer(records)
}

func cpioMode(m fs.FileMode) uint64 {
	mode := uint64(m.Perm())
	switch m.Type() {
	case fs.ModeDir:
		mode |= cpio.S_IFDIR
	case fs.ModeSymlink:
		mode |= cpio.S_IFLNK
	default:
		mode |= cpio.S_IFREG
	}
	if m&fs.ModeSticky != 0 {
		mode |= cpio.S_ISVTX
	}
	return mode
}

// padWriter counts what goes through it.
type padWriter struct {
	w io.Writer
	n int64
}

func (p *padWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}

// pad writes zeros up to a multiple of block.
func (p *padWriter) pad(block int64) error {
	if rest := p.n % block; rest != 0 {
		_, err := p.Write(make([]byte, block-rest))
		return err
	}
	return nil
}
