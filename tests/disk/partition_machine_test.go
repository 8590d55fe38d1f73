package disk_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pilotlight/config/resource"
	"pilotlight/initrd"
)

// Partitions on real loop devices, by the real machine. The kernel of this machine need
// not know of GPTs: it is told of each partition.

// tool runs a program and gives what it says.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// loopDisk attaches a new image.
func loopDisk(t *testing.T, size int64, sector int) (node string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	node = strings.TrimSpace(tool(t, "losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), image))
	t.Cleanup(func() {
		// The kernel keeps what it was told of a loop device. Whoever made a mount namespace
		// while something of it was mounted has that for as long as he lives.
		var out []byte
		for begin := time.Now(); len(nodes(t, node)) > 0 && time.Since(begin) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
			out, _ = exec.Command("partx", "--delete", node).CombinedOutput()
		}
		if left := nodes(t, node); len(left) > 0 {
			t.Errorf("partx leaves %v: %s", left, out)
		}
		tool(t, "losetup", "--detach", node)
	})
	return node
}

// nodes are the partitions that the kernel has, with their start and size in 512 bytes.
func nodes(t *testing.T, node string) map[string]string {
	t.Helper()
	list := map[string]string{}
	files, err := filepath.Glob("/sys/block/" + filepath.Base(node) + "/*/partition")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		dir := filepath.Dir(f)
		text := ""
		for _, name := range []string{"start", "size"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			text += " " + strings.TrimSpace(string(data))
		}
		list[strings.TrimPrefix(filepath.Base(dir), filepath.Base(node)+"p")] = strings.TrimSpace(text)
	}
	return list
}

func aMachine(t *testing.T) *initrd.Machine {
	t.Helper()
	m, err := initrd.NewMachine(t.TempDir(), &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	m.Wait = 5 * time.Second
	t.Cleanup(func() { m.Close() })
	return m
}

// partition makes what is wanted, and gives what became of it.
func partition(t *testing.T, m *initrd.Machine, l initrd.Layout) (initrd.Outcome, error) {
	t.Helper()
	planned, err := initrd.Run(t.Context(), m, []initrd.Step{l}, initrd.Plan, nil)
	if err != nil {
		return planned[0], err
	}
	done, err := initrd.Run(t.Context(), m, []initrd.Step{l}, initrd.Apply, nil)
	if err == nil && (done[0].Deed != planned[0].Deed || done[0].Effect != planned[0].Effect || !slices.Equal(done[0].Lost, planned[0].Lost)) {
		t.Errorf("planned %q, which %s %q; done %q, which %s %q", planned[0].Deed, planned[0].Effect, planned[0].Lost, done[0].Deed, done[0].Effect, done[0].Lost)
	}
	return done[0], err
}

// soundTable asks sgdisk and sfdisk for faults, and compares the kernel with the table.
func soundTable(t *testing.T, node string, sector int) {
	t.Helper()
	if out := tool(t, "sgdisk", "--verify", node); !strings.Contains(out, "No problems found.") || strings.Contains(out, "Problem:") {
		t.Errorf("sgdisk: %s", out)
	}
	if out := tool(t, "sfdisk", "--verify", node); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk: %s", out)
	}
	want := map[string]string{}
	for _, line := range strings.Split(table(t, node), "\n") {
		var name string
		var start, size int
		if n, _ := fmt.Sscanf(line, "p%s start %d size %d", &name, &start, &size); n == 3 {
			want[name] = fmt.Sprintf("%d %d", start*sector/512, size*sector/512)
		}
	}
	if got := nodes(t, node); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the kernel has %v, and the table %v", got, want)
	}
	for name := range want {
		if info, err := os.Stat(node + "p" + name); err != nil || info.Mode()&fs.ModeDevice == 0 {
			t.Errorf("no node: %v", err)
		}
	}
}

func of[T any](v T) *T { return &v }
