package stages

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pilotlight/config"
	"pilotlight/initrd"
)

// storage is a config with these file systems, and with our section where that is not "".
func storage(filesystems, section string) string {
	if section != "" {
		section = `,"pilotlight":{"version":"1",` + section + `}`
	}
	return `{"ignition":{"version":"3.5.0"},"storage":{"filesystems":[` + filesystems + `]}` + section + `}`
}

const someFilesystems = `
{"device":"/dev/disk/by-partlabel/lib","path":"/var/lib","format":"btrfs","mountOptions":["noatime","subvol=a"],"options":["--mixed"]},
{"device":"/dev/disk/by-partlabel/var","path":"/var","format":"xfs","label":"var","uuid":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","wipeFilesystem":true},
{"device":"/dev/disk/by-partlabel/swap","format":"swap","path":"none"},
{"device":"/dev/vdz","format":"none","wipeFilesystem":true},
{"device":"/dev/vdy"}`

func TestFilesystemsAreMadeOnTheFirstBoot(t *testing.T) {
	in := first(t, storage(strings.Replace(someFilesystems, `,"path":"none"`, "", 1), ""))
	var got []string
	for _, s := range want(t, filesystems, in) {
		f := s.(initrd.Filesystem)
		label, uuid := "-", "-"
		if f.Label != nil {
			label = *f.Label
		}
		if f.UUID != nil {
			uuid = *f.UUID
		}
		got = append(got, fmt.Sprintf("%s %s %v %s %s %q %v", f.Device, f.Format, f.Wipe, label, uuid, f.Options, f.Provision == provision))
	}
	if want := []string{
		`/dev/disk/by-partlabel/lib btrfs false - - ["--mixed"] true`,
		`/dev/disk/by-partlabel/var xfs true var A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11 [] true`,
		`/dev/disk/by-partlabel/swap swap false - - [] true`,
		`/dev/vdz none true - - [] true`,
	}; !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	in.Facts.Boot = Later
	if steps := want(t, filesystems, in); len(steps) != 0 {
		t.Errorf("a later boot makes %q", texts(steps))
	}
}

