package initrd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// opened is a device of a test.
type opened struct{ io.ReaderAt }

func (opened) Close() error { return nil }

// failing is a device that gives nothing but an error.
type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// isoImage is the beginning of a disc: descriptors from sector 16 on, as ECMA-119 has them.
func isoImage(kinds string, label string) []byte {
	b := make([]byte, 34*2048)
	for i, k := range []byte(kinds) {
		at := b[(16+i)*2048:]
		at[0] = k
		copy(at[1:], "CD001\x01")
		copy(at[40:72], label+strings.Repeat(" ", 32))
	}
	return b
}

// fatImage is made by mkfs.vfat, of this FAT and with this label.
func fatImage(t *testing.T, bits, label string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fat.img")
	blocks := map[string]string{"12": "1024", "16": "8192", "32": "40960"}[bits]
	args := []string{"-C", "-F", bits, "-s", "1"}
	if label != "" {
		args = append(args, "-n", label)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.vfat", append(args, file, blocks)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.vfat: %v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLabelsOfDrives(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		kind string
		want []string
	}{
		"FAT12":               {fatImage(t, "12", "CIDATA"), "vfat", []string{"CIDATA"}},
		"FAT16":               {fatImage(t, "16", "CIDATA"), "vfat", []string{"CIDATA"}},
		"FAT32":               {fatImage(t, "32", "cidata"), "vfat", []string{"cidata"}},
		"FAT without a label": {fatImage(t, "16", ""), "vfat", nil},
		"ISO 9660":            {isoImage("\x01\xff", "cidata"), "iso9660", []string{"cidata"}},
		"ISO 9660, bootable":  {isoImage("\x00\x02\x01\xff", "CIDATA"), "iso9660", []string{"CIDATA"}},
		"no primary one":      {isoImage("\x00\x02\xff", "cidata"), "", nil},
		"no end":              {isoImage(strings.Repeat("\x02", 16), "cidata"), "", nil},
		"nothing":             {make([]byte, 1<<20), "", nil},
		"short":               {make([]byte, 100), "", nil},
		"a boot sector of another kind": {func() []byte {
			b := fatImage(t, "16", "CIDATA")
			binary.LittleEndian.PutUint16(b[14:], 0) // NTFS and exFAT have no reserved sectors here
			return b
		}(), "", nil},
	} {
		d := Drive{Node: "/dev/x"}
		err := d.read(disk.System{Open: func(string) (disk.ReaderAtCloser, error) { return opened{bytes.NewReader(c.data)}, nil }})
		if err != nil || d.Type != c.kind || !slices.Equal(d.Labels, c.want) {
			t.Errorf("%s: %s %q %v", name, d.Type, d.Labels, err)
		}
	}
}

// TestTwoLabelsOfOneDrive: tools change the one in the boot sector or the one in the root
// directory.
func TestTwoLabelsOfOneDrive(t *testing.T) {
	data := fatImage(t, "32", "CIDATA")
	at := bytes.Index(data, []byte("CIDATA "))
	copy(data[at:], "BOOTSEC")
	d := Drive{}
	err := d.read(disk.System{Open: func(string) (disk.ReaderAtCloser, error) { return opened{bytes.NewReader(data)}, nil }})
	if err != nil || !slices.Equal(d.Labels, []string{"BOOTSEC", "CIDATA"}) {
		t.Errorf("%q %v", d.Labels, err)
	}
}

// FuzzLabels: whatever is on a drive, it is read to an end.
func FuzzLabels(f *testing.F) {
	f.Add(isoImage("\x01", "x"), uint16(512), byte(1), uint16(1), byte(2), uint16(16), uint16(1), uint32(2))
	f.Fuzz(func(t *testing.T, data []byte, sector uint16, cluster byte, reserved uint16, fats byte, entries, size uint16, root uint32) {
		if len(data) > 90 {
			data[0], data[13], data[16], data[21] = 0xeb, cluster, fats, 0xf8
			binary.LittleEndian.PutUint16(data[11:], sector)
			binary.LittleEndian.PutUint16(data[14:], reserved)
			binary.LittleEndian.PutUint16(data[17:], entries)
			binary.LittleEndian.PutUint16(data[22:], size)
			binary.LittleEndian.PutUint32(data[44:], root)
			if len(data) >= 512 {
				data[510], data[511] = 0x55, 0xaa
			}
		}
		d := Drive{}
		if err := d.read(disk.System{Open: func(string) (disk.ReaderAtCloser, error) { return opened{bytes.NewReader(data)}, nil }}); err != nil {
			t.Error(err)
		}
	})
}

// block is /sys/class/block with these attributes of each device.
func block(devices map[string]map[string]string) fstest.MapFS {
	sys := fstest.MapFS{"class/block": {Mode: fs.ModeDir | 0o755}}
	for name, attributes := range devices {
		for a, v := range attributes {
			sys["class/block/"+name+"/"+a] = &fstest.MapFile{Data: []byte(v + "\n")}
		}
	}
	return sys
}

