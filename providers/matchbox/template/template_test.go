package template

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	judge "text/template"
	"text/template/parse"
)

// machine is data with a value of each kind that JSON has, and the labels of a request.
func machine(t testing.TB) map[string]any {
	t.Helper()
	data := map[string]any{}
	err := json.Unmarshal([]byte(`{
		"text": "a <b> & 'c' \"d\" \\ = \u0001 \u00e9 \u2028 \ud83d\ude00", "word": "word", "empty": "", "raw": "nul \u0000",
		"int": 3, "half": 0.5, "big": 1e6, "zero": 0, "minus": -2,
		"yes": true, "no": false, "nil": null, "format": "%v/%v",
		"list": ["x", 2, true, null, ["in", "ner"], {"k": "v"}], "numbers": [1, 2, 3, 4, 5], "none": [],
		"map": {"b": "2", "a": "1", "deep": {"er": {"est": "found"}}, "nil": null}, "void": {}
	}`), &data)
	if err != nil {
		t.Fatal(err)
	}
	data["request"] = map[string]any{
		"query":     map[string]string{"mac": "52:54:00:00:00:01", "empty": ""},
		"raw_query": "mac=52-54-00-00-00-01&empty=",
	}
	return data
}

// operands and arguments of every kind, for templates that are put together.
var values = []string{
	".text", ".word", ".empty", ".raw", ".int", ".half", ".zero", ".minus", ".yes", ".no", ".nil", ".list", ".numbers", ".none", ".map", ".void",
	".map.deep.er.est", ".map.nil", ".request.query", ".request.query.mac", ".absent", ".map.absent", ".request.query.absent", ".nil.x", ".word.x", ".list.x",
	".", "$", "$.map.a", "nil", "true", "false", "0", "1", "-1", "3", "'a'", "0x10", "0x1e", "0x1p4", "1e3", "1.5", "2i", "1_000", "9223372036854775807", "18446744073709551615",
	`"lit"`, "`raw\\n`", `""`, `(index .word 1)`, `(index .list 4)`, `(slice .numbers 1 3)`, `(.map)`, `(.map).a`, `(.nil).x`, `(len .list)`, "print", "len", `(and)`, `(print .nil)`,
}

var functionNames = []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "println", "printf", "html", "js", "urlquery", "call"}

