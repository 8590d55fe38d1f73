package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// alone are the messages for which a document is refused here that the library takes, and why.
// A message that another document of the corpus is refused for by the library too needs no reason.
var alone = map[string]string{
	"is for the crypto cards of s390x":                  "this program does not build it: that is said before anything is done",
	"is not the name of an HTTP header":                 "no request could be made with it",
	"may not contain line breaks or control characters": "they would end the header and begin another",
	"is negative": "no time is less than none",
}

// mutations are what stands in the place of a value.
func mutations(v any) []any {
	list := []any{nil, "", "x", "../x", "\x00", -1.0, 0.0, 0.5, true, []any{}, map[string]any{}, strings.Repeat("l", 300)}
	switch v := v.(type) {
	case string:
		list = append(list, v+"/", strings.ToUpper(v), v+"\n", v+"?versionId=")
	case []any:
		list = append(list, append(slices.Clone(v), v...))
	}
	return list
}

// places calls visit for each value below v, which is at a path; set puts another in its place, and
// nothing where it is called with absent.
func places(v any, at string, visit func(at string, v any, set func(any))) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			visit(at+"."+key, value, func(to any) {
				v[key] = to
				if to == absent {
					delete(v, key)
				}
			})
			places(value, at+"."+key, visit)
		}
	case []any:
		for i, value := range v {
			visit(at, value, func(to any) { v[i] = to })
			places(value, at, visit)
		}
	}
}

// absent stands for a key that is not there.
var absent any = new(int)

// TestMutatedAsByTheLibrary: of each document of the corpus each value is replaced by others, one at
// a time. The verdict is the library's, and so is the config; what is refused here alone has a reason.
func TestMutatedAsByTheLibrary(t *testing.T) {
	documents, refused := 0, map[string]string{}
	for name, raw := range corpus(t, "3.[05]/*.ign") { // the first and the newest
		var whole map[string]any
		if err := json.Unmarshal(raw, &whole); err != nil {
			t.Fatal(err)
		}
		places(whole, "", func(at string, v any, set func(any)) {
			for _, to := range append(mutations(v), absent) {
				set(to)
				mutant, err := json.Marshal(whole)
				set(v)
				if err != nil {
					t.Fatal(err)
				}
				documents++
				want, found, err := library(mutant)
				c, d := parse(mutant, Options{})
				r := d.report()
				switch {
				case err != nil && !r.Fatal():
					t.Errorf("%s: the library refuses %s: %v: %v", name, mutant, err, found)
				case err == nil && r.Fatal():
					for _, f := range r {
						if f.Severity == Error {
							refused[f.Message] = fmt.Sprintf("%s: %s", name, f)
						}
					}
				case err == nil && !reflect.DeepEqual(c.Ignition, want):
					t.Errorf("%s: %s is read as\n%+v\nand by the library as\n%+v", name, mutant, c.Ignition, want)
				}
			}
		})
	}
	if documents < 4000 {
		t.Errorf("only %d documents", documents)
	}
	for message, where := range refused {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(alone)), func(prefix string) bool { return strings.HasPrefix(message, prefix) }) {
			t.Errorf("refused here alone without a reason: %q (%s)", message, where)
		}
	}
}
