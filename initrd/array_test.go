package initrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// arraySite is a machine whose kernel knows of no arrays. A stand-in for mdadm keeps superblocks, and what runs, as
// files; a host of the test shows them as /proc/mdstat.
type arraySite struct {
	*Machine
	t   *testing.T
	dir string // below /dev, as an array's name may be
}

type arrayLook struct {
	look
	dir string
}

func (l arrayLook) Open(root, name string) (io.ReadCloser, error) {
	if name == "/proc/mdstat" {
		return os.Open(filepath.Join(l.dir, "mdstat"))
	}
	return l.look.Open(root, name)
}

func (l arrayLook) Superblock(node string) (disk.Superblock, error) {
	if data, err := os.ReadFile(node + ".content"); err == nil {
		return disk.Superblock{Type: string(data)}, nil
	}
	if _, err := os.Stat(node + ".superblock"); err == nil {
		return disk.Superblock{Type: "linux_raid_member"}, nil
	}
	return disk.Superblock{}, nil
}

func (s *arraySite) Look(ctx context.Context) Look { return arrayLook{look{ctx, s.Machine}, s.dir} }

const mdadmStandIn = `
dir=%[1]s
echo "$*" >> $dir/log
verb=$1; shift
case $verb in
--create|--assemble) name=$1; shift; spares=0; nodes=
	while [ $# -gt 0 ]; do
		case $1 in
		--force|--run) ;;
		--homehost|--bitmap) shift ;;
		--level) level=$2; shift ;;
		--raid-devices) count=$2; shift ;;
		--spare-devices) spares=$2; shift ;;
		--uuid) uuid=$2; shift ;;
		*) nodes="$nodes $1" ;;
		esac
		shift
	done
	members=; n=0
	for d in $nodes; do
		if [ $verb = --create ]; then
			n=$((n + 1))
			if [ "$n" = "$(cat $dir/cut 2>/dev/null)" ]; then exit 99; fi
			printf 'MD_LEVEL=%%s\nMD_DEVICES=%%s\nMD_NAME=any:%%s\nMD_UUID=%%s\n' raid${level#raid} $count $(basename $name) $uuid > $d.superblock
		fi
		cp $d.superblock $dir/detail
		members="$members $(basename $d)[0]"
	done
	if [ "$(cat $dir/cut 2>/dev/null)" = half ]; then
		set -- $members
		echo "md127 : inactive $1" > $dir/mdstat
		exit 99
	fi
	echo "md127 : active raid1$members" > $dir/mdstat
	: > $name ;;
--detail) cat $dir/detail ;;
--examine) cat $2.superblock 2>/dev/null || exit 1 ;;
--stop) : > $dir/mdstat ;;
esac
`

func newArraySite(t *testing.T) *arraySite {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pilotlight-array-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"a", "b", "c"} {
		write(t, filepath.Join(dir, name), "")
	}
	s := &arraySite{t: t, dir: dir}
	s.boot()
	return s
}

