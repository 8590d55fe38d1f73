package providers

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/quick"
)

func dmi(vendor string) fstest.MapFS {
	return fstest.MapFS{"class/dmi/id/sys_vendor": {Data: []byte(vendor)}}
}

func TestDetect(t *testing.T) {
	for vendor, want := range map[string]string{
		"QEMU\n": "qemu", "QEMU": "qemu", "QEMU\nmore\n": "qemu",
		"qemu\n": "", "QEMU \n": "", " QEMU\n": "", "QEMU2\n": "", "QEM\n": "", "\n": "", "": "", "\nQEMU\n": "", "QEMU\x00\n": "", "Dell Inc.\n": "", "ＱＥＭＵ\n": "",
	} {
		p, err := Detect(dmi(vendor))
		if p.Name != want {
			t.Errorf("%q is %q, want %q", vendor, p.Name, want)
		}
		var fail *DetectError
		if want != "" && err != nil || want == "" && !errors.As(err, &fail) {
			t.Errorf("%q: %v", vendor, err)
		}
	}
}

// TestUnknownMachineIsDescribed, so that its owner can name the platform, or a platform
// can be added.
func TestUnknownMachineIsDescribed(t *testing.T) {
	_, err := Detect(dmi("Dell Inc.\n"))
	if want := `no platform is known by these markers: class/dmi/id/sys_vendor="Dell Inc.": name the platform with pilotlight.platform=`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	var fail *DetectError
	if _, err := Detect(fstest.MapFS{}); !errors.As(err, &fail) || !slices.Equal(fail.Seen, []string{`class/dmi/id/sys_vendor=""`}) || len(fail.Fits) != 0 {
		t.Errorf("a machine without DMI: %v", err)
	}
}

// TestSeveralMarkersMustAllFit, on platforms that are the test's own.
func TestSeveralMarkersMustAllFit(t *testing.T) {
	all := []Platform{
		{Name: "by-name"},
		{Name: "one", Match: []Marker{{"class/dmi/id/sys_vendor", "V"}, {"class/dmi/id/product_name", "P1"}}},
		{Name: "two", Match: []Marker{{"class/dmi/id/sys_vendor", "V"}, {"class/dmi/id/product_name", "P2"}}},
		{Name: "wide", Match: []Marker{{"class/dmi/id/chassis_asset_tag", "T"}}},
	}
	sys := func(vendor, product, tag string) fstest.MapFS {
		return fstest.MapFS{
			"class/dmi/id/sys_vendor": {Data: []byte(vendor + "\n")}, "class/dmi/id/product_name": {Data: []byte(product + "\n")},
			"class/dmi/id/chassis_asset_tag": {Data: []byte(tag + "\n")},
		}
	}
	for _, c := range []struct {
		sys  fstest.MapFS
		want string
		fits []string
	}{
		{sys("V", "P1", ""), "one", nil},
		{sys("V", "P2", ""), "two", nil},
		{sys("", "", "T"), "wide", nil},
		{sys("V", "P3", ""), "", nil},
		{sys("W", "P1", ""), "", nil},
		{sys("", "", ""), "", nil},
		{sys("V", "P1", "T"), "", []string{"one", "wide"}},
	} {
		p, err := detect(all, c.sys)
		var fail *DetectError
		if p.Name != c.want || c.want == "" && (!errors.As(err, &fail) || !slices.Equal(fail.Fits, c.fits)) {
			t.Errorf("%q %v, want %q %q", p.Name, err, c.want, c.fits)
			continue
		}
		if c.fits != nil && !strings.HasPrefix(err.Error(), "more than one platform is known by these markers (one, wide): class/dmi/id/sys_vendor=\"V\"") {
			t.Errorf("%v", err)
		}
		if c.want == "" && len(fail.Seen) != 3 {
			t.Errorf("looked at %q: each file once", fail.Seen)
		}
	}
}

func TestMarkerThatCannotBeReadIsNotAbsent(t *testing.T) {
	var fail *DetectError
	var path *fs.PathError
	_, err := Detect(fstest.MapFS{"class/dmi/id/sys_vendor": {Mode: fs.ModeDir | 0o755}})
	if errors.As(err, &fail) || !errors.As(err, &path) {
		t.Errorf("error %v", err)
	}
}

// TestNoMachineIsTakenForAnother: whatever the firmware says, only the exact words fit.
func TestNoMachineIsTakenForAnother(t *testing.T) {
	exact := map[string]string{}
	for _, p := range All {
		for _, m := range p.Match {
			exact[m.Value] = p.Name
		}
	}
	property := func(vendor string) bool {
		p, err := Detect(dmi(vendor))
		line, _, _ := strings.Cut(vendor, "\n")
		var fail *DetectError
		return p.Name == exact[line] && (p.Name != "" || errors.As(err, &fail))
	}
	if err := quick.Check(property, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
	// Near misses of each marker.
	for value := range exact {
		for i := range value {
			for _, near := range []string{value[:i] + value[i+1:], value[:i] + "x" + value[i:], value[:i] + strings.ToLower(value[i:i+1]) + value[i+1:]} {
				if near != value && !property(near) {
					t.Errorf("%q", near)
				}
			}
		}
	}
}

func TestPlatforms(t *testing.T) {
	var names []string
	for _, p := range All {
		got, err := Named(p.Name)
		if err != nil || got.Docs != p.Docs || p.Docs == "" || slices.Contains(names, p.Name) {
			t.Errorf("%+v %v", got, err)
		}
		if strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("%q is not what pilotlight.platform= takes", p.Name)
		}
		names = append(names, p.Name)
		for _, m := range p.Match {
			if !fs.ValidPath(m.File) || m.Value == "" || strings.Contains(m.Value, "\n") {
				t.Errorf("%s: %+v", p.Name, m)
			}
		}
		for _, s := range p.Config {
			if s.What == "" || s.Ask == nil {
				t.Errorf("%s: %+v", p.Name, s)
			}
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("%q", names)
	}
	_, err := Named("qemuu")
	if want := `platform "qemuu" is not known: this version knows file, metal, qemu, and auto`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
