package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Table reads the disk's GPT and says where the kernel has its partitions. Errors of
// the table are a *TableError (see ReadTable), those of sysfs a *LookError.
func (s System) Table(d Disk) (*Table, error) {
	t, err := s.readTable(d)
	if err != nil {
		return nil, err
	}
	known, err := s.partitions(d.Name)
	if err != nil {
		return nil, err
	}
	perSector := uint64(d.SectorSize / 512)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		at := slices.IndexFunc(known, func(k partition) bool { return k.number == p.Number })
		// After a repartitioning the kernel may still have the old partition of that
		// number, and its node leads to other data.
		if at < 0 || known[at].start != p.First*perSector || known[at].length != p.Sectors()*perSector {
			continue
		}
		p.Node = s.node(known[at].name)
		if p.Holders, err = s.list("block/" + d.Name + "/" + known[at].name + "/holders"); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (s System) readTable(d Disk) (*Table, error) {
	r, err := s.open(d.Node)
	if err != nil {
		return nil, &TableError{Node: d.Node, Err: fmt.Errorf("open: %w", lookError(d.Node, err).Err)}
	}
	defer r.Close()
	t, err := ReadTable(r, d.Size, d.SectorSize)
	var te *TableError
	if errors.As(err, &te) {
		te.Node = d.Node
	}
	return t, err
}

// partition is one that the kernel knows, in units of 512 bytes.
type partition struct {
	name          string
	number        int
	start, length uint64
}

func (s System) partitions(disk string) ([]partition, error) {
	names, err := s.list("block/" + disk)
	if err != nil {
		return nil, err
	}
	var known []partition
	for _, name := range names {
		dir := "block/" + disk + "/" + name
		if !s.exists(dir + "/partition") {
			continue
		}
		p := partition{name: name}
		number, err := s.number(dir + "/partition")
		if err != nil {
			return nil, err
		}
		p.number = int(number)
		if p.start, err = s.number(dir + "/start"); err != nil {
			return nil, err
		}
		if p.length, err = s.number(dir + "/size"); err != nil {
			return nil, err
		}
		known = append(known, p)
	}
	return known, nil
}

// Found is a partition and the disk that it is on.
type Found struct {
	Disk      Disk
	Partition Partition
}

// String gives disk, number and UUID, for messages.
func (f Found) String() string {
	return fmt.Sprintf("partition %d of %s, UUID %s", f.Partition.Number, f.Disk, f.Partition.UUID)
}

// A ScanError says which disks could not be searched for a partition.
type ScanError struct{ Failed []error } // each a *TableError or a *LookError

func (e *ScanError) Error() string {
	var texts []string
	for _, err := range e.Failed {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (e *ScanError) Unwrap() []error { return e.Failed }

// DamagedOnly says whether every disk could be read, and those that failed have a
// table that is damaged or for another sector size. The kernel sees no partition
// there, so none can be mistaken for one that was found; but one that is missing may
// have been on such a disk.
func (e *ScanError) DamagedOnly() bool {
	return !slices.ContainsFunc(e.Failed, func(err error) bool {
		return !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrSectorSize)
	})
}

// PartitionByUUID gives every partition with that UUID, on all disks of Disks. None is
// no error. More than one happens, where a disk was cloned or is half of a mirror: see
// Only. Disks with no GPT have none; those that cannot be searched are a *ScanError,
// beside which what was found on the others is returned.
func (s System) PartitionByUUID(g GUID) ([]Found, error) {
	if g.IsZero() {
		return nil, errors.New("partition UUID is zero")
	}
	return s.search(func(p Partition) bool { return p.UUID == g })
}

// PartitionsByType gives every partition of one of the types, as PartitionByUUID does.
func (s System) PartitionsByType(types ...GUID) ([]Found, error) {
	return s.search(func(p Partition) bool { return slices.Contains(types, p.Type) })
}

func (s System) search(wanted func(Partition) bool) ([]Found, error) {
	disks, err := s.Disks()
	if err != nil {
		return nil, err
	}
	var found []Found
	var failed []error
	for _, d := range disks {
		t, err := s.Table(d)
		if errors.Is(err, ErrNoTable) || errors.Is(err, ErrMBR) {
			continue
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, p := range t.Partitions {
			if wanted(p) {
				found = append(found, Found{Disk: d, Partition: p})
			}
		}
	}
	if failed != nil {
		return found, &ScanError{Failed: failed}
	}
	return found, nil
}

// A CountError says that there is not exactly one partition of those that were sought.
type CountError struct {
	What  string
	Found []Found // none, or more than one
}

func (e *CountError) Error() string {
	if len(e.Found) == 0 {
		return e.What + ": on no disk"
	}
	var names []string
	for _, f := range e.Found[:min(len(e.Found), named)] {
		names = append(names, f.String())
	}
	return fmt.Sprintf("%s: %d of them, and only one may be: %s", e.What, len(e.Found), strings.Join(names, ", "))
}

// Only gives the one partition that was found, or a *CountError that calls what was
// sought by the name what.
func Only(what string, found []Found) (Found, error) {
	if len(found) != 1 {
		return Found{}, &CountError{What: what, Found: found}
	}
	return found[0], nil
}

// A PartitionError says that a partition was named where a whole disk was meant.
type PartitionError struct {
	Path   string // as it was given
	Disk   Disk   // that it is on
	Number int    // of the partition
}

func (e *PartitionError) Error() string {
	return fmt.Sprintf("%s is partition %d of %s, not a whole disk", e.Path, e.Number, e.Disk.Node)
}

// Resolve gives the whole disk at a path in /dev: a node, or a link such as those in
// /dev/disk/by-id. A path to a partition is a *PartitionError; one to nothing wraps
// fs.ErrNotExist, which passes when udev is still at work.
func (s System) Resolve(path string) (Disk, error) {
	d, number, err := s.Owner(path)
	if err != nil {
		return Disk{}, err
	}
	if number != 0 {
		return Disk{}, &PartitionError{Path: path, Disk: d, Number: number}
	}
	return d, nil
}

// Owner gives the disk that the device at a path in /dev belongs to, and the number of
// the partition that the path means, 0 if it means the disk itself. A device-mapper or
// MD device is a disk here, with or without Stacked. A link in /dev/disk/by-partuuid
// that udev has not made yet is looked for in the tables of all disks.
func (s System) Owner(path string) (disk Disk, number int, err error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) == filepath.Join(s.Dev, "disk/by-partuuid") {
		return s.ownerOfUUID(path)
	}
	if err != nil {
		return Disk{}, 0, lookError(path, err)
	}
	dev, err := filepath.EvalSymlinks(s.Dev)
	if err != nil {
		return Disk{}, 0, lookError(s.Dev, err)
	}
	below, ok := strings.CutPrefix(real, dev+"/")
	if !ok {
		return Disk{}, 0, &LookError{path, fmt.Errorf("leads to %s, which is not in %s", real, s.Dev)}
	}
	name := strings.ReplaceAll(below, "/", "!")
	// Without udev, libdevmapper makes nodes of its own where udev has links.
	if mapped, ok := strings.CutPrefix(below, "mapper/"); ok {
		if name, err = dmName(s.Sys, mapped); err != nil {
			return Disk{}, 0, &LookError{path, err}
		}
	}
	if !s.exists("block/" + name) {
		if name, number, err = s.parent(name); err != nil {
			return Disk{}, 0, &LookError{path, err}
		}
	}
	links, err := s.links()
	if err != nil {
		return Disk{}, 0, err
	}
	disk, k, err := s.disk(name, links)
	if err != nil {
		return Disk{}, 0, err
	}
	if k == kindNone {
		return Disk{}, 0, &LookError{path, errors.New("not a disk, or no medium in it")}
	}
	return disk, number, nil
}

// Follow gives the node of the device at a path in /dev: a whole disk, a partition, or a
// device made upon others. A link in /dev/disk/by-partlabel or by-partuuid that udev has
// not made yet is looked for in the tables of all disks. A path to nothing wraps
// fs.ErrNotExist.
func (s System) Follow(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", lookError(path, err)
	}
	var wanted func(Partition) bool
	switch base := filepath.Base(path); filepath.Dir(path) {
	case filepath.Join(s.Dev, "disk/by-partuuid"):
		g, err := ParseGUID(base)
		if err != nil {
			return "", &LookError{path, fs.ErrNotExist}
		}
		wanted = func(p Partition) bool { return p.UUID == g }
	case filepath.Join(s.Dev, "disk/by-partlabel"):
		name := unescape(base)
		wanted = func(p Partition) bool { return p.Name == name }
	default:
		return "", &LookError{path, fs.ErrNotExist}
	}
	// A disk that cannot be read has no link either.
	found, err := s.search(wanted)
	if _, unread := errors.AsType[*ScanError](err); err != nil && !unread {
		return "", err
	}
	if len(found) == 0 {
		return "", &LookError{path, fs.ErrNotExist}
	}
	f, err := Only(path, found)
	if err == nil && f.Partition.Node == "" {
		err = &LookError{path, fs.ErrNotExist}
	}
	return f.Partition.Node, err
}

// parent gives the disk of a partition by the kernel's names.
func (s System) parent(name string) (disk string, number int, err error) {
	disks, err := s.list("block")
	if err != nil {
		return "", 0, err
	}
	for _, disk := range disks {
		if file := "block/" + disk + "/" + name + "/partition"; s.exists(file) {
			number, err := s.number(file)
			return disk, int(number), err
		}
	}
	return "", 0, errors.New("not a block device that the kernel knows")
}

func (s System) ownerOfUUID(path string) (Disk, int, error) {
	g, err := ParseGUID(filepath.Base(path))
	if err != nil {
		return Disk{}, 0, &LookError{path, fs.ErrNotExist}
	}
	found, err := s.PartitionByUUID(g)
	if err != nil {
		return Disk{}, 0, err
	}
	if len(found) == 0 {
		return Disk{}, 0, &LookError{path, fs.ErrNotExist}
	}
	f, err := Only("partition UUID "+g.String(), found)
	return f.Disk, f.Partition.Number, err
}
