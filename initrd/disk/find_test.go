package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"unicode/utf16"
)

// virtio adds a disk with that image to the fake machine.
func (f *fakeSys) virtio(name, number string, sector int, data []byte) string {
	attributes := map[string]string{}
	if sector != 512 {
		attributes["queue/logical_block_size"] = "4096\n"
	}
	dir := f.add(name, "pci0000:00/0000:00:02.0/virtio1/block", number, int64(len(data)), attributes)
	f.images[f.dev+"/"+name] = data
	return dir
}

func TestSystemTable(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		f := newFake(t)
		img := sample(t, sector)
		dir := f.virtio("vda", "254:0", sector, img.build())
		scale := uint64(sector / 512) // sysfs counts in 512 bytes on every disk
		f.partition("vda", "vda1", 1, 100*scale, 100*scale)
		f.file(dir+"/vda1/holders/dm-0/uevent", "")
		f.partition("vda", "vda2", 2, 300*scale, 10*scale) // gone from the table
		f.partition("vda", "vda3", 3, 200*scale, 1*scale)

		d, err := f.system().Resolve(f.dev + "/vda")
		if err != nil {
			t.Fatal(err)
		}
		want := img.table(Primary, nil)
		want.Partitions[0].Node, want.Partitions[0].Holders = f.dev+"/vda1", []string{"dm-0"}
		want.Partitions[1].Node = f.dev + "/vda3"
		if got, err := f.system().Table(d); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes a sector:\n got %+v, %v\nwant %+v", sector, got, err, want)
		}

		// The kernel still has what the table had before: no node may be named.
		for _, stale := range [][2]uint64{{101, 100}, {100, 99}, {100, 101}} {
			f.partition("vda", "vda1", 1, stale[0]*scale, stale[1]*scale)
			got, err := f.system().Table(d)
			if err != nil || got.Partitions[0].Node != "" || got.Partitions[0].Holders != nil || got.Partitions[1].Node != f.dev+"/vda3" {
				t.Errorf("partition at %d of %d sectors: %+v, %v", stale[0], stale[1], got, err)
			}
		}
	}
}

func TestSystemTableErrors(t *testing.T) {
	f := newFake(t)
	f.virtio("vda", "254:0", 512, make([]byte, 1<<20))
	d, err := f.system().Resolve(f.dev + "/vda")
	if err != nil {
		t.Fatal(err)
	}
	var te *TableError
	if _, err := f.system().Table(d); !errors.As(err, &te) || !errors.Is(err, ErrNoTable) || te.Node != d.Node ||
		err.Error() != "partition table of "+d.Node+": no partition table" {
		t.Errorf("no table: %v", err)
	}
	delete(f.images, d.Node)
	if _, err := f.system().Table(d); !errors.As(err, &te) || !errors.Is(err, syscall.ENXIO) || te.Node != d.Node ||
		err.Error() != "partition table of "+d.Node+": open: no such device or address" {
		t.Errorf("not to be opened: %v", err)
	}
	s := f.system()
	s.Open = nil // a regular file in the place of the node
	if _, err := s.Table(d); !errors.As(err, &te) || !strings.HasSuffix(err.Error(), "open: not a block device") {
		t.Errorf("not a block device: %v", err)
	}
	f.images[d.Node] = sample(t, 512).build()
	f.partition("vda", "vda1", 1, 100, 100)
	f.file("devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1/start", "x")
	var le *LookError
	if _, err := f.system().Table(d); !errors.As(err, &le) || le.Path != "/sys/block/vda/vda1/start" {
		t.Errorf("sysfs does not say: %v", err)
	}
}

// searchable is a machine of four disks: two with the sample table (the second with
// 4096-byte sectors and other UUIDs), one without a table, one with an MBR label.
func searchable(t *testing.T) *fakeSys {
	f := newFake(t)
	f.virtio("vda", "254:0", 512, sample(t, 512).build())
	f.partition("vda", "vda1", 1, 100, 100)
	other := sample(t, 4096)
	other.parts[0].UUID = mustGUID(t, "22222222-2222-3333-4444-555555555555")
	other.parts[1].UUID = mustGUID(t, "33333333-2222-3333-4444-555555555555")
	other.parts[1].Type = TypeXBOOTLDR()
	f.virtio("vdb", "254:16", 4096, other.build())
	f.virtio("vdc", "254:32", 512, make([]byte, 1<<20))
	mbr := sample(t, 512).build()
	mbr[450] = 0x83
	f.virtio("vde", "254:64", 512, mbr)
	return f
}

