package stages

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

var update = flag.Bool("update", false, "write the golden files anew")

const provision = "0a3c7d2e-5b1f-4a6d-8c9e-7f0123456789"

// parse reads a config that has no fault.
func parse(t testing.TB, text string) config.Config {
	t.Helper()
	c, report := config.Parse([]byte(text), config.Options{})
	if report.Fatal() {
		t.Fatal(report)
	}
	return c
}

// first is a first boot with a config.
func first(t testing.TB, text string) Input {
	return Input{
		Config: parse(t, text),
		Documents: []initrd.Document{
			{Name: config.UserDocument, Source: "http://boot.example/ignition", Bytes: []byte(text)},
			{Name: "child-0001", Bytes: []byte("{}")},
		},
		Facts: Facts{
			Boot: First, Platform: "metal", Provision: provision, Root: initrd.BootRoot,
			Placed: true, Digest: "c0ffee", Packed: []byte("packed"),
		},
	}
}

// section is a config with our section alone.
func section(text string) string {
	return `{"ignition":{"version":"3.5.0"},"pilotlight":{"version":"1",` + text + `}}`
}

// want asks a stage for its wishes.
func want(t testing.TB, stage func(Input) ([]initrd.Step, error), in Input) []initrd.Step {
	t.Helper()
	steps, err := stage(in)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func texts(steps []initrd.Step) []string {
	var list []string
	for _, s := range steps {
		list = append(list, s.String())
	}
	return list
}

// describe writes all that a wish says, for a golden file.
func describe(s initrd.Step) string {
	if w, ok := s.(initrd.MadeAnew); ok {
		return "MadeAnew " + w.Root + " of " + describe(w.Step)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", strings.TrimPrefix(fmt.Sprintf("%T", s), "initrd."), s)
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			fmt.Fprintf(&b, "\t%s: %s\n", v.Type().Field(i).Name, value(f.Interface()))
		}
	}
	return b.String()
}

func value(v any) string {
	switch v := v.(type) {
	case resource.Resource:
		text := v.String()
		if v.Inline != nil {
			text = fmt.Sprintf("%q", v.Inline.Reveal())
		}
		if !v.Remote() {
			if b, err := v.Local(); err == nil {
				text = fmt.Sprintf("%q", b)
			}
		}
		if !v.Hash.IsZero() {
			text += fmt.Sprintf(" with %s", v.Hash.Algorithm)
		}
		return text
	case *resource.Resource:
		return value(*v)
	case []resource.Resource:
		var list []string
		for _, r := range v {
			list = append(list, value(r))
		}
		return strings.Join(list, ", ")
	case *fs.FileMode:
		return v.String()
	case *uint32:
		return fmt.Sprint(*v)
	case *string:
		return fmt.Sprintf("%q", *v)
	case []byte:
		return fmt.Sprintf("%q", v)
	case []string:
		return strings.Join(v, " | ")
	case []initrd.Definition:
		var list []string
		for _, d := range v {
			list = append(list, fmt.Sprintf("%s %q", d.Name, d.Contents))
		}
		return strings.Join(list, ", ")
	case []initrd.Mount:
		var list []string
		for _, m := range v {
			list = append(list, fmt.Sprintf("(%s) type %q options %q", m, m.Type, m.Options))
		}
		return strings.Join(list, ", ")
	case string:
		return v
	}
	return fmt.Sprintf("%+v", v)
}

// TestGolden holds what each stage wants of each config of testdata, in each kind of
// boot. A change of a golden file is a change of what machines will do.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.ign")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v %v", files, err)
	}
	root, err := disk.TypeByName("root")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, boot := range []Boot{First, Later} {
			name := strings.TrimSuffix(filepath.Base(file), ".ign") + "." + string(boot)
			t.Run(name, func(t *testing.T) {
				in := first(t, string(raw))
				in.Facts.Boot, in.Facts.Result = boot, true
				var b strings.Builder
				for _, s := range All {
					fmt.Fprintf(&b, "# %s\n", s.Name)
					steps, err := s.Want(in)
					if err != nil {
						fmt.Fprintf(&b, "error: %v\n", err)
					}
					for _, step := range steps {
						b.WriteString(describe(step))
					}
				}
				text := strings.ReplaceAll(b.String(), disk.TypeName(root), "root-ARCHITECTURE")
				golden := filepath.Join("testdata", name+".want")
				if *update {
					if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				wanted, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if text != string(wanted) {
					t.Errorf("got\n%s\nwant\n%s", text, wanted)
				}
			})
		}
	}
}

// TestStagesArePure asks each stage twice, and holds that the question is as it was.
func TestStagesArePure(t *testing.T) {
	files, err := filepath.Glob("testdata/*.ign")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range All {
			for _, boot := range []Boot{First, Interrupted, Later} {
				in, same := first(t, string(raw)), first(t, string(raw))
				in.Facts.Boot, same.Facts.Boot = boot, boot
				a, aerr := s.Want(in)
				b, berr := s.Want(in)
				if !reflect.DeepEqual(a, b) || fmt.Sprint(aerr) != fmt.Sprint(berr) {
					t.Errorf("%s of %s: asked twice, it wants %v and %v", s.Name, file, texts(a), texts(b))
				}
				if !reflect.DeepEqual(in, same) {
					t.Errorf("%s of %s changed what it was given", s.Name, file)
				}
			}
		}
	}
}

