package trace_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pilotlight/stages"
	"pilotlight/tests/trace"
)

const repository = "../.."

// built is the program, made once.
func built(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "pilotlight")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/pilotlight")
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// target is a root with something that is so already, something else, and a directory where a file shall be.
func target(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nweb:x:80:80::/:/bin/false\n", "etc/group": "root:x:0:\nadm:x:4:\nwheel:x:10:\nweb:x:80:\nusers:x:100:\n", "etc/shadow": "root:*:::::::\n",
		"etc/same": "same\n", "etc/other": "old\n", "etc/owned": "x", "etc/lost/inner": "x\n", "etc/selinux/config": "SELINUX=permissive\nSELINUXTYPE=default\n",
		"etc/selinux/default/contexts/files/file_contexts": "/.* system_u:object_r:etc_t:s0\n", "usr/sbin/setfiles": "#!/bin/sh\nexit 1\n",
		"etc/machine-id": "uninitialized\n", "etc/fstab": "# none\n", "usr/lib/systemd/system/present.service": "[Service]\nExecStart=/bin/true\n",
	} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// rich is a config of all that can be planned below a directory; %[1]s is a server.
const rich = `{"ignition": {"version": "3.5.0", "config": {"merge": [{"source": "%[1]s/child.ign"}]}},
 "storage": {
  "directories": [{"path": "/srv/web", "user": {"name": "web"}}, {"path": "/etc/other.d", "mode": 448}],
  "files": [
   {"path": "/etc/same", "overwrite": true, "contents": {"source": "data:,same%%0A"}},
   {"path": "/etc/other", "overwrite": true, "contents": {"source": "data:,new%%0A"}},
   {"path": "/etc/lost", "overwrite": true, "contents": {"source": "data:,x"}},
   {"path": "/etc/remote", "contents": {"source": "%[1]s/remote"}},
   {"path": "/etc/packed", "contents": {"source": "%[1]s/packed", "compression": "gzip"}, "append": [{"source": "%[1]s/more"}]},
   {"path": "/etc/owned", "overwrite": true, "user": {"name": "nobody-knows"}, "contents": {"source": "data:,x"}}],
  "links": [{"path": "/etc/soft", "target": "same"}, {"path": "/etc/hard", "target": "/etc/same", "hard": true}]},
 "systemd": {"units": [
  {"name": "new.service", "enabled": true, "contents": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n", "dropins": [{"name": "10.conf", "contents": "[Unit]\n"}]},
  {"name": "gone.service", "mask": true}]}%[2]s}`

// section is our part; %s is a disk.
const section = `, "pilotlight": {"version": "1", "policy": {"disks": "wipe"},
  "network": [{"name": "10-lan.network", "contents": {"inline": "[Match]\nType=ether\n"}}],
  "repart": [{"name": "system", "device": "%s", "empty": "force", "definitions": [
    {"name": "50-root.conf", "contents": {"inline": "[Partition]\nType=root\nFormat=ext4\nSizeMinBytes=64M\nSizeMaxBytes=64M\n"}},
    {"name": "60-var.conf", "contents": {"inline": "[Partition]\nType=var\nLabel=var\nFormat=ext4\nEncrypt=key-file\nSizeMinBytes=64M\nSizeMaxBytes=64M\nMountPoint=/var\n"}}], "keyFile": {"inline": "k"}}],
  "verity": [{"name": "usr", "rootHash": "` + hash + `"}],
  "etc": {"sysusers": [{"name": "web.conf", "contents": {"inline": "u web\n"}}], "tmpfiles": [{"name": "web.conf", "contents": {"inline": "d /srv/web\n"}}],
    "credentials": [{"name": "one", "contents": {"inline": "x"}}, {"name": "two", "scope": "initrd", "encrypted": true, "contents": {"inline": "x"}}]}}`

const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// loop attaches a file of zeroes, and gives the device.
func loop(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 512<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "--quiet", file)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return node
}

