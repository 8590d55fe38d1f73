package disk

import (
	"fmt"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// Superblock reads what is on the device of a node: see Probe. Where Probe finds nothing
// and udev, whose word is that of libblkid (ID_FS_TYPE, ID_PART_TABLE_TYPE), has found
// something, its word is taken. Every error is a *LookError; inside it an
// *AmbivalentError is, if there are several signatures.
func (s System) Superblock(node string) (Superblock, error) {
	have, err := s.Probed(node)
	if err != nil || have != (Superblock{}) {
		return have, err
	}
	return s.ByUdev(node)
}

// Probed reads what is on the device of a node, as Probe does. Errors are those of
// Superblock.
func (s System) Probed(node string) (Superblock, error) {
	r, err := s.open(node)
	if err != nil {
		return Superblock{}, lookError(node, err)
	}
	defer r.Close()
	end, ok := r.(io.Seeker)
	if !ok {
		return Superblock{}, &LookError{node, fmt.Errorf("its size is not known")}
	}
	size, err := end.Seek(0, io.SeekEnd)
	if err != nil {
		return Superblock{}, lookError(node, err)
	}
	have, err := Probe(r, size)
	if err != nil {
		return Superblock{}, &LookError{node, err}
	}
	return have, nil
}

// UdevRuns says whether there is a udevd that hears of events.
func (s System) UdevRuns() bool {
	_, err := fs.Stat(s.Run, "udev/control")
	return err == nil
}

// ByUdev gives what udev's database says is on a device. Every error is a *LookError.
func (s System) ByUdev(node string) (Superblock, error) {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return Superblock{}, &LookError{node, err}
	}
	major, minor := int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev))
	props, err := s.udev(major, minor)
	if err != nil {
		return Superblock{}, err
	}
	have := Superblock{Type: props["ID_FS_TYPE"], Label: unescape(props["ID_FS_LABEL_ENC"]), UUID: props["ID_FS_UUID"]}
	have.Table = props["ID_PART_TABLE_TYPE"]
	place, err := s.canonical(fmt.Sprintf("dev/block/%d:%d", major, minor))
	if err != nil || have == (Superblock{}) {
		return have, err
	}
	if s.exists(place + "/partition") {
		// udev gives a partition the properties of its disk, and then its own over them
		// (60-persistent-storage.rules): what both have is the disk's.
		if major, minor, err = s.deviceNumber(path.Dir(place) + "/dev"); err != nil {
			return Superblock{}, err
		}
		disk, err := s.udev(major, minor)
		if err != nil {
			return Superblock{}, err
		}
		have.Table = ""
		if disk["ID_FS_TYPE"] == have.Type && disk["ID_FS_UUID"] == have.UUID {
			return Superblock{}, nil
		}
	}
	if have.Table != "" {
		have.Partitions = 1
	}
	return have, nil
}
