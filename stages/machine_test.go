package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
	"pilotlight/initrd/tpm"
	"pilotlight/initrd/tpm/swtpm"
)

// The stages of this file are carried out by the real machine, over directories of
// the test's own and with stand-ins for programs. They need root, as a boot has it:
// files belong to others.

// A scene is one stage with a machine that it is carried out on.
type scene struct {
	stage func(Input) ([]initrd.Step, error)
	// build makes a machine anew.
	build func(t *testing.T) *site
}

// A site is a machine as the test sees it: what it consists of, and how it is looked at.
type site struct {
	in   Input
	tree string // a directory that holds all that a stage could change
	run  string
	log  string // of the programs: their argument vectors
	set  func(*initrd.Machine)
}

// machine is a process that carries out a stage: each unit of a boot is one.
func (s *site) machine(t *testing.T) *initrd.Machine {
	t.Helper()
	m, err := initrd.NewMachine(s.run, &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	m.TPM = filepath.Join(s.run, "no-tpm")
	s.set(m)
	return m
}

// powerCut is the machine at its next start: what was in /run is gone.
func (s *site) powerCut(t *testing.T) { s.run = t.TempDir() }

// said are the argument vectors of the programs so far, without those that only looked.
func (s *site) said(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(s.log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// snapshot is every file of the tree, but for the log, with its type, mode, owner, links and content.
func (s *site) snapshot(t *testing.T) map[string]string {
	t.Helper()
	shot := map[string]string{}
	err := filepath.WalkDir(s.tree, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == s.log {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d %q", st.Nlink, data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " to " + target
		}
		shot[strings.TrimPrefix(name, s.tree)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return shot
}

// differ reports what two snapshots do not have in common.
func differ(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s is %q, want %q", what, name, got[name], text)
		}
	}
	for name, text := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is there: %s", what, name, text)
		}
	}
}

// programs are stand-ins: shell scripts that write their argument vector to the log.
// $log is the log, $state a directory of their own.
func programs(t *testing.T, log, state string, scripts map[string]string) []string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		text := fmt.Sprintf("#!/bin/sh\nset -e\nlog=%s state=%s\n%s", log, state, script)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []string{dir, "/usr/bin", "/bin"}
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// configuration are stand-ins for what generates /etc: they do in a few lines what the
// config of the scene needs, and nothing if it is done.
var configuration = map[string]string{
	"systemd-sysusers": `
echo "systemd-sysusers credential=$(cat "$CREDENTIALS_DIRECTORY/demo.cred")" >> $log
root=${1#--root=}
cat "$root"/etc/sysusers.d/*.conf | while read -r kind name id rest; do
	grep -qs "^$name:" "$root/etc/passwd" && continue
	echo "$name:x:$id:$id::/:/bin/false" >> "$root/etc/passwd"
	echo "$name:x:$id:" >> "$root/etc/group"
done`,
	"systemd-tmpfiles": `
echo "systemd-tmpfiles $2 $3" >> $log
root=${1#--root=}
cat "$root"/etc/tmpfiles.d/*.conf | while read -r kind path mode rest; do
	mkdir -p -m "$mode" "$root$path"
done`,
	"systemctl": `
root=${1#--root=}
shift
echo "systemctl $*" >> $log
while read -r verb unit rest; do
	[ $verb = enable ] || continue
	mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
	ln -sfn "/etc/systemd/system/$unit" "$root/etc/systemd/system/multi-user.target.wants/$unit"
done < "$root/etc/systemd/system-preset/20-ignition.preset"`,
}

// etcScene is the stage etc, with a server for what is remote.
func etcScene(boot Boot) scene {
	return scene{stage: Etc, build: func(t *testing.T) *site {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/remote", "/append":
				io.WriteString(w, strings.TrimPrefix(r.URL.Path, "/")+" body\n")
			case "/hashed":
				io.WriteString(w, "abc")
			default:
				http.NotFound(w, r)
			}
		}))
		t.Cleanup(server.Close)
		s := &site{run: t.TempDir(), tree: t.TempDir()}
		if boot == Later {
			dir, err := os.MkdirTemp("/dev/shm", "pilotlight-test-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			s.tree = dir
		}
		// What is run below a root can write nowhere else.
		s.log = filepath.Join(s.tree, "programs.log")
		put(t, filepath.Join(s.tree, "etc/hosts"), "old\n")
		put(t, filepath.Join(s.tree, "etc/replaced"), "of the image\n")
		put(t, filepath.Join(s.tree, "usr/lib/os-release"), "ID=test\n")
		text := strings.ReplaceAll(`{"ignition":{"version":"3.4.0"},
			"storage":{
				"directories":[{"path":"/etc/demo","mode":448},{"path":"/srv/web","mode":488,"user":{"name":"web"},"group":{"name":"web"}}],
				"files":[
					{"path":"/etc/demo/local","mode":384,"user":{"id":3},"group":{"id":4},"contents":{"source":"data:,local"}},
					{"path":"/etc/replaced","overwrite":true,"contents":{"source":"data:,by%20the%20config"}},
					{"path":"/etc/demo/remote","contents":{"source":"SERVER/remote"}},
					{"path":"/etc/demo/again","overwrite":true,"contents":{"source":"SERVER/remote"},"append":[{"source":"data:,more"}]},
					{"path":"/etc/demo/hashed","contents":{"source":"SERVER/hashed","verification":{"hash":"sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}},
					{"path":"/etc/hosts","append":[{"source":"data:,a%0A"},{"source":"SERVER/append"}]},
					{"path":"/srv/web/index.html","user":{"name":"web"},"contents":{"source":"data:,web"}}],
				"links":[
					{"path":"/etc/demo/link","target":"local"},
					{"path":"/hard","target":"/etc/demo/local","hard":true},
					{"path":"/srv/web/hard","target":"/srv/web/index.html","hard":true}]},
			"systemd":{"units":[
				{"name":"demo.service","enabled":true,"contents":"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"},
				{"name":"unwanted.service","mask":true}]},
			"pilotlight":{"version":"1","etc":{
				"sysusers":[{"name":"web.conf","contents":{"inline":"u web 977\n"}}],
				"tmpfiles":[{"name":"web.conf","contents":{"inline":"d /srv/web/cache 0700\n"}}],
				"credentials":[{"name":"demo.cred","scope":"initrd","contents":{"inline":"canary"}}]}}}`, "SERVER", server.URL)
		s.in = first(t, text)
		s.in.Facts.Root, s.in.Facts.Boot = s.tree, boot
		dirs := programs(t, s.log, s.tree, configuration)
		s.set = func(m *initrd.Machine) { m.Programs = dirs }
		return s
	}}
}

