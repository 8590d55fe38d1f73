package initrd

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// epochFile is the file whose date PID 1 takes for the earliest possible time
// (systemd's NEWS for 252).
const epochFile = "/usr/lib/clock-epoch"

// Clock is the time that the dates of certificates are compared with: the
// machine's clock, but never earlier than what cannot have been later. A board
// without a battery wakes up in 1970, and nothing in an initrd sets its clock.
type Clock struct {
	built time.Time
	epoch time.Time
	now   func() time.Time
}

// NewClock knows when this program was built, zero if that is not known, and
// looks when the system was (the date of /usr/lib/clock-epoch, if it is there).
func NewClock(built time.Time) (Clock, error) { return newClock(built, epochFile) }

func newClock(built time.Time, epoch string) (Clock, error) {
	c := Clock{built: built, now: time.Now}
	info, err := os.Stat(epoch)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	c.epoch = info.ModTime()
	return c, nil
}

// MachineClock is the source of a time that the machine's clock tells.
const MachineClock = "the clock"

// Time is the latest of what is known, and what said so: [MachineClock], "the date
// of this program" or "/usr/lib/clock-epoch".
func (c Clock) Time() (t time.Time, source string) {
	t, source = c.now(), MachineClock
	if c.built.After(t) {
		t, source = c.built, "the date of this program"
	}
	if c.epoch.After(t) {
		t, source = c.epoch, epochFile
	}
	return t, source
}