// stageNames are all stages.
func stageNames() string {
	var names []string
	for _, s := range stages.All {
		names = append(names, s.Name)
	}
	return strings.Join(names, ",")
}

// planned runs a plan with all mounts read-only, and holds that it changed nothing.
func planned(t *testing.T, program, config, root, only, server string) string {
	t.Helper()
	own := t.TempDir()
	file := filepath.Join(t.TempDir(), "config.ign")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	argv := []string{program, "plan", "--config", file, "--root", root, "--all"}
	if only != "" {
		argv = append(argv, "--stage", only)
	}
	r := trace.Run{Own: own, Begin: "/pilotlight", Servers: []string{"htons(" + server + ")"}}
	out, l, err := r.Do(t.Context(), argv...)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, c := range l.Changes() {
		t.Errorf("a plan may change nothing: %s", c)
	}
	for _, p := range l.Started()[1:] {
		if name := filepath.Base(p); !slices.Contains(asked, name) {
			t.Errorf("a plan started %s", p)
		}
	}
	left, err := os.ReadDir(own)
	if err != nil || len(left) > 1 { // strace's own
		t.Errorf("left behind: %v, %v", left, err)
	}
	return out
}

// asked are the programs that may be asked, and what they start themselves.
var asked = []string{"systemd-repart", "dmsetup", "udevadm", "systemctl", "systemd-creds", "systemd-analyze", "blkid", "mdadm"}

// TestPlanChangesNothing, whatever it is a plan of: no system call of it, or of a program that it asks, could.
func TestPlanChangesNothing(t *testing.T) {
	program := built(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/child.ign" {
			fmt.Fprint(w, `{"ignition":{"version":"3.1.0"},"storage":{"files":[{"path":"/etc/child","contents":{"source":"data:,x"}}]}}`)
			return
		}
		fmt.Fprint(w, "x")
	}))
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	root := target(t)
	t.Run("a directory", func(t *testing.T) {
		out := planned(t, program, fmt.Sprintf(rich, s.URL, ""), root, "", port)
		for _, want := range []string{
			"  = file /etc/same\n", "  ~ file /etc/other\n", "  - file /etc/lost\n", "DESTROYS the directory /etc/lost with all that is in it", "  + file /etc/child\n", "  + file /etc/remote ", "  > file /etc/owned (after",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("nothing of the plan says %q:\n%s", want, out)
			}
		}
	})
	t.Run("a machine", func(t *testing.T) {
		node := loop(t, "label: gpt\nsize=32MiB, name=somebody\n")
		out := planned(t, program, fmt.Sprintf(rich, s.URL, fmt.Sprintf(section, node)), root, stageNames(), port)
		for _, s := range stages.All {
			if !strings.Contains("\n"+out, "\n"+s.Name+": ") {
				t.Errorf("nothing of the plan is of %s:\n%s", s.Name, out)
			}
		}
		if !strings.Contains(out, "DESTROYS everything on "+node) {
			t.Errorf("the plan says nothing of what is lost on %s:\n%s", node, out)
		}
	})
	t.Run("disks", func(t *testing.T) {
		node, other := loop(t, "label: gpt\nsize=32MiB, name=somebody\n"), loop(t, "label: gpt\n")
		out := planned(t, program, fmt.Sprintf(disks, node, other), root, "disks", port)
		for _, want := range []string{"DESTROYS ", node, other, "ext4"} {
			if !strings.Contains(out, want) {
				t.Errorf("nothing of the plan says %q:\n%s", want, out)
			}
		}
	})
}