func where(found []Found) string {
	var all []string
	for _, f := range found {
		all = append(all, f.Disk.Name+":"+string(rune('0'+f.Partition.Number))+":"+filepath.Base(f.Partition.Node))
	}
	return strings.Join(all, " ")
}

func TestPartitionByUUID(t *testing.T) {
	f := searchable(t)
	s := f.system()
	first := mustGUID(t, "11111111-2222-3333-4444-555555555555")
	for uuid, want := range map[string]string{
		"11111111-2222-3333-4444-555555555555": "vda:1:vda1",
		"33333333-2222-3333-4444-555555555555": "vdb:3:.",
		"44444444-2222-3333-4444-555555555555": "",
	} {
		if found, err := s.PartitionByUUID(mustGUID(t, uuid)); err != nil || where(found) != want {
			t.Errorf("%s: %s, %v", uuid, where(found), err)
		}
	}
	if found, err := s.PartitionByUUID(GUID{}); err == nil || found != nil || err.Error() != "partition UUID is zero" {
		t.Errorf("zero: %v, %v", found, err)
	}

	// A cloned disk: both are found, and Only refuses.
	f.virtio("vdd", "254:48", 512, sample(t, 512).build())
	found, err := s.PartitionByUUID(first)
	if err != nil || where(found) != "vda:1:vda1 vdd:1:." {
		t.Fatalf("%s, %v", where(found), err)
	}
	var ce *CountError
	_, err = Only("boot partition", found)
	if !errors.As(err, &ce) || len(ce.Found) != 2 || !strings.HasPrefix(err.Error(), "boot partition: 2 of them, and only one may be: partition 1 of "+f.dev+"/vda (") {
		t.Errorf("two: %v", err)
	}
	if _, err = Only("boot partition", nil); !errors.As(err, &ce) || err.Error() != "boot partition: on no disk" {
		t.Errorf("none: %v", err)
	}
	if one, err := Only("boot partition", found[1:]); err != nil || one.Disk.Name != "vdd" {
		t.Errorf("one: %v, %v", one, err)
	}
}

func TestPartitionsByType(t *testing.T) {
	s := searchable(t).system()
	for _, test := range []struct {
		types []GUID
		want  string
	}{
		{[]GUID{TypeESP()}, "vda:1:vda1 vdb:1:."},
		{[]GUID{TypeState()}, "vda:3:."},
		{[]GUID{TypeXBOOTLDR(), TypeState()}, "vda:3:. vdb:3:."},
		{nil, ""},
		{[]GUID{mustGUID(t, "11111111-2222-3333-4444-555555555555")}, ""}, // a UUID is no type
	} {
		if found, err := s.PartitionsByType(test.types...); err != nil || where(found) != test.want {
			t.Errorf("%v: %s, %v", test.types, where(found), err)
		}
	}
}

// A disk that cannot be searched is told beside what was found on the others.
func TestSearchFails(t *testing.T) {
	f := searchable(t)
	damaged := sample(t, 512).build()
	damaged[512+60]++
	damaged[2047*512+60]++
	f.virtio("vdd", "254:48", 512, damaged)
	found, err := f.system().PartitionsByType(TypeESP())
	var se *ScanError
	if where(found) != "vda:1:vda1 vdb:1:." || !errors.As(err, &se) || !errors.Is(err, ErrDamaged) || !se.DamagedOnly() {
		t.Fatalf("%s, %v", where(found), err)
	}
	delete(f.images, f.dev+"/vdb")
	found, err = f.system().PartitionsByType(TypeESP())
	if where(found) != "vda:1:vda1" || !errors.As(err, &se) || !errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.ENXIO) || se.DamagedOnly() || len(se.Failed) != 2 {
		t.Errorf("%s, %v", where(found), err)
	}
	want := "partition table of " + f.dev + "/vdb: open: no such device or address; partition table of " + f.dev + "/vdd: damaged GPT: "
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s…", err, want)
	}
}

