package providers

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A Marker is a file below /sys and the exact first line that it must have.
type Marker struct {
	File  string
	Value string
}

// A DetectError says why no single platform was found: what was looked at, and
// which platforms it fits.
type DetectError struct {
	Seen []string // FILE="VALUE"
	Fits []string
}

func (e *DetectError) Error() string {
	what := "no platform is known by these markers"
	if len(e.Fits) > 1 {
		what = "more than one platform is known by these markers (" + strings.Join(e.Fits, ", ") + ")"
	}
	return fmt.Sprintf("%s: %s: name the platform with pilotlight.platform=", what, strings.Join(e.Seen, ", "))
}

// Detect finds the platform by what the firmware says of the machine, and by
// nothing else: no guess, and no question to an address. metal and file are never
// detected. The error is a *DetectError, unless a marker could not be read.
func Detect(sys fs.FS) (Platform, error) { return detect(All[:], sys) }

func detect(all []Platform, sys fs.FS) (Platform, error) {
	fail := &DetectError{}
	seen := map[string]string{}
	var found Platform
	for _, p := range all {
		fit := len(p.Match) > 0
		for _, m := range p.Match {
			value, ok := seen[m.File]
			if !ok {
				data, err := fs.ReadFile(sys, m.File)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return Platform{}, fmt.Errorf("platform: %w", err)
				}
				value, _, _ = strings.Cut(string(data), "\n")
				seen[m.File] = value
				fail.Seen = append(fail.Seen, fmt.Sprintf("%s=%q", m.File, value))
			}
			fit = fit && value == m.Value
		}
		if fit {
			found = p
			fail.Fits = append(fail.Fits, p.Name)
		}
	}
	if len(fail.Fits) != 1 {
		return Platform{}, fail
	}
	return found, nil
}
