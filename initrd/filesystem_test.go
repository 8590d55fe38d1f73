package initrd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// These tests make file systems on loop devices. They need root, util-linux, e2fsprogs,
// dosfstools, btrfs-progs and xfsprogs.

// loopDevice is a block device of that many MiB, of zeros, and the file behind it.
func loopDevice(t *testing.T, mib int64) (node, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, mib<<20); err != nil {
		t.Fatal(err)
	}
	node = tool(t, "", "losetup", "--find", "--show", file)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", node) })
	return node, file
}

// contents is a digest of all that is on a loop device and not zero. Holes of its file are not
// read; what is none may still be zero.
func contents(t *testing.T, node string) [32]byte {
	t.Helper()
	tool(t, "", "sync", node)
	backing, err := os.ReadFile("/sys/block/" + filepath.Base(node) + "/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(strings.TrimSpace(string(backing)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	for end := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return [32]byte(sum.Sum(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
		if end, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, end-from)
		if _, err := f.ReadAt(data, from); err != nil {
			t.Fatal(err)
		}
		for block := range slices.Chunk(data, 4096) {
			if bytes.Count(block, []byte{0}) < len(block) {
				fmt.Fprintln(sum, from)
				sum.Write(block)
			}
			from += int64(len(block))
		}
	}
}

// blkid is what libblkid says of a device: type, label, UUID.
func blkid(t *testing.T, node string) (words [3]string) {
	t.Helper()
	for i, tag := range []string{"TYPE", "LABEL", "UUID"} {
		words[i] = tool(t, "", "sh", "-c", `blkid --probe --output value --match-tag `+tag+` "$0" || test $? = 2`, node)
	}
	return words
}

// formatted is a case for each format: how large a device must be, what a wish is, and how
// what was made is checked.
type formatted struct {
	format      string
	mib         int64
	label, uuid string
	seen        string // the UUID in blkid's form
	check       []string
}

func formats() []formatted {
	const id = "a1b2c3d4-e5f6-4a7b-8c9d-0123456789ab"
	const capital = "A1B2C3D4-E5F6-4A7B-8C9D-0123456789AB"
	return []formatted{
		{"ext4", 16, "with a label", capital, id, []string{"e2fsck", "-f", "-n"}},
		{"btrfs", 128, "label", capital, id, []string{"btrfs", "check"}},
		{"xfs", 320, "label", capital, id, []string{"xfs_repair", "-n"}},
		{"vfat", 40, "LABEL", "a1b2-c3d4", "A1B2-C3D4", []string{"fsck.vfat", "-n"}},
		{"swap", 4, "label", capital, id, []string{"swaplabel"}},
	}
}

func word(s string) *string { return &s }

// TestFilesystemIsMadeOnWhatIsBlank with label and UUID, and the second run does nothing.
func TestFilesystemIsMadeOnWhatIsBlank(t *testing.T) {
	for _, c := range formats() {
		t.Run(c.format, func(t *testing.T) {
			node, _ := loopDevice(t, c.mib)
			m, _ := testMachine(t)
			wish := Filesystem{Device: node, Format: c.format, Label: &c.label, UUID: &c.uuid}
			out := mustApply(t, m, wish)
			if !out[0].Changed || out[0].Effect != Makes {
				t.Errorf("%+v", out[0])
			}
			if got, want := blkid(t, node), [3]string{c.format, c.label, c.seen}; got != want {
				t.Errorf("made %q, want %q", got, want)
			}
			tool(t, "", c.check[0], append(c.check[1:], node)...)
			keeps(t, node, Filesystem{Device: node, Format: c.format, Label: &c.label, UUID: &c.uuid})
			keeps(t, node, Filesystem{Device: node, Format: c.format})
		})
	}
}

// keeps holds that a wish is so already, for a process that knows nothing of the past, and
// that the device stays as it is.
func keeps(t *testing.T, node string, wish Filesystem) {
	t.Helper()
	before := contents(t, node)
	m, _ := testMachine(t)
	out := mustApply(t, m, wish)
	if out[0].State != So || contents(t, node) != before {
		t.Errorf("%s: %v, changed: %v", wish, out[0].State, contents(t, node) != before)
	}
}

