package lab

import (
	"encoding/json"
	"strings"
)

// Facts are what the witness saw of a guest from inside, in stage 2, after the boot had settled. It is one JSON document.
// What could not be found out is absent, and Problems says why.
type Facts struct {
	State       string            // systemctl is-system-running: "running", "degraded", ... ; "starting" if it never settled
	Units       map[string]Unit   // all units that systemd has loaded
	Report      json.RawMessage   `json:",omitempty"` // /run/pilotlight/report.json as it is
	PCR12       map[string]string // bank ("sha256") to value, lower-case hex
	EventLog    []byte            `json:",omitempty"` // /run/log/systemd/tpm2-measure.log as it is
	FirmwareLog []byte            `json:",omitempty"` // the firmware's event log in the TCG's binary format
	Blocks      []Block
	Mapper      map[string]Mapping // device-mapper devices
	Mounts      []Mount
	Etc         []File // /etc and below
	ESP         []File // the ESP and below, paths relative to it
	MachineID   string // /etc/machine-id
	Hostname    string // the kernel's
	CommandLine string
	Kernel      string            // uname -r
	Credentials map[string]string // of the system and of the credential store: name to SHA-256 of the value
	Journal     []Entry           // what the units asked for have logged, and what systemd said of them
	Times       map[string]uint64 // microseconds since the kernel's start: "InitRDTimestampMonotonic", "UserspaceTimestampMonotonic", ... (org.freedesktop.systemd1(5))
	Problems    map[string]string // fact to the reason why it is missing
}

// Unit is a unit's state in systemd's words.
type Unit struct{ Load, Active, Sub string }

// Block is a block device as lsblk(8) tells it.
type Block struct {
	Name      string `json:"name"`
	Parent    string `json:"pkname"`
	Type      string `json:"type"` // "disk", "part", "crypt", "dm"
	Size      int64  `json:"size"` // bytes
	Start     int64  `json:"start"`
	ReadOnly  bool   `json:"ro"`
	Serial    string `json:"serial"`
	PartType  string `json:"parttype"` // GPT type UUID
	PartUUID  string `json:"partuuid"`
	PartLabel string `json:"partlabel"`
	FSType    string `json:"fstype"`
	Label     string `json:"label"`
	UUID      string `json:"uuid"`
}

// Mapping is a device-mapper device as dmsetup(8) tells it: Status of a verity device ends in V while no corruption was seen, in C after.
type Mapping struct{ Table, Status string }

// Mount is one line of proc_pid_mountinfo(5).
type Mount struct{ Target, Type, Source, Options string }

// File is a directory entry, without its contents.
type File struct {
	Path     string
	Type     string // find(1)'s %y: "f", "d", "l", ...
	Mode     string // octal, four digits
	UID, GID string
	Size     int64
	Link     string `json:",omitempty"` // where a symbolic link points
	SHA256   string `json:",omitempty"` // of a regular file
}

// Entry is a journal message.
type Entry struct {
	Micros  uint64 // since the kernel's start
	Unit    string
	Message string
	Initrd  bool // logged before switch-root
}

// Failed are the names of failed units.
func (f Facts) Failed() []string {
	var names []string
	for _, name := range sortedKeys(f.Units) {
		if f.Units[name].Active == "failed" {
			names = append(names, name)
		}
	}
	return names
}

// InitrdLines counts the journal's messages of a unit from before switch-root.
func (f Facts) InitrdLines(unit string) int {
	n := 0
	for _, e := range f.Journal {
		if e.Initrd && e.Unit == unit {
			n++
		}
	}
	return n
}

// Partition gives the partition with this GPT name.
func (f Facts) Partition(label string) (Block, bool) {
	for _, b := range f.Blocks {
		if b.Type == "part" && b.PartLabel == label {
			return b, true
		}
	}
	return Block{}, false
}

// Mount gives what is mounted on a path, the topmost if several are.
func (f Facts) Mount(target string) (Mount, bool) {
	for i := len(f.Mounts) - 1; i >= 0; i-- {
		if f.Mounts[i].Target == target {
			return f.Mounts[i], true
		}
	}
	return Mount{}, false
}

// EtcFile gives the entry of a path such as /etc/hostname.
func (f Facts) EtcFile(path string) (File, bool) {
	for _, file := range f.Etc {
		if file.Path == path {
			return file, true
		}
	}
	return File{}, false
}

// VerityRootHash is the root hash in the table of a verity device, with whether the kernel still vouches for it. The table is
// "0 LENGTH verity VERSION DATA HASH BLOCK BLOCK BLOCKS START ALGORITHM ROOTHASH SALT ..." (the kernel's device-mapper/verity).
func (f Facts) VerityRootHash(name string) (hash string, verified bool) {
	mapping := f.Mapper[name]
	table, status := strings.Fields(mapping.Table), strings.Fields(mapping.Status)
	if len(table) < 12 || table[2] != "verity" || len(status) < 4 {
		return "", false
	}
	return table[11], status[3] == "V"
}
