package config

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
)

// secretFields and plainFields list every string of a config by the type that
// holds it. What is secret by definition is repeated in no fault; what is plain
// may be. A field of a new spec stands in neither, and the test fails until
// somebody has decided.
var secretFields = []string{
	"ClevisCustom.Config",
	"Dropin.Contents",
	"HTTPHeader.Value",
	"PasswdGroup.PasswordHash",
	"PasswdUser.PasswordHash",
	"Proxy.HTTPProxy",  // user info
	"Proxy.HTTPSProxy", // user info
	"Resource.Source",  // user info, query, contents
	"Tang.Advertisement",
	"Tang.URL", // user info, query
	"Unit.Contents",

	"resource.Header.Value",
	"resource.Resource.Inline",
	"resource.Resource.Source",
}

var plainFields = []string{
	"ClevisCustom.Pin",
	"Directory.Path",
	"Disk.Device",
	"Dropin.Name",
	"File.Path",
	"Filesystem.Device", "Filesystem.Format", "Filesystem.Label", "Filesystem.MountOptions", "Filesystem.Options", "Filesystem.Path", "Filesystem.UUID",
	"HTTPHeader.Name",
	"Ignition.Version",
	"KernelArguments.ShouldExist", "KernelArguments.ShouldNotExist",
	"Link.Path", "Link.Target",
	"Luks.Device", "Luks.Label", "Luks.Name", "Luks.OpenOptions", "Luks.Options", "Luks.UUID",
	"NodeGroup.Name",
	"NodeUser.Name",
	"Partition.GUID", "Partition.Label", "Partition.TypeGUID",
	"PasswdGroup.Name",
	"PasswdUser.Gecos", "PasswdUser.Groups", "PasswdUser.HomeDir", "PasswdUser.Name", "PasswdUser.PrimaryGroup", "PasswdUser.SSHAuthorizedKeys", "PasswdUser.Shell",
	"Proxy.NoProxy",
	"Raid.Devices", "Raid.Level", "Raid.Name", "Raid.Options",
	"Resource.Compression",
	"Tang.Thumbprint",
	"Unit.Name",
	"Verification.Hash",

	"config.Credential.Name", "config.Credential.Scope",
	"config.Dropin.Name",
	"config.Etc.Upper",
	"config.Luks.Name", "config.Recovery.Credential",
	"config.FEC.Device",
	"config.Match.Model", "config.Match.Serial", "config.Match.SizeMax", "config.Match.SizeMin", "config.Match.Transport", "config.Match.WWN",
	"config.Policy.Disks", "config.Policy.Keep", "config.Policy.OnFailure", "config.Policy.Run",
	"config.Repart.Device", "config.Repart.Empty", "config.Repart.Name", "config.Repart.Seed",
	"config.Section.Root", "config.Section.Version",
	"config.Verity.Data", "config.Verity.Hash", "config.Verity.Mount", "config.Verity.Name", "config.Verity.OnCorruption", "config.Verity.RootHash",
	"resource.Hash.Algorithm", "resource.Hash.Sum",
	"resource.Header.Name",
	"resource.Resource.Compression",
}

// fieldName names a field by the type that holds it: Ignition's types bare,
// ours with their package.
func fieldName(t reflect.Type, f reflect.StructField) string {
	name := t.String() + "." + f.Name
	return strings.TrimPrefix(name, "types.")
}

// unprintable are the types whose values do not print.
var unprintable = []reflect.Type{reflect.TypeFor[resource.Secret](), reflect.TypeFor[resource.URL]()}

// stringFields lists the fields of a type that hold text or bytes, and visits each type
// once. A field whose kind it cannot look into is listed too, so that somebody decides.
func stringFields(t reflect.Type, seen map[reflect.Type]bool, out map[string]reflect.Type) {
	t = innermost(t)
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		inner := innermost(f.Type)
		switch kind := inner.Kind(); {
		case slices.Contains(unprintable, inner):
			out[fieldName(t, f)] = inner
		case kind == reflect.Struct:
			stringFields(inner, seen, out)
		case kind < reflect.Bool || kind > reflect.Float64 || kind == reflect.Uint8:
			out[fieldName(t, f)] = inner
		}
	}
}

