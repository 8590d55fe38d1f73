package initrd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// volumeSite is a machine with one device, a file. cryptsetup and wipefs are real, but
// for what needs device-mapper: a device that is unlocked is written down in a sysfs.
type volumeSite struct {
	t     *testing.T
	image string
	state string
}

const (
	quickKDF = "--pbkdf=pbkdf2 --pbkdf-force-iterations=1000"
	small    = "--luks2-metadata-size=16k --luks2-keyslots-size=1m" // a header that is soon written
	volKey   = "canary-9d2c"
)

func newVolumeSite(t *testing.T) *volumeSite {
	t.Helper()
	s := &volumeSite{t, filepath.Join(t.TempDir(), "disk.img"), t.TempDir()}
	for _, dir := range []string{"block", "dev/block/0:0"} { // the number of what is a file
		if err := os.MkdirAll(filepath.Join(s.state, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.blank()
	return s
}

// blank gives the device back as it came from the factory.
func (s *volumeSite) blank() {
	s.t.Helper()
	if err := errors.Join(os.RemoveAll(s.image), os.WriteFile(s.image, nil, 0o600), os.Truncate(s.image, 20<<20)); err != nil {
		s.t.Fatal(err)
	}
}

// standIns are programs before the real ones. Each of them first looks whether it is the call
// that shall fail: "$state/fail" has a number, and whether before or after the deed.
const standIns = `
state=%[1]s
echo "$(basename $0) $*" >> $state/log
n=$(($(cat $state/calls 2>/dev/null || echo 0) + 1)); echo $n > $state/calls
read -r at when < $state/fail 2>/dev/null || at=
if [ "$n $when" = "$at before" ]; then exit 99; fi
end() { if [ "$n $when" = "$at after" ]; then exit 99; fi; exit 0; }
`

const cryptsetupStandIn = `
dir=$state/block/dm-0
case $1 in
luksOpen)
	%[2]s open --test-passphrase --key-file "$5" "$2" || exit 2
	mkdir -p $dir/dm $dir/slaves/$(basename $2)
	echo "CRYPT-LUKS2-x-$3" > $dir/dm/uuid; echo $3 > $dir/dm/name ;;
luksClose) rm -r $dir ;;
luksFormat)
	if [ -e $state/kill ]; then
		# The derivation of the key takes longer than this.
		timeout --signal=KILL 0.3 %[2]s "$@" --pbkdf-force-iterations=100000000 || exit 99
	fi
	%[2]s "$@" || exit 1 ;;
*) %[2]s "$@" || exit 1 ;;
esac
end
`

// machine is a boot: with run, the one that left that directory.
func (s *volumeSite) machine(run string) *Machine {
	s.t.Helper()
	m, err := NewMachine(run, &resource.Client{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { m.Close() })
	m.TPM = filepath.Join(run, "no-tpm")
	m.Disks = disk.System{Sys: os.DirFS(s.state), Run: fstest.MapFS{}, Dev: "/dev", Open: func(node string) (disk.ReaderAtCloser, error) { return os.Open(node) }}
	real, err := exec.LookPath("cryptsetup")
	if err != nil {
		s.t.Fatal(err)
	}
	begin := fmt.Sprintf(standIns, s.state)
	program(s.t, m, "cryptsetup", begin+fmt.Sprintf(cryptsetupStandIn, "", real))
	program(s.t, m, "dmsetup", `echo "0 8 crypt aes-xts-plain64 :64:logon:x 0 7:0 32768"`)
	program(s.t, m, "clevis", begin+fmt.Sprintf(`
case $2 in
bind)
	printf bound > $state/new
	%[1]s luksAddKey --batch-mode %[2]s --key-file "$5" "$7" $state/new
	echo '{"type":"clevis","keyslots":[]}' | %[1]s token import "$7" ;;
unlock)
	printf bound | %[1]s open --test-passphrase --key-file=- "$4" || exit 1
	mkdir -p $state/block/dm-0/dm $state/block/dm-0/slaves/$(basename $4)
	echo "CRYPT-LUKS2-x-$6" > $state/block/dm-0/dm/uuid; echo $6 > $state/block/dm-0/dm/name ;;
esac
end
`, real, quickKDF))
	return m
}

func (s *volumeSite) write(name, text string) {
	s.t.Helper()
	write(s.t, filepath.Join(s.state, name), text)
}

func (s *volumeSite) forget(names ...string) {
	s.t.Helper()
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(s.state, n)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// powerCut is what a reboot leaves: nothing is unlocked.
func (s *volumeSite) powerCut() { s.forget("block/dm-0", "calls", "fail", "kill") }

func (s *volumeSite) calls() []string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.state, "log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// facts are what there is to compare of a volume: its header, how many keys it has, and
// whether it is unlocked.
func (s *volumeSite) facts() string {
	s.t.Helper()
	l, err := s.machine(s.t.TempDir()).Disks.LUKS(s.image)
	if err != nil {
		return err.Error()
	}
	var types []string
	for _, raw := range l.Tokens {
		var token struct{ Type, Wish string }
		if err := json.Unmarshal(raw, &token); err != nil {
			s.t.Fatal(err)
		}
		types = append(types, token.Type+" "+token.Wish)
	}
	slices.Sort(types)
	out, err := exec.Command("cryptsetup", "luksDump", "--dump-json-metadata", s.image).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	var dump struct{ Keyslots map[string]any }
	if err := json.Unmarshal(out, &dump); err != nil {
		s.t.Fatal(err)
	}
	_, err = os.Stat(filepath.Join(s.state, "block/dm-0"))
	return fmt.Sprintf("label %q subsystem %q tokens %q keys %d unlocked %v", l.Label, l.Subsystem, types, len(dump.Keyslots), err == nil)
}

func (s *volumeSite) wish() Volume {
	label := "data"
	return Volume{Name: "data", Device: s.image, Label: &label, Options: strings.Fields(quickKDF + " " + small), Provision: "0a3c7d2e-5b1f-4a6d-8c9e-7f0123456789"}
}

// volumeWishes are the ways in which a volume is opened, without a TPM.
func (s *volumeSite) wishes() map[string]Volume {
	keyed, generated, bound, both := s.wish(), s.wish(), s.wish(), s.wish()
	keyed.Key, both.Key = inline(volKey), inline(volKey)
	clevis := &Clevis{Pin: "sss", Config: resource.NewSecret(`{"pins":{}}`), Test: true}
	bound.Clevis, both.Clevis = clevis, clevis
	return map[string]Volume{"key of the config": keyed, "generated key": generated, "clevis": bound, "clevis beside a key": both}
}

func TestVolumeIsMadeOnceAndKnown(t *testing.T) {
	for name, keys := range map[string]int{"key of the config": 1, "generated key": 1, "clevis": 1, "clevis beside a key": 2} {
		t.Run(name, func(t *testing.T) {
			s := newVolumeSite(t)
			v := s.wishes()[name]
			run := t.TempDir()
			settle(t, s.machine(run), v)
			token := fmt.Sprintf("%q", "pilotlight "+v.digest())
			if v.Clevis != nil {
				token = `"clevis " ` + token
			}
			if got, want := s.facts(), fmt.Sprintf(`label "data" subsystem "" tokens [%s] keys %d unlocked true`, token, keys); got != want {
				t.Errorf("%s\nwant %s", got, want)
			}
			key, err := os.ReadFile(filepath.Join(run, keyDir, "data"))
			switch {
			case v.Clevis != nil && err == nil:
				t.Error("a key was kept that nobody needs")
			case v.Clevis == nil && err != nil:
				t.Error(err)
			case v.Key != nil && v.Clevis == nil && string(key) != volKey:
				t.Errorf("key %q", key)
			case v.Key == nil && v.Clevis == nil && len(key) != 2*keyBytes:
				t.Errorf("key %q", key)
			}
			for _, line := range s.calls() {
				if strings.Contains(line, volKey) || len(key) > 0 && strings.Contains(line, string(key)) {
					t.Errorf("a key is an argument: %s", line)
				}
			}
			if left, err := filepath.Glob(filepath.Join(run, "key-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q %v", left, err)
			}
			// Another process of the same boot.
			before := len(s.calls())
			settle(t, s.machine(run), v)
			if after := s.calls(); len(after) != before {
				t.Errorf("it was made again: %q", after[before:])
			}
		})
	}
}

// TestVolumeKilledAnywhere lets each program fail before and after its deed, in the same boot and before a reboot.
func TestVolumeKilledAnywhere(t *testing.T) {
	for name := range newVolumeSite(t).wishes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newVolumeSite(t)
			v := s.wishes()[name]
			settle(t, s.machine(t.TempDir()), v)
			want, total := s.facts(), len(s.calls())
			for n := 1; n <= total; n++ {
				for _, when := range []string{"before", "after"} {
					for _, reboot := range []bool{false, true} {
						if when == "before" && reboot {
							continue // as after the call before it
						}
						s.blank()
						s.powerCut()
						s.write("fail", fmt.Sprintf("%d %s\n", n, when))
						run := t.TempDir()
						if _, err := apply(t, s.machine(run), v); err == nil {
							t.Fatalf("%s call %d: nothing failed", when, n)
						}
						s.forget("fail", "calls")
						if reboot {
							s.powerCut()
							run = t.TempDir()
						}
						what := fmt.Sprintf("failed %s call %d, reboot %v", when, n, reboot)
						if _, err := apply(t, s.machine(run), v); err != nil {
							t.Fatalf("%s: %v\n%s", what, err, s.facts())
						}
						if got := s.facts(); got != want {
							t.Errorf("%s: %s\nwant %s", what, got, want)
						}
					}
				}
			}
		})
	}
}

// TestVolumeKilledInLuksFormat kills cryptsetup while it derives the key.
func TestVolumeKilledInLuksFormat(t *testing.T) {
	s := newVolumeSite(t)
	v := s.wishes()["key of the config"]
	settle(t, s.machine(t.TempDir()), v)
	want := s.facts()
	s.blank()
	s.powerCut()
	s.write("kill", "")
	_, err := apply(t, s.machine(t.TempDir()), v)
	var p *ProgramError
	if !errors.As(err, &p) || p.Name != "cryptsetup" || p.Code != 99 {
		t.Fatal(err)
	}
	s.powerCut()
	m := s.machine(t.TempDir())
	l, err := m.Disks.LUKS(s.image)
	if err != nil || l.Subsystem != v.begun() {
		t.Errorf("%+v %v", l, err)
	}
	_, act, err := v.Resolve(m.Look(t.Context()))
	if err != nil || !strings.Contains(act.String(), "half made") {
		t.Errorf("%v %v", act, err)
	}
	// To anybody else it is no volume that could be used.
	other := v
	other.Provision = "11111111-5b1f-4a6d-8c9e-7f0123456789"
	if _, _, err := other.Resolve(m.Look(t.Context())); err == nil || !strings.Contains(err.Error(), "half made") {
		t.Errorf("%v", err)
	}
	settle(t, m, v)
	if got := s.facts(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestVolumeAfterAReboot that came before the record was complete.
func TestVolumeAfterAReboot(t *testing.T) {
	for name, again := range map[string]bool{"key of the config": false, "generated key": true, "clevis": false, "clevis beside a key": false} {
		s := newVolumeSite(t)
		v := s.wishes()[name]
		settle(t, s.machine(t.TempDir()), v)
		s.powerCut()
		before := len(s.calls())
		run := t.TempDir()
		settle(t, s.machine(run), v)
		if got := slices.ContainsFunc(s.calls()[before:], func(l string) bool { return strings.Contains(l, "luksFormat") }); got != again {
			t.Errorf("%s: made again: %v", name, got)
		}
		if _, err := os.Stat(filepath.Join(run, keyDir, "data")); (err == nil) != (v.Clevis == nil) {
			t.Errorf("%s: key: %v", name, err)
		}
	}
}

func TestVolumeArgv(t *testing.T) {
	label, uuid := "l", "u"
	v := Volume{Name: "n", Device: "/dev/d", Label: &label, UUID: &uuid, Options: []string{"--cipher", "aes", "--subsystem=own"}, OpenOptions: []string{"--perf-no_read_workqueue"}, Discard: true, Provision: "p"}
	a := makeVolume{Volume: v, node: "/dev/d1"}
	for _, c := range []struct {
		got  []string
		want string
	}{
		{a.format("K"), "cryptsetup luksFormat --batch-mode --type luks2 --key-file K --label l --uuid u --cipher aes --subsystem=own --subsystem pilotlight:p /dev/d1"},
		{a.luksOpen(a.node, "K"), "cryptsetup luksOpen /dev/d1 n --key-file K --persistent --allow-discards --perf-no_read_workqueue"},
		{a.complete(), "cryptsetup config /dev/d1 --label l --subsystem own"},
		{Clevis{Pin: "sss", Config: resource.NewSecret("{}")}.bindArgv("/dev/d1", "K"), "clevis luks bind -f -k K -d /dev/d1 sss {}"},
		{clevisUnlock("/dev/d1", "n"), "clevis luks unlock -d /dev/d1 -n n"},
		{Enrolment{PCRs: []int{7, 14}}.tpmArgv("/dev/d1", "K"), "systemd-cryptenroll --unlock-key-file=K --tpm2-device=auto --tpm2-pcrs=7+14 --tpm2-public-key-pcrs= --tpm2-pcrlock= --tpm2-with-pin=no /dev/d1"},
		{Enrolment{PIN: resource.NewSecret("1")}.tpmArgv("/dev/d1", "K"), "systemd-cryptenroll --unlock-key-file=K --tpm2-device=auto --tpm2-pcrs= --tpm2-public-key-pcrs= --tpm2-pcrlock= --tpm2-with-pin=yes /dev/d1"},
		{recoveryArgv("/dev/d1", "K"), "systemd-cryptenroll --unlock-key-file=K --recovery-key /dev/d1"},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}
