package lab

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
)

// TestMain goes through sudo where there are guests to run.
func TestMain(m *testing.M) {
	flag.Parse()
	done, code, err := Elevate(context.Background())
	if done {
		os.Exit(code)
	}
	if err != nil {
		// The tests that need no root still tell something; those that do fail with a reason of their own.
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(m.Run())
}

// world is what the tests with guests share: a tree, and testdata/init as an initrd.
type world struct {
	cache          Cache
	tree           Tree
	accel          Accel
	kernel, initrd string
}

// newWorld makes it. Without a cached tree that takes most of a minute.
func newWorld(t *testing.T) world {
	t.Helper()
	ctx := t.Context()
	log := NewLog(t.Output())
	if err := Prepare(ctx, log); err != nil {
		t.Fatal(err)
	}
	cache, err := OpenCache(log)
	if err != nil {
		t.Fatal(err)
	}
	w := world{cache: cache}
	if w.tree, err = cache.Tree(ctx, "trixie"); err != nil {
		t.Fatal(err)
	}
	if w.accel, err = cache.Accel(ctx, w.tree); err != nil {
		t.Fatal(err)
	}
	if w.kernel, err = w.tree.Kernel(); err != nil {
		t.Fatal(err)
	}
	w.initrd = filepath.Join(t.TempDir(), "initrd")
	packInit(t, w)
	return w
}

// packInit writes an initrd of testdata/init and the modules that it loads, in the order of their dependencies.
func packInit(t *testing.T, w world) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "init")
	if err := GoBuild(t.Context(), w.cache.Repository, "./tests/lab/testdata/init", program); err != nil {
		t.Fatal(err)
	}
	release, err := w.tree.Release()
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	records := []cpio.Record{cpio.StaticFile("init", read(program), 0o755), cpio.CharDev("dev/console", 0o600, 5, 1)}
	for i, module := range []string{
		"net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net", "drivers/block/virtio_blk",
		"drivers/firmware/qemu_fw_cfg", "lib/libcrc32c", "fs/erofs/erofs",
	} {
		file := read(filepath.Join(w.tree.Dir, "usr/lib/modules", release, "kernel", module+".ko.xz"))
		records = append(records, cpio.StaticFile(fmt.Sprintf("modules/%02d-%s.ko.xz", i, filepath.Base(module)), file, 0o644))
	}
	f, err := os.Create(w.initrd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := cpio.Newc.Writer(f)
	if err := errors.Join(cpio.WriteRecordsAndDirs(out, records), cpio.WriteTrailer(out)); err != nil {
		t.Fatal(err)
	}
}

const quick = "console=ttyS0 panic=-1 tsc=reliable no_timer_check random.trust_cpu=on net.ifnames=0 "

