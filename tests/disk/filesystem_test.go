package disk_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/stages"
)

// filesystemConfig makes partitions and file systems, one mounted below the other; DISK is
// the device.
const filesystemConfig = `{"ignition":{"version":"3.5.0"},
"storage":{
 "disks":[{"device":"DISK","partitions":[
   {"number":1,"label":"fs-test-root","sizeMiB":64},
   {"number":2,"label":"fs-test-lib","sizeMiB":160},
   {"number":3,"label":"fs-test-var","sizeMiB":320},
   {"number":4,"label":"fs-test-swap","sizeMiB":16}]}],
 "filesystems":[
  {"device":"DISKp2","path":"/var/lib","format":"btrfs","mountOptions":["noatime","compress=zstd"]},
  {"device":"DISKp1","path":"/","format":"ext4","label":"top","wipeFilesystem":true},
  {"device":"DISKp3","path":"/var","format":"xfs","uuid":"A6BBD6A5-4E9F-4D5E-9F3A-0F6D7D1F9B10"},
  {"device":"DISKp4","format":"swap","label":"s"}]}SECTION}`

// filesystems is a boot of that config.
type filesystems struct {
	*testing.T
	in  stages.Input
	run string // of the boot
}

func newFilesystems(t *testing.T, node, section string) *filesystems {
	t.Helper()
	f := &filesystems{T: t, run: t.TempDir()}
	text := strings.NewReplacer("DISK", node, "SECTION", section).Replace(filesystemConfig)
	c, report := config.Parse([]byte(text), config.Options{})
	if report.Fatal() {
		t.Fatal(report)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	f.in = stages.Input{Config: c, Facts: stages.Facts{Boot: stages.First, Root: root, Placed: true}}
	t.Cleanup(f.end)
	return f
}

// apply carries out stages in a process of this boot, and gives the outcomes of them all.
func (f *filesystems) apply(want ...func(stages.Input) ([]initrd.Step, error)) (all []initrd.Outcome) {
	f.Helper()
	m, err := initrd.NewMachine(f.run, &resource.Client{})
	if err != nil {
		f.Fatal(err)
	}
	defer m.Close()
	for _, w := range want {
		steps, err := w(f.in)
		if err != nil {
			f.Fatal(err)
		}
		out, err := initrd.Run(f.Context(), m, steps, initrd.Apply, nil)
		all = append(all, out...)
		if err != nil {
			f.Fatal(err)
		}
	}
	return all
}

// mounts are the mount points below the root, with type and the first of the options.
func (f *filesystems) mounts() (list []string) {
	f.Helper()
	for line := range strings.Lines(tool(f.T, "findmnt", "--list", "--noheadings", "--output", "TARGET,FSTYPE,VFS-OPTIONS")) {
		words := strings.Fields(line)
		if rest, ok := strings.CutPrefix(words[0], f.in.Facts.Root); ok {
			list = append(list, "/"+strings.TrimPrefix(rest, "/")+" "+words[1]+" "+words[2])
		}
	}
	return list
}

// end unmounts all that is mounted below the root, as the end of a boot does.
func (f *filesystems) end() {
	f.Helper()
	for _, line := range slices.Backward(f.mounts()) {
		where, _, _ := strings.Cut(line, " ")
		tool(f.T, "umount", filepath.Join(f.in.Facts.Root, where))
	}
}

// TestFilesystemsAreMadeAndMounted by the stages of a boot: on the first one all of them,
// parents first; a second run does nothing; on a later boot the root, and with our section
// all the others.
func TestFilesystemsAreMadeAndMounted(t *testing.T) {
	node := loopDisk(t, 700<<20, 512)
	f := newFilesystems(t, node, "")
	for _, o := range f.apply(stages.Disks, stages.Mounted) {
		if !o.Changed {
			t.Errorf("%s: %v", o.Wish, o.State)
		}
	}
	all := []string{"/ ext4 rw,relatime", "/var xfs rw,relatime", "/var/lib btrfs rw,noatime"}
	if got := f.mounts(); !slices.Equal(got, all) {
		t.Errorf("mounted: %q", got)
	}
	if options := tool(t, "findmnt", "--noheadings", "--output", "FS-OPTIONS", filepath.Join(f.in.Facts.Root, "var/lib")); !strings.Contains(options, "compress=zstd") {
		t.Errorf("mount options: %s", options)
	}
	for _, dir := range []string{"var", "var/lib"} {
		info, err := os.Stat(filepath.Join(f.in.Facts.Root, dir))
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", dir, info.Mode(), err)
		}
	}
	file := filepath.Join(f.in.Facts.Root, "var/lib/file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The same boot, once more.
	for _, o := range f.apply(stages.Disks, stages.Mounted) {
		if o.State != initrd.So {
			t.Errorf("the second time, %s: %s", o.Wish, o.Deed)
		}
	}
	f.end()
	for _, c := range []struct {
		section string
		want    []string
	}{{"", all[:1]}, {`,"pilotlight":{"version":"1","network":[]}`, all}} {
		later := newFilesystems(t, node, c.section)
		later.in.Facts.Boot = stages.Later
		later.apply(stages.Disks, stages.Mounted)
		got := later.mounts()
		if !slices.Equal(got, c.want) {
			t.Errorf("a later boot, section %q: %q", c.section, got)
		}
		if len(got) == len(all) {
			if data, err := os.ReadFile(filepath.Join(later.in.Facts.Root, "var/lib/file")); string(data) != "text" {
				t.Errorf("%q %v", data, err)
			}
		}
		later.end()
	}
}
