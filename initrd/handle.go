package initrd

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// A handle is a regular file by its descriptor. An *os.File asks the kernel, for each
// one, whether it can be waited for; with a thousand small files that is half of all
// the calls, and regular files never can.
type handle int

// Read reads up to len(p) bytes; io.EOF at the end.
func (h handle) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(h), p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// Write writes all of p, or gives the error that kept it from doing so.
func (h handle) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := unix.Write(int(h), p[written:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// ReadAt reads len(p) bytes from an offset on, and fewer only at the end.
func (h handle) ReadAt(p []byte, at int64) (read int, err error) {
	for read < len(p) {
		n, err := unix.Pread(int(h), p[read:], at+int64(read))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return read, err
		case n == 0:
			return read, io.EOF
		}
		read += n
	}
	return read, nil
}

// Seek is lseek(2): io's words for whence are the kernel's.
func (h handle) Seek(offset int64, whence int) (int64, error) {
	return unix.Seek(int(h), offset, whence)
}

// Truncate cuts the file at a size in bytes.
func (h handle) Truncate(size int64) error { return unix.Ftruncate(int(h), size) }

// Sync waits until the file is on its disk.
func (h handle) Sync() error { return unix.Fsync(int(h)) }

// Close gives the descriptor back.
func (h handle) Close() error { return unix.Close(int(h)) }

// regular says how the file is, and that it is a regular one.
func (h handle) regular() (st unix.Stat_t, err error) {
	if err = unix.Fstat(int(h), &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	return st, err
}

var errNotRegular = errors.New("not a regular file")
