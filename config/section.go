package config

import (
	"fmt"
	"strconv"
	"strings"

	"pilotlight/config/resource"
)

// Section is the `pilotlight` object of a config. A config without one has the
// zero Section, and a Version of "" tells so.
//
// A field's zero value means that the document did not say it; methods named
// …OrDefault give what holds then.
type Section struct {
	// Version is the version of this section's format: "1".
	Version string
	// Policy says how careful a boot is.
	Policy Policy
	// Repart lists the disks that systemd-repart lays out. Merge key: Name.
	Repart []Repart
	// Verity lists the dm-verity devices to open. Merge key: Name.
	Verity []Verity
	// Luks says more of entries of storage.luks. Merge key: Name.
	Luks []Luks
	// Root says that the root is not to be looked for, but made anew at each boot:
	// RootTmpfs, or "" for the root that is found.
	Root Root
	// Measure says where the config is measured.
	Measure Measure
	// Network holds systemd.network(5), systemd.netdev(5) and systemd.link(5)
	// files for the initrd alone; they are gone before switch-root. Merge key: Name.
	Network []Dropin
	// Etc is what goes into the host's configuration.
	Etc Etc
}

// Root says what the root is.
type Root string

// RootTmpfs is a root in memory, empty at each boot (as root=tmpfs on the kernel
// command line): for an image whose /usr holds all that it needs.
const RootTmpfs Root = "tmpfs"

// Run says in which boots the config is carried out.
type Run string

// RunFirstBoot carries a config out once; later boots do what loses no data.
const RunFirstBoot Run = "first-boot"

// Disks says whether a later boot may lose data that the config names.
type Disks string

const (
	// DisksKeep never loses data after the first boot.
	DisksKeep Disks = "keep"
	// DisksWipe consents to losing it.
	DisksWipe Disks = "wipe"
)

// OnFailure says what follows when provisioning failed.
type OnFailure string

const (
	// OnFailureEmergency gives a shell in the initrd.
	OnFailureEmergency OnFailure = "emergency"
	// OnFailureReboot reboots.
	OnFailureReboot OnFailure = "reboot"
	// OnFailurePoweroff powers the machine off.
	OnFailurePoweroff OnFailure = "poweroff"
)

// Keep says in which form the machine keeps its config for later boots.
type Keep string

const (
	// KeepSealed encrypts it with systemd-creds, to the TPM where there is one.
	KeepSealed Keep = "sealed"
	// KeepPlain keeps it as it is.
	KeepPlain Keep = "plain"
	// KeepDigest keeps its digest alone.
	KeepDigest Keep = "digest"
)

// Policy says how careful a boot is.
type Policy struct {
	Run       Run
	Disks     Disks
	OnFailure OnFailure
	Keep      Keep
	// Media allows that the label of a drive says which platform this is, where the
	// firmware does not; nil is not said. It is asked before there is a config, so
	// only a base fragment of the image can say it.
	Media *bool
}

// RunOrDefault returns Run; not said, first-boot.
func (p Policy) RunOrDefault() Run { return orDefault(p.Run, RunFirstBoot) }

// DisksOrDefault returns Disks; not said, keep.
func (p Policy) DisksOrDefault() Disks { return orDefault(p.Disks, DisksKeep) }

// OnFailureOrDefault returns OnFailure; not said, reboot if the boot loader
// counts this boot (so that it falls back to another entry), else emergency.
func (p Policy) OnFailureOrDefault(counted bool) OnFailure {
	if counted {
		return orDefault(p.OnFailure, OnFailureReboot)
	}
	return orDefault(p.OnFailure, OnFailureEmergency)
}

// KeepOrDefault returns Keep; not said, sealed.
func (p Policy) KeepOrDefault() Keep { return orDefault(p.Keep, KeepSealed) }

func orDefault[T ~string](v, d T) T {
	if v == "" {
		return d
	}
	return v
}

// Values of Repart.Empty, as systemd-repart(8) has them for --empty=.
const (
	EmptyRefuse  = "refuse"  // stop on a disk without a partition table
	EmptyAllow   = "allow"   // make a table where there is none
	EmptyRequire = "require" // stop on a disk with a partition table
	EmptyForce   = "force"   // always make a new table; what was there is lost
)

