package stages

import (
	"encoding/hex"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/initrd"
)

// ignition is a config without our section.
func ignition(text string) string { return `{"ignition":{"version":"3.5.0"},` + text + `}` }

// at gives where the first step of a text is in a list, -1 if nowhere.
func at(steps []initrd.Step, text string) int {
	return slices.IndexFunc(steps, func(s initrd.Step) bool { return s.String() == text })
}

// mustWait says whether Run keeps two steps in their order: they touch the same, or one
// a parent of what the other touches.
func mustWait(a, b initrd.Step) bool {
	for _, x := range a.Touches() {
		for _, y := range b.Touches() {
			if x == y || strings.HasPrefix(x, "/") && (strings.HasPrefix(x, y+"/") || strings.HasPrefix(y, x+"/")) {
				return true
			}
		}
	}
	return false
}

func TestWithoutOurSectionNothingIsGenerated(t *testing.T) {
	text := `"storage":{"files":[{"path":"/etc/f","contents":{"source":"data:,x"}}]},
		"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Install]\nWantedBy=multi-user.target\n"}]}`
	got := etcTexts(t, want(t, Etc, first(t, ignition(text))))
	if want := []string{"file /etc/f", "file /etc/systemd/system/a.service", "file " + PresetFile}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	got = etcTexts(t, want(t, Etc, first(t, ignition(text+`,"pilotlight":{"version":"1"}`))))
	if want := []string{
		"file /etc/f", "file /etc/systemd/system/a.service", "file " + PresetFile,
		"system users by sysusers.d", "files by tmpfiles.d", "machine id in /etc/machine-id, presets applied", "presets of a.service",
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// No presets of the config: no file, and none applied.
	got = etcTexts(t, want(t, Etc, first(t, section(`"network":[]`))))
	if want := []string{"system users by sysusers.d", "files by tmpfiles.d", "machine id in /etc/machine-id, presets applied"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestNamedOwnersComeAfterTheUsers, and stay there although steps overlap.
func TestNamedOwnersComeAfterTheUsers(t *testing.T) {
	steps := want(t, Etc, first(t, ignition(`"storage":{
		"directories":[{"path":"/srv/web","user":{"name":"web"}},{"path":"/srv/num","user":{"id":5}},{"path":"/srv/root","user":{"name":"root"},"group":{"name":"root"}}],
		"files":[{"path":"/srv/web/f","group":{"name":"web"},"contents":{"source":"data:,x"}},{"path":"/srv/plain","contents":{"source":"data:,x"}}],
		"links":[
			{"path":"/srv/l","target":"x","user":{"name":"web"}},
			{"path":"/a","target":"/srv/plain","hard":true},
			{"path":"/b","target":"/srv/web/f","hard":true},
			{"path":"/c","target":"/b","hard":true}]},
		"pilotlight":{"version":"1","etc":{"sysusers":[{"name":"web.conf","contents":{"inline":"u web"}}]}}`)))
	users := at(steps, "system users by sysusers.d")
	tmpfiles := at(steps, "files by tmpfiles.d")
	for text, after := range map[string]bool{
		"directory /srv/web": true, "file /srv/web/f": true, "link /srv/l to x": true,
		"hard link /b to /srv/web/f": true, "hard link /c to /b": true,
		"directory /srv/num": false, "directory /srv/root": false, "file /srv/plain": false, "hard link /a to /srv/plain": false,
		"file /etc/sysusers.d/web.conf": false,
	} {
		i := at(steps, text)
		if i < 0 || i > users != after || i > tmpfiles {
			t.Errorf("%s is step %d; the users are made in step %d of %q", text, i, users, texts(steps))
			continue
		}
		if after && !strings.HasPrefix(text, "hard") && !mustWait(steps[users], steps[i]) {
			t.Errorf("%s may overlap with the making of users", text)
		}
	}
	// What a hard link leads to is there before it.
	for _, text := range []string{"hard link /a to /srv/plain", "hard link /b to /srv/web/f", "hard link /c to /b"} {
		l := steps[at(steps, text)].(initrd.Link)
		target := slices.IndexFunc(steps, func(s initrd.Step) bool { return s.Touches()[0] == initrd.BootRoot+l.Target })
		if target > at(steps, text) || !mustWait(steps[target], l) {
			t.Errorf("%s is before its target, %s", text, steps[target])
		}
	}
	// Two that only read the users need not wait for each other.
	if mustWait(steps[at(steps, "directory /srv/web")], steps[at(steps, "link /srv/l to x")]) {
		t.Error("readers of the users wait for each other")
	}
	// The files of sysusers.d are read from the target.
	if !mustWait(steps[at(steps, "file /etc/sysusers.d/web.conf")], steps[users]) {
		t.Error("users may be made before their file is written")
	}
	if f := (initrd.File{Root: initrd.BootRoot, Path: "/usr/lib/sysusers.d/x.conf"}); !mustWait(f, steps[users]) {
		t.Error("users may be made before their file in /usr is written")
	}
}

func TestParentsComeFirst(t *testing.T) {
	steps := want(t, Etc, first(t, ignition(`"storage":{
		"directories":[{"path":"/a/b/c"},{"path":"/a"},{"path":"/a/b"}],
		"files":[{"path":"/a/b/f","contents":{"source":"data:,x"}},{"path":"/f","contents":{"source":"data:,x"}}],
		"links":[{"path":"/a/l","target":"/f"},{"path":"/h","target":"/a/b/f","hard":true}]}`)))
	if got, want := etcTexts(t, steps), []string{
		"directory /a", "file /f", "directory /a/b", "link /a/l to /f", "directory /a/b/c", "file /a/b/f", "hard link /h to /a/b/f",
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestUnits(t *testing.T) {
	const install = `"[Install]\nWantedBy=multi-user.target\n"`
	for name, c := range map[string]struct {
		units string
		want  []string
		lines string // of the preset file
	}{
		"a unit":                 {`{"name":"a.service","contents":` + install + `}`, []string{"file /etc/systemd/system/a.service"}, ""},
		"enabled":                {`{"name":"a.service","enabled":true,"contents":` + install + `}`, []string{"file /etc/systemd/system/a.service", "file " + PresetFile}, "enable a.service\n"},
		"of the image":           {`{"name":"a.service","enabled":false}`, []string{"file " + PresetFile, "unit a.service not enabled"}, "disable a.service\n"},
		"masked":                 {`{"name":"a.service","mask":true}`, []string{"link /etc/systemd/system/a.service to /dev/null"}, ""},
		"masked with contents":   {`{"name":"a.service","mask":true,"contents":` + install + `}`, []string{"link /etc/systemd/system/a.service to /dev/null"}, ""},
		"not masked":             {`{"name":"a.service","mask":false}`, []string{"unit a.service not masked"}, ""},
		"written, so not masked": {`{"name":"a.service","mask":false,"contents":` + install + `}`, []string{"file /etc/systemd/system/a.service"}, ""},
		"empty contents":         {`{"name":"a.service","contents":""}`, nil, ""},
		"drop-ins": {
			`{"name":"a@.service","dropins":[{"name":"1.conf","contents":"[Unit]\n"},{"name":"2.conf"},{"name":"4.conf","contents":""},{"name":"3.conf","contents":"[Service]\n"}]}`,
			[]string{"file /etc/systemd/system/a@.service.d/1.conf", "file /etc/systemd/system/a@.service.d/4.conf", "file /etc/systemd/system/a@.service.d/3.conf"}, "",
		},
		"several": {
			`{"name":"b.service","enabled":true,"contents":` + install + `},{"name":"a@x.service","enabled":true},{"name":"c.timer","enabled":false}`,
			[]string{"file /etc/systemd/system/b.service", "file " + PresetFile, "unit c.timer not enabled"}, "enable a@.service x\nenable b.service\ndisable c.timer\n",
		},
	} {
		steps := want(t, Etc, first(t, ignition(`"systemd":{"units":[`+c.units+`]}`)))
		if got := etcTexts(t, steps); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		for _, s := range steps {
			switch s := s.(type) {
			case initrd.File:
				if !s.Overwrite || s.Mode == nil || *s.Mode != 0o644 || s.Owner != (initrd.Owner{}) || s.Root != initrd.BootRoot {
					t.Errorf("%s: %+v", name, s)
				}
				if s.Path == PresetFile && s.Contents.Inline.Reveal() != c.lines {
					t.Errorf("%s: %q, want %q", name, s.Contents.Inline.Reveal(), c.lines)
				}
			case initrd.Link:
				if !s.Overwrite || s.Hard {
					t.Errorf("%s: %+v", name, s)
				}
			}
		}
	}
}

// TestMachineIDFollowsFromTheProvision: a value is pinned, since machines have it.
func TestMachineIDFollowsFromTheProvision(t *testing.T) {
	const derived = "eac9ddfc39524622aab2d4507c6ae6bd"
	if got := machineID(provision); got != derived || got != machineID(provision) {
		t.Errorf("%s, want %s", got, derived)
	}
	seen := map[string]bool{}
	for _, p := range []string{provision, "", "0a3c7d2e-5b1f-4a6d-8c9e-7f0123456788"} {
		id := machineID(p)
		b, err := hex.DecodeString(id)
		if err != nil || len(b) != 16 || id != strings.ToLower(id) || seen[id] {
			t.Errorf("%q: %s %v", p, id, err)
		}
		// machine-id(5): a version 4 UUID of the usual variant.
		if b[6]>>4 != 4 || b[8]>>6 != 2 {
			t.Errorf("%q: %s is no version 4 UUID", p, id)
		}
		seen[id] = true
	}
	in := first(t, section(`"network":[]`))
	for _, boot := range []Boot{First, Interrupted, Later} {
		for given, id := range map[string]string{"": derived, "00112233445566778899aabbccddeeff": "00112233445566778899aabbccddeeff"} {
			in.Facts.Boot, in.Facts.MachineID = boot, given
			for _, s := range unwrapped(want(t, Etc, in)) {
				if i, ok := s.(initrd.Identity); ok && i.ID != id {
					t.Errorf("%s, given %q: %s, want %s", boot, given, i.ID, id)
				}
			}
		}
	}
}

// unwrapped gives the wishes within MadeAnew.
func unwrapped(steps []initrd.Step) []initrd.Step {
	var list []initrd.Step
	for _, s := range steps {
		if w, ok := s.(initrd.MadeAnew); ok {
			s = w.Step
		}
		list = append(list, s)
	}
	return list
}

// TestLaterBootsMakeAnewWhatDidNotLast: the same wishes, each but the credentials only
// where /etc does not outlive a boot.
func TestLaterBootsMakeAnewWhatDidNotLast(t *testing.T) {
	in := first(t, ignition(`"storage":{"files":[{"path":"/etc/f","contents":{"source":"data:,x"}}]},
		"pilotlight":{"version":"1","etc":{"credentials":[{"name":"c","contents":{"inline":"x"}}]}}`))
	before := want(t, Etc, in)
	in.Facts.Boot = Later
	later := want(t, Etc, in)
	if !reflect.DeepEqual(unwrapped(later), before) {
		t.Errorf("%q, and on the first boot %q", texts(later), texts(before))
	}
	credentials := 0
	for _, s := range later {
		switch s := s.(type) {
		case initrd.MadeAnew:
			if s.Root != initrd.BootRoot {
				t.Errorf("%+v", s)
			}
		case initrd.Credential:
			credentials++ // what is in /run is gone with every boot
		default:
			t.Errorf("%s is wished at every boot", s)
		}
	}
	if credentials != 1 {
		t.Errorf("%d credentials", credentials)
	}
}

func TestCredentialsSayWhoTheyAreFor(t *testing.T) {
	steps := want(t, Etc, first(t, section(`"etc":{"credentials":[
		{"name":"a","contents":{"inline":"x"}},{"name":"b","scope":"initrd","encrypted":true,"contents":{"inline":"x"}}]}`)))
	a, b := steps[0].(initrd.Credential), steps[1].(initrd.Credential)
	if a.Scope != "host" || a.Encrypted || a.Root != initrd.BootRoot || b.Scope != "initrd" || !b.Encrypted {
		t.Errorf("%+v %+v", a, b)
	}
	if users := steps[at(steps, "system users by sysusers.d")]; !mustWait(b, users) {
		t.Error("users may be made before their credentials are there")
	}
	if tmpfiles := steps[at(steps, "files by tmpfiles.d")]; !mustWait(b, tmpfiles) {
		t.Error("tmpfiles may run before its credentials are there")
	}
}

// TestTheEndWaitsForAll: tmpfiles, identity and presets look at what came before.
func TestTheEndWaitsForAll(t *testing.T) {
	steps := want(t, Etc, first(t, ignition(`"storage":{"files":[{"path":"/opt/f","contents":{"source":"data:,x"}},{"path":"/etc/f","contents":{"source":"data:,x"}}]},
		"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Install]\nWantedBy=multi-user.target\n"}]},"pilotlight":{"version":"1"}`)))
	tmpfiles := at(steps, "files by tmpfiles.d")
	for i, s := range steps[:tmpfiles] {
		if !mustWait(s, steps[tmpfiles]) {
			t.Errorf("tmpfiles may overlap with step %d, %s", i, s)
		}
	}
	for i := tmpfiles; i+1 < len(steps); i++ {
		if !mustWait(steps[i], steps[i+1]) {
			t.Errorf("%s may overlap with %s", steps[i+1], steps[i])
		}
	}
}

func TestModes(t *testing.T) {
	if got := mode(nil); got != nil {
		t.Errorf("%v", got)
	}
	for in, want := range map[int]fs.FileMode{
		0: 0, 0o644: 0o644, 0o7777: 0o777, 0o4755: 0o755, 0o2750: 0o750, 0o1777: 0o777,
	} {
		if got := mode(&in); *got != want {
			t.Errorf("%o: %v, want %v", in, *got, want)
		}
	}
}

func TestOwners(t *testing.T) {
	n, web, root := 42, "web", "root"
	for _, c := range []struct {
		node  types.Node
		want  initrd.Owner
		named bool
	}{
		{types.Node{}, initrd.Owner{AnyUID: true, AnyGID: true}, false},
		{types.Node{User: types.NodeUser{ID: &n}, Group: types.NodeGroup{ID: &n}}, initrd.Owner{UID: 42, GID: 42}, false},
		{types.Node{User: types.NodeUser{Name: &web}}, initrd.Owner{User: "web", AnyGID: true}, true},
		{types.Node{Group: types.NodeGroup{Name: &web}}, initrd.Owner{Group: "web", AnyUID: true}, true},
		{types.Node{User: types.NodeUser{ID: &n, Name: &web}, Group: types.NodeGroup{ID: &n, Name: &web}}, initrd.Owner{UID: 42, GID: 42}, false},
		{types.Node{User: types.NodeUser{ID: &n}, Group: types.NodeGroup{Name: &web}}, initrd.Owner{UID: 42, Group: "web"}, true},
		{types.Node{User: types.NodeUser{Name: &root}, Group: types.NodeGroup{Name: &root}}, initrd.Owner{User: "root", Group: "root"}, false},
	} {
		if got := owner(c.node); got != c.want || got.Named() != c.named {
			t.Errorf("%+v: %+v, named: %v", c.node, got, got.Named())
		}
	}
}

// TestFilesKeepTheWordsOfTheConfig: what is not said is not made up.
func TestFilesKeepTheWordsOfTheConfig(t *testing.T) {
	steps := want(t, Etc, first(t, ignition(`"storage":{"files":[
		{"path":"/a"},
		{"path":"/b","overwrite":true,"contents":{"source":""}},
		{"path":"/c","contents":{"source":"https://boot.example/c","compression":"gzip","httpHeaders":[{"name":"X-A","value":"v"}]}},
		{"path":"/d","append":[{"source":"data:,1"},{"source":"data:,2"}]}]}`)))
	a, b, c, d := steps[0].(initrd.File), steps[1].(initrd.File), steps[2].(initrd.File), steps[3].(initrd.File)
	if a.Contents != nil || a.Mode != nil || a.Overwrite {
		t.Errorf("%+v", a)
	}
	if b.Contents == nil || !b.Overwrite {
		t.Errorf("%+v", b)
	} else if text, err := b.Contents.Local(); len(text) != 0 || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if !c.Contents.Remote() || c.Contents.Compression != "gzip" || len(c.Contents.Headers) != 1 || c.Contents.Headers[0].Value.Reveal() != "v" {
		t.Errorf("%+v", c.Contents)
	}
	if d.Contents != nil || len(d.Append) != 2 {
		t.Errorf("%+v", d)
	}
}
