package initrd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// The child of this test makes one file system, and is killed over it together with mkfs.
const (
	childDevice = "PILOTLIGHT_TEST_DEVICE"
	childFormat = "PILOTLIGHT_TEST_FORMAT"
)

// killedWish is what the child makes. Label and UUID are given, so that two runs can be
// compared.
func killedWish(node, format string) Filesystem {
	for _, c := range formats() {
		if c.format == format {
			return Filesystem{Device: node, Format: format, Label: &c.label, UUID: &c.uuid, Wipe: true}
		}
	}
	return Filesystem{}
}

// TestFilesystemChild is the child; without its environment it has nothing to do.
func TestFilesystemChild(t *testing.T) {
	node := os.Getenv(childDevice)
	if node == "" {
		return
	}
	m, _ := testMachine(t)
	mustApply(t, m, killedWish(node, os.Getenv(childFormat)))
}

// filesystemChild makes the file system in a process group of its own, which is killed
// after a while, if it is not done by then. It gives how long it took, and whether it was
// killed.
func filesystemChild(t *testing.T, node, format string, after time.Duration) (time.Duration, bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFilesystemChild$")
	cmd.Env = append(os.Environ(), childDevice+"="+node, childFormat+"="+format)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	kill.Stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return time.Since(begin), true
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(begin), false
}

// TestFilesystemKilledOverIt kills the process, and mkfs with it, at many moments, and
// starts again. What is there in between is blank, unfinished or whole; and what is there
// in the end is what a run makes that was never killed, also for a process that has no
// receipts of the past.
func TestFilesystemKilledOverIt(t *testing.T) {
	const moments = 8
	for _, c := range formats() {
		t.Run(c.format, func(t *testing.T) {
			node, _ := loopDevice(t, c.mib)
			// What is not written by mkfs is what was there before.
			litter(t, node)
			whole, _ := filesystemChild(t, node, c.format, time.Minute)
			want := blkid(t, node)
			killed, states := 0, map[string]int{}
			for i := range moments {
				// The receipt of the first run is in its own directory, and gone.
				_, was := filesystemChild(t, node, c.format, whole*time.Duration(i+1)/(moments+1))
				if was {
					killed++
				}
				have := superblock(t, node)
				states[fmt.Sprintf("%q unfinished %v", have.Type, have.Unfinished)]++
				if !have.Blank() {
					if have.Type != c.format {
						t.Errorf("moment %d: it has %s", i, have)
					}
					tool(t, "", c.check[0], append(c.check[1:], node)...)
					continue
				}
				// Without wipe: what is half made is nobody's.
				again := killedWish(node, c.format)
				again.Wipe = false
				m, _ := testMachine(t)
				if out := mustApply(t, m, again); !out[0].Changed {
					t.Errorf("moment %d: %+v", i, out[0])
				}
				if got := blkid(t, node); got != want {
					t.Errorf("moment %d: %q, want %q", i, got, want)
				}
				tool(t, "", c.check[0], append(c.check[1:], node)...)
			}
			t.Logf("%v for one; killed %d of %d: %v", whole, killed, moments, states)
			if killed == 0 {
				t.Error("it was never killed")
			}
		})
	}
}

// TestFilesystemKilledAtAWrite does the same, killed by strace(1) at each of the first
// writes of mkfs, and at some of the later ones, which no clock can meet.
func TestFilesystemKilledAtAWrite(t *testing.T) {
	for _, c := range formats() {
		t.Run(c.format, func(t *testing.T) {
			node, _ := loopDevice(t, c.mib)
			litter(t, node)
			want := killedWish(node, c.format)
			want.Wipe = false
			states := map[string]int{}
			step := 1
			for n := 1; ; n += step {
				if n > 10 {
					step = n / 3
				}
				m, _ := testMachine(t)
				strace(t, m, want, n)
				wipe := want
				wipe.Wipe = true
				_, err := apply(t, m, wipe)
				have := superblock(t, node)
				states[fmt.Sprintf("%q unfinished %v", have.Type, have.Unfinished)]++
				if err == nil {
					t.Logf("%d writes at most: %v", n, states)
					tool(t, "", c.check[0], append(c.check[1:], node)...)
					return
				}
				if !have.Blank() && have.Type != c.format {
					t.Fatalf("write %d: it has %s: %v", n, have, err)
				}
				again, _ := testMachine(t)
				mustApply(t, again, want)
				tool(t, "", c.check[0], append(c.check[1:], node)...)
			}
		})
	}
}

// strace puts a program in place of the mkfs of a wish: that one, killed at its nth write.
func strace(t *testing.T, m *Machine, f Filesystem, n int) {
	t.Helper()
	argv, err := makeFilesystem{Filesystem: f}.argv()
	if err != nil {
		t.Fatal(err)
	}
	real, err := m.find(argv[0])
	if err != nil {
		t.Fatal(err)
	}
	rest := m.Programs
	program(t, m, argv[0], fmt.Sprintf(`exec /usr/bin/strace -f -o /dev/null -e trace=write,pwrite64,fsync -e inject=write,pwrite64,fsync:signal=KILL:when=%d %s "$@"`, n, real))
	m.Programs = append(m.Programs, rest...)
}

// litter writes a pattern to all of a device, such as deleted data leaves.
func litter(t *testing.T, node string) {
	t.Helper()
	f, err := os.OpenFile(node, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pattern := make([]byte, 1<<20)
	for i := range pattern {
		pattern[i] = 0xa7
	}
	for offset := int64(0); ; offset += int64(len(pattern)) {
		_, err := f.WriteAt(pattern, offset)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
