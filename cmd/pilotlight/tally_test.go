package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pilotlight/initrd"
)

// planned is a plan with every kind of step.
func planned() []initrd.Outcome {
	return []initrd.Outcome{
		{Wish: "record says started", State: initrd.So},
		{Wish: "partition table spans boot", State: initrd.NotSo, Deed: "move the end of the partition table to the end of /dev/vda", Effect: initrd.Changes},
		{Wish: `partitions "system" on boot`, State: initrd.NotSo, Deed: "repartition /dev/vda: create root", Effect: initrd.Destroys,
			Lost: []string{`all data on partition 3 "root" of /dev/vda (512 MiB, ext4)`, "all data on partition 4 of /dev/vda"}},
		{Wish: "file /etc/motd", State: initrd.NotSo, Deed: "write /etc/motd"},
		{Wish: "file /etc/old", State: initrd.NotSo, Deed: "replace /etc/old", Effect: initrd.Destroys},
		{Wish: "directory /srv", State: initrd.After, Why: errors.New("no user web")},
		{Wish: "credential x", State: initrd.Moot, Why: errors.New("no boot")},
		{Wish: "link /a", State: initrd.NotSo, Deed: "link /a", Err: errors.New("denied")},
	}
}

func shownAs(mode initrd.Mode, all bool, list []initrd.Outcome) string {
	var out bytes.Buffer
	s := show{out: &out, err: &out, all: all}
	var sum tally
	for _, o := range list {
		s.planned(o)
		sum.count(o)
	}
	s.summary(sum, mode)
	return out.String()
}

func TestPlanCannotBeMisread(t *testing.T) {
	want := `  ~ partition table spans boot
      move the end of the partition table to the end of /dev/vda
  - partitions "system" on boot
      repartition /dev/vda: create root
    DESTROYS all data on partition 3 "root" of /dev/vda (512 MiB, ext4)
    DESTROYS all data on partition 4 of /dev/vda
  + file /etc/motd
  - file /etc/old
    DESTROYS what is there now, for: file /etc/old
  > directory /srv (after an earlier step)
  ? credential x (no boot)
  ! link /a: denied

1 to make, 1 to change, 2 destroyed, 1 as they are, 1 after an earlier step, 1 cannot be here, 1 failed
THIS DESTROYS all data on partition 3 "root" of /dev/vda (512 MiB, ext4); all data on partition 4 of /dev/vda; what is there now, for: file /etc/old
`
	if got := shownAs(initrd.Plan, false, planned()); got != want {
		t.Errorf("%s", got)
	}
}

func TestAllOfAPlan(t *testing.T) {
	got := shownAs(initrd.Plan, true, planned())
	for _, want := range []string{"  = record says started\n", "  + file /etc/motd\n      write /etc/motd\n", "(after an earlier step: no user web)\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestWhatWasDoneIsToldInThePast(t *testing.T) {
	list := planned()[:5]
	for i := range list {
		list[i].Changed = list[i].Deed != ""
	}
	got := shownAs(initrd.Apply, false, list)
	for _, want := range []string{
		"    DESTROYED all data on partition 4 of /dev/vda\n",
		"\n1 made, 1 changed, 2 destroyed, 1 were so already\nDESTROYED: all data on partition 3",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "DESTROYS") {
		t.Errorf("%s", got)
	}
}

func TestNothingDestroyedIsNotWarnedOf(t *testing.T) {
	got := shownAs(initrd.Plan, false, planned()[:2])
	if strings.Contains(got, "DESTROY") || !strings.HasSuffix(got, "\n0 to make, 1 to change, 0 destroyed, 1 as they are, 0 after an earlier step\n") {
		t.Errorf("%s", got)
	}
}

func TestDeedsThatSayNoMore(t *testing.T) {
	for _, c := range []struct {
		wish, deed string
		want       bool
	}{
		{"file /etc/motd", "write /etc/motd", true},
		{"hard link /hard to /etc/x", "link /hard to /etc/x", true},
		{"system users by sysusers.d", "run systemd-sysusers", false},
		{"partition root of boot mounted at /sysroot", "mount /dev/vda4 at /sysroot", false},
		{"directory /a", "make", true},
	} {
		if got := spoken(c.wish, c.deed); got != c.want {
			t.Errorf("%q says %q: %v", c.wish, c.deed, got)
		}
	}
}
