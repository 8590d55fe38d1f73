package config

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_4"
	"github.com/vincent-petithory/dataurl"

	"pilotlight/config/resource"
)

// inData gets the documents that data: URLs hold.
func inData(_ context.Context, wanted []resource.Resource) ([][]byte, error) {
	var out [][]byte
	for _, r := range wanted {
		u, err := dataurl.DecodeString(r.Source.Reveal())
		if err != nil {
			return nil, err
		}
		out = append(out, u.Data)
	}
	return out, nil
}

func collectUser(t *testing.T, raw []byte) Config {
	t.Helper()
	c, err := Collect(context.Background(), []Document{{Name: UserDocument, Source: "test", Bytes: raw}}, inData, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Config
}

func TestWrap(t *testing.T) {
	child := dataurl.EncodeBytes([]byte(wholeDocument(`"policy": {"disks": "keep"}, "network": [{"name": "b.network", "contents": {"inline": "2"}}]`)))
	for name, raw := range map[string]string{
		"all":          every,
		"small":        wholeDocument(`"policy": {"disks": "wipe"}`),
		"spec 3.0":     strings.Replace(wholeDocument(``), "3.5.0", "3.0.0", 1),
		"null config":  `{"pilotlight": {"version": "1"}, "ignition": {"version": "3.5.0", "config": null}}`,
		"null merge":   `{"pilotlight": {"version": "1"}, "ignition": {"config": {"merge": null, "replace": {}}, "version": "3.5.0"}}`,
		"children win": `{"ignition": {"version": "3.5.0", "config": {"merge": [{"source": "` + child + `"}]}}, "pilotlight": {"version": "1", "policy": {"disks": "wipe", "keep": "plain"}, "network": [{"name": "b.network", "contents": {"inline": "1"}}]}}`,
		"replaced":     `{"ignition": {"version": "3.5.0", "config": {"replace": {"source": "` + child + `"}}}, "pilotlight": {"version": "1", "policy": {"keep": "plain"}}}`,
		"escapes":      `{"ignition": {"version": "3.5.0"}, "pilotlight": {"version": "1", "etc": {"sysusers": [{"name": "a.conf", "contents": {"inline": "\u00e9\"\\<&>\n€"}}]}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			wrapped, err := Wrap([]byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			var keys map[string]json.RawMessage
			if err := json.Unmarshal(wrapped, &keys); err != nil {
				t.Fatalf("%v in\n%s", err, wrapped)
			}
			if _, there := keys["pilotlight"]; there {
				t.Errorf("the section is still in it:\n%s", wrapped)
			}
			if got, want := collectUser(t, wrapped), collectUser(t, []byte(raw)); !reflect.DeepEqual(got, want) {
				t.Errorf("they differ: got\n%+v\nwant\n%+v", got.Pilotlight, want.Pilotlight)
			}
			again, err := Wrap(wrapped)
			if err != nil || string(again) != string(wrapped) {
				t.Errorf("wrapped again: %v\n%s", err, again)
			}
		})
	}
}

// TestWrapSurvives sends a wrapped document through the parser of spec 3.4 and
// back into text, as matchbox does.
func TestWrapSurvives(t *testing.T) {
	raw := []byte(strings.Replace(every, "3.5.0", "3.4.0", 1))
	wrapped, err := Wrap(raw)
	if err != nil {
		t.Fatal(err)
	}
	theirs, report, err := v3_4.ParseCompatibleVersion(wrapped)
	if err != nil {
		t.Fatal(err, report)
	}
	written, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := collectUser(t, written), collectUser(t, raw); !reflect.DeepEqual(got.Pilotlight, want.Pilotlight) {
		t.Errorf("got\n%+v\nwant\n%+v", got.Pilotlight, want.Pilotlight)
	}
}

func TestWrapRefuses(t *testing.T) {
	_, err := Wrap([]byte(`{"ignition": {"version": "3.5.0"}, "pilotlight": {}}`))
	if e, ok := errors.AsType[*InvalidError](err); !ok || e.Report[0].Path != "$.pilotlight.version" {
		t.Errorf("a faulty document: %v", err)
	}
	_, err = Wrap([]byte(`{"ignition": {"version": "3.5.0"}, "ignition": {"version": "3.5.0"}, "pilotlight": {"version": "1"}}`))
	if err == nil || err.Error() != "wrap: the key ignition stands twice" {
		t.Errorf("a double key: %v", err)
	}
	plain := []byte("{ \"ignition\": {\"version\": \"3.5.0\"} }")
	if got, err := Wrap(plain); err != nil || string(got) != string(plain) {
		t.Errorf("without a section: %q, %v", got, err)
	}
}
