package stages

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pilotlight/initrd"
)

// storage is a config with Ignition's storage and perhaps our section.
func storageOf(storage, section string) string {
	if section != "" {
		section = `,"pilotlight":{"version":"1",` + section + `}`
	}
	return `{"ignition":{"version":"3.5.0"},"storage":{` + storage + `}` + section + `}`
}

func TestArraysAreIgnitions(t *testing.T) {
	const raid = `"raid":[{"name":"data","level":"raid5","devices":["/dev/a","/dev/b","/dev/c"],"spares":1,"options":["--chunk=64"]},{"name":"other","level":"0","devices":["/dev/d","/dev/e"]}]`
	in := first(t, storageOf(raid, ""))
	steps := want(t, arrays, in)
	data := initrd.Array{Name: "data", Level: "raid5", Devices: []string{"/dev/a", "/dev/b", "/dev/c"}, Spares: 1, Options: []string{"--chunk=64"}, Provision: in.Facts.Provision}
	if len(steps) != 2 || !reflect.DeepEqual(steps[0], initrd.Step(data)) {
		t.Errorf("%+v", steps)
	}
	in.Facts.Boot = Later
	if steps := want(t, arrays, in); len(steps) != 0 {
		t.Errorf("on a later boot: %q", texts(steps))
	}
	// One that is needed: by a file system, or by a volume below one.
	for _, more := range []string{
		`,"filesystems":[{"device":"/dev/md/data","format":"ext4","path":"/"}]`,
		`,"luks":[{"name":"root","device":"/dev/md/data","clevis":{"tpm2":true}}],"filesystems":[{"device":"/dev/mapper/root","format":"ext4","path":"/"}]`,
	} {
		in := first(t, storageOf(raid+more, ""))
		in.Facts.Boot = Later
		data.There = true
		if steps := want(t, arrays, in); len(steps) != 1 || !reflect.DeepEqual(steps[0], initrd.Step(data)) {
			t.Errorf("%s: %q", more, texts(steps))
		}
	}
}

// one is the wish for the only volume of a config.
func one(t *testing.T, luks, section string) initrd.Volume {
	t.Helper()
	steps := want(t, volumes, first(t, storageOf(`"luks":[`+luks+`]`, section)))
	if len(steps) != 1 {
		t.Fatalf("%q", texts(steps))
	}
	return steps[0].(initrd.Volume)
}

func TestVolumesAreIgnitions(t *testing.T) {
	v := one(t, `{"name":"v","device":"/dev/a","label":"l","uuid":"u","options":["--cipher=x"],"openOptions":["--perf-no_read_workqueue"],"discard":true,"wipeVolume":true,"keyFile":{"source":"data:,k"}}`, "")
	if v.Name != "v" || v.Device != "/dev/a" || *v.Label != "l" || *v.UUID != "u" || fmt.Sprint(v.Options, v.OpenOptions) != "[--cipher=x] [--perf-no_read_workqueue]" || !v.Discard || !v.Wipe || v.Clevis != nil || v.TPM2 != nil || v.Provision == "" {
		t.Errorf("%+v", v)
	}
	if key, err := v.Key.Local(); err != nil || string(key) != "k" {
		t.Errorf("%q %v", key, err)
	}
	if v := one(t, `{"name":"v","device":"/dev/a","keyFile":{"source":""}}`, ""); v.Key != nil || v.Label != nil || v.UUID != nil {
		t.Errorf("%+v", v)
	}
}

