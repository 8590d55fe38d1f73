package initrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

func mkfifo(name string) error { return unix.Mkfifo(name, 0o600) }

// program puts a shell script in the place of a program.
func program(t *testing.T, m *Machine, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Programs = append([]string{dir}, m.Programs...)
}

func TestProgramErrorSaysWhatWasSaid(t *testing.T) {
	m, _ := testMachine(t)
	program(t, m, "broken", "echo one >&2; echo two >&2; exit 3")
	_, _, err := m.run(t.Context(), Program{Argv: []string{"broken"}})
	var p *ProgramError
	if !errors.As(err, &p) || p.Code != 3 || err.Error() != "broken: exit 3: one; two" {
		t.Fatalf("error %v", err)
	}
	if _, _, err := m.run(t.Context(), Program{Argv: []string{"broken"}, OK: []int{3}}); err != nil {
		t.Errorf("an exit code that is a success: %v", err)
	}
	if _, _, err := m.run(t.Context(), Program{Argv: []string{"no-such-program"}}); !errors.As(err, &p) || !strings.Contains(err.Error(), "is in none of") {
		t.Errorf("error %v", err)
	}
}

func TestQuietProgramsQuoteNothing(t *testing.T) {
	m, _ := testMachine(t)
	program(t, m, "gossip", `echo "a.conf:1: Failed to parse UID: 'canary'" >&2; echo 'unknown "canary" and an open '"'"'canary' >&2; exit 1`)
	_, said, err := m.run(t.Context(), Program{Argv: []string{"gossip"}, Quiet: true})
	if err == nil || strings.Contains(err.Error()+said, "canary") || !strings.Contains(err.Error(), "a.conf:1: Failed to parse UID: '…'") {
		t.Errorf("error %v, said %q", err, said)
	}
}

