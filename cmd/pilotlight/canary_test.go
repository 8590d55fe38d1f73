package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/initrd"
	"pilotlight/stages"
)

// These tests put a word of its own into every place of a config that is secret, run the
// program from outside, let it fail in every way that needs no virtual machine, and look
// for the words in all that comes out. They need root, as a boot has it: mounts of their
// own, and files that belong to others.

// canaries are words that may be seen nowhere.
type canaries struct{ words []string }

// next makes one that no other text contains.
func (c *canaries) next() string {
	c.words = append(c.words, fmt.Sprintf("cnry%04dx", len(c.words)))
	return c.words[len(c.words)-1]
}

// in names the canaries that a text holds, as they are or as base64.
func (c *canaries) in(text string) (found []string) {
	for _, w := range c.words {
		if strings.Contains(text, w) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(w))) {
			found = append(found, w)
		}
	}
	return found
}

// document puts canaries into a text: a new one in the place of each @, a new one in
// base64 in the place of each %, and the server's address in the place of SERVER.
func (c *canaries) document(text, server string) string {
	var b strings.Builder
	for _, r := range text {
		switch r {
		case '@':
			b.WriteString(c.next())
		case '%':
			b.WriteString(base64.StdEncoding.EncodeToString([]byte(c.next())))
		default:
			b.WriteRune(r)
		}
	}
	return strings.NewReplacer("SERVER", strings.TrimPrefix(server, "http://")).Replace(b.String())
}

// built is a config of all that this version carries out.
const built = `{
  "ignition": {"version": "3.4.0", "timeouts": {"httpTotal": 1},
    "config": {"merge": [{"source": "http://@:@SIGNSERVER/child?@#@", "httpHeaders": [{"name": "X-A", "value": "@"}]}]}},
  "storage": {
    "directories": [{"path": "/etc/dir", "mode": 448}],
    "files": [
      {"path": "/etc/data", "mode": 384, "contents": {"source": "data:,@"}},
      {"path": "/etc/base64", "mode": 384, "contents": {"source": "data:;base64,%"}},
      {"path": "/etc/remote", "mode": 384, "contents": {"source": "http://@:@SIGNSERVER/file?@#@", "httpHeaders": [{"name": "Authorization", "value": "@"}]}},
      {"path": "/etc/hashed", "mode": 384, "contents": {"source": "http://@:@SIGNSERVER/hashed?@", "verification": {"hash": "sha256-HASH"}}},
      {"path": "/etc/appended", "mode": 384, "append": [{"source": "data:,@"}, {"source": "http://@:@SIGNSERVER/more?@", "httpHeaders": [{"name": "Cookie", "value": "@"}]}]},
      {"path": "/etc/owned", "mode": 384, "user": {"name": "OWNER"}, "contents": {"source": "data:,@"}}],
    "links": [{"path": "/etc/link", "target": "dir"}]},
  "systemd": {"units": [{"name": "a.service", "enabled": true, "contents": "[Service]\nEnvironment=@\n[Install]\nWantedBy=a.target\n", "dropins": [{"name": "b.conf", "contents": "[Service]\nEnvironment=@\n"}]}]},
  "pilotlight": {"version": "1",
    "network": [{"name": "a.network", "contents": {"inline": "# @"}}],
    "repart": [{"name": "system", "device": "boot", "keyFile": {"inline": "@"},
      "definitions": [{"name": "a.conf", "contents": {"inline": "# @\n[Partition]\nType=root\nLabel=root\nFormat=ext4\nEncrypt=key-file\n"}}]}],
    "verity": [{"name": "usr", "rootHash": "0000000000000000000000000000000000000000000000000000000000000001", "rootHashSignature": {"inline": "@"}}],
    "etc": {
      "sysusers": [{"name": "a.conf", "contents": {"inline": "# @\nu web 977 \"@\"\n"}}],
      "tmpfiles": [{"name": "a.conf", "contents": {"inline": "# @\nf /etc/made 0600 - - - @\n"}}],
      "credentials": [
        {"name": "host", "contents": {"inline": "@"}},
        {"name": "here", "scope": "initrd", "contents": {"source": "http://@:@SIGNSERVER/file?@", "httpHeaders": [{"name": "X-B", "value": "@"}]}}]}}
}`

