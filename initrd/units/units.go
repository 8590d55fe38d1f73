// Package units holds the systemd units of the initrd as files to read (in files/),
// the links that pull them in, and what our generator writes.
//
//	                    sysinit: udevd, tpm2.target, pcrphase-initrd
//	                                     │
//	                          pilotlight-fetch      config found, measured, frozen
//	                                     │
//	                          pilotlight-repart     partitions
//	                                     │
//	                          pilotlight-verity     /dev/mapper/usr
//	                                     │
//	initrd-root-fs.target     ◀── pilotlight-root   encrypted partitions; /sysroot, /sysroot/usr
//	                                     │
//	                          pilotlight-etc        /sysroot/etc
//	                                     │
//	initrd-parse-etc.service  ◀── pilotlight-report record complete
//	initrd.target             ◀──────────┘
//	initrd-switch-root.target      every unit of ours is stopped before it
//
// A unit that fails leads to emergency.target, and what stands before the shell
// there is pilotlight-onfailure, which carries out the policy. That holds for a
// failure of anybody's unit in this initrd, not of ours alone.
//
// All but one are pulled in by links in initrd.target.requires/, drawn at the one
// who needs: no [Install] section, no WantedBy=. pilotlight-network is started by
// the first connection. A requires-link at a device or a mount unit would survive
// the isolate of switch-root and start units again, so there is none.
package units

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

//go:embed files
var files embed.FS

// A File is a file of the initrd.
type File struct {
	Path string // absolute
	Data []byte
}

// A Link is a symbolic link of the initrd.
type Link struct {
	Path   string
	Target string
}

const (
	systemDir = "/usr/lib/systemd/system"
	// Binary is where this program lies in the initrd.
	Binary = "/usr/bin/pilotlight"
)

// places are the files that are not units, and where they go.
var places = map[string]string{
	"emergency.service.conf": systemDir + "/emergency.service.d/10-pilotlight.conf",
	"initrd.network":         "/usr/lib/systemd/network/zz-pilotlight.network",
}

// Files are the units and what belongs to them. An error means that the program
// was built without one of them.
func Files() ([]File, error) {
	entries, err := fs.ReadDir(files, "files")
	if err != nil {
		return nil, err
	}
	var list []File
	for _, e := range entries {
		data, err := files.ReadFile(path.Join("files", e.Name()))
		if err != nil {
			return nil, err
		}
		where, ok := places[e.Name()]
		if !ok {
			where = path.Join(systemDir, e.Name())
		}
		list = append(list, File{where, data})
	}
	return list, nil
}

// Links pull the units in, and put the generator in its place.
func Links() []Link {
	list := []Link{
		{"/usr/lib/systemd/system-generators/pilotlight-generator", Binary},
	}
	for _, s := range []string{"fetch", "repart", "verity", "root", "etc", "report"} {
		unit := "pilotlight-" + s + ".service"
		list = append(list, Link{systemDir + "/initrd.target.requires/" + unit, "../" + unit})
	}
	return list
}

// Args are what the generator needs to know of the kernel command line.
type Args struct {
	Off  bool // pilotlight=no
	Root bool // root= or roothash= is there: systemd mounts the root
	Usr  bool // mount.usr= or usrhash= is there: systemd mounts /usr
	// RootHash and UsrHash are the values of roothash= and usrhash=, by which systemd
	// opens the verity devices root and usr.
	RootHash, UsrHash string
}

// RootHashes are the root hashes by the names of their devices.
func (a Args) RootHashes() map[string]string {
	hashes := map[string]string{}
	for name, hash := range map[string]string{"root": a.RootHash, "usr": a.UsrHash} {
		if hash != "" {
			hashes[name] = hash
		}
	}
	return hashes
}

// ParseArgs reads the words of a kernel command line. The last of a word counts.
func ParseArgs(words []string) Args {
	var a Args
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "pilotlight":
			a.Off = value == "no"
		case "root", "roothash":
			a.Root = value != ""
		case "mount.usr", "usrhash":
			a.Usr = value != ""
		}
		switch key {
		case "roothash":
			a.RootHash = strings.ToLower(value)
		case "usrhash":
			a.UsrHash = strings.ToLower(value)
		}
	}
	return a
}

// Generated is what our generator writes: files by their path below its first
// (normal) and second (early) output directory (systemd.generator(7)).
//
// Where the kernel arguments name the root, systemd mounts it, and we come after.
// Where they do not, we mount it ourselves, and systemd-gpt-auto-generator, which
// would wait for a root of its own choice, is overruled: a unit of the same name in
// the early directory wins. The mount unit is then there only to wait for ours; it
// is active by the time it is its turn, since PID 1 sees the mount.
func Generated(a Args) (normal, early []File) {
	if a.Off {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(a.RootHashes())) {
		normal = append(normal, File{"pilotlight-verity.service.d/50-" + name + ".conf", fmt.Appendf(nil,
			"# A kernel argument names its root hash: systemd opens it.\n[Unit]\nAfter=systemd-veritysetup@%s.service\n", name)})
	}
	if a.Root {
		after := "sysroot.mount"
		if a.Usr {
			after += " sysroot-usr.mount"
		}
		normal = append(normal, File{"pilotlight-root.service.d/50-sysroot.conf", fmt.Appendf(nil,
			"# The kernel arguments name the root: systemd mounts it.\n[Unit]\nAfter=%s\n", after)})
		return normal, nil
	}
	if a.Usr {
		normal = append(normal, File{"pilotlight-etc.service.d/50-usr.conf", []byte(
			"# The kernel arguments name /usr: systemd mounts it.\n[Unit]\nAfter=sysroot-usr.mount\n")})
	}
	early = append(early,
		File{"sysroot.mount", []byte(`# The kernel arguments name no root: pilotlight-root.service mounts it.
[Unit]
Description=Root (mounted by pilotlight)
DefaultDependencies=no
# No Requires=: what a mount of the new root requires is kept through switch-root,
# and with it every unit of ours that should be stopped there.
After=pilotlight-root.service
Before=initrd-root-fs.target
# Where that failed there is nothing to wait for.
ConditionPathIsMountPoint=/sysroot

[Mount]
What=none
Where=/sysroot
`)},
		File{"initrd-root-device.target.d/50-root-device.conf", []byte(`# The kernel arguments name no root: there is no device to wait for here.
`)},
	)
	return normal, early
}