func TestResolve(t *testing.T) {
	f := searchable(t)
	f.add("cciss!c0d0", "pci0000:00/0000:05:00.0/cciss0/c0d0/block", "104:0", 4096, nil)
	f.images[f.dev+"/cciss/c0d0"] = make([]byte, 4096)
	os.Remove(filepath.Join(f.dev, "cciss!c0d0"))
	os.MkdirAll(filepath.Join(f.dev, "cciss"), 0o755)
	f.node("cciss/c0d0")
	f.node("cciss/c0d0p2")
	f.partition("cciss!c0d0", "cciss!c0d0p2", 2, 100, 100)
	f.add("dm-0", "virtual/block", "252:0", 1<<30, map[string]string{"dm/name": "usr\n", "dm/uuid": "CRYPT-VERITY-1\n", "slaves/vda1/x": ""})
	f.add("dm-1", "virtual/block", "252:1", 1<<30, map[string]string{"dm/name": "root\n", "dm/uuid": "\n", "slaves/dm-0/x": ""})
	f.add("sr0", "ata1/host0/target0:0:0/0:0:0:0/block", "11:0", 1<<30, nil)
	f.node("console")
	f.node("vdx")
	os.MkdirAll(filepath.Join(f.dev, "mapper"), 0o755)
	f.node("mapper/root")
	f.node("mapper/gone")
	f.devLink("mapper/usr", "../dm-0")
	f.devLink("disk/by-id/virtio-1", "../../vda")
	f.devLink("disk/by-id/virtio-1-part1", "../../vda1")
	f.devLink("disk/by-partuuid/11111111-2222-3333-4444-555555555555", "../../vda1")
	f.devLink("disk/by-id/chain", "virtio-1")
	f.devLink("disk/by-id/dangling", "../../vdy")
	f.devLink("disk/by-id/loop", "loop")
	f.devLink("disk/by-id/outside", f.t.TempDir())
	s := f.system()

	for _, test := range []struct {
		path   string
		name   string
		number int
	}{
		{"vda", "vda", 0},
		{"vda1", "vda", 1},
		{"disk/by-id/virtio-1", "vda", 0},
		{"disk/by-id/chain", "vda", 0},
		{"disk/by-id/virtio-1-part1", "vda", 1},
		{"disk/by-partuuid/11111111-2222-3333-4444-555555555555", "vda", 1},
		{"disk/by-partuuid/33333333-2222-3333-4444-555555555555", "vdb", 3}, // udev has not made it yet
		{"cciss/c0d0", "cciss!c0d0", 0},
		{"cciss/c0d0p2", "cciss!c0d0", 2},
		{"mapper/usr", "dm-0", 0},
		{"mapper/root", "dm-1", 0},
		{"dm-0", "dm-0", 0},
	} {
		path := filepath.Join(f.dev, test.path)
		d, number, err := s.Owner(path)
		if err != nil || d.Name != test.name || number != test.number {
			t.Errorf("owner of %s: %s, %d, %v", test.path, d.Name, number, err)
		}
		d, err = s.Resolve(path)
		if test.number == 0 && (err != nil || d.Name != test.name) {
			t.Errorf("%s: %s, %v", test.path, d.Name, err)
		}
		var pe *PartitionError
		if test.number != 0 && (!errors.As(err, &pe) || pe.Disk.Name != test.name || pe.Number != test.number || pe.Path != path || d.Name != "") {
			t.Errorf("%s: %s, %v", test.path, d.Name, err)
		}
	}
	d, err := s.Resolve(f.dev + "/vda")
	if want := []string{f.dev + "/disk/by-id/virtio-1"}; err != nil || !reflect.DeepEqual(d.Links, want) {
		t.Errorf("links %v, %v", d.Links, err)
	}

	for _, test := range []struct {
		path     string
		message  string
		notExist bool
	}{
		{f.dev + "/vdy", "no such file", true},
		{f.dev + "/disk/by-id/dangling", "no such file", true},
		{f.dev + "/disk/by-partuuid/44444444-2222-3333-4444-555555555555", "file does not exist", true},
		{f.dev + "/disk/by-partuuid/1a2b3c4d-01", "file does not exist", true}, // of an MBR label
		{f.dev + "/mapper/gone", "no device-mapper device of that name", true},
		{f.dev + "/disk/by-id/loop", "too many links", false},
		{f.dev + "/disk/by-id/outside", "which is not in " + f.dev, false},
		{"/", "which is not in " + f.dev, false},
		{f.dev, "which is not in " + f.dev, false},
		{f.dev + "/console", "not a block device that the kernel knows", false},
		{f.dev + "/vdx", "not a block device that the kernel knows", false},
		{f.dev + "/sr0", "not a disk", false},
	} {
		_, err := s.Resolve(test.path)
		var le *LookError
		if !errors.As(err, &le) || le.Path != test.path || !strings.Contains(err.Error(), test.message) || errors.Is(err, fs.ErrNotExist) != test.notExist {
			t.Errorf("%s: %v", test.path, err)
		}
	}
}

