package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/stages"
)

func TestMachineIDThatIsGiven(t *testing.T) {
	const id = "00112233445566778899aabbccddeeff"
	credential := func(text string) fs.FS {
		return fstest.MapFS{"system.machine_id": {Data: []byte(text)}}
	}
	for name, c := range map[string]struct {
		cmdline     string
		credentials fs.FS
		want        string
		bad         bool
	}{
		"none":                      {"quiet", nil, "", false},
		"an argument":               {"a systemd.machine_id=" + id + " b", nil, id, false},
		"the last one counts":       {"systemd.machine_id=x systemd.machine_id=" + id, nil, id, false},
		"with dashes and capitals":  {"systemd.machine_id=00112233-4455-6677-8899-AABBCCDDEEFF", nil, id, false},
		"left to PID 1":             {"systemd.machine_id=firmware", nil, "", false},
		"too short":                 {"systemd.machine_id=0011", nil, "", true},
		"a credential":              {"", credential(id + "\n"), id, false},
		"an argument before it":     {"systemd.machine_id=" + id, credential("x"), id, false},
		"credentials, but not this": {"", fstest.MapFS{}, "", false},
		"a credential that is none": {"", credential("x"), "", true},
		"one that cannot be read":   {"", fstest.MapFS{"system.machine_id": {Mode: fs.ModeDir}}, "", true},
	} {
		if got, err := givenMachineID(c.cmdline, c.credentials); got != c.want || c.bad != (err != nil) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

// document is a config of a test with one place that can fail.
const document = `{"ignition": {"version": "3.4.0"},
"storage": {"files": [{"path": "/etc/f"}]},
"pilotlight": {"version": "1", "verity": [{"name": "usr"}]}}`

func TestFailureSaysWhereInTheConfig(t *testing.T) {
	list := []config.Document{{Name: "user", Bytes: []byte(document)}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&initrd.Error{Step: initrd.File{Path: "/etc/f"}, Err: errors.New("x")}, "user:2:23: $.storage.files.0"},
		{fmt.Errorf("a: %w", &initrd.Error{Step: initrd.MadeAnew{Step: initrd.File{Path: "/etc/f"}}}), "user:2:23: $.storage.files.0"},
		{&initrd.Error{Step: initrd.Sysusers{}}, ""},
		{&initrd.Error{Step: initrd.File{Path: "/etc/g"}}, ""},
		{&stages.Error{List: "verity", Name: "usr", Err: errors.New("x")}, "user:3:43: $.pilotlight.verity.0"},
		{&config.InvalidError{Report: config.Report{
			{Severity: config.Warning, Document: "w", Line: 1, Column: 1, Path: "$"},
			{Severity: config.Error, Document: "user", Line: 7, Column: 8, Path: "$.a"}}}, "user:7:8: $.a"},
		{errors.New("x"), ""},
	} {
		if got := where(c.err, list); got != c.want {
			t.Errorf("%v is at %q, want %q", c.err, got, c.want)
		}
	}
}

// TestFrozenConfigIsReadWithoutAnyFetch, and is what it was when it was frozen.
func TestFrozenConfigIsReadWithoutAnyFetch(t *testing.T) {
	parent := `{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"http://192.0.2.1/a"},{"source":"http://192.0.2.1/b"}]}}}`
	child := `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/%s"}]}}`
	f := initrd.Frozen{Boot: "first", Platform: "metal", Provision: "p", Documents: []initrd.Document{
		{Name: initrd.BasePrefix + "10.ign", Bytes: []byte(`{"ignition":{"version":"3.4.0"}}`)},
		{Name: config.UserDocument, Bytes: []byte(parent)},
		{Name: "child-0001", Bytes: fmt.Appendf(nil, child, "a")},
		{Name: "child-0002", Bytes: fmt.Appendf(nil, child, "b")},
	}}
	got, err := read(t.Context(), f, false)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.config.Ignition.Storage.Files); n != 2 {
		t.Errorf("%d files", n)
	}
	in := got.input()
	if in.Facts.Boot != stages.First || in.Facts.Platform != "metal" || in.Facts.Root != initrd.BootRoot || in.Facts.Digest != f.Digest() {
		t.Errorf("%+v", in.Facts)
	}
	// What came with the image is not from outside, and is not measured.
	if len(in.Documents) != 3 || in.Documents[0].Name != config.UserDocument || in.Documents[2].Name != "child-0002" {
		t.Errorf("measured: %+v", in.Documents)
	}
	f.Documents = f.Documents[:3]
	if _, err := read(t.Context(), f, false); err == nil || !strings.Contains(err.Error(), "frozen by another version") {
		t.Errorf("a document is missing: %v", err)
	}
}

