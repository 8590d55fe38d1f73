package main

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pilotlight/initrd"
	"pilotlight/providers"
	"pilotlight/stages"
)

// surroundings are what the environment of a call says. Each of Ignition's built-in
// paths and programs has a variable: IGNITION_, and its name in capitals.
type surroundings map[string]string

func newSurroundings() surroundings {
	s := surroundings{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		s[name] = value
	}
	return s
}

// knownVariables are those that are read, beside programVariables, and that units set for
// themselves.
var knownVariables = []string{
	"ARGS", "CONFIG_FILE", "KERNEL_CMDLINE_PATH", "BOOT_ID_PATH", "RESULT_FILE_PATH", "SELINUX_RELABEL", "WRITE_AUTHORIZED_KEYS_FRAGMENT",
	"SYSTEM_CONFIG_DIR", "SYSTEM_LOCAL_CONFIG_DIR", "SYSTEM_RUNTIME_CONFIG_DIR",
}

// without names the variables of Ignition's that have no effect here.
func (s surroundings) without() []string {
	var list []string
	for name := range s {
		variable, theirs := strings.CutPrefix(name, "IGNITION_")
		if _, program := programVariables[variable]; theirs && !program && !slices.Contains(knownVariables, variable) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// or is the value of a variable, or what is built in.
func (s surroundings) or(name, builtIn string) string {
	return cmp.Or(s["IGNITION_"+name], builtIn)
}

// truth is the value of a variable that is true or false.
func (s surroundings) truth(name string, builtIn bool) (bool, error) {
	switch s["IGNITION_"+name] {
	case "":
		return builtIn, nil
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("the environment variable IGNITION_" + name + " is neither true nor false")
}

// cmdline is the file with the kernel's arguments.
func (s surroundings) cmdline() string { return s.or("KERNEL_CMDLINE_PATH", "/proc/cmdline") }

// dirs are the directories of configs, the highest first.
func (s surroundings) dirs() []providers.SystemDir {
	var list []providers.SystemDir
	for _, dir := range []string{
		s.or("SYSTEM_RUNTIME_CONFIG_DIR", "/run/ignition"),
		s.or("SYSTEM_LOCAL_CONFIG_DIR", "/etc/ignition"),
		s.or("SYSTEM_CONFIG_DIR", "/usr/lib/ignition"),
	} {
		list = append(list, providers.SystemDir{Path: dir, FS: os.DirFS(dir)})
	}
	return list
}

// programVariables are the programs that we run and Ignition has a variable for.
var programVariables = map[string]string{
	"GROUPADD_CMD": "groupadd", "GROUPDEL_CMD": "groupdel", "GROUPMOD_CMD": "groupmod",
	"USERADD_CMD": "useradd", "USERDEL_CMD": "userdel", "USERMOD_CMD": "usermod",
	"MDADM_CMD": "mdadm", "MOUNT_CMD": "mount", "PARTX_CMD": "partx", "SGDISK_CMD": "sgdisk", "WIPEFS_CMD": "wipefs",
	"MODPROBE_CMD": "modprobe", "UDEVADM_CMD": "udevadm", "SYSTEMCTL_CMD": "systemctl", "SETFILES_CMD": "setfiles",
	"BTRFS_MKFS_CMD": "mkfs.btrfs", "EXT4_MKFS_CMD": "mkfs.ext4", "SWAP_MKFS_CMD": "mkswap", "VFAT_MKFS_CMD": "mkfs.vfat", "XFS_MKFS_CMD": "mkfs.xfs",
	"CLEVIS_CMD": "clevis", "CRYPTSETUP_CMD": "cryptsetup",
	"KARGS_CMD": initrd.KernelArgumentsHelper,
}

// onto gives a machine the programs that the environment names, and its PATH: a
// distribution may have its own in front of all others. What Ignition calls by another
// name than we do is called by that: an initrd that was made for Ignition has no other.
func (s surroundings) onto(m *initrd.Machine) {
	m.Instead = map[string]string{"mkfs.vfat": "mkfs.fat"}
	for variable, program := range programVariables {
		if other := s["IGNITION_"+variable]; other != "" {
			m.Instead[program] = other
		}
	}
	var dirs []string
	for _, d := range append(filepath.SplitList(s["PATH"]), m.Programs...) {
		if filepath.IsAbs(d) && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	m.Programs = dirs
}

// facts completes what was frozen by what is so under this name: the caller decides
// that this is a first boot, and with it that what the config erases may be erased;
// systemd mounts the root.
func (i *ignition) facts(f stages.Facts) (stages.Facts, error) {
	f.Boot, f.Placed, f.Root, f.SystemdRoot, f.SystemdUsr = stages.First, true, i.root, true, true
	f.Result, f.ResultFile = true, i.around.or("RESULT_FILE_PATH", initrd.ResultFile)
	f.Cmdline, f.BootID = i.around.cmdline(), i.around.or("BOOT_ID_PATH", "")
	if i.around["IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT"] == "" {
		return f, nil // where the target's sshd looks for them
	}
	f.AuthorizedKeys = "file"
	fragment, err := i.around.truth("WRITE_AUTHORIZED_KEYS_FRAGMENT", true)
	if fragment {
		f.AuthorizedKeys = "fragment"
	}
	return f, err
}

// containerMarks are the files by which a container is known, beside the variable
// container: those of podman and docker.
var containerMarks = []string{"/run/.containerenv", "/.dockerenv"}

// inContainer says whether this process runs in one.
func (s surroundings) inContainer(marks []string) bool {
	return s["container"] != "" || slices.ContainsFunc(marks, func(name string) bool {
		_, err := os.Stat(name)
		return err == nil
	})
}
