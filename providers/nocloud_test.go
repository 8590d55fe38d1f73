package providers

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"pilotlight/config/resource"
)

// onDrive is a machine with one drive that has these files.
func onDrive(files map[string]string) reach {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return reach{
		drives: func() ([]Drive, error) {
			return []Drive{{"/dev/vda1", "vfat", []string{"ESP"}}, {"/dev/sr0", "iso9660", []string{"cidata"}}}, nil
		},
		open: func(d Drive, use func(fs.FS) error) error {
			if d.Node != "/dev/sr0" {
				return errors.New("another drive")
			}
			return use(root)
		},
	}
}

func TestNoCloudDrive(t *testing.T) {
	const own = "platform nocloud: seed or drive: "
	for name, c := range map[string]struct {
		files        map[string]string
		want, source string
		none         bool
		says         string
	}{
		"a config":          {files: map[string]string{"user-data": " {}\n", "vendor-data": "canary", "meta-data": ""}, want: " {}\n", source: "/dev/sr0:user-data"},
		"gzipped":           {files: map[string]string{"user-data": zip(t, "{}")}, want: "{}", source: "/dev/sr0:user-data"},
		"beside cloud-init": {files: map[string]string{"user-data": "#cloud-config\nhostname: x\n", "vendor-data": "{}"}, want: "{}", source: "/dev/sr0:vendor-data"},
		"beside nothing":    {files: map[string]string{"user-data": "\n", "vendor-data": "{}"}, want: "{}", source: "/dev/sr0:vendor-data"},
		"without user-data": {files: map[string]string{"vendor-data": "{}"}, want: "{}", source: "/dev/sr0:vendor-data"},
		// What is nobody's is judged by whoever reads a config, who can say what is wrong.
		"a config of another kind": {files: map[string]string{"user-data": "variant: fcos\n"}, want: "variant: fcos\n", source: "/dev/sr0:user-data"},
		"cloud-init's alone": {
			files: map[string]string{"user-data": "#cloud-config\n", "meta-data": ""}, none: true,
			says: "platform nocloud: no config: /dev/sr0: user-data is a cloud-config, vendor-data is not there",
		},
		"a script, and more of it": {
			files: map[string]string{"user-data": "#!/bin/sh\n", "vendor-data": "Content-Type: multipart/mixed\n"}, none: true,
			says: "platform nocloud: no config: /dev/sr0: user-data is a script, vendor-data is for cloud-init",
		},
		"a template, and nothing": {
			files: map[string]string{"user-data": "## template: jinja\n", "vendor-data": ""}, none: true,
			says: "platform nocloud: no config: /dev/sr0: user-data is for cloud-init, vendor-data is empty",
		},
		"no file of ours": {files: map[string]string{"USER-DATA": "{}"}, says: own + "/dev/sr0: user-data is not there, vendor-data is not there"},
		"too much":        {files: map[string]string{"user-data": strings.Repeat("x", resource.DefaultBytesLimit+1)}, says: own + "user-data: more than 16777216 bytes"},
		"as much as may be": {
			files: map[string]string{"user-data": strings.Repeat("x", resource.DefaultBytesLimit)}, want: strings.Repeat("x", resource.DefaultBytesLimit), source: "/dev/sr0:user-data",
		},
		"damaged": {files: map[string]string{"user-data": "\x1f\x8bcanary"}, says: own + "user-data: gzip: inline: cannot decompress"},
	} {
		a, err := ask(t, "nocloud", onDrive(c.files))
		if string(a.Bytes) != c.want || a.Source != c.source || errors.Is(err, ErrNone) != c.none || (c.want != "") != (err == nil) {
			t.Errorf("%s: %d bytes from %s: %v", name, len(a.Bytes), a.Source, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), c.says) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v, want %s", name, err, c.says)
		}
	}
}

func TestFileThatCannotBeReadIsNotAbsent(t *testing.T) {
	r := onDrive(nil)
	r.open = func(_ Drive, use func(fs.FS) error) error {
		return use(fstest.MapFS{"user-data": {Mode: fs.ModeDir | 0o755}, "vendor-data": {Data: []byte("{}")}})
	}
	if a, err := ask(t, "nocloud", r); err == nil || errors.Is(err, ErrNone) || a.Bytes != nil {
		t.Errorf("%+v %v", a, err)
	}
	refused := errors.New("mount /dev/sr0 as iso9660: no such device")
	r.open = func(Drive, func(fs.FS) error) error { return refused }
	if _, err := ask(t, "nocloud", r); !errors.Is(err, refused) || errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
}

