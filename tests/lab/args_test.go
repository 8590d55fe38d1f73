package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGuestArgs looks at single options of QEMU's argument vector; that QEMU takes them is what the tests with guests show.
func TestGuestArgs(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	for _, name := range []string{"one.qcow2", "two.raw"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	guest := Guest{Dir: dir, TPM: true, Disks: []Disk{{Serial: "one"}, {Serial: "two"}}, UUID: "u-u", Serial: "a,b", MAC: "52:54:00:00:00:01",
		SMBIOS: map[int]map[string]string{0: {"vendor": "Amazon EC2"}, 1: {"manufacturer": "Amazon EC2"}}}
	args, err := guest.args(Boot{
		Kernel: "/k", Initrd: "/i", Append: "a b", Network: true, Clock: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		FwCfg: map[string]string{"opt/x": "/f,g"}, Credentials: map[string][]byte{"secret": []byte("hunter2")},
	}, run)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"-accel", "tcg,thread=multi"}, {"-m", "2048"}, {"-smp", "2"}, {"-rtc", "base=2030-01-02T03:04:05"},
		{"-kernel", "/k"}, {"-initrd", "/i"}, {"-append", "a b"}, {"-fw_cfg", "name=opt/x,file=/f,,g"},
		{"-smbios", "type=1,manufacturer=Amazon EC2,serial=a,,b,uuid=u-u"}, {"-device", "virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:00:00:01"},
		{"-smbios", "type=0,vendor=Amazon EC2"}, {"-netdev", "user,id=net0"},
		{"-drive", "if=none,id=disk0,format=qcow2,cache=unsafe,discard=unmap,file=" + filepath.Join(dir, "one.qcow2")},
		{"-drive", "if=none,id=disk1,format=raw,cache=unsafe,discard=unmap,file=" + filepath.Join(dir, "two.raw")},
		{"-device", "virtio-blk-pci,drive=disk1,serial=two,bootindex=2"}, {"-device", "tpm-tis,tpmdev=tpm0"},
		{"-smbios", "type=11,path=" + filepath.Join(run, "credential-0")},
	} {
		if !slices.ContainsFunc(indexes(args), func(i int) bool { return slices.Equal(args[i:min(i+2, len(args))], want) }) {
			t.Errorf("no %q in %q", want, args)
		}
	}
	if text := strings.Join(args, " "); strings.Contains(text, "hunter2") || strings.Contains(text, "aHVudGVyMg") || strings.Contains(text, "pflash") {
		t.Errorf("a credential, or firmware, among the arguments: %s", text)
	}
	raw, err := os.ReadFile(filepath.Join(run, "credential-0"))
	if err != nil || string(raw) != "io.systemd.credential.binary:secret=aHVudGVyMg==" {
		t.Errorf("credential file %q, %v", raw, err)
	}
}

func indexes(list []string) []int {
	var all []int
	for i := range list {
		all = append(all, i)
	}
	return all
}

func TestDiskSerial(t *testing.T) {
	for _, serial := range []string{"", "a b", "../x", strings.Repeat("x", 21), "a,b"} {
		err := Guest{Dir: t.TempDir(), Disks: []Disk{{Serial: serial, Size: 1 << 20}}}.assemble(t.Context())
		if err == nil || !strings.Contains(err.Error(), "disk serial") {
			t.Errorf("serial %q: %v", serial, err)
		}
	}
}

func TestOutcomeFacts(t *testing.T) {
	facts, err := Outcome{Witness: []byte(`{"State":"running"}`)}.Facts()
	if err != nil || facts.State != "running" {
		t.Errorf("got %+v, %v", facts, err)
	}
	if _, err := (Outcome{End: Rebooted}).Facts(); err == nil || !strings.Contains(err.Error(), "rebooted without a word") {
		t.Errorf("silence: %v", err)
	}
	if _, err := (Outcome{Witness: []byte(`{"State":"run`)}).Facts(); err == nil || !strings.Contains(err.Error(), "JSON") {
		t.Errorf("half a document: %v", err)
	}
}

func TestDocument(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                       "",
		"\x1b[2JBdsDxe: {x}\r\nEFI stub\r\n":     "",
		"BdsDxe\r\n{\"a\":1}\r\n":                "{\"a\":1}",
		"{\"old\":1}\n{\"new\":1}\r\nreboot\r\n": "{\"new\":1}",
		"{\"cut of":                              "{\"cut of",
	} {
		if got := string(document([]byte(raw))); got != want {
			t.Errorf("%q gives %q, want %q", raw, got, want)
		}
	}
}

// TestEmulatorsFault: a boot is begun again only where nothing of ours has run yet.
func TestEmulatorsFault(t *testing.T) {
	const oops, panicked = "[    3.624720] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI", "[    5.666499] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---"
	for _, c := range []struct {
		console []string
		want    bool
	}{
		{[]string{oops, panicked}, true},
		{[]string{panicked}, false},
		{[]string{"pilotlight[251]: pilotlight: fetch: …", oops, panicked}, false},
		{nil, false},
	} {
		var console []Line
		for _, text := range c.console {
			console = append(console, Line{Text: text})
		}
		if got := emulatorsFault(console); got != c.want {
			t.Errorf("%q: %v", c.console, got)
		}
	}
}
