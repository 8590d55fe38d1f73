package config

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pilotlight/config/resource"
)

// bound is a config with a volume and what our section says of it.
func bound(entries, more string) []byte {
	return fmt.Appendf(nil, `{"ignition": {"version": "3.5.0"}, "storage": {"luks": [{"name": "a", "device": "/dev/vdb"}]}, "pilotlight": {"version": "1", "luks": [%s]%s}}`, entries, more)
}

func TestLuksIsReadAsItStands(t *testing.T) {
	c, r := Parse(bound(`
		{"name": "a", "tpm2": {"pcrs": [7, 14], "pin": {"inline": "1234"}}, "recovery": {"credential": "a.recovery"}},
		{"name": "b", "tpm2": {"pcrs": []}, "recovery": "none"},
		{"name": "c", "tpm2": {"pcrs": [7]}, "recovery": {"url": {"source": "https://host/keys?t=1", "httpHeaders": [{"name": "X-Token", "value": "t"}]}}}`, ""), Options{Strict: true})
	if err := r.Err(); err != nil || len(r) > 0 {
		t.Fatal(r)
	}
	a, b, last := c.Pilotlight.Luks[0], c.Pilotlight.Luks[1], c.Pilotlight.Luks[2]
	if pin, err := a.PIN.Local(); err != nil || string(pin) != "1234" || fmt.Sprint(a.TPM2PCRs) != "[7 14]" || *a.Recovery != (Recovery{Credential: "a.recovery"}) {
		t.Errorf("%+v %v", a, err)
	}
	if b.TPM2PCRs == nil || len(b.TPM2PCRs) > 0 || b.PIN != nil || !b.Recovery.None {
		t.Errorf("%+v", b)
	}
	if u := last.Recovery.URL; u.Source.Reveal() != "https://host/keys?t=1" || len(u.Headers) != 1 || u.Headers[0].Value.Reveal() != "t" {
		t.Errorf("%+v", last)
	}
	if s := fmt.Sprintf("%+v", last); strings.Contains(s, "?t=1") {
		t.Error(s)
	}
}

// TestLuksLacks holds what a complete config must say.
func TestLuksLacks(t *testing.T) {
	const none = `, "recovery": "none"`
	for entry, want := range map[string]string{
		`"tpm2": {"pcrs": [7]}` + none:     "",
		`"tpm2": {"pcrs": []}` + none:      "",
		`"tpm2": {"pcrs": [7, 12]}` + none: "binds a volume to PCR 12",
		`"tpm2": {}` + none:                "does not say what the volume is bound to",
		`"recovery": "none"`:               "does not say what the volume is bound to",
		`"tpm2": {"pcrs": [7]}`:            "does not say where its recovery key goes",
	} {
		_, err := Collect(context.Background(), []Document{{Name: UserDocument, Bytes: bound(`{"name": "a", `+entry+`}`, "")}},
			func(context.Context, []resource.Resource) ([][]byte, error) { return nil, nil }, nil, Options{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "$.pilotlight.luks.0")) {
			t.Errorf("%s: %v", entry, err)
		}
	}
	if _, r := Parse(bound(`{"name": "a", "tpm2": {"pcrs": [8]}, "recovery": "none"}`, `, "measure": {"pcr": 8}`), Options{}); !strings.Contains(fmt.Sprint(r), "binds a volume to PCR 8") {
		t.Error(r)
	}
}

func TestLuksIsMergedByName(t *testing.T) {
	parent, r := Parse(bound(`{"name": "a", "tpm2": {"pcrs": [7]}, "recovery": {"credential": "x"}}, {"name": "b", "tpm2": {"pcrs": [7]}, "recovery": "none"}`, ""), Options{})
	child, s := Parse(bound(`{"name": "b", "tpm2": {"pcrs": [], "pin": {"inline": "1"}}, "recovery": {"credential": "y"}}, {"name": "a", "tpm2": {"pcrs": [14]}, "recovery": {"credential": "x"}}`, ""), Options{})
	if r.Err() != nil || s.Err() != nil {
		t.Fatal(r, s)
	}
	list := Merge(parent, child).Pilotlight.Luks
	if len(list) != 2 || list[0].Name != "a" || fmt.Sprint(list[0].TPM2PCRs) != "[14]" || list[0].Recovery.Credential != "x" {
		t.Errorf("%+v", list)
	}
	if list[1].Name != "b" || fmt.Sprint(list[1].TPM2PCRs) != "[]" || list[1].PIN == nil || list[1].Recovery.None || list[1].Recovery.Credential != "y" {
		t.Errorf("%+v", list)
	}
}
