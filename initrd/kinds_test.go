package initrd

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bare is a machine that has no program at all.
func bare(t *testing.T) *Machine {
	m, _ := testMachine(t)
	m.Programs = []string{t.TempDir()}
	return m
}

func TestPreflightNamesAllThatIsMissing(t *testing.T) {
	m := bare(t)
	err := m.Preflight([]Step{
		Tmpfiles{}, Sysusers{}, Sysusers{}, File{Path: "/f"}, MadeAnew{Step: Preset{}},
	})
	want := "this initrd lacks what the config needs: program systemctl\nprogram systemd-sysusers\nprogram systemd-tmpfiles"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}

	// The second of them is there now.
	program(t, m, "systemd-sysusers", "")
	if err := m.Preflight([]Step{Tmpfiles{}, Sysusers{}}); err == nil || strings.Contains(err.Error(), "sysusers") {
		t.Errorf("%v", err)
	}
	program(t, m, "systemd-tmpfiles", "")
	if err := m.Preflight([]Step{Tmpfiles{}, Sysusers{}, File{}, Link{}, Directory{}, Gone{}}); err != nil {
		t.Error(err)
	}
}

func TestPreflightWantsWhatTheDefinitionsFormat(t *testing.T) {
	m := bare(t)
	step := Repart{Definitions: []Definition{
		{"10.conf", []byte("[Partition]\nType=root\nFormat=ext4\n")},
		{"20.conf", []byte("[Partition]\nType=var\nFormat=xfs\n")},
		{"30.conf", []byte("[Partition]\nType=srv\n")},
	}}
	err := m.Preflight([]Step{step})
	if err == nil {
		t.Fatal("nothing is missing")
	}
	var programs []string
	for line := range strings.Lines(strings.TrimPrefix(err.Error(), "this initrd lacks what the config needs: ")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "program "); ok {
			programs = append(programs, name)
		}
	}
	if want := []string{"fsck.ext4", "mkfs.ext4", "mkfs.xfs", "systemd-repart"}; !slices.Equal(programs, want) {
		t.Errorf("%q, want %q", programs, want)
	}
}

// TestPreflightNamesModules compares with what this kernel says of itself: which
// modules a machine has that runs this test is not known.
func TestPreflightNamesModules(t *testing.T) {
	known, err := kernelModules()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := os.ReadDir("/sys/module")
	if err != nil || len(loaded) == 0 {
		t.Fatalf("%v %v", loaded, err)
	}
	for _, e := range loaded {
		if !known[e.Name()] {
			t.Errorf("%s is loaded, and not known", e.Name())
		}
	}
	m := bare(t)
	err = m.Preflight([]Step{Mount{}, Extend{}})
	if err == nil {
		t.Fatal("nothing is missing, and there is no program")
	}
	for _, name := range []string{"ext4", "erofs", "overlay", "tpm_tis", "tpm_crb"} {
		if strings.Contains(err.Error(), "kernel module "+name) == known[name] {
			t.Errorf("%s is known: %v, and what is missing: %v", name, known[name], err)
		}
	}
}

type stranger struct{ toy }

func TestPreflightRefusesAKindThatIsInNoTable(t *testing.T) {
	if err := bare(t).Preflight([]Step{stranger{}}); err == nil || !strings.Contains(err.Error(), "initrd.stranger is in no table") {
		t.Errorf("error %v", err)
	}
}

func TestKindsAreFoundByTheirStep(t *testing.T) {
	for _, k := range Kinds {
		got, err := KindOf(k.Step)
		if err != nil || !reflect.DeepEqual(got, k) {
			t.Errorf("%T: %+v %v", k.Step, got, err)
		}
		if !slices.IsSorted(k.Programs) && len(k.Programs) > 3 {
			t.Errorf("%T: %q", k.Step, k.Programs)
		}
	}
	if !slices.IsSortedFunc(Kinds[:], func(a, b Kind) int {
		return strings.Compare(reflect.TypeOf(a.Step).Name(), reflect.TypeOf(b.Step).Name())
	}) {
		t.Error("the table is not in alphabetical order")
	}
}