// TestPartsStandInForWhatIsRemote, and are not optional.
func TestPartsStandInForWhatIsRemote(t *testing.T) {
	f := initrd.Frozen{Documents: []initrd.Document{{Name: config.UserDocument, Bytes: []byte(
		`{"ignition":{"version":"3.4.0"},"pilotlight":{"version":"1","repart":[{"name":"a","device":"boot","definitions":[{"name":"1.conf","contents":{"source":"http://192.0.2.1/1.conf"}}]}]}}`)}}}
	if _, err := read(t.Context(), f, false); err == nil || !strings.Contains(err.Error(), "http://192.0.2.1/1.conf was not fetched with the config") {
		t.Errorf("error %v", err)
	}
	source, err := resource.ParseURL("http://192.0.2.1/1.conf")
	if err != nil {
		t.Fatal(err)
	}
	f.Parts = map[string][]byte{partName(resource.Resource{Source: source}): []byte("[Partition]\nType=root\n")}
	got, err := read(t.Context(), f, false)
	if err != nil {
		t.Fatal(err)
	}
	text, err := got.config.Pilotlight.Repart[0].Definitions[0].Contents.Local()
	if err != nil || string(text) != "[Partition]\nType=root\n" {
		t.Errorf("%q %v", text, err)
	}
}

func TestWhoIsAskedForTheConfig(t *testing.T) {
	o := newOutward(&initrd.Network{}, config.Knobs{}, func(string) {})
	secret := resource.NewSecret("{}")
	data, err := resource.ParseURL("data:,%7B%7D")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		knobs    config.Knobs
		platform string
		source   string
	}{
		"a credential before all":  {config.Knobs{Config: &secret, ConfigURL: data, Platform: "qemu"}, "qemu", "credential pilotlight.config"},
		"a credential alone":       {config.Knobs{Config: &secret}, "credential", "credential pilotlight.config"},
		"an address":               {config.Knobs{ConfigURL: data}, "metal", "data:"},
		"an address on a platform": {config.Knobs{ConfigURL: data, Platform: "qemu"}, "qemu", "data:"},
	} {
		platform, a, err := userConfig(t.Context(), c.knobs, o)
		if err != nil || platform != c.platform || !strings.HasPrefix(a.Source, c.source) || string(a.Bytes) != "{}" {
			t.Errorf("%s: %q %+v %v", name, platform, a, err)
		}
	}
	if _, _, err := userConfig(t.Context(), config.Knobs{Platform: "bogus", ConfigURL: data}, o); err == nil {
		t.Error("a platform that is none was taken")
	}
}

func TestHostsThatAreReachedDirectly(t *testing.T) {
	for _, c := range []struct {
		entry, host string
		want        bool
	}{
		{"*", "any.example", true},
		{"boot.example", "boot.example", true},
		{"boot.example", "BOOT.example", true},
		{"boot.example", "a.boot.example", true},
		{".boot.example", "a.boot.example", true},
		{"boot.example", "notboot.example", false},
		{"boot.example", "example", false},
		{"192.0.2.0/24", "192.0.2.7", true},
		{"192.0.2.0/24", "198.51.100.7", false},
		{"192.0.2.0/24", "boot.example", false},
		{"2001:db8::/32", "2001:db8::1", true},
		{"192.0.2.7", "192.0.2.7", true},
		{"", "boot.example", false},
	} {
		if got := covers(c.entry, c.host); got != c.want {
			t.Errorf("%q covers %q: %v", c.entry, c.host, got)
		}
	}
}
