package providers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A Marker is a file below /sys and the first line that it must have: exactly that,
// or with a * in front a line with that end and something before it.
type Marker struct {
	File  string
	Value string
}

func (m Marker) fits(value string) bool {
	if end, ok := strings.CutPrefix(m.Value, "*"); ok {
		return strings.HasSuffix(value, end) && len(value) > len(end)
	}
	return value == m.Value
}

// Marks are markers that must all be there.
type Marks []Marker

// A Sight is the first line of a file below /sys, "" where there is no such file.
type Sight struct {
	File  string `json:"file"`
	Value string `json:"value"`
}

func (s Sight) String() string { return fmt.Sprintf("%s=%q", s.File, s.Value) }

// A Detection is what was looked at to find the platform, and what came of it.
type Detection struct {
	Platform Platform // none: the zero value
	Why      string   // for people; "" without a platform
	Seen     []Sight  // each file once
	Fits     []string // platforms that the firmware's words fit
	Looked   bool     // at drives
	Drives   []Drive  // what was seen there
}

// A DetectError says why no single platform was found: what was looked at, and
// which platforms it fits.
type DetectError struct{ Detection }

func (e *DetectError) Error() string {
	var seen []string
	for _, s := range e.Seen {
		seen = append(seen, s.String())
	}
	what := "no platform is known by these markers"
	if len(e.Fits) > 1 {
		what = "more than one platform is known by these markers (" + strings.Join(e.Fits, ", ") + ")"
	}
	text := what + ": " + strings.Join(seen, ", ")
	if e.Looked {
		text += "; no drive is labelled cidata: " + drivesSeen(e.Drives)
	}
	return text + ": name the platform with pilotlight.platform="
}

// Detect finds the platform by what the firmware says of the machine, and asks no
// address. metal and file are never detected.
//
// A drive's label may be made by whoever can plug one in. It counts only with media,
// which is for the image to say; only for nocloud; and only where no marker fits any
// platform, or the one that fits is qemu's, which every provider's QEMU has, and its
// firmware device holds no config. So there is one source at a time.
//
// The error is a *DetectError, or a *DriveError for two such drives, unless something
// could not be looked at.
func Detect(ctx context.Context, r Reach, media bool) (Detection, error) {
	return detect(ctx, All[:], r, media)
}

func detect(ctx context.Context, all []Platform, r Reach, media bool) (Detection, error) {
	d, err := marked(all, r.Sys())
	if err != nil || len(d.Fits) > 1 {
		return d, err
	}
	if media && (len(d.Fits) == 0 || d.Platform.Name == qemu.Name) {
		if d, err = d.orDrive(ctx, r); err != nil {
			return d, err
		}
	}
	if d.Platform.Name == "" {
		return d, &DetectError{d}
	}
	return d, nil
}

// marked compares the markers of all platforms.
func marked(all []Platform, sys fs.FS) (Detection, error) {
	var d Detection
	lines := map[string]string{}
	line := func(file string) (string, error) {
		value, ok := lines[file]
		if ok {
			return value, nil
		}
		data, err := fs.ReadFile(sys, file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("platform: %w", err)
		}
		value, _, _ = strings.Cut(string(data), "\n")
		lines[file] = value
		d.Seen = append(d.Seen, Sight{file, value})
		return value, nil
	}
	for _, p := range all {
		var because []string
		for _, marks := range p.Match {
			var all []string
			for _, m := range marks {
				value, err := line(m.File)
				if err != nil {
					return Detection{}, err
				}
				if m.fits(value) {
					all = append(all, Sight{m.File, value}.String())
				}
			}
			if len(all) == len(marks) && because == nil {
				because = all
			}
		}
		if because != nil {
			d.Fits = append(d.Fits, p.Name)
			d.Platform, d.Why = p, strings.Join(because, ", ")
		}
	}
	if len(d.Fits) > 1 {
		d.Platform, d.Why = Platform{}, ""
		return d, &DetectError{d}
	}
	return d, nil
}

// orDrive looks for the drive of nocloud where the firmware leaves it open.
func (d Detection) orDrive(ctx context.Context, r Reach) (Detection, error) {
	if d.Platform.Name == qemu.Name {
		_, err := qemu.UserConfig(ctx, r)
		if err != nil && !errors.Is(err, ErrNone) {
			return d, err
		}
		if err == nil {
			d.Why += "; its fw_cfg holds a config"
			return d, nil
		}
	}
	drives, err := r.Drives(ctx)
	if err != nil {
		return d, fmt.Errorf("platform: %w", err)
	}
	d.Looked, d.Drives = true, drives
	fit := cidata(drives)
	switch len(fit) {
	case 0:
		return d, nil
	case 1:
		d.Platform, d.Why = nocloud, fit[0].String()+" is there, and the image allows it"
		if len(d.Fits) > 0 {
			d.Why += "; fw_cfg holds no config"
		}
		return d, nil
	}
	return d, fmt.Errorf("platform: %w", &DriveError{Fit: fit})
}
