package vm_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pilotlight/tests/lab"
)

// wide is a config of all that the stage files carries out. Units that are instances are not in it: Debian's Ignition asks
// PID 1 about them, and there is none.
const wide = `{"ignition": {"version": "3.3.0"},
"passwd": {
  "groups": [{"name": "grp", "gid": 2000}, {"name": "sys", "system": true}, {"name": "locked", "passwordHash": "$6$x"}],
  "users": [
    {"name": "demo", "uid": 1234, "groups": ["grp"], "gecos": "A user", "sshAuthorizedKeys": ["ssh-ed25519 AAAA demo"], "passwordHash": "$6$x"},
    {"name": "nohome", "noCreateHome": true, "primaryGroup": "grp"},
    {"name": "daemon-like", "system": true, "homeDir": "/var/lib/d", "shell": "/usr/sbin/nologin"},
    {"name": "root", "sshAuthorizedKeys": ["ssh-rsa B r", "ssh-rsa C r"]}]},
"storage": {
  "directories": [{"path": "/opt/d", "mode": 448, "user": {"id": 7}}, {"path": "/opt/plain"}, {"path": "/opt/open", "mode": 511}],
  "files": [
    {"path": "/etc/demo/secret", "mode": 384, "contents": {"source": "data:,x%0A"}},
    {"path": "/opt/d/f", "user": {"name": "demo"}, "group": {"name": "grp"}, "contents": {"source": "data:;base64,aGk=",
      "verification": {"hash": "sha256-8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"}}},
    {"path": "/opt/z", "contents": {"compression": "gzip", "source": "data:;base64,H4sIAAAAAAAAA0tMSgYAwkEkNQMAAAA="}},
    {"path": "/etc/hosts", "append": [{"source": "data:,more%0A"}, {"source": "data:,again%0A"}]},
    {"path": "/etc/over", "overwrite": true, "contents": {"source": "data:,new"}},
    {"path": "/etc/empty"}],
  "links": [
    {"path": "/etc/demo/link", "target": "secret"}, {"path": "/etc/hard", "target": "/etc/demo/secret", "hard": true},
    {"path": "/home/demo/l", "target": "/x", "user": {"name": "demo"}}]},
"systemd": {"units": [
  {"name": "demo.service", "enabled": true, "contents": "[Service]\nExecStart=/bin/true\n"},
  {"name": "m.service", "mask": true}, {"name": "um.service", "mask": false},
  {"name": "d.service", "dropins": [{"name": "1.conf", "contents": "[Unit]\n"}, {"name": "2.conf"}]},
  {"name": "off.service", "enabled": false}]}}
`

// before is a root as a distribution could have it, with a policy of SELinux, without which Debian's Ignition ends.
var before = map[string]string{
	"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:1::::::\n", "etc/gshadow": "root:*::\n",
	"etc/hosts": "127.0.0.1 localhost\n", "etc/over": "old", "etc/skel/.profile": "# skel\n", "home/.keep": "", "root/.keep": "",
	"etc/systemd/system/.keep": "",
	"etc/selinux/config":       "SELINUX=permissive\nSELINUXTYPE=p\n", "etc/selinux/p/contexts/files/file_contexts": "",
}

// carryOut runs a program of the tree, with a root that is a folder of work. It prints the exit code of each call.
const carryOut = `unset SOURCE_DATE_EPOCH
export PATH=/mnt/bin:$PATH IGNITION_CONFIG_FILE=/mnt/config.ign IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT=true
mkdir -p "/mnt/$2.run"
program=$1 name=$2
state="--config-cache=/mnt/$name.run/cache --state-file=/mnt/$name.run/state --neednet=/mnt/$name.run/neednet --root=/mnt/$name"
for arguments in "" "--platform=file" "--stage=files" "--platform=nowhere --stage=files" "--platform=file --stage=nothing" "--nothing" "--version" "--help"; do
	echo "[$arguments]"
	"$program" $arguments >/dev/null 2>&1 && code=0 || code=$?
	echo "exit $code"
done
for stage in files fetch-offline fetch kargs disks mount files umount; do
	echo "[$stage]"
	"$program" --platform=file --stage=$stage $state --log-to-stdout >>"/mnt/$name.log" 2>&1 && code=0 || code=$?
	echo "exit $code"
done
echo "[a state that is none]"
echo none >"/mnt/$name.run/state"
"$program" -platform file -stage files $state -log-to-stdout >>"/mnt/$name.log" 2>&1 && code=0 || code=$?
echo "exit $code"`

// TestSameAsIgnition holds our program against Debian's Ignition: the same calls end with the same exit codes, and leave the
// same files. Both run in the same tree.
func TestSameAsIgnition(t *testing.T) {
	t.Parallel()
	tree, err := stage.Cache.Ignition(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(work, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	put("config.ign", wide, 0o600)
	put("bin/setfiles", "#!/bin/sh\n", 0o755)
	program, err := os.ReadFile(stage.Binary)
	if err != nil {
		t.Fatal(err)
	}
	put("ours/ignition", string(program), 0o755)
	said := map[string]string{}
	for name, program := range map[string]string{"a": lab.IgnitionProgram, "b": "/mnt/ours/ignition"} {
		for file, text := range before {
			put(filepath.Join(name, file), text, 0o644)
		}
		if err := os.Symlink("/dev/null", filepath.Join(work, name, "etc/systemd/system/um.service")); err != nil {
			t.Fatal(err)
		}
		out, err := tree.Command(t.Context(), work, "sh", "-c", carryOut, "sh", program, name).Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%s: %v: %s", name, err, exit.Stderr)
		} else if err != nil {
			t.Fatal(err)
		}
		said[name] = string(out)
	}
	log, err := os.ReadFile(filepath.Join(work, "b.log"))
	if err != nil {
		t.Fatal(err)
	}
	if said["a"] != said["b"] || strings.Count(said["a"], "\nexit 0\n") < 8 {
		t.Errorf("Ignition:\n%s\nours:\n%s\n%s", said["a"], said["b"], log)
	}
	theirs, ours := contents(t, filepath.Join(work, "a")), contents(t, filepath.Join(work, "b"))
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if theirs[name] != ours[name] {
			t.Errorf("%s\nIgnition: %s\nours:     %s", name, theirs[name], ours[name])
		}
		delete(ours, name)
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		t.Errorf("%s is ours alone: %s", name, ours[name])
	}
}

// today is a day of the epoch in shadow(5).
var today = regexp.MustCompile(`:[0-9]{5}:`)

// contents describes what lies below a folder: type, mode, owner, and what it holds. What shadow's programs keep of a file before
// they change it is left out, as is the time in the result file.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || strings.HasPrefix(rel, "etc/") && strings.HasSuffix(rel, "-") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		var held []byte
		switch {
		case info.Mode().IsRegular():
			if held, err = os.ReadFile(name); err != nil {
				return err
			}
			if rel == "etc/.ignition-result.json" {
				held = []byte("(the result)")
			}
			text += fmt.Sprintf(" %d names", st.Nlink)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			held = []byte(target)
		}
		lines := strings.Split(string(held), "\n")
		if rel == "etc/shadow" {
			lines = strings.Split(today.ReplaceAllString(string(held), ":today:"), "\n")
		}
		if strings.HasSuffix(rel, ".preset") {
			slices.Sort(lines) // the first line about a unit counts, and there is one
		}
		all[rel] = fmt.Sprintf("%s %q", text, lines)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
