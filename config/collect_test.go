package config

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pilotlight/config/resource"
)

// web is a set of documents by URL, and the log of a collection.
type web struct {
	pages map[string]string
	log   []string
}

func (w *web) fetch(_ context.Context, wanted []resource.Resource) ([][]byte, error) {
	var out [][]byte
	var names []string
	for _, r := range wanted {
		page, there := w.pages[r.Source.Reveal()]
		if !there {
			return nil, errNoPage
		}
		out = append(out, []byte(page))
		names = append(names, r.String())
	}
	w.log = append(w.log, "fetch "+strings.Join(names, " "))
	return out, nil
}

var errNoPage = errors.New("no such page")

func (w *web) measure(documents []Document) error {
	var names []string
	for _, d := range documents {
		names = append(names, d.Name)
	}
	w.log = append(w.log, "measure "+strings.Join(names, " "))
	return nil
}

// page is a document that writes a file of its own name and pulls in others.
func page(name, reference string, others ...string) string {
	var sources []string
	for _, o := range others {
		sources = append(sources, fmt.Sprintf(`{"source": %q}`, o))
	}
	config := ""
	switch {
	case reference == "replace":
		config = `, "config": {"replace": ` + sources[0] + `}`
	case len(others) > 0:
		config = `, "config": {"merge": [` + strings.Join(sources, ", ") + `]}`
	}
	return fmt.Sprintf(`{"ignition": {"version": "3.5.0"%s}, "storage": {"files": [{"path": "/last", "overwrite": true, "contents": {"source": "data:,%s"}}, {"path": "/%s"}]}}`, config, name, name)
}

func TestCollectOrder(t *testing.T) {
	w := &web{pages: map[string]string{
		"http://h/b1":  page("b1", ""),
		"http://h/u1":  page("u1", "", "http://h/u11", "http://h/u12"),
		"http://h/u2":  page("u2", "replace", "http://h/u21"),
		"http://h/u3":  page("u3", ""),
		"http://h/u11": page("u11", ""),
		"http://h/u12": page("u12", ""),
		"http://h/u21": page("u21", "", "http://h/u211"),
		// The query is secret, and is not shown.
		"http://h/u211":               page("u211", "", "http://h/last?token=hunter2"),
		"http://h/last?token=hunter2": page("end", ""),
	}}
	first := []Document{
		{Name: "10-image", Source: "initrd", Bytes: []byte(page("base", "", "http://h/b1"))},
		{Name: UserDocument, Source: "http://h/user", Bytes: []byte(page("user", "", "http://h/u1", "http://h/u2", "http://h/u3"))},
	}
	got, err := Collect(context.Background(), first, w.fetch, w.measure, Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantLog := []string{
		"measure 10-image user",
		"fetch http://h/b1 http://h/u1 http://h/u2 http://h/u3",
		"measure child-0001 child-0002 child-0003 child-0004",
		"fetch http://h/u11 http://h/u12 http://h/u21",
		"measure child-0005 child-0006 child-0007",
		"fetch http://h/u211",
		"measure child-0008",
		"fetch http://h/last",
		"measure child-0009",
	}
	if !slices.Equal(w.log, wantLog) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(w.log, "\n"), strings.Join(wantLog, "\n"))
	}
	var paths []string
	for _, f := range got.Config.Ignition.Storage.Files {
		paths = append(paths, f.Path)
	}
	// u2 was replaced by u21. What is merged later wins.
	want := []string{"/last", "/base", "/b1", "/user", "/u1", "/u11", "/u12", "/u21", "/u211", "/end", "/u3"}
	if !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
	if s := *got.Config.Ignition.Storage.Files[0].Contents.Source; s != "data:,u3" {
		t.Errorf("the last word has %s", s)
	}
	if len(got.Documents) != 11 || got.Documents[10].Name != "child-0009" || got.Documents[10].Source != "http://h/last" {
		t.Errorf("documents: %v", got.Documents)
	}
	if c := got.Config.Ignition.Ignition.Config; len(c.Merge) > 0 || c.Replace.Source != nil {
		t.Errorf("references are left: %v", c)
	}
}

