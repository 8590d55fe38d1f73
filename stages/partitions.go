package stages

import (
	"fmt"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// partitions are Ignition's storage.disks, a step for each disk; on the first boot alone.
// A disk of which nothing is wanted is left alone.
func partitions(in Input) ([]initrd.Step, error) {
	if in.Facts.Boot == Later {
		return nil, nil
	}
	var steps []initrd.Step
	for _, d := range in.Config.Ignition.Storage.Disks {
		for _, r := range in.Config.Pilotlight.Repart {
			if r.Device == d.Device {
				return nil, &Error{"repart", r.Name, fmt.Errorf("%s is in storage.disks too: one of the two lays out a disk", d.Device)}
			}
		}
		step, err := layout(d, in.Facts.Provision)
		if err != nil {
			return nil, &Error{"storage.disks", d.Device, err}
		}
		if step.WipeTable && !in.mayLose() {
			return nil, &Error{"storage.disks", d.Device, fmt.Errorf("wipeTable is true, and without a record every boot of this machine is a first boot: " +
				"say policy.disks: wipe if each boot shall wipe the table")}
		}
		if step.WipeTable || len(step.Partitions) > 0 {
			steps = append(steps, step)
		}
	}
	return steps, nil
}

func layout(d types.Disk, provision string) (initrd.Layout, error) {
	l := initrd.Layout{Device: d.Device, WipeTable: is(d.WipeTable), Provision: provision}
	for i, p := range d.Partitions {
		w := disk.Wanted{
			Number: p.Number, Label: p.Label, StartMiB: p.StartMiB, SizeMiB: p.SizeMiB,
			Absent: p.ShouldExist != nil && !*p.ShouldExist, WipeEntry: is(p.WipePartitionEntry), Resize: is(p.Resize),
		}
		for _, g := range []struct {
			name, text string
			to         *disk.GUID
		}{{"typeGuid", text(p.TypeGUID), &w.Type}, {"guid", text(p.GUID), &w.UUID}} {
			if g.text == "" {
				continue
			}
			var err error
			if *g.to, err = disk.ParseGUID(g.text); err == nil && g.to.IsZero() {
				err = fmt.Errorf("it is zero, which stands for an entry that is not used")
			}
			if err != nil {
				return initrd.Layout{}, fmt.Errorf("partition %d of its list: %s: %w", i+1, g.name, err)
			}
		}
		l.Partitions = append(l.Partitions, w)
	}
	return l, nil
}

func is(b *bool) bool { return b != nil && *b }

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