// A trial is one way in which carrying out a config can go.
type trial struct {
	what    string
	edit    []string // of the document: pairs of old and new
	prepare string   // shell, in the root
	fails   bool
}

var trials = []trial{
	{what: "all goes well"},
	{what: "the server is dead", edit: []string{"SERVER/file", "127.0.0.1:1/file"}, fails: true},
	{what: "the server of the child is dead", edit: []string{"SERVER/child", "127.0.0.1:1/child"}, fails: true},
	{what: "the server refuses and repeats what it was sent", edit: []string{"SERVER/file", "SERVER/refused"}, fails: true},
	{what: "the server leads elsewhere", edit: []string{"SERVER/hashed", "SERVER/redirect"}, fails: true},
	{what: "another hash", edit: []string{"HASH", strings.Repeat("0", 64)}, fails: true},
	{what: "an unknown user", edit: []string{"OWNER", "nobody-knows"}, fails: true},
	{what: "the file system is full", prepare: "mount -t tmpfs -o size=8k,nr_inodes=100 none .; mkdir etc; head -c 8192 /dev/zero > fill; truncate -s 4096 fill", fails: true},
	{what: "the file system is read-only", prepare: "mkdir etc; mount --bind . .; mount -o remount,bind,ro .", fails: true},
	{what: "etc is a file", prepare: "echo x > etc", fails: true},
	{what: "systemd-sysusers fails", prepare: "mkdir etc; touch fail-systemd-sysusers", fails: true},
	{what: "systemd-tmpfiles fails", prepare: "mkdir etc; touch fail-systemd-tmpfiles", fails: true},
	{what: "systemctl fails", prepare: "mkdir etc; touch fail-systemctl", fails: true},
}

// inTheWay is a trial for each path that the config names: something else is there.
func inTheWay() (list []trial) {
	for _, p := range []string{
		"etc/data", "etc/base64", "etc/remote", "etc/hashed", "etc/appended", "etc/owned", "etc/link",
		"etc/systemd/system/a.service/x", "etc/sysusers.d", "etc/tmpfiles.d", "etc/machine-id/x", "etc/dir",
	} {
		list = append(list,
			trial{what: p + " is a FIFO", prepare: "mkdir -p $(dirname " + p + "); mkfifo " + p},
			trial{what: p + " is a link in a circle", prepare: "mkdir -p $(dirname " + p + "); ln -s $(basename " + p + ") " + p})
	}
	return list
}

// stand stands in for each program of systemd. It writes down what it is given, in the
// root that it is given, and does as little as the steps after it need.
const stand = `#!/bin/sh
for a in "$@"; do case $a in --root=*) root=${a#--root=};; esac; done
{ echo "$0 $*"; env; tr '\0' ' ' < /proc/$$/cmdline; tr '\0' ' ' < /proc/$PPID/cmdline; echo; } >> "$root/seen"
name=$(basename "$0")
if [ -e "$root/fail-$name" ]; then echo "$name: cannot" >&2; exit 1; fi
if [ "$name" = systemd-sysusers ]; then mkdir -p "$root/etc"; echo "web:x:977:977::/:" > "$root/etc/passwd"; fi
`

