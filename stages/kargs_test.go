package stages

import (
	"reflect"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5/types"
	"pilotlight/config"
	"pilotlight/initrd"
)

func TestKargs(t *testing.T) {
	in := Input{Facts: Facts{Boot: First, Cmdline: "/c"}}
	none, err := Kargs(in)
	if err != nil || len(none) > 0 {
		t.Errorf("nothing is asked for: %v %v", none, err)
	}
	in.Config.Ignition.KernelArguments = types.KernelArguments{ShouldExist: []types.KernelArgument{"a=1", "b"}, ShouldNotExist: []types.KernelArgument{"c"}}
	want := []initrd.Step{initrd.KernelArguments{ShouldExist: []string{"a=1", "b"}, ShouldNotExist: []string{"c"}, Cmdline: "/c"}}
	for _, boot := range []Boot{First, Interrupted} {
		in.Facts.Boot = boot
		if got, err := Kargs(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v %v", boot, got, err)
		}
	}
	in.Facts.Boot = Later
	if got, err := Kargs(in); err != nil || len(got) > 0 {
		t.Errorf("on a later boot: %v %v", got, err)
	}
}

// TestKargsComeBeforeAllThatChangesADisk: the helper may boot anew.
func TestKargsComeBeforeAllThatChangesADisk(t *testing.T) {
	at := map[string]int{}
	for i, s := range All {
		at[s.Name] = i
	}
	for _, later := range []string{"repart", "disks", "luks", "root", "etc"} {
		if at["kargs"] >= at[later] {
			t.Errorf("kargs come after %s", later)
		}
	}
}

func TestResultIsABoots(t *testing.T) {
	results := func(in Input) (list []initrd.Result) {
		steps, err := Etc(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			if r, ok := bared(s).(initrd.Result); ok {
				list = append(list, r)
			}
		}
		return list
	}
	in := Input{Facts: Facts{Boot: First, Root: "/target"}}
	if got := results(in); len(got) > 0 {
		t.Errorf("outside a boot: %v", got)
	}
	in.Facts.Result = true
	if got := results(in); !reflect.DeepEqual(got, []initrd.Result{{Root: "/target", Path: initrd.ResultFile}}) {
		t.Errorf("without a config of the user's: %v", got)
	}
	in.Documents = []initrd.Document{{Name: "child-0001"}, {Name: config.UserDocument}}
	in.Facts.ResultFile, in.Facts.BootID = "/var/result", "/id"
	if got := results(in); !reflect.DeepEqual(got, []initrd.Result{{Root: "/target", Path: "/var/result", BootID: "/id", User: true}}) {
		t.Errorf("%v", got)
	}
	in.Config.Pilotlight.Version = "1"
	if got := results(in); len(got) > 0 {
		t.Errorf("with our section: %v", got)
	}
}