func TestClevisInItsOwnWords(t *testing.T) {
	const thp = `,"thumbprint":"T"`
	for clevis, want := range map[string]struct {
		config  string
		servers string
		tpm     bool
		test    bool
	}{
		`{"tpm2":true}`: {`{"pins":{"tpm2":{}},"t":1}`, "[]", true, true},
		`{"tang":[{"url":"http://a/x/"` + thp + `}]}`:                                                                    {`{"pins":{"tang":[{"url":"http://a/x/","thp":"T"}]},"t":1}`, "[http://a/x/adv]", false, true},
		`{"tang":[{"url":"http://a"` + thp + `,"advertisement":"{\"p\":1}"}]}`:                                           {`{"pins":{"tang":[{"url":"http://a","thp":"T","adv":{"p":1}}]},"t":1}`, "[]", false, false},
		`{"threshold":2,"tpm2":true,"tang":[{"url":"http://a"` + thp + `},{"url":"http://b"` + thp + `}]}`:               {`{"pins":{"tang":[{"url":"http://a","thp":"T"},{"url":"http://b","thp":"T"}],"tpm2":{}},"t":2}`, "[http://a/adv http://b/adv]", true, true},
		`{"threshold":2,"tpm2":true,"tang":[{"url":"http://a"` + thp + `,"advertisement":"{}"}]}`:                        {`{"pins":{"tang":[{"url":"http://a","thp":"T","adv":{}}],"tpm2":{}},"t":2}`, "[]", true, false},
		`{"custom":{"pin":"tpm2","config":"{\"pcr_ids\":\"7\"}"}}`:                                                       {`{"pcr_ids":"7"}`, "[]", true, false},
		`{"custom":{"pin":"sss","config":"{\"t\":1,\"pins\":{\"tang\":[{\"url\":\"http://a\"}]}}","needsNetwork":true}}`: {`{"t":1,"pins":{"tang":[{"url":"http://a"}]}}`, "[http://a/adv]", false, false},
		`{"custom":{"pin":"sss","config":"{\"t\":1,\"pins\":{\"tang\":[{\"url\":\"http://a\"}]}}"}}`:                     {`{"t":1,"pins":{"tang":[{"url":"http://a"}]}}`, "[]", false, false},
	} {
		c := one(t, `{"name":"v","device":"/dev/a","clevis":`+clevis+`}`, "").Clevis
		if c == nil {
			t.Errorf("%s: no clevis", clevis)
			continue
		}
		var servers []string
		for _, s := range c.Servers {
			servers = append(servers, s.Source.Reveal())
		}
		if got := c.Config.Reveal(); got != want.config || fmt.Sprint(servers) != want.servers || c.TPM2 != want.tpm || c.Test != want.test {
			t.Errorf("%s: %s %s tpm %v test %v", clevis, got, servers, c.TPM2, c.Test)
		}
	}
}

func TestNamesOfKeyServers(t *testing.T) {
	got := hosts([]string{"http://a/x", "https://b.example", "http://c:8080/", "http://192.0.2.1:7500", "http://[2001:db8::1]/", "%", ""})
	if fmt.Sprint(got) != "[a:80 b.example:443 c:8080]" {
		t.Errorf("%q", got)
	}
}

func TestEnrolmentOfOurSection(t *testing.T) {
	const luks = `{"name":"v","device":"/dev/a"}`
	v := one(t, luks, `"luks":[{"name":"v","tpm2":{"pcrs":[7],"pin":{"inline":"1234"}},"recovery":{"credential":"r"}}]`)
	if e := v.TPM2; fmt.Sprint(e.PCRs) != "[7]" || e.PIN.Reveal() != "1234" || e.Recovery.Credential != "r" || e.Recovery.Upload != nil {
		t.Errorf("%+v", e)
	}
	v = one(t, luks, `"luks":[{"name":"v","tpm2":{"pcrs":[]},"recovery":{"url":{"source":"https://h/k"}}}]`)
	if e := v.TPM2; len(e.PCRs) != 0 || !e.PIN.Empty() || e.Recovery.Upload.Source.Reveal() != "https://h/k" {
		t.Errorf("%+v", e)
	}
	for section, says := range map[string]string{
		`"luks":[{"name":"w","tpm2":{"pcrs":[7]},"recovery":"none"}]`:                     "no entry of that name",
		`"luks":[{"name":"v","tpm2":{"pcrs":[7],"pin":{"inline":""}},"recovery":"none"}]`: "it is empty",
		`"luks":[{"name":"b","tpm2":{"pcrs":[7]},"recovery":"none"}]`:                     "one of the two",
	} {
		_, err := volumes(first(t, storageOf(`"luks":[`+luks+`,{"name":"b","device":"/dev/b","clevis":{"tpm2":true}}]`, section)))
		var fault *Error
		if !errors.As(err, &fault) || fault.List != "luks" || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", section, err)
		}
	}
}

