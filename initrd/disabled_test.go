package initrd

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDisabledIsSystemctls holds what is left of the links against what the real
// systemctl leaves.
func TestDisabledIsSystemctls(t *testing.T) {
	build := func() string {
		root := t.TempDir()
		for name, text := range map[string]string{
			"usr/lib/systemd/system/a.service":         "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\nAlso=a.socket  b@one.service\n",
			"usr/lib/systemd/system/a.socket":          "[Socket]\nListenStream=1\n[Install]\nWantedBy=sockets.target\n",
			"usr/lib/systemd/system/b@.service":        "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
			"usr/lib/systemd/system/c.service":         "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\nRequiredBy=x.target\nAlias=dbus-c.service\n",
			"etc/systemd/system/d.service":             "[Service]\nExecStart=/bin/true\n[Unit]\nAlso=c.service\n[Install]\nUpheldBy=x.target\n",
			"usr/lib/systemd/system/multi-user.target": "[Unit]\n",
		} {
			write(t, filepath.Join(root, name), text)
		}
		for name, target := range map[string]string{
			"multi-user.target.wants/a.service": "/usr/lib/systemd/system/a.service", "sockets.target.wants/a.socket": "/usr/lib/systemd/system/a.socket",
			"multi-user.target.wants/b@one.service": "/usr/lib/systemd/system/b@.service", "multi-user.target.wants/b@two.service": "/usr/lib/systemd/system/b@.service",
			"multi-user.target.wants/c.service": "/usr/lib/systemd/system/c.service", "x.target.requires/c.service": "/usr/lib/systemd/system/c.service",
			"dbus-c.service": "/usr/lib/systemd/system/c.service", "x.target.upholds/d.service": "/etc/systemd/system/d.service", "masked.service": "/dev/null",
		} {
			at := filepath.Join(root, "etc/systemd/system", name)
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			link(t, target, at)
		}
		return root
	}
	for _, unit := range []string{"a.service", "a.socket", "b@.service", "b@two.service", "b@none.service", "c.service", "d.service", "masked.service", "never.service"} {
		t.Run(unit, func(t *testing.T) {
			ours, theirs := build(), build()
			m, _ := testMachine(t)
			settle(t, m, Disabled{Root: ours, Unit: unit})
			// As Ignition does it: one that is not enabled is left alone.
			if exec.Command("systemctl", "--root="+theirs, "is-enabled", unit).Run() == nil {
				out, err := exec.Command("systemctl", "--root="+theirs, "disable", unit).CombinedOutput()
				if err != nil {
					t.Fatalf("%v %s", err, out)
				}
				t.Logf("%s", out)
			}
			got, want := accountsSeen(t, ours), accountsSeen(t, theirs)
			if !maps.Equal(got, want) {
				sameTree(t, got, want)
			}
		})
	}
}