// DeviceBoot is the value of Repart.Device for the disk that the firmware says
// the machine was booted from.
const DeviceBoot = "boot"

// Repart is one disk and the repart.d(5) definitions for it.
type Repart struct {
	// Name identifies the entry: letters, digits, "_", "." and "-", at most 64.
	Name string
	// Device is a path under /dev, or DeviceBoot. Exactly one of Device and
	// Match is set in a complete config.
	Device string
	// Match describes the disk instead.
	Match *Match
	// Empty is one of the Empty constants.
	Empty string
	// Seed is a UUID from which systemd-repart derives those of partitions; if
	// not said it is derived from disk, name and provision id.
	Seed string
	// FactoryReset runs systemd-repart with --factory-reset=yes.
	FactoryReset bool
	// TPM2PCRs are the PCRs that partitions with Encrypt=tpm2 are bound to, as
	// --tpm2-pcrs= of systemd-repart(8). Nil is not said; empty binds to the TPM alone.
	// It cannot hold the PCR that configs are measured into.
	TPM2PCRs []int
	// KeyFile is the key of partitions with Encrypt=key-file, as --key-file= of
	// systemd-repart(8); nil if there is none.
	KeyFile *resource.Resource
	// Definitions are repart.d(5) files. Merge key: Name.
	Definitions []Dropin

	// factoryResetSaid tells a false of the document from silence, so that a
	// child can take back what its parent said.
	factoryResetSaid bool
}

// EmptyOrDefault returns Empty; not said, allow.
func (r Repart) EmptyOrDefault() string { return orDefault(r.Empty, EmptyAllow) }

// Match describes exactly one disk. A field that is not said matches any disk;
// in a complete config at least one is said.
type Match struct {
	// Serial, WWN and Model are compared as the kernel reports them.
	Serial, WWN, Model string
	// SizeMin and SizeMax are sizes as ParseSize reads them, both inclusive.
	SizeMin, SizeMax string
	// Transport is how the disk is attached: nvme, sata, usb, virtio ….
	Transport string
}

// SizeBounds returns SizeMin and SizeMax in bytes; not said, 0 and the largest
// number.
func (m Match) SizeBounds() (least, most uint64, err error) {
	most = 1<<64 - 1
	if m.SizeMin != "" {
		if least, err = ParseSize(m.SizeMin); err != nil {
			return 0, 0, err
		}
	}
	if m.SizeMax != "" {
		if most, err = ParseSize(m.SizeMax); err != nil {
			return 0, 0, err
		}
	}
	return least, most, nil
}

// ParseSize reads a size in bytes as systemd does: a whole number with an
// optional suffix K, M, G or T, to the base of 1024. It fails for anything else
// and for a size of 2^64 bytes or more.
func ParseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "KMGT")
	shift := 0
	switch strings.TrimPrefix(s, digits) {
	case "":
	case "K":
		shift = 10
	case "M":
		shift = 20
	case "G":
		shift = 30
	case "T":
		shift = 40
	default:
		return 0, fmt.Errorf("size %s: more than one suffix", quoted(s))
	}
	if strings.HasPrefix(digits, "+") {
		return 0, fmt.Errorf("size %s: not a whole number with a suffix K, M, G or T", quoted(s))
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size %s: not a whole number with a suffix K, M, G or T", quoted(s))
	}
	if n<<shift>>shift != n {
		return 0, fmt.Errorf("size %s: larger than 2^64 bytes", quoted(s))
	}
	return n << shift, nil
}

// Values of Verity.OnCorruption: what the kernel does on reading a block that
// does not match the root hash.
const (
	CorruptionRestart = "restart" // restart-on-corruption of systemd-veritysetup(8)
	CorruptionPanic   = "panic"   // panic-on-corruption
	CorruptionIgnore  = "ignore"  // ignore-corruption: log it and go on
)