func TestDrivesOfAMachine(t *testing.T) {
	cd, stick := isoImage("\x01", "cidata"), fatImage(t, "12", "STICK")
	there := map[string]string{"size": "2048"}
	sys := block(map[string]map[string]string{
		"sr0": there, "sda": there, "sda1": there, "cciss!c0d0p1": there, "sr1": there, "sr2": {"size": "0"},
		"ram0": there, "zram0": there, "fd0": there, "dm-0": there, "md127": there, "nvme0c0n1": {"size": "2048", "hidden": "1"},
	})
	devices := map[string]io.ReaderAt{
		"/dev/sr0": bytes.NewReader(cd), "/dev/sda": bytes.NewReader(make([]byte, 1<<20)), "/dev/sda1": bytes.NewReader(stick),
		"/dev/cciss/c0d0p1": bytes.NewReader(cd), "/dev/sr1": failing{unix.ENOMEDIUM},
	}
	s := disk.System{Sys: sys, Dev: "/dev", Open: func(node string) (disk.ReaderAtCloser, error) {
		r, ok := devices[node]
		if !ok {
			return nil, fmt.Errorf("%s must not be opened", node)
		}
		return opened{r}, nil
	}}
	got, err := drives(s)
	want := []Drive{{"/dev/cciss/c0d0p1", "iso9660", []string{"cidata"}}, {"/dev/sda1", "vfat", []string{"STICK"}}, {"/dev/sr0", "iso9660", []string{"cidata"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}

	// What cannot be read might be the one that is looked for.
	devices["/dev/sda"] = failing{unix.EIO}
	if got, err := drives(s); !errors.Is(err, unix.EIO) || !strings.HasPrefix(fmt.Sprint(err), "drives: sda: ") || got != nil {
		t.Errorf("%v %v", got, err)
	}
	if _, err := drives(disk.System{Sys: fstest.MapFS{}}); err == nil {
		t.Error("no sysfs, and no error")
	}
}

// TestDriveHasRegularFilesAlone, by names that stay inside.
func TestDriveHasRegularFilesAlone(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	root := filepath.Join(dir, "root")
	write(t, outside, "canary")
	write(t, filepath.Join(root, "user-data"), "{}")
	write(t, filepath.Join(root, "sub", "file"), "deep")
	for _, err := range []error{
		os.Symlink("user-data", filepath.Join(root, "link")), os.Symlink("../outside", filepath.Join(root, "out")),
		os.Symlink("sub", filepath.Join(root, "dir")), unix.Mkfifo(filepath.Join(root, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	files := regularFiles(fd)
	for name, want := range map[string]string{"user-data": "{}", "sub/file": "deep"} {
		if got, err := fs.ReadFile(files, name); string(got) != want || err != nil {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"vendor-data": "no such file or directory", "link": "a symbolic link", "out": "a symbolic link", "dir/file": "a symbolic link",
		"fifo": "not a regular file", "sub": "not a regular file", ".": "not a regular file", "../outside": "invalid argument", "/user-data": "invalid argument",
	} {
		f, err := files.Open(name)
		if err == nil || !strings.Contains(err.Error(), want) || f != nil {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, fs.ErrNotExist) != (name == "vendor-data") {
			t.Errorf("%s: whether it is there: %v", name, err)
		}
	}
}

// TestDriveIsMountedForItsUserAlone, on a file system that every kernel has.
func TestDriveIsMountedForItsUserAlone(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "user-data"), "{}")
	image := filepath.Join(t.TempDir(), "drive.img")
	tool(t, "", "mkfs.ext4", "-q", "-O", "^has_journal", "-d", tree, image, "4M")
	node := tool(t, "", "losetup", "--find", "--show", image)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", node) })
	mounted := func() bool {
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(data), " "+node+" ")
	}
	used := false
	err := OpenDrive(Drive{Node: node, Type: "ext4"}, func(root fs.FS) error {
		used = true
		got, err := fs.ReadFile(root, "user-data")
		if string(got) != "{}" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		if mounted() {
			t.Error("everybody can see the drive")
		}
		var s unix.Statfs_t
		if err := unix.Fstatfs(int(root.(regularFiles)), &s); err != nil {
			t.Fatal(err)
		}
		const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
		if s.Flags&want != want {
			t.Errorf("mounted with %x, want %x", s.Flags, want)
		}
		return nil
	})
	if err != nil || !used || mounted() {
		t.Errorf("used %v, mounted still %v: %v", used, mounted(), err)
	}
	bad := errors.New("bad")
	if err := OpenDrive(Drive{Node: node, Type: "ext4"}, func(fs.FS) error { return bad }); err != bad {
		t.Errorf("%v", err)
	}
	// Nobody holds the device any more.
	f, err := os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestDriveThatIsNoneCannotBeMounted, and says what was tried.
func TestDriveThatIsNoneCannotBeMounted(t *testing.T) {
	err := OpenDrive(Drive{Node: "/dev/null", Type: "ext4"}, func(fs.FS) error { t.Error("used"); return nil })
	if err == nil || !strings.HasPrefix(err.Error(), "mount /dev/null as ext4: ") {
		t.Errorf("%v", err)
	}
}
