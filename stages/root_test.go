package stages

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pilotlight/initrd"
)

// mountTable are the mounts that a config wishes, one a line.
func mountTable(steps []initrd.Step) []string {
	var list []string
	for _, s := range steps {
		if m, ok := s.(initrd.Mount); ok {
			list = append(list, fmt.Sprintf("%s %s %q %q check=%v", m.Where, m.What, m.Type, m.Options, m.Check))
		}
	}
	return list
}

func TestWhereTheRootComesFrom(t *testing.T) {
	defined := repartOf(onBoot("", definition("50-root.conf", "[Partition]\nType=root\nLabel=r\nFormat=ext4\n")))
	verity := `"verity":[{"name":"root","rootHash":"` + rootHash + `"}]`
	discoverable := strings.Fields(texts(want(t, Root, first(t, section(`"network":[]`))))[0])
	if got := strings.Join(discoverable, " "); !strings.HasPrefix(got, "partition of type root-") || !strings.HasSuffix(got, " of boot mounted at /sysroot") {
		t.Errorf("%q", got)
	}
	for name, c := range map[string]struct {
		config    string
		root, usr bool
		want      []string
	}{
		"a definition": {config: defined, want: []string{`/sysroot partition "r" of boot "ext4" [] check=true`}},
		"a verity device before a definition": {
			config: defined + "," + verity, want: []string{`/sysroot /dev/mapper/root "" ["ro"] check=false`},
		},
		"kernel arguments before all": {config: defined + "," + verity, root: true, want: nil},
		"kernel arguments for /usr alone": {
			config: defined + `,"verity":[{"name":"usr","rootHash":"` + rootHash + `"}]`, usr: true,
			want: []string{`/sysroot partition "r" of boot "ext4" [] check=true`},
		},
		"a verity /usr": {
			config: defined + `,"verity":[{"name":"usr","rootHash":"` + rootHash + `"}]`,
			want: []string{
				`/sysroot partition "r" of boot "ext4" [] check=true`, `/sysroot/usr /dev/mapper/usr "" ["ro"] check=false`,
			},
		},
		"a device that is not mounted": {
			config: defined + `,"verity":[{"name":"other","rootHash":"` + rootHash + `"}]`,
			want:   []string{`/sysroot partition "r" of boot "ext4" [] check=true`},
		},
		"MountPoint=/ before Type=root": {
			config: repartOf(onBoot("",
				definition("50-a.conf", "[Partition]\nType=root\nLabel=a\n"),
				definition("60-b.conf", "[Partition]\nType=linux-generic\nLabel=b\nMountPoint=/\n"),
				definition("70-c.conf", "[Partition]\nType=root\nLabel=c\n"))),
			want: []string{`/sysroot partition "b" of boot "" [] check=true`},
		},
	} {
		in := first(t, section(c.config))
		in.Facts.SystemdRoot, in.Facts.SystemdUsr = c.root, c.usr
		for _, boot := range []Boot{First, Interrupted, Later} {
			in.Facts.Boot = boot
			if got := mountTable(want(t, Root, in)); !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: %q, want %q", name, boot, got, c.want)
			}
		}
	}
}

// TestTwoPartitionsForOneMountPoint: which one would be chosen is not for us to guess.
func TestTwoPartitionsForOneMountPoint(t *testing.T) {
	a := definition("50-a.conf", "[Partition]\nType=root\nLabel=a\n")
	b := definition("60-b.conf", "[Partition]\nType=root\nLabel=b\n")
	srv := definition("70-s.conf", "[Partition]\nType=srv\nMountPoint=/srv\n")
	for name, c := range map[string]struct {
		config string
		where  string
	}{
		"two roots":        {repartOf(onBoot("", a, b)), "/"},
		"two MountPoint=":  {repartOf(onBoot("", a, srv), `{"name":"more","device":"/dev/x","definitions":[`+srv+`]}`), "/srv"},
		"spelled in a way": {repartOf(onBoot("", a, srv, definition("80-t.conf", "[Partition]\nType=srv\nMountPoint=/srv/\n"))), "/srv"},
	} {
		in := first(t, section(c.config))
		for stage, wish := range map[string]func(Input) ([]initrd.Step, error){"root": Root, "etc": Etc} {
			_, err := wish(in)
			var fault *Error
			if !errors.As(err, &fault) || fault.List != "repart" || !strings.Contains(err.Error(), "more than one definition is mounted at "+c.where+":") {
				t.Errorf("%s, %s: %v", name, stage, err)
			}
		}
	}
	// Where somebody else says what the root is, two slots for it are no question.
	in := first(t, section(repartOf(onBoot("", a, b))))
	in.Facts.SystemdRoot = true
	if got := mountTable(want(t, Root, in)); len(got) != 0 {
		t.Errorf("%q", got)
	}
	in = first(t, section(repartOf(onBoot("", a, b))+`,"verity":[{"name":"root","rootHash":"`+rootHash+`"}]`))
	if got := mountTable(want(t, Root, in)); len(got) != 1 || !strings.Contains(got[0], "/dev/mapper/root") {
		t.Errorf("%q", got)
	}
}

