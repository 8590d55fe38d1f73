package initrd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pilotlight/config/resource"
)

// unsaid is the owner of an entry that names none.
func unsaid() Owner { return Owner{AnyUID: true, AnyGID: true} }

// rulesTree is what lies there before each of the rules.
func rulesTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"etc/old": "old\n", "dir/deep/x": "x", "etc/target": "target\n", "d7/x": "x"} {
		write(t, filepath.Join(root, name), text)
	}
	for name, target := range map[string]string{"etc/link": "target", "abs": "/etc", "dangling": "/nowhere", "out": "../../../../dir"} {
		link(t, target, filepath.Join(root, name))
	}
	for name, mode := range map[string]fs.FileMode{"etc/old": 0o640, "d7": 0o711 | fs.ModeSetgid, "etc/target": 0o600} {
		if err := errors.Join(os.Chown(filepath.Join(root, name), 7, 7), os.Chmod(filepath.Join(root, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestFilesRules holds directories, files and links to the words of Ignition's spec: what
// lies there afterwards, or that it is a fault and all is as it was.
func TestFilesRules(t *testing.T) {
	special := fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	for name, c := range map[string]struct {
		wishes []Step
		want   map[string]string // "" for nothing
		fault  string
	}{
		// files
		"new, without contents":       {[]Step{File{Path: "/n"}}, map[string]string{"/n": "-rw-r--r-- 0:0\n"}, ""},
		"new, with contents":          {[]Step{File{Path: "/a/b/n", Contents: inline("x"), Mode: modeOf(0o600)}}, map[string]string{"/a": "drwxr-xr-x 0:0", "/a/b": "drwxr-xr-x 0:0", "/a/b/n": "-rw------- 0:0\nx"}, ""},
		"special bits":                {[]Step{File{Path: "/n", Mode: modeOf(0o755 | special)}, Directory{Path: "/d", Mode: modeOf(0o750 | special)}}, map[string]string{"/n": "ugtrwxr-xr-x 0:0\n", "/d": "dugtrwxr-x--- 0:0"}, ""},
		"special bits and an owner":   {[]Step{File{Path: "/n", Mode: modeOf(0o755 | special), Owner: Owner{UID: 5, GID: 6}}}, map[string]string{"/n": "ugtrwxr-xr-x 5:6\n"}, ""},
		"there, no contents wished":   {[]Step{File{Path: "/etc/old", Owner: Owner{UID: 7, GID: 7}}}, map[string]string{"/etc/old": "-rw-r----- 7:7\nold\n"}, ""},
		"there, a mode wished":        {[]Step{File{Path: "/etc/old", Mode: modeOf(0o600), Owner: Owner{UID: 7, GID: 7}}}, map[string]string{"/etc/old": "-rw------- 7:7\nold\n"}, ""},
		"there, contents wished":      {[]Step{File{Path: "/etc/old", Contents: inline("new")}}, nil, "overwrite is not set"},
		"a directory is there":        {[]Step{File{Path: "/dir"}}, nil, "/dir is a directory"},
		"a link is there":             {[]Step{File{Path: "/etc/link"}}, nil, "/etc/link is a symbolic link"},
		"over a file":                 {[]Step{File{Path: "/etc/old", Contents: inline("new"), Overwrite: true}}, map[string]string{"/etc/old": "-rw-r--r-- 0:0\nnew"}, ""},
		"over a link":                 {[]Step{File{Path: "/etc/link", Contents: inline("new"), Overwrite: true}}, map[string]string{"/etc/link": "-rw-r--r-- 0:0\nnew", "/etc/target": "-rw------- 7:7\ntarget\n"}, ""},
		"over a directory":            {[]Step{File{Path: "/dir", Contents: inline("new"), Overwrite: true}}, map[string]string{"/dir": "-rw-r--r-- 0:0\nnew", "/dir/deep": ""}, ""},
		"appended to what is there":   {[]Step{File{Path: "/etc/old", Append: []resource.Resource{*inline("a"), *inline("b")}, Owner: Owner{UID: 7, GID: 7}}}, map[string]string{"/etc/old": "-rw-r----- 7:7\nold\nab"}, ""},
		"appended to, owner not said": {[]Step{File{Path: "/etc/old", Append: []resource.Resource{*inline("a")}, Owner: unsaid()}}, map[string]string{"/etc/old": "-rw-r----- 7:7\nold\na"}, ""},
		"dressed, owner not said":     {[]Step{File{Path: "/etc/old", Mode: modeOf(0o600), Owner: unsaid()}}, map[string]string{"/etc/old": "-rw------- 7:7\nold\n"}, ""},
		"replaced, owner not said":    {[]Step{File{Path: "/etc/old", Contents: inline("new"), Overwrite: true, Owner: unsaid()}}, map[string]string{"/etc/old": "-rw-r--r-- 0:0\nnew"}, ""},
		"new in a setgid directory":   {[]Step{File{Path: "/d7/n", Contents: inline("x"), Owner: unsaid()}}, map[string]string{"/d7/n": "-rw-r--r-- 0:7\nx"}, ""},
		"appended to nothing":         {[]Step{File{Path: "/n", Append: []resource.Resource{*inline("a")}}}, map[string]string{"/n": "-rw-r--r-- 0:0\na"}, ""},
		"contents, appended to":       {[]Step{File{Path: "/n", Contents: inline("c"), Append: []resource.Resource{*inline("a")}}}, map[string]string{"/n": "-rw-r--r-- 0:0\nca"}, ""},
		"appended to a directory":     {[]Step{File{Path: "/dir", Append: []resource.Resource{*inline("a")}}}, nil, "/dir is a directory"},
		"appended to a link":          {[]Step{File{Path: "/etc/link", Append: []resource.Resource{*inline("a")}}}, nil, "/etc/link is a symbolic link"},
		"through a link of the root":  {[]Step{File{Path: "/abs/n", Contents: inline("x")}}, map[string]string{"/etc/n": "-rw-r--r-- 0:0\nx"}, ""},
		"through a link that leaves":  {[]Step{File{Path: "/out/n", Contents: inline("x")}}, map[string]string{"/dir/n": "-rw-r--r-- 0:0\nx"}, ""},
		"through a link into nothing": {[]Step{File{Path: "/dangling/n", Contents: inline("x")}}, nil, "no such file or directory"},
		"below a file":                {[]Step{File{Path: "/etc/old/n", Contents: inline("x")}}, nil, "not a directory"},

		// directories
		"new directory":                          {[]Step{Directory{Path: "/a/b"}}, map[string]string{"/a": "drwxr-xr-x 0:0", "/a/b": "drwxr-xr-x 0:0"}, ""},
		"new directory in one of a group":        {[]Step{Directory{Path: "/d7/n", Owner: unsaid()}}, map[string]string{"/d7/n": "dgrwxr-xr-x 0:7"}, ""},
		"new directory of root in such a one":    {[]Step{Directory{Path: "/d7/n", Mode: modeOf(0o700)}}, map[string]string{"/d7/n": "drwx------ 0:0"}, ""},
		"directory there, nothing said":          {[]Step{Directory{Path: "/d7", Owner: unsaid()}}, map[string]string{"/d7": "dgrwx--x--x 7:7"}, ""},
		"directory there, a mode wished":         {[]Step{Directory{Path: "/d7", Mode: modeOf(0o700), Owner: unsaid()}}, map[string]string{"/d7": "drwx------ 7:7"}, ""},
		"directory there, a user wished":         {[]Step{Directory{Path: "/d7", Owner: Owner{UID: 5, AnyGID: true}}}, map[string]string{"/d7": "dgrwx--x--x 5:7"}, ""},
		"directory there, root wished":           {[]Step{Directory{Path: "/d7", Owner: Owner{}}}, map[string]string{"/d7": "dgrwx--x--x 0:0"}, ""},
		"directory over a file, not said":        {[]Step{Directory{Path: "/etc/old"}}, nil, "/etc/old is a regular file"},
		"directory over a link, not said":        {[]Step{Directory{Path: "/abs"}}, nil, "/abs is a symbolic link"},
		"directory over a file":                  {[]Step{Directory{Path: "/etc/old", Overwrite: true}}, map[string]string{"/etc/old": "drwxr-xr-x 0:0"}, ""},
		"directory over a link":                  {[]Step{Directory{Path: "/abs", Overwrite: true}}, map[string]string{"/abs": "drwxr-xr-x 0:0", "/etc/old": "-rw-r----- 7:7\nold\n"}, ""},
		"directory over one, and what is wished": {[]Step{Directory{Path: "/d7", Overwrite: true, Owner: unsaid()}, File{Path: "/d7/n"}}, map[string]string{"/d7": "drwxr-xr-x 0:0", "/d7/x": "", "/d7/n": "-rw-r--r-- 0:0\n"}, ""},

		// links
		"new link":                      {[]Step{Link{Path: "/a/l", Target: "../x", Owner: Owner{UID: 5, GID: 6}}}, map[string]string{"/a/l": "Lrwxrwxrwx 5:6 to ../x"}, ""},
		"link there":                    {[]Step{Link{Path: "/etc/link", Target: "target", Owner: Owner{UID: 5, AnyGID: true}}}, map[string]string{"/etc/link": "Lrwxrwxrwx 5:0 to target"}, ""},
		"link there, written otherwise": {[]Step{Link{Path: "/etc/link", Target: "./target", Owner: unsaid()}}, map[string]string{"/etc/link": "Lrwxrwxrwx 0:0 to target"}, ""},
		"link there to something else":  {[]Step{Link{Path: "/etc/link", Target: "old"}}, nil, "overwrite is not set"},
		"link over a file, not said":    {[]Step{Link{Path: "/etc/old", Target: "x"}}, nil, "overwrite is not set"},
		"link over a file":              {[]Step{Link{Path: "/etc/old", Target: "x", Overwrite: true}}, map[string]string{"/etc/old": "Lrwxrwxrwx 0:0 to x"}, ""},
		"link over a directory":         {[]Step{Link{Path: "/dir", Target: "x", Overwrite: true}}, map[string]string{"/dir": "Lrwxrwxrwx 0:0 to x"}, ""},
		"hard link":                     {[]Step{Link{Path: "/h", Target: "/etc/old", Hard: true}}, map[string]string{"/h": "-rw-r----- 7:7\nold\n"}, ""},
		"hard link through a link":      {[]Step{Link{Path: "/h", Target: "/abs/old", Hard: true}}, map[string]string{"/h": "-rw-r----- 7:7\nold\n"}, ""},
		"hard link to a link":           {[]Step{Link{Path: "/h", Target: "/etc/link", Hard: true}}, map[string]string{"/h": "Lrwxrwxrwx 0:0 to target"}, ""},
		"hard link over a file":         {[]Step{Link{Path: "/dir/deep/x", Target: "/etc/old", Hard: true, Overwrite: true}}, map[string]string{"/dir/deep/x": "-rw-r----- 7:7\nold\n"}, ""},
		"hard link, not said":           {[]Step{Link{Path: "/dir/deep/x", Target: "/etc/old", Hard: true}}, nil, "overwrite is not set"},
		"hard link to nothing":          {[]Step{Link{Path: "/h", Target: "/nowhere", Hard: true}}, nil, "there is no /nowhere"},
		"hard link to a directory":      {[]Step{Link{Path: "/h", Target: "/dir", Hard: true}}, nil, "cannot have another name"},
	} {
		t.Run(name, func(t *testing.T) {
			defer unix.Umask(unix.Umask(0o077)) // of an initrd's service: it must not matter
			m, _ := testMachine(t)
			root := rulesTree(t)
			before := accountsSeen(t, root)
			steps := below(root, c.wishes)
			if c.fault != "" {
				if _, err := apply(t, m, steps...); err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("%v, want %q", err, c.fault)
				}
				sameTree(t, accountsSeen(t, root), before)
				return
			}
			settle(t, m, steps...)
			got := accountsSeen(t, root)
			for name, want := range c.want {
				if got[name] != want {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

// below puts wishes into a root.
func below(root string, wishes []Step) (steps []Step) {
	for _, w := range wishes {
		switch w := w.(type) {
		case File:
			w.Root = root
			steps = append(steps, w)
		case Directory:
			w.Root = root
			steps = append(steps, w)
		case Link:
			w.Root = root
			steps = append(steps, w)
		}
	}
	return steps
}

// TestFilesOverMountPoints: what is mounted stays, and so does what lies there.
func TestFilesOverMountPoints(t *testing.T) {
	m, _ := testMachine(t)
	root := rulesTree(t)
	at := filepath.Join(root, "dir/deep")
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	write(t, at+"/there", "there")
	for _, c := range []struct {
		wish  Step
		fault string
	}{
		{Link{Path: "/dir/deep", Target: "x", Overwrite: true}, "a file system is mounted there"},
		{Link{Path: "/dir", Target: "x", Overwrite: true}, "a file system is mounted there"},
		{File{Path: "/dir/deep", Contents: inline("x"), Overwrite: true}, "a file system is mounted there"},
		{Directory{Path: "/dir/deep", Overwrite: true}, "a file system is mounted there"},
		{Link{Path: "/h", Target: "/dir/deep/there", Hard: true}, "/dir/deep/there is on another file system"},
	} {
		_, err := apply(t, m, below(root, []Step{c.wish})...)
		if err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", c.wish, err, c.fault)
		}
		if got := contentOf(t, at+"/there"); got != "there" {
			t.Fatalf("%s: %q", c.wish, got)
		}
	}
	// Below it is another matter.
	settle(t, m, below(root, []Step{
		Link{Path: "/dir/deep/l", Target: "x", Owner: me()}, Link{Path: "/dir/deep/h", Target: "/dir/deep/there", Hard: true}, Directory{Path: "/dir/deep", Owner: unsaid()},
	})...)
}

// TestDirectoriesAreEmptiedOnce: what came into them since stays, at the next run too.
func TestDirectoriesAreEmptiedOnce(t *testing.T) {
	m, _ := testMachine(t)
	root := rulesTree(t)
	wish := Directory{Root: root, Path: "/dir", Overwrite: true}
	out, err := Run(t.Context(), m, []Step{wish}, Plan, nil)
	if err != nil || out[0].Effect != Destroys || len(out[0].Lost) != 1 || out[0].Lost[0] != "the directory /dir with all that is in it" {
		t.Errorf("%+v %v", out, err)
	}
	settle(t, m, wish)
	write(t, root+"/dir/since", "since")
	settle(t, m, wish)
	if got := contentOf(t, root+"/dir/since"); got != "since" {
		t.Errorf("%q", got)
	}
	// A receipt of this boot is no longer there at the next, but one in the record is; of
	// what does not outlive the boot there is none in the record.
	volatile, err := m.Look(t.Context()).Volatile(root, "/dir")
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := wish.emptied(m.Look(t.Context()))
	if err != nil || (receipt.Scope == ScopeBoot) != volatile {
		t.Errorf("%+v, volatile: %v, %v", receipt, volatile, err)
	}
}