// corpus are templates that do what templates do.
var corpus = []string{
	"", "text", "a\nb {{- 1 -}} \n c", "{{/* a comment */}}x{{- /* trimmed */ -}} y", "{{`}}`}}", "{{.word}}{{.absent}}",
	"{{if .yes}}y{{end}}", "{{if .no}}y{{else}}n{{end}}", "{{if .no}}1{{else if .word}}2{{else}}3{{end}}", "{{if .no}}1{{else if .no}}2{{else}}3{{end}}",
	"{{with .map}}{{.a}}{{$.word}}{{end}}", "{{with .nil}}x{{else}}{{.word}}{{end}}", "{{with .nil}}x{{else with .word}}{{.}}{{end}}", "{{with $x := .map}}{{$x.b}}{{end}}",
	"{{range .list}}[{{.}}]{{end}}", "{{range $v := .list}}[{{$v}}]{{end}}", "{{range $i, $v := .list}}{{$i}}={{$v}} {{end}}", "{{range .none}}x{{else}}none{{end}}",
	"{{range $k, $v := .map}}{{$k}}={{$v}} {{end}}", "{{range $k, $v := .request.query}}{{$k}}={{$v}} {{end}}", "{{range .void}}x{{else}}void{{end}}", "{{range .nil}}x{{else}}nil{{end}}",
	"{{range 3}}{{.}}{{end}}", "{{range $i := 3}}{{$i}}{{end}}", "{{range $i, $j := 3}}{{$i}}{{end}}", "{{range 0}}x{{else}}zero{{end}}", "{{range -1}}x{{else}}below{{end}}", "{{range (index .word 0)}}{{printf \"%T\" .}}{{end}}",
	"{{range .int}}x{{end}}", "{{range .word}}x{{end}}", "{{range .yes}}x{{end}}", "{{range len .list}}{{.}},{{end}}",
	"{{range .numbers}}{{if gt . 3.0}}{{break}}{{end}}{{.}}{{end}}", "{{range .numbers}}{{if eq . 2.0}}{{continue}}{{end}}{{.}}{{end}}",
	"{{range .numbers}}{{range $.none}}x{{else}}{{break}}{{end}}y{{end}}", "{{range .numbers}}{{range $.none}}x{{else}}{{continue}}{{end}}y{{end}}", "{{range .numbers}}{{with .}}{{$z := .}}{{break}}{{end}}{{end}}{{.word}}",
	"{{range $i, $e := .numbers}}{{$z := $e}}{{$i}}{{$e}}{{$z}}{{end}}", "{{range $e := .numbers}}{{$z := 1}}{{if eq $e 2.0}}{{$y := 1}}{{continue}}{{end}}{{$e}}{{end}}",
	"{{$x := 1}}{{range .numbers}}{{$x = .}}{{end}}{{$x}}", "{{$x := 1}}{{if .yes}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "{{$i := 0}}{{$v := 0}}{{range $i, $v = .numbers}}{{end}}{{$i}}{{$v}}", "{{$v := 0}}{{range $v = .numbers}}{{end}}{{$v}}",
	"{{$x := .map}}{{$x.deep.er.est}}", "{{print ($y := .word) $y}}", "{{if and .no ($y := 1)}}{{else}}{{$y}}{{end}}", "{{$x := .nil}}{{$x}}|{{print $x}}",
	`{{define "d"}}<{{.}}>{{end}}{{template "d" .word}}{{template "d"}}`, `{{define "d"}}{{.x}}{{end}}{{template "d"}}`, `{{define "d"}}{{$}}{{end}}{{template "d" .map.a}}`, `{{template "absent"}}`,
	`{{block "b" .map}}{{.a}}{{end}}`, `{{define "b"}}new{{end}}{{block "b" .}}old{{end}}`, `{{define "e"}}{{end}}{{template "e"}}x`, `{{define "d"}}1{{end}}{{define "d"}}2{{end}}`, `{{$x := 1}}{{template "d" $y := 2}}{{$y}}{{define "d"}}{{.}}{{end}}`,
	`{{define "down"}}{{if .}}{{len .}} {{template "down" (slice . 1)}}{{end}}{{end}}{{template "down" .list}}`,
	`{{define "sub"}}{{range .}}{{.}}{{end}}{{end}}{{range $k, $v := .map}}{{template "sub" $.numbers}}{{end}}`,
	`{{printf "%s-%v" .word .int}}`, `{{.word | printf "%s-%s" "a"}}`, `{{printf .format 1 2}}`, `{{.format | printf}}`, `{{.int | printf}}`, `{{printf "%d" 3 | printf "%q" | len}}`, `{{"x" | print 1 2 | html}}`, `{{printf "%T %T %T %T %T" 1 1.0 'a' .int .nil}}`,
	"{{println .word .int}}", "{{print 1 2 \"a\" \"b\" .nil}}", "{{.text | html}}", "{{.text | js}}", "{{.text | urlquery}}", "{{html .nil}}{{js .nil}}{{urlquery .nil 1 .word}}", "{{html}}", "{{.raw | html}}", "{{js `\xff\x7f\u00ad\U000e0001`}}",
	"{{index .list 4 1}}", "{{index .map \"deep\" \"er\"}}", "{{index .request.query \"absent\"}}|{{index .map \"absent\"}}", "{{index .word 1}}", "{{index .word 4}}", "{{index .list 6}}", "{{index .list .int}}", "{{index .map 1}}", "{{index .list}}",
	"{{slice .word 1}}", "{{slice .word 1 2}}", "{{slice .word 1 2 3}}", "{{slice .list 1 2}}", "{{slice .numbers 0 8}}", "{{slice .numbers 1 2 3}}", "{{slice .numbers 2 1}}", "{{slice .list}}", "{{slice .word 0 1 2 3}}",
	"{{and 1 0 .absent}}", "{{or 0 1 .absent}}", "{{and 1 .word}}", "{{or .nil .empty}}", "{{1 | and 0}}", "{{.absent | or 1}}", "{{and .yes | or .no}}", "{{not .nil}}", "{{not .word .word}}",
	"{{eq 1 2 3 1}}", "{{eq .int 3.0}}", "{{eq .int 3}}", "{{eq .nil nil}}", "{{eq .map .map}}", "{{eq .word .nil}}", "{{eq 1 .word}}", "{{lt 1 2}}{{le 2 2}}{{gt \"b\" \"a\"}}{{ge 1.5 1.5}}", "{{eq (index .word 0) 'w'}}", "{{lt (index .word 0) 'x'}}", "{{lt true false}}", "{{lt 1i 2i}}", "{{eq 1i 1i}}", "{{ne 1i 2i}}",
	"{{call .word}}", "{{if false}}{{call .word}}{{end}}", "{{.word 1}}", "{{1 | .word}}", "{{(.word) 1}}", "{{$ 1}}", "{{1 2}}", "{{nil}}", "{{true}}{{false}}", "{{.map.a.b}}", "{{$.map.deep.er.est}}", "{{(index .list 5).k}}", "{{len.x}}", "{{true.x}}",
	"{{break}}", "{{end}}", "{{if}}", "{{", "{{.word", "{{\"a}}", "{{undefined}}", "{{$undefined}}", "{{else}}", "{{range .list}}{{define \"x\"}}{{end}}{{end}}", "{{1 := 2}}", "{{/* open", "{{if .yes}}", "{{)}}", "{{template}}", "{{block \"x\"}}{{end}}",
	`{{template "file" .}}`, `{{define "file"}}x{{end}}`, `{{define "file"}}x{{end}}y`, "{{- .word -}}", "{{-3}}", "{{- 3 -}}  x", "{{\n.word\n}}", "{{if/**/.yes}}1{{end}}",
	"{{.yes | not | print}}", "{{print .list}}{{print .map}}{{.request}}", "{{.big}} {{.half}} {{1000000}} {{1e6}} {{1.5}}", "{{range .map}}{{.}}{{end}}", "{{$}}", "{{.}}", "{{. | len}}", "{{(((.word)))}}", "{{((.map)).a}}", "{{print print}}", "{{len len}}",
}