// TestGuestHardware boots past the firmware and has the guest say what it was given.
func TestGuestHardware(t *testing.T) {
	w := newWorld(t)
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		fmt.Fprint(out, "from the host")
	}))
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	file := filepath.Join(t.TempDir(), "a,b")
	if err := os.WriteFile(file, []byte("through fw_cfg"), 0o600); err != nil {
		t.Fatal(err)
	}
	guest := Guest{Dir: filepath.Join(t.TempDir(), "guest"), Accel: w.accel, TPM: true, MemoryMiB: 512,
		Disks: []Disk{{Serial: "first", Size: 1 << 20}, {Serial: "second", Size: 1 << 20}}}
	streamed := 0
	out, err := guest.Boot(t.Context(), Boot{
		Kernel: w.kernel, Initrd: w.initrd, Append: quick + "url=http://" + HostAddress + ":" + port + "/hello",
		FwCfg:       map[string]string{"opt/org.pilotlight.lab/text": file},
		Credentials: map[string][]byte{"lab.secret": {0, 1, 2}, "lab.text": []byte("x, y")},
		Network:     true,
		Clock:       time.Date(2031, 5, 4, 3, 2, 1, 0, time.UTC),
		Deadline:    2 * time.Minute,
		OnLine:      func(Line) { streamed++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if line, ok := out.Seen(regexp.MustCompile("^init: here")); ok {
		t.Logf("kernel to init %.1f s, to power-off %.1f s", line.At.Seconds(), out.Elapsed.Seconds())
	}
	var got struct {
		TPM      bool
		PCRs     int
		FwCfg    map[string]string
		SMBIOS   []string
		Disks    map[string]string
		Firmware bool
		Answer   string
		Year     int
		Problems []string
	}
	if err := json.Unmarshal(out.Witness, &got); err != nil {
		t.Fatalf("%v: %q", err, out.Witness)
	}
	slices.Sort(got.SMBIOS)
	var r Report
	r.Add("end", out.End, PoweredOff)
	r.Add("problems", got.Problems, []string(nil))
	r.Add("TPM", got.TPM, true)
	r.Add("PCRs", got.PCRs, 24)
	r.Add("fw_cfg", got.FwCfg["opt/org.pilotlight.lab/text"], "through fw_cfg")
	r.Add("SMBIOS", got.SMBIOS, []string{"io.systemd.credential.binary:lab.secret=AAEC", "io.systemd.credential.binary:lab.text=eCwgeQ=="})
	r.Add("disks", got.Disks, map[string]string{"vda": "first", "vdb": "second"})
	r.Add("UEFI", got.Firmware, false)
	r.Add("network", got.Answer, "from the host")
	r.Add("year", got.Year, 2031)
	r.Add("lines streamed", streamed, len(out.Console))
	wantAll(t, r)
	select {
	case path := <-asked:
		if path != "/hello" {
			t.Errorf("the server was asked for %q", path)
		}
	default:
		t.Error("the server was not asked")
	}
}

// TestGuestEnds holds the ways in which a boot ends apart.
func TestGuestEnds(t *testing.T) {
	w := newWorld(t)
	prompt := regexp.MustCompile(`hanging> $`) // a prompt has no line break
	tests := []struct {
		name     string
		word     string
		until    *regexp.Regexp
		cut      *regexp.Regexp
		deadline time.Duration
		end      End
		cause    error
	}{
		{name: "power off", word: "", end: PoweredOff},
		{name: "reboot", word: "reboot", end: Rebooted},
		{name: "until", word: "hang", until: prompt, end: Stopped},
		{name: "cut", word: "hang", cut: prompt, end: PulledPlug},
		{name: "never said", word: "", until: prompt, end: PoweredOff, cause: errNoCause},
		{name: "panic", word: "panic panic=0", end: Panicked, cause: errNoCause},
		{name: "deadline", word: "hang", deadline: 3 * time.Second, end: Overdue, cause: errNoCause},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			guest := Guest{Dir: t.TempDir(), Accel: w.accel, MemoryMiB: 512, CPUs: 1, Disks: []Disk{{Serial: "disk", Size: 1 << 20}}}
			deadline := test.deadline
			if deadline == 0 {
				deadline = time.Minute
			}
			out, err := guest.Boot(t.Context(), Boot{Kernel: w.kernel, Initrd: w.initrd, Append: quick + test.word, Until: test.until, Cut: test.cut, Deadline: deadline})
			if out.End != test.end {
				t.Errorf("end %q, want %q (%v)", out.End, test.end, err)
			}
			boot := (*BootError)(nil)
			if got := errors.As(err, &boot); got != (test.cause != nil) {
				t.Fatalf("error %v", err)
			}
			if boot != nil && boot.End != test.end {
				t.Errorf("the error says %q", boot.End)
			}
		})
	}
	t.Run("bad argument", func(t *testing.T) {
		out, err := Guest{Dir: t.TempDir(), Accel: w.accel}.Boot(t.Context(), Boot{Kernel: "/does/not/exist", Deadline: time.Minute})
		program := (*ProgramError)(nil)
		if !errors.As(err, &program) || program.Program != qemu || !strings.Contains(program.Stderr, "/does/not/exist") {
			t.Errorf("error %v, want QEMU's own words", err)
		}
		if out.End != Died || out.Elapsed > 20*time.Second {
			t.Errorf("%s after %s", out.End, out.Elapsed)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		started := func(Line) { cancel() }
		_, err := Guest{Dir: t.TempDir(), Accel: w.accel}.Boot(ctx, Boot{Kernel: w.kernel, Initrd: w.initrd, Append: quick + "hang", OnLine: started, Deadline: time.Minute})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want the context's", err)
		}
	})
}

// errNoCause marks a row that wants a BootError.
var errNoCause = errors.New("a boot error")