func TestMountsAreInOrderAndHaveTheirDirectories(t *testing.T) {
	in := first(t, section(repartOf(onBoot("",
		definition("10-c.conf", "[Partition]\nType=linux-generic\nLabel=c\nMountPoint=/srv/a/b\n"),
		definition("20-b.conf", "[Partition]\nType=linux-generic\nLabel=b\nMountPoint=/srv/a/:ro,nodev\n"),
		definition("30-v.conf", "[Partition]\nType=var\nLabel=v\nMountPoint=/var\n"),
		definition("40-n.conf", "[Partition]\nType=linux-generic\nLabel=n\n"),
		definition("50-r.conf", "[Partition]\nType=root\nLabel=r\n")))+
		`,"verity":[{"name":"data","rootHash":"`+rootHash+`","mount":"/opt"}]`))
	steps := want(t, Root, in)
	if got, want := mountTable(steps), []string{
		`/sysroot partition "r" of boot "" [] check=true`,
		`/sysroot/opt /dev/mapper/data "" ["ro"] check=false`,
		`/sysroot/var partition "v" of boot "" [] check=true`,
		`/sysroot/srv/a partition "b" of boot "" ["ro" "nodev"] check=true`,
		`/sysroot/srv/a/b partition "c" of boot "" [] check=true`,
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// Each mount but the root's is made room for by the step before it.
	for i, s := range steps {
		m, ok := s.(initrd.Mount)
		if !ok || m.Where == in.Facts.Root {
			continue
		}
		if d, ok := steps[i-1].(initrd.Directory); !ok || d.Root+d.Path != m.Where {
			t.Errorf("before %s: %v", s, steps[i-1])
		}
	}
}

func TestFstabHasWhatStage2MustBeTold(t *testing.T) {
	in := first(t, section(repartOf(onBoot("",
		definition("30-v.conf", "[Partition]\nType=var\nLabel=v\nMountPoint=/var\n"),
		definition("50-r.conf", "[Partition]\nType=root\nLabel=r\n")))+
		`,"verity":[{"name":"usr","rootHash":"`+rootHash+`"},{"name":"data","rootHash":"`+rootHash+`","mount":"/opt"}]`))
	fstab := func(in Input) []string {
		for _, s := range want(t, Etc, in) {
			if w, ok := s.(initrd.MadeAnew); ok {
				s = w.Step
			}
			if f, ok := s.(initrd.Fstab); ok {
				var where []string
				for _, m := range f.Mounts {
					where = append(where, m.Where)
				}
				return where
			}
		}
		return nil
	}
	for _, boot := range []Boot{First, Later} {
		in.Facts.Boot = boot
		if got := fstab(in); !slices.Equal(got, []string{"/sysroot/opt", "/sysroot/var"}) {
			t.Errorf("%s: %q", boot, got)
		}
	}
	if got := fstab(first(t, section(`"network":[]`))); got != nil {
		t.Errorf("without a mount of ours: %q", got)
	}
	// The mounts are the same as those of the stage that does them.
	root := want(t, Root, in)
	for _, s := range want(t, Etc, in) {
		w, ok := s.(initrd.MadeAnew)
		if !ok {
			continue
		}
		if f, ok := w.Step.(initrd.Fstab); ok {
			for _, m := range f.Mounts {
				if !slices.ContainsFunc(root, func(s initrd.Step) bool { return reflect.DeepEqual(s, m) }) {
					t.Errorf("%s is in fstab and not mounted", m)
				}
			}
		}
	}
}

// TestReadOnlyRoots: what of a root must be written to, and where that goes.
func TestReadOnlyRoots(t *testing.T) {
	const verity = `"verity":[{"name":"usr","rootHash":"` + rootHash + `"}]`
	steps := want(t, Root, first(t, section(verity)))
	for i, w := range []initrd.Writable{{Root: "/sysroot", Path: "/var"}, {Root: "/sysroot", Path: "/etc", Upper: "/run/pilotlight/etc"}} {
		if got := steps[len(steps)-2+i]; got != w {
			t.Errorf("%#v, want %#v", got, w)
		}
	}
	onVar := first(t, section(repartOf(onBoot("", definition("60-var.conf", "[Partition]\nType=var\nLabel=v\nMountPoint=/var\n")))+`,"etc":{"upper":"var"}`))
	steps = want(t, Root, onVar)
	if w := steps[len(steps)-1].(initrd.Writable); w.Path != "/etc" || w.Upper != "/sysroot/var/lib/pilotlight/etc" {
		t.Errorf("%#v", w)
	}
	if _, err := Root(first(t, section(`"etc":{"upper":"var"}`))); err == nil || !strings.Contains(err.Error(), "mounts nothing at /var") {
		t.Errorf("%v", err)
	}
}

func TestRootInMemory(t *testing.T) {
	in := first(t, section(`"root":"tmpfs","verity":[{"name":"usr","rootHash":"`+rootHash+`"}]`))
	if got, want := mountTable(want(t, Root, in)), []string{
		`/sysroot tmpfs "" ["mode=0755"] check=false`, `/sysroot/usr /dev/mapper/usr "" ["ro"] check=false`,
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	in = first(t, section(`"root":"tmpfs"`))
	if _, err := Root(in); err == nil || !strings.Contains(err.Error(), "nothing is mounted at /usr") {
		t.Errorf("%v", err)
	}
	// By the kernel arguments there is one.
	in.Facts.SystemdUsr = true
	if got := mountTable(want(t, Root, in)); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// TestKernelArgumentsOpenVerity: the config can only agree with them.
func TestKernelArgumentsOpenVerity(t *testing.T) {
	in := first(t, section(`"verity":[{"name":"usr","rootHash":"`+rootHash+`"},{"name":"tools","rootHash":"`+rootHash+`"}]`))
	in.Facts.RootHashes = map[string]string{"usr": rootHash}
	steps := want(t, Verity, in)
	if !steps[0].(initrd.Verity).Theirs || steps[1].(initrd.Verity).Theirs {
		t.Errorf("%+v", steps)
	}
	in.Facts.RootHashes["usr"] = strings.Repeat("ab", 32)
	_, err := Verity(in)
	var fault *Error
	if !errors.As(err, &fault) || fault.List != "verity" || fault.Name != "usr" || !strings.Contains(err.Error(), "the kernel arguments open it with root hash abab") {
		t.Errorf("%v", err)
	}
}
