package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pilotlight/config/resource"
)

// The target root of these tests is a tree that an attacker wrote. Beside it lies one
// that nothing may happen to.

// shot is all that can be seen of a tree: type, mode, owner, time of the last change,
// and content.
func shot(t testing.TB, dir string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d %d.%09d", info.Mode(), st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %q", data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " to " + target
		}
		seen[strings.TrimPrefix(name, dir)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// unchanged holds that a tree is as it was.
func unchanged(t testing.TB, what, dir string, was map[string]string) {
	t.Helper()
	is := shot(t, dir)
	for name, text := range was {
		if is[name] != text {
			t.Errorf("%s: outside, %s is %q and was %q", what, name, is[name], text)
		}
	}
	for name, text := range is {
		if _, ok := was[name]; !ok {
			t.Errorf("%s: outside, %s has come: %s", what, name, text)
		}
	}
}

// outside makes the tree that nothing may happen to.
func outside(t testing.TB) (dir string, was map[string]string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{"victim": "untouched", "dir/deep/victim": "untouched", "etc/passwd": "root:x:0:0::/:\n", "etc/fstab": "# outside\n"} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, shot(t, dir)
}

// choices are what a tree and a config are made by: each is the next byte.
type choices struct{ rest []byte }

func (c *choices) of(n int) int {
	if len(c.rest) == 0 {
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return int(b) % n
}

func pick[T any](c *choices, list ...T) T { return list[c.of(len(list))] }

// path is one of few, so that what is wished meets what is there.
func (c *choices) path() string {
	p := ""
	for range 1 + c.of(3) {
		p += "/" + pick(c, "a", "b", "etc", "fstab", "machine-id", "..")
	}
	return p
}

// dirty puts something into the root, if it can be there. It goes through no link
// itself: the attacker's hand changes nothing outside.
func (c *choices) dirty(in *os.Root, outside string) {
	name := strings.TrimPrefix(filepath.Clean(c.path()), "/")
	up := strings.Repeat("../", 30)
	target := pick(c, outside, outside+"/dir", outside+"/victim", up+outside[1:], up+outside[1:]+"/etc", outside+"/new", "..", "../..", "/", ".",
		filepath.Base(name), "a", "/b", "/etc/a", "../a/b", "/proc/self/root"+outside, "/proc/self/cwd", up)
	other := filepath.Join(outside, pick(c, "victim", "dir/deep/victim", "etc/fstab"))
	mode := pick(c, 0o644, 0o755|fs.ModeSetuid, 0o755|fs.ModeSetgid, 0o777|fs.ModeSetuid|fs.ModeSetgid, 0o777|fs.ModeSticky, 0)
	kind := c.of(8)
	if _, err := in.Stat(filepath.Dir(name)); err != nil || name == "" {
		return
	}
	if _, err := in.Lstat(name); err == nil {
		return
	}
	whole := filepath.Join(in.Name(), name)
	// What the file system does not have is not there.
	switch kind {
	case 0, 1:
		if in.Mkdir(name, 0o755) == nil {
			_ = in.Chmod(name, mode|0o700)
		}
	case 2:
		if in.WriteFile(name, []byte(pick(c, "x", "", "xx", "old")), 0o644) == nil {
			_ = in.Chmod(name, mode)
		}
	case 3, 4:
		_ = in.Symlink(target, name)
	case 5:
		_ = os.Link(other, whole)
	case 6:
		_ = mkfifo(whole)
	case 7:
		_ = unix.Mknod(whole, unix.S_IFSOCK|0o644, 0)
	}
}

// step is a wish, of any kind that writes below the root.
func (c *choices) step(root, outside string) Step {
	p := c.path()
	if c.of(6) == 0 {
		p = pick(c, "/../../../..", "/a/../../..", "/b/..") + outside + "/" + pick(c, "victim", "new", "dir")
	}
	owner := pick(c, me(), Owner{}, Owner{UID: 7, GID: 8})
	mode := pick(c, nil, modeOf(0o600), modeOf(0o755), modeOf(0o4755))
	overwrite := c.of(2) == 0
	text := pick(c, "x", "untouched", "", "new")
	switch c.of(8) {
	case 0:
		return Directory{Root: root, Path: p, Overwrite: overwrite, Mode: mode, Owner: owner}
	case 1:
		return Link{Root: root, Path: p, Target: pick(c, "a", "/b", outside, outside+"/victim", ".."), Overwrite: overwrite, Owner: owner}
	case 2:
		return Link{Root: root, Path: p, Target: c.path(), Hard: true, Overwrite: overwrite}
	case 3:
		return Gone{Root: root, Path: p}
	case 4:
		return File{Root: root, Path: p, Append: []resource.Resource{*inline(text)}, Mode: mode, Owner: owner}
	case 5:
		return File{Root: root, Path: p, Mode: mode, Owner: owner}
	case 6:
		return pick[Step](c, Identity{Root: root, ID: strings.Repeat("5", 32)},
			Fstab{Root: root, Mounts: []Mount{{Where: root + "/var", What: Source{Bare: "tmpfs"}, Type: "tmpfs"}}})
	}
	return File{Root: root, Path: p, Contents: inline(text), Overwrite: overwrite, Mode: mode, Owner: owner}
}

// dirtyTree carries out a random config over a random tree, each wish by itself and
// then all together, and looks outside.
func dirtyTree(t *testing.T, script []byte) {
	out, was := outside(t)
	m, root := testMachine(t)
	m.Programs = []string{t.TempDir()}
	write(t, filepath.Join(m.Programs[0], "systemctl"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(m.Programs[0], "systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &choices{script}
	in, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for range 10 + c.of(40) {
		c.dirty(in, out)
	}
	unchanged(t, "before", out, was)
	var steps []Step
	for range 1 + c.of(12) {
		steps = append(steps, c.step(root, out))
	}
	for _, s := range steps {
		// Whether it can be carried out is not the question here.
		_, err := apply(t, m, s)
		unchanged(t, fmt.Sprintf("%#v: %v", s, err), out, was)
		var again error
		if err == nil {
			_, again = Run(t.Context(), m, []Step{s}, Plan, nil)
		}
		if again != nil {
			t.Errorf("%s: it was done, and then: %v", s, again)
		}
	}
	_, err = apply(t, m, steps...)
	unchanged(t, fmt.Sprintf("all: %v", err), out, was)
	for name := range shot(t, root) {
		if strings.Contains(name, unverified) {
			t.Errorf("left behind: %s", name)
		}
	}
}

// TestNothingHappensOutsideOfADirtyTree, with trees and configs by the same numbers in
// each run.
func TestNothingHappensOutsideOfADirtyTree(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for range 400 {
		script := make([]byte, 500)
		random.Read(script)
		dirtyTree(t, script)
		if t.Failed() {
			t.Fatalf("script %x", script)
		}
	}
}

func FuzzDirtyTree(f *testing.F) {
	f.Add([]byte("tree and config"))
	f.Fuzz(func(t *testing.T, script []byte) { dirtyTree(t, script) })
}

// TestSwappedDirectory: somebody swaps a directory for a link to outside, over and over,
// while files are written below it.
func TestSwappedDirectory(t *testing.T) {
	out, was := outside(t)
	m, root := testMachine(t)
	dir, link, aside := filepath.Join(root, "d"), filepath.Join(root, "link"), filepath.Join(root, "aside")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(out, link)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	swaps := 0
	wg.Go(func() {
		for ; ; swaps++ {
			select {
			case <-done:
				return
			default:
			}
			// d is the directory, nothing, the link, nothing, and the directory again.
			err := errors.Join(os.Rename(dir, aside), os.Rename(link, dir), os.Rename(dir, link), os.Rename(aside, dir))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
				return
			}
		}
	})
	written := 0
	for i := range 2000 {
		for _, s := range []Step{
			File{Root: root, Path: "/d/victim", Contents: inline(fmt.Sprint(i)), Overwrite: true, Owner: me()},
			File{Root: root, Path: fmt.Sprintf("/d/new/%d", i), Contents: inline("x"), Mode: modeOf(0o600), Owner: me()},
			File{Root: root, Path: "/d/dir/deep/victim", Append: []resource.Resource{*inline("x")}, Owner: me()},
			Directory{Root: root, Path: "/d/dir", Mode: modeOf(0o700), Owner: me()},
			Link{Root: root, Path: "/d/etc/fstab", Target: "x", Overwrite: true, Owner: me()},
			Gone{Root: root, Path: "/d/victim"},
		} {
			if _, err := apply(t, m, s); err == nil {
				written++
			}
		}
	}
	close(done)
	wg.Wait()
	unchanged(t, "while it was swapped", out, was)
	if swaps < 1000 || written < 100 {
		t.Errorf("%d swaps and %d deeds that ended well: too few to tell anything", swaps, written)
	}
}

// TestOtherNamesStayAsTheyAre: what has another name outside is replaced or copied, and
// never changed.
func TestOtherNamesStayAsTheyAre(t *testing.T) {
	for what, step := range map[string]File{
		"new content":          {Contents: inline("new"), Overwrite: true},
		"the same, other mode": {Contents: inline("untouched"), Mode: modeOf(0o600)},
		"appended to":          {Append: []resource.Resource{*inline("x")}},
		"only a mode":          {Mode: modeOf(0o666)},
	} {
		t.Run(what, func(t *testing.T) {
			out, was := outside(t)
			m, root := testMachine(t)
			if err := os.Link(filepath.Join(out, "victim"), filepath.Join(root, "f")); err != nil {
				t.Fatal(err)
			}
			step.Root, step.Path, step.Owner = root, "/f", me()
			settle(t, m, step)
			unchanged(t, what, out, was)
			a, _ := os.Stat(filepath.Join(out, "victim"))
			b, err := os.Stat(filepath.Join(root, "f"))
			if err != nil || os.SameFile(a, b) || step.Mode != nil && b.Mode() != *step.Mode {
				t.Errorf("%v %v", b, err)
			}
		})
	}
}

// TestRightsOfAnOwnerGoWithHim: setuid and setgid that somebody left on a file are not
// handed to another owner. On a file of the right owner they are left alone.
func TestRightsOfAnOwnerGoWithHim(t *testing.T) {
	for _, c := range []struct {
		uid, gid int
		want     fs.FileMode
	}{{0, 0, 0o755 | fs.ModeSetuid | fs.ModeSetgid}, {7, 0, 0o755}, {0, 8, 0o755}} {
		st := unix.Stat_t{Mode: unix.S_IFREG | 0o6755}
		if got := inherited(st, c.uid, c.gid); got != c.want {
			t.Errorf("for %d:%d: %v, want %v", c.uid, c.gid, got, c.want)
		}
	}
	st := unix.Stat_t{Mode: unix.S_IFDIR | 0o3775}
	if got, want := inherited(st, 7, 8), 0o775|fs.ModeSetgid|fs.ModeSticky; got != want {
		t.Errorf("a directory: %v, want %v", got, want)
	}
}

// TestSparseFileIsNotTakenOver: its size is no limit to what an attacker can name.
func TestSparseFileIsNotTakenOver(t *testing.T) {
	m, root := testMachine(t)
	for _, name := range []string{"etc/fstab", "etc/machine-id", "log"} {
		write(t, filepath.Join(root, name), "")
		if err := os.Truncate(filepath.Join(root, name), 1<<40); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []Step{
		Fstab{Root: root, Mounts: []Mount{{Where: root + "/var", What: Source{Bare: "tmpfs"}}}},
		Identity{Root: root, ID: strings.Repeat("5", 32)},
		File{Root: root, Path: "/log", Append: []resource.Resource{*inline("x")}, Owner: me()},
	} {
		for _, mode := range []Mode{Plan, Apply} {
			if _, err := Run(t.Context(), m, []Step{s}, mode, nil); !errors.Is(err, errTooLong) {
				t.Errorf("%s: %v", s, err)
			}
		}
	}
}

// TestProvisionalNames: what a killed process left is taken away by the next one that
// has the same wish. What merely is called so and is a directory is not.
func TestProvisionalNames(t *testing.T) {
	m, root := testMachine(t)
	dir, err := treeOf(t, root).open("/", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	name, err := provisional(dir, "f", func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, name), "half")
	write(t, filepath.Join(root, "f"), "old")
	write(t, filepath.Join(root, unverified+"0123456789abcdef"), "of another name")
	settle(t, m, File{Root: root, Path: "/f", Contents: inline("new"), Overwrite: true, Owner: me()})
	if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	if got := contentOf(t, filepath.Join(root, unverified+"0123456789abcdef")); got != "of another name" {
		t.Errorf("%q", got)
	}
	write(t, filepath.Join(root, name, "x"), "somebody's")
	settle(t, m, File{Root: root, Path: "/f", Contents: inline("newer"), Overwrite: true, Owner: me()},
		Link{Root: root, Path: "/l", Target: "f", Owner: me()})
	if got := contentOf(t, filepath.Join(root, name, "x")); got != "somebody's" {
		t.Errorf("%q", got)
	}
}

// TestDraftWithAName is how files are written where the file system knows no files
// without one.
func TestDraftWithAName(t *testing.T) {
	for what, c := range map[string]struct {
		old  string
		may  over
		want error
	}{
		"new": {"", nothing, nil}, "replaced": {"old", anyFile, nil}, "not replaced": {"old", nothing, ErrExists},
	} {
		t.Run(what, func(t *testing.T) {
			_, root := testMachine(t)
			dir, err := treeOf(t, root).open("/", 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(dir)
			if c.old != "" {
				write(t, filepath.Join(root, "f"), c.old)
			}
			d, err := namedDraft(dir, "f")
			if err != nil {
				t.Fatal(err)
			}
			_, werr := d.Write([]byte("new"))
			err = d.publish(c.may)
			d.discard()
			if werr != nil || !errors.Is(err, c.want) {
				t.Errorf("%v %v", werr, err)
			}
			want := "new"
			if c.want != nil {
				want = c.old
			}
			entries, err := os.ReadDir(root)
			if got := contentOf(t, filepath.Join(root, "f")); got != want || len(entries) != 1 {
				t.Errorf("%q, %v, %v", got, entries, err)
			}
		})
	}
}

func treeOf(t *testing.T, root string) *tree {
	t.Helper()
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}
