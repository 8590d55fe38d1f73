package initrd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// many are steps for so many files in a directory that is not there yet.
func many(root string, n int) []Step {
	var steps []Step
	for i := range n {
		steps = append(steps, File{Root: root, Path: fmt.Sprintf("/etc/many/%04d", i), Contents: inline(fmt.Sprint("content ", i)), Mode: modeOf(0o640), Owner: me()})
	}
	return steps
}

// TestManyFilesTogether is about more than are done at once, with others in between.
func TestManyFilesTogether(t *testing.T) {
	m, root := testMachine(t)
	steps := many(root, 2*mostTogether+10)
	steps = slices.Insert(steps, 20, Step(Link{Root: root, Path: "/etc/link", Target: "many", Owner: me()}))
	// Its bytes are more than are kept waiting, and it is written alone.
	big := strings.Repeat("x", heaviestTogether+1)
	steps = append(steps, File{Root: root, Path: "/etc/big", Contents: inline(big), Owner: me()})
	told := 0
	out, err := Run(t.Context(), m, steps, Apply, func(i int, o Outcome) {
		if !o.Changed || o.Took <= 0 || o.Wish != steps[i].String() {
			t.Errorf("step %d: %+v", i, o)
		}
		told++
	})
	if err != nil || told != len(steps) || len(out) != len(steps) {
		t.Fatalf("%d of %d told: %v", told, len(steps), err)
	}
	for i := range 2*mostTogether + 10 {
		name := filepath.Join(root, fmt.Sprintf("etc/many/%04d", i))
		data, err := os.ReadFile(name)
		if err != nil || string(data) != fmt.Sprint("content ", i) {
			t.Fatalf("%s holds %q: %v", name, data, err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(root, "etc/big")); err != nil || string(data) != big {
		t.Errorf("%d bytes: %v", len(data), err)
	}
	for _, again := range []*Machine{m, another(t)} {
		out, err = Run(t.Context(), again, steps, Apply, nil)
		if err != nil || slices.ContainsFunc(out, func(o Outcome) bool { return o.State != So }) {
			t.Errorf("a second run changes something: %v", err)
		}
	}
}

func another(t *testing.T) *Machine {
	m, _ := testMachine(t)
	return m
}

// TestFailureAmongMany: what comes before the one that fails is done, and nothing after it.
func TestFailureAmongMany(t *testing.T) {
	for name, c := range map[string]struct {
		is   error
		path string
	}{
		"in writing": {unix.ENOTDIR, "/plain/x"},
		// By another name of the directory that 0003 lies in.
		"in naming": {ErrExists, "/etc/alias/0003"},
	} {
		t.Run(name, func(t *testing.T) {
			m, root := testMachine(t)
			write(t, filepath.Join(root, "plain"), "a file")
			if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc/many"), 0o755), os.Symlink("many", filepath.Join(root, "etc/alias"))); err != nil {
				t.Fatal(err)
			}
			steps := slices.Insert(many(root, 20), 7, Step(File{Root: root, Path: c.path, Contents: inline("no"), Owner: me()}))
			steps = append(steps, Link{Root: root, Path: "/etc/link", Target: "many", Owner: me()})
			out, err := Run(t.Context(), m, steps, Apply, nil)
			var failed *Error
			if !errors.Is(err, c.is) || !errors.As(err, &failed) || failed.Step.String() != "file "+c.path {
				t.Fatalf("error: %v", err)
			}
			for i, o := range out {
				if o.Wish != steps[i].String() || o.Reached != (i <= 7) || o.Changed != (i < 7) || (o.Err != nil) != (i == 7) {
					t.Errorf("%d: %+v", i, o)
				}
			}
			entries, err := os.ReadDir(filepath.Join(root, "etc/many"))
			if err != nil || len(entries) != 7 || entries[6].Name() != "0006" {
				t.Errorf("%v %v", entries, err)
			}
			if _, err := os.Lstat(filepath.Join(root, "etc/link")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the step after them: %v", err)
			}
		})
	}
}

// TestLookSeesWhatChanges: what was resolved for a look does not outlive a deed.
func TestLookSeesWhatChanges(t *testing.T) {
	m, root := testMachine(t)
	if err := os.MkdirAll(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	absent := func(name string, want bool) {
		t.Helper()
		_, err := m.Look(t.Context()).Stat(root, name)
		if errors.Is(err, os.ErrNotExist) != want || !want && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	absent("/a/f", true)
	absent("/b/f", true)
	absent("/", false)
	if _, err := apply(t, m, File{Root: root, Path: "/b/f", Contents: inline("x"), Owner: me()}); err != nil {
		t.Fatal(err)
	}
	absent("/b/f", false)
	// A directory in the place of one that was looked into.
	if err := errors.Join(os.Rename(filepath.Join(root, "b"), filepath.Join(root, "a/b")), os.Mkdir(filepath.Join(root, "b"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, m, Directory{Root: root, Path: "/c", Owner: me()}); err != nil {
		t.Fatal(err)
	}
	absent("/b/f", true)
	absent("/a/b/f", false)
}

const manyFiles = "PILOTLIGHT_TEST_MANY"

// TestManyChild is the child of the next test; without its environment it has nothing to do.
func TestManyChild(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv(manyFiles))
	if err != nil {
		return
	}
	m, root := testMachine(t)
	if _, err := apply(t, m, many(root, n)...); err != nil {
		t.Fatal(err)
	}
}

// traced gives the system calls of writing so many files, one a line.
func traced(t *testing.T, n int) []string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.CommandContext(t.Context(), "strace", "--follow-forks", "-qq", "--signal=none", "--output="+log, os.Args[0], "-test.run=^TestManyChild$")
	cmd.Env = append(os.Environ(), manyFiles+"="+strconv.Itoa(n))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`^\d+ +([a-z0-9_]+)\((.*)`)
	var calls []string
	for line := range strings.Lines(string(data)) {
		// What the runtime of Go does for itself, by the clock, is not counted, and an
		// interrupted line is counted where it begins.
		m := call.FindStringSubmatch(line)
		if m == nil || slices.Contains([]string{"futex", "nanosleep", "sched_yield", "tgkill", "getpid", "gettid", "rt_sigreturn", "rt_sigprocmask", "sigaltstack", "epoll_pwait", "madvise", "mmap", "munmap", "clone", "clone3"}, m[1]) {
			continue
		}
		calls = append(calls, m[1]+"("+m[2])
	}
	return calls
}

// TestSystemCallsOfAFile: a file costs at most twelve, and has its name only when its bytes
// are on the disk.
func TestSystemCallsOfAFile(t *testing.T) {
	few, more := traced(t, 100), traced(t, 400)
	each := float64(len(more)-len(few)) / 300
	t.Logf("%.1f system calls for a file", each)
	// The removal of the test's own folder at its end is an unlinkat for each.
	if each > 12+1 || each < 4 {
		t.Errorf("%.1f system calls for a file", each)
	}
	waiting, named := 0, 0
	for _, c := range more {
		switch name, _, _ := strings.Cut(c, "("); {
		case name == "write" && strings.Contains(c, `"content `):
			waiting++
		case name == "syncfs" || name == "fdatasync":
			waiting = 0
		case name == "linkat":
			if named++; waiting > 0 {
				t.Fatalf("%d files are not on the disk when the %dth gets its name", waiting, named)
			}
		}
	}
	if named != 400 {
		t.Errorf("%d files got a name", named)
	}
}
