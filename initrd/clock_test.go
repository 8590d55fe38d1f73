package initrd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTimeForCertificates(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, time.January, n, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		clock, built, epoch time.Time
		want                time.Time
		source              string
	}{
		"the clock is right":         {day(9), day(2), day(3), day(9), "the clock"},
		"the clock is right at once": {day(3), day(2), day(3), day(3), "the clock"},
		"no battery, new program":    {time.Unix(0, 0), day(4), day(3), day(4), "the date of this program"},
		"no battery, new system":     {time.Unix(0, 0), day(2), day(3), day(3), "/usr/lib/clock-epoch"},
		"no battery, nothing known":  {time.Unix(7, 0), time.Time{}, time.Time{}, time.Unix(7, 0), "the clock"},
		"only the program":           {time.Unix(7, 0), day(2), time.Time{}, day(2), "the date of this program"},
	} {
		file := filepath.Join(t.TempDir(), "clock-epoch")
		if !c.epoch.IsZero() {
			write(t, file, "")
			if err := os.Chtimes(file, c.epoch, c.epoch); err != nil {
				t.Fatal(err)
			}
		}
		clock, err := newClock(c.built, file)
		if err != nil {
			t.Fatal(err)
		}
		clock.now = func() time.Time { return c.clock }
		if got, source := clock.Time(); !got.Equal(c.want) || source != c.source {
			t.Errorf("%s: %v by %s, want %v by %s", name, got, source, c.want, c.source)
		}
	}
	// The file is below something that is no directory.
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if _, err := newClock(time.Time{}, filepath.Join(file, "clock-epoch")); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("what cannot be looked at is as if there were none: %v", err)
	}
}