// Verity is one dm-verity device, opened by systemd-veritysetup(8) as
// /dev/mapper/NAME.
type Verity struct {
	// Name is the device's name: "usr", "root", or another that device-mapper
	// takes.
	Name string
	// RootHash is in lower-case hexadecimal, 32 bytes or more.
	RootHash string
	// Data and Hash are paths under /dev. If not said, they are the partitions
	// whose UUIDs are the first and the last 16 bytes of the root hash.
	Data, Hash string
	// RootHashSignature is a PKCS#7 signature of the root hash, which the kernel
	// checks; nil if there is none.
	RootHashSignature *resource.Resource
	// OnCorruption is one of the Corruption constants.
	OnCorruption string
	// FEC is the forward error correction data; nil if there is none.
	FEC *FEC
	// Mount is the absolute path in the new root where the device is mounted,
	// read-only.
	Mount string
}

// OnCorruptionOrDefault returns OnCorruption; not said, restart.
func (v Verity) OnCorruptionOrDefault() string { return orDefault(v.OnCorruption, CorruptionRestart) }

// MountOrDefault returns Mount; not said, /usr for the device usr, / for root,
// and "" (not mounted) for any other.
func (v Verity) MountOrDefault() string {
	switch {
	case v.Mount != "":
		return v.Mount
	case v.Name == "usr":
		return "/usr"
	case v.Name == "root":
		return "/"
	}
	return ""
}

// FEC is where the forward error correction data of a verity device lies, by
// the options fec-device=, fec-offset= and fec-roots= of veritytab(5).
type FEC struct {
	// Device is a path under /dev.
	Device string
	// Offset is in bytes from the start of Device.
	Offset uint64
	// Roots is 2 to 24; 0 if not said.
	Roots int
}

// DefaultPCR is the register that a config is measured into: kernel-config, the
// class of the kernel command line and of credentials.
const DefaultPCR = 12

// Measure says where the config is measured, and whether the boot may go on
// without. Nil means not said.
type Measure struct {
	PCR      *int
	Required *bool
}

// PCROrDefault returns PCR; not said, DefaultPCR.
func (m Measure) PCROrDefault() int {
	if m.PCR == nil {
		return DefaultPCR
	}
	return *m.PCR
}

// RequiredOrDefault returns Required; not said, false: a machine without a TPM
// boots with a warning.
func (m Measure) RequiredOrDefault() bool { return m.Required != nil && *m.Required }

// Dropin is a file in a format of systemd's own, passed through whole.
type Dropin struct {
	// Name is a file name with the suffix that its format wants.
	Name     string
	Contents resource.Resource
}

// Etc is what goes into the host's configuration.
type Etc struct {
	// Upper is where changes to /etc go if the root is read-only and /etc therefore
	// an overlay; one of the Upper constants.
	Upper string
	// Tmpfiles are tmpfiles.d(5) files. Merge key: Name.
	Tmpfiles []Dropin
	// Sysusers are sysusers.d(5) files. Merge key: Name.
	Sysusers []Dropin
	// Credentials are credentials of systemd. Merge key: Name.
	Credentials []Credential
}

// Values of Etc.Upper.
const (
	UpperRun = "run" // in memory: /etc is generated at each boot
	UpperVar = "var" // on /var, which the config must mount
)

// UpperOrDefault returns Upper; not said, run.
func (e Etc) UpperOrDefault() string { return orDefault(e.Upper, UpperRun) }

// Values of Credential.Scope.
const (
	ScopeInitrd = "initrd" // for services of the initrd, gone before switch-root
	ScopeHost   = "host"   // for services of the host
)

// Credential is one systemd credential (https://systemd.io/CREDENTIALS).
type Credential struct {
	// Name is a credential's name: printable ASCII without "/" and ":", at most
	// 255 bytes.
	Name     string
	Contents resource.Resource
	// Encrypted tells that the contents are as systemd-creds encrypt writes them.
	Encrypted bool
	// Scope is one of the Scope constants.
	Scope string
}

// ScopeOrDefault returns Scope; not said, host.
func (c Credential) ScopeOrDefault() string { return orDefault(c.Scope, ScopeHost) }