// compare renders a template with text/template too, wants the same, and returns the error of
// each.
func compare(t *testing.T, text string, data map[string]any) (err, wantErr error) {
	t.Helper()
	const limit = 1 << 20
	var want strings.Builder
	theirs, wantErr := judge.New("file").Option("missingkey=error").Parse(text)
	if wantErr == nil {
		wantErr = theirs.Execute(&want, data)
	}
	var got []byte
	ours, err := Parse("file", text)
	if err == nil {
		got, err = ours.Render(data, limit)
	}
	_, isFault := errors.AsType[*Fault](err)
	switch {
	case want.Len() > limit:
	case (err == nil) != (wantErr == nil):
		t.Errorf("%q: %v, want %v", text, err, wantErr)
	case err == nil && string(got) != want.String():
		t.Errorf("%q: %q, want %q", text, got, want.String())
	case err != nil && !isFault:
		t.Errorf("%q: %T is no Fault: %v", text, err, err)
	}
	return err, wantErr
}

func TestCorpusRendersAsTextTemplateRendersIt(t *testing.T) {
	data := machine(t)
	for _, text := range corpus {
		err, wantErr := compare(t, text, data)
		if err == nil || wantErr == nil {
			continue
		}
		_, missing, _ := strings.Cut(wantErr.Error(), ": map has no entry for key ")
		if missing != "" && !strings.HasSuffix(err.Error(), ": no variable "+strings.Trim(missing, `"`)) {
			t.Errorf("%q: %v, want %v", text, err, wantErr)
		}
	}
}

// TestEveryFunctionOverEveryValue calls each function with no, one, two and (where the
// third makes a difference) three arguments, directly and by a pipeline.
func TestEveryFunctionOverEveryValue(t *testing.T) {
	data := machine(t)
	for _, function := range functionNames {
		compare(t, "{{"+function+"}}", data)
		for _, a := range values {
			compare(t, "{{"+function+" "+a+"}}", data)
			compare(t, "{{"+a+" | "+function+"}}", data)
			for _, b := range values {
				compare(t, "{{"+function+" "+a+" "+b+"}}", data)
				compare(t, "{{"+b+" | "+function+" "+a+"}}", data)
			}
		}
	}
	for _, a := range []string{"0", "1", "3", "4", "9", "-1", ".nil", "1.0", "(index .word 0)"} {
		for _, b := range []string{"0", "2", "8", "9", ".int"} {
			for _, c := range []string{"0", "2", "5", "8", "9", "nil"} {
				for _, function := range []string{"slice .numbers", "slice .word", "index .list", "eq 1", "and 1", "or 0", "lt"} {
					compare(t, "{{"+function+" "+a+" "+b+" "+c+"}}", data)
				}
			}
		}
	}
}

// TestEveryActionOverEveryValue puts each value where an action takes one.
func TestEveryActionOverEveryValue(t *testing.T) {
	data := machine(t)
	for _, value := range values {
		for _, text := range []string{
			"{{VALUE}}", "{{(VALUE)}}", "{{$x := VALUE}}{{$x}}", "{{if VALUE}}1{{else}}0{{end}}", "{{with VALUE}}{{.}}{{else}}{{.word}}{{end}}", "{{with VALUE}}{{.k}}{{end}}",
			"{{range VALUE}}{{.}},{{else}}none{{end}}", "{{range $i, $e := VALUE}}{{$i}}={{$e}},{{else}}none{{end}}", "{{range $e := VALUE}}{{$e}},{{end}}", "{{range VALUE}}{{.a}}{{end}}",
			`{{template "d" VALUE}}{{define "d"}}{{.}}{{end}}`, `{{template "d" VALUE}}{{define "d"}}{{$.a}}{{end}}`, "{{(VALUE).a}}", "{{VALUE 1}}", "{{1 | VALUE}}", "{{$x := 0}}{{$x = VALUE}}{{$x}}", "{{VALUE.a}}",
		} {
			// A loop to the largest number would never end.
			if !strings.Contains(text, "range") || !strings.Contains(value, "9223") {
				compare(t, strings.ReplaceAll(text, "VALUE", value), data)
			}
		}
	}
}

