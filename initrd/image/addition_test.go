package image

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// foreign is an initrd of another maker: systemd and a shell, and nothing that is for pilotlight alone. Its /usr/sbin
// is a link, its directories have modes of their own.
func foreign(t *testing.T) files {
	t.Helper()
	f := distribution(t)
	for name := range f {
		keep := strings.HasPrefix(name, "usr/lib/systemd/systemd") && !strings.Contains(name, "network") || strings.Contains(name, "lib64") ||
			strings.HasSuffix(name, "libc.so.6") || strings.HasSuffix(name, "ld.so") || name == "etc/passwd" || name == "etc/group" || name == "lib" || name == "bin"
		if !keep {
			delete(f, name)
		}
	}
	f["etc/initrd-release"] = ""
	f["usr/sbin"] = "-> bin"
	f["usr/bin/sh"] = program()
	f["etc/passwd"] = "root:x:0:0::/root:/bin/sh\n"
	f["etc/group"] = "root:x:0:\n"
	f["usr/lib/modules/"+testKernel+"/modules.dep"] = "kernel/drivers/block/disk.ko.xz:\nkernel/drivers/md/dm-mod.ko.xz:\n"
	f["usr/lib/modules/"+testKernel+"/modules.builtin"] = ""
	f["usr/lib/modules/"+testKernel+"/kernel/drivers/block/disk.ko.xz"] = "theirs"
	f["usr/lib/modules/"+testKernel+"/kernel/drivers/md/dm-mod.ko.xz"] = "theirs"
	return f
}

// origin is the tree that it was made from.
func origin(t *testing.T) files {
	t.Helper()
	f := distribution(t)
	f["etc/mke2fs.conf"] = "[defaults]\n"
	f["usr/sbin/mkfs.ext4"] = "-> mke2fs"
	f["usr/sbin/mke2fs"] = program("libodd.so.1")
	delete(f, "usr/bin/mkfs.ext4")
	f["opt/lib/libodd.so.1"] = library()
	f["etc/ld.so.conf"] = "/opt/lib\n"
	f[unitDir+"/systemd-networkd.service"] = "[Service]\nUser=systemd-network\nExecStart=!!/usr/lib/systemd/systemd-networkd\n"
	f[unitDir+"/sockets.target.wants/systemd-pcrextend.socket"] = "-> ../systemd-pcrextend.socket"
	dep := "usr/lib/modules/" + testKernel + "/modules.dep"
	f[dep] = "kernel/drivers/block/disk.ko.xz:\n" + f[dep]
	f["usr/lib/modules/"+testKernel+"/kernel/drivers/block/disk.ko.xz"] = pack(t, "disk.ko.xz", "module disk")
	return f
}

