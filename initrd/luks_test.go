package initrd

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// mapped is a machine with one partition, and perhaps a device-mapper device.
type mapped struct {
	tabled
	mapper *Mapper
	table  string // of dmsetup
}

func (m mapped) Mapper(string) (Mapper, error) {
	if m.mapper == nil {
		return Mapper{}, fs.ErrNotExist
	}
	return *m.mapper, nil
}

func (m mapped) Ask(Query) ([]byte, error) { return []byte(m.table), nil }

func TestLuksLooksAtWhatIsUnlocked(t *testing.T) {
	m, _ := testMachine(t)
	wish := Luks{Name: "var", What: varAt(t, "").What, TPM2: true}
	on := func(table *disk.Table) tabled {
		return tabled{oneDisk{look{t.Context(), m}, "/dev/x"}, table}
	}
	const crypt = "0 100 crypt aes-xts-plain64 :64:logon:cryptsetup:x 0 254:3 32768\n"
	there := &Mapper{Node: "/dev/dm-0", UUID: "CRYPT-LUKS2-0b7c9f7e39a24a509b3c4c1d2e3f4a5b-var", On: []string{"x1"}}
	for name, c := range map[string]struct {
		look  mapped
		state State
		err   string
	}{
		"no partition yet":           {mapped{on(nil), nil, ""}, After, ""},
		"locked":                     {mapped{on(tableWithVar(t)), nil, ""}, NotSo, ""},
		"unlocked":                   {mapped{on(tableWithVar(t)), there, crypt}, So, ""},
		"another partition":          {mapped{on(tableWithVar(t)), &Mapper{UUID: there.UUID, On: []string{"x2"}}, crypt}, unresolved, "/dev/mapper/var is something else"},
		"not LUKS":                   {mapped{on(tableWithVar(t)), &Mapper{UUID: "CRYPT-PLAIN-var", On: there.On}, crypt}, unresolved, "/dev/mapper/var is something else"},
		"a cipher that does nothing": {mapped{on(tableWithVar(t)), there, strings.Replace(crypt, "aes-xts-plain64", "cipher_null-ecb", 1)}, unresolved, "not encrypted: its header was replaced"},
		"no crypt target":            {mapped{on(tableWithVar(t)), there, "0 100 linear 254:3 0\n"}, unresolved, "not encrypted"},
	} {
		state, act, err := wish.Resolve(c.look)
		if state != c.state || (act != nil) != (c.state == NotSo) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || c.err == "" && c.state != After && err != nil {
			t.Errorf("%s: %v %v %v", name, state, act, err)
		}
	}
}

func TestUnlockGivesKeysInFiles(t *testing.T) {
	m, _ := testMachine(t)
	log := filepath.Join(t.TempDir(), "log")
	program(t, m, "systemd-cryptsetup", fmt.Sprintf(`echo "$@" >> %[1]s; case "$4" in none) ;; *) stat -c %%a "$4" >> %[1]s; cat "$4" >> %[1]s;; esac`, log))
	byTPM := unlock{Luks{Name: "var", TPM2: true, Options: []string{"discard"}}, "/dev/x1"}
	byKey := unlock{Luks{Name: "var", Key: resource.NewSecret("k\x00ey")}, "/dev/x1"}
	for _, u := range []unlock{byTPM, byKey} {
		if err := u.do(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(contentOf(t, log), "\n")
	if lines[0] != "attach var /dev/x1 none luks,headless=yes,tpm2-device=auto,discard" {
		t.Errorf("%q", lines[0])
	}
	if !strings.HasPrefix(lines[1], "attach var /dev/x1 "+m.Run+"/key-") || !strings.HasSuffix(lines[1], " luks,headless=yes") || lines[2] != "600" || lines[3] != "k\x00ey" {
		t.Errorf("%q", lines[1:])
	}
	if left, _ := filepath.Glob(filepath.Join(m.Run, "key-*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", byKey, byKey), "k\x00ey") {
		t.Error("the key is printed")
	}
}
