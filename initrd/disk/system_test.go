package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// fakeSys is sysfs and /run as maps, /dev as a directory, and disks as bytes.
type fakeSys struct {
	t      *testing.T
	sys    fstest.MapFS
	run    fstest.MapFS
	dev    string
	images map[string][]byte
}

func newFake(t *testing.T) *fakeSys {
	dev := filepath.Join(t.TempDir(), "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	return &fakeSys{t: t, dev: dev, sys: fstest.MapFS{"block": {Mode: fs.ModeDir | 0o755}}, run: fstest.MapFS{}, images: map[string][]byte{}}
}

type image struct{ *bytes.Reader }

func (image) Close() error { return nil }

func (f *fakeSys) system() System {
	return System{Sys: f.sys, Run: f.run, Dev: f.dev, Open: func(node string) (ReaderAtCloser, error) {
		data, ok := f.images[node]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: node, Err: syscall.ENXIO}
		}
		return image{bytes.NewReader(data)}, nil
	}}
}

func (f *fakeSys) file(name, data string) { f.sys[name] = &fstest.MapFile{Data: []byte(data)} }

func (f *fakeSys) link(name, target string) {
	f.sys[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

// add makes a disk whose directory is at place/NAME below /sys/devices, as the kernel
// has it, with attributes by path below it.
func (f *fakeSys) add(name, place, number string, bytes int64, attributes map[string]string) string {
	dir := "devices/" + place + "/" + name
	f.link("block/"+name, "../"+dir)
	all := map[string]string{
		"dev": number + "\n", "size": strconv.FormatInt(bytes/512, 10) + "\n", "ro": "0\n", "removable": "0\n", "hidden": "0\n",
		"queue/logical_block_size": "512\n", "uevent": "DEVNAME=" + name + "\nDEVTYPE=disk\n",
	}
	for k, v := range attributes {
		all[k] = v
	}
	for k, v := range all {
		f.file(path.Join(dir, k), v)
	}
	f.node(name)
	return dir
}

func (f *fakeSys) node(name string) {
	if err := os.WriteFile(filepath.Join(f.dev, name), nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// partition makes what the kernel shows of a partition, in sectors of 512 bytes.
func (f *fakeSys) partition(disk, name string, number int, start, size uint64) {
	target := string(f.sys["block/"+disk].Data)
	dir := path.Join("block", target, name)
	f.file(dir+"/partition", strconv.Itoa(number)+"\n")
	f.file(dir+"/start", strconv.FormatUint(start, 10)+"\n")
	f.file(dir+"/size", strconv.FormatUint(size, 10)+"\n")
	f.node(name)
}

func (f *fakeSys) devLink(name, target string) {
	link := filepath.Join(f.dev, name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeSys) udev(number string, lines ...string) {
	f.run["udev/data/b"+number] = &fstest.MapFile{Data: []byte(strings.Join(lines, "\n") + "\n")}
}

func vpd(code byte, body string) string {
	page := []byte{0, code, 0, 0}
	binary.BigEndian.PutUint16(page[2:], uint16(len(body)))
	return string(page) + body
}

// ataPage is a page 89h with that serial and model in its IDENTIFY data.
func ataPage(serial, model string) string {
	body := bytes.Repeat([]byte{' '}, 568)
	put := func(at, length int, s string) {
		field := body[56+at:][:length]
		copy(field, s)
		for i := 0; i < length; i += 2 {
			field[i], field[i+1] = field[i+1], field[i]
		}
	}
	put(20, 20, "        "+serial)
	put(54, 40, model)
	return vpd(0x89, string(body))
}

func TestDisks(t *testing.T) {
	f := newFake(t)
	const gib = 1 << 30

	f.add("vda", "pci0000:00/0000:00:02.0/virtio1/block", "254:0", 8*gib, map[string]string{"serial": "root-1"})
	f.devLink("disk/by-id/virtio-root-1", "../../vda")
	f.devLink("disk/by-path/virtio-pci-0000:00:02.0", "../../vda")
	f.devLink("disk/by-id/virtio-root-1-part1", "../../vda1")
	f.devLink("disk/other/virtio-root-1", "../../vda")
	f.partition("vda", "vda1", 1, 2048, 2048)
	f.file("devices/pci0000:00/0000:00:02.0/virtio1/block/vda/holders/dm-0/dm/name", "usr\n")

	f.add("nvme0n1", "pci0000:00/0000:01:00.0/nvme/nvme0", "259:0", 500*gib, map[string]string{
		"wwid": "eui.0025388b710116a1\n", "device/serial": "S64DNF0R123456      \n", "device/model": "Samsung SSD 970 EVO                     \n",
		"queue/logical_block_size": "4096\n"})
	f.add("nvme1n1", "virtual/nvme-subsystem/nvme-subsys1", "259:2", gib, map[string]string{
		"wwid": "nvme.1b36-6465-51454d55-00000001\n", "device/serial": "deadbeef\n", "device/model": "QEMU NVMe Ctrl\n"})
	f.add("nvme1c0n1", "pci0000:00/0000:02:00.0/nvme/nvme1", "259:3", gib, map[string]string{"hidden": "1\n"})

	// SATA, with no udev: serial and full model are in the ATA page, the SCSI model is cut.
	f.add("sda", "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block", "8:0", 500*gib, map[string]string{
		"device/vpd_pg80": vpd(0x80, "     S3Z2NB0K000001L"), "device/vpd_pg89": ataPage("S3Z2NB0K000001L", "Samsung SSD 860 EVO 500GB"),
		"device/model": "Samsung SSD 860 \n", "device/wwid": "naa.5002538e40000001\n"})
	f.file("class/scsi_host/host0/proc_name", "ahci\n")

	// Parallel ATA without a page 89h: udev has the rest of the model.
	f.add("sdb", "pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block", "8:16", gib, map[string]string{
		"device/vpd_pg80": vpd(0x80, "QM00001"), "device/model": "QEMU HARDDISK XY\n", "device/wwid": "t10.ATA     QEMU HARDDISK                           QM00001\n"})
	f.file("class/scsi_host/host1/proc_name", "ata_piix\n")
	f.udev("8:16", "S:disk/by-id/ata-x", "I:2170031", "E:ID_BUS=ata", `E:ID_MODEL=QEMU_HARDDISK_XYZ_9`, `E:ID_MODEL_ENC=QEMU\x20HARDDISK\x20XYZ\x209\x20\x20`,
		"E:ID_SERIAL_SHORT=not-this", "E:ID_WWN=0x5000c5000000abcd", "G:systemd", "Q:systemd", "V:1")

	// USB: udev has the serial of the disk in the enclosure; without it that of the device counts.
	usb := "pci0000:00/0000:00:14.0/usb2/2-1"
	f.file("devices/"+usb+"/idVendor", "0781\n")
	f.file("devices/"+usb+"/serial", "4C530001\n")
	f.file("devices/pci0000:00/0000:00:14.0/usb2/idVendor", "1d6b\n")
	f.file("devices/pci0000:00/0000:00:14.0/usb2/serial", "0000:00:14.0\n")
	f.add("sdc", usb+"/2-1:1.0/host6/target6:0:0/6:0:0:0/block", "8:32", 32*gib, map[string]string{"removable": "1\n", "ro": "1\n", "device/model": "Ultra Fit       \n"})
	f.file("class/scsi_host/host6/proc_name", "usb-storage\n")
	f.add("sdd", usb+"/2-1:1.0/host6/target6:0:0/6:0:0:1/block", "8:48", 32*gib, map[string]string{"device/model": "Ultra Fit       \n", "device/vpd_pg80": vpd(0x80, "BRIDGE01")})
	f.udev("8:48", "E:ID_SERIAL_SHORT=WD-0001")

	// SAS by its host, a virtio-scsi disk, Hyper-V, Xen, an SD card with its boot areas.
	f.add("sde", "pci0000:00/0000:03:00.0/host7/port-7:0/end_device-7:0/target7:0:0/7:0:0:0/block", "8:64", 4096*gib, map[string]string{
		"device/vpd_pg80": vpd(0x80, "ZC1A0001"), "device/model": "ST4000NM0025\n", "device/wwid": "naa.5000c500a1b2c3d4\n"})
	f.file("class/sas_host/host7/uevent", "")
	f.add("sdf", "pci0000:00/0000:00:04.0/virtio2/host8/target8:0:1/8:0:1:0/block", "8:80", gib, map[string]string{"device/model": "PersistentDisk  \n"})
	f.udev("8:80", "E:ID_SERIAL_SHORT=boot", "E:ID_WWN=0x0000000000000001", "E:ID_WWN_WITH_EXTENSION=0x00000000000000010000000000000002")
	f.add("sdg", "LNXSYSTM:00/VMBUS:00/f8b3781a/host9/target9:0:0/9:0:0:0/block", "8:96", gib, nil)
	f.add("xvda", "vbd-51712/block", "202:0", gib, nil)
	f.add("mmcblk0", "platform/mmc0/mmc_host/mmc0/mmc0:0001/block", "179:0", gib, map[string]string{"device/serial": "0x1a2b3c4d\n", "device/name": "SD32G\n"})
	f.add("mmcblk0boot0", "platform/mmc0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", "179:8", gib, map[string]string{"device/serial": "0x1a2b3c4d\n"})
	f.add("mmcblk0rpmb", "platform/mmc0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", "179:16", gib, nil)
	f.add("cciss!c0d0", "pci0000:00/0000:05:00.0/cciss0/c0d0/block", "104:0", 0, nil) // size 0: left out

	f.add("loop0", "virtual/block", "7:0", gib, map[string]string{"loop/backing_file": "/run/root.raw\n"})
	for i, name := range []string{"loop1", "ram0", "zram0", "sr0", "fd0", "mtdblock0"} {
		f.add(name, "virtual/block", "7:"+strconv.Itoa(i+1), gib, nil)
	}
	f.add("sdz", "pci0000:00/empty/block", "65:144", 0, map[string]string{"removable": "1\n"})
	f.add("dm-0", "virtual/block", "252:0", gib, map[string]string{"dm/name": "usr\n", "dm/uuid": "CRYPT-VERITY-1\n", "slaves/vda1/x": "", "ro": "1\n"})
	f.add("md127", "virtual/block", "9:127", gib, map[string]string{"md/level": "raid1\n"})
	f.add("bcache0", "virtual/block", "251:0", gib, map[string]string{"slaves/sde/x": ""})

	n := func(name string) string { return f.dev + "/" + name }
	want := []Disk{
		{Node: n("loop0"), Name: "loop0", Major: 7, Minor: 0, Size: gib, SectorSize: 512, Transport: "loop"},
		{Node: n("mmcblk0"), Name: "mmcblk0", Major: 179, Minor: 0, Size: gib, SectorSize: 512, Serial: "0x1a2b3c4d", Model: "SD32G", Transport: "mmc"},
		{Node: n("nvme0n1"), Name: "nvme0n1", Major: 259, Minor: 0, Size: 500 * gib, SectorSize: 4096, Serial: "S64DNF0R123456", WWN: "eui.0025388b710116a1", Model: "Samsung SSD 970 EVO", Transport: "nvme"},
		{Node: n("nvme1n1"), Name: "nvme1n1", Major: 259, Minor: 2, Size: gib, SectorSize: 512, Serial: "deadbeef", Model: "QEMU NVMe Ctrl", Transport: "nvme"},
		{Node: n("sda"), Name: "sda", Major: 8, Minor: 0, Size: 500 * gib, SectorSize: 512, Serial: "S3Z2NB0K000001L", WWN: "0x5002538e40000001", Model: "Samsung SSD 860 EVO 500GB", Transport: "sata"},
		{Node: n("sdb"), Name: "sdb", Major: 8, Minor: 16, Size: gib, SectorSize: 512, Serial: "QM00001", WWN: "0x5000c5000000abcd", Model: "QEMU HARDDISK XYZ 9", Transport: "ata"},
		{Node: n("sdc"), Name: "sdc", Major: 8, Minor: 32, Size: 32 * gib, SectorSize: 512, Serial: "4C530001", Model: "Ultra Fit", Transport: "usb", Removable: true, ReadOnly: true},
		{Node: n("sdd"), Name: "sdd", Major: 8, Minor: 48, Size: 32 * gib, SectorSize: 512, Serial: "WD-0001", Model: "Ultra Fit", Transport: "usb"},
		{Node: n("sde"), Name: "sde", Major: 8, Minor: 64, Size: 4096 * gib, SectorSize: 512, Serial: "ZC1A0001", WWN: "0x5000c500a1b2c3d4", Model: "ST4000NM0025", Transport: "sas"},
		{Node: n("sdf"), Name: "sdf", Major: 8, Minor: 80, Size: gib, SectorSize: 512, Serial: "boot", WWN: "0x00000000000000010000000000000002", Model: "PersistentDisk", Transport: "virtio"},
		{Node: n("sdg"), Name: "sdg", Major: 8, Minor: 96, Size: gib, SectorSize: 512, Transport: "scsi"},
		{Node: n("vda"), Name: "vda", Major: 254, Minor: 0, Size: 8 * gib, SectorSize: 512, Serial: "root-1", Transport: "virtio",
			Holders: []string{"dm-0"}, Links: []string{n("disk/by-id/virtio-root-1"), n("disk/by-path/virtio-pci-0000:00:02.0")}},
		{Node: n("xvda"), Name: "xvda", Major: 202, Minor: 0, Size: gib, SectorSize: 512, Transport: "xen"},
	}
	got, err := f.system().Disks()
	if err != nil {
		t.Fatal(err)
	}
	compareDisks(t, got, want)

	s := f.system()
	s.Stacked = true
	got, err = s.Disks()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range got {
		names = append(names, d.Name)
	}
	if all := strings.Join(names, " "); all != "bcache0 dm-0 loop0 md127 mmcblk0 nvme0n1 nvme1n1 sda sdb sdc sdd sde sdf sdg vda xvda" {
		t.Errorf("with stacked devices: %s", all)
	}
}

func compareDisks(t *testing.T, got, want []Disk) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing %+v", want[i])
		case i >= len(want):
			t.Errorf("too many: %+v", got[i])
		case !reflect.DeepEqual(got[i], want[i]):
			t.Errorf("\n got %+v\nwant %+v", got[i], want[i])
		}
	}
}

// failing is a file system some of whose files cannot be read.
type failing struct {
	fstest.MapFS
	at  string
	err error
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.at {
		return nil, &fs.PathError{Op: "open", Path: name, Err: f.err}
	}
	return f.MapFS.Open(name)
}

func TestDisksCannotLook(t *testing.T) {
	add := func(f *fakeSys) string {
		return f.add("sda", "pci0000:00/0000:00:04.0/virtio2/host8/target8:0:1/8:0:1:0/block", "8:0", 1<<30, nil)
	}
	for _, attribute := range []string{"dev", "size", "queue/logical_block_size"} {
		f := newFake(t)
		delete(f.sys, add(f)+"/"+attribute)
		_, err := f.system().Disks()
		var le *LookError
		if !errors.As(err, &le) || le.Path != "/sys/block/sda/"+attribute || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s missing: %v", attribute, err)
		}
	}
	for attribute, text := range map[string]string{
		"dev": "8", "size": "many", "queue/logical_block_size": "", "ro": "maybe", "removable": "-1", "hidden": "?",
	} {
		f := newFake(t)
		f.file(add(f)+"/"+attribute, text)
		_, err := f.system().Disks()
		var le *LookError
		if !errors.As(err, &le) || le.Path != "/sys/block/sda/"+attribute || !errors.Is(err, strconv.ErrSyntax) {
			t.Errorf("%s is %q: %v", attribute, text, err)
		}
	}
	f := newFake(t)
	f.file(add(f)+"/size", "18446744073709551615")
	if _, err := f.system().Disks(); err == nil || !strings.Contains(err.Error(), "/sys/block/sda/size: 18446744073709551615 sectors") {
		t.Errorf("too large: %v", err)
	}

	// What a device does not know of itself is "", what it cannot be asked is an error.
	for err, lacks := range map[error]bool{syscall.ENXIO: true, syscall.EINVAL: true, syscall.ENODATA: true, syscall.EIO: false, syscall.EACCES: false} {
		for _, attribute := range []string{"device/vpd_pg80", "device/vpd_pg89", "device/wwid", "device/model", "serial"} {
			f := newFake(t)
			add(f)
			s := f.system()
			s.Sys = failing{f.sys, "block/sda/" + attribute, err}
			disks, got := s.Disks()
			var le *LookError
			if lacks && (got != nil || len(disks) != 1) || !lacks && (!errors.As(got, &le) || !errors.Is(got, err) || le.Path != "/sys/block/sda/"+attribute) {
				t.Errorf("%s: %v: %v, %v", attribute, err, disks, got)
			}
		}
	}

	f = newFake(t)
	add(f)
	s := f.system()
	s.Run = failing{f.run, "udev/data/b8:0", syscall.EIO}
	var le *LookError
	if _, err := s.Disks(); !errors.As(err, &le) || !errors.Is(err, syscall.EIO) || le.Path != "/run/udev/data/b8:0" {
		t.Errorf("udev's database: %v", err)
	}
	f.udev("8:0", "E:ID_SERIAL")
	if _, err := f.system().Disks(); !errors.As(err, &le) || le.Path != "/run/udev/data/b8:0" {
		t.Errorf("udev's database: %v", err)
	}

	s = newFake(t).system()
	s.Sys = fstest.MapFS{}
	if _, err := s.Disks(); !errors.As(err, &le) || le.Path != "/sys/block" {
		t.Errorf("no sysfs: %v", err)
	}
}

// A disk that is pulled out between the listing and the look at it is left out.
func TestDisksPulledOut(t *testing.T) {
	f := newFake(t)
	f.add("vda", "virtio1/block", "254:0", 1<<30, nil)
	f.link("block/sda", "../devices/gone/block/sda")
	disks, err := f.system().Disks()
	if err != nil || len(disks) != 1 || disks[0].Name != "vda" {
		t.Errorf("%v, %v", disks, err)
	}
}

func TestParseUdev(t *testing.T) {
	const entry = "S:disk/by-id/virtio-x\nN:vda\nL:100\nI:1234567\nW:5\nE:ID_SERIAL=x=y\nE:ID_EMPTY=\nE:ID_SERIAL=last\nG:systemd\nQ:systemd\nV:1\nX:unknown\n\n"
	got, err := parseUdev(strings.NewReader(entry))
	if want := (map[string]string{"ID_SERIAL": "last", "ID_EMPTY": ""}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for entry, want := range map[string]string{
		"E:ID_SERIAL\n": "without a name or a value", "E:=x\n": "without a name or a value",
		strings.Repeat("S:x\n", maxUdev/4) + "\n": "more than 1048576 bytes",
	} {
		if got, err := parseUdev(strings.NewReader(entry)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, %v", entry, got, err)
		}
	}
}

func FuzzParseUdev(f *testing.F) {
	f.Add("E:ID_MODEL_ENC=QEMU\\x20HARDDISK\nE:ID_SERIAL=x\n")
	f.Add("E:ID_MODEL_ENC=\\x\n")
	f.Fuzz(func(t *testing.T, entry string) {
		props, err := parseUdev(strings.NewReader(entry))
		if err != nil && props != nil {
			t.Error("properties and an error")
		}
		if m := udevModel(props); len(m) > len(entry) {
			t.Errorf("model %q", m)
		}
	})
}

func TestUdevModel(t *testing.T) {
	for encoded, want := range map[string]string{
		`QEMU\x20HARDDISK\x20\x20`: "QEMU HARDDISK", `a\x2fb`: "a/b", `a\x`: `a\x`, `a\xg0`: `a\xg0`, `\x5cx20`: `\x20`, "": "plain_name",
	} {
		if got := udevModel(map[string]string{"ID_MODEL_ENC": encoded, "ID_MODEL": "plain_name"}); got != want {
			t.Errorf("%q: %q, want %q", encoded, got, want)
		}
	}
}