func TestAdditionBringsWhatLacks(t *testing.T) {
	c := contents(t)
	theirs := initrd(t, foreign(t))
	missing, err := Check(bytes.NewReader(theirs), c)
	if err != nil || len(missing) < 20 {
		t.Fatalf("missing before: %v, %v", missing, err)
	}
	a := Addition{Initrd: bytes.NewReader(theirs), Tree: origin(t).write(t, t.TempDir()), Contents: c}
	var joined bytes.Buffer
	brought, err := a.Join(&joined)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(joined.Bytes(), theirs) {
		t.Error("the initrd itself is not in front")
	}
	if missing, err := Check(bytes.NewReader(joined.Bytes()), c); err != nil || missing != nil {
		t.Errorf("missing after: %v, %v", missing, err)
	}
	addition := joined.Bytes()[(len(theirs)+511)&^511:]
	got := records(t, addition)
	modules := "usr/lib/modules/" + testKernel + "/"
	for name, want := range map[string]string{
		"usr/bin/mke2fs":                                           program("libodd.so.1"), // behind the initrd's link, with the library and its place
		"usr/bin/mkfs.ext4":                                        "mke2fs",
		"opt/lib/libodd.so.1":                                      library(),
		testTriplet + "libodd.so.1":                                "/opt/lib/libodd.so.1",
		unitDir + "/systemd-networkd.service":                      "[Service]\nUser=systemd-network\nExecStart=!!/usr/lib/systemd/systemd-networkd\n",
		unitDir + "/systemd-networkd.service.d/tree.conf":          "[Service]\n",
		unitDir + "/sockets.target.wants/systemd-pcrextend.socket": "../systemd-pcrextend.socket",
		"etc/passwd":                                               "root:x:0:0::/root:/bin/sh\nsystemd-network:!*:997:998:Network:/:/usr/sbin/nologin\n",
		"etc/group":                                                "root:x:0:\nsystemd-network:!*:998:\n",
		// The new ones plain, the initrd's as they are.
		modules + "kernel/drivers/md/dm-verity.ko": "module dm_verity",
		modules + "modules.dep":                    "kernel/drivers/block/disk.ko.xz:\nkernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\n",
	} {
		r, ok := got[name]
		if !ok {
			t.Errorf("%s is missing", name)
		} else if c := content(t, r); c != want {
			t.Errorf("%s is %q, want %q", name, c, want)
		}
	}
	for _, name := range []string{"usr/sbin", "bin", "lib", testTriplet + "libc.so.6", testTriplet + "ld.so", "usr/lib/systemd/systemd", modules + "kernel/drivers/md/dm-mod.ko", modules + "kernel/drivers/md/dm-mod.ko.xz"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is the initrd's, and is written over", name)
		}
	}
	if !slices.Contains(brought, "/usr/sbin/mke2fs") || slices.Contains(brought, "/usr/bin/pilotlight") {
		t.Errorf("brought %v", brought)
	}

	// A second time nothing is brought: pilotlight's own are replaced.
	brought, err = Addition{Initrd: bytes.NewReader(joined.Bytes()), Tree: a.Tree, Contents: c}.Write(io.Discard)
	if err != nil || len(brought) > 0 {
		t.Errorf("second time: brought %v, %v", brought, err)
	}
}

// TestAdditionKeepsModes: the kernel sets the mode of a directory that an archive names again.
func TestAdditionKeepsModes(t *testing.T) {
	p := newPayload()
	for name, e := range map[string]entry{
		"usr": {mode: fs.ModeDir | 0o755}, "usr/bin": {mode: fs.ModeDir | 0o711}, "etc": {mode: fs.ModeDir | fs.ModeSticky | 0o750}, "etc/ssl": {mode: fs.ModeSymlink | 0o777, data: []byte("pki")}, "etc/pki": {mode: fs.ModeDir | 0o700},
	} {
		if err := p.put(name, e); err != nil {
			t.Fatal(err)
		}
	}
	var theirs, out bytes.Buffer
	writeBare(t, &theirs, p)
	dir := t.TempDir()
	ca := path.Join(files{"ca.pem": authority(t, "one")}.write(t, dir), "ca.pem")
	if _, err := (Addition{Initrd: &theirs, Contents: contents(t), CA: []string{ca}}).Write(&out); err != nil {
		t.Fatal(err)
	}
	got := records(t, out.Bytes())
	for name, mode := range map[string]uint64{
		"usr/bin": cpio.S_IFDIR | 0o711, "etc": cpio.S_IFDIR | cpio.S_ISVTX | 0o750, "etc/pki": cpio.S_IFDIR | 0o700,
		"etc/pki/certs": cpio.S_IFDIR | 0o755, "etc/pki/certs/pilotlight.crt": cpio.S_IFREG | 0o644,
	} {
		if got[name].Mode != mode {
			t.Errorf("%s has mode %o, want %o", name, got[name].Mode, mode)
		}
	}
	if _, ok := got["etc/ssl"]; ok {
		t.Error("the link /etc/ssl is written over")
	}
}

func TestAdditionErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		initrd func(files)
		tree   func(files)
		want   string
	}{
		{"another C library", func(f files) { f[testTriplet+"libc.so.6"] = library("libold.so.1") }, nil,
			"/" + testTriplet + "libc.so.6: the initrd's own is another than that of "},
		{"the tree lacks it too", nil, func(f files) { delete(f, "usr/bin/systemd-repart") }, "lacks program systemd-repart"},
		{"and one of its libraries", nil, func(f files) { f["usr/bin/systemd-repart"] = program("libnone.so.1") }, "lacks library libnone.so.1 (/usr/bin/systemd-repart)"},
		{"no initrd of systemd", func(f files) { delete(f, "etc/initrd-release") }, nil, "lacks file /etc/initrd-release"},
		{"another kernel", func(f files) { f["usr/lib/modules/5/modules.dep"] = "" }, nil, "no modules of the initrd's kernel 5, only of " + testKernel},
		{"a module of its own", func(f files) {
			f["usr/lib/modules/"+testKernel+"/modules.dep"] += "extra/odd.ko:\n"
			f["usr/lib/modules/"+testKernel+"/extra/odd.ko"] = "theirs"
		}, nil, "/extra/odd.ko: is not in "},
		{"a number that is taken", func(f files) { f["etc/passwd"] += "other:x:997:997::/:/bin/sh\n" }, nil, "other has in the initrd the number 997, which is systemd-network's in the tree"},
		{"a file for a directory", func(f files) { f["usr/lib/udev"] = "" }, nil, "/usr/lib/udev is not a directory in the initrd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			theirs, tree := foreign(t), origin(t)
			if c.initrd != nil {
				c.initrd(theirs)
			}
			if c.tree != nil {
				c.tree(tree)
			}
			var out bytes.Buffer
			_, err := Addition{Initrd: bytes.NewReader(initrd(t, theirs)), Tree: tree.write(t, t.TempDir()), Contents: contents(t)}.Join(&out)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written all the same", out.Len())
			}
		})
	}
	var mismatch *MismatchError
	theirs := foreign(t)
	theirs["usr/lib64/ld-linux-x86-64.so.2"] = library("libold.so.1")
	_, err := Addition{Initrd: bytes.NewReader(initrd(t, theirs)), Tree: origin(t).write(t, t.TempDir()), Contents: contents(t)}.Write(io.Discard)
	if !errors.As(err, &mismatch) || mismatch.Path != testLoader {
		t.Errorf("another loader: %v", err)
	}
	_, err = Addition{Initrd: strings.NewReader("no initrd"), Contents: contents(t)}.Join(io.Discard)
	var archive *ArchiveError
	if !errors.As(err, &archive) {
		t.Errorf("no initrd: %v", err)
	}
	if _, err := (Addition{Initrd: bytes.NewReader(initrd(t, foreign(t))), Contents: contents(t)}).Join(fullDisk{}); !errors.Is(err, errFull) {
		t.Errorf("full disk: %v", err)
	}
}

// TestAdditionIsDeterministic, also in what it says.
func TestAdditionIsDeterministic(t *testing.T) {
	theirs, tree := initrd(t, foreign(t)), origin(t).write(t, t.TempDir())
	var first []byte
	var said []string
	for range 3 {
		var out bytes.Buffer
		brought, err := Addition{Initrd: bytes.NewReader(theirs), Tree: tree, Contents: contents(t)}.Write(&out)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first, said = out.Bytes(), brought
		}
		if !bytes.Equal(first, out.Bytes()) || !slices.Equal(said, brought) {
			t.Error("the same initrd and tree give another addition")
		}
	}
	if names := slices.Collect(maps.Keys(records(t, first))); len(names) < 60 {
		t.Errorf("only %d entries", len(names))
	}
}

// TestSameBuild: what stripped a file has left its build ID.
func TestSameBuild(t *testing.T) {
	a, b := library("libc.so.6"), library("libm.so.6")
	if !sameBuild([]byte(a), []byte(a)) || sameBuild([]byte(a), []byte(b)) || sameBuild([]byte("x"), []byte("y")) {
		t.Error("files without a build ID are not told by their bytes")
	}
	one, other := elfFile{note: "id 1", runpath: "/debug"}.bytes(), elfFile{note: "id 2"}.bytes()
	stripped := elfFile{note: "id 1"}.bytes()
	if !sameBuild(one, stripped) || sameBuild(one, other) {
		t.Error("files with a build ID are not told by it")
	}
}