// innermost is what pointers point to and lists hold.
func innermost(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	return t
}

func TestEveryStringIsSecretOrPlain(t *testing.T) {
	fields := map[string]reflect.Type{}
	seen := map[reflect.Type]bool{}
	stringFields(reflect.TypeFor[types.Config](), seen, fields)
	stringFields(reflect.TypeFor[Section](), seen, fields)
	for name, kind := range fields {
		secret, plain := slices.Contains(secretFields, name), slices.Contains(plainFields, name)
		switch {
		case secret == plain:
			t.Errorf("%s must stand in exactly one of the lists", name)
		case secret && strings.Contains(name, ".Header.") || secret && strings.HasPrefix(name, "resource."):
			if !slices.Contains(unprintable, kind) {
				t.Errorf("%s is secret and of type %s, which prints", name, kind)
			}
		case plain && slices.Contains(unprintable, kind):
			t.Errorf("%s is plain and of type %s, which does not print", name, kind)
		}
	}
	for _, name := range append(slices.Clone(secretFields), plainFields...) {
		if _, there := fields[name]; !there {
			t.Errorf("%s is listed and does not exist", name)
		}
	}
}

// canary is what no message may hold. As a source it is a URL with user info
// and query, as a unit a line that the library's message would repeat.
const canary = "hunter2"

// fill sets every secret string of a value to a text with the canary, and every
// plain one, number and boolean to something. Lists get two items.
func fill(v reflect.Value, secret string, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), secret, name)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), secret, name)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			fill(v.Field(i), secret, fieldName(v.Type(), f))
		}
	case reflect.String:
		v.SetString("plain")
		if slices.Contains(secretFields, name) {
			v.SetString(secret)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(-3)
	}
}

// TestNoFaultHoldsASecret fills a whole config with secrets that are wrong in
// one way or another and looks for them in everything that is said about it.
func TestNoFaultHoldsASecret(t *testing.T) {
	for _, secret := range []string{
		"hunter2", "http://hunter2:hunter2@host/?hunter2=hunter2#hunter2", "https://[hunter2", "http://host:hunter2/", "hunter2://x", "data:hunter2", "data:,%hunter2",
		"data:;base64,hunter2!", "data:text/hunter2;hunter2,x", "s3://bucket/key?versionId=hunter2", "s3://bucket/key?versionId=", "arn:hunter2", "arn:aws:hunter2:x", "tftp://hunter2@host/",
		"[Service] hunter2\n", "[hunter2", "hunter2=x", "[a]\nhunter2\n", "[a]\nhunter2=" + strings.Repeat("x", 5000) + "\n", "x\r\nhunter2: y", "\x00hunter2", "{hunter2", "$6$hunter2$",
	} {
		var c types.Config
		fill(reflect.ValueOf(&c).Elem(), secret, "")
		for _, version := range []string{"3.0.0", "3.5.0", "9.0.0", ""} {
			c.Ignition.Version = version
			ignition, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			q, err := json.Marshal(secret)
			if err != nil {
				t.Fatal(err)
			}
			quiet(t, ignition)
			quiet(t, []byte(strings.Replace(string(ignition), "{", `{"pilotlight": `+filled(string(q))+`, `, 1)))
			// Secrets where something else belongs.
			for _, wrong := range []string{`{"ignition": %s}`, `{"ignition": {"version": %s}}`, `{"ignition": {"version": "3.5.0"}, "pilotlight": %s}`,
				`{"ignition": {"version": "3.5.0"}, "storage": {"files": [{"path": "/a", "mode": %[1]s, "contents": %[1]s}]}}`,
				`{"ignition": {"version": "3.5.0"}, "systemd": {"units": [{"name": %[1]s, "contents": %[1]s, "dropins": [%[1]s]}]}}`,
				`{"ignition": {"version": "3.5.0"}, "passwd": {"users": [{"name": 1, "passwordHash": [%s]}]}}`,
				`{"ignition": %s`, `%s`, `[%s,]`, `{"a": %s "b"}`,
			} {
				quiet(t, fmt.Appendf(nil, wrong, q))
			}
			quiet(t, []byte(secret))
		}
	}
}

