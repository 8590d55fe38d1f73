package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	types0 "github.com/coreos/ignition/v2/config/v3_0/types"
	types1 "github.com/coreos/ignition/v2/config/v3_1/types"
	types2 "github.com/coreos/ignition/v2/config/v3_2/types"
	types3 "github.com/coreos/ignition/v2/config/v3_3/types"
	types4 "github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/coreos/ignition/v2/config/v3_5/types"
)

// specTypes are the types of each spec.
var specTypes = map[string]reflect.Type{
	"3.0": reflect.TypeFor[types0.Config](), "3.1": reflect.TypeFor[types1.Config](), "3.2": reflect.TypeFor[types2.Config](),
	"3.3": reflect.TypeFor[types3.Config](), "3.4": reflect.TypeFor[types4.Config](), "3.5": reflect.TypeFor[types.Config](),
}

// TestSpecCorpusIsWhole: every key of every spec is in a document of testdata/spec, by the
// types of the library, and no document has a key that its spec does not have.
func TestSpecCorpusIsWhole(t *testing.T) {
	for spec, kind := range specTypes {
		have := map[string]bool{}
		for name, raw := range corpus(t, spec+"/*.ign") {
			var v map[string]any
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if version := v["ignition"].(map[string]any)["version"]; version != spec+".0" {
				t.Errorf("%s is of version %v", name, version)
			}
			keysOf(v, "", have)
		}
		want := map[string]bool{}
		keysOfType(kind, "", want)
		if len(want) < 80 {
			t.Fatalf("spec %s has %d keys", spec, len(want))
		}
		for key := range want {
			if !have[key] {
				t.Errorf("spec %s: no document has %s", spec, key)
			}
			delete(have, key)
		}
		for key := range have {
			t.Errorf("spec %s has no %s", spec, key)
		}
	}
	if newestSpec := strings.TrimSuffix(newest, ".0"); !slices.Contains([]string{"3.5"}, newestSpec) || specTypes[newestSpec] == nil {
		t.Errorf("spec %s has no documents", newestSpec)
	}
}

// keysOf lists the keys of a value, items of lists under the name of the list.
func keysOf(v any, at string, keys map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			keys[at+"."+key] = true
			keysOf(value, at+"."+key, keys)
		}
	case []any:
		for _, item := range v {
			keysOf(item, at, keys)
		}
	}
}

// keysOfType lists the keys that a value of a type can have.
func keysOfType(t reflect.Type, at string, keys map[string]bool) {
	t = innermost(t)
	if t.Kind() != reflect.Struct {
		return
	}
	for name, f := range fieldsOf(t) {
		keys[at+"."+name] = true
		keysOfType(f.Type, at+"."+name, keys)
	}
}
