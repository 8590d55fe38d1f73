package initrd

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"pilotlight/initrd/disk"
)

// Layout wishes that a disk has the partitions of an entry of Ignition's storage.disks,
// in a GPT. It keeps the config's words: what "the largest free block" and "the next
// free number" are, a look decides (see [disk.Arrange]).
//
//	                the table as it is        the partition as it is
//	wipeTable       erased once, if nothing   —
//	                on the disk is in use
//	no table        a new one                 made
//	GPT             kept                      made, deleted, resized, or refused
//	MBR, damaged    refused                   —
//
// What happens once (wiping, deleting a partition to make it anew, taking the next free
// number or the largest free block) is done once for each provision id; from then on the
// table is only compared.
// Where there is no record it is done whenever it is asked for, as Ignition does.
//
// What is in use (mounted, swap, part of another device) is not changed, nor is any
// table wiped that has such a partition; the others beside it are. No old file system is
// removed: it is found in the partition that takes its place, and whoever makes a file
// system there decides.
type Layout struct {
	Device     string // the path of the config
	WipeTable  bool
	Partitions []disk.Wanted
	Provision  string // the provision id
}

func (l Layout) String() string {
	return fmt.Sprintf("partition table of %s with %s", l.Device, count(len(l.Partitions), "partition"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// PartitionsDir is a name that stands for all partitions there are: who may need one
// reads it.
const PartitionsDir = "/partitions"

// Touches is the disk, and that its partitions change. Two names of one disk are told
// apart only by looking: of two entries that mean one disk the second waits for the
// first one's lock.
func (l Layout) Touches() []string { return []string{PartitionsDir + l.Device, l.Device} }

// Lingers is true: each disk, and udev, is waited for by itself.
func (l Layout) Lingers() bool { return true }

// Resolve looks at the table and at what the kernel has of it.
func (l Layout) Resolve(look Look) (State, Act, error) {
	node, err := look.Node(l.Device)
	if errors.Is(err, fs.ErrNotExist) {
		return After, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	d, err := look.Disk(Selector{Device: node})
	if err != nil {
		return unresolved, nil, err
	}
	act, err := l.plan(look, d)
	if err != nil {
		return unresolved, nil, err
	}
	if act == nil {
		return So, nil, nil
	}
	return NotSo, *act, nil
}

// once says whether the wish is, in part, an event.
func (l Layout) once() bool { return l.WipeTable || disk.Once(l.Partitions) }

// receipt says that the wish was carried out.
func (l Layout) receipt() Receipt {
	text, _ := json.Marshal(l) // numbers, strings and booleans: it cannot fail
	return Receipt{Name: "layout:" + l.Device + ":" + digest(text), Scope: ScopeProvision}
}

// written says that a table was about to be written for the wish. Where that one is on the
// disk, it was written, though the run may have ended before it could say so: the
// partitions that it has are not made a second time.
func (l Layout) written(t *disk.Table) Receipt {
	r := l.receipt()
	text := t.GUID.String()
	for _, p := range t.Partitions {
		text += fmt.Sprintf("\n%d %s %s %d %d %d %q", p.Number, p.Type, p.UUID, p.First, p.Last, p.Flags, p.Name)
	}
	r.Name += ":" + digest([]byte(text))
	return r
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// layout is what is to be done on a disk.
type layout struct {
	Layout
	disk    disk.Disk
	was     *disk.Table // nil: none, or none that counts
	loses   string      // what else is lost by wiping
	write   bool        // the table of now, which replaces was or, with wipe, anything
	wipe    bool
	now     *disk.Table // nil: none
	changes []disk.Change
	stale   []disk.Known     // what the kernel has and must not have
	missing []disk.Partition // of now, what the kernel must have
}

// plan computes what is to be done; nil is nothing.
func (l Layout) plan(look Look, d disk.Disk) (*layout, error) {
	a := &layout{Layout: l, disk: d}
	table, found := look.Table(d)
	switch {
	case found == nil:
		a.was = table
	case errors.Is(found, disk.ErrNoTable) && !errors.Is(found, disk.ErrBootSector):
	case errors.Is(found, disk.ErrMBR):
		a.loses = "the MBR partition table of " + d.Node
	case errors.Is(found, disk.ErrBootSector):
		a.loses = "the boot sector of " + d.Node
	case errors.Is(found, disk.ErrDamaged), errors.Is(found, disk.ErrSectorSize):
		a.loses = "what is left of a partition table on " + d.Node
	default:
		return nil, found
	}
	done := l.once() && (look.Done(l.receipt()) || a.was != nil && look.Done(l.written(a.was)))
	a.wipe = l.WipeTable && !done
	if a.loses != "" && !a.wipe {
		return nil, fmt.Errorf("%w: nothing is changed there unless wipeTable is true", found)
	}
	if err := a.arrange(done); err != nil {
		return nil, err
	}
	if err := a.listen(look); err != nil {
		return nil, err
	}
	unfinished := l.once() && done && !look.Done(l.receipt())
	if !a.write && len(a.stale) == 0 && len(a.missing) == 0 && !unfinished {
		return nil, nil
	}
	return a, a.refuse(look)
}

// arrange says what the table becomes.
func (a *layout) arrange(done bool) error {
	from := a.was
	if from == nil || a.wipe {
		guid, err := randomGUID()
		if err != nil {
			return err
		}
		if from, err = disk.NewTable(a.disk.Size, a.disk.SectorSize, guid); err != nil {
			return err
		}
	}
	wanted := a.Partitions
	if done {
		wanted = disk.Afterwards(from, wanted)
	}
	after, err := disk.Arrange(from, a.disk.Size, wanted, randomGUID)
	if err != nil {
		return err
	}
	a.changes = after.Changes
	a.now = after.Table
	if len(after.Changes) == 0 && (a.was == nil || a.wipe) {
		a.now = nil // nothing is wanted, and so there is no table
	}
	// A kernel takes no notice of a backup: where that is all there is, nobody can use
	// the partitions that are so.
	a.write = a.wipe || len(a.changes) > 0 || a.was != nil && a.was.Used != disk.Primary
	return nil
}

// listen compares what the kernel has with what it must have: nothing that is not in
// the table, and every partition that is wanted. What else there is in the table is told
// to it when the table is written.
func (a *layout) listen(look Look) error {
	known, err := look.Known(a.disk)
	if err != nil {
		return err
	}
	for _, k := range known {
		if a.now == nil || !slices.ContainsFunc(a.now.Partitions, func(p disk.Partition) bool { return k.Is(p, a.disk.SectorSize) }) {
			a.stale = append(a.stale, k)
		}
	}
	if a.now == nil {
		return nil
	}
	for _, p := range a.now.Partitions {
		wanted := a.write || slices.ContainsFunc(a.Partitions, func(w disk.Wanted) bool {
			return !w.Absent && (w.Number == p.Number || w.Number == 0 && w.Label != nil && *w.Label == p.Name)
		})
		i := slices.IndexFunc(known, func(k disk.Known) bool { return k.Is(p, a.disk.SectorSize) })
		switch {
		case i < 0 && wanted:
			a.missing = append(a.missing, p)
		case i >= 0 && a.renewed(p):
			// It lies where the old one did, and is another one: udev must hear of it.
			a.stale, a.missing = append(a.stale, known[i]), append(a.missing, p)
		}
	}
	return nil
}

// renewed says whether a partition of the new table is another one than that which has
// its number in the old one.
func (a *layout) renewed(p disk.Partition) bool {
	if !a.write || a.was == nil {
		return false
	}
	i := slices.IndexFunc(a.was.Partitions, func(o disk.Partition) bool { return o.Number == p.Number })
	if i < 0 {
		return true
	}
	o := a.was.Partitions[i]
	return o.UUID != p.UUID || o.Type != p.Type || o.Name != p.Name || o.Flags != p.Flags
}

// refuse is the error of a change to what is in use.
func (a *layout) refuse(look Look) error {
	if a.disk.ReadOnly {
		return fmt.Errorf("%s cannot be written", a.disk.Node)
	}
	known, err := look.Known(a.disk)
	if err != nil {
		return err
	}
	active := map[int]string{}
	mapped := false
	for _, k := range known {
		mapped = mapped || k.Mapped
		use, err := look.InUse(k.Node)
		if errors.Is(err, fs.ErrNotExist) && len(k.Holders) == 0 {
			continue // the kernel has it, and it has no node that anybody could open
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if use == "" && len(k.Holders) > 0 {
			use = "part of " + strings.Join(k.Holders, ", ")
		}
		if use != "" {
			active[k.Number] = use
		}
	}
	if len(active) == 0 && !mapped {
		use, err := look.InUse(a.disk.Node)
		if err != nil {
			return err
		}
		if use != "" {
			return a.direct(use)
		}
	}
	for _, k := range a.stale {
		if use, ok := active[k.Number]; ok && !a.wipe {
			return fmt.Errorf("partition %d of %s is in use, and cannot be changed: %s", k.Number, a.disk.Node, use)
		}
	}
	if !a.wipe {
		return nil
	}
	for _, k := range known {
		if use, ok := active[k.Number]; ok {
			return fmt.Errorf("the partition table of %s cannot be wiped: partition %d is in use: %s", a.disk.Node, k.Number, use)
		}
	}
	for _, i := range look.Record().Disks {
		if a.was != nil && look.Placed() && i.GPT == a.was.GUID.String() {
			return fmt.Errorf("the partition table of %s cannot be wiped: the record of this machine is on it", a.disk.Node)
		}
	}
	return nil
}

// direct is the error of a disk that is in use as a whole.
func (a *layout) direct(use string) error {
	hint := ""
	if strings.HasPrefix(use, "part of dm-") {
		hint = "; where that is a multipath device, it is the disk to name"
	}
	return fmt.Errorf("%s itself is in use, and cannot be partitioned: %s%s", a.disk.Node, use, hint)
}

func randomGUID() (disk.GUID, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return disk.GUID{}, err
	}
	return disk.ParseGUID(uuidFrom(b[:]))
}
