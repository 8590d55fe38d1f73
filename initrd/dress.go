package initrd

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

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