// verityScene opens two devices; sysfs is a directory that the stand-in writes to.
func verityScene() scene {
	return scene{stage: Verity, build: func(t *testing.T) *site {
		s := &site{run: t.TempDir(), log: filepath.Join(t.TempDir(), "log"), tree: t.TempDir()}
		if err := os.Mkdir(filepath.Join(s.tree, "block"), 0o755); err != nil {
			t.Fatal(err)
		}
		s.in = first(t, section(`"verity":[
			{"name":"usr","rootHash":"`+rootHash+`","data":"/dev/null","hash":"/dev/zero","rootHashSignature":{"inline":"pkcs7"}},
			{"name":"tools","rootHash":"5`+rootHash[1:]+`","data":"/dev/null","hash":"/dev/zero","onCorruption":"panic"}]`))
		dirs := programs(t, s.log, s.tree, map[string]string{
			"systemd-veritysetup": `
signature=
case $6 in *root-hash-signature=*) signature=" signed by $(cat "${6#*root-hash-signature=}")";; esac
echo "systemd-veritysetup $1 $2 $3 $4 $5$signature" >> $log
dir=$state/block/dm-$(ls $state/block | wc -l)/dm
mkdir -p $dir
echo "CRYPT-VERITY-x-$2" > $dir/uuid
echo "$5" > $dir/hash
echo "$2" > $dir/name`,
			"dmsetup": `
for dir in $state/block/*/dm; do
	[ "$(cat $dir/name)" != "$2" ] || echo "0 8 verity 1 1:3 1:5 4096 4096 1 1 sha256 $(cat $dir/hash) -"
done`,
		})
		s.set = func(m *initrd.Machine) {
			m.Programs = dirs
			m.Disks = disk.System{Sys: os.DirFS(s.tree), Run: fstest.MapFS{}, Dev: "/dev"}
		}
		return s
	}}
}

type blank struct{ *strings.Reader }