// TestVolumesOfALaterBoot are unlocked where the config mounts something of them and says how.
func TestVolumesOfALaterBoot(t *testing.T) {
	const (
		ours   = `"root":"tmpfs"`
		data   = `,"filesystems":[{"device":"/dev/mapper/v","format":"ext4","path":"/data"}]`
		root   = `,"filesystems":[{"device":"/dev/mapper/v","format":"ext4","path":"/"}]`
		byKey  = `{"name":"v","device":"/dev/a","keyFile":{"source":"data:,k"}}`
		byWeb  = `{"name":"v","device":"/dev/a","keyFile":{"source":"http://h/k"}}`
		made   = `{"name":"v","device":"/dev/a"}`
		clevis = `{"name":"v","device":"/dev/a","clevis":{"tpm2":true}}`
		tpm    = `"luks":[{"name":"v","tpm2":{"pcrs":[7]},"recovery":"none"}]`
		pin    = `"luks":[{"name":"v","tpm2":{"pcrs":[7],"pin":{"inline":"1"}},"recovery":"none"}]`
	)
	for _, c := range []struct{ luks, fs, section, want, tab string }{
		{byKey, data, ours, "Luks", "/etc/luks/v luks,x-initrd.attach"},
		{byKey, data, "", "", "/etc/luks/v luks"},
		{byKey, root, "", "Luks", "/etc/luks/v luks,x-initrd.attach"},
		{byKey, "", ours, "", "/etc/luks/v luks"},
		{byWeb, data, ours, "", "/etc/luks/v luks"},
		{made, data, ours, "", "/etc/luks/v luks"},
		{clevis, data, ours, "ClevisUnlocked", "none luks,x-initrd.attach"},
		{clevis, "", ours, "", "none luks"},
		{made, data, tpm, "Luks", "none luks,tpm2-device=auto,x-initrd.attach"},
		{made, "", tpm, "", "none luks,tpm2-device=auto"},
		{made, "", pin, "Luks", "none luks,tpm2-device=auto,x-initrd.attach"},
	} {
		in := first(t, storageOf(`"luks":[`+c.luks+`]`+c.fs, c.section))
		in.Facts.Boot = Later
		steps := want(t, volumes, in)
		kind := ""
		if len(steps) == 1 {
			kind = reflect.TypeOf(steps[0]).Name()
		}
		if kind != c.want || len(steps) > 1 {
			t.Errorf("%+v: %q", c, texts(steps))
		}
		if l, ok := any(append(steps, nil)[0]).(initrd.Luks); ok && (l.Device != "/dev/a" || l.TPM2 != (c.section == tpm || c.section == pin) || (l.PIN.Reveal() == "1") != (c.section == pin) || (l.Key.Reveal() == "k") != (c.luks == byKey)) {
			t.Errorf("%+v: %+v", c, l)
		}
		files := want(t, volumeFiles, in)
		tab := files[len(files)-1].(initrd.Crypttab).Volumes[0]
		if got := tab.Key + " " + strings.Join(append([]string{"luks"}, tab.Options...), ","); got != c.tab {
			t.Errorf("%+v: %s", c, got)
		}
		if (len(files) == 2) != strings.HasPrefix(c.tab, "/etc") {
			t.Errorf("%+v: %q", c, texts(files))
		}
	}
	// Of the root nobody else knows the key.
	for _, luks := range []string{byWeb, made} {
		if _, err := volumes(first(t, storageOf(`"luks":[`+luks+`]`+root, ""))); err == nil || !strings.Contains(err.Error(), "its key would lie in there") {
			t.Errorf("%s: %v", luks, err)
		}
	}
	// With a key server the host waits for the network.
	files := want(t, volumeFiles, first(t, storageOf(`"luks":[{"name":"v","device":"/dev/a","clevis":{"tang":[{"url":"http://a","thumbprint":"T"}]}}]`, "")))
	if tab := files[0].(initrd.Crypttab).Volumes[0]; fmt.Sprint(tab.Options) != "[_netdev]" || tab.Key != "none" {
		t.Errorf("%+v", tab)
	}
}

// TestVolumesAreNotWipedAtEachBoot of a machine that keeps no record.
func TestVolumesAreNotWipedAtEachBoot(t *testing.T) {
	const luks = `"luks":[{"name":"v","device":"/dev/a","wipeVolume":true}]`
	in := first(t, storageOf(luks, ""))
	in.Facts.Placed = false
	var fault *Error
	if _, err := volumes(in); !errors.As(err, &fault) || fault.Name != "v" {
		t.Error(err)
	}
	in = first(t, storageOf(luks, `"policy":{"disks":"wipe"}`))
	in.Facts.Placed = false
	if _, err := volumes(in); err != nil {
		t.Error(err)
	}
}