// boot is another process, after which nothing runs.
func (s *arraySite) boot() {
	s.t.Helper()
	m, err := NewMachine(s.t.TempDir(), &resource.Client{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { m.Close() })
	m.Wait = 0
	program(s.t, m, "mdadm", fmt.Sprintf(mdadmStandIn, s.dir))
	s.Machine = m
	for _, name := range []string{"mdstat", "log"} {
		write(s.t, filepath.Join(s.dir, name), "")
	}
	os.Remove(filepath.Join(s.dir, "data"))
}

func (s *arraySite) wish() Array {
	return Array{
		Name: filepath.Join(s.dir, "data"), Level: "raid1", Devices: []string{filepath.Join(s.dir, "a"), filepath.Join(s.dir, "b")}, Provision: "p",
	}
}

func (s *arraySite) deeds(a Array) []string {
	s.t.Helper()
	out, err := Run(s.t.Context(), s, []Step{a}, Apply, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if out[0].Deed == "" {
		return nil
	}
	return []string{strings.Fields(out[0].Deed)[0]}
}

func (s *arraySite) log() string {
	s.t.Helper()
	return contentOf(s.t, filepath.Join(s.dir, "log"))
}

func TestArrayIsMadeOnce(t *testing.T) {
	s := newArraySite(t)
	if got := s.deeds(s.wish()); !slices.Equal(got, []string{"make"}) {
		t.Errorf("%q", got)
	}
	if got := s.deeds(s.wish()); got != nil {
		t.Errorf("again: %q", got)
	}
	s.boot()
	if got := s.deeds(s.wish()); !slices.Equal(got, []string{"put"}) {
		t.Errorf("after a reboot: %q", got)
	}
	if strings.Contains(s.log(), "--create") {
		t.Errorf("made again\n%s", s.log())
	}
	s.boot()
	other := s.wish()
	other.Provision = "q"
	m := s.Look(t.Context())
	_, act, err := other.Resolve(m)
	if err != nil {
		t.Fatal(err)
	}
	if effect, lost := act.(Affecting).Effect(); effect != Destroys || len(lost) != 2 {
		t.Errorf("%v %q", effect, lost)
	}
}

// TestArrayKilled while superblocks are written, and while the kernel is told.
func TestArrayKilled(t *testing.T) {
	for _, cut := range []string{"1", "2", "half"} {
		for _, reboot := range []bool{false, true} {
			s := newArraySite(t)
			write(t, filepath.Join(s.dir, "cut"), cut)
			if _, err := Run(t.Context(), s, []Step{s.wish()}, Apply, nil); err == nil {
				t.Fatal("nothing failed")
			}
			if err := os.Remove(filepath.Join(s.dir, "cut")); err != nil {
				t.Fatal(err)
			}
			if reboot {
				s.boot()
			}
			got := s.deeds(s.wish())
			want := "make"
			if cut == "half" {
				want = "put"
			}
			if !slices.Equal(got, []string{want}) {
				t.Errorf("cut %s, reboot %v: %q", cut, reboot, got)
			}
			if got := strings.Contains(s.log(), "--stop /dev/md127"); got != (cut == "half" && !reboot) {
				t.Errorf("cut %s, reboot %v: stopped: %v", cut, reboot, got)
			}
			if got := s.deeds(s.wish()); got != nil {
				t.Errorf("again: %q", got)
			}
		}
	}
}

func TestArrayLeavesWhatRunsAlone(t *testing.T) {
	for name, c := range map[string]struct{ mdstat, detail, err string }{
		"another name":           {"md5 : active raid1 a[0] b[1]\n", "MD_NAME=any:other\nMD_LEVEL=raid1\nMD_DEVICES=2\n", `the array "other" on a, b`},
		"with a stranger":        {"md5 : active raid1 a[0] x[1]\n", "MD_NAME=any:data\nMD_LEVEL=raid1\nMD_DEVICES=2\n", "has devices of it"},
		"another level":          {"md5 : active raid0 a[0] b[1]\n", "MD_NAME=any:data\nMD_LEVEL=raid0\nMD_DEVICES=2\n", "is another: level raid0"},
		"two of them":            {"md5 : inactive a[0]\nmd6 : inactive b[0]\n", "MD_NAME=any:data\n", "are both upon devices of it"},
		"without a name":         {"md5 : active raid1 a[0] b[1]\n", "MD_LEVEL=raid1\nMD_DEVICES=2\nMD_UUID=OURS\n", ""},
		"of somebody else":       {"md5 : active raid1 x[0] y[1]\n", "", ""},
		"the same, of another's": {"md5 : active raid1 a[0] b[1]\n", "MD_NAME=host:data\nMD_LEVEL=raid1\nMD_DEVICES=2\nMD_UUID=1:2:3:4\n", ""},
	} {
		s := newArraySite(t)
		write(t, filepath.Join(s.dir, "mdstat"), c.mdstat)
		write(t, filepath.Join(s.dir, "detail"), strings.ReplaceAll(c.detail, "OURS", s.wish().uuid()))
		write(t, filepath.Join(s.dir, "data"), "")
		_, act, err := s.wish().Resolve(s.Look(t.Context()))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || act != nil && name != "of somebody else" {
			t.Errorf("%s: %v %v", name, act, err)
		}
		if strings.Contains(s.log(), "--stop") || strings.Contains(s.log(), "--create") {
			t.Errorf("%s: %s", name, s.log())
		}
	}
}

func TestArrayTellsWhatIsLost(t *testing.T) {
	s := newArraySite(t)
	write(t, filepath.Join(s.dir, "b.content"), "ext4")
	_, act, err := s.wish().Resolve(s.Look(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if effect, lost := act.(Affecting).Effect(); effect != Destroys || !slices.Equal(lost, []string{"ext4 on " + filepath.Join(s.dir, "b")}) {
		t.Errorf("%v %q", effect, lost)
	}
}

// TestArrayOfALaterBoot is only put together, also with a disk less.
func TestArrayOfALaterBoot(t *testing.T) {
	s := newArraySite(t)
	a := s.wish()
	s.deeds(a)
	if err := os.Remove(filepath.Join(s.dir, "b")); err != nil {
		t.Fatal(err)
	}
	s.boot()
	if _, err := Run(t.Context(), s, []Step{a}, Apply, nil); !errors.Is(err, ErrStillAfter) {
		t.Errorf("%v", err)
	}
	a.There = true
	if got := s.deeds(a); !slices.Equal(got, []string{"put"}) {
		t.Errorf("%q", got)
	}
	if got := s.deeds(a); got != nil {
		t.Errorf("again: %q", got)
	}
	// One that was used as it was found.
	s.boot()
	write(t, filepath.Join(s.dir, "a.superblock"), "MD_NAME=host:data\nMD_LEVEL=raid1\nMD_DEVICES=2\nMD_UUID=1:2:3:4\n")
	if got := s.deeds(a); !slices.Equal(got, []string{"put"}) || !strings.Contains(s.log(), "--uuid 1:2:3:4 ") {
		t.Errorf("%q\n%s", got, s.log())
	}
	s.boot()
	if err := os.Remove(filepath.Join(s.dir, "a.superblock")); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), s, []Step{a}, Apply, nil); err == nil || !strings.Contains(err.Error(), "none of its devices") {
		t.Errorf("%v", err)
	}
}

func TestArrayArgv(t *testing.T) {
	a := Array{Name: "data", Level: "raid5", Devices: []string{"/dev/a", "/dev/b", "/dev/c", "/dev/d"}, Spares: 1, Options: []string{"--chunk", "64"}, Provision: "p"}
	nodes := []string{"/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sdd"}
	want := "mdadm --create data --force --run --homehost any --level raid5 --raid-devices 3 --spare-devices 1 --chunk 64 --uuid " + a.uuid() + " /dev/sda /dev/sdb /dev/sdc /dev/sdd"
	if got := strings.Join(makeArray{Array: a, nodes: nodes}.argv(), " "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	b := a
	b.Options = []string{"--uuid=01234567:89ABCDEF:01234567:89abcdef"}
	if got := strings.Join(makeArray{Array: b, nodes: nodes}.argv(), " "); strings.Count(got, "--uuid") != 1 || b.uuid() != "01234567:89abcdef:01234567:89abcdef" {
		t.Errorf("%s %s", got, b.uuid())
	}
	if got := strings.Join(assemble{Array: a, nodes: nodes[:2], uuid: a.uuid()}.argv(), " "); got != "mdadm --assemble /dev/md/data --run --uuid "+a.uuid()+" /dev/sda /dev/sdb" {
		t.Error(got)
	}
	if a.uuid() == b.uuid() || len(a.uuid()) != 35 {
		t.Error(a.uuid())
	}
	for level, module := range map[string]string{"0": "raid0", "stripe": "raid0", "mirror": "raid1", "6": "raid456", "raid10": "raid10", "linear": "linear"} {
		programs, modules := Array{Level: level}.Needs()
		if !slices.Equal(programs, []string{"mdadm"}) || !slices.Contains(modules, module) {
			t.Errorf("%s: %q %q", level, programs, modules)
		}
	}
	for level, kernel := range map[string]string{"0": "raid0", "stripe": "raid0", "mirror": "raid1", "10": "raid10", "raid6": "raid6", "linear": "linear"} {
		if got := (Array{Level: level}).level(); got != kernel {
			t.Errorf("%s: %s", level, got)
		}
	}
}

func TestMdstat(t *testing.T) {
	got := parseMdstat("Personalities : [raid1]\nmd127 : active (auto-read-only) raid1 vdc[1] vdb[0]\n      65472 blocks super 1.2 [2/2] [UU]\n\nmd126 : inactive vdd[1](S)\nunused devices: <none>\n")
	if len(got) != 2 || !got[0].active || !slices.Equal(got[0].members, []string{"vdc", "vdb"}) || got[1].active || !got[1].has("/dev/vdd") || got[1].node() != "/dev/md126" {
		t.Errorf("%+v", got)
	}
}
