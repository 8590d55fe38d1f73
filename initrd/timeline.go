package initrd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// A Timeline is when this boot came to where, by PID 1's word. All times are seconds
// since the kernel started; 0 is what PID 1 does not know or has not come to yet.
// The properties that it is made of are described in org.freedesktop.systemd1(5).
type Timeline struct {
	Firmware  float64     `json:"firmware,omitempty"`  // began that long before the kernel
	Loader    float64     `json:"loader,omitempty"`    // likewise
	Initrd    float64     `json:"initrd,omitempty"`    // PID 1 of the initrd began
	Userspace float64     `json:"userspace,omitempty"` // PID 1 of the system began: switch-root
	Finish    float64     `json:"finish,omitempty"`    // everything was started
	Units     []TimedUnit `json:"units,omitempty"`     // in the order in which they began
}

// A TimedUnit is a unit that took a while to start.
type TimedUnit struct {
	Name string  `json:"name"`
	At   float64 `json:"at"`   // seconds since the kernel started
	Took float64 `json:"took"` // until it was started; of a oneshot service, until its end
}

const (
	// noticeable is the least that a unit must have taken, in seconds.
	noticeable = 0.01
	// mostUnits bounds the units of a timeline: those that took longest.
	mostUnits = 64
)

// Timeline asks PID 1. It is an error where that is not systemd, or does not answer.
func (m *Machine) Timeline(ctx context.Context) (Timeline, error) {
	const moment = "TimestampMonotonic"
	ask := func(moments []string, patterns ...string) ([]byte, error) {
		properties := "Id," + strings.Join(moments, moment+",") + moment
		return m.Look(ctx).Ask(Query{Program: "systemctl", Args: append([]string{"show", "--no-pager", "--property=" + properties}, patterns...)})
	}
	manager, err := ask([]string{"Firmware", "Loader", "InitRD", "Userspace", "Finish"})
	if err != nil {
		return Timeline{}, err
	}
	// Devices and targets only say what they waited for.
	units, err := ask([]string{"InactiveExit", "ActiveEnter", "InactiveEnter"}, "*.service", "*.mount")
	if err != nil {
		return Timeline{}, err
	}
	return parseTimeline(manager, units)
}

// parseTimeline reads what systemctl show prints of the manager and of units: a line
// for a property, NAME=VALUE, and an empty line between units.
func parseTimeline(manager, units []byte) (Timeline, error) {
	_, at, err := parseShown(manager)
	if err != nil {
		return Timeline{}, err
	}
	t := Timeline{
		Firmware: at["Firmware"], Loader: at["Loader"], Initrd: at["InitRD"],
		Userspace: at["Userspace"], Finish: at["Finish"],
	}
	if t.Userspace == t.Initrd {
		// In the initrd there is only one of them yet.
		t.Userspace, t.Finish = 0, 0
	}
	for block := range bytes.SplitSeq(units, []byte("\n\n")) {
		name, at, err := parseShown(block)
		if err != nil {
			return Timeline{}, err
		}
		u := TimedUnit{Name: name, At: at["InactiveExit"]}
		switch {
		case at["ActiveEnter"] >= u.At:
			u.Took = at["ActiveEnter"] - u.At
		case at["InactiveEnter"] >= u.At:
			u.Took = at["InactiveEnter"] - u.At
		}
		if name != "" && u.At > 0 && u.Took >= noticeable {
			t.Units = append(t.Units, u)
		}
	}
	slices.SortStableFunc(t.Units, func(a, b TimedUnit) int { return cmp.Compare(b.Took, a.Took) })
	t.Units = t.Units[:min(len(t.Units), mostUnits)]
	slices.SortStableFunc(t.Units, func(a, b TimedUnit) int { return cmp.Compare(a.At, b.At) })
	return t, nil
}

// parseShown reads one block of properties: times in microseconds, which it gives in
// seconds by their names without TimestampMonotonic, and the name of a unit.
func parseShown(block []byte) (id string, at map[string]float64, err error) {
	at = map[string]float64{}
	for line := range strings.Lines(string(block)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case !ok:
		case name == "Id":
			id = value
		case strings.HasSuffix(name, "TimestampMonotonic"):
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil {
				return "", nil, fmt.Errorf("systemctl show: %s is no time: %w", name, err)
			}
			at[strings.TrimSuffix(name, "TimestampMonotonic")] = float64(n) / 1e6
		}
	}
	return id, at, nil
}

// PCR gives the value of a PCR in each active bank as the kernel shows it, in
// hexadecimal by the name of the bank, such as sha256. fs.ErrNotExist where there is no TPM.
func (m *Machine) PCR(index int) (map[string]string, error) {
	files, err := fs.Glob(m.Disks.Sys, fmt.Sprintf("class/tpm/tpm0/pcr-*/%d", index))
	if err != nil {
		return nil, err
	}
	banks := map[string]string{}
	var errs []error
	for _, file := range files {
		data, err := fs.ReadFile(m.Disks.Sys, file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		bank := strings.TrimPrefix(strings.Split(file, "/")[3], "pcr-")
		banks[bank] = strings.ToLower(strings.TrimSpace(string(data)))
	}
	if len(files) == 0 {
		return nil, absentf("the kernel shows no PCR %d", index)
	}
	return banks, errors.Join(errs...)
}