func (blank) Close() error { return nil }

// repartScene partitions two disks that are empty; what the stand-in partitioned is
// beside them in the directory that is sysfs.
func repartScene() scene {
	return scene{stage: Repart, build: func(t *testing.T) *site {
		s := &site{run: t.TempDir(), log: filepath.Join(t.TempDir(), "log"), tree: t.TempDir()}
		for name, serial := range map[string]string{"vda": "S1", "vdb": "S2"} {
			for file, text := range map[string]string{
				"dev": "254:0", "size": "2048", "ro": "0", "removable": "0", "hidden": "0", "queue/logical_block_size": "512", "serial": serial,
			} {
				put(t, filepath.Join(s.tree, "block", name, file), text+"\n")
			}
		}
		entry := func(name, serial string) string {
			return fmt.Sprintf(`{"name":%q,"match":{"serial":%q},"definitions":[%s,%s]}`, name, serial,
				definition("50-root.conf", "[Partition]\nType=root\nLabel="+name+"\n"), definition("60-var.conf", "[Partition]\nType=var\n"))
		}
		s.in = first(t, section(repartOf(entry("one", "S1"), entry("two", "S2"))))
		s.in.Facts.Placed = false // no place for a record on this machine
		dirs := programs(t, s.log, s.tree, map[string]string{
			"systemd-repart": `
for a in "$@"; do case $a in --definitions=*) definitions=${a#*=};; --dry-run=*) dry=${a#*=};; esac; disk=${a##*/}; done
if [ $dry = no ]; then
	echo "systemd-repart $disk" >> $log
	cat $definitions/*.conf > $state/parts-$disk
fi
activity=create
cat $definitions/*.conf | cmp -s - $state/parts-$disk && activity=unchanged
echo '[{"type":"root","label":"'$disk'","activity":"'$activity'"}]'`,
		})
		s.set = func(m *initrd.Machine) {
			m.Programs = dirs
			m.Disks = disk.System{Sys: os.DirFS(s.tree), Run: fstest.MapFS{}, Dev: "/dev", Open: func(string) (disk.ReaderAtCloser, error) {
				return blank{strings.NewReader(strings.Repeat("\x00", 1<<20))}, nil
			}}
		}
		return s
	}}
}

// measureScene measures three documents into a software TPM. The event log is the
// tree: the TPM itself is asked by the test.
func measureScene() scene {
	return scene{stage: Measure, build: func(t *testing.T) *site {
		s := &site{run: t.TempDir(), log: filepath.Join(t.TempDir(), "log"), tree: t.TempDir()}
		s.in = first(t, section(`"measure":{"required":true}`))
		s.in.Documents = append(s.in.Documents, initrd.Document{Name: "child-0002", Bytes: []byte("{ }")})
		socket := swtpm.Start(t)
		s.set = func(m *initrd.Machine) {
			m.TPM = socket
			m.Log.Path = filepath.Join(s.tree, "tpm2-measure.log")
		}
		return s
	}}
}

func scenes() map[string]scene {
	return map[string]scene{
		"etc": etcScene(First), "etc, made anew": etcScene(Later), "verity": verityScene(), "repart": repartScene(), "volumes": volumesScene(),
	}
}

// eachScene runs a test on every scene.
func eachScene(t *testing.T, do func(t *testing.T, sc scene)) {
	for name, sc := range scenes() {
		t.Run(name, func(t *testing.T) { do(t, sc) })
	}
}

func (sc scene) steps(t *testing.T, s *site) []initrd.Step { return want(t, sc.stage, s.in) }