// filled is a section with a secret at the place of each value.
func filled(q string) string {
	resource := `{"source": ` + q + `, "inline": ` + q + `, "compression": ` + q + `, "httpHeaders": [{"name": "a", "value": ` + q + `}], "verification": {"hash": ` + q + `}}`
	source := `{"source": ` + q + `, "httpHeaders": [{"name": "a", "value": ` + q + `}]}`
	return strings.NewReplacer("Q", q, "R", resource, "S", source).Replace(`{
		"version": Q, "policy": {"run": Q, "disks": Q, "onFailure": Q, "keep": Q, "onFetchFailure": Q},
		"repart": [{"name": "a", "device": Q, "match": {"serial": Q, "sizeMin": Q, "sizeMax": Q}, "empty": Q, "seed": Q, "tpm2PCRs": Q, "keyFile": R,
			"definitions": [{"name": "a.conf", "contents": R}, {"name": "b.conf", "contents": S}, {"name": "c.conf", "contents": Q}]}],
		"verity": [{"name": "usr", "rootHash": Q, "data": Q, "hash": Q, "rootHashSignature": R, "onCorruption": Q, "onError": Q, "mount": Q}],
		"luks": [{"name": Q, "tpm2": {"pcrs": Q, "pin": R}, "recovery": {"credential": Q, "url": {"source": Q, "httpHeaders": [{"name": Q, "value": Q}]}}}, {"name": "b", "recovery": Q}],
		"root": Q, "measure": Q, "network": Q, "etc": {"upper": Q, "credentials": [{"name": "a", "contents": R, "scope": Q}, {"name": "b", "contents": S}]}, "report": {"url": Q}}`)
}

func quiet(t *testing.T, raw []byte) {
	t.Helper()
	_, r := Parse(raw, Options{Strict: true})
	collected, err := Collect(context.Background(), []Document{{Name: UserDocument, Bytes: raw}},
		func(context.Context, []resource.Resource) ([][]byte, error) { return nil, os.ErrClosed }, nil, Options{})
	_, wrapErr := Wrap(raw)
	said := fmt.Sprintf("%v %+v %#v %v %v %v %+v", r, r, r, r.Err(), err, wrapErr, collected)
	if i := strings.Index(said, canary); i >= 0 {
		t.Errorf("of %.120q is said: ...%s", raw, said[max(0, i-200):min(len(said), i+40)])
	}
}

// TestNothingPrintsASecret prints a good config in every way.
func TestNothingPrintsASecret(t *testing.T) {
	raw := []byte(strings.NewReplacer("Bearer t", canary, `"X-Token", "value": "t"`, `"X-Token", "value": "hunter2"`, `"inline": "t"`, `"inline": "hunter2"`,
		"data:,k", "data:,hunter2", "http://proxy", "http://hunter2@proxy", "https://host.example/c", "https://hunter2@host.example/c?hunter2").Replace(every))
	if strings.Count(string(raw), canary) < 7 {
		t.Fatal("the document has too few secrets")
	}
	c, r := Parse(raw, Options{})
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	d := Document{Name: UserDocument, Source: "test", Bytes: raw}
	settings, err := c.Settings()
	if err != nil {
		t.Fatal(err)
	}
	knobs, err := ReadKnobs("pilotlight.config.url=http://hunter2@h/?hunter2 pilotlight.proxy=http://hunter2@p", os.DirFS(secretDir(t)))
	if err != nil || knobs.Config == nil {
		t.Fatal(err)
	}
	for _, v := range []any{c, &c, d, &d, []Document{d}, Collected{Config: c, Documents: []Document{d}}, c.Pilotlight, settings, knobs} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			said := fmt.Sprintf(verb, v)
			if strings.Contains(said, canary) || strings.Contains(said, fmt.Sprintf("%x", canary)) {
				t.Errorf("%T with %s: %s", v, verb, said)
			}
		}
	}
}

func secretDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pilotlight.config"), []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