func TestNoCanaryIsSeen(t *testing.T) {
	bin := t.TempDir()
	program := filepath.Join(bin, "pilotlight")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The stand-ins take the place of the programs in mounts of each run's own.
	var mounts strings.Builder
	for _, name := range []string{"systemd-sysusers", "systemd-tmpfiles", "systemctl"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(stand), 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&mounts, "mount --bind %s/%s $(command -v %[2]s)\n", bin, name)
	}
	for _, tr := range append(slices.Clone(trials), inTheWay()...) {
		t.Run(tr.what, func(t *testing.T) {
			var c canaries
			body := c.next()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/child":
					io.WriteString(w, `{"ignition": {"version": "3.4.0"}}`)
				case "/hashed":
					io.WriteString(w, "abc")
				case "/refused":
					user, password, _ := r.BasicAuth()
					http.Error(w, fmt.Sprint(user, password, r.URL, r.Header, body), http.StatusForbidden)
				case "/redirect":
					user, _, _ := r.BasicAuth()
					http.Redirect(w, r, "ftp://"+user+"@127.0.0.1:1/"+r.URL.RawQuery, http.StatusFound)
				default:
					io.WriteString(w, body)
				}
			}))
			defer server.Close()
			text := strings.NewReplacer(tr.edit...).Replace(built)
			text = strings.NewReplacer("HASH", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "OWNER", "web").Replace(text)
			text = strings.ReplaceAll(c.document(text, server.URL), "SIGN", "@")
			config := filepath.Join(t.TempDir(), "c.ign")
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			verbs := [][]string{{"apply"}, {"apply", "--json"}, {"plan"}, {"plan", "--json"}}
			if len(tr.edit) > 0 || tr.prepare == "" {
				verbs = append(verbs, []string{"validate"}, []string{"predict"}, []string{"wrap"}) // they look at no root
			}
			for _, verb := range verbs {
				root, tmp := t.TempDir(), t.TempDir()
				line := fmt.Sprintf("set -e\n%s\ncd %s\n{ %s\n} >&2\ncd %[2]s\nexec %[4]s", &mounts, root, orTrue(tr.prepare), program)
				switch verb[0] {
				case "validate", "wrap":
					line += " " + strings.Join(verb, " ") + " " + config
				case "predict":
					line += " predict --config " + config
				default:
					line += " " + strings.Join(verb, " ") + " --config " + config + " --root " + root
				}
				if verb[0] == "wrap" {
					line += " > /dev/null" // it is the config itself
				}
				cmd := exec.Command("unshare", "--mount", "sh", "-c", line)
				cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				err := cmd.Run()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				if tr.fails && verb[0] == "apply" && err == nil {
					t.Errorf("%v: did not fail", verb)
				}
				if tr.what == "all goes well" && err != nil {
					t.Errorf("%v: %v\n%s", verb, err, &out)
				}
				if found := c.in(out.String()); len(found) > 0 {
					t.Errorf("%v: %v in: %s", verb, found, &out)
				}
				if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
					t.Errorf("%v: left in TMPDIR: %v %v", verb, left, err)
				}
				onlyWhereWanted(t, &c, verb, root, tr.what == "all goes well" && verb[0] == "apply")
			}
		})
	}
}

func orTrue(script string) string {
	if script == "" {
		return "mkdir etc"
	}
	return script
}

