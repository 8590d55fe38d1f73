package initrd

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/config/resource"
)

// testMachine is the real host over two directories of the test's own: one for
// the target root, one for what the machine keeps in /run.
func testMachine(t *testing.T) (*Machine, string) {
	t.Helper()
	m, err := NewMachine(t.TempDir(), &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, t.TempDir()
}

func inline(text string) *resource.Resource {
	s := resource.NewSecret(text)
	return &resource.Resource{Inline: &s}
}

func modeOf(m fs.FileMode) *fs.FileMode { return &m }

// me owns what an ordinary user's test makes, and root's what root's makes.
func me() Owner { return Owner{UID: os.Geteuid(), GID: os.Getegid()} }

func apply(t *testing.T, m *Machine, steps ...Step) ([]Outcome, error) {
	t.Helper()
	return Run(t.Context(), m, steps, Apply, nil)
}

// settle applies, and then holds that a second run changes nothing.
func settle(t *testing.T, m *Machine, steps ...Step) {
	t.Helper()
	if _, err := apply(t, m, steps...); err != nil {
		t.Fatal(err)
	}
	out, err := Run(t.Context(), m, steps, Plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		if o.State != So {
			t.Errorf("second look: %s is %v", o.Wish, o.State)
		}
	}
}

func contentOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsMadeWithItsDirectories(t *testing.T) {
	m, root := testMachine(t)
	settle(t, m, File{Root: root, Path: "/a/b/c", Contents: inline("text"), Mode: modeOf(0o640 | fs.ModeSetgid), Owner: me()})
	if got := contentOf(t, filepath.Join(root, "a/b/c")); got != "text" {
		t.Errorf("content %q", got)
	}
	info, err := os.Stat(filepath.Join(root, "a/b/c"))
	if err != nil || info.Mode() != 0o640|fs.ModeSetgid {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "a/b", unverified+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFileKeepsWhatItMayNotReplace(t *testing.T) {
	m, root := testMachine(t)
	name := filepath.Join(root, "f")
	write(t, name, "old")
	_, err := apply(t, m, File{Root: root, Path: "/f", Contents: inline("new"), Owner: me()})
	if !errors.Is(err, ErrExists) || contentOf(t, name) != "old" {
		t.Fatalf("error %v, content %q", err, contentOf(t, name))
	}
	settle(t, m, File{Root: root, Path: "/f", Contents: inline("new"), Overwrite: true, Owner: me()})
	if contentOf(t, name) != "new" {
		t.Errorf("content %q", contentOf(t, name))
	}
	// The same content is not something else.
	settle(t, m, File{Root: root, Path: "/f", Contents: inline("new"), Owner: me()})
}

func TestFileOverDirectory(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, "d/deep/x"), "x")
	if _, err := apply(t, m, File{Root: root, Path: "/d", Contents: inline("y"), Owner: me()}); !errors.Is(err, ErrExists) {
		t.Fatalf("error %v", err)
	}
	settle(t, m, File{Root: root, Path: "/d", Contents: inline("y"), Overwrite: true, Owner: me()})
}

func TestAppendHappensOnce(t *testing.T) {
	m, root := testMachine(t)
	name := filepath.Join(root, "f")
	write(t, name, "old;")
	step := File{Root: root, Path: "/f", Append: []resource.Resource{*inline("a"), *inline("b")}, Owner: me()}
	settle(t, m, step)
	settle(t, m, step)
	if got := contentOf(t, name); got != "old;ab" {
		t.Errorf("content %q", got)
	}
}

func TestFileWithoutContentsOnlyExists(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, "f"), "kept")
	settle(t, m, File{Root: root, Path: "/f", Mode: modeOf(0o600), Owner: me()}, File{Root: root, Path: "/new", Owner: me()})
	if got := contentOf(t, filepath.Join(root, "f")); got != "kept" {
		t.Errorf("content %q", got)
	}
	if got := contentOf(t, filepath.Join(root, "new")); got != "" {
		t.Errorf("content %q", got)
	}
}

func TestWrongHashLeavesNothing(t *testing.T) {
	m, root := testMachine(t)
	wrong, err := resource.ParseHash("sha256-" + strings.Repeat("00", 32))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "f"), "old")
	c := inline("new")
	c.Hash = wrong
	_, err = apply(t, m, File{Root: root, Path: "/f", Contents: c, Overwrite: true, Owner: me()})
	if !errors.Is(err, resource.ErrHash) {
		t.Fatalf("error %v", err)
	}
	entries, _ := os.ReadDir(root)
	if len(entries) != 1 || contentOf(t, filepath.Join(root, "f")) != "old" {
		t.Errorf("left: %v, content %q", entries, contentOf(t, filepath.Join(root, "f")))
	}
}

func TestOwnersByName(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:977:976::/:/bin/false\n")
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\nweb:x:976:\n")
	uid, gid, err := m.owner(root, Owner{User: "web", Group: "web"})
	if err != nil || uid != 977 || gid != 976 {
		t.Errorf("%d %d %v", uid, gid, err)
	}
	_, err = apply(t, m, File{Root: root, Path: "/f", Contents: inline(""), Owner: Owner{User: "nobody-of-that-name"}})
	if !errors.Is(err, ErrUnknownOwner) {
		t.Errorf("error %v", err)
	}
}

