package matchbox

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSelection(t *testing.T) {
	for _, test := range []struct {
		name   string
		groups map[string]string // selector by file name
		query  string
		want   string // file name, empty for 404
	}{
		{"all pairs must match", map[string]string{"a": `{"mac":"52:54:00:00:00:01","os":"installed"}`}, "mac=52-54-00-00-00-01", ""},
		{"more labels do no harm", map[string]string{"a": `{"os":"installed"}`}, "os=installed&x=y&uuid=1", "a"},
		{"most specific first", map[string]string{"a": `{"x":"1"}`, "b": `{"x":"1","y":"2"}`, "c": `{}`}, "x=1&y=2", "b"},
		{"less specific next", map[string]string{"a": `{"x":"1"}`, "b": `{"x":"1","y":"2"}`, "c": `{}`}, "x=1", "a"},
		{"default last", map[string]string{"a": `{"x":"1"}`, "b": `{"x":"1","y":"2"}`, "c": `{}`}, "", "c"},
		{"null selector is default", map[string]string{"a": `null`}, "", "a"},
		{"equal counts: greatest text by key", map[string]string{"z": `{"a":"1"}`, "y": `{"b":"1"}`}, "a=1&b=1", "y"},
		{"equal counts: text is joined", map[string]string{"p": `{"a":"1","c":"1"}`, "q": `{"b":"1","c":"1"}`, "r": `{"a":"1","b":"1"}`}, "a=1&b=1&c=1", "q"},
		{"same selector: first file", map[string]string{"b": `{"x":"1"}`, "a": `{"x":"1"}`}, "x=1", "a"},
		{"two defaults: first file", map[string]string{"b": `{}`, "a": `{}`}, "x=1", "a"},
		{"first value counts", map[string]string{"a": `{"x":"1"}`, "b": `{"x":"2"}`}, "x=1&x=2", "a"},
		{"values are exact", map[string]string{"a": `{"uuid":"AB"}`}, "uuid=ab", ""},
		{"keys are exact", map[string]string{"a": `{"mac":"52:54:00:00:00:01"}`}, "MAC=52:54:00:00:00:01", ""},
		{"MAC selector, MAC label", map[string]string{"a": `{"MAC":"5254.0000.00AA"}`}, "MAC=52-54-00-00-00-aA", "a"},
		{"mac forms", map[string]string{"a": `{"mac":"52-54-00-00-00-0A"}`}, "mac=5254.0000.000a", "a"},
		{"bad mac label falls to default", map[string]string{"a": `{"mac":"52:54:00:00:00:01"}`, "d": `{}`}, "mac=52:54:00:00:00", "d"},
		{"bad mac selector drops its group", map[string]string{"a": `{"mac":"nonsense","x":"1"}`, "b": `{"x":"1"}`}, "mac=nonsense&x=1", "b"},
		{"empty value equals missing label", map[string]string{"a": `{"os":""}`, "d": `{}`}, "", "a"},
		{"number in selector drops its group", map[string]string{"a": `{"x":1}`, "d": `{}`}, "x=1", "d"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := map[string]string{"groups/readme.txt": "{}", "profiles/p.json": `{"id":"p"}`}
			for name, selector := range test.groups {
				files["groups/"+name+".json"] = `{"profile":"p","selector":` + selector + `}`
			}
			got := ask(t, &Server{Dir: write(t, files)}, "GET", "/metadata?"+test.query)
			if test.want == "" {
				if got.status != 404 || !strings.HasSuffix(got.last(), errNoGroup.Error()) {
					t.Fatalf("status %d, log %q, want 404", got.status, got.last())
				}
				return
			}
			if want := " 200 group=groups/" + test.want + ".json"; got.status != 200 || !strings.Contains(got.last()+" ", want) {
				t.Fatalf("log %q, want %q", got.last(), want)
			}
		})
	}
}

func TestParseGroup(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                         "g: line 1: unexpected end of JSON input",
		"{}\n}":                     "g: line 2: invalid character '}' after top-level value",
		`[]`:                        "g: line 1: document: wants object, has array",
		`{"metadata":5}`:            "g: line 1: metadata: wants object, has number",
		"{\n\"profile\":[]}":        "g: line 2: profile: wants string, has array",
		`{"selector":{"Mac":"00"}}`: "g: selector Mac: not a MAC address",
	} {
		if _, err := parseGroup("g", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseGroup(f *testing.F) {
	for _, text := range lab() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, err := parseGroup("g", raw)
		if err != nil {
			if _, ok := err.(Problem); !ok {
				t.Fatalf("%T is not a Problem: %v", err, err)
			}
			return
		}
		if !json.Valid(raw) {
			t.Fatal("group of what is no JSON")
		}
		if !g.matches(g.Selector) {
			t.Fatalf("does not match its own selector %v", g.Selector)
		}
		if precedence(g, g) != 0 {
			t.Fatal("stands before itself")
		}
	})
}

