package premise_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pilotlight/initrd"
	"pilotlight/tests/lab"
	"pilotlight/tests/trace"
)

// probes are calls that look like a change and are none.
var probes = []*regexp.Regexp{
	// mdadm asks so whether a device is a partition: no disk has a partition of that number, and how the call fails is the answer.
	regexp.MustCompile(`^ioctl\(.*, BLKPG, \{op=BLKPG_DEL_PARTITION, .*pno=1073741824, .* = -1 `),
	// udevadm settle asks udevd whether it is there, and systemctl asks the manager.
	regexp.MustCompile(`^connect\(.*, \{sa_family=AF_UNIX, sun_path="/run/(udev/control|systemd/private|dbus/system_bus_socket)"\}, `),
	// libdevmapper opens its control node for writing whatever it does; what it does are ioctls, which are judged by themselves.
	regexp.MustCompile(`^openat\(AT_FDCWD<[^>]*>, "/dev/mapper/control", O_RDWR\) = `),
}

// TestProgramsThatOnlyRead: each program that a look may ask, of the systemd that guests have and in the forms in which it is asked, made no
// system call that could have changed anything. What it answers, and whether it knows an answer, is of no matter here.
func TestProgramsThatOnlyRead(t *testing.T) {
	cache, err := lab.OpenCache(lab.NewLog(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := cache.Volumes(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	for name, text := range map[string]string{
		"disk": "", "50-var.conf": "[Partition]\nType=var\nFormat=ext4\nSizeMinBytes=64M\n", "60-home.conf": "[Partition]\nType=home\nFormat=ext4\nEncrypt=key-file\nSizeMinBytes=64M\n",
	} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(work, "disk"), 512<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", filepath.Join(work, "disk")).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	label := exec.Command("sfdisk", "--quiet", node)
	label.Stdin = strings.NewReader("label: gpt\nsize=32MiB, name=somebody\n")
	if out, err := label.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	repart := []string{"--dry-run=yes", "--no-pager", "--json=short", "--definitions=/mnt", "--root=/", "--seed=7c0f3b52-5d1e-4c0a-9b9e-3f6a1d2c4e58", "--tpm2-pcrlock=", "--key-file=/dev/null"}
	for _, q := range []initrd.Query{
		{Program: "systemd-repart", Args: append(repart, "--empty=allow", node)},
		{Program: "systemd-repart", Args: append(repart, "--empty=force", node)},
		{Program: "systemd-repart", Args: append(repart, "--empty=allow", "--factory-reset=yes", node)},
		{Program: "dmsetup", Args: []string{"table", "usr"}},
		{Program: "dmsetup", Args: []string{"status", "usr"}},
		{Program: "mdadm", Args: []string{"--examine", "--export", node}},
		{Program: "mdadm", Args: []string{"--detail", "--export", node}},
		{Program: "udevadm", Args: []string{"settle", "--timeout=0"}},
		{Program: "systemctl", Args: []string{"is-enabled", "--root=/", "dbus.service"}},
		{Program: "systemctl", Args: []string{"show", "--no-pager", "--property=Id", "*"}},
		{Program: "systemd-creds", Args: []string{"decrypt", "--name=x", "-", "-"}},
	} {
		argv, err := q.Argv()
		if err != nil {
			t.Error(err)
			continue
		}
		// An exit code other than 0 is an answer; that it did not run is none.
		command := tree.Command(t.Context(), work, argv[0], argv[1:]...)
		said, l, failed := trace.Run{Own: t.TempDir(), Begin: "/" + q.Program, Writable: true}.Do(t.Context(), command.Args...)
		if len(l.Started()) == 0 {
			t.Errorf("%s did not run: %v", strings.Join(argv, " "), failed)
		}
		if q.Program == "systemd-repart" && (failed != nil || !strings.Contains(said, `"activity":"create"`)) {
			t.Errorf("%s: %v: %s", strings.Join(argv, " "), failed, said)
		}
		l.Own, l.Harmless = "", probes
		for _, c := range l.Changes() {
			t.Errorf("%s: %s", strings.Join(argv, " "), c)
		}
	}
}