// TestCollectMeasuresFirst gives a document that cannot be parsed: it must have
// been measured all the same, with its whole level, and nothing after it.
func TestCollectMeasuresFirst(t *testing.T) {
	w := &web{pages: map[string]string{"http://h/a": "{", "http://h/b": page("b", "", "http://h/c"), "http://h/c": page("c", "")}}
	first := []Document{{Name: UserDocument, Bytes: []byte(page("user", "", "http://h/b", "http://h/a"))}}
	got, err := Collect(context.Background(), first, w.fetch, w.measure, Options{})
	if e, ok := errors.AsType[*InvalidError](err); !ok || e.Error() != "child-0002: 1:2: $: the document ends in the middle (is it cut off?)" {
		t.Errorf("got %v", err)
	}
	want := []string{"measure user", "fetch http://h/b http://h/a", "measure child-0001 child-0002"}
	if !slices.Equal(w.log, want) {
		t.Errorf("got %q", w.log)
	}
	if !reflect.DeepEqual(got.Config, Config{}) {
		t.Error("there is a config")
	}
}

func TestCollectFails(t *testing.T) {
	self := page("self", "", "http://h/self")
	twice := page("twice", "", "http://h/twice", "http://h/twice#2")
	tests := []struct {
		name    string
		pages   map[string]string
		user    string
		measure func([]Document) error
		want    string
		is      error
	}{
		{name: "a page that is not there", user: page("u", "", "http://h/none"), want: "config: level 1: fetch: no such page", is: errNoPage},
		{name: "no TPM", user: page("u", ""), measure: func([]Document) error { return errNoPage }, want: "config: level 0: measure: no such page", is: errNoPage},
		{name: "itself", pages: map[string]string{"http://h/self": self}, user: self,
			want: "config: level 33: bound: more than 32 levels of ignition.config.merge and replace: does a config pull itself in?"},
		{name: "itself in its place", pages: map[string]string{"http://h/self": page("self", "replace", "http://h/self")}, user: self,
			want: "config: level 33: bound: more than 32 levels of ignition.config.merge and replace: does a config pull itself in?"},
		{name: "itself twice", pages: map[string]string{"http://h/twice": twice, "http://h/twice#2": twice}, user: twice,
			want: "config: level 10: bound: the config pulls in more than 1024 documents: does one pull itself in?"},
		{name: "too large", pages: map[string]string{"http://h/large": strings.Repeat(" ", MaxBytes)}, user: page("u", "", "http://h/large"),
			want: "config: level 1: bound: the documents of the config have more than 16777216 bytes together"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			w := &web{pages: c.pages}
			if c.measure == nil {
				c.measure = w.measure
			}
			got, err := Collect(context.Background(), []Document{{Name: UserDocument, Bytes: []byte(c.user)}}, w.fetch, c.measure, Options{})
			if e, ok := errors.AsType[*CollectError](err); !ok || e.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if !reflect.DeepEqual(got.Config, Config{}) {
				t.Error("there is a config")
			}
		})
	}
	t.Run("too few answers", func(t *testing.T) {
		_, err := Collect(context.Background(), []Document{{Name: UserDocument, Bytes: []byte(self)}},
			func(context.Context, []resource.Resource) ([][]byte, error) { return nil, nil }, nil, Options{})
		if err == nil || err.Error() != "config: level 1: fetch: 0 documents came for 1 references" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := Collect(ctx, []Document{{Name: UserDocument, Bytes: []byte(self)}}, nil, nil, Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCollectNothing(t *testing.T) {
	got, err := Collect(context.Background(), nil, nil, nil, Options{})
	if err != nil || !reflect.DeepEqual(got, Collected{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCollectFloor(t *testing.T) {
	w := &web{pages: map[string]string{"http://h/c": wholeDocument(`
		"policy": {"disks": "wipe"},
		"verity": [{"name": "more", "rootHash": "` + rootHash + `"},
			{"name": "usr",
			 "onCorruption": "ignore"}]`)}}
	user := `{"ignition": {"version": "3.5.0", "config": {"merge": [{"source": "http://h/c"}]}}, "pilotlight": {"version": "1", "policy": {"onFailure": "poweroff"}}}`
	first := []Document{
		{Name: "10-a", Bytes: []byte(wholeDocument(`"policy": {"disks": "keep", "onFailure": "reboot", "keep": "plain"}`))},
		{Name: "20-b", Bytes: []byte(wholeDocument(`"policy": {"onFailure": "emergency"}, "verity": [{"name": "usr", "rootHash": "` + rootHash + `"}]`))},
		{Name: UserDocument, Bytes: []byte(user)},
	}
	got, err := Collect(context.Background(), first, w.fetch, nil, Options{})
	if _, ok := errors.AsType[*InvalidError](err); !ok {
		t.Fatalf("got %v", err)
	}
	var faults []string
	for _, f := range got.Report {
		if f.Severity == Error {
			faults = append(faults, f.Document+": "+f.String())
		}
	}
	want := []string{
		`child-0001: 2:23: $.pilotlight.policy.disks: "child-0001" loosens what "10-a" of the image sets (the image sets keep: this or stricter, or leave it out)`,
		`child-0001: 5:21: $.pilotlight.verity.1.onCorruption: "child-0001" loosens what "20-b" of the image sets (the image sets restart: this or stricter, or leave it out)`,
	}
	if !slices.Equal(faults, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(faults, "\n"), strings.Join(want, "\n"))
	}
}

// TestCollectComplete checks what only the whole config can be judged by.
func TestCollectComplete(t *testing.T) {
	base := Document{Name: "10-a", Bytes: []byte(wholeDocument(`"repart": [{"name": "root", "definitions": [{"name": "a.conf", "contents": {"inline": ""}}]}]`))}
	user := func(raw string) []Document { return []Document{base, {Name: UserDocument, Bytes: []byte(raw)}} }
	got, err := Collect(context.Background(), user(wholeDocument(`"repart": [{"name": "root", "device": "boot"}]`)), nil, nil, Options{})
	if err != nil || len(got.Report) > 0 || len(got.Config.Pilotlight.Repart) != 1 {
		t.Errorf("complete together: %v, %v", err, got.Report)
	}
	_, err = Collect(context.Background(), user(wholeDocument("")), nil, nil, Options{})
	if err == nil || err.Error() != `10-a: 1:78: $.pilotlight.repart.0: names no disk ("device" or "match")` {
		t.Errorf("without a device: %v", err)
	}
	base.Bytes = []byte(`{"ignition": {"version": "3.5.0"}, "storage": {"links": [{"path": "/a", "target": "/b"}]}}`)
	_, err = Collect(context.Background(), user(`{"ignition": {"version": "3.5.0"}, "storage": {"files": [{"path": "/a/b"}]}}`), nil, nil, Options{})
	if err == nil || err.Error() != "$.storage.files.0: in the merged config: file path includes link in config (name the path that the link leads to)" {
		t.Errorf("a contradiction: %v", err)
	}
}

func TestCollectSettings(t *testing.T) {
	w := &web{pages: map[string]string{
		"http://h/1": `{"ignition": {"version": "3.5.0", "config": {"merge": [{"source": "http://h/2"}]}, "timeouts": {"httpTotal": 7},
			"security": {"tls": {"certificateAuthorities": [{"source": "data:,one"}]}}}}`,
		"http://h/2": page("2", ""),
	}}
	user := `{"ignition": {"version": "3.5.0", "config": {"merge": [{"source": "http://h/1"}]}, "timeouts": {"httpTotal": 5, "httpResponseHeaders": 3},
		"security": {"tls": {"certificateAuthorities": [{"source": "data:,user"}]}},
		"proxy": {"httpProxy": "http://p:3128", "noProxy": ["example.com"]}}}`
	var known []Settings
	_, err := Collect(context.Background(), []Document{{Name: UserDocument, Bytes: []byte(user)}}, w.fetch, nil, Options{Settings: func(s Settings) { known = append(known, s) }})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range known {
		var cas []string
		for _, ca := range s.CertificateAuthorities {
			cas = append(cas, ca.Source.Reveal())
		}
		got = append(got, fmt.Sprint(*s.Timeouts.HTTPTotal, *s.Timeouts.HTTPResponseHeaders, cas, s.HTTPProxy, s.HTTPSProxy, s.NoProxy))
	}
	want := []string{"5 3 [data:,user] http://p:3128 [example.com]", "7 3 [data:,user data:,one] http://p:3128 [example.com]"}
	for i := range got {
		got[i] = strings.Join(strings.Fields(got[i]), " ")
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
