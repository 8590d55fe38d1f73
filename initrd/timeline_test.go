package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func shown(name string, exit, enter, inactive int) string {
	return fmt.Sprintf("Id=%s\nInactiveExitTimestampMonotonic=%d\nActiveEnterTimestampMonotonic=%d\nInactiveEnterTimestampMonotonic=%d\n", name, exit, enter, inactive)
}

func TestTimelineIsWhatSystemctlShows(t *testing.T) {
	manager := "FirmwareTimestampMonotonic=2500000\nLoaderTimestampMonotonic=1500000\nInitRDTimestampMonotonic=900000\n" +
		"UserspaceTimestampMonotonic=3000000\nFinishTimestampMonotonic=7000000\n"
	units := strings.Join([]string{
		shown("later.service", 5000000, 6000000, 0),
		shown("oneshot.service", 1000000, 0, 1250000),                       // it was never active
		shown("again.service", 2000000, 1500000, 2040000),                   // active in an earlier run
		shown("quick.service", 2000000, 2009000, 0),                         // not worth a row
		shown("never.service", 0, 0, 0),                                     // not started
		shown("starting.service", 2000000, 0, 0),                            // on its way
		"Id=\nInactiveExitTimestampMonotonic=1\n", "Names=something else\n", // no unit
	}, "\n")
	got, err := parseTimeline([]byte(manager), []byte(units))
	want := Timeline{Firmware: 2.5, Loader: 1.5, Initrd: 0.9, Userspace: 3, Finish: 7, Units: []TimedUnit{
		{"oneshot.service", 1, 0.25}, {"again.service", 2, 0.040000000000000036}, {"later.service", 5, 1},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestTimelineOfAnInitrdHasNoSystemYet(t *testing.T) {
	got, err := parseTimeline([]byte("InitRDTimestampMonotonic=900000\nUserspaceTimestampMonotonic=900000\nFinishTimestampMonotonic=0\n"), nil)
	if err != nil || got.Initrd != 0.9 || got.Userspace != 0 || got.Finish != 0 || got.Units != nil {
		t.Errorf("%+v %v", got, err)
	}
}

func TestTimelineIsBounded(t *testing.T) {
	var units []string
	for i := range 3 * mostUnits {
		units = append(units, shown(fmt.Sprintf("u%d.service", i), 1000000+i, 1000000+20000*(i+1), 0))
	}
	got, err := parseTimeline(nil, []byte(strings.Join(units, "\n")))
	if err != nil || len(got.Units) != mostUnits {
		t.Fatalf("%d units, %v", len(got.Units), err)
	}
	// Those that took longest, in the order in which they began.
	if first, last := got.Units[0].Name, got.Units[mostUnits-1].Name; first != fmt.Sprintf("u%d.service", 2*mostUnits) || last != fmt.Sprintf("u%d.service", 3*mostUnits-1) {
		t.Errorf("from %s to %s", first, last)
	}
}

func TestTimesThatAreNone(t *testing.T) {
	for _, text := range []string{"Id=a\nInactiveExitTimestampMonotonic=-1\n", "InactiveExitTimestampMonotonic=soon\n", "FinishTimestampMonotonic=18446744073709551615\n"} {
		if _, err := parseTimeline([]byte(text), nil); err == nil || !strings.Contains(err.Error(), "TimestampMonotonic is no time") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTimelineAsksWhatOnlyReads(t *testing.T) {
	m, _ := testMachine(t)
	m.Programs = []string{t.TempDir()}
	var p *ProgramError
	if _, err := m.Timeline(t.Context()); !errors.As(err, &p) || p.Name != "systemctl" {
		t.Errorf("without systemctl: %v", err)
	}
}

func TestPCRIsWhatTheKernelShows(t *testing.T) {
	m, _ := testMachine(t)
	m.Disks.Sys = fstest.MapFS{
		"class/tpm/tpm0/pcr-sha1/12":   {Data: []byte("AB\n")},
		"class/tpm/tpm0/pcr-sha256/12": {Data: []byte("CD\n")},
		"class/tpm/tpm0/pcr-sha256/1":  {Data: []byte("EF\n")},
	}
	got, err := m.PCR(12)
	if err != nil || !maps.Equal(got, map[string]string{"sha1": "ab", "sha256": "cd"}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := m.PCR(23); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a PCR that is not shown: %v", err)
	}
	m.Disks.Sys = fstest.MapFS{"class/tpm/tpm0/pcr-sha256/12": {Mode: fs.ModeDir}}
	if _, err := m.PCR(12); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that cannot be read: %v", err)
	}
}
