package matchbox

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	ignerrors "github.com/coreos/ignition/v2/config/shared/errors"
	ignition "github.com/coreos/ignition/v2/config/v3_4"
)

func TestDroppedKeys(t *testing.T) {
	dir := write(t, lab())
	got := ask(t, &Server{Dir: dir}, "GET", "/ignition?uuid=dropped")
	if want := "warning: " + dropped("ignition/dropped.ign", []string{"pilotlight", "storage.files[0].moed"}).Error(); len(got.log) != 2 || got.log[0] != want {
		t.Errorf("log %q, want first %q", got.log, want)
	}
	if !strings.Contains(got.log[0], "keys dropped: pilotlight, storage.files[0].moed (") {
		t.Errorf("log %q does not name the keys", got.log[0])
	}
	if got.status != 200 || strings.Contains(got.body, "pilotlight") || strings.Contains(got.body, "moed") || !strings.Contains(got.body, `"version":"3.4.0"`) {
		t.Errorf("status %d, body %s", got.status, got.body)
	}

	got = ask(t, &Server{Dir: dir, Raw: true}, "GET", "/ignition?uuid=dropped")
	if got.status != 200 || got.body != lab()["ignition/dropped.ign"] || got.header.Get("Content-Type") != "application/json" || len(got.log) != 1 {
		t.Errorf("raw: status %d, log %q, body %s", got.status, got.log, got.body)
	}
	if got := ask(t, &Server{Dir: dir, Raw: true}, "GET", "/ignition?uuid=butane"); got.status != 404 {
		t.Errorf("raw Butane: status %d, body %s", got.status, got.body)
	}
}

func TestEmptyConfig(t *testing.T) {
	got := ask(t, &Server{Dir: write(t, lab())}, "GET", "/ignition?uuid=new")
	if got.status != 200 || got.body != emptyIgnition || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("status %d, body %s", got.status, got.body)
	}
	want := "warning: ignition/new.ign: not an Ignition config that matchbox can parse: ignition.version is 3.5.0, and it knows 3.0.0 to 3.4.0: unsupported config version (matchbox says nothing to the machine: it sees status 200 and an empty ignition.version): answering with the EMPTY config that matchbox answers with"
	if len(got.log) != 2 || got.log[0] != want {
		t.Errorf("log %q, want first %q", got.log, want)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, "not a config (empty)"},
		{"{\n\"ignition\":{", "line 2: unexpected end of JSON input"},
		{`[]`, "line 1: document: wants object, has array"},
		{`{"ignition":{"version":"x"}}`, "invalid config version (couldn't parse)"},
		{`{"ignition":{"version":"2.3.0"}}`, "ignition.version is 2.3.0, and it knows 3.0.0 to 3.4.0: unsupported config version"},
		{`{"ignition":{"version":"3.6.0-experimental"}}`, "ignition.version is 3.6.0-experimental, and it knows 3.0.0 to 3.4.0: unsupported config version"},
		{"{\"ignition\":{\"version\":\"3.4.0\"},\"passwd\":{\"users\":[\n{\"name\":\"a\",\"passwordHash\":12345}]}}", "line 2: passwd.users.passwordHash: wants string, has number"},
		{"{\"ignition\":{\"version\":\"3.2.0\"},\"storage\":{\"files\":[\n{\"path\":\"a\"}]}}", "line 2: storage.files[0].path: path not absolute"},
		{`{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"ftp://sesame"}]}}}`, "line 1: ignition.config.merge[0]: invalid url scheme"},
		{`{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"data:;base64,sesame%%"}]}}}`, "line 1: ignition.config.merge[0]: invalid data character"},
		{"{\"ignition\":{\"version\":\"3.4.0\",\"config\":{\"merge\":[{\"source\":\"data:,%zz\"}]}}}", "line 1: ignition.config.merge[0]: not valid"},
		{`{"ignition":{"version":"3.4.0"},"systemd":{"units":[{"name":"a.service","contents":"[sesame]sesame\n"}]}}`, "line 1: systemd.units[0].contents: invalid unit content"},
		{`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/a","contents":{"source":"data:,%zz"}}]}}`, "line 1: storage.files[0].contents.source: not valid"},
	} {
		got, err := rewrite([]byte(test.text))
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if got.refused == nil || got.refused.Error() != test.want {
			t.Errorf("%s:\n%v, want\n%v", test.text, got.refused, test.want)
		}
		if string(got.text) != emptyIgnition {
			t.Errorf("%s: text %s", test.text, got.text)
		}
	}
	got, err := rewrite([]byte(`{"ignition":{"version":"3.5.0"}}`))
	if err != nil || !errors.Is(got.refused, ignerrors.ErrUnknownVersion) {
		t.Errorf("%v, %v, want %v", got.refused, err, ignerrors.ErrUnknownVersion)
	}
}

func TestManyKeys(t *testing.T) {
	keys := map[string]any{"ignition": map[string]string{"version": "3.4.0"}}
	for c := 'a'; c <= 'z'; c++ {
		keys[strings.Repeat(string(c), 2)] = 1
	}
	raw, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	got, err := rewrite(raw)
	if err != nil || len(got.unknown) != 21 || got.unknown[0] != "aa" || got.unknown[20] != "and 6 more" {
		t.Errorf("%q, %v", got.unknown, err)
	}
}

// FuzzRewrite holds that an answer is always JSON that the library takes back without loss,
// and is empty just where a reason is given.
func FuzzRewrite(f *testing.F) {
	for name, text := range lab() {
		if strings.HasPrefix(name, "ignition/") {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := rewrite(raw)
		if err != nil {
			t.Fatal(err)
		}
		if (got.refused != nil) != (string(got.text) == emptyIgnition) {
			t.Fatalf("refused %v, text %s", got.refused, got.text)
		}
		if got.refused != nil {
			return
		}
		if _, _, err := ignition.Parse(got.text); err != nil {
			t.Fatalf("does not take back %s: %v", got.text, err)
		}
		again, err := rewrite(got.text)
		if err != nil || again.refused != nil || len(again.unknown) > 0 || string(again.text) != string(got.text) {
			t.Fatalf("once\n%s\ntwice\n%s %q %v %v", got.text, again.text, again.unknown, again.refused, err)
		}
	})
}