func mustApply(t *testing.T, m *Machine, steps ...Step) []Outcome {
	t.Helper()
	out, err := apply(t, m, steps...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFilesystemLeavesAnother: whatever else is on the device is an error that names it,
// and stays.
func TestFilesystemLeavesAnother(t *testing.T) {
	const label = "precious"
	for name, c := range map[string]struct {
		there []string // the call that makes what is there
		wish  Filesystem
		named string
	}{
		"another type":  {[]string{"mkfs.ext4", "-q", "-L", label}, Filesystem{Format: "vfat"}, `has ext4 (label "precious", UUID `},
		"another label": {[]string{"mkfs.ext4", "-q", "-L", label}, Filesystem{Format: "ext4", Label: word("other")}, `ext4 (label "other") was asked for`},
		"no label":      {[]string{"mkfs.ext4", "-q", "-L", label}, Filesystem{Format: "ext4", Label: word("")}, `has ext4 (label "precious"`},
		"another UUID":  {[]string{"mkfs.ext4", "-q"}, Filesystem{Format: "ext4", UUID: word("00000000-0000-0000-0000-000000000001")}, "UUID 00000000-0000-0000-0000-000000000001) was asked for"},
		"ext3 for ext4": {[]string{"mkfs.ext3", "-q"}, Filesystem{Format: "ext4"}, "has ext3"},
		"none wanted":   {[]string{"mkswap", "-q", "-L", label}, Filesystem{Format: "none"}, `has swap (label "precious"`},
		"empty format":  {[]string{"mkswap", "-q", "-L", label}, Filesystem{}, `has swap (label "precious"`},
		"encrypted":     {[]string{"cryptsetup", "luksFormat", "-q", "--key-file=/etc/hostname", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"}, Filesystem{Format: "ext4"}, "has crypto_LUKS"},
		"partitions":    {[]string{"sgdisk", "--new=1:0:0"}, Filesystem{Format: "ext4"}, "has a partition table (gpt) of 1 partitions"},
		"nothing known": {[]string{"mkfs.f2fs", "-q"}, Filesystem{Format: "ext4"}, "has f2fs"},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := loopDevice(t, 64)
			tool(t, "", c.there[0], append(c.there[1:], node)...)
			before := contents(t, node)
			m, _ := testMachine(t)
			c.wish.Device = node
			_, err := apply(t, m, c.wish)
			if !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), c.named) {
				t.Errorf("error %v, want one with %q", err, c.named)
			}
			if contents(t, node) != before {
				t.Error("the device was written to")
			}
		})
	}
}

// TestFilesystemWipesOnce: with wipe set it is made anew over anything, once for each
// provision id, and the record knows.
func TestFilesystemWipesOnce(t *testing.T) {
	for _, c := range formats() {
		t.Run(c.format, func(t *testing.T) {
			node, _ := loopDevice(t, c.mib)
			m, _ := testMachine(t)
			wish := Filesystem{Device: node, Format: c.format, Wipe: true, Provision: "first"}
			mustApply(t, m, Filesystem{Device: node, Format: c.format})
			first := blkid(t, node)
			out := mustApply(t, m, wish)
			if o := out[0]; !o.Changed || o.Effect != Destroys || len(o.Lost) != 1 || !strings.Contains(o.Lost[0], first[2]+") on "+node) {
				t.Errorf("%+v", o)
			}
			second := blkid(t, node)
			if second[0] != c.format || second[2] == first[2] {
				t.Errorf("%q is still %q", second, first)
			}
			before := contents(t, node)
			if out := mustApply(t, m, wish); out[0].State != So || contents(t, node) != before {
				t.Errorf("it was made twice: %+v", out[0])
			}
			wish.Provision = "second"
			mustApply(t, m, wish)
			if again := blkid(t, node); again[2] == second[2] {
				t.Errorf("another provision id did not make it anew: %q", again)
			}
		})
	}
	for name, there := range map[string][]string{
		"encrypted":  {"cryptsetup", "luksFormat", "-q", "--key-file=/etc/hostname", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"},
		"partitions": {"sgdisk", "--new=1:0:0"},
		"f2fs":       {"mkfs.f2fs", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := loopDevice(t, 64)
			tool(t, "", there[0], append(there[1:], node)...)
			m, _ := testMachine(t)
			out := mustApply(t, m, Filesystem{Device: node, Format: "ext4", Wipe: true})
			if out[0].Effect != Destroys || blkid(t, node)[0] != "ext4" {
				t.Errorf("%+v, %q", out[0], blkid(t, node))
			}
			if left := tool(t, "", "wipefs", "--noheadings", "--output", "TYPE", node); left != "ext4" {
				t.Errorf("signatures that are left: %q", left)
			}
		})
	}
}

