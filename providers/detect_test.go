package providers

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/quick"
)

// dmi is what the firmware says, by the names of the kernel's files.
func dmi(values map[string]string) fstest.MapFS {
	sys := fstest.MapFS{}
	for name, value := range values {
		sys["class/dmi/id/"+name] = &fstest.MapFile{Data: []byte(value)}
	}
	return sys
}

// onFirmware detects by the firmware alone: whoever asks for anything else panics.
func onFirmware(t *testing.T, sys fs.FS) (string, error) {
	t.Helper()
	d, err := Detect(t.Context(), reach{sys: sys}, false)
	return d.Platform.Name, err
}

func TestDetect(t *testing.T) {
	for vendor, want := range map[string]string{
		"QEMU\n": "qemu", "QEMU": "qemu", "QEMU\nmore\n": "qemu",
		"qemu\n": "", "QEMU \n": "", " QEMU\n": "", "QEMU2\n": "", "QEM\n": "", "\n": "", "": "", "\nQEMU\n": "", "QEMU\x00\n": "", "Dell Inc.\n": "", "ＱＥＭＵ\n": "",
	} {
		name, err := onFirmware(t, dmi(map[string]string{"sys_vendor": vendor}))
		if name != want {
			t.Errorf("%q is %q, want %q", vendor, name, want)
		}
		if want != "" && err != nil || want == "" && !errors.As(err, new(*DetectError)) {
			t.Errorf("%q: %v", vendor, err)
		}
	}
}

// TestKnownMachines as they describe themselves.
func TestKnownMachines(t *testing.T) {
	for name, c := range map[string]struct {
		dmi  map[string]string
		want string
		why  string
	}{
		"EC2, Nitro": {
			map[string]string{"sys_vendor": "Amazon EC2\n", "bios_vendor": "Amazon EC2\n", "product_name": "m7i.large\n", "product_version": "\n"},
			"aws", `class/dmi/id/sys_vendor="Amazon EC2"`,
		},
		"EC2, bare metal":     {map[string]string{"sys_vendor": "Amazon EC2\n", "bios_vendor": "Dell Inc.\n", "product_name": "m5.metal\n"}, "aws", ""},
		"EC2, firmware alone": {map[string]string{"sys_vendor": "\n", "bios_vendor": "Amazon EC2\n"}, "aws", `class/dmi/id/bios_vendor="Amazon EC2"`},
		"EC2, Xen": {
			map[string]string{"sys_vendor": "Xen\n", "bios_vendor": "Xen\n", "product_name": "HVM domU\n", "product_version": "4.11.amazon\n"},
			"aws", `class/dmi/id/sys_vendor="Xen", class/dmi/id/product_version="4.11.amazon"`,
		},
		"Xen of somebody else": {map[string]string{"sys_vendor": "Xen\n", "bios_vendor": "Xen\n", "product_name": "HVM domU\n", "product_version": "4.17.3\n"}, "", ""},
		"a version alone":      {map[string]string{"sys_vendor": "Xen\n", "product_version": ".amazon\n"}, "", ""},
		"not Xen":              {map[string]string{"sys_vendor": "Acme\n", "product_version": "4.11.amazon\n"}, "", ""},
		"GCE":                  {map[string]string{"sys_vendor": "Google\n", "product_name": "Google Compute Engine\n"}, "gcp", `class/dmi/id/product_name="Google Compute Engine"`},
		"a laptop of Google's": {map[string]string{"sys_vendor": "Google\n", "product_name": "Eve\n"}, "", ""},
		"QEMU":                 {map[string]string{"sys_vendor": "QEMU\n", "product_name": "Standard PC (Q35 + ICH9, 2009)\n"}, "qemu", `class/dmi/id/sys_vendor="QEMU"`},
		"OpenStack":            {map[string]string{"sys_vendor": "OpenStack Foundation\n", "product_name": "OpenStack Nova\n"}, "", ""},
		"no DMI":               {nil, "", ""},
	} {
		d, err := Detect(t.Context(), reach{sys: dmi(c.dmi)}, false)
		if d.Platform.Name != c.want || (err == nil) != (c.want != "") || c.why != "" && d.Why != c.why || d.Looked {
			t.Errorf("%s: %s, why %s, %v", name, d.Platform.Name, d.Why, err)
		}
	}
}

