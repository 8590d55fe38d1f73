package initrd

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/config/resource"
)

// The child of these tests is this test program, started anew with the root and the
// server in its environment. It carries steps out, says a word after each, and is killed.
const (
	childRoot   = "PILOTLIGHT_TEST_ROOT"
	childServer = "PILOTLIGHT_TEST_SERVER"
)

// killedSteps replace files, make new ones and links.
func killedSteps(t *testing.T, root, server string) []Step {
	t.Helper()
	var steps []Step
	for i := range 50 {
		dir := fmt.Sprintf("/d%d", i%5)
		steps = append(steps,
			File{Root: root, Path: fmt.Sprintf("%s/old%d", dir, i), Contents: inline("new"), Overwrite: true, Owner: me()},
			File{Root: root, Path: fmt.Sprintf("%s/new%d", dir, i), Contents: inline("new"), Owner: me()},
			Link{Root: root, Path: fmt.Sprintf("%s/link%d", dir, i), Target: "new", Overwrite: true, Owner: me()})
	}
	if server == "" {
		return steps
	}
	u, err := resource.ParseURL(server)
	if err != nil {
		t.Fatal(err)
	}
	return []Step{File{Root: root, Path: "/f", Contents: &resource.Resource{Source: u}, Owner: me()}}
}

// TestKilledChild is the child; without its environment it has nothing to do.
func TestKilledChild(t *testing.T) {
	root := os.Getenv(childRoot)
	if root == "" {
		return
	}
	m, _ := testMachine(t)
	_, err := Run(t.Context(), m, killedSteps(t, root, os.Getenv(childServer)), Apply, func(i int, _ Outcome) { fmt.Println("step", i) })
	if err != nil {
		t.Fatal(err)
	}
}

func child(t *testing.T, root, server string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), childRoot+"="+root, "TMPDIR="+t.TempDir(), childServer+"="+server)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// leftBehind are the provisional names below a directory.
func leftBehind(t *testing.T, root string) (names []string) {
	t.Helper()
	for name := range shot(t, root) {
		if strings.Contains(name, unverified) {
			names = append(names, name)
		}
	}
	return names
}

// TestKilledAnywhere kills the child after each number of steps, over one and the same
// tree. A name that stays does not outlive the run that comes to its end.
func TestKilledAnywhere(t *testing.T) {
	root := t.TempDir()
	for i := range 50 {
		write(t, fmt.Sprintf("%s/d%d/old%d", root, i%5, i), "old")
		if err := os.Symlink("old", fmt.Sprintf("%s/d%d/link%d", root, i%5, i)); err != nil {
			t.Fatal(err)
		}
	}
	for after := 5; after < 150; after += 15 {
		cmd, out := child(t, root, "")
		lines := bufio.NewScanner(out)
		for n := 0; n < after && lines.Scan(); n++ {
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Logf("after %d steps it was at its end", after)
		}
		for i := range 50 {
			name := fmt.Sprintf("%s/d%d/old%d", root, i%5, i)
			if got := contentOf(t, name); got != "old" && got != "new" {
				t.Fatalf("%s is neither the old nor the new one: %q", name, got)
			}
		}
	}
	m, _ := testMachine(t)
	settle(t, m, killedSteps(t, root, "")...)
	if left := leftBehind(t, root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestKilledOverABody kills the child when half of a body has arrived in its file.
func TestKilledOverABody(t *testing.T) {
	const half = 100_000
	var whole atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(2*half))
		io.WriteString(w, strings.Repeat("a", half))
		if !whole.Load() {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		io.WriteString(w, strings.Repeat("b", half))
	}))
	defer server.Close()
	root := t.TempDir()
	cmd, _ := child(t, root, server.URL)
	arrived := false
	for begin := time.Now(); !arrived && time.Since(begin) < 20*time.Second; time.Sleep(time.Millisecond) {
		names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			target, _ := os.Readlink(name) // it may be closed by now
			info, err := os.Stat(name)
			arrived = arrived || err == nil && strings.HasPrefix(target, root+"/") && info.Size() == half
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if !arrived {
		t.Fatal("no half of a file was seen")
	}
	if _, err := os.Lstat(filepath.Join(root, "f")); err == nil {
		t.Error("half of a file has the name of a whole one")
	}
	whole.Store(true)
	m, _ := testMachine(t)
	settle(t, m, killedSteps(t, root, server.URL)...)
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || len(contentOf(t, filepath.Join(root, "f"))) != 2*half {
		t.Errorf("%v %v", entries, err)
	}
}