// TestPlanOfABoot is a plan for /sysroot, of all that a boot does, in a root of the test's own: the target has SELinux there.
func TestPlanOfABoot(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"proc", "sys", "dev", "own", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{built(t): "pilotlight", target(t): "sysroot"} {
		if out, err := exec.Command("cp", "--archive", from, filepath.Join(dir, to)).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
	}
	config := `{"ignition":{"version":"3.5.0"},"storage":{"files":[{"path":"/etc/same","overwrite":true,"contents":{"source":"data:,same%0A"}},{"path":"/etc/new/x","contents":{"source":"data:,x"}}]},
		"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["ssh-ed25519 AAAA x"]}]},"systemd":{"units":[{"name":"present.service","enabled":true}]}}`
	if err := os.WriteFile(filepath.Join(dir, "config.ign"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	const inside = `mount -t proc proc "$1/proc"; mount --rbind /sys "$1/sys"; mount --rbind /dev "$1/dev"; exec env TMPDIR=/own chroot "$1" /pilotlight plan --config /config.ign --root /sysroot --stage network,kargs,repart,disks,etc --all`
	out, l, err := trace.Run{Own: t.TempDir(), Begin: "/pilotlight", Writable: true}.Do(t.Context(), "unshare", "--mount", "sh", "-ec", inside, "sh", dir)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	l.Own = "/own"
	for _, c := range l.Changes() {
		t.Errorf("a plan may change nothing: %s", c)
	}
	for _, want := range []string{"  = file /etc/same\n", "  + file /etc/new/x\n", "  ~ SELinux contexts of what was written\n", "run setfiles for ", "core"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing of the plan says %q:\n%s", want, out)
		}
	}
}

// disks is Ignition's storage, for two disks.
const disks = `{"ignition": {"version": "3.4.0"}, "storage": {
 "disks": [{"device": "%[1]s", "wipeTable": true, "partitions": [{"label": "one", "number": 1, "sizeMiB": 64}, {"label": "two", "number": 0}]},
  {"device": "%[2]s", "partitions": [{"label": "three", "number": 1, "sizeMiB": 32}]}],
 "raid": [{"name": "md", "level": "raid1", "devices": ["%[1]sp1", "%[2]sp1"]}],
 "luks": [{"name": "vault", "device": "%[1]sp2", "keyFile": {"source": "data:,k"}, "wipeVolume": true}],
 "filesystems": [{"device": "/dev/md/md", "format": "ext4", "path": "/data"}, {"device": "/dev/mapper/vault", "format": "xfs", "wipeFilesystem": true}]}}`

// TestPlanOfEachSpec: each document of the corpus that needs no other one can be planned, whatever its
// version, and all that it names is in the plan.
func TestPlanOfEachSpec(t *testing.T) {
	program := built(t)
	root := target(t)
	files, err := filepath.Glob(filepath.Join(repository, "config/testdata/spec/3.*/*.ign"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d documents, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".ign")
		if slices.Contains([]string{"ignition", "replace", "cex"}, name) {
			continue // they name documents that are nowhere, or a machine of another kind
		}
		t.Run(filepath.Base(filepath.Dir(file))+"/"+name, func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out := planned(t, program, string(raw), root, "kargs,disks,etc", "0")
			var config any
			if err := json.Unmarshal(raw, &config); err != nil {
				t.Fatal(err)
			}
			for _, n := range named(config) {
				if !strings.Contains(out, n) {
					t.Errorf("nothing of the plan says %q:\n%s", n, out)
				}
			}
		})
	}
}

// named are the names of what a config wishes for: paths, devices, names of users and units.
func named(v any) (list []string) {
	switch v := v.(type) {
	case map[string]any:
		if v["enabled"] == true && v["contents"] == nil {
			return nil // a line of the preset file
		}
		keys := []string{"path", "name"}
		if v["format"] != nil {
			keys = []string{"device"} // where it is mounted is a wish of the stage root
		}
		for _, key := range keys {
			if text, ok := v[key].(string); ok {
				list = append(list, text)
			}
		}
		for key, value := range v {
			if !slices.Contains([]string{"httpHeaders", "user", "group", "clevis", "dropins", "ignition"}, key) {
				list = append(list, named(value)...)
			}
		}
	case []any:
		for _, item := range v {
			list = append(list, named(item)...)
		}
	}
	return list
}