// TestUnknownMachineIsDescribed, so that its owner can name the platform, or a platform
// can be added. Nothing is asked: an unknown machine has no metadata address.
func TestUnknownMachineIsDescribed(t *testing.T) {
	_, err := onFirmware(t, dmi(map[string]string{"sys_vendor": "Dell Inc.\n", "product_serial": "canary", "product_uuid": "canary"}))
	want := `no platform is known by these markers: class/dmi/id/sys_vendor="Dell Inc.", class/dmi/id/bios_vendor="", class/dmi/id/product_version="", class/dmi/id/product_name="": name the platform with pilotlight.platform=`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	_, err = onFirmware(t, dmi(map[string]string{"sys_vendor": "Amazon EC2\n", "product_name": "Google Compute Engine\n"}))
	want = `more than one platform is known by these markers (aws, gcp): class/dmi/id/sys_vendor="Amazon EC2", class/dmi/id/bios_vendor="", class/dmi/id/product_version="", class/dmi/id/product_name="Google Compute Engine": name the platform with pilotlight.platform=`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// TestSeveralMarkersMustAllFit, on platforms that are the test's own.
func TestSeveralMarkersMustAllFit(t *testing.T) {
	vendor, product, tag := "class/dmi/id/sys_vendor", "class/dmi/id/product_name", "class/dmi/id/chassis_asset_tag"
	all := []Platform{
		{Name: "by-name"},
		{Name: "one", Match: []Marks{{{vendor, "V"}, {product, "P1"}}, {{vendor, "V1"}}}},
		{Name: "two", Match: []Marks{{{vendor, "V"}, {product, "P2"}}}},
		{Name: "wide", Match: []Marks{{{tag, "T"}}, {{tag, "*.T"}}}},
	}
	for _, c := range []struct {
		vendor, product, tag string
		want                 string
		fits                 []string
	}{
		{"V", "P1", "", "one", nil},
		{"V1", "", "", "one", nil},
		{"V", "P2", "", "two", nil},
		{"", "", "T", "wide", nil},
		{"", "", "1.T", "wide", nil},
		{"", "", ".T", "", nil},
		{"", "", "1.T2", "", nil},
		{"V", "P3", "", "", nil},
		{"W", "P1", "", "", nil},
		{"", "", "", "", nil},
		{"V", "P1", "T", "", []string{"one", "wide"}},
	} {
		sys := dmi(map[string]string{"sys_vendor": c.vendor + "\n", "product_name": c.product + "\n", "chassis_asset_tag": c.tag + "\n"})
		d, err := detect(t.Context(), all, reach{sys: sys}, false)
		var fail *DetectError
		if d.Platform.Name != c.want || c.want == "" && (!errors.As(err, &fail) || !slices.Equal(fail.Fits, c.fits)) {
			t.Errorf("%+v: %q %v", c, d.Platform.Name, err)
			continue
		}
		if len(d.Seen) != 3 {
			t.Errorf("looked at %v: each file once", d.Seen)
		}
	}
}

func TestMarkerThatCannotBeReadIsNotAbsent(t *testing.T) {
	_, err := onFirmware(t, fstest.MapFS{"class/dmi/id/sys_vendor": {Mode: fs.ModeDir | 0o755}})
	if errors.As(err, new(*DetectError)) || !errors.As(err, new(*fs.PathError)) {
		t.Errorf("error %v", err)
	}
}

// TestNoMachineIsTakenForAnother: whatever the firmware says, only the exact words fit.
func TestNoMachineIsTakenForAnother(t *testing.T) {
	exact := map[string]string{}
	for _, p := range All {
		for _, marks := range p.Match {
			for _, m := range marks {
				exact[m.Value] = p.Name
			}
		}
	}
	property := func(vendor string) bool {
		name, err := onFirmware(t, dmi(map[string]string{"sys_vendor": vendor}))
		line, _, _ := strings.Cut(vendor, "\n")
		want := exact[line]
		if want == "gcp" || line == "Xen" || strings.HasPrefix(line, "*") {
			want = "" // words of other files, or not enough
		}
		return name == want && (name != "" || errors.As(err, new(*DetectError)))
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

// firmware is dmi, quicker.
type firmware map[string][]byte

func (f firmware) Open(string) (fs.File, error) { return nil, fs.ErrNotExist }

func (f firmware) ReadFile(name string) ([]byte, error) { return f[name], nil }

// TestNoUUIDIsAPlatform: a UUID, or a serial number that is one, says nothing of where a
// machine is, however it begins.
func TestNoUUIDIsAPlatform(t *testing.T) {
	for _, p := range All {
		for _, marks := range p.Match {
			for _, m := range marks {
				if strings.Contains(m.File, "uuid") || strings.Contains(m.File, "serial") {
					t.Errorf("%s is known by %s", p.Name, m.File)
				}
			}
		}
	}
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	sys := firmware{}
	files := []string{"product_uuid", "product_serial", "sys_vendor", "bios_vendor", "product_name", "product_version"}
	begins := 0
	for range 1_000_000 {
		uuid := fmt.Sprintf("%08x-%04x-%04x-%04x-%012x\n", random.Uint32(), random.Uint32()>>16, random.Uint32()>>16, random.Uint32()>>16, random.Uint64()>>16)
		for _, name := range files {
			sys["class/dmi/id/"+name] = []byte(uuid)
		}
		if strings.HasPrefix(uuid, "ec2") {
			begins++
		}
		if d, err := marked(All[:], sys); err != nil || len(d.Fits) > 0 {
			t.Fatalf("%s: %v %v", uuid, d.Fits, err)
		}
	}
	if begins < 100 {
		t.Errorf("only %d of them begin as those of old EC2 instances do", begins)
	}
}

// TestDriveDecidesOnlyWhereItMay is the table of firmware, fw_cfg, and drives.
func TestDriveDecidesOnlyWhereItMay(t *testing.T) {
	cd := Drive{"/dev/sr0", "iso9660", []string{"cidata"}}
	stick := Drive{"/dev/sda1", "vfat", []string{"CIDATA", "other"}}
	esp := Drive{"/dev/vda1", "vfat", []string{"ESP"}}
	device := fw(nil)
	keyed := fw(map[string]string{"opt/com.coreos/config": "{}"})
	for name, c := range map[string]struct {
		vendor string
		fw     fstest.MapFS
		drives []Drive
		media  bool
		want   string
		says   string // why, or the error
		looked bool
	}{
		"bare machine, not allowed": {"Dell", nil, []Drive{cd}, false, "", "no platform is known", false},
		"bare machine":              {"Dell", nil, []Drive{esp, cd}, true, "nocloud", `/dev/sr0 (iso9660 "cidata") is there, and the image allows it`, true},
		"bare machine, no such drive": {"Dell", nil, []Drive{esp}, true, "",
			`; no drive is labelled cidata: there is /dev/vda1 (vfat "ESP"): name the platform with pilotlight.platform=`, true},
		"bare machine, no drive": {"Dell", nil, nil, true, "", "; no drive is labelled cidata: no vfat or iso9660 has a label: name the platform", true},
		"bare machine, two of them": {"Dell", nil, []Drive{cd, esp, stick}, true, "",
			`platform: 2 drives are labelled cidata, and only one may be: /dev/sr0 (iso9660 "cidata"), /dev/sda1 (vfat "CIDATA", "other")`, true},
		"a cloud":                   {"Amazon EC2", nil, []Drive{cd}, true, "aws", `class/dmi/id/sys_vendor="Amazon EC2"`, false},
		"QEMU, not allowed":         {"QEMU", device, []Drive{cd}, false, "qemu", `class/dmi/id/sys_vendor="QEMU"`, false},
		"QEMU, a config in fw_cfg":  {"QEMU", keyed, []Drive{cd}, true, "qemu", `class/dmi/id/sys_vendor="QEMU"; its fw_cfg holds a config`, false},
		"QEMU, none, a drive":       {"QEMU", device, []Drive{stick}, true, "nocloud", `/dev/sda1 (vfat "CIDATA", "other") is there, and the image allows it; fw_cfg holds no config`, true},
		"QEMU, none, no drive":      {"QEMU", device, []Drive{esp}, true, "qemu", `class/dmi/id/sys_vendor="QEMU"`, true},
		"QEMU, two of them":         {"QEMU", device, []Drive{cd, stick}, true, "", "platform: 2 drives are labelled cidata", true},
		"QEMU that cannot be asked": {"QEMU", fstest.MapFS{}, []Drive{cd}, true, "", "platform qemu: fw_cfg: the kernel does not show the device", false},
	} {
		sys := dmi(map[string]string{"sys_vendor": c.vendor + "\n"})
		for name, f := range c.fw {
			sys[name] = f
		}
		looked := false
		r := reach{sys: sys, drives: func() ([]Drive, error) { looked = true; return c.drives, nil }}
		d, err := Detect(t.Context(), r, c.media)
		says := d.Why
		if c.want == "" {
			d.Platform = Platform{}
			says = fmt.Sprint(err)
		}
		if d.Platform.Name != c.want || (err == nil) != (c.want != "") || !strings.Contains(says, c.says) || looked != c.looked || d.Looked != c.looked {
			t.Errorf("%s: %q, %s, %v, looked %v", name, d.Platform.Name, d.Why, err, looked)
		}
		if looked && !reflect.DeepEqual(d.Drives, c.drives) {
			t.Errorf("%s: drives %v", name, d.Drives)
		}
	}
	blind := errors.New("sda: input/output error")
	r := reach{sys: dmi(map[string]string{"sys_vendor": "Dell"}), drives: func() ([]Drive, error) { return nil, blind }}
	if d, err := Detect(t.Context(), r, true); !errors.Is(err, blind) || errors.As(err, new(*DetectError)) {
		t.Errorf("%v %v", d, err)
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
		for _, marks := range p.Match {
			if len(marks) == 0 {
				t.Errorf("%s fits every machine", p.Name)
			}
			for _, m := range marks {
				if !fs.ValidPath(m.File) || strings.Trim(m.Value, "*") == "" || strings.Contains(m.Value, "\n") {
					t.Errorf("%s: %+v", p.Name, m)
				}
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
	if want := `platform "qemuu" is not known: this version knows aws, file, gcp, metal, nocloud, qemu, and auto`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
