package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
)

const testKernel = "6.12.0-test"

// files is a tree to be: content by path; "-> " begins the target of a link.
type files map[string]string

func (f files) write(t *testing.T, dir string) string {
	t.Helper()
	for name, content := range f {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, at)
		} else if strings.Contains(name, "bin/") {
			err = os.WriteFile(at, []byte(content), 0o755)
		} else {
			err = os.WriteFile(at, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pack compresses as the file's name asks.
func pack(t *testing.T, name, content string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch path.Ext(name) {
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	default:
		return content
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// distribution is a tree with all that the base must have, as small as can be.
func distribution(t *testing.T) files {
	t.Helper()
	f := files{
		"bin": "-> usr/bin", "sbin": "-> usr/sbin", "lib": "-> usr/lib", "lib64": "-> usr/lib64",
		"usr/lib64/ld-linux-x86-64.so.2":    "-> ../lib/x86_64-linux-gnu/ld.so",
		testTriplet + "ld.so":               library(),
		testTriplet + "libc.so.6":           library(),
		"usr/lib/os-release":                "ID=test\nPRETTY_NAME=\"A test\"\n",
		"etc/passwd":                        "root:x:0:0::/root:/bin/sh\nsystemd-network:x:997:998:Network:/:/usr/sbin/nologin\nadmin:x:1000:1000::/home/admin:/bin/sh\n",
		"etc/group":                         "root:x:0:\ndisk:x:6:\nsystemd-network:x:998:\nadmin:x:1000:\n",
		"etc/shadow":                        "root:$y$secret:1::::::\n",
		unitDir + "/sysinit.target.wants/a": "-> ../systemd-journald.service",
	}
	for _, i := range basePrograms {
		if i.presence == must {
			name := i.name
			if !path.IsAbs(name) {
				name = "/usr/bin/" + name
			}
			f[name[1:]] = program()
		}
	}
	for _, i := range baseGenerators {
		if i.presence == must {
			f["usr/lib/systemd/system-generators/"+i.name] = program()
		}
	}
	for _, i := range baseLibraries {
		if i.presence == must {
			f[testTriplet+i.name] = library("libc.so.6")
		}
	}
	for dir, list := range map[string][]item{unitDir: baseUnits, "usr/lib/udev/rules.d": baseRules, "usr/lib/tmpfiles.d": baseTmpfiles, "": baseFiles} {
		for _, i := range list {
			if i.presence == must {
				f[strings.TrimPrefix(path.Join(dir, i.name), "/")] = "# " + i.name + "\n"
			}
		}
	}
	delete(f, "usr/lib/systemd/systemd-udevd")
	f["usr/lib/systemd/systemd-udevd"] = "-> ../../bin/udevadm"
	f["usr/lib/udev/rules.d/50-udev-default.rules"] = `SUBSYSTEM=="block", GROUP="disk"` + "\n" + `KERNEL=="x", GROUP="nowhere"` + "\n"
	f[unitDir+"/systemd-networkd.service"] = "[Service]\nUser=systemd-network\n"
	f[unitDir+"/systemd-networkd.service.d/tree.conf"] = "[Service]\n"
	f[unitDir+"/sysinit.target.wants/systemd-journald.service"] = "-> ../systemd-journald.service"
	f[unitDir+"/sysinit.target.wants/not-shipped.service"] = "-> ../not-shipped.service"
	delete(f, unitDir+"/sysinit.target.wants/a")

	modules := "usr/lib/modules/" + testKernel + "/"
	f[modules+"modules.dep"] = "kernel/fs/overlay.ko.xz:\n" +
		"kernel/drivers/md/dm-verity.ko.zst: kernel/drivers/md/dm-mod.ko.gz\n" +
		"kernel/drivers/md/dm-mod.ko.gz:\n" +
		"kernel/crypto/xts.ko.xz:\nkernel/crypto/ecb.ko.xz:\nkernel/crypto/crc.ko:\nkernel/drivers/unwanted.ko.xz:\n"
	for line := range strings.Lines(f[modules+"modules.dep"]) {
		name, _, _ := strings.Cut(line, ":")
		f[modules+name] = pack(t, name, "module "+moduleName(name))
	}
	f[modules+"modules.softdep"] = "softdep xts pre: ecb sum-crc nobody\n"
	f[modules+"modules.alias"] = "alias fs-overlay overlay\nalias sum-crc crc\nalias pci:v1 unwanted\n"
	f[modules+"modules.symbols"] = "alias symbol:dm_get dm_mod\n"
	f[modules+"modules.devname"] = "dm_mod mapper/control c10:236\nunwanted u c10:1\n"
	f[modules+"modules.builtin"] = "kernel/fs/ext4/ext4.ko\n"
	f[modules+"modules.builtin.bin"] = "builtin index"
	return f
}

// contents is what a small pilotlight would need.
func contents(t *testing.T) Contents {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "pilotlight")
	if err := os.WriteFile(binary, elfFile{}.bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return Contents{
		Binary:    binary,
		Files:     []File{{unitPath("pilotlight-fetch.service"), 0o644, []byte("[Service]\nExecStart=/usr/bin/pilotlight fetch\n")}},
		Links:     []Link{{unitPath("initrd.target.requires/pilotlight-fetch.service"), "../pilotlight-fetch.service"}},
		Programs:  []string{"systemd-repart", "/usr/lib/systemd/systemd-veritysetup"},
		Libraries: []string{"libcryptsetup.so.12"},
		Modules:   []string{"dm-verity", "ext4"},
	}
}

func unitPath(name string) string { return "/" + unitDir + "/" + name }

// unpack reads an initrd of one zstd stream with the readers of other people.
func unpack(t *testing.T, initrd []byte) map[string]cpio.Record {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(initrd), zstd.IgnoreChecksum(false))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	plain, err := io.ReadAll(z)
	// What follows the frame is padding, which no zstd decoder knows.
	if err != nil && !errors.Is(err, zstd.ErrMagicMismatch) {
		t.Fatal(err)
	}
	return records(t, plain)
}

func records(t *testing.T, plain []byte) map[string]cpio.Record {
	t.Helper()
	list, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]cpio.Record{}
	for _, r := range list {
		if up := path.Dir(r.Name); up != "." {
			if seen[up].Mode&cpio.S_IFMT != cpio.S_IFDIR {
				t.Errorf("%s comes before its directory", r.Name)
			}
		}
		if _, ok := seen[r.Name]; ok {
			t.Errorf("%s is there twice", r.Name)
		}
		if r.UID != 0 || r.GID != 0 || r.MTime != 0 || r.Dev != 0 {
			t.Errorf("%s: owner, time or device is not zero: %v", r.Name, r.Info)
		}
		seen[r.Name] = r
	}
	return seen
}

func content(t *testing.T, r cpio.Record) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func build(t *testing.T, b Build) ([]byte, Summary) {
	t.Helper()
	var out bytes.Buffer
	s, err := b.Write(&out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), s
}

func TestBuild(t *testing.T) {
	f := distribution(t)
	f["usr/sbin/extra"] = "#!/bin/sh\n"
	f["opt/lib/libodd.so.1"] = library()
	f["etc/ld.so.conf"] = "include /etc/ld.so.conf.d/*.conf\n"
	f["etc/ld.so.conf.d/odd.conf"] = "/opt/lib # odd\n"
	f["usr/bin/odd"] = program("libodd.so.1")
	f["ca.pem"] = authority(t, "of the test")
	dir := f.write(t, t.TempDir())
	var told []string
	initrd, s := build(t, Build{
		Tree: dir, Contents: contents(t), CA: []string{filepath.Join(dir, "ca.pem")},
		ExtraPaths: []string{"/sbin/extra", "/usr/bin/odd"}, ExtraModules: []string{"xts"},
		ExtraFiles: []File{{"/etc/motd", 0o600, []byte("hello")}}, ExtraLinks: []Link{{"/etc/link", "motd"}},
		Progress: func(what string) { told = append(told, what) },
	})
	got := unpack(t, initrd)

	modules := "usr/lib/modules/" + testKernel + "/"
	for name, want := range map[string]string{
		"init":                              "usr/lib/systemd/systemd",
		"bin":                               "usr/bin",
		"lib64":                             "usr/lib64",
		"usr/lib64/ld-linux-x86-64.so.2":    "../lib/x86_64-linux-gnu/ld.so",
		"usr/lib/systemd/systemd-udevd":     "../../bin/udevadm",
		"etc/initrd-release":                f["usr/lib/os-release"],
		"etc/machine-id":                    "",
		"etc/os-release":                    "initrd-release",
		"etc/nsswitch.conf":                 nsswitch,
		"etc/passwd":                        "root:!*:0:0::/root:/usr/sbin/nologin\nsystemd-network:!*:997:998:Network:/:/usr/sbin/nologin\nnobody:!*:65534:65534::/:/usr/sbin/nologin\n",
		"etc/group":                         "root:!*:0:\ndisk:!*:6:\nsystemd-network:!*:998:\n",
		"etc/ssl/certs/ca-certificates.crt": f["ca.pem"],
		"etc/motd":                          "hello",
		"etc/link":                          "motd",
		"usr/bin/pilotlight":                string(elfFile{}.bytes()),
		"usr/sbin/extra":                    "#!/bin/sh\n",
		testTriplet + "libodd.so.1":         "/opt/lib/libodd.so.1",
		"opt/lib/libodd.so.1":               library(),
		unitDir + "/systemd-networkd.service.d/tree.conf":                             "[Service]\n",
		unitDir + "/sysinit.target.wants/systemd-journald.service":                    "../systemd-journald.service",
		unitDir + "/network-online.target.wants/systemd-networkd-wait-online.service": "../systemd-networkd-wait-online.service",
		unitDir + "/initrd.target.requires/pilotlight-fetch.service":                  "../pilotlight-fetch.service",
		modules + "kernel/drivers/md/dm-verity.ko":                                    "module dm_verity",
		modules + "kernel/drivers/md/dm-mod.ko":                                       "module dm_mod",
		modules + "kernel/fs/overlay.ko":                                              "module overlay",
		modules + "kernel/crypto/ecb.ko":                                              "module ecb",
		modules + "kernel/crypto/crc.ko":                                              "module crc",
		modules + "modules.dep":                                                       "kernel/fs/overlay.ko:\nkernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-mod.ko:\nkernel/crypto/xts.ko:\nkernel/crypto/ecb.ko:\nkernel/crypto/crc.ko:\n",
		modules + "modules.alias":                                                     "alias fs-overlay overlay\nalias sum-crc crc\n",
		modules + "modules.devname":                                                   "dm_mod mapper/control c10:236\n",
		modules + "modules.builtin.bin":                                               "builtin index",
	} {
		r, ok := got[name]
		if !ok {
			t.Errorf("%s is missing", name)
		} else if c := content(t, r); c != want {
			t.Errorf("%s is %q, want %q", name, c, want)
		}
	}
	for _, name := range []string{
		"etc/shadow", "etc/hostname", "etc/ld.so.cache", modules + "kernel/drivers/unwanted.ko",
		unitDir + "/sysinit.target.wants/not-shipped.service", unitDir + "/sysinit.target.wants/systemd-udev-load-credentials.service",
	} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is there", name)
		}
	}
	for name, want := range map[string]uint64{
		"tmp": cpio.S_IFDIR | cpio.S_ISVTX | 0o777, "root": cpio.S_IFDIR | 0o700, "usr/bin/pilotlight": cpio.S_IFREG | 0o755,
		"usr/bin/systemctl": cpio.S_IFREG | 0o755, "etc/motd": cpio.S_IFREG | 0o600, "init": cpio.S_IFLNK | 0o777, "sysroot": cpio.S_IFDIR | 0o755,
	} {
		if got[name].Mode != want {
			t.Errorf("%s has mode %o, want %o", name, got[name].Mode, want)
		}
	}

	if s.Kernel != testKernel || s.Files != len(got) || s.Packed != int64(len(initrd)) || len(initrd)%512 != 0 {
		t.Errorf("summary %+v of %d entries in %d bytes", s, len(got), len(initrd))
	}
	if want := []string{"overlay", "dm_verity", "dm_mod", "xts", "ecb", "crc"}; !slices.Equal(s.Modules, want) {
		t.Errorf("modules %v, want %v", s.Modules, want)
	}
	if !slices.Contains(s.Libraries, "/"+testTriplet+"libcryptsetup.so.12") || !slices.Contains(s.Libraries, testLoader) {
		t.Errorf("libraries %v", s.Libraries)
	}
	if !slices.Contains(s.Without, "module nvme") || !slices.Contains(s.Without, "program /usr/lib/udev/ata_id (by-id links of SATA disks)") {
		t.Errorf("without %v", s.Without)
	}
	if len(told) == 0 || told[len(told)-1] != "packing" {
		t.Errorf("progress %q", told)
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	f := distribution(t)
	c := contents(t)
	one := f.write(t, t.TempDir())
	other := f.write(t, t.TempDir())
	old := time.Unix(1, 0)
	err := filepath.WalkDir(other, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		return os.Chtimes(name, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := build(t, Build{Tree: one, Contents: c})
	b, _ := build(t, Build{Tree: other, Contents: c})
	if !bytes.Equal(a, b) {
		t.Error("the same tree elsewhere gives other bytes")
	}
	fast, _ := build(t, Build{Tree: one, Contents: c, Level: 1})
	if len(fast) < len(a) {
		t.Errorf("level 1 gives %d bytes, the densest %d", len(fast), len(a))
	}
	if !maps.Equal(contentsOf(t, unpack(t, fast)), contentsOf(t, unpack(t, a))) {
		t.Error("the level changes the contents")
	}
}

func contentsOf(t *testing.T, rs map[string]cpio.Record) map[string]string {
	m := make(map[string]string, len(rs))
	for name, r := range rs {
		m[name] = content(t, r)
	}
	return m
}

func TestBuildNamesAllThatIsMissing(t *testing.T) {
	f := distribution(t)
	delete(f, "usr/bin/systemd-repart")
	delete(f, testTriplet+"libkmod.so.2")
	delete(f, unitDir+"/initrd.target")
	f["usr/bin/journalctl"] = program("libgone.so.1")
	f["usr/bin/mount"] = program("libgone.so.1")
	c := contents(t)
	c.Programs = []string{"mkfs.xfs"}
	c.Modules = []string{"dm-verity", "xfs"}
	_, err := Build{Tree: f.write(t, t.TempDir()), Contents: c}.Write(io.Discard)
	var lacks *TreeError
	if !errors.As(err, &lacks) {
		t.Fatalf("got %v, want a TreeError", err)
	}
	want := []Missing{
		{KindLibrary, "libgone.so.1", "/usr/bin/journalctl"},
		{KindLibrary, "libgone.so.1", "/usr/bin/mount"},
		{KindProgram, "systemd-repart", ""},
		{KindUnit, "initrd.target", "the default target"},
		{KindLibrary, "libkmod.so.2", "udev loads modules"},
		{KindProgram, "mkfs.xfs", "a kind of step"},
		{KindModule, "xfs", "kernel " + testKernel},
	}
	if !slices.Equal(lacks.Missing, want) {
		t.Errorf("missing:\n%v\nwant:\n%v", lacks.Missing, want)
	}
}

func TestBuildErrors(t *testing.T) {
	dynamic := filepath.Join(t.TempDir(), "dynamic")
	if err := os.WriteFile(dynamic, []byte(program()), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		tree func(files)
		b    func(*Build)
		want string
	}{
		{"two kernels", func(f files) { f["usr/lib/modules/7/modules.dep"] = "" }, nil, "several kernels, name one: " + testKernel + ", 7"},
		{"another kernel", nil, func(b *Build) { b.Kernel = "5" }, `no kernel "5", only ` + testKernel},
		{"no kernel", func(f files) { delete(f, "usr/lib/modules/"+testKernel+"/modules.dep") }, nil, "no kernel version with a modules.dep"},
		{"binary is dynamic", nil, func(b *Build) { b.Contents.Binary = dynamic }, "linked dynamically"},
		{"two of a path", nil, func(b *Build) { b.ExtraFiles = []File{{"/etc/machine-id", 0o444, []byte("x")}} }, "/etc/machine-id: wanted twice, with different contents"},
		{"file below a link", nil, func(b *Build) { b.ExtraFiles = []File{{"/bin/x", 0o644, nil}} }, "/bin/x: /bin is not a directory"},
		{"relative path", nil, func(b *Build) { b.ExtraFiles = []File{{"etc/x", 0o644, nil}} }, "etc/x: not an absolute, clean path"},
		{"path that climbs", nil, func(b *Build) { b.ExtraLinks = []Link{{"/etc/../x", "y"}} }, "/etc/../x: not an absolute, clean path"},
		{"set-user-ID", nil, func(b *Build) { b.ExtraFiles = []File{{"/etc/x", 0o755 | fs.ModeSetuid, nil}} }, "is more than permissions"},
		{"CA is none", nil, func(b *Build) { b.CA = []string{dynamic} }, dynamic + ": no certificate in PEM"},
		{"module is not packed so", func(f files) { f["usr/lib/modules/"+testKernel+"/kernel/fs/overlay.ko.xz"] = "plain" }, nil, "overlay.ko.xz: "},
		{"no os-release", func(f files) { delete(f, "usr/lib/os-release") }, nil, "os-release"},
		{"extra is gone", nil, func(b *Build) { b.ExtraPaths = []string{"/usr/bin/none"} }, "lacks file /usr/bin/none (asked for)"},
		{"index without its files", func(f files) { delete(f, "usr/lib/modules/"+testKernel+"/modules.builtin.bin") }, nil, "modules.builtin.bin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := distribution(t)
			if c.tree != nil {
				c.tree(f)
			}
			b := Build{Tree: f.write(t, t.TempDir()), Contents: contents(t)}
			if c.b != nil {
				c.b(&b)
			}
			_, err := b.Write(io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
