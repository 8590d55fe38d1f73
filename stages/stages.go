// Package stages says what a config means. A stage is a pure function from what
// is known of a boot, an [Input], to a list of steps, which are wishes; see package
// initrd for what becomes of them. A file is a stage; [All] is the boot order.
//
//	measure   extend the PCR by what came from outside, before it is read
//	network   networkd's files for this initrd
//	kargs     kernel arguments, by the distribution's helper
//	repart    partitions, by systemd-repart
//	disks     Ignition's partitions, arrays, encrypted volumes and file systems
//	verity    dm-verity devices, by root hash
//	luks      encrypted partitions, unlocked
//	root      the new root at /sysroot, and what is mounted in it
//	etc       files, units, users: the host's configuration
//	report    the record says "complete"
//
// What a stage wants never depends on an address, on an instance id or on what a
// machine looks like: wishes do, when they resolve. So the same config gives the
// same plan on every machine of a fleet, and on a laptop.
package stages

import (
	"pilotlight/config"
	"pilotlight/initrd"
)

// A Stage is one part of the boot.
type Stage struct {
	Name string // pilotlight-NAME.service runs it, where it has a unit of its own
	Doc  string // the heading in a plan, and the Description= of the unit
	Want func(Input) ([]initrd.Step, error)
}

// All is the boot order.
var All = [...]Stage{
	{"measure", "Measure the config", Measure},
	{"network", "Configure the network of the initrd", Network},
	{"kargs", "Change kernel arguments", Kargs},
	{"repart", "Partition disks", Repart},
	{"disks", "Make partitions, arrays, encrypted volumes and file systems", Disks},
	{"verity", "Open verity devices", Verity},
	{"luks", "Unlock encrypted partitions", Luks},
	{"root", "Mount the root", Root},
	{"etc", "Generate the configuration of the host", Etc},
	{"report", "Complete the record", Report},
}

// Named finds a stage.
func Named(name string) (Stage, bool) {
	for _, s := range All {
		if s.Name == name {
			return s, true
		}
	}
	return Stage{}, false
}

// An Input is all that a stage may know.
type Input struct {
	Config    config.Config
	Documents []initrd.Document // that are measured, in order
	Facts     Facts
}

// Facts are what is known of this boot beside the config. They are frozen with it.
type Facts struct {
	Boot      Boot
	Platform  string
	Provision string // the provision id, a UUID
	Root      string // where the new root is, "/sysroot"
	Placed    bool   // this machine has a place for a record, or who calls knows that this is a first boot
	Digest    string // of the documents
	Packed    []byte // what the kept copy is made of

	// SystemdRoot and SystemdUsr say that the kernel arguments name the root or
	// /usr: then systemd mounts it.
	SystemdRoot, SystemdUsr bool
	// RootHashes are the root hashes in the kernel arguments, by the name of the device:
	// systemd opens those.
	RootHashes map[string]string
	// MachineID is the id that the kernel arguments or a credential give, "" for none.
	MachineID string

	// AuthorizedKeys is where the SSH keys of users go: "fragment", "file", or "" for where
	// the target's sshd reads them (initrd.KeysLayout).
	AuthorizedKeys string

	// Result says that this boot leaves Ignition's result file; ResultFile is where, ""
	// for where Ignition has it.
	Result     bool
	ResultFile string
	// Cmdline and BootID are the files that hold the kernel's arguments and this boot's
	// id; "" for the kernel's own.
	Cmdline, BootID string
}

// mayLose says whether what a config erases may be erased: with a record that tells a
// first boot from a later one, or by consent. Without a record each boot is a first boot.
func (in Input) mayLose() bool {
	return in.Facts.Placed || in.Config.Pilotlight.Policy.DisksOrDefault() == config.DisksWipe
}

// A Boot is what kind of boot this is, by the record.
type Boot string

// The kinds of boot.
const (
	First       Boot = "first"       // no record
	Interrupted Boot = "interrupted" // a first boot that did not come to its end
	Later       Boot = "later"       // the record says complete
)