// onlyWhereWanted holds that no file of a root has a canary which the config did not put
// there, that no stand-in was given one, and that what is there is nobody else's to read
// where the config says so.
func onlyWhereWanted(t *testing.T, c *canaries, verb []string, root string, whole bool) {
	t.Helper()
	wanted := map[string]bool{
		"/etc/data": true, "/etc/base64": true, "/etc/remote": true, "/etc/appended": true, "/etc/owned": true,
		"/etc/systemd/system/a.service": true, "/etc/systemd/system/a.service.d/b.conf": true,
		"/etc/sysusers.d/a.conf": true, "/etc/tmpfiles.d/a.conf": true,
	}
	seen, secret := false, 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(name, root)
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		seen = seen || rel == "/seen"
		if found := c.in(string(data)); len(found) > 0 {
			secret++
			if !wanted[rel] {
				t.Errorf("%v: %v in %s", verb, found, rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if whole && (!seen || secret != len(wanted)) {
		t.Errorf("%v: programs were run: %v, files with a secret: %d of %d", verb, seen, secret, len(wanted))
	}
}

// secretNames are the fields of Ignition's types that are secret, by their own name; in
// package config a test holds that the list of all fields is whole.
var secretNames = []string{"Advertisement", "Config", "Contents", "HTTPProxy", "HTTPSProxy", "PasswordHash", "Source", "URL", "Value"}

// TestNoCanaryInFaults fills Ignition's types by reflection, with what is wrong beside
// and in each secret, and validates.
func TestNoCanaryInFaults(t *testing.T) {
	for _, shape := range []string{"@", "http://@:@host/@?@#@", "ftp://@:@host/?@", "http://@:@[host/", "data:,%zz@", "data:;base64,@!", "[Unit]\n@\n", "@ = [", "s3://@/@?versionId=@"} {
		var c canaries
		var ignition types.Config
		places := 0
		var fill func(v reflect.Value, name string)
		fill = func(v reflect.Value, name string) {
			switch v.Kind() {
			case reflect.Pointer:
				v.Set(reflect.New(v.Type().Elem()))
				fill(v.Elem(), name)
			case reflect.Slice:
				v.Set(reflect.MakeSlice(v.Type(), 2, 2))
				for i := range 2 {
					fill(v.Index(i), name)
				}
			case reflect.Struct:
				for i := range v.NumField() {
					fill(v.Field(i), v.Type().Field(i).Name)
				}
			case reflect.String:
				v.SetString("plain")
				if slices.Contains(secretNames, name) {
					places++
					secret := shape
					for strings.Contains(secret, "@") {
						secret = strings.Replace(secret, "@", c.next(), 1)
					}
					v.SetString(secret)
				}
			case reflect.Int:
				v.SetInt(-3)
			}
		}
		fill(reflect.ValueOf(&ignition).Elem(), "")
		if places < 40 {
			t.Fatalf("only %d secrets", places)
		}
		for _, version := range []string{"3.5.0", "3.0.0"} {
			ignition.Ignition.Version = version
			text, err := json.Marshal(ignition)
			if err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(t.TempDir(), "c.ign")
			if err := os.WriteFile(config, text, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"validate", config}, {"validate", "--json", config}, {"plan", "--config", config, "--root", t.TempDir()}, {"predict", "--config", config}, {"wrap", config}} {
				var out bytes.Buffer
				code := run(append([]string{"pilotlight"}, args...), strings.NewReader(""), &out, &out)
				if args[0] != "wrap" && code != exitFailed {
					t.Errorf("%s: exit %d", args[0], code)
				}
				if found := c.in(out.String()); args[0] != "wrap" && len(found) > 0 {
					t.Errorf("%q, %s: %v in: %s", shape, args[0], found, &out)
				}
			}
		}
	}
}

// TestNoCanaryInAReport shows outcomes as a boot with pilotlight.debug=yes does, keeps
// them as its report does, and shows that as status does.
func TestNoCanaryInAReport(t *testing.T) {
	var c canaries
	config := filepath.Join(t.TempDir(), "c.ign")
	text := strings.ReplaceAll(c.document(strings.NewReplacer("SERVER", "127.0.0.1:1", "OWNER", "root", "HASH", strings.Repeat("0", 64)).Replace(built), ""), "SIGN", "@")
	// The child could not be had.
	text = strings.Replace(text, `"merge"`, `"x-merge"`, 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := show{out: &out, err: &out}
	told, o, err := loadFile(&call{ctx: t.Context(), in: strings.NewReader(""), show: s}, config, "", false)
	if err != nil {
		t.Fatal(err, out.String())
	}
	told.facts.Root = t.TempDir()
	etc, ok := stages.Named("etc")
	if !ok {
		t.Fatal("there is no stage etc")
	}
	steps, err := etc.Want(told.input())
	if err != nil {
		t.Fatal(err)
	}
	m, err := initrd.NewMachine(t.TempDir(), o.client)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Programs = nil
	failed := 0
	for _, step := range steps {
		outcomes, err := initrd.Run(t.Context(), m, []initrd.Step{step}, initrd.Apply, nil)
		for _, o := range outcomes {
			s.did("etc", o, true)
			s.planned(o)
		}
		stage := initrd.ReportStage("etc", 0, 0, outcomes)
		report := initrd.Report{State: "failed", Stages: []initrd.ReportedStage{stage}}
		if err != nil {
			failed++
			report.Failure = &initrd.Failure{What: err.Error(), Where: where(err, documents(told.frozen))}
		}
		s.status(report)
		if err := s.json(report); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%v %+v\n%v %+v %#v\n", err, err, step, step, step)
	}
	if failed < 5 {
		t.Errorf("only %d of %d steps failed", failed, len(steps))
	}
	if found := c.in(out.String()); len(found) > 0 {
		t.Errorf("%v in: %s", found, &out)
	}
}
