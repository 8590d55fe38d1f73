package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestFaulty reads faulty documents and compares all that is said of them.
func TestFaulty(t *testing.T) {
	files, err := filepath.Glob("testdata/faulty/*.ign")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".ign")
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, strict := range []bool{false, true} {
				_, report := Parse(raw, Options{Strict: strict})
				if strict {
					got.WriteString("strict:\n")
				}
				for _, f := range report {
					got.WriteString(f.Severity.String() + ": " + f.String() + "\n")
				}
			}
			golden := strings.TrimSuffix(file, ".ign") + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

// every is a document that uses all that is built, in both parts.
const every = `{
  "ignition": {
    "version": "3.5.0",
    "timeouts": {"httpResponseHeaders": 5, "httpTotal": 0},
    "security": {"tls": {"certificateAuthorities": [{"source": "data:,ca"}]}},
    "proxy": {"httpProxy": "http://proxy.example:3128", "noProxy": ["10.0.0.0/8"]}
  },
  "storage": {
    "directories": [{"path": "/etc/app", "mode": 493, "user": {"name": "root"}}],
    "files": [
      {"path": "/etc/app/a", "mode": 420, "overwrite": true, "contents": {"source": "data:;base64,YQ==", "compression": "gzip"}},
      {"path": "/etc/app/b", "append": [{"source": "data:,b"}, {"source": "data:,b"}], "group": {"id": 0}},
      {"path": "/etc/app/c", "contents": {"source": "https://host.example/c", "httpHeaders": [{"name": "Authorization", "value": "Bearer t"}],
        "verification": {"hash": "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}}
    ],
    "links": [{"path": "/etc/l", "target": "/etc/app/a", "hard": false}]
  },
  "systemd": {"units": [{"name": "a.service", "enabled": true, "contents": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "dropins": [{"name": "10.conf", "contents": "[Unit]\n"}]}]},
  "pilotlight": {
    "version": "1",
    "policy": {"run": "first-boot", "disks": "wipe", "onFailure": "poweroff", "keep": "digest"},
    "repart": [
      {"name": "root", "device": "boot", "empty": "require", "seed": "0B8A6AF4-6C9F-4F6D-8C1F-7E6D5C4B3A29", "factoryReset": false,
       "definitions": [{"name": "10-root.conf", "contents": {"inline": "[Partition]\nType=root\n"}}]},
      {"name": "data", "match": {"serial": "s", "wwn": "w", "model": "m", "sizeMin": "100G", "sizeMax": "2T", "transport": "nvme"},
       "definitions": [{"name": "10-data.conf", "contents": {"source": "data:,%5BPartition%5D"}}]}
    ],
    "verity": [
      {"name": "usr", "rootHash": "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", "data": "/dev/disk/by-partlabel/usr",
       "hash": "/dev/disk/by-partlabel/usr-verity", "rootHashSignature": {"source": "data:;base64,c2ln"}, "onCorruption": "panic",
       "fec": {"device": "/dev/disk/by-partlabel/usr-fec", "offset": 4096, "roots": 2}, "mount": "/usr"},
      {"name": "app", "rootHash": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
    ],
    "measure": {"pcr": 8, "required": true},
    "network": [{"name": "10-lan.network", "contents": {"inline": "[Match]\nName=en*\n"}}],
    "etc": {
      "tmpfiles": [{"name": "app.conf", "contents": {"source": "https://host.example/app.conf", "compression": "zstd",
        "httpHeaders": [{"name": "X-Token", "value": "t"}],
        "verification": {"hash": "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}}],
      "sysusers": [{"name": "app.conf", "contents": {"inline": "u app\n"}}],
      "credentials": [
        {"name": "app.token", "contents": {"inline": "t"}, "scope": "initrd"},
        {"name": "app.key", "contents": {"source": "data:,k"}, "encrypted": true}
      ]
    }
  }
}`

