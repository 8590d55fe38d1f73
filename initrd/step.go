// Package initrd is the machine that we wake up in: the only room of this
// program that runs programs, makes system calls or opens devices.
//
// Everything that may change on a machine is a [Step], and a step is a wish: a
// plain struct whose fields say what shall be so ("/etc/motd holds these
// bytes", "usr is open with this root hash"). A wish knows how to look. Against
// a [Look] at the machine it resolves to one of four states: it is so already;
// it is not, and here is the one deed that makes it so; it cannot be told yet,
// because an earlier step makes what it looks at; or it is moot on this machine.
//
//	         Resolve(look)
//	Step ───────────────────▶ So        nothing to do
//	                          NotSo     Act ──▶ Host.Do ──▶ Resolve again: must be So
//	                          After     waits for an earlier step
//	                          Moot      cannot be here and need not be: a warning
//
// One loop, [Run], walks a list of steps. Planning is that loop without the
// deeds; the log, the progress and the report are what it tells while it goes.
//
// There are three sorts of step. A state (a file, a partition, a mount) is
// looked at. An event (a factory reset, a measurement) happens once, and what
// says that it happened is the event log or a receipt in the [Record]. An opaque
// one (sysusers, tmpfiles) cannot be looked at from outside; it leaves a receipt
// for this boot and is harmless to repeat.
//
// [Kinds] is the table of all kinds of step with the programs and kernel modules
// that each needs. What packs an initrd, and the check before the first deed of
// a boot, read that table; there is no second list.
package initrd

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// A Step is a wish: what shall be so, and how to tell whether it is.
type Step interface {
	// String says the wish in one line, without secrets.
	String() string
	// Touches names what the step reads or changes: absolute paths as the real
	// system will see them, and words such as "tpm" for what has no path. Two
	// steps overlap only if no name of one is equal to, or a parent of, a name of
	// the other.
	Touches() []string
	// Resolve looks, and says how things stand. The act is there exactly when the
	// state is NotSo. With Moot and After the error, if any, is the reason; with
	// any other state an error means that looking was not possible, or that what is
	// there must not be touched: it is never taken for "not so".
	Resolve(Look) (State, Act, error)
}

// A State is how a wish stands against the machine.
type State int

// The states. The zero value is none of them: a step that forgets to say is caught.
const (
	unresolved State = iota
	So               // it is so; there is nothing to do
	NotSo            // it is not so, and there is a deed for it
	After            // it cannot be told before an earlier step is done
	Moot             // it cannot be here, and the config does not insist
)

func (s State) String() string {
	switch s {
	case So:
		return "so"
	case NotSo:
		return "not so"
	case After:
		return "after"
	case Moot:
		return "moot"
	}
	return "unresolved"
}

// An Act is one deed, made concrete by a look. Only a Host can do it.
type Act interface {
	// String says the deed in one line, without secrets.
	String() string
	do(context.Context, *Machine) error
}

// A Look is the machine, read-only. Paths below root have their symbolic links
// resolved inside root, so that a link to /etc/passwd in a target root never
// means the initrd's own.
type Look interface {
	// Stat describes path itself (a symbolic link is not followed). fs.ErrNotExist
	// when there is nothing.
	Stat(root, path string) (Entry, error)
	// Open reads a regular file; the last component may not be a symbolic link.
	Open(root, path string) (io.ReadCloser, error)
	// Names lists a directory, sorted. fs.ErrNotExist when there is none.
	Names(root, dir string) ([]string, error)
	// Context gives the SELinux context of path itself. fs.ErrNotExist when there is nothing.
	Context(root, path string) (Labelled, error)
	// Bare lists what has no SELinux context in a directory, on the same file system; of a
	// directory that has none only itself.
	Bare(root, dir string) ([]string, error)
	// Has says whether this initrd has a program.
	Has(program string) bool
	// Volatile says whether what is written at path is gone at the next boot:
	// it lies on tmpfs, ramfs, or an overlay whose upper layer does.
	Volatile(root, path string) (bool, error)
	// Verified says whether what lies at path is, unchanged since, what a deed of this
	// process put there after its bytes had that hash.
	Verified(root, path string, e Entry, hash resource.Hash) bool
	// Owner turns a user and a group name into numbers by root's own passwd and
	// group files. An unknown name is ErrUnknownOwner.
	Owner(root string, o Owner) (uid, gid int, err error)
	// Disk chooses exactly one disk.
	Disk(Selector) (disk.Disk, error)
	// Node follows the path of a device, as a config names it (/dev/disk/by-partlabel/var,
	// /dev/md/root), to its node. fs.ErrNotExist where there is none, after as long as
	// this machine waits for devices.
	Node(path string) (string, error)
	// Table reads the disk's GPT. disk.ErrNoTable when it has none.
	Table(disk.Disk) (*disk.Table, error)
	// Partitions finds partitions by their UUID on all disks.
	Partitions(uuid disk.GUID) ([]disk.Found, error)
	// Superblock reads what is on the device of a node. Several signatures at once are a
	// *disk.AmbivalentError.
	Superblock(node string) (disk.Superblock, error)
	// InUse says what holds a block device, which must not be written to then: "mounted at
	// /var"; "" where nothing does.
	InUse(node string) (string, error)
	// Known gives the partitions of a disk that the kernel has, whatever its table says.
	Known(disk.Disk) ([]disk.Known, error)
	// Mapper describes the device-mapper device of that name. fs.ErrNotExist when there is none.
	Mapper(name string) (Mapper, error)
	// Mounted gives the topmost mount at path. fs.ErrNotExist when nothing is mounted there.
	Mounted(path string) (Mounted, error)
	// Within gives the mount that a path lies in, with Fixed.
	Within(path string) (Mounted, error)
	// LUKS reads the header of an encrypted volume. disk.ErrNoLUKS when the device has none.
	LUKS(node string) (*disk.LUKS, error)
	// Measured says whether this boot's event log has the word in that PCR.
	// ErrNoTPM when this machine has no TPM.
	Measured(pcr int, word string) (bool, error)
	// Ask runs a program that only reads, and gives its standard output.
	Ask(Query) ([]byte, error)
	// Done says whether a receipt of that name was left, in this boot or,
	// for ScopeProvision, in the record.
	Done(Receipt) bool
	// Record is what earlier boots left, and Placed says whether there is a place for it.
	Record() Record
	Placed() bool
}

