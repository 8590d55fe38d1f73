package initrd

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/initrd/disk"
)

// partitioned is the real host, but for one disk with a table of the test's own.
type partitioned struct {
	*Machine
	table *disk.Table
}

func (p partitioned) Look(ctx context.Context) Look {
	return tabled{oneDisk{look{ctx, p.Machine}, "/dev/x"}, p.table}
}

type tabled struct {
	oneDisk
	table *disk.Table
}

func (t tabled) Table(disk.Disk) (*disk.Table, error) {
	if t.table == nil {
		return nil, disk.ErrNoTable
	}
	return t.table, nil
}

func guid(t *testing.T, s string) disk.GUID {
	t.Helper()
	g, err := disk.ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

const varUUID = "0b7c9f7e-39a2-4a50-9b3c-4c1d2e3f4a5b"

// varAt wishes /var from the one partition of type var.
func varAt(t *testing.T, where string) Mount {
	t.Helper()
	kind, err := disk.TypeByName("var")
	if err != nil {
		t.Fatal(err)
	}
	return Mount{What: Source{Disk: Selector{Device: "/dev/x"}, Type: kind}, Where: where, Type: "ext4", Check: true}
}

func tableWithVar(t *testing.T) *disk.Table {
	v := varAt(t, "")
	return &disk.Table{Partitions: []disk.Partition{{Number: 1, Type: v.What.Type, UUID: guid(t, varUUID), Node: "/dev/x1"}}}
}

func TestFstab(t *testing.T) {
	verity := func(where string) Mount {
		return Mount{What: Source{Path: "/dev/mapper/data"}, Where: where, Options: []string{"ro"}}
	}
	const varLine = "PARTUUID=" + varUUID + " /var ext4 defaults 0 2\n"
	for name, c := range map[string]struct {
		before string
		mounts func(root string) []Mount
		after  string
	}{
		"none yet": {
			"", func(r string) []Mount { return []Mount{varAt(t, r+"/var")} }, varLine,
		},
		"others stay": {
			"# static\nUUID=1 / ext4 defaults 0 1\n", func(r string) []Mount { return []Mount{varAt(t, r+"/var")} },
			"# static\nUUID=1 / ext4 defaults 0 1\n" + varLine,
		},
		"no newline at the end": {
			"UUID=1 / ext4 defaults 0 1", func(r string) []Mount { return []Mount{varAt(t, r+"/var")} },
			"UUID=1 / ext4 defaults 0 1\n" + varLine,
		},
		"somebody's decision": {
			"LABEL=mine /var/ xfs noatime 0 0\n", func(r string) []Mount { return []Mount{varAt(t, r+"/var")} },
			"LABEL=mine /var/ xfs noatime 0 0\n",
		},
		"a comment is no decision": {
			"#LABEL=mine /var xfs noatime 0 0\n", func(r string) []Mount { return []Mount{varAt(t, r+"/var")} },
			"#LABEL=mine /var xfs noatime 0 0\n" + varLine,
		},
		"several, some there": {
			"x /var ext4 defaults 0 0\n", func(r string) []Mount { return []Mount{varAt(t, r+"/var"), verity(r + "/opt/data")} },
			"x /var ext4 defaults 0 0\n/dev/mapper/data /opt/data auto ro 0 0\n",
		},
		"a space in the path": {
			`y /srv\040x ext4 defaults 0 0` + "\n", func(r string) []Mount { return []Mount{verity(r + "/srv x"), verity(r + `/a b\c`)} },
			`y /srv\040x ext4 defaults 0 0` + "\n" + `/dev/mapper/data /a\040b\134c auto ro 0 0` + "\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, root := testMachine(t)
			if c.before != "" {
				write(t, filepath.Join(root, "etc/fstab"), c.before)
			}
			host := partitioned{m, tableWithVar(t)}
			step := Fstab{Root: root, Mounts: c.mounts(root)}
			out, err := Run(t.Context(), host, []Step{step}, Apply, nil)
			if err != nil {
				t.Fatal(err)
			}
			if out[0].Changed != (c.before != c.after) {
				t.Errorf("%+v", out[0])
			}
			if got := contentOf(t, filepath.Join(root, "etc/fstab")); got != c.after {
				t.Errorf("%q, want %q", got, c.after)
			}
		})
	}
}

func TestFstabWaitsForItsPartition(t *testing.T) {
	m, root := testMachine(t)
	step := Fstab{Root: root, Mounts: []Mount{varAt(t, root+"/var")}}
	for name, table := range map[string]*disk.Table{"no table": nil, "no partition": {}} {
		state, act, err := step.Resolve(partitioned{m, table}.Look(t.Context()))
		if state != After || act != nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v %v %v", name, state, act, err)
		}
	}
	// What is there must be read, not guessed.
	if err := mkfifo(filepath.Join(root, "pipe")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/fstab/is-a-directory"), "")
	if state, _, err := step.Resolve(partitioned{m, tableWithVar(t)}.Look(t.Context())); state != unresolved || err == nil {
		t.Errorf("%v %v", state, err)
	}
}

func TestFstabSaysWhichMounts(t *testing.T) {
	f := Fstab{Root: "/sysroot", Mounts: []Mount{{Where: "/sysroot/var"}, {Where: "/sysroot/srv/a"}}}
	if got := f.String(); got != "entries in /etc/fstab for /var, /srv/a" {
		t.Errorf("%q", got)
	}
	if got := strings.Join(f.Touches(), " "); got != "/sysroot/etc/fstab disks" {
		t.Errorf("%q", got)
	}
}