func TestLinks(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, "t"), "t")
	settle(t, m,
		Link{Root: root, Path: "/l", Target: "/t", Owner: me()},
		Link{Root: root, Path: "/h", Target: "/t", Hard: true},
	)
	if got, _ := os.Readlink(filepath.Join(root, "l")); got != "/t" {
		t.Errorf("leads to %q", got)
	}
	a, _ := os.Stat(filepath.Join(root, "t"))
	b, _ := os.Stat(filepath.Join(root, "h"))
	if !os.SameFile(a, b) {
		t.Error("not a hard link")
	}
	if _, err := apply(t, m, Link{Root: root, Path: "/l", Target: "/other", Owner: me()}); !errors.Is(err, ErrExists) {
		t.Errorf("error %v", err)
	}
	settle(t, m, Link{Root: root, Path: "/l", Target: "/other", Overwrite: true, Owner: me()})
	if _, err := apply(t, m, Link{Root: root, Path: "/g", Target: "/ghost", Hard: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestDirectories(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, "f"), "")
	settle(t, m, Directory{Root: root, Path: "/d/e", Mode: modeOf(0o700), Owner: me()})
	if _, err := apply(t, m, Directory{Root: root, Path: "/f", Owner: me()}); !errors.Is(err, ErrExists) {
		t.Errorf("error %v", err)
	}
	settle(t, m, Directory{Root: root, Path: "/f", Overwrite: true, Owner: me()})
}

func TestGone(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, "d/f"), "")
	settle(t, m, Gone{root, "/d/f"}, Gone{root, "/d"}, Gone{root, "/never"})
}

// TestNothingLeavesTheRoot tries to lead writes out of the target root.
func TestNothingLeavesTheRoot(t *testing.T) {
	m, root := testMachine(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "victim"), "untouched")
	for name, target := range map[string]string{
		"absolute": outside, "relative": strings.Repeat("../", 20) + outside[1:],
		"file": filepath.Join(outside, "victim"),
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	steps := []Step{
		File{Root: root, Path: "/absolute/made", Contents: inline("x"), Overwrite: true, Owner: me()},
		File{Root: root, Path: "/relative/made", Contents: inline("x"), Overwrite: true, Owner: me()},
		File{Root: root, Path: "/file", Contents: inline("x"), Overwrite: true, Owner: me()},
		File{Root: root, Path: "/../../../../../.." + outside + "/made", Contents: inline("x"), Overwrite: true, Owner: me()},
		File{Root: root, Path: "/absolute/victim", Append: []resource.Resource{*inline("x")}, Owner: me()},
		Directory{Root: root, Path: "/absolute/dir", Owner: me()},
		Link{Root: root, Path: "/relative/link", Target: "x", Owner: me()},
		Gone{root, "/absolute/victim"},
	}
	for _, s := range steps {
		// Whether each ends well is not the question here.
		_, _ = apply(t, m, s)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 || contentOf(t, filepath.Join(outside, "victim")) != "untouched" {
		t.Fatalf("outside the root: %v %v", entries, err)
	}
	if got := contentOf(t, filepath.Join(root, "file")); got != "x" {
		t.Errorf("a link that is overwritten becomes a file; it holds %q", got)
	}
}

func TestFIFODoesNotHoldUpABoot(t *testing.T) {
	m, root := testMachine(t)
	if err := mkfifo(filepath.Join(root, "pipe")); err != nil {
		t.Fatal(err)
	}
	_, err := apply(t, m, File{Root: root, Path: "/pipe", Contents: inline("x"), Owner: me()})
	if !errors.Is(err, ErrExists) {
		t.Fatalf("error %v", err)
	}
	if _, err := (look{t.Context(), m}).Open(root, "/pipe"); err == nil {
		t.Error("a FIFO was opened as a file")
	}
}

// shut is a machine whose files cannot be opened.
type shut struct{ look }

func (s shut) Open(string, string) (io.ReadCloser, error) { return nil, errors.New("opened") }

// TestWhatWasVerifiedIsNotReadAgain, unless somebody has changed it since.
func TestWhatWasVerifiedIsNotReadAgain(t *testing.T) {
	m, root := testMachine(t)
	const body = "verified on its way\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
	t.Cleanup(server.Close)
	source, err := resource.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	step := File{Root: root, Path: "/f", Contents: &resource.Resource{Source: source, Hash: resource.Hash{Algorithm: "sha256", Sum: sum[:]}}}
	if _, err := Run(t.Context(), m, []Step{step}, Apply, nil); err != nil {
		t.Fatal(err)
	}
	if state, _, err := step.Resolve(shut{look{t.Context(), m}}); state != So || err != nil {
		t.Errorf("%v %v", state, err)
	}
	other := step
	other.Contents = &resource.Resource{Source: source, Hash: resource.Hash{Algorithm: "sha256", Sum: make([]byte, 32)}}
	if _, _, err := other.Resolve(shut{look{t.Context(), m}}); err == nil || err.Error() != "opened" {
		t.Errorf("another hash: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "f"), []byte(strings.ToUpper(body)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := step.Resolve(shut{look{t.Context(), m}}); err == nil || err.Error() != "opened" {
		t.Errorf("changed since: %v", err)
	}
}