// A Host looks and acts. It is the only thing that changes a machine.
type Host interface {
	Look(context.Context) Look
	Do(context.Context, Act) error
}

// An Entry is what lies at a path.
type Entry struct {
	Mode     fs.FileMode // type and permission bits, with setuid, setgid and sticky
	UID, GID int
	Size     int64
	Target   string // of a symbolic link
	Dev, Ino uint64 // of the node itself
	Rdev     uint64 // of a device node: the device
	Changed  int64  // when contents or attributes last changed, in nanoseconds (ctime)
}

// Mapper is a device-mapper device.
type Mapper struct {
	Node string   // /dev/dm-0
	UUID string   // CRYPT-VERITY-… for verity, CRYPT-LUKS2-… for an encrypted one
	On   []string // the kernel's names of what it is made upon: vda3
}

// Mounted is one line of /proc/self/mountinfo, as far as it is of use here
// (proc_pid_mountinfo(5)).
type Mounted struct {
	Where        string
	Type         string
	Source       string // what was given to mount; a device path or a word
	Major, Minor uint32 // of the mounted file system
	ReadOnly     bool
	Fixed        bool // its device cannot be written; where it was asked for
}

// A Query is a question to a program that only reads. The list of programs is
// closed: [Query.Argv] refuses all others.
type Query struct {
	Program string
	Args    []string
	Files   map[string][]byte // put in a private directory; "{files}" in Args becomes its path
	Stdin   []byte
}

// Argv is the argument vector of the query, "{files}" not yet replaced. It
// refuses a program or a form of it that is not known to leave everything as it is.
func (q Query) Argv() ([]string, error) {
	reads := map[string]func([]string) bool{
		"systemd-repart": dryRun,
		"dmsetup":        func(a []string) bool { return len(a) > 0 && (a[0] == "table" || a[0] == "status") },
		"mdadm":          exports,
		"udevadm":        func(a []string) bool { return len(a) > 0 && a[0] == "settle" },
		"systemctl":      func(a []string) bool { return len(a) > 0 && (a[0] == "is-enabled" || a[0] == "show") },
		"systemd-creds":  func(a []string) bool { return len(a) > 0 && a[0] == "decrypt" && a[len(a)-1] == "-" },
	}
	if ok := reads[q.Program]; ok == nil || !ok(q.Args) {
		return nil, fmt.Errorf("%s %v is not known to only read", q.Program, q.Args)
	}
	return append([]string{q.Program}, q.Args...), nil
}

// dryRun says whether systemd-repart will change nothing. getopt_long(3) takes
// abbreviations, and the last of an option counts.
func dryRun(args []string) bool {
	is := false
	for _, a := range args {
		if strings.HasPrefix(a, "--dr") {
			is = a == "--dry-run=yes"
			if !is {
				return false
			}
		}
	}
	return is
}

// exports says whether mdadm will only print: what an array, or a superblock, is.
func exports(args []string) bool {
	return len(args) == 3 && (args[0] == "--detail" || args[0] == "--examine") && args[1] == "--export"
}

func has(args []string, want string) bool {
	for _, a := range args {
		if a == want {
			return true
		}
	}
	return false
}

// A Receipt says that an event, or an opaque step, was done.
type Receipt struct {
	Name  string // what was done, with the digest of the wish
	Scope Scope
}

// A Scope is how long a receipt holds.
type Scope int

const (
	ScopeBoot      Scope = iota // until the next boot
	ScopeProvision              // as long as the provision id of the record
)

// An Owner is a user and a group, by number or by name. The zero value is root.
type Owner struct {
	UID, GID    int
	User, Group string // where set, they win over the numbers

	// AnyUID and AnyGID say that nothing is said: what is there keeps its owner, and what
	// is new is root's, and of the group that its directory gives.
	AnyUID, AnyGID bool
}

// over gives the owner that something has afterwards which is there now.
func (o Owner) over(now Entry, uid, gid int) (int, int) {
	if o.AnyUID {
		uid = now.UID
	}
	if o.AnyGID {
		gid = now.GID
	}
	return uid, gid
}

// Named says whether a name must be looked up. root is always 0.
func (o Owner) Named() bool {
	return o.User != "" && o.User != "root" || o.Group != "" && o.Group != "root"
}

// reads names what must be known before something at a path of root can be given
// to the owner: passwd and group, if there is a name to look up. The path is added,
// so that who writes those files is waited for, and readers are not for each other.
func (o Owner) reads(root, name string) []string {
	if !o.Named() {
		return nil
	}
	return []string{path.Join("/", root, "etc/passwd", name), path.Join("/", root, "etc/group", name)}
}

// A Selector chooses exactly one disk: by a device path or the word "boot" (the
// disk that the firmware says we came from), or by matching properties.
type Selector struct {
	Device string
	Match  disk.Match
}

func (s Selector) String() string {
	if s.Device != "" {
		return s.Device
	}
	return fmt.Sprintf("the one disk with %+v", s.Match)
}