// TestFilesystemIsWipedOnceByTheRecord, also by those who work side by side, and by a process
// that has nothing of /run.
func TestFilesystemIsWipedOnceByTheRecord(t *testing.T) {
	place := newPlace(t)
	steps := []Step{Recorded{State: Started, Provision: "p"}}
	var nodes []string
	for range 3 {
		node, _ := loopDevice(t, 16)
		tool(t, "", "mkswap", "-q", node)
		nodes = append(nodes, node)
		steps = append(steps, Filesystem{Device: node, Format: "ext4", Wipe: true, Provision: "p"})
	}
	var made [][3]string
	for boot := range 2 {
		m, _ := testMachine(t)
		if _, err := m.recall(place); err != nil {
			t.Fatal(err)
		}
		for i, o := range mustApply(t, m, steps...) {
			if o.Changed != (boot == 0) {
				t.Errorf("boot %d, step %d: %+v", boot, i, o)
			}
		}
		for i, node := range nodes {
			if boot == 0 {
				made = append(made, blkid(t, node))
			} else if got := blkid(t, node); got != made[i] {
				t.Errorf("%q is now %q", made[i], got)
			}
		}
	}
}

// TestFilesystemNoneWipes, and is content with a blank device.
func TestFilesystemNoneWipes(t *testing.T) {
	node, _ := loopDevice(t, 64)
	m, _ := testMachine(t)
	for _, format := range []string{"none", ""} {
		if out := mustApply(t, m, Filesystem{Device: node, Format: format}); out[0].State != So {
			t.Errorf("%q on a blank device: %v", format, out[0].State)
		}
	}
	tool(t, "", "mkfs.ext4", "-q", node)
	wish := Filesystem{Device: node, Format: "none", Wipe: true}
	if out := mustApply(t, m, wish); out[0].Effect != Destroys {
		t.Errorf("%+v", out[0])
	}
	if left := tool(t, "", "wipefs", "--noheadings", node); left != "" {
		t.Errorf("signatures that are left: %q", left)
	}
	keeps(t, node, wish)
}

// TestFilesystemDecidesAsLibblkidDoes where there are several signatures.
func TestFilesystemDecidesAsLibblkidDoes(t *testing.T) {
	node, _ := loopDevice(t, 64)
	tool(t, "", "mkfs.ext4", "-q", node)
	f, err := os.OpenFile(node, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("hsqs"+strings.Repeat("\x00", 24)+"\x04\x00"), 0)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	keeps(t, node, Filesystem{Device: node, Format: "ext4"})
	m, _ := testMachine(t)
	_, err = apply(t, m, Filesystem{Device: node, Format: "xfs"})
	if !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), "more than one signature: ext4 (UUID ") || !strings.Contains(err.Error(), ", squashfs, and xfs was asked for") {
		t.Errorf("error %v", err)
	}
	out := mustApply(t, m, Filesystem{Device: node, Format: "ext4", Wipe: true})
	if out[0].Effect != Destroys || !strings.Contains(out[0].Lost[0], "squashfs") {
		t.Errorf("%+v", out[0])
	}
	if left := tool(t, "", "wipefs", "--noheadings", "--output", "TYPE", node); left != "ext4" {
		t.Errorf("signatures that are left: %q", left)
	}
}

