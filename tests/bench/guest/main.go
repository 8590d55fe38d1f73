// Guest is what `make bench` runs in a guest when its initrd.target is reached: it prints
// [Times] as one line of JSON.
//
//	guest EMPTY-PROGRAM
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Times are in seconds, by the guest's own clock.
type Times struct {
	Boot   float64   `json:"boot"`   // from the start of systemd to initrd.target
	Starts []float64 `json:"starts"` // of the empty program
}

func main() {
	t, err := measure(os.Args[1])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(t)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(empty string) (Times, error) {
	var t Times
	// Where the manager runs in an initrd, its own start has the name of that.
	began, err := stamp("InitRDTimestampMonotonic", "UserspaceTimestampMonotonic")
	if err != nil {
		return t, err
	}
	reached, err := stamp("ActiveEnterTimestampMonotonic", "", "initrd.target")
	if err != nil {
		return t, err
	}
	t.Boot = (reached - began).Seconds()
	for range 21 {
		begin := time.Now()
		if err := exec.Command(empty).Run(); err != nil {
			return t, err
		}
		t.Starts = append(t.Starts, time.Since(begin).Seconds())
	}
	return t, nil
}

// stamp is a time of the manager, or of a unit, on the monotonic clock; the other property
// counts where the first is not set.
func stamp(property, other string, unit ...string) (time.Duration, error) {
	out, err := exec.Command("systemctl", append([]string{"show", "--value", "--property=" + property}, unit...)...).Output()
	if err != nil {
		return 0, fmt.Errorf("systemctl show: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", property, err)
	}
	if n == 0 && other != "" {
		return stamp(other, "", unit...)
	}
	if n == 0 {
		return 0, fmt.Errorf("%s is not set", property)
	}
	return time.Duration(n) * time.Microsecond, nil
}
