package matchbox

import (
	"strings"
	"testing"
)

func TestVariables(t *testing.T) {
	const page = "{{range $k, $v := .}}{{$k}}={{$v}} {{end}}"
	for _, test := range []struct{ name, group, query, want string }{
		{"selector over metadata, in lower case", `"selector":{"Role":"s"},"metadata":{"role":"m"}`, "Role=s",
			"request=map[query:map[Role:s] raw_query:Role=s] role=s "},
		{"request over both", `"selector":{"request":"s"},"metadata":{"request":{"query":"m"}}`, "request=s",
			"request=map[query:map[request:s] raw_query:request=s] "},
		{"no metadata", `"selector":{}`, "", "request=map[query:map[] raw_query:] "},
		{"keys that differ by case alone", `"selector":{"X":"1","x":"2"}`, "X=1&x=2",
			"request=map[query:map[X:1 x:2] raw_query:X=1&x=2] x=2 "},
		{"numbers print as in Go", `"metadata":{"a":1000000,"b":0.5,"c":123456}`, "",
			"a=1e+06 b=0.5 c=123456 request=map[query:map[] raw_query:] "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Server{Dir: write(t, map[string]string{
				"groups/g.json":   `{"profile":"p",` + test.group + `}`,
				"profiles/p.json": `{"id":"p","generic_id":"t"}`,
				"generic/t":       page,
			})}
			if got := ask(t, s, "GET", "/generic?"+test.query); got.status != 200 || got.body != test.want {
				t.Errorf("status %d, body %q, want %q", got.status, got.body, test.want)
			}
		})
	}
}

func TestTemplateFaults(t *testing.T) {
	for template, want := range map[string]string{
		"\n{{.none}}":                 "line 2: no variable none",
		"{{.request.query.none}}":     "line 1: no variable none",
		"{{none}}":                    "line 1: no function none",
		"\n\n{{":                      "line 3: cannot be parsed",
		"{{ \"sesame\" \"sesame\" }}": "line 1: an argument for what is no function",
		"{{ index .x \"sesame\" }}":   "line 1: index: by a text",
		`{{define "d"}}{{.no}}{{end}}{{template "d" .}}`: "line 1: no variable no",
	} {
		s := &Server{Dir: write(t, map[string]string{
			"groups/g.json":   `{"profile":"p","metadata":{"x":"y"}}`,
			"profiles/p.json": `{"id":"p","generic_id":"t:1:x"}`,
			"generic/t:1:x":   template,
		})}
		if got := ask(t, s, "GET", "/generic"); got.status != 404 || !strings.HasSuffix(got.last(), ": generic/t:1:x: "+want) {
			t.Errorf("%q: status %d, log %q, want the end %q", template, got.status, got.last(), want)
		}
	}
}

// TestMetadataOrder asks often, since the order of a map is by chance.
func TestMetadataOrder(t *testing.T) {
	s := &Server{Dir: write(t, lab())}
	first := ask(t, s, "GET", "/metadata?z=1&a=2&"+node1).body
	for range 20 {
		if again := ask(t, s, "GET", "/metadata?z=1&a=2&"+node1).body; again != first {
			t.Fatalf("first\n%s\nthen\n%s", first, again)
		}
	}
}