func TestParse(t *testing.T) {
	c, report := Parse([]byte(every), Options{Strict: true})
	if len(report) != 0 {
		t.Fatal(report)
	}
	const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	source := func(s string) resource.Resource {
		u, err := resource.ParseURL(s)
		if err != nil {
			t.Fatal(err)
		}
		return resource.Resource{Source: u}
	}
	sum, err := resource.ParseHash("sha256-" + hash)
	if err != nil {
		t.Fatal(err)
	}
	app := source("https://host.example/app.conf")
	app.Compression, app.Hash = resource.Zstd, sum
	app.Headers = []resource.Header{{Name: "X-Token", Value: resource.NewSecret("t")}}
	signature := source("data:;base64,c2ln")
	pcr, required := 8, true
	want := Section{
		Version: "1",
		Policy:  Policy{Run: RunFirstBoot, Disks: DisksWipe, OnFailure: OnFailurePoweroff, Keep: KeepDigest},
		Repart: []Repart{
			{Name: "root", Device: DeviceBoot, Empty: EmptyRequire, Seed: "0b8a6af4-6c9f-4f6d-8c1f-7e6d5c4b3a29", factoryResetSaid: true,
				Definitions: []Dropin{{"10-root.conf", inline("[Partition]\nType=root\n")}}},
			{Name: "data", Match: &Match{"s", "w", "m", "100G", "2T", "nvme"},
				Definitions: []Dropin{{"10-data.conf", source("data:,%5BPartition%5D")}}},
		},
		Verity: []Verity{
			{Name: "usr", RootHash: hash, Data: "/dev/disk/by-partlabel/usr", Hash: "/dev/disk/by-partlabel/usr-verity",
				RootHashSignature: &signature, OnCorruption: CorruptionPanic,
				FEC: &FEC{"/dev/disk/by-partlabel/usr-fec", 4096, 2}, Mount: "/usr"},
			{Name: "app", RootHash: hash},
		},
		Measure: Measure{PCR: &pcr, Required: &required},
		Network: []Dropin{{"10-lan.network", inline("[Match]\nName=en*\n")}},
		Etc: Etc{
			Tmpfiles: []Dropin{{"app.conf", app}},
			Sysusers: []Dropin{{"app.conf", inline("u app\n")}},
			Credentials: []Credential{
				{Name: "app.token", Contents: inline("t"), Scope: ScopeInitrd},
				{Name: "app.key", Contents: source("data:,k"), Encrypted: true},
			},
		},
	}
	if !reflect.DeepEqual(c.Pilotlight, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c.Pilotlight, want)
	}
}

func inline(s string) resource.Resource {
	secret := resource.NewSecret(s)
	return resource.Resource{Inline: &secret}
}

// TestIgnitionAgrees gives documents of each spec to Ignition's own parser too:
// they must mean the same, and what is fatal there must be fatal here.
func TestIgnitionAgrees(t *testing.T) {
	documents := map[string][]byte{}
	for _, version := range []string{"3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", "3.5.0"} {
		documents["every "+version] = []byte(strings.Replace(every, "3.5.0", version, 1))
		documents["minimal "+version] = []byte(`{"ignition": {"version": "` + version + `"}}`)
		documents["units "+version] = []byte(`{"ignition": {"version": "` + version + `", "config": {"merge": [{"source": "data:,a"}, {"source": "data:,b"}], "replace": {"source": null}}},
			"storage": {"files": [{"path": "/a", "contents": {"source": ""}}, {"path": "/b", "contents": {"source": "data:text/plain;charset=utf-8,b"}}]},
			"systemd": {"units": [{"name": "a.service", "mask": true}, {"name": "b.socket", "enabled": true}]}}`)
	}
	files, err := filepath.Glob("testdata/faulty/*.ign")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if documents[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	same := 0
	for name, raw := range documents {
		theirs, report, err := v3_5.ParseCompatibleVersion(raw)
		ours, r := Parse(raw, Options{})
		switch {
		case r.Fatal():
		case err != nil:
			t.Errorf("%s: fatal for Ignition alone: %v %v", name, err, report)
		case !reflect.DeepEqual(ours.Ignition, theirs):
			t.Errorf("%s: they differ", name)
		default:
			same++
		}
	}
	if same < 18 {
		t.Errorf("only %d documents are valid", same)
	}
}

func TestForeign(t *testing.T) {
	for text, want := range map[string]string{
		"  \n":                            "the document is empty",
		"\xef\xbb\xbf{}":                  "byte order mark",
		"\x1f\x8b\x08\x00":                "gzip",
		"#!/bin/sh\n":                     "cloud-init",
		"Content-Type: multipart/mixed\n": "cloud-init",
		"<html>":                          "a web server",
		"# mine\nvariant: fcos\n":         "Butane",
		"---\n":                           "Butane",
		"hello":                           "JSON values are",
	} {
		_, r := Parse([]byte(text), Options{})
		if len(r) != 1 || !r.Fatal() || !strings.Contains(r[0].Hint, want) {
			t.Errorf("%q: got %v, want %q", text, r, want)
		}
	}
}

func TestResource(t *testing.T) {
	text := func(s string) *string { return &s }
	const hash = "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	got, err := Resource(types.Resource{
		Source: text("https://h/a?b"), Compression: text("gzip"), Verification: types.Verification{Hash: text(hash)},
		HTTPHeaders: types.HTTPHeaders{{Name: "A", Value: text("1")}, {Name: "B"}},
	})
	if err != nil || got.Source.Reveal() != "https://h/a?b" || got.Compression != resource.Gzip || got.Hash.String() != hash ||
		len(got.Headers) != 1 || got.Headers[0].Name != "A" || got.Headers[0].Value.Reveal() != "1" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := Resource(types.Resource{}); err != nil || !got.IsZero() {
		t.Errorf("no source: got %+v, %v", got, err)
	}
	if got, err := Resource(types.Resource{Source: text("")}); err != nil || got.Inline == nil || !got.Inline.Empty() {
		t.Errorf("an empty source: got %+v, %v", got, err)
	}
	if _, err := Resource(types.Resource{Source: text("ftp://h/f")}); !errors.Is(err, resource.ErrScheme) {
		t.Errorf("ftp: %v", err)
	}
	if _, err := Resource(types.Resource{Verification: types.Verification{Hash: text("md5-00")}}); !errors.Is(err, resource.ErrSyntax) {
		t.Errorf("md5: %v", err)
	}
}

