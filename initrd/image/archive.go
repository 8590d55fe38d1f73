package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxInitrd bounds what an initrd that is read may unpack to: four times the largest that distributions make.
const maxInitrd = 2 << 30

// ArchiveError is an initrd that the kernel, or this package, cannot unpack.
type ArchiveError struct {
	Offset int64 // of the segment, in bytes from the start of the file
	Reason string
	Err    error // may be nil
}

func (e *ArchiveError) Error() string {
	s := fmt.Sprintf("at byte %d: %s", e.Offset, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// compression is one that the kernel may know, by its first bytes.
type compression struct {
	magic string
	name  string
	open  func(*bufio.Reader) (io.Reader, error) // reads one stream and not a byte more; nil for what is not read here
}

// compressions are those of the kernel's lib/decompress.c.
var compressions = []compression{
	{"\x1f\x8b", "gzip", openGzip},
	{"\x28\xb5\x2f\xfd", "zstd", openZstd},
	{"\xfd7zXZ\x00", "xz", openXZ},
	{"BZh", "bzip2", nil},
	{"\x5d\x00\x00", "lzma", nil},
	{"\x89LZO", "lzo", nil},
	{"\x02\x21\x4c\x18", "lz4", nil},
}

func openGzip(r *bufio.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err == nil {
		z.Multistream(false)
	}
	return z, err
}

func openZstd(r *bufio.Reader) (io.Reader, error) {
	d, err := zstd.NewReader(&zstdFrame{r: r}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<27))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func openXZ(r *bufio.Reader) (io.Reader, error) {
	z, err := xz.ReaderConfig{SingleStream: true}.NewReader(r)
	return &xzStream{z: z, in: r}, err
}

// xzStream ends where the stream ends. The decoder reads one byte more, to complain of it.
type xzStream struct {
	z  *xz.Reader
	in *bufio.Reader
}

func (x *xzStream) Read(b []byte) (int, error) {
	n, err := x.z.Read(b)
	// The library has no other name for this error.
	if err != nil && err.Error() == "xz: unexpected data after stream" {
		if err := x.in.UnreadByte(); err != nil {
			return n, err
		}
		return n, io.EOF
	}
	return n, err
}

// readInitrd unpacks an initrd as the kernel's init/initramfs.c does: archives one after the other, each plain or
// compressed, with zeros between them; a later entry replaces an earlier one of its name.
func readInitrd(r io.Reader) (*archive, error) {
	counted := &countReader{r: r}
	in := bufio.NewReaderSize(counted, 64<<10)
	offset := func() int64 { return counted.n - int64(in.Buffered()) }
	a := newArchive()
	left := int64(maxInitrd)
	for {
		if err := skipZeros(in, &left); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		start := offset()
		if start%4 != 0 {
			return nil, &ArchiveError{Offset: start, Reason: "a segment must start on a 4 byte boundary, pad what is before it with zeros"}
		}
		head, err := in.Peek(6)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		at := slices.IndexFunc(compressions, func(c compression) bool { return bytes.HasPrefix(head, []byte(c.magic)) })
		switch {
		case bytes.HasPrefix(head, []byte("07070")):
			if err := a.readCpio(in, &left); err != nil {
				return nil, &ArchiveError{Offset: start, Reason: "cpio archive", Err: err}
			}
		case at < 0:
			return nil, &ArchiveError{Offset: start, Reason: "neither a cpio archive nor a compression that the kernel knows"}
		case compressions[at].open == nil:
			return nil, &ArchiveError{Offset: start, Reason: compressions[at].name + " is not read here; decompress the initrd first"}
		default:
			if err := a.readPacked(in, compressions[at].open, &left); err != nil {
				return nil, &ArchiveError{Offset: start, Reason: compressions[at].name, Err: err}
			}
		}
	}
	if len(a.nodes) == 1 {
		return nil, &ArchiveError{Reason: "empty"}
	}
	return a, nil
}

// readPacked reads the archives in one compressed stream, to its end.
func (a *archive) readPacked(in *bufio.Reader, open func(*bufio.Reader) (io.Reader, error), left *int64) error {
	z, err := open(in)
	if err != nil {
		return err
	}
	if c, ok := z.(io.Closer); ok {
		defer c.Close()
	}
	plain := bufio.NewReaderSize(z, 64<<10)
	for {
		if err := skipZeros(plain, left); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := a.readCpio(plain, left); err != nil {
			return err
		}
	}
}

func skipZeros(r *bufio.Reader, left *int64) error {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return r.UnreadByte()
		}
		if *left--; *left < 0 {
			return errTooLarge
		}
	}
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

var errTooLarge = errors.New("unpacks to more than 2 GiB")

// readCpio reads entries to the trailer. u-root's reader wants random access and does not say where an archive ends.
func (a *archive) readCpio(r io.Reader, left *int64) error {
	hard := make(map[[3]uint32][]string) // names of one inode, until its contents come
	for {
		var header [110]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return fmt.Errorf("header: %w", noEOF(err))
		}
		if magic := string(header[:6]); magic != "070701" && magic != "070702" {
			return fmt.Errorf("header starts with %q", magic)
		}
		var f [13]uint32
		for i := range f {
			v, err := strconv.ParseUint(string(header[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return fmt.Errorf("header: %q is not a hexadecimal number", header[6+8*i:14+8*i])
			}
			f[i] = uint32(v)
		}
		ino, mode, links, size, major, minor, nameSize := f[0], f[1], f[4], f[6], f[7], f[8], f[11]
		if nameSize < 1 || nameSize > 4096 {
			return fmt.Errorf("name of %d bytes", nameSize)
		}
		// The header's 110 bytes and the name are padded together.
		name := make([]byte, (110+nameSize+3)&^3-110)
		if _, err := io.ReadFull(r, name); err != nil {
			return fmt.Errorf("name: %w", noEOF(err))
		}
		called := path.Clean(strings.TrimLeft(string(bytes.TrimRight(name[:nameSize], "\x00")), "/"))
		if called == "TRAILER!!!" {
			return nil
		}
		if *left -= int64(size); *left < 0 {
			return errTooLarge
		}
		var body bytes.Buffer
		if n, err := io.CopyN(&body, r, (int64(size)+3)&^3); err != nil {
			return fmt.Errorf("%s: %d of %d bytes: %w", called, n, size, noEOF(err))
		}
		if !fs.ValidPath(called) {
			return fmt.Errorf("name %q leads out of the archive", called)
		}
		e := entry{mode: goMode(mode), data: body.Bytes()[:size]}
		a.put(called, e)
		if links > 1 && e.mode.IsRegular() {
			key := [3]uint32{ino, major, minor}
			hard[key] = append(hard[key], called)
			if size > 0 {
				for _, n := range hard[key] {
					a.put(n, e)
				}
			}
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func goMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	if m&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	switch m & 0o170000 {
	case 0o100000:
	case 0o040000:
		mode |= fs.ModeDir
	case 0o120000:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeDevice
	}
	return mode
}

// archive is an unpacked initrd. It is an fs.ReadLinkFS whose paths are taken as they are, links not followed.
type archive struct {
	nodes map[string]*node
}

type node struct {
	entry
	name     string
	children map[string]bool
}

func newArchive() *archive {
	return &archive{nodes: map[string]*node{".": {name: ".", entry: entry{mode: fs.ModeDir | 0o755}, children: map[string]bool{}}}}
}

// put does what the kernel does with an entry. What lies in a directory that is not there is left out, without a word;
// what lies behind a link goes where it leads; another kind of thing makes way, save a directory that is not empty.
func (a *archive) put(name string, e entry) {
	if name == "." {
		return
	}
	parent, _, err := tree{fs: a}.resolve(path.Dir(name))
	if err != nil || !a.nodes[parent].mode.IsDir() {
		return
	}
	name = path.Join(parent, path.Base(name))
	old, ok := a.nodes[name]
	switch {
	case ok && old.mode.IsDir() && e.mode.IsDir():
		old.mode = e.mode
		return
	case ok && old.mode.IsDir() && len(old.children) > 0:
		return
	}
	a.nodes[name] = &node{entry: e, name: path.Base(name), children: map[string]bool{}}
	a.nodes[parent].children[path.Base(name)] = true
}

func (a *archive) find(op, name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n, ok := a.nodes[name]
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

func (a *archive) Lstat(name string) (fs.FileInfo, error) {
	n, err := a.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (a *archive) ReadLink(name string) (string, error) {
	n, err := a.find("readlink", name)
	if err != nil {
		return "", err
	}
	if n.mode.Type() != fs.ModeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return string(n.data), nil
}

func (a *archive) Open(name string) (fs.File, error) {
	n, err := a.find("open", name)
	if err != nil {
		return nil, err
	}
	return &file{node: n, r: bytes.NewReader(n.data)}, nil
}

func (a *archive) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := a.find("readdir", name)
	if err != nil {
		return nil, err
	}
	var entries []fs.DirEntry
	for child := range n.children {
		entries = append(entries, fs.FileInfoToDirEntry(a.nodes[path.Join(name, child)]))
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	return entries, nil
}

func (n *node) Name() string       { return n.name }
func (n *node) Size() int64        { return int64(len(n.data)) }
func (n *node) Mode() fs.FileMode  { return n.mode }
func (n *node) ModTime() time.Time { return time.Time{} }
func (n *node) IsDir() bool        { return n.mode.IsDir() }
func (n *node) Sys() any           { return nil }

// file is an open node.
type file struct {
	node *node
	r    *bytes.Reader
}

func (f *file) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *file) Read(b []byte) (int, error) { return f.r.Read(b) }
func (f *file) Close() error               { return nil }
