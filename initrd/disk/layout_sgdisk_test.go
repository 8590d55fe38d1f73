package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// The judge of Arrange is sgdisk, asked as Ignition asks it: once to pretend that all
// that is wanted is deleted and made again, and once for what has to change.

// bySgdisk carries out what is wanted on the disk at path. Not every refusal of
// Ignition's is repeated here: only what concerns free space, and the reuse table.
func bySgdisk(t *testing.T, path string, table *Table, wanted []Wanted) error {
	t.Helper()
	per := mib / table.SectorSize
	type part struct {
		Wanted
		start, size *int
	}
	sectors := func(n *int) *int {
		if n == nil {
			return nil
		}
		v := *n * per
		return &v
	}
	var parts []part
	for _, w := range wanted {
		if w.Number != 0 {
			parts = append(parts, part{w, sectors(w.StartMiB), sectors(w.SizeMiB)})
		}
	}
	for _, w := range wanted {
		if w.Number == 0 {
			parts = append(parts, part{w, sectors(w.StartMiB), sectors(w.SizeMiB)})
		}
	}
	there := func(n int) *Partition {
		if i := slices.IndexFunc(table.Partitions, func(p Partition) bool { return p.Number == n }); i >= 0 {
			return &table.Partitions[i]
		}
		return nil
	}
	word := func(n *int) string {
		if n == nil {
			return "0"
		}
		return strconv.Itoa(*n)
	}
	create := func(p part) []string {
		args := []string{fmt.Sprintf("--new=%d:%s:+%s", p.Number, word(p.start), word(p.size))}
		if p.Label != nil {
			args = append(args, fmt.Sprintf("--change-name=%d:%s", p.Number, *p.Label))
		}
		if !p.Type.IsZero() {
			args = append(args, fmt.Sprintf("--typecode=%d:%s", p.Number, p.Type))
		}
		if !p.UUID.IsZero() {
			args = append(args, fmt.Sprintf("--partition-guid=%d:%s", p.Number, p.UUID))
		}
		return args
	}

	pretend, makes, infos := []string{"--pretend"}, []string(nil), []string(nil)
	var asked []int
	for i, p := range parts {
		if have := there(p.Number); have != nil {
			pretend = append(pretend, fmt.Sprintf("--delete=%d", p.Number))
			first, size := int(have.First), int(have.Sectors())
			if p.start == nil && !p.WipeEntry {
				p.start = &first
			}
			if p.size == nil && !p.WipeEntry {
				p.size = &size
			}
		}
		if !p.Absent {
			p.Label = nil
			makes = append(makes, create(p)...)
		}
		if p := parts[i]; p.Number != 0 && (p.start != nil && *p.start == 0 || p.size != nil && *p.size == 0) {
			infos = append(infos, fmt.Sprintf("--info=%d", p.Number))
			asked = append(asked, i)
		}
	}
	out, err := exec.Command("sgdisk", append(slices.Concat(pretend, makes, infos), path)...).Output()
	if err != nil {
		return fmt.Errorf("pretending: %w", err)
	}
	found := regexp.MustCompile(`(?m)^(?:First|Last) sector: (\d+) `).FindAllStringSubmatch(string(out), -1)
	if len(found) != 2*len(asked) {
		t.Fatalf("sgdisk says %s", out)
	}
	for k, i := range asked {
		first, err1 := strconv.Atoi(found[2*k][1])
		last, err2 := strconv.Atoi(found[2*k+1][1])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if size := last - first + 1; parts[i].size != nil {
			parts[i].size = &size
		}
		if parts[i].start != nil {
			parts[i].start = &first
		}
	}

	var deletes, commit []string
	for _, p := range parts {
		have := there(p.Number)
		common := have != nil && (p.start == nil || *p.start == int(have.First)) && (p.UUID.IsZero() || p.UUID == have.UUID) &&
			(p.Type.IsZero() || p.Type == have.Type) && (p.Label == nil || *p.Label == have.Name)
		matches := common && (p.size == nil || *p.size == int(have.Sectors()))
		remove := fmt.Sprintf("--delete=%d", p.Number)
		switch {
		case have == nil && p.Absent:
		case have == nil:
			commit = append(commit, create(p)...)
		case p.Absent && !p.WipeEntry:
			return errors.New("it is there")
		case p.Absent:
			deletes = append(deletes, remove)
		case matches:
		case p.WipeEntry:
			deletes, commit = append(deletes, remove), append(commit, create(p)...)
		case p.Resize && common:
			first := int(have.First)
			p.start, p.Label, p.Type, p.UUID = &first, &have.Name, have.Type, have.UUID
			deletes, commit = append(deletes, remove), append(commit, create(p)...)
		default:
			return errors.New("it does not match")
		}
	}
	if len(deletes)+len(commit) == 0 {
		return nil
	}
	return exec.Command("sgdisk", append(slices.Concat(deletes, commit), path)...).Run()
}

