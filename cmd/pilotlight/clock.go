package main

import (
	"runtime/debug"
	"strconv"
	"time"
)

// sourceDate is when this program was built, in seconds since 1970, as SOURCE_DATE_EPOCH
// has it; set by the linker (-X main.sourceDate=...). Without it the date of the commit
// counts, where the Go toolchain has noted it.
var sourceDate string

// buildTime is a time before which this program cannot run, zero if none is known.
func buildTime() time.Time {
	if seconds, err := strconv.ParseInt(sourceDate, 10, 64); err == nil {
		return time.Unix(seconds, 0)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}
