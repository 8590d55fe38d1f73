package initrd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// runBelow runs a program that is given --root= and changes what lies below it.
//
// Such programs resolve some names inside that root and some as if they were their
// own: where an old tree has a link from /etc to elsewhere, systemd-sysusers locks and
// writes elsewhere, systemctl puts its links there, and systemd-tmpfiles makes
// directories. So the program gets mounts of its own, in which everything but the root is
// read-only; what leads out of it fails, with the program's word for that.
//
// Mounts of one's own need CAP_SYS_ADMIN and Linux 5.12. A boot has them, and fails
// without. Elsewhere, as in a container that builds images, the program runs as it is,
// and that is told.
func (m *Machine) runBelow(ctx context.Context, root string, p Program) (stdout []byte, stderr string, err error) {
	root = path.Join("/", root)
	onThread(func() {
		if err = onlyWritable(root); err != nil {
			if root == BootRoot {
				return
			}
			m.say("%s is not confined to %s: %v", p.Argv[0], root, err)
		}
		stdout, stderr, err = m.run(ctx, p)
	})
	return stdout, stderr, err
}

// onThread does something on a thread that ends with it. That is never the first one,
// which cannot end, and whose mounts /proc/self shows to all.
func onThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // a goroutine that ends so takes its thread along
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onThread(do) // on another, since this one is taken
			return
		}
		do()
	}()
	<-done
}

// onlyWritable gives the calling thread, and what it starts, mounts of its own, of which
// only those at and below root can be written to.
func onlyWritable(root string) error {
	if root == "/" {
		return nil
	}
	mounts, _, err := mountinfo()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	const all = unix.AT_RECURSIVE
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err = errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""),
		unix.MountSetattr(-1, "/", all, &readOnly),
		unix.MountSetattr(-1, root, all, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}),
	)
	for _, m := range mounts {
		if m.ReadOnly && strings.HasPrefix(m.Where, root+"/") {
			err = errors.Join(err, unix.MountSetattr(-1, m.Where, 0, &readOnly))
		}
	}
	if err != nil {
		return fmt.Errorf("read-only outside of it: %w", err)
	}
	return nil
}