// TestDriveIsWaitedFor: it may come late, it may not come, and two are one too many.
func TestDriveIsWaitedFor(t *testing.T) {
	cd := Drive{"/dev/sr0", "iso9660", []string{"CIDATA"}}
	for name, c := range map[string]struct {
		comes  time.Duration
		drives []Drive
		after  time.Duration
		says   string
	}{
		"at once": {0, []Drive{cd}, 0, ""},
		"late":    {20 * time.Second, []Drive{cd}, 20 * time.Second, ""},
		"too late": {driveWait + time.Second, []Drive{cd}, driveWait,
			"platform nocloud: seed or drive: no drive is labelled cidata or CIDATA after 30s: there is /dev/sdb (vfat \"Cidata\")"},
		"two": {time.Second, []Drive{cd, {"/dev/vdb", "vfat", []string{"cidata"}}}, time.Second,
			`platform nocloud: seed or drive: 2 drives are labelled cidata, and only one may be: /dev/sr0 (iso9660 "CIDATA"), /dev/vdb (vfat "cidata")`},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			r := onDrive(map[string]string{"user-data": "{}"})
			r.drives = func() ([]Drive, error) {
				if time.Since(begin) < c.comes {
					return []Drive{{"/dev/sdb", "vfat", []string{"Cidata"}}}, nil
				}
				return c.drives, nil
			}
			a, err := ask(t, "nocloud", r)
			if (err == nil) != (c.says == "") || err != nil && err.Error() != c.says || err == nil && string(a.Bytes) != "{}" || errors.Is(err, ErrNone) {
				t.Errorf("%s: %q %v", name, a.Bytes, err)
			}
			if took := time.Since(begin); took != c.after {
				t.Errorf("%s: after %s", name, took)
			}
		})
	}
}

func TestNoCloudSeed(t *testing.T) {
	serial := func(s string) fstest.MapFS { return dmi(map[string]string{"product_serial": s + "\n"}) }
	both := []exchange{{request: "GET /s/user-data", status: 200, body: "#cloud-config\n"}, {request: "GET /s/vendor-data", status: 200, body: "{}"}}
	for name, c := range map[string]struct {
		argument, serial string
		tape             []exchange
		want             string
		none             bool
		says             string
	}{
		"argument":                   {argument: "nocloud;s=SERVER/s/", tape: []exchange{{request: "GET /s/user-data", status: 200, body: "{}"}}, want: "{}"},
		"argument of the older form": {argument: "nocloud-net;h=x;seedfrom=SERVER/s/;i=y", tape: both, want: "{}"},
		"serial number":              {serial: "ds=nocloud;s=SERVER/s/", tape: both, want: "{}"},
		"argument before serial":     {argument: "nocloud;s=SERVER/s/", serial: "ds=nocloud;s=ftp://canary/", tape: both, want: "{}"},
		"argument of another":        {argument: "ec2", serial: "ds=nocloud;s=SERVER/s/", tape: both, want: "{}"},
		"a name is not a kind":       {argument: "nocloudy;s=http://canary/", want: "drive"},
		"no seed":                    {serial: "ds=nocloud;i=canary", want: "drive"},
		"a serial number":            {serial: "VMware-42 1a", want: "drive"},
		"cloud-init's alone": {
			argument: "nocloud;s=SERVER/s/", tape: []exchange{both[0], {request: "GET /s/vendor-data", status: 404}}, none: true,
			says: "platform nocloud: no config: SERVER/s/: user-data is a cloud-config, vendor-data is not there",
		},
		"nothing there": {
			argument: "nocloud;s=SERVER/s/", tape: []exchange{{request: "GET /s/user-data", status: 404}, {request: "GET /s/vendor-data", status: 404}},
			says: "platform nocloud: seed or drive: SERVER/s/: user-data is not there, vendor-data is not there",
		},
		"refused": {
			argument: "nocloud;s=SERVER/s/", tape: []exchange{{request: "GET /s/user-data", status: 403, body: "canary"}},
			says: "platform nocloud: seed or drive: user-data: SERVER/s/user-data: refused: status 403",
		},
		"a directory":    {argument: "nocloud;s=file:///canary/", says: "platform nocloud: seed or drive: kernel argument ds: url: scheme not supported"},
		"data":           {argument: "nocloud;s=data:,canary", says: "platform nocloud: seed or drive: kernel argument ds: the seed is neither"},
		"not an address": {serial: "ds=nocloud;s=http://u:canary@[", says: "platform nocloud: seed or drive: serial number of the machine: url: malformed"},
	} {
		r := onDrive(map[string]string{"user-data": "drive"})
		server := play(t, c.tape...)
		here := func(s string) string { return strings.ReplaceAll(s, "SERVER", server.server.URL) }
		r.argument, r.sys = map[string]string{"ds": here(c.argument)}, serial(here(c.serial))
		a, err := ask(t, "nocloud", r)
		if string(a.Bytes) != c.want || errors.Is(err, ErrNone) != c.none || (c.want != "") != (err == nil) {
			t.Errorf("%s: %q %v", name, a.Bytes, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), here(c.says)) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v, want %s", name, err, here(c.says))
		}
	}
}