func TestMapper(t *testing.T) {
	f := newFake(t)
	f.virtio("vda", "254:0", 512, make([]byte, 4096))
	f.add("dm-0", "virtual/block", "252:0", 1<<30, map[string]string{
		"dm/name": "usr\n", "dm/uuid": "CRYPT-VERITY-8b5cb7a9e1be4ea1a2e1f5f2a1c3d4e5-usr\n", "slaves/vda3/x": "", "slaves/vda2/x": ""})
	f.add("dm-10", "virtual/block", "252:10", 1<<30, map[string]string{"dm/name": "usr2\n", "dm/uuid": "\n"})

	node, uuid, slaves, err := Mapper(f.sys, "usr")
	if node != "/dev/dm-0" || uuid != "CRYPT-VERITY-8b5cb7a9e1be4ea1a2e1f5f2a1c3d4e5-usr" || !reflect.DeepEqual(slaves, []string{"vda2", "vda3"}) || err != nil {
		t.Errorf("%s, %s, %v, %v", node, uuid, slaves, err)
	}
	node, uuid, slaves, err = Mapper(f.sys, "usr2")
	if node != "/dev/dm-10" || uuid != "" || slaves != nil || err != nil {
		t.Errorf("%s, %s, %v, %v", node, uuid, slaves, err)
	}
	for _, name := range []string{"us", "", "usr\n", "vda"} {
		var le *LookError
		if _, _, _, err = Mapper(f.sys, name); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &le) || le.Path != "/dev/mapper/"+name {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, _, _, err = Mapper(failing{f.sys, "block/dm-0/dm/name", syscall.EIO}, "usr2"); !errors.Is(err, syscall.EIO) {
		t.Errorf("cannot look: %v", err)
	}
	if _, _, _, err = Mapper(failing{f.sys, "block/dm-0/dm/uuid", syscall.EIO}, "usr"); !errors.Is(err, syscall.EIO) {
		t.Errorf("cannot look: %v", err)
	}
}

// variable is a file of efivarfs that holds text.
func variable(text string) *fstest.MapFile {
	data := []byte{6, 0, 0, 0}
	for _, u := range utf16.Encode([]rune(text)) {
		data = append(data, byte(u), byte(u>>8))
	}
	return &fstest.MapFile{Data: data}
}

func TestBootPartition(t *testing.T) {
	const name = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	other := fstest.MapFS{"BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c": variable("")}
	with := func(file *fstest.MapFile) fs.FS { return fstest.MapFS{name: file} }
	missing, err := fs.Sub(fstest.MapFS{"block": {Mode: fs.ModeDir}}, "firmware/efi/efivars")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		efivars fs.FS
		want    string
		err     error
		message string
	}{
		{name: "upper case, NUL at the end", efivars: with(variable("11111111-2222-3333-4444-5555555555AA\x00")), want: "11111111-2222-3333-4444-5555555555aa"},
		{name: "no NUL", efivars: with(variable("11111111-2222-3333-4444-5555555555AA")), want: "11111111-2222-3333-4444-5555555555aa"},
		{name: "not set", efivars: other, err: ErrNotSet},
		{name: "no EFI", efivars: missing, err: ErrNotSet},
		{name: "no EFI, real file system", efivars: os.DirFS(filepath.Join(t.TempDir(), "efi")), err: ErrNotSet},
		{name: "not mounted", efivars: os.DirFS(t.TempDir()), err: ErrNoVariables},
		{name: "not readable", efivars: failing{other, name, syscall.EIO}, err: syscall.EIO, message: name},
		{name: "directory not readable", efivars: noList{failing{other, name, fs.ErrNotExist}}, err: syscall.EACCES},
		{name: "empty", efivars: with(&fstest.MapFile{}), message: name + ": 0 bytes are no text"},
		{name: "odd", efivars: with(&fstest.MapFile{Data: []byte{6, 0, 0, 0, 'a'}}), message: name + ": 5 bytes are no text"},
		{name: "attributes alone", efivars: with(variable("")), message: name + `: GUID "": not 32`},
		{name: "no GUID", efivars: with(variable("11111111-2222-3333-4444-55555555555\x00A")), message: "not 32 hexadecimal digits"},
		{name: "zero", efivars: with(variable("00000000-0000-0000-0000-000000000000")), message: "GUID is zero"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := BootPartition(test.efivars)
			if test.want != "" {
				if err != nil || got.String() != test.want {
					t.Errorf("%s, %v", got, err)
				}
				return
			}
			var le *LookError
			typed := errors.Is(err, ErrNotSet) || errors.Is(err, ErrNoVariables) || errors.As(err, &le)
			if err == nil || !typed || test.err != nil && !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.message) {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

// noList is a directory that may be searched and not listed.
type noList struct{ fs.FS }

func (n noList) Open(name string) (fs.File, error) {
	if name == "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	}
	return n.FS.Open(name)
}

func TestBootDisk(t *testing.T) {
	const name = "firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	f := searchable(t)
	s := f.system()
	if _, err := s.BootDisk(); !errors.Is(err, ErrNotSet) {
		t.Errorf("no EFI: %v", err)
	}
	f.sys["firmware/efi/efivars"] = &fstest.MapFile{Mode: fs.ModeDir}
	if _, err := s.BootDisk(); !errors.Is(err, ErrNoVariables) {
		t.Errorf("efivarfs not mounted: %v", err)
	}
	f.sys[name] = variable("22222222-2222-3333-4444-555555555555\x00")
	if got, err := s.BootDisk(); err != nil || got.Disk.Name != "vdb" || got.Partition.Number != 1 {
		t.Errorf("%v, %v", got, err)
	}

	// A damaged table elsewhere is no second boot disk; a disk that cannot be read may be.
	damaged := sample(t, 512).build()
	damaged[512+60]++
	damaged[2047*512+60]++
	f.virtio("vdd", "254:48", 512, damaged)
	if got, err := s.BootDisk(); err != nil || got.Disk.Name != "vdb" {
		t.Errorf("beside a damaged table: %v, %v", got, err)
	}
	f.sys[name] = variable("55555555-2222-3333-4444-555555555555\x00")
	var se *ScanError
	if _, err := s.BootDisk(); !errors.As(err, &se) || !errors.Is(err, ErrDamaged) {
		t.Errorf("perhaps on the damaged disk: %v", err)
	}
	delete(f.images, f.dev+"/vdd")
	f.sys[name] = variable("22222222-2222-3333-4444-555555555555\x00")
	if _, err := s.BootDisk(); !errors.As(err, &se) || !errors.Is(err, syscall.ENXIO) {
		t.Errorf("perhaps a second one: %v", err)
	}

	f.images[f.dev+"/vdd"] = f.images[f.dev+"/vda"]
	f.sys[name] = variable("11111111-2222-3333-4444-555555555555\x00")
	var ce *CountError
	if _, err := s.BootDisk(); !errors.As(err, &ce) || len(ce.Found) != 2 {
		t.Errorf("cloned: %v", err)
	}
	f.sys[name] = variable("55555555-2222-3333-4444-555555555555\x00")
	if _, err := s.BootDisk(); !errors.As(err, &ce) || len(ce.Found) != 0 ||
		err.Error() != "boot partition 55555555-2222-3333-4444-555555555555: on no disk" {
		t.Errorf("none: %v", err)
	}
}

// TestFollow: a link of udev's counts, and where there is none yet, what the tables say; a
// disk that cannot be read has no say in it.
func TestFollow(t *testing.T) {
	f := searchable(t)
	s := f.system()
	links := filepath.Join(f.dev, "disk/by-partlabel")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dev, "vdz9"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../vdz9", filepath.Join(links, "made")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Follow(filepath.Join(links, "made")); err != nil || got != filepath.Join(f.dev, "vdz9") {
		t.Errorf("a link: %q, %v", got, err)
	}
	uuid := filepath.Join(f.dev, "disk/by-partuuid/11111111-2222-3333-4444-555555555555")
	if got, err := s.Follow(uuid); err != nil || got != filepath.Join(f.dev, "vda1") {
		t.Errorf("a UUID: %q, %v", got, err)
	}
	// Two disks have it.
	var ce *CountError
	if got, err := s.Follow(filepath.Join(links, `EFI\x20system`)); !errors.As(err, &ce) {
		t.Errorf("two of one name: %q, %v", got, err)
	}
	delete(f.images, f.dev+"/vdb")
	if got, err := s.Follow(filepath.Join(links, `EFI\x20system`)); err != nil || got != filepath.Join(f.dev, "vda1") {
		t.Errorf("and one of them is not to be read: %q, %v", got, err)
	}
	for _, name := range []string{"disk/by-partlabel/none", "disk/by-partuuid/none", "disk/by-partuuid/44444444-2222-3333-4444-555555555555", "mapper/none"} {
		if got, err := s.Follow(filepath.Join(f.dev, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
