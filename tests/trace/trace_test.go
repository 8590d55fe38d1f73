package trace

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEachChangeIsSeen: one program for each kind of change, and it is listed; none is listed of those that only look.
func TestEachChangeIsSeen(t *testing.T) {
	own, other := t.TempDir(), t.TempDir()
	for _, name := range []string{"file", "sub/x"} {
		p := filepath.Join(other, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for script, call := range map[string]string{
		"echo y >file": "openat", "echo y >>file": "openat", "echo y >new": "openat", "exec 3<>file": "openat",
		"rm -f file": "unlinkat", "mv file other": "renameat2", "mkdir d": "mkdir", "rmdir sub": "rmdir", "mkfifo f": "mknod",
		"ln file hard": "link", "ln -s file soft": "symlink", "chmod 600 file": "fchmodat", "chown 1 file": "fchownat", "touch -c file": "utimensat",
		"truncate -s 0 file": "openat", "mount -t tmpfs none sub": "mount", "umount -l sub": "umount2", "sync -f file": "syncfs",
	} {
		_, l, _ := Run{Own: own}.Do(t.Context(), "sh", "-c", "cd "+other+"; "+script)
		if got := l.Changes(); !slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, call) }) {
			t.Errorf("%s: no %s among the changes %q", script, call, got)
		}
	}
	for _, name := range []string{"file", "sub/x"} {
		if data, err := os.ReadFile(filepath.Join(other, name)); err != nil || string(data) != "x" {
			t.Errorf("%s was changed although all is read-only: %q, %v", name, data, err)
		}
	}
	for _, script := range []string{
		"cat file", "ls -nR /etc", "stat -f file", "find . -type f", "echo x >$TMPDIR/x; mkdir $TMPDIR/d; mv $TMPDIR/x $TMPDIR/d/y; chmod 600 $TMPDIR/d/y; rm -r $TMPDIR/d", "echo x >/dev/null",
	} {
		_, l, err := Run{Own: own}.Do(t.Context(), "sh", "-c", "cd "+other+"; "+script)
		if got := l.Changes(); err != nil || len(got) > 0 {
			t.Errorf("%s: %q, %v", script, got, err)
		}
	}
}

// TestChangesOfTheWholeMachine are calls that no test makes: nothing confines them.
func TestChangesOfTheWholeMachine(t *testing.T) {
	for _, call := range []string{
		`sync() = 0`, `reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART) = 0`, `sethostname("x", 1) = 0`,
		`clock_settime(CLOCK_REALTIME, {tv_sec=978307200, tv_nsec=0}) = 0`, `kill(1, SIGTERM) = 0`, `finit_module(3</x.ko>, "", 0) = 0`, `swapon("/dev/vda2", 0) = 0`,
		`ioctl(3</dev/loop0<block 7:0>>, BLKDISCARD, [0, 4096]) = 0`, `ioctl(3</dev/loop0>, LOOP_SET_FD, 4) = 0`, `ioctl(3</dev/mapper/control>, DM_DEV_CREATE, 0x1) = 0`,
		`ioctl(3</x>, FS_IOC_SETFLAGS, [FS_IMMUTABLE_FL]) = 0`, `ioctl(3</dev/vda>, BLKRRPART) = 0`,
		`connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0`,
		`connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(81), sin_addr=inet_addr("127.0.0.1")}, 16) = 0`,
		`connect(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/systemd/private"}, 23) = 0`,
		`bind(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("0.0.0.0")}, 16) = 0`,
		`sendto(3<socket:[1]>, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16) = 1`,
		`openat(AT_FDCWD</own>, "/ownership", O_WRONLY) = 3`, `openat(3</own>, "../etc/passwd", O_RDWR) = 4`, `fchmod(3</etc/passwd>, 0600) = 0`, `rename("/own/a", "/etc/a") = 0`,
	} {
		l := Log{Lines: []string{call}, Own: "/own", Servers: []string{"htons(80)"}}
		if len(l.Changes()) != 1 {
			t.Errorf("%s is taken for harmless", call)
		}
	}
	for _, call := range []string{
		`connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0`, `ioctl(3</dev/loop0<block 7:0>>, BLKGETSIZE64, [4096]) = 0`,
		`openat(AT_FDCWD</own>, "x", O_WRONLY|O_CREAT, 0600) = 3`, `rename("/own/a", "/own/b") = 0`, `ftruncate(3</own/x (deleted)>, 0) = 0`,
	} {
		if l := (Log{Lines: []string{call}, Own: "/own", Servers: []string{"htons(80)"}}); len(l.Changes()) != 0 {
			t.Errorf("%s is taken for a change", call)
		}
	}
}

// TestBegin: what is before the program in question is not counted.
func TestBegin(t *testing.T) {
	own, other := t.TempDir(), t.TempDir()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	_, l, err := Run{Own: own, Begin: "/cat", Writable: true}.Do(t.Context(), "sh", "-c", "touch "+other+"/x; exec "+cat+" /dev/null")
	if got := l.Changes(); err != nil || len(got) > 0 || !slices.Equal(l.Started(), []string{cat}) {
		t.Errorf("%q, %q, %v", got, l.Started(), err)
	}
}

func TestSplit(t *testing.T) {
	for call, want := range map[string][]string{
		`openat(AT_FDCWD</a, b>, "x,\")y", O_RDWR|O_CREAT, 0644) = 3</x>`:                      {`openat`, `AT_FDCWD</a, b>`, `"x,\")y"`, `O_RDWR|O_CREAT`, `0644`},
		`connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=x}, 16) = -1`: {`connect`, `3<socket:[1]>`, `{sa_family=AF_INET, sin_port=htons(80), sin_addr=x}`, `16`},
		`sync() = 0`: {`sync`, ``},
		`exit`:       {`exit`},
	} {
		name, args := split(call)
		if got := append([]string{name}, args...); !slices.Equal(got, want) {
			t.Errorf("%s: %q", call, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("1 execve(\"/bin/x\", [\"x\"], 0x1 /* 2 vars */) = 0\n1 openat(AT_FDCWD, \"/x\", O_RDWR <unfinished ...>\n2 sync() = 0\n1 <... openat resumed>) = 3</x>\n1 +++ exited with 0 +++\n")
	f.Add("1 rename(\"a\", \n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Read(strings.NewReader(text), "")
		if err == nil && len(l.Changes()) > len(l.Lines) {
			t.Error("more changes than calls")
		}
	})
}
