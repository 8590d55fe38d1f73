package initrd

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestVolumeOfAnotherConfig is made again where the boot that made it did not come to its end.
func TestVolumeOfAnotherConfig(t *testing.T) {
	s := newVolumeSite(t)
	wishes := s.wishes()
	settle(t, s.machine(t.TempDir()), wishes["clevis"])
	s.powerCut()
	m := s.machine(t.TempDir())
	stranger := wishes["generated key"]
	stranger.Provision = "11111111-5b1f-4a6d-8c9e-7f0123456789"
	for _, provision := range []string{stranger.Provision, ""} {
		stranger.Provision = provision
		if _, act, err := stranger.Resolve(m.Look(t.Context())); err == nil {
			t.Errorf("provision %q: %v", provision, act)
		}
	}
	settle(t, m, wishes["generated key"])
	if got := s.facts(); !strings.Contains(got, wishes["generated key"].digest()) || strings.Contains(got, "clevis") {
		t.Error(got)
	}
}

// TestVolumeIsUsedAgain by Ignition's rules, or left as it is.
func TestVolumeIsUsedAgain(t *testing.T) {
	format := func(s *volumeSite, args ...string) {
		t.Helper()
		argv := slices.Concat([]string{"luksFormat", "--batch-mode", "--key-file=-"}, strings.Fields(quickKDF), args, []string{s.image})
		cmd := exec.Command("cryptsetup", argv...)
		cmd.Stdin = strings.NewReader(volKey)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	const uuid = "5a9dd0f6-0f4b-4b3e-9d7c-0d6d5e0a3b11"
	of := func(s string) *string { return &s }
	luks2 := []string{"--type=luks2", "--label=data", "--uuid=" + uuid}
	for name, c := range map[string]struct {
		have []string // how it was formatted; nil: an ext4
		wish func(*Volume)
		deed string // beginning of it
		lost bool
		err  string
	}{
		"the same":               {luks2, func(v *Volume) { v.UUID = of(uuid) }, "unlock ", false, ""},
		"label not said":         {luks2, func(v *Volume) { v.Label = nil }, "unlock ", false, ""},
		"another label":          {luks2, func(v *Volume) { v.Label = of("x") }, "", false, `its label is "data", not "x"`},
		"another UUID":           {luks2, func(v *Volume) { v.UUID = of("6" + uuid[1:]) }, "", false, "its UUID is " + uuid},
		"discards":               {luks2, func(v *Volume) { v.Discard = true }, "", false, "discards"},
		"no key":                 {luks2, func(v *Volume) { v.Key = nil }, "", false, "no key for it"},
		"clevis":                 {luks2, func(v *Volume) { v.Clevis = &Clevis{} }, "", false, "bound to is not known"},
		"LUKS 1":                 {[]string{"--type=luks1"}, func(*Volume) {}, "", false, "LUKS 1"},
		"a file system":          {nil, func(*Volume) {}, "", false, "there is ext4 (UUID "},
		"a file system, wiped":   {nil, func(v *Volume) { v.Wipe = true }, "make ", true, ""},
		"another label, wiped":   {luks2, func(v *Volume) { v.Label, v.Wipe = of("x"), true }, "make ", true, ""},
		"LUKS 1, wiped":          {[]string{"--type=luks1"}, func(v *Volume) { v.Wipe = true }, "make ", true, ""},
		"the key of the another": {luks2, func(v *Volume) { v.Key = inline("another") }, "unlock ", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newVolumeSite(t)
			if c.have != nil {
				format(s, c.have...)
			} else if out, err := exec.Command("mkfs.ext4", "-q", s.image).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			v := s.wish()
			v.Key = inline(volKey)
			c.wish(&v)
			before := contentOf(t, s.image)
			m := s.machine(t.TempDir())
			state, act, err := v.Resolve(m.Look(t.Context()))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "wipeVolume") || state != unresolved {
					t.Errorf("%v %v", state, err)
				}
				if contentOf(t, s.image) != before {
					t.Error("what was there is not there any more")
				}
				return
			}
			if err != nil || !strings.HasPrefix(act.String(), c.deed) {
				t.Fatalf("%v %v", act, err)
			}
			if effect, lost := act.(Affecting).Effect(); (effect == Destroys) != c.lost || (len(lost) > 0) != c.lost {
				t.Errorf("%v %q", effect, lost)
			}
			if name == "the key of the another" {
				if err := act.do(t.Context(), m); err == nil || !strings.Contains(err.Error(), "does not open it") {
					t.Error(err)
				}
				return
			}
			settle(t, m, v)
			if v.Wipe {
				if l, err := m.Disks.LUKS(s.image); err != nil || l.Version != 2 || !v.ours(m.Look(t.Context()), l) {
					t.Errorf("%+v %v", l, err)
				}
			}
			settle(t, s.machine(t.TempDir()), v)
		})
	}
}