// TestWishesDoNotDependOnTheMachine: an address, a platform or an instance changes no
// wish but the record's.
func TestWishesDoNotDependOnTheMachine(t *testing.T) {
	raw, err := os.ReadFile("testdata/full.ign")
	if err != nil {
		t.Fatal(err)
	}
	here, there := first(t, string(raw)), first(t, string(raw))
	there.Facts.Platform = "qemu"
	there.Documents[0].Source = "http://192.0.2.7/ignition"
	for _, s := range All {
		for i, step := range want(t, s.Want, here) {
			other := want(t, s.Want, there)[i]
			if _, ok := step.(initrd.Recorded); !ok && !reflect.DeepEqual(step, other) {
				t.Errorf("%s: %v and %v", s.Name, step, other)
			}
		}
	}
}

// TestInterruptedBootGoesOn as a first boot does.
func TestInterruptedBootGoesOn(t *testing.T) {
	raw, err := os.ReadFile("testdata/full.ign")
	if err != nil {
		t.Fatal(err)
	}
	in, again := first(t, string(raw)), first(t, string(raw))
	again.Facts.Boot = Interrupted
	for _, s := range All {
		if a, b := want(t, s.Want, in), want(t, s.Want, again); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v and %v", s.Name, texts(a), texts(b))
		}
	}
}

func TestStagesHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All {
		if got, ok := Named(s.Name); !ok || got.Doc != s.Doc || s.Doc == "" || seen[s.Name] {
			t.Errorf("%q: %+v %v", s.Name, got, ok)
		}
		seen[s.Name] = true
	}
	if _, ok := Named("boot"); ok {
		t.Error("a stage that is none was found")
	}
}

// TestEveryWishIsOfAKnownKind, so that a builder packs what it needs.
func TestEveryWishIsOfAKnownKind(t *testing.T) {
	// What is unmounted again at the end is known by who mounted it: no stage wishes for that.
	kinds := map[string]bool{"Unmounted": true}
	look := func(in Input) {
		for _, s := range All {
			for _, step := range want(t, s.Want, in) {
				if w, ok := step.(initrd.MadeAnew); ok {
					kinds["MadeAnew"] = true
					step = w.Step
				}
				if _, err := initrd.KindOf(step); err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
				kinds[reflect.TypeOf(step).Name()] = true
				if len(step.Touches()) == 0 {
					t.Errorf("%s: %s touches nothing", s.Name, step)
				}
			}
		}
	}
	// One has our section, and the other is for Ignition alone.
	for _, name := range []string{"full.ign", "ignition-only.ign"} {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, boot := range []Boot{First, Later} {
			in := first(t, string(raw))
			in.Facts.Boot, in.Facts.Result = boot, true
			look(in)
		}
	}
	for _, k := range initrd.Kinds {
		if name := reflect.TypeOf(k.Step).Name(); !kinds[name] {
			t.Errorf("neither config wishes for a %s", name)
		}
	}
}

// TestAskedFindsTheEntry: a failure is told with the place of the config that asked
// for the step.
func TestAskedFindsTheEntry(t *testing.T) {
	raw, err := os.ReadFile("testdata/full.ign")
	if err != nil {
		t.Fatal(err)
	}
	documents := []config.Document{{Name: config.UserDocument, Bytes: raw}}
	nobody := []string{"Extend", "Networkd", "Recorded", "Sysusers", "Tmpfiles", "Identity", "Preset", "Fstab", "Crypttab", "Gone", "Writable", "Relabel", "KernelArguments", "Result"}
	for _, boot := range []Boot{First, Later} {
		in := first(t, string(raw))
		in.Facts.Boot = boot
		for _, s := range All {
			for _, step := range want(t, s.Want, in) {
				list, key, name := Asked(step)
				inner := step
				if w, ok := step.(initrd.MadeAnew); ok {
					inner = w.Step
				}
				if slices.Contains(nobody, reflect.TypeOf(inner).Name()) {
					if list != nil {
						t.Errorf("%s was asked for by %v", step, list)
					}
					continue
				}
				if list == nil {
					if m, ok := inner.(initrd.Mount); !ok || m.What.Path != "" {
						t.Errorf("nobody asked for %s", step)
					}
					continue
				}
				at, ok := config.Find(documents, list, key, name)
				made := strings.HasSuffix(name, PresetFile) || s.Name == "root"
				if !ok && !made && !strings.Contains(name, ".d/") && !slices.Equal(list, []string{"storage", "links"}) {
					t.Errorf("%s: %v %s=%q is nowhere in the config", step, list, key, name)
				}
				if ok && at.Document != config.UserDocument {
					t.Errorf("%s: %v", step, at)
				}
			}
		}
	}
}

