package config

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestReadJSON compares the reader with encoding/json: it must take and refuse
// the same texts.
func TestReadJSON(t *testing.T) {
	for _, text := range []string{
		``, ` `, `{}`, `[]`, ` { } `, `[1,2]`, `[1,]`, `[,1]`, `{"a":1}`, `{"a":1,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a" 1}`,
		`"`, `"\`, `"\u12"`, `"\u12g4"`, `"\ud800"`, `"\x"`, "\"\t\"", "\"\xff\"", `"é"`,
		`0`, `-0`, `01`, `-`, `1.`, `.1`, `1.5e`, `1e+`, `1e+5`, `-12.25E-2`, `+1`, `1 2`,
		`true`, `tru`, `truefalse`, `null`, `nul`, `{"a":true}x`, "{}\x00", "\x00", `'a'`, `// x`, "\xef\xbb\xbf{}",
		`{"a":{"b":[{"c":null}]}}`, `[[[]`, `]`, `}`, `{"a":1 "b":2}`,
	} {
		if got, want := accepts(text), json.Valid([]byte(text)); got != want {
			t.Errorf("%q: accepted: %v, by encoding/json: %v", text, got, want)
		}
	}
}

func accepts(text string) bool {
	_, fault := readJSON([]byte(text))
	return fault == nil
}

func TestReadJSONDepth(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	if !accepts(nested(maxDepth)) {
		t.Errorf("%d levels are refused", maxDepth)
	}
	_, fault := readJSON([]byte(nested(1_000_000)))
	if fault == nil || !strings.Contains(fault.message, "nested more than 100 deep") {
		t.Errorf("a million levels: %+v", fault)
	}
}

func FuzzReadJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,-2.5e3,true,null,"\u00e9\n"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, fault := readJSON(raw)
		if fault != nil {
			if fault.at < 0 || fault.at > len(raw) {
				t.Fatalf("a fault at %d of %d", fault.at, len(raw))
			}
			if json.Valid(raw) && !strings.Contains(fault.message, "nested") {
				t.Fatalf("refused: %s", fault.message)
			}
			return
		}
		if !json.Valid(raw) {
			t.Fatal("accepted")
		}
		inside(t, n, raw)
	})
}

// inside checks that every value is the text that stands at its offset.
func inside(t *testing.T, n *node, raw []byte) {
	t.Helper()
	if n.start+len(n.raw) > len(raw) || string(raw[n.start:n.start+len(n.raw)]) != string(n.raw) {
		t.Fatalf("%q does not stand at %d", n.raw, n.start)
	}
	for _, m := range n.members {
		inside(t, m.value, raw)
	}
	for _, item := range n.items {
		inside(t, item, raw)
	}
}

func TestPlace(t *testing.T) {
	for _, c := range []struct {
		place place
		want  string
	}{
		{nil, "$"},
		{place{"storage", "files", "0", "path"}, "$.storage.files.0.path"},
		{place{"a b", "", "c\n"}, `$."a b".""."c\n"`},
		{place{strings.Repeat("x", 100)}, `$."` + strings.Repeat("x", 64) + `"...`},
	} {
		if got := c.place.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