func TestProgramGetsNoEnvironmentOfOurs(t *testing.T) {
	m, _ := testMachine(t)
	t.Setenv("SECRET_OF_OURS", "x")
	program(t, m, "env-of", "env")
	out, _, err := m.run(t.Context(), Program{Argv: []string{"env-of"}, Env: []string{"GIVEN=1"}})
	if err != nil || strings.Contains(string(out), "SECRET_OF_OURS") || !strings.Contains(string(out), "GIVEN=1") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestProgramEndsWithItsContext(t *testing.T) {
	m, _ := testMachine(t)
	program(t, m, "forever", "exec sleep 600")
	over := errors.New("over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, over)
	defer cancel()
	if _, _, err := m.run(ctx, Program{Argv: []string{"forever"}}); !errors.Is(err, over) {
		t.Fatalf("error %v", err)
	}
}

func TestOnlyReadersAreAsked(t *testing.T) {
	for _, q := range []Query{
		{Program: "rm", Args: []string{"-rf"}},
		{Program: "systemd-repart", Args: []string{"--dry-run=no"}},
		{Program: "systemd-repart"},
		{Program: "systemd-repart", Args: []string{"--dry-run=yes", "--dry-run=no"}},
		{Program: "dmsetup", Args: []string{"remove", "usr"}},
		{Program: "systemctl", Args: []string{"start", "x"}},
		{Program: "systemd-creds", Args: []string{"decrypt", "a", "b"}},
	} {
		if argv, err := q.Argv(); err == nil {
			t.Errorf("%v was let through", argv)
		}
	}
	if _, err := (Query{Program: "systemd-repart", Args: []string{"--dry-run=yes", "/dev/vda"}}).Argv(); err != nil {
		t.Error(err)
	}
}

// disks lets a machine see one disk by its path, without any sysfs.
type oneDisk struct {
	look
	node string
}

func (o oneDisk) Disk(Selector) (disk.Disk, error) {
	return disk.Disk{Node: o.node, Serial: "S1"}, nil
}

func (o oneDisk) Table(disk.Disk) (*disk.Table, error) { return nil, disk.ErrNoTable }

func TestRepartAsksAndThenWrites(t *testing.T) {
	m, _ := testMachine(t)
	log := filepath.Join(t.TempDir(), "log")
	// The first dry run would create; the next, after the real run, has nothing to do.
	program(t, m, "systemd-repart", fmt.Sprintf(`
echo "$@" >> %[1]s
for a in "$@"; do case $a in --definitions=*) cat "${a#--definitions=}"/* >> %[1]s;; esac; done
case "$*" in
*--dry-run=no*) touch %[1]s.done;;
esac
if [ -e %[1]s.done ]; then a=unchanged; else a=create; fi
echo '[{"type":"root-x86-64","label":"root","uuid":"x","node":"/dev/x1","activity":"'$a'"}]'
`, log))
	step := Repart{
		Name: "main", On: Selector{Device: "/dev/x"}, Empty: "allow", Provision: "p",
		Definitions: []Definition{{"10-root.conf", []byte("[Partition]\nType=root\n")}},
	}
	l := oneDisk{look{t.Context(), m}, "/dev/x"}
	state, act, err := step.Resolve(l)
	if err != nil || state != NotSo || act.String() != "repartition /dev/x: create root" {
		t.Fatalf("%v %v %v", state, act, err)
	}
	if err := act.do(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if state, _, err := step.Resolve(l); state != So || err != nil {
		t.Fatalf("afterwards: %v %v", state, err)
	}
	said := contentOf(t, log)
	if !strings.Contains(said, "Type=root") || strings.Count(said, "--dry-run=no") != 1 || !strings.Contains(said, "--empty=allow") {
		t.Error(said)
	}
	if left, _ := os.ReadDir(m.Run); len(left) != 0 {
		t.Errorf("left behind in the run directory: %v", left)
	}
}

func TestRepartSeedFollowsFromDiskNameAndProvision(t *testing.T) {
	d := disk.Disk{Serial: "a"}
	r := Repart{Name: "main", Provision: "p"}
	same := r.seed(d)
	if _, err := disk.ParseGUID(same); err != nil || same != r.seed(d) {
		t.Errorf("seed %q: %v", same, err)
	}
	others := []string{Repart{Name: "x", Provision: "p"}.seed(d), Repart{Name: "main", Provision: "q"}.seed(d), r.seed(disk.Disk{Serial: "b"})}
	if slices.Contains(others, same) {
		t.Error("another disk, name or provision id gives the same seed")
	}
	if got := (Repart{Seed: "s"}).seed(d); got != "s" {
		t.Errorf("seed of the config: %q", got)
	}
}

func TestRepartThatErasesDoesSoOnce(t *testing.T) {
	m, _ := testMachine(t)
	log := filepath.Join(t.TempDir(), "log")
	program(t, m, "systemd-repart", fmt.Sprintf(`echo "$@" >> %s; echo '[]'`, log))
	step := Repart{Name: "main", On: Selector{Device: "/dev/x"}, Empty: "force", FactoryReset: true, Provision: "p"}
	l := oneDisk{look{t.Context(), m}, "/dev/x"}
	_, act, err := step.Resolve(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"ERASING all", "ERASING the partitions"} {
		if !strings.Contains(act.String(), word) {
			t.Errorf("the plan does not say %q: %s", word, act)
		}
	}
	if err := act.do(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	state, _, err := step.Resolve(l)
	if state != So || err != nil {
		t.Fatalf("%v %v", state, err)
	}
	lines := strings.Split(strings.TrimSpace(contentOf(t, log)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "--empty=force") || strings.Contains(lines[1], "force") || strings.Contains(lines[1], "factory-reset") {
		t.Errorf("%q", lines)
	}
}

func TestRepartExitCodesInPlainWords(t *testing.T) {
	for code, word := range map[int]string{76: "no root block device", 77: "emptiness"} {
		err := noRoom(&ProgramError{Name: "systemd-repart", Code: code})
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%d: %v", code, err)
		}
	}
}

func TestVerityTable(t *testing.T) {
	const hash = "4be1d2f0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c"
	line := "0 204800 verity 1 254:2 254:3 4096 4096 25600 1 sha256 " + hash + " deadbeef 1 restart_on_corruption\n"
	if got, err := tableRootHash(line); got != hash || err != nil {
		t.Errorf("%q %v", got, err)
	}
	for _, bad := range []string{"", "0 8 linear 8:1 0", "0 8 verity 1 2"} {
		if _, err := tableRootHash(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	data, hashUUID, err := VerityUUIDs(hash)
	if err != nil || data.String() != "4be1d2f0-a1b2-c3d4-e5f6-0718293a4b5c" || hashUUID.String() != "6d7e8f90-a1b2-c3d4-e5f6-0718293a4b5c" {
		t.Errorf("%s %s %v", data, hashUUID, err)
	}
	if _, _, err := VerityUUIDs("abc"); err == nil {
		t.Error("a short root hash was taken")
	}
	a := attach{Verity{Name: "usr", RootHash: hash, Options: []string{"restart-on-corruption"}}}
	want := []string{"systemd-veritysetup", "attach", "usr", "D", "H", hash, "restart-on-corruption,root-hash-signature=S"}
	if got := a.argv("D", "H", "S"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestMountinfo(t *testing.T) {
	mounts, options, err := parseMountinfo(strings.NewReader(
		"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
			`37 35 0:44 / /with\040space ro - overlay overlay rw,upperdir=/run/up` + "\n"))
	if err != nil || len(mounts) != 2 {
		t.Fatalf("%v %v", mounts, err)
	}
	if m := mounts[0]; m.Where != "/mnt2" || m.Type != "ext3" || m.Source != "/dev/root" || m.Major != 98 || m.ReadOnly {
		t.Errorf("%+v", m)
	}
	if m := mounts[1]; m.Where != "/with space" || !m.ReadOnly || options[1] != "rw,upperdir=/run/up" {
		t.Errorf("%+v", m)
	}
	for _, bad := range []string{"x", "1 2 3 4", "36 35 98 /mnt1 /mnt2 rw - ext3 a rw"} {
		if _, _, err := parseMountinfo(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestWaitIsBoundedAndTold(t *testing.T) {
	m, _ := testMachine(t)
	m.Wait = 30 * time.Millisecond
	calls := 0
	_, err := waitFor(t.Context(), m, "godot", func() (int, error) { calls++; return 0, os.ErrNotExist })
	if err == nil || !strings.Contains(err.Error(), "godot") || calls < 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
	other := errors.New("other")
	if _, err := waitFor(t.Context(), m, "x", func() (int, error) { return 0, other }); err != other {
		t.Errorf("an error that is not absence was waited for: %v", err)
	}
}

func TestDefinitionValue(t *testing.T) {
	d := Definition{Contents: []byte("# c\n[Partition]\nType = root\nType=usr\n[Other]\nType=x\n")}
	if got := d.Value("Partition", "Type"); got != "usr" {
		t.Errorf("%q", got)
	}
	if got := d.Value("Partition", "Label"); got != "" {
		t.Errorf("%q", got)
	}
}