func TestFaultsSayWhereAndWhyAndQuoteNothing(t *testing.T) {
	data := machine(t)
	for text, want := range map[string]string{
		"\n{{.none_such}}":           "line 2: no variable none_such",
		"{{.word.x}}":                "line 1: no variable x in a text",
		"{{nope}}":                   "line 1: no function nope",
		"\n\n{{":                     "line 3: cannot be parsed",
		"{{\"sesame\" \"sesame\"}}":  "line 1: an argument for what is no function",
		"{{index .word \"sesame\"}}": "line 1: index: by a text",
		"{{index .list .int}}":       "line 1: index: by a number",
		"\n{{eq .word .list}}":       "line 2: eq: a text with a list",
		"{{printf .map}}":            "line 1: printf: by a map",
		"{{len .yes}}":               "line 1: len: of true or false",
		"{{template \"x\ny\"}}":      "line 1: cannot be parsed",
		"{{template \"x y\"}}":       "line 1: no template \"x y\"",
		"{{ne 1}}":                   "line 1: ne with 1 arguments",
		"{{range .half}}{{end}}":     "line 1: range over a number",
		"{{call .word}}":             "line 1: call: data holds no functions",
		"{{define \"d\"}}\n{{.no_such}}{{end}}{{template \"d\" .}}": "line 2: no variable no_such",
	} {
		ours, err := Parse("a: file", text)
		if err == nil {
			_, err = ours.Render(data, 1000)
		}
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestBounds(t *testing.T) {
	data := machine(t)
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"output":               {"{{range 1000000}}{{$.text}}{{end}}", ErrTooLong},
		"text":                 {strings.Repeat("x", 1001), ErrTooLong},
		"a value":              {"{{$x := .text}}{{range 64}}{{$x = print $x $x}}{{end}}", ErrTooLong},
		"loops without output": {"{{range 1000000000}}{{end}}", errTooMuch},
		"itself":               {`{{define "d"}}{{template "d"}}{{end}}{{template "d"}}`, errTooDeep},
		"itself, deep":         {`{{define "d"}}` + strings.Repeat("{{if 1}}", 1000) + `{{template "d"}}` + strings.Repeat("{{end}}", 1000) + `{{end}}{{template "d"}}`, errTooDeep},
		"nested":               {strings.Repeat("{{with 1}}", maxActions/2) + strings.Repeat("{{end}}", maxActions/2), errTooDeep},
	} {
		ours, err := Parse("file", test.text)
		if err == nil {
			_, err = ours.Render(data, 1000)
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if _, err := Parse("file", strings.Repeat("{{if 1}}", maxActions+1)); err == nil || err.Error() != "line 1: 100001 actions, more than 100000" {
		t.Errorf("too many actions: %v", err)
	}
	ours, err := Parse("file", "{{.text}}")
	if err != nil {
		t.Fatal(err)
	}
	size := len(data["text"].(string))
	if out, err := ours.Render(data, size); err != nil || len(out) != size {
		t.Errorf("as long as may be: %d bytes, %v", len(out), err)
	}
	if _, err := ours.Render(data, size-1); !errors.Is(err, ErrTooLong) {
		t.Errorf("a byte more: %v", err)
	}
}

// loops finds loops over numbers, which the fuzzer makes endless for text/template.
func loops(trees map[string]*parse.Tree) bool {
	for _, tree := range trees {
		if strings.Contains(tree.Root.String(), "{{range") && strings.ContainsAny(tree.Root.String(), "0123456789'") {
			return true
		}
	}
	return false
}

func FuzzRendersAsTextTemplate(f *testing.F) {
	for _, text := range corpus {
		f.Add(text)
	}
	data := machine(f)
	f.Fuzz(func(t *testing.T, text string) {
		// What calls itself, doubles texts or counts far ends here, and not there.
		if len(text) > 500 || strings.Count(text, "template")+strings.Count(text, "block") > 1 || strings.Count(text, "range") > 2 || strings.Contains(text, "%") {
			return
		}
		trees, err := parse.Parse("file", text, "", "", names())
		if err == nil && loops(trees) {
			return
		}
		compare(t, text, data)
	})
}