func TestMeasureIsOneExtendForEachDocument(t *testing.T) {
	in := first(t, `{"ignition":{"version":"3.5.0"}}`)
	steps := want(t, Measure, in)
	if len(steps) != 2 {
		t.Fatalf("%v", texts(steps))
	}
	for i, name := range []string{"user", "child-0001"} {
		e := steps[i].(initrd.Extend)
		if e.PCR != 12 || e.Required || !strings.HasPrefix(e.Word, "pilotlight:config:v1:"+name+":sha256:") {
			t.Errorf("%+v", e)
		}
	}
	in.Config = parse(t, section(`"measure":{"pcr":14,"required":true}`))
	for _, s := range want(t, Measure, in) {
		if e := s.(initrd.Extend); e.PCR != 14 || !e.Required {
			t.Errorf("%+v", e)
		}
	}
	in.Documents = nil
	if steps := want(t, Measure, in); len(steps) != 0 {
		t.Errorf("%v", texts(steps))
	}
}

func TestNetworkIsForTheInitrdAlone(t *testing.T) {
	in := first(t, section(`"network":[{"name":"10-lan.network","contents":{"inline":"[Match]\nName=*\n"}},{"name":"20-v.netdev","contents":{"inline":"x"}}]`))
	got := texts(want(t, Network, in))
	if want := []string{
		"file /run/systemd/network/10-lan.network", "file /run/systemd/network/20-v.netdev", "networkd knows its files",
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	got = texts(want(t, Report, in))
	if want := []string{
		"nothing at /run/systemd/network/10-lan.network", "nothing at /run/systemd/network/20-v.netdev",
		"record says complete, provision " + provision,
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if steps := want(t, Network, first(t, section(`"network":[]`))); len(steps) != 0 {
		t.Errorf("without files networkd is told nothing: %q", texts(steps))
	}
}

func TestReportKeepsTheCopyInTheFormOfThePolicy(t *testing.T) {
	for policy, form := range map[string]string{"{}": "sealed", `{"keep":"plain"}`: "plain", `{"keep":"digest"}`: "digest"} {
		steps := want(t, Report, first(t, section(`"policy":`+policy)))
		r := steps[len(steps)-1].(initrd.Recorded)
		want := initrd.Recorded{
			State: initrd.Complete, Provision: provision, Platform: "metal", Config: "c0ffee", Form: form, Documents: []byte("packed"),
		}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("%+v, want %+v", r, want)
		}
	}
}

const rootHash = "4be1d2f0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c"

func TestVerityOptions(t *testing.T) {
	for entry, options := range map[string]string{
		``:                         "restart-on-corruption",
		`,"onCorruption":"panic"`:  "panic-on-corruption",
		`,"onCorruption":"ignore"`: "ignore-corruption",
		`,"fec":{"device":"/dev/disk/by-partlabel/fec","offset":4096,"roots":2}`: "restart-on-corruption fec-device=/dev/disk/by-partlabel/fec fec-offset=4096 fec-roots=2",
	} {
		in := first(t, section(`"verity":[{"name":"usr","rootHash":"`+rootHash+`"`+entry+`}]`))
		for _, boot := range []Boot{First, Interrupted, Later} {
			in.Facts.Boot = boot
			steps := want(t, Verity, in)
			if len(steps) != 1 {
				t.Fatalf("%v", steps)
			}
			v := steps[0].(initrd.Verity)
			if v.Name != "usr" || v.RootHash != rootHash || v.Signature != nil || strings.Join(v.Options, " ") != options {
				t.Errorf("%s: %+v", entry, v)
			}
		}
	}
}

func TestVeritySignatureMustBeAtHand(t *testing.T) {
	in := first(t, section(`"verity":[{"name":"usr","rootHash":"`+rootHash+`","rootHashSignature":{"source":"data:;base64,cGtjczc="}}]`))
	if v := want(t, Verity, in)[0].(initrd.Verity); string(v.Signature) != "pkcs7" {
		t.Errorf("%q", v.Signature)
	}
	// Whatever fetches the config fetches it too: here it is still remote.
	in = first(t, section(`"verity":[{"name":"usr","rootHash":"`+rootHash+`","rootHashSignature":{"source":"http://boot.example/sig"}}]`))
	_, err := Verity(in)
	var fault *Error
	if !errors.As(err, &fault) || fault.List != "verity" || fault.Name != "usr" || !strings.HasPrefix(err.Error(), `verity "usr": root hash signature: `) {
		t.Errorf("error %v", err)
	}
}

func TestRootTypeIsThatOfThisArchitecture(t *testing.T) {
	root, err := disk.TypeByName("root")
	if err != nil {
		t.Fatal(err)
	}
	steps := want(t, Root, first(t, `{"ignition":{"version":"3.5.0"}}`))
	if len(steps) != 3 || steps[0].(initrd.Mount).What.Type != root {
		t.Errorf("%q", texts(steps))
	}
}