// TestArrangeIsWhatSgdiskDoes compares, on random disks, what Arrange and WriteTable
// make with what sgdisk makes, and has sgdisk and sfdisk verify ours. sgdisk waits for a
// second after it has written, and many of them can wait at once.
func TestArrangeIsWhatSgdiskDoes(t *testing.T) {
	const size, shards = 64 << 20, 20
	for _, sector := range []int{512, 4096} {
		t.Run(strconv.Itoa(sector), func(t *testing.T) {
			var wait sync.WaitGroup
			var same, refused atomic.Int32
			cases := 15
			if sector != 512 {
				cases = 5
			}
			for shard := range shards {
				ours, theirs := newImage(t, size), newImage(t, size)
				if sector != 512 {
					ours, theirs = attach(t, ours, sector), attach(t, theirs, sector)
				}
				wait.Go(func() {
					for seed := shard * cases; seed < (shard+1)*cases && !t.Failed(); seed++ {
						if likeSgdisk(t, ours, theirs, size, sector, uint64(seed)) {
							same.Add(1)
						} else {
							refused.Add(1)
						}
					}
				})
			}
			wait.Wait()
			t.Logf("%d the same, %d refused by both", same.Load(), refused.Load())
			if least := int32(shards * cases / 4); same.Load() < least || refused.Load() < least/2 {
				t.Error("too few were possible, or impossible")
			}
		})
	}
}

// likeSgdisk says whether what is wanted was possible.
func likeSgdisk(t *testing.T, ours, theirs string, size int64, sector int, seed uint64) bool {
	r := rand.New(rand.NewPCG(seed, uint64(sector)))
	table := randomTable(t, r, size, sector)
	wanted := randomWanted(r, table, size)
	for _, path := range []string{ours, theirs} {
		wipeAndWrite(t, path, size, sector, table)
	}
	layout, mine := Arrange(table, size, wanted, func() (GUID, error) { return randomGUID(r), nil })
	their := bySgdisk(t, theirs, table, wanted)
	if (mine == nil) != (their == nil) {
		t.Errorf("seed %d: we say %v, sgdisk %v\n%s%+v", seed, mine, their, describe(wanted), table)
		return false
	}
	if mine != nil {
		return false
	}
	f := openDevice(t, ours, size, sector)
	if err := WriteTable(f, layout.Table); err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return false
	}
	got, want := bySfdisk(t, ours), bySfdisk(t, theirs)
	if text, expected := geometry(got, wanted), geometry(want, wanted); text != expected {
		t.Errorf("seed %d\n%s%s\nours   %s\ntheirs %s", seed, describe(wanted), geometry(table, nil), text, expected)
	}
	verify(t, ours)
	again, err := readFile(t, ours, size, sector)
	if err != nil {
		t.Error(err)
		return false
	}
	settled(t, again, size, wanted, fmt.Sprintf("seed %d", seed))
	return true
}

// settled says that what is wanted is so: there is nothing left to do.
func settled(t *testing.T, table *Table, size int64, wanted []Wanted, what string) {
	t.Helper()
	forms := [][]Wanted{Afterwards(table, wanted)}
	if !Once(wanted) {
		forms = append(forms, wanted)
	}
	for _, form := range forms {
		l, err := Arrange(table, size, form, func() (GUID, error) { return GUID{}, errors.New("no UUID is needed") })
		if err != nil || len(l.Changes) > 0 {
			t.Fatalf("%s: not settled: %+v %v\n%s%s", what, l, err, describe(form), geometry(table, nil))
		}
	}
}

// geometry is what two tables must have in common. Attributes of a partition that was
// resized are kept by us alone.
func geometry(table *Table, wanted []Wanted) string {
	var b strings.Builder
	for _, p := range table.Partitions {
		uuid := ""
		if slices.ContainsFunc(wanted, func(w Wanted) bool { return w.UUID == p.UUID }) {
			uuid = p.UUID.String()
		}
		fmt.Fprintf(&b, "%d:%d-%d %q %s %s; ", p.Number, p.First, p.Last, p.Name, p.Type, uuid)
	}
	return b.String()
}

func openDevice(t *testing.T, path string, size int64, sector int) Device {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Device{RW: f, Size: size, SectorSize: sector, Sync: func() error { return nil }}
}

func wipeAndWrite(t *testing.T, path string, size int64, sector int, table *Table) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := WipeTable(Device{RW: f, Size: size, SectorSize: sector, Sync: func() error { return nil }}, table); err != nil {
		t.Fatal(err)
	}
}

// verify asks both tools whether they find a fault.
func verify(t *testing.T, path string) {
	t.Helper()
	if out := run(t, "", "sgdisk", "--verify", path); !strings.Contains(out, "No problems found.") {
		// Ends that are not aligned are no fault.
		if bad := regexp.MustCompile(`(?i)problem:|caution|warning|invalid|corrupt`).FindString(out); bad != "" {
			t.Fatalf("sgdisk: %s", out)
		}
	}
	if out, err := exec.Command("sfdisk", "--verify", path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("No errors detected")) {
		t.Fatalf("sfdisk: %v %s", err, out)
	}
}