// TestFilesystemLeavesWhatIsInUse, also with wipe.
func TestFilesystemLeavesWhatIsInUse(t *testing.T) {
	node, _ := loopDevice(t, 64)
	m, where := testMachine(t)
	mustApply(t, m, Filesystem{Device: node, Format: "ext4"})
	tool(t, "", "mount", node, where)
	t.Cleanup(func() { tool(t, "", "umount", where) })
	if err := os.WriteFile(filepath.Join(where, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := apply(t, m, Filesystem{Device: node, Format: "ext4", Wipe: true})
	if err == nil || !strings.Contains(err.Error(), node+" is mounted at "+where+", and ext4 was asked for") {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(where, "file")); string(data) != "text" {
		t.Errorf("%q %v", data, err)
	}
	if out := mustApply(t, m, Filesystem{Device: node, Format: "ext4"}); out[0].State != So {
		t.Errorf("what is mounted, and right: %v", out[0].State)
	}
}

// TestFilesystemTakesTheConfigsOptions as Ignition gives them to mkfs.
func TestFilesystemTakesTheConfigsOptions(t *testing.T) {
	for _, c := range []struct {
		wish Filesystem
		want string
	}{
		{Filesystem{Format: "ext4", Options: []string{"-b", "1024"}}, "mkfs.ext4 -b 1024 -F /dev/x"},
		{Filesystem{Format: "ext4", UUID: word("ABCD"), Label: word("a b")}, "mkfs.ext4 -F -U abcd -L a b /dev/x"},
		{Filesystem{Format: "btrfs", Options: []string{"--mixed"}, UUID: word("AB"), Label: word("l")}, "mkfs.btrfs --mixed --force -U ab -L l /dev/x"},
		{Filesystem{Format: "xfs", UUID: word("AB"), Label: word("l")}, "mkfs.xfs -f -m uuid=ab -L l /dev/x"},
		{Filesystem{Format: "swap", UUID: word("AB"), Label: word("l")}, "mkswap -f -U ab -L l /dev/x"},
		{Filesystem{Format: "vfat", Options: []string{"-F", "32"}, UUID: word("A1B2-C3D4"), Label: word("L")}, "mkfs.vfat -F 32 -i a1b2c3d4 -n L /dev/x"},
		{Filesystem{Format: "vfat", UUID: word("A1B2C3D4")}, "mkfs.vfat -i a1b2c3d4 /dev/x"},
		{Filesystem{Format: "ext4", Label: word("")}, "mkfs.ext4 -F -L  /dev/x"},
	} {
		argv, err := makeFilesystem{Filesystem: c.wish, node: "/dev/x"}.argv()
		if got := strings.Join(argv, " "); err != nil || got != c.want {
			t.Errorf("%q %v, want %q", got, err, c.want)
		}
	}
	node, _ := loopDevice(t, 16)
	m, _ := testMachine(t)
	mustApply(t, m, Filesystem{Device: node, Format: "ext4", Options: []string{"-b", "1024", "-O", "^has_journal"}})
	if text := tool(t, "", "dumpe2fs", "-h", node); !strings.Contains(text, "Block size:               1024") || strings.Contains(text, "has_journal") {
		t.Errorf("%s", text)
	}
	_, err := apply(t, m, Filesystem{Device: node, Format: "ext4", Wipe: true, Options: []string{"--no-such-option"}})
	var p *ProgramError
	if !errors.As(err, &p) || p.Name != "mkfs.ext4" {
		t.Errorf("error %v", err)
	}
}

// TestFilesystemsOfOneDevice by two names are refused, not made at once.
func TestFilesystemsOfOneDevice(t *testing.T) {
	node, _ := loopDevice(t, 16)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(node, link); err != nil {
		t.Fatal(err)
	}
	m, _ := testMachine(t)
	_, err := apply(t, m, Filesystem{Device: node, Format: "ext4"}, Filesystem{Device: link, Format: "swap"})
	if err == nil {
		t.Fatal("both were made")
	}
	if got := blkid(t, node)[0]; got != "ext4" && got != "swap" {
		t.Errorf("made %q", got)
	}
}

// TestFilesystemsAreMadeSideBySide: each of two mkfs waits for the other one.
func TestFilesystemsAreMadeSideBySide(t *testing.T) {
	m, dir := testMachine(t)
	meeting := filepath.Join(dir, "meeting")
	if err := unix.Mkfifo(meeting, 0o600); err != nil {
		t.Fatal(err)
	}
	var steps []Step
	for name, meet := range map[string]string{"mkfs.ext4": "echo there >" + meeting, "mkswap": "cat " + meeting} {
		real, err := m.find(name)
		if err != nil {
			t.Fatal(err)
		}
		program(t, m, name, `timeout 30 sh -c "`+meet+`" && exec `+real+` "$@"`)
		node, _ := loopDevice(t, 16)
		steps = append(steps, Filesystem{Device: node, Format: map[string]string{"mkfs.ext4": "ext4", "mkswap": "swap"}[name]})
	}
	mustApply(t, m, steps...)
}

// TestFilesystemWaitsForItsDevice that an earlier step makes.
func TestFilesystemWaitsForItsDevice(t *testing.T) {
	m, dir := testMachine(t)
	m.Wait = 0
	out, err := Run(t.Context(), m, []Step{Filesystem{Device: filepath.Join(dir, "none"), Format: "ext4"}}, Plan, nil)
	if err != nil || out[0].State != After {
		t.Errorf("%+v %v", out[0], err)
	}
}

// TestFilesystemProgramsAreAskedForBefore the first deed.
func TestFilesystemProgramsAreAskedForBefore(t *testing.T) {
	err := bare(t).Preflight([]Step{Filesystem{Format: "xfs"}, Filesystem{Format: "btrfs"}, Filesystem{Format: "none"}, Filesystem{Format: "swap"}})
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, program := range []string{"mkfs.xfs", "mkfs.btrfs", "mkswap", "udevadm"} {
		if !slices.Contains(strings.Fields(err.Error()), program) {
			t.Errorf("%s is not missed: %v", program, err)
		}
	}
	if strings.Contains(err.Error(), "ext4") {
		t.Errorf("%v", err)
	}
}

// TestMountNeedsTheFileSystemsModule as its programs are needed.
func TestMountNeedsTheFileSystemsModule(t *testing.T) {
	m, _ := testMachine(t)
	err := m.Preflight([]Step{Mount{What: Source{Path: "/dev/x", Named: true}, Type: "no_such_fs"}})
	if err == nil || !strings.Contains(err.Error(), "kernel module no_such_fs") {
		t.Errorf("error %v", err)
	}
}

// TestFilesystemOverTheNameOfItsDevice: a link by what is wiped is gone after that.
func TestFilesystemOverTheNameOfItsDevice(t *testing.T) {
	node, _ := loopDevice(t, 16)
	m, dir := testMachine(t)
	m.Wait = 0
	link := filepath.Join(dir, "by-label")
	if err := os.Symlink(node, link); err != nil {
		t.Fatal(err)
	}
	real, err := m.find("mkfs.ext4")
	if err != nil {
		t.Fatal(err)
	}
	program(t, m, "mkfs.ext4", "rm "+link+"; exec "+real+` "$@"`)
	if out := mustApply(t, m, Filesystem{Device: link, Format: "ext4"}); !out[0].Changed {
		t.Errorf("%+v", out[0])
	}
}

// superblock is what Probe finds on a device.
func superblock(t *testing.T, node string) disk.Superblock {
	t.Helper()
	s, err := disk.Machine().Probed(node)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
