package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kind is a kind of step, with what it needs in the initrd beside this program
// and the kernel.
type Kind struct {
	Step      Step     // the zero value
	Programs  []string // by name, looked up as Machine does
	Libraries []string // that those programs open at run time, by their names below the library directory
	Modules   []string // kernel modules
}

// Needing is a step that needs more than its kind, because of what is wished. What packs an
// initrd cannot know of it: it is asked for by name.
type Needing interface {
	// Needs are programs and kernel modules.
	Needs() (programs, modules []string)
}

// sealing are the libraries that systemd opens to talk to a TPM.
var sealing = []string{"libtss2-esys.so.0", "libtss2-rc.so.0", "libtss2-mu.so.0", "libtss2-tcti-device.so.0", "libcrypto.so.3"}

// Kinds is the table of all kinds of step.
var Kinds = [...]Kind{
	{Step: Array{}}, // mdadm and the module of a level: see Needs
	{Step: AuthorizedKeys{}},
	{Step: ClevisUnlocked{}, Programs: []string{"cryptsetup", "dmsetup"}, Modules: []string{"dm_mod", "dm_crypt"}},
	{Step: Credential{}, Programs: []string{"systemd-creds"}, Libraries: sealing},
	{Step: Crypttab{}},
	{Step: Directory{}},
	{Step: Disabled{}},
	{Step: Extend{}, Modules: []string{"tpm_tis", "tpm_crb"}},
	{Step: File{}},
	{Step: Filesystem{}, Programs: []string{"udevadm"}}, // and what makes it: see Needs
	{Step: Fstab{}},
	{Step: Gone{}},
	{Step: Group{}},
	{Step: Identity{}, Programs: []string{"systemctl"}},
	{Step: KernelArguments{}}, // the helper is the distribution's, and asked for where something is to be changed
	{Step: KeyFile{}},
	{Step: Layout{}},
	{Step: Link{}},
	{Step: Luks{}, Programs: []string{"systemd-cryptsetup", "dmsetup"}, Modules: []string{"dm_mod", "dm_crypt"},
		Libraries: append([]string{"libcryptsetup.so.12", "cryptsetup/libcryptsetup-token-systemd-tpm2.so"}, sealing...)},
	{Step: MadeAnew{}},
	{Step: Mount{}, Programs: []string{"mount", "systemd-fsck", "fsck"}, Modules: []string{"ext4", "erofs", "overlay"}},
	{Step: MountPoint{}},
	{Step: Networkd{}, Programs: []string{"networkctl", "systemctl"}},
	{Step: Preset{}, Programs: []string{"systemctl"}},
	{Step: Recorded{}, Programs: []string{"systemd-creds", "udevadm"}, Libraries: sealing, Modules: []string{"vfat", "nls_cp437", "nls_ascii", "efivarfs"}},
	{Step: Relabel{}}, // setfiles is the target's own where the initrd has none
	{Step: Repart{}, Programs: []string{"systemd-repart"}, Libraries: append([]string{"libfdisk.so.1", "libcryptsetup.so.12"}, sealing...), Modules: []string{"loop"}},
	{Step: Result{}},
	{Step: Spread{}},
	{Step: Sysusers{}, Programs: []string{"systemd-sysusers"}},
	{Step: Tmpfiles{}, Programs: []string{"systemd-tmpfiles"}},
	{Step: Unmasked{}},
	{Step: Unmounted{}},
	{Step: User{}},
	{Step: Verity{}, Programs: []string{"systemd-veritysetup", "dmsetup"}, Libraries: []string{"libcryptsetup.so.12"}, Modules: []string{"dm_mod", "dm_verity"}},
	{Step: Volume{}, Programs: []string{"cryptsetup", "dmsetup"}, Modules: []string{"dm_mod", "dm_crypt"}},
	{Step: Writable{}, Programs: []string{"mount"}, Modules: []string{"overlay"}},
}

// makers are the programs that systemd-repart and we call for a file system, and the
// checkers that systemd-fsck calls; by the word of Format=.
var makers = map[string][]string{
	"ext4":  {"mkfs.ext4", "fsck.ext4"},
	"vfat":  {"mkfs.vfat"},
	"btrfs": {"mkfs.btrfs"},
	"xfs":   {"mkfs.xfs"},
	"erofs": {"mkfs.erofs"},
	"swap":  {"mkswap"},
}

// KindOf gives the kind of a step. Every kind is in the table; a test holds that.
func KindOf(s Step) (Kind, error) {
	for _, k := range Kinds {
		if reflect.TypeOf(k.Step) == reflect.TypeOf(s) {
			return k, nil
		}
	}
	return Kind{}, fmt.Errorf("%T is in no table of kinds", s)
}

// Preflight looks, before the first deed of a boot, for every program and module
// that the steps will need, and names all that are missing.
func (m *Machine) Preflight(steps []Step) error {
	var programs, modules []string
	for _, s := range steps {
		if w, ok := s.(MadeAnew); ok {
			s = w.Step
		}
		k, err := KindOf(s)
		if err != nil {
			return err
		}
		programs = append(programs, k.Programs...)
		modules = append(modules, k.Modules...)
		if r, ok := s.(Repart); ok {
			programs = append(programs, r.programs()...)
		}
		if n, ok := s.(Needing); ok {
			p, m := n.Needs()
			programs, modules = append(programs, p...), append(modules, m...)
		}
	}
	var missing []error
	for _, p := range sorted(programs) {
		if _, err := m.find(p); err != nil {
			missing = append(missing, fmt.Errorf("program %s", p))
		}
	}
	known, err := kernelModules()
	if err != nil {
		return err
	}
	for _, name := range sorted(modules) {
		if !known[name] {
			missing = append(missing, fmt.Errorf("kernel module %s", name))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this initrd lacks what the config needs: %w", errors.Join(missing...))
	}
	return nil
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// programs are what repart will call for the file systems of its definitions.
func (r Repart) programs() []string {
	var list []string
	for _, d := range r.Definitions {
		list = append(list, makers[d.Value("Partition", "Format")]...)
	}
	return list
}

// kernelModules names all modules that are built in, loaded, or on hand.
func kernelModules() (map[string]bool, error) {
	known := map[string]bool{}
	add := func(p string) {
		name, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(p)), ".ko")
		known[strings.ReplaceAll(name, "-", "_")] = true
	}
	loaded, err := os.ReadDir("/sys/module")
	if err != nil {
		return nil, err
	}
	for _, e := range loaded {
		known[e.Name()] = true
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	dir := filepath.Join("/usr/lib/modules", unix.ByteSliceToString(u.Release[:]))
	for _, name := range []string{"modules.builtin", "modules.dep"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			file, _, _ := strings.Cut(line, ":")
			add(file)
		}
	}
	return known, nil
}

// Value gives the last value of a key in a section of the file: a repart.d file
// is an ini file as in systemd.syntax(7), of which the simple part is read.
func (d Definition) Value(section, key string) string {
	value, in := "", ""
	for line := range strings.Lines(string(d.Contents)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			in = strings.Trim(line, "[]")
		default:
			k, v, _ := strings.Cut(line, "=")
			if in == section && strings.TrimSpace(k) == key {
				value = strings.TrimSpace(v)
			}
		}
	}
	return value
}
