package stages

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// definition is a repart.d file of a config, in JSON.
func definition(name, text string) string {
	return fmt.Sprintf(`{"name":%q,"contents":{"inline":%s}}`, name, strconv.Quote(text))
}

// onBoot is an entry of repart for the disk that was booted from.
func onBoot(more string, definitions ...string) string {
	return `{"name":"system","device":"boot"` + more + `,"definitions":[` + strings.Join(definitions, ",") + `]}`
}

func repartOf(entries ...string) string {
	return `"repart":[` + strings.Join(entries, ",") + `]`
}

func TestTheRecordIsFirst(t *testing.T) {
	in := first(t, section(repartOf(onBoot("", definition("50-root.conf", "[Partition]\nType=root\n")))))
	for _, boot := range []Boot{First, Interrupted} {
		in.Facts.Boot = boot
		steps := want(t, Repart, in)
		if got, want := steps[0], (initrd.Recorded{
			State: initrd.Started, Provision: provision, Platform: "metal", Config: "c0ffee",
		}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", boot, got)
		}
		// Nothing of a disk may overlap with it.
		for _, s := range steps[1:] {
			if !slices.ContainsFunc(s.Touches(), func(name string) bool { return slices.Contains(steps[0].Touches(), name) }) {
				t.Errorf("%s: %s need not wait for the record", boot, s)
			}
		}
	}
}

func TestLaterBootsDoNotPartition(t *testing.T) {
	in := first(t, section(`"policy":{"disks":"wipe"},`+repartOf(
		onBoot(`,"factoryReset":true`, definition("50-root.conf", "[Partition]\nType=root\n")))))
	in.Facts.Boot = Later
	if steps := want(t, Repart, in); len(steps) > 0 {
		t.Errorf("%q", texts(steps))
	}
}

// TestErasingNeedsAPlaceForTheRecord: without one, every boot would erase.
func TestErasingNeedsAPlaceForTheRecord(t *testing.T) {
	root := definition("50-root.conf", "[Partition]\nType=root\n")
	for _, c := range []struct {
		policy, entry string
		placed        bool
		refused       bool
	}{
		{"keep", ``, false, false},
		{"keep", `,"empty":"require"`, false, false},
		{"keep", `,"empty":"force"`, false, true},
		{"keep", `,"factoryReset":true`, false, true},
		{"keep", `,"empty":"force"`, true, false},
		{"keep", `,"factoryReset":true`, true, false},
		{"wipe", `,"empty":"force"`, false, false},
		{"wipe", `,"factoryReset":true`, false, false},
	} {
		in := first(t, section(`"policy":{"disks":"`+c.policy+`"},`+repartOf(onBoot(c.entry, root))))
		in.Facts.Placed = c.placed
		steps, err := Repart(in)
		var fault *Error
		switch {
		case !c.refused && err != nil:
			t.Errorf("%+v: %v", c, err)
		case c.refused && (!errors.As(err, &fault) || fault.List != "repart" || fault.Name != "system" || steps != nil):
			t.Errorf("%+v: %q %v", c, texts(steps), err)
		case c.refused && !strings.Contains(err.Error(), "say policy.disks: wipe"):
			t.Errorf("%+v: it does not say what to do: %v", c, err)
		}
	}
}

func TestDefinitionsAreAtHand(t *testing.T) {
	in := first(t, section(repartOf(onBoot("", `{"name":"50-root.conf","contents":{"source":"http://boot.example/root.conf"}}`))))
	_, err := Repart(in)
	if err == nil || !strings.HasPrefix(err.Error(), `repart "system": definition 50-root.conf: `) {
		t.Errorf("error %v", err)
	}
	in = first(t, section(repartOf(onBoot("", `{"name":"50-root.conf","contents":{"source":"data:;base64,W1BhcnRpdGlvbl0K"}}`))))
	steps := want(t, Repart, in)
	if r := steps[2].(initrd.Repart); len(r.Definitions) != 1 || string(r.Definitions[0].Contents) != "[Partition]\n" {
		t.Errorf("%+v", r)
	}
}

func TestEveryDiskIsSpreadBeforeItIsPartitioned(t *testing.T) {
	d := definition("50-root.conf", "[Partition]\nType=root\n")
	in := first(t, section(repartOf(
		onBoot("", d),
		`{"name":"data","device":"/dev/disk/by-id/x","empty":"require","seed":"3f8e5bda-9c0f-4a0c-8d70-0f6c6a1c1c1c","definitions":[`+d+`]}`,
	)))
	steps := want(t, Repart, in)
	if len(steps) != 5 {
		t.Fatalf("%q", texts(steps))
	}
	for i := 1; i < 5; i += 2 {
		spread, part := steps[i].(initrd.Spread), steps[i+1].(initrd.Repart)
		if spread.On != part.On || part.Provision != provision {
			t.Errorf("%+v %+v", spread, part)
		}
	}
	if r := steps[4].(initrd.Repart); r.On.Device != "/dev/disk/by-id/x" || r.Empty != "require" || r.Seed != "3f8e5bda-9c0f-4a0c-8d70-0f6c6a1c1c1c" {
		t.Errorf("%+v", r)
	}
	if r := steps[2].(initrd.Repart); r.Empty != config.EmptyAllow || r.Seed != "" || r.FactoryReset {
		t.Errorf("%+v", r)
	}
}

func TestMatchIsWhatWasSaid(t *testing.T) {
	for text, want := range map[string]disk.Match{
		`{"serial":"S"}`: {Serial: "S"},
		`{"wwn":"0x5","model":"M","transport":"nvme"}`: {WWN: "0x5", Model: "M", Transport: "nvme"},
		`{"sizeMin":"1G"}`:                       {SizeMin: 1 << 30},
		`{"sizeMax":"2T"}`:                       {SizeMax: 2 << 40},
		`{"sizeMin":"512","sizeMax":"8388608T"}`: {SizeMin: 512, SizeMax: 1<<63 - 1},
	} {
		in := first(t, section(repartOf(`{"name":"a","match":`+text+`,"definitions":[`+definition("1.conf", "[Partition]\nType=root\n")+`]}`)))
		for _, s := range selectors(t, in) {
			if s.Match != want || s.Device != "" {
				t.Errorf("%s: %+v", text, s)
			}
		}
	}
}

// selectors gives the two selectors of a config with one entry.
func selectors(t *testing.T, in Input) []initrd.Selector {
	steps := want(t, Repart, in)
	return []initrd.Selector{steps[1].(initrd.Spread).On, steps[2].(initrd.Repart).On}
}

func TestUnknownPartitionTypeIsAFault(t *testing.T) {
	for _, text := range []string{"[Partition]\nType=rooot\n", "[Partition]\nLabel=x\n", ""} {
		in := first(t, section(repartOf(onBoot("", definition("50-root.conf", text)))))
		for name, stage := range map[string]func(Input) ([]initrd.Step, error){"root": Root, "etc": Etc} {
			_, err := stage(in)
			var fault *Error
			if !errors.As(err, &fault) || fault.Name != "system" || !strings.Contains(err.Error(), "definition 50-root.conf: partition type") {
				t.Errorf("%s: %q: %v", name, text, err)
			}
		}
	}
}
