package initrd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func someFrozen() Frozen {
	return Frozen{
		Boot: "first", Platform: "qemu", Provision: "0a3c7d2e-5b1f-4a6d-8c9e-7f0123456789",
		Documents: []Document{
			{Name: "base/10-image.ign", Source: "/usr/lib/pilotlight/base.d/10-image.ign", Bytes: []byte(`{"a":1}`)},
			{Name: "user", Source: "http://boot.example/ignition", Bytes: []byte("\xff\x00 not text")},
		},
		Parts: map[string][]byte{"00ff": []byte("[Partition]\nType=root\n")},
	}
}

func TestFrozenOutlivesItsPacking(t *testing.T) {
	for name, f := range map[string]Frozen{
		"full": someFrozen(), "zero": {}, "no parts": {Boot: "later", Documents: []Document{{Name: "user"}}},
	} {
		data, err := f.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnpackFrozen(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, f) {
			t.Errorf("%s: %+v became %+v", name, f, got)
		}
	}
	whole, err := someFrozen().Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{", frozenMark, frozenMark + "{", frozenMark + "[]\n", frozenMark + "{\"documents\":{}}\n", frozenMark + "{}\n{}",
		frozenMark + `{"documents":[{"name":"user","size":-2}]}` + "\n", frozenMark + `{"documents":[{"name":"user","size":9}]}` + "\n12345678",
		string(whole[:len(whole)-1]), string(whole) + "x", strings.Replace(string(whole), "frozen 1", "frozen 2", 1)} {
		if f, err := UnpackFrozen([]byte(bad)); err == nil {
			t.Errorf("%q was taken for %+v", bad, f)
		}
	}
}

// TestDigestOfDocuments pins one value, as an older program wrote it into a record,
// and holds that whatever changes a document changes it.
func TestDigestOfDocuments(t *testing.T) {
	one := Frozen{Documents: []Document{{Name: "user", Bytes: []byte("{}")}}}
	// printf '"user" 2\n{}' | sha256sum
	if got, want := one.Digest(), "77e73bd3b9c57f1116745b21c070ea4f35de814fe96197a63864b5676bf204fa"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	image := Frozen{Documents: append([]Document{{Name: BasePrefix + "10.ign", Bytes: []byte("{}")}}, one.Documents...)}
	if image.Digest() != one.Digest() {
		t.Error("a base fragment of the image counts as something from outside")
	}
	seen := map[string]string{}
	for name, documents := range map[string][]Document{
		"none":         nil,
		"one":          {{Name: "user", Bytes: []byte("{}")}},
		"other bytes":  {{Name: "user", Bytes: []byte("{ }")}},
		"other name":   {{Name: "other", Bytes: []byte("{}")}},
		"twice":        {{Name: "user", Bytes: []byte("{}")}, {Name: "user", Bytes: []byte("{}")}},
		"joined":       {{Name: "user", Bytes: []byte("{}\"user\" 2\n{}")}},
		"ab":           {{Name: "a", Bytes: []byte("1")}, {Name: "b", Bytes: []byte("2")}},
		"ba":           {{Name: "b", Bytes: []byte("2")}, {Name: "a", Bytes: []byte("1")}},
		"split":        {{Name: "a", Bytes: []byte("12")}, {Name: "b"}},
		"name of name": {{Name: `a" 1` + "\n1"}},
	} {
		digest := Frozen{Documents: documents}.Digest()
		if other, ok := seen[digest]; ok {
			t.Errorf("%q and %q have one digest", name, other)
		}
		seen[digest] = name
	}
	// Where a document came from is for people.
	moved := someFrozen()
	moved.Documents[0].Source, moved.Parts, moved.Boot = "elsewhere", nil, "later"
	if moved.Digest() != someFrozen().Digest() {
		t.Error("the digest depends on more than names and bytes")
	}
}

func TestFreezeThawMelt(t *testing.T) {
	m, _ := testMachine(t)
	if _, err := m.Thaw(); !errors.Is(err, ErrNotFrozen) {
		t.Fatalf("error %v", err)
	}
	if err := m.Freeze(Frozen{Boot: "first"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Freeze(someFrozen()); err != nil {
		t.Fatal(err)
	}
	got, err := m.Thaw()
	if err != nil || !reflect.DeepEqual(got, someFrozen()) {
		t.Fatalf("%+v %v", got, err)
	}
	for name, want := range map[string]os.FileMode{"config": os.ModeDir | 0o700, "config/frozen": 0o600} {
		info, err := os.Stat(filepath.Join(m.Run, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(m.Run, "config")); len(left) != 1 {
		t.Errorf("beside the frozen config: %v", left)
	}

	write(t, filepath.Join(m.Run, "credentials/a"), "secret")
	write(t, filepath.Join(m.Run, "report.json"), "{}")
	if err := m.Melt(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Thaw(); !errors.Is(err, ErrNotFrozen) {
		t.Errorf("error %v", err)
	}
	entries, err := os.ReadDir(m.Run)
	if err != nil || len(entries) != 1 || entries[0].Name() != "report.json" {
		t.Errorf("left: %v %v", entries, err)
	}

	write(t, m.frozenFile(), frozenMark+"{\n")
	var syntax *json.SyntaxError
	if _, err := m.Thaw(); !errors.As(err, &syntax) {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestMoreThanCanBeKeptIsNotFrozen: a later boot could not read it back.
func TestMoreThanCanBeKeptIsNotFrozen(t *testing.T) {
	m, _ := testMachine(t)
	f := Frozen{Documents: []Document{{Name: "user", Bytes: make([]byte, frozenLimit)}}}
	if err := m.Freeze(f); err == nil || !strings.Contains(err.Error(), "more than 67108864") {
		t.Errorf("%v", err)
	}
	if _, err := m.Thaw(); !errors.Is(err, ErrNotFrozen) {
		t.Errorf("%v", err)
	}
}
