package stages

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// disks is a config with storage.disks, and more of our section.
func disks(list, more string) string {
	return `{"ignition":{"version":"3.5.0"},"storage":{"disks":[` + list + `]},"pilotlight":{"version":"1"` + more + `}}`
}

// TestPartitionsKeepTheWordsOfTheConfig: 0 and what is not said are for a look to decide.
func TestPartitionsKeepTheWordsOfTheConfig(t *testing.T) {
	in := first(t, disks(`{"device":"/dev/vdb","wipeTable":true,"partitions":[
		{"label":"rest","resize":true},
		{"number":1,"label":"one","startMiB":0,"sizeMiB":64,"typeGuid":"c12a7328-f81f-11d2-ba4b-00a0c93ec93b","guid":"B1A2A3A4-B1B2-C1C2-D1D2-E1E2E3E4E5E6","wipePartitionEntry":true}]},
		{"device":"/dev/vdc","partitions":[{"number":4,"shouldExist":false,"wipePartitionEntry":true,"guid":"","typeGuid":""}]},
		{"device":"/dev/vdd"},{"device":"/dev/vde","wipeTable":true}`, ""))
	uuid, err := disk.ParseGUID("b1a2a3a4-b1b2-c1c2-d1d2-e1e2e3e4e5e6")
	if err != nil {
		t.Fatal(err)
	}
	rest, one, none, size := "rest", "one", 0, 64
	wanted := []initrd.Step{
		initrd.Layout{Device: "/dev/vdb", WipeTable: true, Provision: provision, Partitions: []disk.Wanted{
			{Label: &rest, Resize: true},
			{Number: 1, Label: &one, StartMiB: &none, SizeMiB: &size, Type: disk.TypeESP(), UUID: uuid, WipeEntry: true},
		}},
		initrd.Layout{Device: "/dev/vdc", Provision: provision, Partitions: []disk.Wanted{{Number: 4, Absent: true, WipeEntry: true}}},
		// Nothing is wanted of /dev/vdd.
		initrd.Layout{Device: "/dev/vde", WipeTable: true, Provision: provision},
	}
	if got := want(t, partitions, in); !reflect.DeepEqual(got, wanted) {
		t.Errorf("%+v\nwant %+v", got, wanted)
	}
	in.Facts.Boot = Interrupted
	if got := want(t, partitions, in); !reflect.DeepEqual(got, wanted) {
		t.Errorf("interrupted: %+v", got)
	}
	in.Facts.Boot = Later
	if got := want(t, partitions, in); len(got) > 0 {
		t.Errorf("later: %+v", got)
	}
}

func TestPartitionsThatCannotBeWanted(t *testing.T) {
	const repart = `,"repart":[{"name":"data","device":"/dev/vdb","definitions":[{"name":"50-a.conf","contents":{"inline":"[Partition]\nType=var\n"}}]}]`
	for _, c := range []struct {
		name, config string
		placed       bool
		provision    string
		want         string // "": it can be
		entry        string
	}{
		{"two who lay out one disk", disks(`{"device":"/dev/vdb","partitions":[{"number":1}]}`, repart), true, provision, "/dev/vdb is in storage.disks too: one of the two lays out a disk", "data"},
		{"two disks", disks(`{"device":"/dev/vdc","partitions":[{"number":1}]}`, repart), true, provision, "", ""},
		{"a type of zero", disks(`{"device":"/dev/vdb","partitions":[{"number":1},{"number":2,"typeGuid":"00000000-0000-0000-0000-000000000000"}]}`, ""), true, provision, "partition 2 of its list: typeGuid: it is zero", "/dev/vdb"},
		{"wiping at every boot", disks(`{"device":"/dev/vdb","wipeTable":true}`, ""), false, provision, "say policy.disks: wipe if each boot shall wipe the table", "/dev/vdb"},
		{"wiping at every boot, by consent", disks(`{"device":"/dev/vdb","wipeTable":true}`, `,"policy":{"disks":"wipe"}`), false, provision, "", ""},
		{"not wiping", disks(`{"device":"/dev/vdb","partitions":[{"number":1}]}`, ""), false, provision, "", ""},
	} {
		in := first(t, c.config)
		in.Facts.Placed, in.Facts.Provision = c.placed, c.provision
		steps, err := partitions(in)
		fault := (*Error)(nil)
		switch {
		case c.want == "":
			if err != nil || len(steps) != 1 {
				t.Errorf("%s: %v %v", c.name, steps, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &fault) || fault.Name != c.entry:
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
