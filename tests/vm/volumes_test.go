package vm_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// volumesStage is the shared stage with another tree: one that has mdadm and clevis.
func volumesStage(t *testing.T) *scene.Stage {
	t.Helper()
	s := *stage
	s.Dir = filepath.Join(stage.Dir, "volumes")
	s.Initrd, s.UKI = filepath.Join(s.Dir, "initrd.img"), filepath.Join(s.Dir, "linux.efi")
	err := os.MkdirAll(s.Dir, 0o755)
	if err == nil {
		s.Tree, err = s.Cache.Volumes(t.Context(), "trixie")
	}
	if err == nil {
		s.Kernel, err = s.Tree.Kernel()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"initrd", "build", "--quiet", "--level", "3", "--root", s.Tree.Dir, "--output", s.Initrd, "--with", "raid", "--with", "clevis"},
		{"initrd", "uki", "--root", s.Tree.Dir, "--kernel", s.Kernel, "--initrd", s.Initrd, "--cmdline", scene.Cmdline, "--output", s.UKI},
	} {
		if _, err := s.Pilotlight(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	usr, err := s.Cache.Usr(t.Context(), s.Tree)
	if err == nil {
		s.Image, err = s.Cache.Image(t.Context(), usr, s.UKI)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// keyServer is a tang of the tree, which serves one connection on its standard input and output, behind a listener on this
// machine. It gives the port and the thumbprint of the key that it signs with.
func keyServer(t *testing.T, tree lab.Tree) (port int, thumbprint string) {
	t.Helper()
	work := t.TempDir()
	if err := os.Mkdir(filepath.Join(work, "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := tree.Command(t.Context(), work, "/usr/libexec/tangd-keygen", "/mnt/db").CombinedOutput(); err != nil {
		t.Fatalf("tangd-keygen: %v\n%s", err, out)
	}
	const show = `for k in /mnt/db/*.jwk; do if jose jwk use -i $k -r -u verify -o /dev/null; then jose jwk thp -i $k -a S256; fi; done`
	out, err := tree.Command(t.Context(), work, "sh", "-ec", show).Output()
	if err != nil {
		t.Fatalf("jose: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f, err := c.(*net.TCPConn).File()
				if err != nil {
					return
				}
				defer f.Close()
				cmd := tree.Command(ctx, work, "/usr/libexec/tangd", "/mnt/db")
				cmd.Stdin, cmd.Stdout = f, f
				_ = cmd.Run() // whoever is not answered says so
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		err := l.Close()
		<-done
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l.Addr().(*net.TCPAddr).Port, strings.TrimSpace(string(out))
}

// quickly makes a key derivation cheap: what is emulated would take minutes for another.
var quickly = []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}

// check writes to each volume where it did not yet, or into its file system, and tells of each that holds what was written.
const check = `[Unit]
Description=Proof that the volumes hold what they held
After=cryptsetup.target remote-cryptsetup.target
Wants=remote-cryptsetup.target
[Service]
Type=oneshot
RemainAfterExit=yes
ImportCredential=recovery.enrolled
ExecStart=/bin/sh -ec 'mkdir -p /etc/check; for v in %s; do \
  d=/dev/mapper/$$v; test -b $$d; m=/srv/$$v/marker; \
  if mountpoint -q /srv/$$v; then if test -e $$m; then echo again; else echo written >$$m; echo first; fi >/etc/check/$$v; continue; fi; \
  have=$$(head -c 16 $$d | tr -d "\\\\0"); \
  case $$have in "written to "*) echo again >/etc/check/$$v;; \
  *) echo "written to $$v" | head -c 16 | dd of=$$d conv=notrunc,fsync status=none; echo first >/etc/check/$$v;; esac; done; \
  k=$$CREDENTIALS_DIRECTORY/recovery.enrolled; test ! -e $$k || { \
  cryptsetup open --test-passphrase --key-file $$k /dev/disk/by-id/virtio-d4; echo opens >/etc/check/recovery; }'
[Install]
WantedBy=multi-user.target
`

// TestVolumes makes an array, and upon it and other disks volumes that are opened in every way there is: by a key file
// of the config, by a generated one, by the TPM and by a key server through clevis, by the TPM through systemd. The plug is pulled while a
// volume is bound. The next boots open all of them, and they hold what they held.
func TestVolumes(t *testing.T) {
	t.Parallel()
	s := volumesStage(t)
	port, thumbprint := keyServer(t, s.Tree)
	c := s.UserConfig()
	names := []string{"onraid", "generated", "bytpm", "bytang", "enrolled", "pinned"}
	luks := func(name, device string, more map[string]any) map[string]any {
		entry := map[string]any{"name": name, "device": device, "options": quickly}
		for k, v := range more {
			entry[k] = v
		}
		return entry
	}
	disk := func(name string) string { return "/dev/disk/by-id/virtio-" + name }
	tang := map[string]any{"url": fmt.Sprintf("http://%s:%d", lab.HostAddress, port), "thumbprint": thumbprint}
	c["ignition"].(map[string]any)["version"] = "3.5.0"
	storage := c["storage"].(map[string]any)
	storage["raid"] = []any{map[string]any{"name": "data", "level": "raid1", "devices": []string{disk("r1"), disk("r2")}}}
	storage["luks"] = []any{
		luks(names[0], "/dev/md/data", map[string]any{"keyFile": map[string]any{"source": "data:," + scene.Secret}, "label": "raided"}),
		luks(names[1], disk("d1"), map[string]any{"discard": true}),
		luks(names[2], disk("d2"), map[string]any{"clevis": map[string]any{"tpm2": true}}),
		luks(names[3], disk("d3"), map[string]any{"clevis": map[string]any{"tang": []any{tang}}}),
		luks(names[4], disk("d4"), nil),
		luks(names[5], disk("d5"), nil),
	}
	// What is mounted, the initrd opens at each boot.
	storage["filesystems"] = []any{
		map[string]any{"device": "/dev/mapper/" + names[0], "format": "ext4", "path": "/srv/" + names[0]},
		map[string]any{"device": "/dev/mapper/" + names[2], "format": "ext4", "path": "/srv/" + names[2]},
	}
	storage["files"] = append(storage["files"].([]any), map[string]any{
		"path": "/etc/systemd/network/wired.network", "contents": map[string]any{"source": "data:,%5BMatch%5D%0AType=ether%0A%5BNetwork%5D%0ADHCP=yes%0A"},
	})
	c["systemd"] = map[string]any{"units": []any{
		map[string]any{"name": "check.service", "enabled": true, "contents": fmt.Sprintf(check, strings.Join(names, " "))},
		map[string]any{"name": "systemd-networkd.service", "enabled": true},
		map[string]any{"name": "mdmonitor.service", "mask": true}, // it wants somebody to send mail to
	}}
	c.Section()["luks"] = []any{
		map[string]any{"name": names[4], "tpm2": map[string]any{"pcrs": []int{7}}, "recovery": map[string]any{"credential": "recovery.enrolled"}},
		map[string]any{"name": names[5], "tpm2": map[string]any{"pcrs": []int{}, "pin": map[string]any{"inline": scene.Secret}}, "recovery": "none"},
	}

	g := s.Guest("testvolumes")
	if err := os.RemoveAll(g.Dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"r1", "r2", "d1", "d2", "d3", "d4", "d5"} {
		g.Disks = append(g.Disks, lab.Disk{Serial: name, Size: 64 << 20})
	}
	power := func(what string, b lab.Boot) lab.Outcome {
		b.Network = true
		return boot(t, g, b, what)
	}
	cut := local(t, c, "pilotlight.onfailure", "poweroff")
	cut.Cut = regexp.MustCompile(`clevis runs since`)
	power("the plug is pulled while clevis binds", cut)

	mounted := map[string]string{"/srv/" + names[0]: "ext4", "/srv/" + names[2]: "ext4"}
	checked := func(word string) map[string]string {
		sums := map[string]string{}
		for _, name := range names {
			sums["/etc/check/"+name] = scene.Sum(word + "\n")
		}
		sums["/etc/check/recovery"] = scene.Sum("opens\n")
		return sums
	}
	out := power("volumes are made", local(t, c, "pilotlight.onfailure", "poweroff"))
	facts, report := up(t, out, lab.Expected{State: "running", NoFailed: true, EtcDigests: checked("first"), Mounts: mounted}, "interrupted")
	for _, name := range names {
		if table := facts.Mapper[name].Table; !strings.Contains(table, " crypt aes-xts-plain64 ") || strings.Contains(table, "allow_discards") != (name == "generated") {
			t.Errorf("%s: %q", name, table)
		}
	}
	if facts.Credentials["recovery.enrolled"] == "" {
		t.Errorf("no recovery key among %v", facts.Credentials)
	}
	for _, want := range []lab.File{
		{Path: "/etc/crypttab", Type: "f", Mode: "0600"}, {Path: "/etc/luks", Type: "d", Mode: "0700"},
		{Path: "/etc/luks/onraid", Type: "f", Mode: "0600"}, {Path: "/etc/luks/generated", Type: "f", Mode: "0600"},
	} {
		if f, ok := facts.EtcFile(want.Path); !ok || f.Type != want.Type || f.Mode != want.Mode || f.UID != "0" {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	for _, path := range []string{"/etc/luks/bytpm", "/etc/luks/bytang", "/etc/luks/enrolled", "/etc/luks/pinned"} {
		if _, ok := facts.EtcFile(path); ok {
			t.Errorf("%s is there, and nobody needs it", path)
		}
	}
	for _, again := range changes(report) {
		if strings.Contains(again, "make the RAID array") {
			t.Errorf("an array that was whole was made again: %s", again)
		}
	}

	out = power("volumes are opened", local(t, c, "pilotlight.onfailure", "poweroff"))
	want := checked("again")
	facts, report = up(t, out, lab.Expected{State: "running", NoFailed: true, EtcDigests: want, Mounts: mounted}, "later")
	if facts.Credentials["recovery.enrolled"] != "" {
		t.Error("the recovery key is there still")
	}
	var disks []string
	for _, c := range changes(report) {
		if strings.HasPrefix(c, "disks: ") {
			disks = append(disks, c)
		}
	}
	if got := strings.Join(disks, "\n"); len(disks) != 4 || !strings.Contains(disks[0], "put the RAID array /dev/md/data together") ||
		!strings.Contains(got, " as /dev/mapper/onraid") || !strings.Contains(got, " as /dev/mapper/bytpm by clevis") || !strings.Contains(got, " as /dev/mapper/pinned") {
		t.Errorf("%q", disks)
	}
}