func TestDefinitionsAreReadAsSystemdReadsThem(t *testing.T) {
	const text = "# [Partition]\n; comment\n\n[Partition]\n  Type = root  \nLabel=first\nLabel=second\nMountPoint=\nFormat=ext4\nFormat=\n[Other]\nType=usr\n[Partition]\nSizeMinBytes=1G\nweird\n=x\n"
	for _, c := range []struct{ section, key, want string }{
		{"Partition", "Type", "root"},
		{"Partition", "Label", "second"},
		{"Partition", "MountPoint", ""},
		{"Partition", "Format", ""}, // an empty assignment takes back what was said
		{"Partition", "SizeMinBytes", "1G"},
		{"Partition", "type", ""}, // keys have a case
		{"Other", "Type", "usr"},
		{"Other", "Label", ""},
		{"Nowhere", "Type", ""},
	} {
		if got := (Definition{Contents: []byte(text)}).Value(c.section, c.key); got != c.want {
			t.Errorf("[%s] %s is %q, want %q", c.section, c.key, got, c.want)
		}
	}
	if got := (Definition{Contents: []byte("[Partition]\r\nType=root\r\n")}).Value("Partition", "Type"); got != "root" {
		t.Errorf("lines that end in CR LF: %q", got)
	}
	if got := (Definition{}).Value("Partition", "Type"); got != "" {
		t.Errorf("an empty file: %q", got)
	}
}

// TestQueriesAreAClosedList tries forms of programs that only read by the look of it.
func TestQueriesAreAClosedList(t *testing.T) {
	for _, argv := range []string{
		"systemctl start is-enabled",
		"systemctl --root=/sysroot enable is-enabled",
		"systemd-repart --dry-run=yes --dry-run no",
		"systemd-repart --dry-run=yes --dry=no",
		"systemd-repart --dry-run=no --dry-run=yes",
		"systemd-repart --dry-run=yes2",
		"dmsetup",
		"dmsetup --noheadings remove_all",
		"udevadm trigger",
		"udevadm control --exit",
		"systemd-creds encrypt - -",
		"systemd-creds decrypt a /etc/shadow",
		"systemd-analyze set-log-level debug", "systemd-analyze verify x.service",
		"sh -c true",
		" --dry-run=yes",
	} {
		words := strings.Split(argv, " ")
		if got, err := (Query{Program: words[0], Args: words[1:]}).Argv(); err == nil {
			t.Errorf("%q was let through", got)
		}
	}
	for _, argv := range []string{
		"systemctl is-enabled x.service", "systemd-repart --json=short --dry-run=yes /dev/x", "dmsetup table usr",
		"dmsetup status usr", "udevadm settle --timeout=60", "systemd-creds decrypt --name=x - -",
	} {
		words := strings.Split(argv, " ")
		got, err := (Query{Program: words[0], Args: words[1:]}).Argv()
		if err != nil || !slices.Equal(got, words) {
			t.Errorf("%q: %q %v", argv, got, err)
		}
	}
}

// TestAskIsPrivate gives a program files, and takes them away again.
func TestAskIsPrivate(t *testing.T) {
	m, _ := testMachine(t)
	program(t, m, "systemd-repart", `for a in "$@"; do case $a in --definitions=*) d=${a#*=};; esac; done
stat -c '%a' "$d" "$d/x.conf"; cat "$d/x.conf"`)
	q := Query{
		Program: "systemd-repart", Args: []string{"--dry-run=yes", "--definitions={files}"},
		Files: map[string][]byte{"x.conf": []byte("text")},
	}
	out, err := (look{t.Context(), m}).Ask(q)
	if err != nil || string(out) != "700\n600\ntext" {
		t.Errorf("%q %v", out, err)
	}
	for _, name := range []string{"../x", "a/b", "."} {
		q.Files = map[string][]byte{name: nil}
		if _, err := (look{t.Context(), m}).Ask(q); err == nil {
			t.Errorf("a file %q was written", name)
		}
	}
	if left, _ := os.ReadDir(m.Run); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(m.Run), "x")); err == nil {
		t.Error("a file was written outside")
	}
}