// TestWipingNeedsARecord, or consent: else each boot would wipe.
func TestWipingNeedsARecord(t *testing.T) {
	const wipe = `{"device":"/dev/vdx","format":"ext4","wipeFilesystem":true}`
	for name, c := range map[string]struct {
		config  string
		placed  bool
		refused bool
	}{
		"with a record":               {config: storage(wipe, ""), placed: true},
		"without":                     {config: storage(wipe, ""), refused: true},
		"without, by consent":         {config: storage(wipe, `"policy":{"disks":"wipe"}`)},
		"nothing is wiped, without":   {config: storage(`{"device":"/dev/vdx","format":"ext4"}`, "")},
		"without, and another policy": {config: storage(wipe, `"policy":{"disks":"keep"}`), refused: true},
	} {
		in := first(t, c.config)
		in.Facts.Placed = c.placed
		_, err := filesystems(in)
		var fault *Error
		if errors.As(err, &fault) != c.refused || c.refused && fault.Name != "/dev/vdx" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesystemsAreMountedParentsFirst(t *testing.T) {
	fs := strings.Replace(someFilesystems, `,"path":"none"`, `,"path":"/swap"`, 1)
	root := `{"device":"/dev/disk/by-label/root","path":"/","format":"ext4"}`
	plain := []string{
		`/sysroot/var /dev/disk/by-partlabel/var "xfs" [] check=false`,
		`/sysroot/var/lib /dev/disk/by-partlabel/lib "btrfs" ["noatime" "subvol=a"] check=false`,
	}
	checked := slices.Clone(plain)
	for i := range checked {
		checked[i] = strings.Replace(checked[i], "=false", "=true", 1)
	}
	rootPlain, rootChecked := `/sysroot /dev/disk/by-label/root "ext4" [] check=false`, `/sysroot /dev/disk/by-label/root "ext4" [] check=true`
	for name, c := range map[string]struct {
		config string
		boot   Boot
		root   bool // systemd mounts it
		want   []string
	}{
		"first":                      {storage(fs, ""), First, true, plain},
		"interrupted":                {storage(fs, ""), Interrupted, true, plain},
		"later":                      {storage(fs, ""), Later, true, nil},
		"first, with a root":         {storage(fs+","+root, ""), First, false, append([]string{rootPlain}, plain...)},
		"first, held against it":     {storage(fs+","+root, ""), First, true, append([]string{rootPlain}, plain...)},
		"later, with a root":         {storage(fs+","+root, ""), Later, false, []string{rootPlain}},
		"later, with systemd's root": {storage(fs+","+root, ""), Later, true, nil},
		"first, with our section":    {storage(fs, `"network":[]`), First, true, checked},
		"later, with our section":    {storage(fs+","+root, `"network":[]`), Later, false, append([]string{rootChecked}, checked...)},
	} {
		in := first(t, c.config)
		in.Facts.Boot, in.Facts.SystemdRoot = c.boot, c.root
		steps := want(t, Root, in)
		if got := mountTable(steps); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q\nwant %q", name, got, c.want)
		}
		for i, s := range steps {
			m, ok := s.(initrd.Mount)
			if !ok || m.Where == in.Facts.Root {
				continue
			}
			if p, ok := steps[i-1].(initrd.MountPoint); !ok || "/sysroot"+p.Path != m.Where || p.Root != "/sysroot" {
				t.Errorf("%s: before %s comes %s", name, m, steps[i-1])
			}
		}
		// The host is told only where it has no mount units of the config's.
		fstab := ""
		for _, s := range want(t, Etc, in) {
			if again, ok := s.(initrd.MadeAnew); ok {
				s = again.Step
			}
			if f, ok := s.(initrd.Fstab); ok {
				fstab = f.String()
			}
		}
		told := ""
		if strings.Contains(c.config, "pilotlight") {
			told = "entries in /etc/fstab for /var, /var/lib"
		}
		if fstab != told {
			t.Errorf("%s: %q, want %q", name, fstab, told)
		}
	}
}

// TestAFaultIsFoundInTheConfig by the list and the key that it names.
func TestAFaultIsFoundInTheConfig(t *testing.T) {
	text := storage(`{"device":"/dev/a","path":"/srv","format":"ext4"},{"device":"/dev/b","path":"/srv","format":"xfs"}`, "")
	_, err := Root(first(t, text))
	var fault *Error
	if !errors.As(err, &fault) {
		t.Fatal(err)
	}
	list, key := fault.Entry()
	at, ok := config.Find([]config.Document{{Bytes: []byte(text)}}, list, key, fault.Name)
	if !ok || at.Path != "$.storage.filesystems.1" {
		t.Errorf("%v %q %q: %+v", list, key, fault.Name, at)
	}
}

// TestTwoForOneMountPoint: which one would be meant is not for us to guess.
func TestTwoForOneMountPoint(t *testing.T) {
	const srv = `{"device":"/dev/a","path":"/srv","format":"ext4"}`
	const top = `{"device":"/dev/a","path":"/","format":"ext4"}`
	for name, c := range map[string]struct{ config, says string }{
		"two file systems": {storage(srv+`,{"device":"/dev/b","path":"/srv","format":"xfs"}`, ""), `storage.filesystems "/dev/b": /dev/a is mounted at /srv too`},
		"a definition": {
			storage(srv, repartOf(onBoot("", definition("50-a.conf", "[Partition]\nType=root\n"), definition("60-b.conf", "[Partition]\nType=srv\nMountPoint=/srv\n")))),
			"/dev/a of storage.filesystems is mounted at /srv too",
		},
		"a verity device": {storage(srv, `"verity":[{"name":"v","rootHash":"`+rootHash+`","mount":"/srv"}]`), `verity "v": /dev/a of storage.filesystems is mounted at /srv too`},
		"a tmpfs":         {storage(top, `"root":"tmpfs"`), "/dev/a of storage.filesystems is mounted at / too"},
	} {
		for stage, wish := range map[string]func(Input) ([]initrd.Step, error){"root": Root, "etc": Etc} {
			if _, err := wish(first(t, c.config)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v", name, stage, err)
			}
		}
	}
	// A partition of the type root is the root where nothing else is said to be.
	in := first(t, storage(top, repartOf(onBoot("", definition("50-a.conf", "[Partition]\nType=root\n")))))
	if got := mountTable(want(t, Root, in)); !slices.Equal(got, []string{`/sysroot /dev/a "ext4" [] check=true`}) {
		t.Errorf("%q", got)
	}
}