func TestFaultJSON(t *testing.T) {
	got, err := json.Marshal(Report{{Severity: Warning, Line: 1, Column: 2, Path: "$.a", Message: "is odd"}, {Path: "$", Message: "is wrong", Hint: "mend it", Document: "user"}})
	want := `[{"severity":"warning","line":1,"column":2,"path":"$.a","message":"is odd"},{"severity":"error","document":"user","path":"$","message":"is wrong","hint":"mend it"}]`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestDefaults(t *testing.T) {
	var s Section
	for _, c := range []struct{ what, got, want string }{
		{"run", string(s.Policy.RunOrDefault()), "first-boot"},
		{"disks", string(s.Policy.DisksOrDefault()), "keep"},
		{"onFailure of a counted boot", string(s.Policy.OnFailureOrDefault(true)), "reboot"},
		{"onFailure", string(s.Policy.OnFailureOrDefault(false)), "emergency"},
		{"keep", string(s.Policy.KeepOrDefault()), "sealed"},
		{"pcr", fmt.Sprint(s.Measure.PCROrDefault()), "12"},
		{"required", fmt.Sprint(s.Measure.RequiredOrDefault()), "false"},
		{"empty", Repart{}.EmptyOrDefault(), "allow"},
		{"onCorruption", Verity{}.OnCorruptionOrDefault(), "restart"},
		{"mount of usr", Verity{Name: "usr"}.MountOrDefault(), "/usr"},
		{"mount of root", Verity{Name: "root"}.MountOrDefault(), "/"},
		{"mount of another", Verity{Name: "app"}.MountOrDefault(), ""},
		{"scope", Credential{}.ScopeOrDefault(), "host"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "1": 1, "4K": 4096, "3M": 3 << 20, "100G": 100 << 30, "2T": 2 << 40, "16777215T": 16777215 << 40,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%s: got %d, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"": "not a whole number", "G": "not a whole number", "-1": "not a whole number", "+1": "not a whole number", "1.5G": "not a whole number",
		"1 G": "not a whole number", "1g": "not a whole number", "1KM": "more than one suffix", "1KK": "more than one suffix",
		"16777216T": "larger than 2^64", "18446744073709551616": "not a whole number",
	} {
		if _, err := ParseSize(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
}

func TestPCRs(t *testing.T) {
	allowed := []int{8, 12, 13, 14, 23}
	for pcr := -1; pcr <= 24; pcr++ {
		if got, want := refusedPCR(pcr) == "", slices.Contains(allowed, pcr); got != want {
			t.Errorf("PCR %d: allowed: %v, want %v", pcr, got, want)
		}
	}
}

func TestManyFaults(t *testing.T) {
	raw := `{"ignition": {"version": "3.5.0"}, "pilotlight": {"version": "1"` + strings.Repeat(`, "x": 1`, 5000) + `}}`
	_, r := Parse([]byte(raw), Options{})
	if len(r) != maxFaults+1 || !strings.Contains(r[maxFaults].Message, "more faults, which are not shown") {
		t.Errorf("%d faults, the last: %v", len(r), r[len(r)-1])
	}
}

func TestInvalidError(t *testing.T) {
	var r Report
	if err := r.Err(); err != nil {
		t.Errorf("an empty report: %v", err)
	}
	r = append(r, Fault{Severity: Warning, Path: "$.a", Message: "is odd"})
	if err := r.Err(); err != nil || r.Fatal() {
		t.Errorf("a warning: %v", err)
	}
	r = append(r, Fault{Line: 3, Column: 7, Document: "user", Path: "$.b", Message: "is wrong", Hint: "mend it"})
	for _, want := range []string{
		"user: 3:7: $.b: is wrong (mend it)",
		"user: 3:7: $.b: is wrong (mend it) (and 1 more fault)",
		"user: 3:7: $.b: is wrong (mend it) (and 2 more faults)",
	} {
		err := r.Err()
		if e, ok := errors.AsType[*InvalidError](err); !ok || len(e.Report) != len(r) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		r = append(r, Fault{Path: "$.c", Message: "too"})
	}
}

// FuzzParse checks that no document makes the parser panic or point outside the
// document.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/faulty/*.ign")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(every))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, r := Parse(raw, Options{})
		lines := strings.Split(string(raw), "\n")
		for _, fault := range r {
			if fault.Line < 1 || fault.Line > len(lines) {
				t.Fatalf("line %d of %d: %s", fault.Line, len(lines), fault)
			}
			if columns := utf8.RuneCountInString(lines[fault.Line-1]) + 1; fault.Column < 1 || fault.Column > columns {
				t.Fatalf("column %d of %d: %s", fault.Column, columns, fault)
			}
			if strings.ContainsFunc(fault.String(), func(c rune) bool { return c < ' ' }) {
				t.Fatalf("a control character: %q", fault.String())
			}
		}
		if !r.Fatal() {
			if _, err := Wrap(raw); err != nil && !strings.Contains(err.Error(), "stands twice") {
				t.Fatalf("wrap: %v", err)
			}
		}
	})
}