// carryOut applies the stage, and wants it to end well.
func (sc scene) carryOut(t *testing.T, s *site) []initrd.Outcome {
	t.Helper()
	out, err := initrd.Run(t.Context(), s.machine(t), sc.steps(t, s), initrd.Apply, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (sc scene) plan(t *testing.T, s *site) []initrd.Outcome {
	t.Helper()
	out, err := initrd.Run(t.Context(), s.machine(t), sc.steps(t, s), initrd.Plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPlanChangesNothing(t *testing.T) {
	eachScene(t, func(t *testing.T, sc scene) {
		s := sc.build(t)
		before := s.snapshot(t)
		sc.plan(t, s)
		differ(t, "after the plan", s.snapshot(t), before)
		if said := s.said(t); said != "" {
			t.Errorf("programs were run: %s", said)
		}
		if left, err := os.ReadDir(s.run); err != nil || len(left) > 0 {
			t.Errorf("in the run directory: %v %v", left, err)
		}
	})
}

// TestPlanIsWhatIsDone compares deed by deed.
func TestPlanIsWhatIsDone(t *testing.T) {
	eachScene(t, func(t *testing.T, sc scene) {
		s := sc.build(t)
		planned := sc.plan(t, s)
		done := sc.carryOut(t, s)
		changes := 0
		for i, p := range planned {
			d := done[i]
			if p.Wish != d.Wish || p.Deed != d.Deed || p.State != d.State || d.Changed != (p.State == initrd.NotSo) {
				t.Errorf("planned: %+v\ndone: %+v", p, d)
			}
			if d.Changed {
				changes++
			}
		}
		if changes < 2 {
			t.Errorf("only %d changes", changes)
		}
	})
}

func TestSecondRunDoesNothing(t *testing.T) {
	eachScene(t, func(t *testing.T, sc scene) {
		s := sc.build(t)
		sc.carryOut(t, s)
		before, said := s.snapshot(t), s.said(t)
		for _, o := range sc.carryOut(t, s) {
			if o.Changed || o.State == initrd.NotSo {
				t.Errorf("%+v", o)
			}
		}
		differ(t, "after the second run", s.snapshot(t), before)
		if again := s.said(t); again != said {
			t.Errorf("programs were run again: %s", strings.TrimPrefix(again, said))
		}
	})
}

// refusing is a host that fails at one deed.
type refusing struct {
	initrd.Host
	deed string
	err  error
	mu   sync.Mutex
	did  []string
}

func (r *refusing) Do(ctx context.Context, act initrd.Act) error {
	if act.String() == r.deed {
		return r.err
	}
	err := r.Host.Do(ctx, act)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.did = append(r.did, act.String())
	return err
}

// dependents are the steps that wait for step i, directly or through another.
func dependents(steps []initrd.Step, i int) map[int]bool {
	after := map[int]bool{}
	for j := i + 1; j < len(steps); j++ {
		for k := i; k < j; k++ {
			if (k == i || after[k]) && mustWait(steps[k], steps[j]) {
				after[j] = true
			}
		}
	}
	return after
}

// deeds are the acts of a plan, by step; none twice.
func deeds(t *testing.T, planned []initrd.Outcome) map[int]string {
	t.Helper()
	by := map[int]string{}
	seen := map[string]bool{}
	for i, o := range planned {
		if o.Deed == "" {
			continue
		}
		if seen[o.Deed] {
			t.Fatalf("two deeds are called %q", o.Deed)
		}
		seen[o.Deed] = true
		by[i] = o.Deed
	}
	return by
}

// TestEachStepThatFailsStopsThere makes each deed fail in turn.
func TestEachStepThatFailsStopsThere(t *testing.T) {
	eachScene(t, func(t *testing.T, sc scene) {
		all := deeds(t, sc.plan(t, sc.build(t)))
		for i, deed := range all {
			s := sc.build(t)
			steps := sc.steps(t, s)
			host := &refusing{Host: s.machine(t), deed: deed, err: errors.New("refused")}
			out, err := initrd.Run(t.Context(), host, steps, initrd.Apply, nil)
			var failed *initrd.Error
			if !errors.Is(err, host.err) || !errors.As(err, &failed) || !reflect.DeepEqual(failed.Step, steps[i]) {
				t.Errorf("%s: %v", deed, err)
				continue
			}
			if want := steps[i].String() + ": refused"; err.Error() != want {
				t.Errorf("%q, want %q", err, want)
			}
			after := dependents(steps, i)
			for j, o := range out {
				switch {
				case j == i:
					if !o.Reached || o.Changed || !errors.Is(o.Err, host.err) {
						t.Errorf("%s: %+v", deed, o)
					}
				case after[j]:
					if o.Reached || slices.Contains(host.did, all[j]) {
						t.Errorf("%s failed, and then there was: %+v", deed, o)
					}
				case o.Err != nil:
					t.Errorf("%s failed, and %+v", deed, o)
				case j < i && !o.Reached:
					t.Errorf("%s failed, and an earlier step was not reached: %+v", deed, o)
				}
			}
		}
	})
}

// TestNothingFollowsAFailureWhereStepsKeepTheirOrder: on disks, nothing at all.
func TestNothingFollowsAFailureWhereStepsKeepTheirOrder(t *testing.T) {
	for name, sc := range map[string]scene{"verity": verityScene(), "repart": repartScene()} {
		t.Run(name, func(t *testing.T) {
			planned := sc.plan(t, sc.build(t))
			first := slices.IndexFunc(planned, func(o initrd.Outcome) bool { return o.Deed != "" })
			s := sc.build(t)
			before := s.snapshot(t)
			host := &refusing{Host: s.machine(t), deed: planned[first].Deed, err: errors.New("refused")}
			out, err := initrd.Run(t.Context(), host, sc.steps(t, s), initrd.Apply, nil)
			if !errors.Is(err, host.err) {
				t.Fatal(err)
			}
			for _, o := range out[first+1:] {
				if o.Reached {
					t.Errorf("%+v", o)
				}
			}
			differ(t, "after the failure", s.snapshot(t), before)
			if said := s.said(t); said != "" {
				t.Errorf("programs were run: %s", said)
			}
		})
	}
}

// lying is a host that says that it did what it did not.
type lying struct {
	initrd.Host
	deed string
}

func (l lying) Do(ctx context.Context, act initrd.Act) error {
	if act.String() == l.deed {
		return nil
	}
	return l.Host.Do(ctx, act)
}

func TestHostThatLiesIsCaught(t *testing.T) {
	eachScene(t, func(t *testing.T, sc scene) {
		for i, deed := range deeds(t, sc.plan(t, sc.build(t))) {
			s := sc.build(t)
			steps := sc.steps(t, s)
			_, err := initrd.Run(t.Context(), lying{s.machine(t), deed}, steps, initrd.Apply, nil)
			var failed *initrd.Error
			if !errors.Is(err, initrd.ErrStillNotSo) || !errors.As(err, &failed) || !reflect.DeepEqual(failed.Step, steps[i]) {
				t.Errorf("%s was not done, and: %v", deed, err)
			}
		}
	})
}

var errKilled = errors.New("killed")

// mortal is a host that ends after some deeds. It dies before the next one, or when
// that is done and nobody has heard of it.
type mortal struct {
	initrd.Host
	mu     sync.Mutex
	deeds  int
	inDeed bool
}

func (m *mortal) Do(ctx context.Context, act initrd.Act) error {
	m.mu.Lock()
	m.deeds--
	last, dead := m.deeds == -1, m.deeds < 0
	m.mu.Unlock()
	switch {
	case last && m.inDeed:
		return errors.Join(m.Host.Do(ctx, act), errKilled)
	case dead:
		return errKilled
	}
	return m.Host.Do(ctx, act)
}

// TestKilledInTheMiddle: whatever the moment, what follows does the rest, and the
// machine is like one that nothing happened to.
func TestKilledInTheMiddle(t *testing.T) {
	eachScene(t, func(t *testing.T, sc scene) {
		whole := sc.build(t)
		sc.carryOut(t, whole)
		want := whole.snapshot(t)
		total := len(deeds(t, sc.plan(t, sc.build(t))))
		for n := range total {
			for _, inDeed := range []bool{false, true} {
				what := fmt.Sprintf("killed after %d of %d deeds, in the next: %v", n, total, inDeed)
				s := sc.build(t)
				host := &mortal{Host: s.machine(t), deeds: n, inDeed: inDeed}
				if _, err := initrd.Run(t.Context(), host, sc.steps(t, s), initrd.Apply, nil); !errors.Is(err, errKilled) {
					t.Fatalf("%s: %v", what, err)
				}
				if inDeed {
					s.powerCut(t)
					if s.in.Facts.Boot == First {
						s.in.Facts.Boot = Interrupted
					}
				}
				sc.carryOut(t, s)
				differ(t, what, s.snapshot(t), want)
				for _, o := range sc.plan(t, s) {
					if o.State == initrd.NotSo {
						t.Errorf("%s: and then still %+v", what, o)
					}
				}
			}
		}
	})
}

// TestEtcIsWhatTheConfigSays looks at the result itself.
func TestEtcIsWhatTheConfigSays(t *testing.T) {
	sc := etcScene(First)
	s := sc.build(t)
	sc.carryOut(t, s)
	got := s.snapshot(t)
	for name, want := range map[string]string{
		"/etc/demo":                  "drwx------ 0:0",
		"/etc/demo/local":            `-rw------- 3:4 2 "local"`,
		"/hard":                      `-rw------- 3:4 2 "local"`,
		"/etc/demo/remote":           `-rw-r--r-- 0:0 1 "remote body\n"`,
		"/etc/demo/again":            `-rw-r--r-- 0:0 1 "remote body\nmore"`,
		"/etc/demo/hashed":           `-rw-r--r-- 0:0 1 "abc"`,
		"/etc/hosts":                 `-rw-r--r-- 0:0 1 "old\na\nappend body\n"`,
		"/etc/replaced":              `-rw-r--r-- 0:0 1 "by the config"`,
		"/etc/demo/link":             "Lrwxrwxrwx 0:0 to local",
		"/srv/web":                   "drwxr-x--- 977:977",
		"/srv/web/index.html":        `-rw-r--r-- 977:0 2 "web"`,
		"/srv/web/hard":              `-rw-r--r-- 977:0 2 "web"`,
		"/srv/web/cache":             "drwx------ 0:0",
		"/srv":                       "drwxr-xr-x 0:0",
		"/etc/machine-id":            `-r--r--r-- 0:0 1 "eac9ddfc39524622aab2d4507c6ae6bd\n"`,
		PresetFile:                   `-rw-r--r-- 0:0 1 "enable demo.service\n"`,
		"/usr/lib/os-release":        `-rw-r--r-- 0:0 1 "ID=test\n"`,
		"/etc/passwd":                `-rw-r--r-- 0:0 1 "web:x:977:977::/:/bin/false\n"`,
		"/etc/systemd/system":        "drwxr-xr-x 0:0",
		"/etc/sysusers.d/web.conf":   `-rw-r--r-- 0:0 1 "u web 977\n"`,
		"/etc/tmpfiles.d/web.conf":   `-rw-r--r-- 0:0 1 "d /srv/web/cache 0700\n"`,
		"/etc/systemd/system-preset": "drwxr-xr-x 0:0",
		"/etc/systemd/system/multi-user.target.wants/demo.service": "Lrwxrwxrwx 0:0 to /etc/systemd/system/demo.service",
		"/etc/systemd/system/unwanted.service":                     "Lrwxrwxrwx 0:0 to /dev/null",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if got, want := s.said(t), "systemd-sysusers credential=canary\nsystemd-tmpfiles -E --create\n"+
		"systemctl preset-all --preset-mode=enable-only\nsystemctl --no-reload preset demo.service\n"; got != want {
		t.Errorf("programs: %q, want %q", got, want)
	}
}

// TestLaterBootLeavesAnEtcThatLasts alone.
func TestLaterBootLeavesAnEtcThatLasts(t *testing.T) {
	sc := etcScene(First)
	s := sc.build(t)
	s.in.Facts.Boot = Later
	before := s.snapshot(t)
	for _, o := range sc.carryOut(t, s) {
		if o.Changed && !strings.HasPrefix(o.Wish, "credential ") {
			t.Errorf("%+v", o)
		}
	}
	differ(t, "after a later boot", s.snapshot(t), before)
}

// TestPlanOfANamedOwnerWaits: the user is not there yet, and will be.
func TestPlanOfANamedOwnerWaits(t *testing.T) {
	sc := etcScene(First)
	s := sc.build(t)
	if err := os.MkdirAll(filepath.Join(s.tree, "srv/web"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(s.tree, "srv/web"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, o := range sc.plan(t, s) {
		if o.Wish == "directory /srv/web" && (o.State != initrd.After || !errors.Is(o.Why, initrd.ErrUnknownOwner)) {
			t.Errorf("%+v", o)
		}
	}
	sc.carryOut(t, s)
	if got := s.snapshot(t)["/srv/web"]; got != "drwxr-x--- 977:977" {
		t.Errorf("%s", got)
	}
}

// TestFileOfAnotherIsNotReplacedByARemoteOne: what was fetched is compared with what is
// there.
func TestFileOfAnotherIsNotReplacedByARemoteOne(t *testing.T) {
	for text, want := range map[string]error{"remote body\n": nil, "remote body!": initrd.ErrExists, "something else\n": initrd.ErrExists, "": initrd.ErrExists} {
		sc := etcScene(First)
		s := sc.build(t)
		name := filepath.Join(s.tree, "etc/demo/remote")
		put(t, name, text)
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := initrd.Run(t.Context(), s.machine(t), sc.steps(t, s), initrd.Apply, nil)
		var failed *initrd.Error
		if !errors.Is(err, want) || want != nil && (!errors.As(err, &failed) || failed.Step.(initrd.File).Path != "/etc/demo/remote") {
			t.Errorf("%q: %v", text, err)
		}
		if got, wanted := s.snapshot(t)["/etc/demo/remote"], fmt.Sprintf("-rw------- 0:0 1 %q", text); got != wanted {
			t.Errorf("%s, want %s", got, wanted)
		}
	}
}

// TestMeasuredOnceWhateverHappens: killed anywhere, the PCR is what was predicted.
func TestMeasuredOnceWhateverHappens(t *testing.T) {
	sc := measureScene()
	whole := sc.build(t)
	planned := sc.plan(t, whole)
	if left := whole.snapshot(t); len(left) != 1 {
		t.Errorf("the plan left %v", left)
	}
	var words []string
	for _, s := range sc.steps(t, whole) {
		words = append(words, s.(initrd.Extend).Word)
	}
	want := tpm.Replay(nil, words)
	holds := func(what string, s *site) {
		t.Helper()
		d, err := tpm.Open(t.Context(), s.machine(t).TPM)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		got, err := d.PCR(12)
		if err != nil || len(got) == 0 {
			t.Fatalf("%v %v", got, err)
		}
		for bank, value := range got {
			if !slices.Equal(value, want[bank]) {
				t.Errorf("%s: %s is %x, want %x", what, bank, value, want[bank])
			}
		}
		events, err := s.machine(t).Log.Events()
		if err != nil || len(events) != len(words) {
			t.Errorf("%s: %d events, %v", what, len(events), err)
		}
	}
	for i, o := range sc.carryOut(t, whole) {
		if !o.Changed || o.Deed != planned[i].Deed || o.Deed == "" {
			t.Errorf("planned: %+v\ndone: %+v", planned[i], o)
		}
	}
	holds("uninterrupted", whole)
	for _, o := range sc.carryOut(t, whole) {
		if o.State != initrd.So {
			t.Errorf("%+v", o)
		}
	}
	holds("carried out twice", whole)

	for n := range words {
		s := sc.build(t)
		host := &mortal{Host: s.machine(t), deeds: n, inDeed: true}
		if _, err := initrd.Run(t.Context(), host, sc.steps(t, s), initrd.Apply, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		sc.carryOut(t, s)
		holds(fmt.Sprintf("killed in deed %d", n+1), s)
	}

	s := sc.build(t)
	_, err := initrd.Run(t.Context(), lying{s.machine(t), planned[1].Deed}, sc.steps(t, s), initrd.Apply, nil)
	if !errors.Is(err, initrd.ErrStillNotSo) {
		t.Errorf("a host that lies: %v", err)
	}
}

func TestWithoutATPM(t *testing.T) {
	sc := measureScene()
	s := sc.build(t)
	s.set = func(m *initrd.Machine) { m.Wait = 0 }
	_, err := initrd.Run(t.Context(), s.machine(t), sc.steps(t, s), initrd.Apply, nil)
	if !errors.Is(err, initrd.ErrNoTPM) {
		t.Errorf("required: %v", err)
	}
	s.in.Config = parse(t, section(`"measure":{"required":false}`))
	out, err := initrd.Run(t.Context(), s.machine(t), sc.steps(t, s), initrd.Apply, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		if o.State != initrd.Moot || !errors.Is(o.Why, initrd.ErrNoTPM) {
			t.Errorf("%+v", o)
		}
	}
}

// TestNoSecretIsTold in wishes, deeds, errors or the report.
func TestNoSecretIsTold(t *testing.T) {
	sc := etcScene(First)
	s := sc.build(t)
	out := sc.carryOut(t, s)
	report, err := json.Marshal(initrd.ReportStage("etc", 0, 0, out))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"canary", "by the config", "remote body", "u web 977"} {
		if strings.Contains(string(report), secret) || strings.Contains(fmt.Sprintf("%+v %#v", out, out), secret) {
			t.Errorf("%q is told", secret)
		}
	}
}
