package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_5/types"
)

const rootHash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// section parses a document of which only the section is given.
func section(t *testing.T, members string) Config {
	t.Helper()
	c, r := Parse([]byte(wholeDocument(members)), Options{})
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

func wholeDocument(members string) string {
	if members != "" {
		members = ", " + members
	}
	return `{"ignition": {"version": "3.5.0"}, "pilotlight": {"version": "1"` + members + `}}`
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ name, parent, child, want string }{
		{"silence keeps", `"policy": {"disks": "wipe"}, "measure": {"pcr": 8, "required": true}`, ``,
			`"policy": {"disks": "wipe"}, "measure": {"pcr": 8, "required": true}`},
		{"the child wins",
			`"policy": {"disks": "wipe", "onFailure": "reboot", "keep": "plain"}, "measure": {"pcr": 8, "required": true}`,
			`"policy": {"disks": "keep", "onFailure": "poweroff", "keep": "digest"}, "measure": {"pcr": 12, "required": false}`,
			`"policy": {"disks": "keep", "onFailure": "poweroff", "keep": "digest"}, "measure": {"pcr": 12, "required": false}`},
		{"media, root and upper", `"policy": {"media": true}, "root": "tmpfs", "etc": {"upper": "var"}`, `"policy": {"media": false}, "etc": {"upper": "run"}`,
			`"policy": {"media": false}, "root": "tmpfs", "etc": {"upper": "run"}`},
		{"PCRs and keys", `"repart": [{"name": "a", "tpm2PCRs": [7], "keyFile": {"inline": "p"}}, {"name": "b", "tpm2PCRs": [7]}]`, `"repart": [{"name": "a", "tpm2PCRs": [], "keyFile": {"inline": "c"}}, {"name": "b"}]`,
			`"repart": [{"name": "a", "tpm2PCRs": [], "keyFile": {"inline": "c"}}, {"name": "b", "tpm2PCRs": [7]}]`},
		{"drop-ins by name",
			`"network": [{"name": "a.network", "contents": {"inline": "1"}}, {"name": "b.network", "contents": {"source": "data:,2",
				"verification": {"hash": "sha256-` + rootHash + `"}}}]`,
			`"network": [{"name": "c.network", "contents": {"inline": "4"}}, {"name": "b.network", "contents": {"inline": "3"}}]`,
			`"network": [{"name": "a.network", "contents": {"inline": "1"}}, {"name": "b.network", "contents": {"inline": "3"}}, {"name": "c.network", "contents": {"inline": "4"}}]`},
		{"etc",
			`"etc": {"tmpfiles": [{"name": "a.conf", "contents": {"inline": "1"}}], "credentials": [{"name": "c", "contents": {"inline": "1"}, "encrypted": true, "scope": "initrd"}]}`,
			`"etc": {"sysusers": [{"name": "a.conf", "contents": {"inline": "2"}}], "credentials": [{"name": "c", "contents": {"inline": "2"}}]}`,
			`"etc": {"tmpfiles": [{"name": "a.conf", "contents": {"inline": "1"}}], "sysusers": [{"name": "a.conf", "contents": {"inline": "2"}}],
				"credentials": [{"name": "c", "contents": {"inline": "2"}}]}`},
		{"repart field by field",
			`"repart": [{"name": "r", "device": "boot", "empty": "force", "definitions": [{"name": "1.conf", "contents": {"inline": "1"}}]}]`,
			`"repart": [{"name": "r", "empty": "refuse", "definitions": [{"name": "2.conf", "contents": {"inline": "2"}}]}]`,
			`"repart": [{"name": "r", "device": "boot", "empty": "refuse", "definitions": [{"name": "1.conf", "contents": {"inline": "1"}}, {"name": "2.conf", "contents": {"inline": "2"}}]}]`},
		{"a match takes the place of a device", `"repart": [{"name": "r", "device": "boot"}]`,
			`"repart": [{"name": "r", "match": {"serial": "s"}}]`, `"repart": [{"name": "r", "match": {"serial": "s"}}]`},
		{"a device takes the place of a match", `"repart": [{"name": "r", "match": {"serial": "s"}}]`,
			`"repart": [{"name": "r", "device": "boot"}]`, `"repart": [{"name": "r", "device": "boot"}]`},
		{"a factory reset is taken back", `"repart": [{"name": "r", "factoryReset": true}]`,
			`"repart": [{"name": "r", "factoryReset": false}]`, `"repart": [{"name": "r", "factoryReset": false}]`},
		{"a factory reset stays", `"repart": [{"name": "r", "factoryReset": true}]`,
			`"repart": [{"name": "r", "device": "boot"}]`, `"repart": [{"name": "r", "device": "boot", "factoryReset": true}]`},
		{"verity field by field",
			`"verity": [{"name": "usr", "rootHash": "` + rootHash + `", "onCorruption": "restart", "fec": {"device": "/dev/a"}, "rootHashSignature": {"inline": "s"}}]`,
			`"verity": [{"name": "usr", "data": "/dev/b", "onCorruption": "panic"}, {"name": "app", "rootHash": "` + rootHash + `"}]`,
			`"verity": [{"name": "usr", "rootHash": "` + rootHash + `", "onCorruption": "panic", "fec": {"device": "/dev/a"}, "rootHashSignature": {"inline": "s"}, "data": "/dev/b"},
				{"name": "app", "rootHash": "` + rootHash + `"}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent, child, want := section(t, c.parent), section(t, c.child), section(t, c.want)
			if got := Merge(parent, child); !reflect.DeepEqual(got.Pilotlight, want.Pilotlight) {
				t.Errorf("got\n%+v\nwant\n%+v", got.Pilotlight, want.Pilotlight)
			}
			if got := Merge(Config{}, parent); !reflect.DeepEqual(got.Pilotlight, parent.Pilotlight) {
				t.Errorf("over nothing: got\n%+v", got.Pilotlight)
			}
			if got := Merge(parent, Config{}); !reflect.DeepEqual(got.Pilotlight, parent.Pilotlight) {
				t.Errorf("with nothing over it: got\n%+v", got.Pilotlight)
			}
		})
	}
}

// TestMergeAll merges two configs that say everything, so that a field that
// Merge forgets shows.
func TestMergeAll(t *testing.T) {
	c, r := Parse([]byte(every), Options{})
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	for _, got := range []Config{Merge(c, c), Merge(Config{}, c), Merge(c, Config{})} {
		if !reflect.DeepEqual(got.Pilotlight, c.Pilotlight) {
			t.Errorf("got\n%+v\nwant\n%+v", got.Pilotlight, c.Pilotlight)
		}
	}
}

func TestMergeIgnition(t *testing.T) {
	parse := func(s string) Config {
		c, r := Parse([]byte(s), Options{})
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	parent := parse(`{"ignition": {"version": "3.0.0"}, "storage": {"files": [{"path": "/a", "mode": 420}, {"path": "/b"}]}}`)
	child := parse(`{"ignition": {"version": "3.5.0"}, "storage": {"files": [{"path": "/a", "contents": {"source": "data:,a"}}], "links": [{"path": "/b", "target": "/a"}]}}`)
	got := Merge(parent, child).Ignition.Storage
	if len(got.Files) != 1 || got.Files[0].Path != "/a" || *got.Files[0].Mode != 420 || *got.Files[0].Contents.Source != "data:,a" || len(got.Links) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestFloor(t *testing.T) {
	usr := func(more string) string {
		return `"verity": [{"name": "app", "rootHash": "` + rootHash + `"}, {"name": "usr"` + more + `}]`
	}
	signed := usr(`, "rootHash": "` + rootHash + `", "rootHashSignature": {"inline": "s"}, "data": "/dev/d", "hash": "/dev/h", "fec": {"device": "/dev/f"}, "onCorruption": "panic"`)
	for _, c := range []struct {
		name, base, user string
		want             []string // paths
	}{
		{"nothing said", ``, `"policy": {"disks": "wipe", "onFailure": "emergency", "keep": "plain"}, "measure": {"pcr": 8, "required": false}`, nil},
		{"user silent", `"policy": {"disks": "keep", "onFailure": "poweroff", "keep": "digest"}, "measure": {"pcr": 8, "required": true}, ` + signed, ``, nil},
		{"the same", `"policy": {"run": "first-boot", "disks": "keep"}, "measure": {"pcr": 8}, ` + signed, `"policy": {"run": "first-boot", "disks": "keep"}, "measure": {"pcr": 8}, ` + signed, nil},
		{"stricter", `"policy": {"disks": "wipe", "onFailure": "emergency", "keep": "plain"}, "measure": {"required": false}, ` + usr(`, "onCorruption": "restart"`),
			`"policy": {"disks": "keep", "onFailure": "reboot", "keep": "sealed"}, "measure": {"required": true}, ` + usr(`, "onCorruption": "panic", "rootHashSignature": {"inline": "s"}`), nil},
		{"strictest", `"policy": {"onFailure": "reboot", "keep": "sealed"}`, `"policy": {"onFailure": "poweroff", "keep": "digest"}`, nil},
		{"policy", `"policy": {"disks": "keep", "onFailure": "reboot", "keep": "sealed"}`, `"policy": {"disks": "wipe", "onFailure": "emergency", "keep": "plain"}`,
			[]string{"$.pilotlight.policy.disks", "$.pilotlight.policy.onFailure", "$.pilotlight.policy.keep"}},
		{"a reboot is looser than a poweroff", `"policy": {"onFailure": "poweroff", "keep": "digest"}`, `"policy": {"onFailure": "reboot", "keep": "sealed"}`,
			[]string{"$.pilotlight.policy.onFailure", "$.pilotlight.policy.keep"}},
		{"measure", `"measure": {"pcr": 12, "required": true}`, `"measure": {"pcr": 8, "required": false}`,
			[]string{"$.pilotlight.measure.pcr", "$.pilotlight.measure.required"}},
		{"the hash", signed, usr(`, "rootHash": "` + strings.Repeat("00", 32) + `"`), []string{"$.pilotlight.verity.1.rootHash"}},
		{"all of verity", signed,
			usr(`, "rootHashSignature": {"inline": "other"}, "data": "/dev/x", "hash": "/dev/x", "fec": {"device": "/dev/x"}, "mount": "/elsewhere", "onCorruption": "restart"`),
			[]string{"$.pilotlight.verity.1.rootHashSignature", "$.pilotlight.verity.1.data", "$.pilotlight.verity.1.hash", "$.pilotlight.verity.1.fec",
				"$.pilotlight.verity.1.mount", "$.pilotlight.verity.1.onCorruption"}},
		{"protection by default", usr(``), usr(`, "onCorruption": "ignore"`), []string{"$.pilotlight.verity.1.onCorruption"}},
		{"the default mount, written out", usr(``), usr(`, "mount": "/usr"`), nil},
		{"another device", usr(``), `"verity": [{"name": "more", "onCorruption": "ignore"}]`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, user := section(t, c.base), section(t, c.user)
			var got []string
			for _, f := range Floor(base, user, "10-image", "user") {
				got = append(got, f.Path)
				if f.Severity != Error || !strings.Contains(f.Message, `"user" loosens what "10-image" of the image sets`) {
					t.Errorf("fault: %+v", f)
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestFloorMerged checks the promise that without a fault the merged config
// holds the stricter value of each.
func TestFloorMerged(t *testing.T) {
	disks := []string{"", "wipe", "keep"}
	failure := []string{"", "emergency", "reboot", "poweroff"}
	keep := []string{"", "plain", "sealed", "digest"}
	for key, values := range map[string][]string{"disks": disks, "onFailure": failure, "keep": keep} {
		for b := range values {
			for u := range values {
				say := func(i int) Config {
					if i == 0 {
						return section(t, "")
					}
					return section(t, fmt.Sprintf(`"policy": {%q: %q}`, key, values[i]))
				}
				base, user := say(b), say(u)
				if Floor(base, user, "b", "u").Fatal() {
					if u == 0 || u >= b {
						t.Errorf("%s: %q over %q is a fault", key, values[u], values[b])
					}
					continue
				}
				got := Merge(base, user).Pilotlight.Policy
				want := say(max(b, u)).Pilotlight.Policy
				if got != want {
					t.Errorf("%s: %q over %q gives %+v", key, values[u], values[b], got)
				}
			}
		}
	}
}

// TestMergeOverNothing: what is not asked of Ignition there is what it would answer.
func TestMergeOverNothing(t *testing.T) {
	for _, text := range []string{every, `{"ignition": {"version": "3.0.0"}}`, `{"ignition": {"version": "3.5.0"}, "storage": {"files": []}, "systemd": {"units": []}}`} {
		c, r := Parse([]byte(text), Options{})
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(mergeIgnition(types.Config{}, c.Ignition))
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(v3_5.Merge(types.Config{}, c.Ignition))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}