// TestGuestDisk boots a whole disk through the firmware, with the stand-in for an engine, and reads what the witness says.
func TestGuestDisk(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	uki := ukify(t, w, quick+"stage2 systemd.show_status=yes")
	usr, err := w.cache.Usr(ctx, w.tree)
	if err != nil {
		t.Fatal(err)
	}
	image, err := w.cache.Image(ctx, usr, uki)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.VerifyUsr(ctx, w.tree, image.RootHash); err != nil {
		t.Error(err)
	}
	var program *ProgramError
	if err := image.VerifyUsr(ctx, w.tree, strings.Repeat("0", 64)); !errors.As(err, &program) || program.Program != "veritysetup" {
		t.Errorf("a wrong root hash gives %v, want veritysetup's error", err)
	}
	guest := Guest{Dir: filepath.Join(t.TempDir(), "guest"), Accel: w.accel, UEFI: true, TPM: true, Disks: []Disk{{Serial: "system", Base: image.Path}}}
	out, err := guest.Boot(ctx, Boot{Credentials: map[string][]byte{"lab.text": []byte("abc")}, Deadline: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	facts, err := out.Facts()
	if err != nil {
		t.Fatalf("%v\n%s", err, &BootError{End: out.End, Last: out.Console})
	}
	for _, step := range []string{"EFI stub|Linux version", "init: here", "systemd .* running in system mode", "Reached target multi-user"} {
		line, ok := out.Seen(regexp.MustCompile(step))
		t.Logf("%-30s %6.1f s %v", step, line.At.Seconds(), ok)
	}
	t.Logf("to power-off %.1f s, witness wrote %d bytes, problems %v", out.Elapsed.Seconds(), len(out.Witness), facts.Problems)
	r := Compare(facts, Expected{
		State:            "running",
		NoFailed:         true,
		NoNetwork:        true,
		MachineID:        "0123456789abcdef0123456789abcdef",
		Serial:           "system",
		Partitions:       []string{"esp", "usr", "usr-verity"},
		Mounts:           map[string]string{"/": "tmpfs", "/usr": "erofs"},
		Credentials:      map[string]string{"lab.text": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		NotOnCommandLine: []string{image.RootHash, "usrhash"},
		ActiveUnits:      []string{"multi-user.target", "dbus.service"},
	})
	_, link := facts.EtcFile("/etc/os-release")
	r.Add("/etc/os-release", link, true)
	nsswitch, _ := facts.EtcFile("/etc/nsswitch.conf")
	r.Add("/etc/nsswitch.conf", nsswitch.Mode+" "+nsswitch.UID+" "+nsswitch.GID, "0644 0 0")
	r.Add("PCR 12 in sha256", len(facts.PCR12["sha256"]), 64)
	usrPartition, _ := facts.Partition("usr")
	r.Add("usr's UUID", strings.ReplaceAll(usrPartition.PartUUID, "-", ""), image.RootHash[:32])
	r.Add("usr's file system", usrPartition.FSType, "erofs")
	r.Add("UKI on the ESP", slices.ContainsFunc(facts.ESP, func(f File) bool { return f.Path == "/EFI/BOOT/BOOTX64.EFI" && f.Type == "f" }), true)
	r.Add("stage 2 has a start time", facts.Times["UserspaceTimestampMonotonic"] > 0, true)
	// The stand-in opens no verity and measures nothing: the witness must say that these are missing.
	r.Add("no report", facts.Problems["report"] != "", true)
	r.Add("no device-mapper", len(facts.Mapper), 0)
	wantAll(t, r)

	// What the host sees of the same disk.
	raw, err := guest.Raw(ctx, "system")
	if err != nil {
		t.Fatal(err)
	}
	esp, err := image.Partition("esp")
	if err != nil {
		t.Fatal(err)
	}
	names, err := FAT{File: raw, Offset: esp.Offset}.List(ctx)
	if err != nil || !slices.Contains(names, "/EFI/BOOT/BOOTX64.EFI") {
		t.Errorf("ESP holds %q, %v", names, err)
	}
}

// ukify makes a UKI of the tree's kernel and the stand-in initrd with the tree's ukify.
func ukify(t *testing.T, w world, cmdline string) string {
	t.Helper()
	work := t.TempDir()
	if err := errors.Join(copyFile(w.kernel, filepath.Join(work, "linux")), copyFile(w.initrd, filepath.Join(work, "initrd"))); err != nil {
		t.Fatal(err)
	}
	_, err := w.tree.run(t.Context(), work, "ukify", "build", "--linux=/mnt/linux", "--initrd=/mnt/initrd", "--cmdline="+cmdline, "--os-release=ID=lab\n", "--output=/mnt/uki.efi")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(work, "uki.efi")
}

// wantAll fails the test for each wrong check.
func wantAll(t *testing.T, r Report) {
	t.Helper()
	for _, c := range r.Wrong() {
		t.Error(c)
	}
}

// TestReproducible makes the same disk twice, in caches that know nothing of each other.
func TestReproducible(t *testing.T) {
	w := newWorld(t)
	uki := filepath.Join(t.TempDir(), "uki.efi")
	if err := os.WriteFile(uki, []byte("not a program, but a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	var digests, hashes []string
	for range 2 {
		cache := w.cache
		var err error
		// On the cache's own file system: a /usr is made of hard links into the tree.
		if cache.Dir, err = os.MkdirTemp(w.cache.Dir, "test."); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(cache.Dir)
		usr, err := cache.Usr(t.Context(), w.tree)
		if err != nil {
			t.Fatal(err)
		}
		image, err := cache.Image(t.Context(), usr, uki)
		if err != nil {
			t.Fatal(err)
		}
		// What lies behind the last partition is a hole of four GiB.
		last := image.Partitions[len(image.Partitions)-1]
		written := filepath.Join(t.TempDir(), "written")
		if err := copyRange(image.Path, 0, last.Offset+last.Size, written); err != nil {
			t.Fatal(err)
		}
		digest, err := fileDigest(written)
		if err != nil {
			t.Fatal(err)
		}
		digests, hashes = append(digests, digest), append(hashes, image.RootHash)
	}
	var r Report
	r.Add("root hash", hashes[1], hashes[0])
	r.Add("whole disk", digests[1], digests[0])
	wantAll(t, r)
}