func TestCheck(t *testing.T) {
	dir := write(t, map[string]string{
		"groups/a.json":       `{"profile":"good"}`,
		"groups/b.json":       `{"profile":"none"}`,
		"groups/c.json":       `{"profile":"../x","selector":{"UUID":"1"}}`,
		"groups/d.json":       `{"selectors":{"x":"1"},"selector":{"x":"2"}}`,
		"groups/e.json":       `{`,
		"groups/f.json":       `{"profile":"sub/good","selector":{"x":"3"}}`,
		"groups/note":         ``,
		"profiles/good.json":  `{"id":"good","ignition_id":"good.ign","generic_id":"good","boot":{"kernel":"/assets/k","initrd":["--name m /assets/i","http://elsewhere/assets/i"]}}`,
		"profiles/sub/good":   ``,
		"profiles/bad.json":   `{"id":"bad","ignition_id":"none.ign","generic_id":"bad","cloud_id":"../x","boot":{"args":[]}}`,
		"profiles/anon.json":  `{}`,
		"profiles/lost.json":  `{"id":"lost","ignition_id":"lost.ign"}`,
		"profiles/new.json":   `{"id":"new","ignition_id":"new.ign"}`,
		"profiles/yaml.json":  `{"id":"yaml","ignition_id":"x.yaml","ignition":"x"}`,
		"ignition/good.ign":   `{"ignition":{"version":"3.1.0"}}`,
		"ignition/lost.ign":   `{"ignition":{"version":"3.4.0"},"pilotlight":{}}`,
		"ignition/new.ign":    `{"ignition":{"version":"3.9.0"}}`,
		"ignition/x.yaml":     ``,
		"generic/good":        `{{.x}}`,
		"generic/bad":         "\n{{upper .x}}",
		"assets/k":            ``,
		"profiles/sub/x.json": `{`,
	})
	want := []string{
		"groups/b.json: has no selector, and neither has groups/a.json (matchbox chooses between them by chance)",
		"groups/b.json: profile: profiles/none.json: no such file or directory",
		"groups/c.json: selector UUID: does not match label uuid, keys are case-sensitive",
		"groups/c.json: profile: profiles: ../x.json: name leaves its folder",
		`groups/d.json: profile: required`,
		`groups/d.json: ignored: json: unknown field "selectors"`,
		"groups/e.json: line 1: unexpected end of JSON input",
		"groups/f.json: profile: profiles/sub/good.json: no such file or directory",
		"groups/note: does not end in .json, so it is no group",
		dropped("ignition/lost.ign", []string{"pilotlight"}).Error(),
		"ignition/new.ign: not an Ignition config that matchbox can parse: ignition.version is 3.9.0, and it knows 3.0.0 to 3.4.0: unsupported config version (matchbox says nothing to the machine: it sees status 200 and an empty ignition.version)",
		butane("ignition/x.yaml").Error(),
		"profiles/anon.json: id: required",
		"profiles/bad.json: ignition/none.ign: no such file or directory",
		"profiles/bad.json: generic/bad: line 2: no function upper",
		"profiles/bad.json: cloud_id: cloud: ../x: name leaves its folder",
		"profiles/bad.json: boot.kernel: empty, the boot script will fail",
		"profiles/good.json: boot: /assets/i is not there",
		`profiles/yaml.json: ignored: json: unknown field "ignition"`,
	}
	compare := func(found []Problem, want []string) {
		t.Helper()
		var got []string
		for _, p := range found {
			got = append(got, p.Error())
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	compare(Check(dir, false), want)
	// With raw nothing is rewritten, so nothing is lost.
	compare(Check(dir, true), append(append([]string{}, want[:9]...), want[11:]...))

	compare(Check(write(t, map[string]string{"assets/k": ""}), false), []string{
		"groups: no such file or directory",
		"profiles: no such file or directory",
	})
	compare(Check(dir+"/none", false), []string{dir + "/none: no such file or directory"})
	compare(Check(write(t, map[string]string{
		"groups/a.json":        `{"profile":"sub/p"}`,
		"profiles/sub/p.json":  `{"id":"p","ignition_id":"sub/x.ign"}`,
		"ignition/sub/x.ign":   `{"ignition":{"version":"3.4.0"}}`,
		"ignition/unnamed.ign": `{`,
	}), false), nil)
}
