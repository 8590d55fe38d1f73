package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// lockedHost is a machine with volumes by the path of their device.
type lockedHost struct {
	*Machine
	uuids    map[string]string
	volatile bool
}

type lockedLook struct {
	look
	*lockedHost
}

func (l *lockedHost) Look(ctx context.Context) Look { return lockedLook{look{ctx, l.Machine}, l} }

func (l lockedLook) Node(path string) (string, error) {
	if _, ok := l.uuids[path]; !ok {
		return "", fs.ErrNotExist
	}
	return path, nil
}

func (l lockedLook) LUKS(node string) (*disk.LUKS, error) {
	return &disk.LUKS{Version: 2, UUID: l.uuids[node]}, nil
}

func (l lockedLook) Volatile(string, string) (bool, error) { return l.volatile, nil }

func TestCrypttab(t *testing.T) {
	m, root := testMachine(t)
	h := &lockedHost{Machine: m, uuids: map[string]string{"/dev/a": "u-a", "/dev/b": "u-b"}}
	file := filepath.Join(root, "etc/crypttab")
	wish := Crypttab{Root: root, Volumes: []CrypttabLine{
		{Name: "a", Device: "/dev/a", Key: "/etc/luks/a"},
		{Name: "b", Device: "/dev/b", Key: "none", Options: []string{"_netdev", "x-initrd.attach"}},
	}}
	run := func() []Outcome {
		t.Helper()
		out, err := Run(t.Context(), h, []Step{wish}, Apply, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const ours = "a UUID=u-a /etc/luks/a luks\nb UUID=u-b none luks,_netdev,x-initrd.attach\n"
	run()
	if got := contentOf(t, file); got != ours {
		t.Errorf("%q", got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if out := run(); out[0].Changed {
		t.Error("written again")
	}
	// A volume that was made again has another UUID; what is somebody else's stays.
	write(t, file, "# of the image\nother UUID=x none\nb UUID=old none luks\na UUID=u-a /etc/luks/a luks\nb UUID=older none")
	run()
	if got := contentOf(t, file); got != "# of the image\nother UUID=x none\nb UUID=u-b none luks,_netdev,x-initrd.attach\na UUID=u-a /etc/luks/a luks\n" {
		t.Errorf("%q", got)
	}
	delete(h.uuids, "/dev/b")
	if _, err := Run(t.Context(), h, []Step{wish}, Apply, nil); !errors.Is(err, ErrStillAfter) {
		t.Error(err)
	}
}

func TestKeyFileIsForRootAlone(t *testing.T) {
	m, root := testMachine(t)
	h := &lockedHost{Machine: m}
	file := filepath.Join(root, "etc/luks/v")
	generated := KeyFile{Root: root, Name: "v"}
	if _, err := Run(t.Context(), h, []Step{generated}, Apply, nil); !errors.Is(err, ErrStillAfter) {
		t.Errorf("of a volume that this boot did not make: %v", err)
	}
	if err := (Volume{Name: "v"}).handOver(m, resource.NewSecret("canary")); err != nil {
		t.Fatal(err)
	}
	write(t, file, "of a boot before") // as of one that did not come to its end
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := Run(t.Context(), h, []Step{generated}, Apply, nil)
		if err != nil || strings.Contains(fmt.Sprint(out), "canary") {
			t.Fatalf("%v %v", out, err)
		}
		for name, mode := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700, filepath.Join(m.Run, keyDir): 0o700} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v %v", name, info, err)
			}
		}
		if got := contentOf(t, file); got != "canary" {
			t.Errorf("%q", got)
		}
	}
	// What another boot left is written anew, of the config's key.
	other, _ := testMachine(t)
	h.Machine = other
	write(t, file, "of a boot before")
	if _, err := Run(t.Context(), h, []Step{KeyFile{Root: root, Name: "v", Key: inline("said")}}, Apply, nil); err != nil || contentOf(t, file) != "said" {
		t.Errorf("%q %v", contentOf(t, file), err)
	}
	h.volatile = true
	if _, err := Run(t.Context(), h, []Step{KeyFile{Root: root, Name: "w"}}, Apply, nil); !errors.Is(err, ErrKeyLost) {
		t.Error(err)
	}
	if err := other.Melt(); err != nil {
		t.Fatal(err)
	}
	if err := m.Melt(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(m.Run, keyDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key outlives the initrd")
	}
}
