package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// treePackages are what a tree holds beside Debian's essential packages: what the initrd is built from, what stage 2 boots, and
// what makes the disk. The names in ?name() are apt patterns: these libraries carry their version in the package's name.
var treePackages = []string{
	"systemd", "systemd-repart", "systemd-cryptsetup", "systemd-boot-efi", "systemd-ukify", "udev", "kmod", "dbus",
	"linux-image-cloud-amd64", "cryptsetup-bin", "dmsetup", "e2fsprogs", "dosfstools", "mtools", "erofs-utils",
	"libtss2-tcti-device0", "?name(^libtss2-esys-)", "?name(^libtss2-mu-)", "?name(^libtss2-rc0)",
}

// suitePackages are further packages by suite: what one of treePackages holds in another suite.
var suitePackages = map[string][]string{
	"sid": {"systemd-tpm"}, // split off in 262
}

// unpacked leaves documentation out of the tree, which halves the time to make it.
var unpacked = []string{"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"}

// treeRecipe counts changes of how a tree is made.
const treeRecipe = "1"

// Tree is an installed distribution in a folder. It is shared: nobody writes to it.
type Tree struct {
	Dir   string // its root folder
	Suite string // "trixie", "sid"
	key   string
}

// Tree gives a Debian tree of this suite, made with mmdebstrap from the mirror that the machine's own apt uses.
func (c Cache) Tree(ctx context.Context, suite string) (Tree, error) {
	return c.tree(ctx, suite, "tree-"+suite, slices.Concat(treePackages, suitePackages[suite]))
}

// tree makes a tree of these packages, an entry of this kind.
func (c Cache) tree(ctx context.Context, suite, kind string, packages []string) (Tree, error) {
	recipe := slices.Concat([]string{treeRecipe, suite}, packages, unpacked)
	dir, err := c.entry(ctx, kind, recipe, func(ctx context.Context, dir string) error {
		mirror, err := debianMirror("/etc/apt", "/etc/os-release")
		if err != nil {
			return err
		}
		c.Log.Printf("making a Debian %s tree (%s)", suite, kind)
		started := time.Now()
		args := []string{"--variant=essential", "--format=directory", "--include=" + strings.Join(packages, ","),
			// sid's lists are valid for a week, and a mirror that is a snapshot is older. Signatures are verified all the same.
			`--aptopt=Acquire::Check-Valid-Until "false"`}
		for _, pattern := range unpacked {
			args = append(args, "--dpkgopt=path-exclude="+pattern)
		}
		source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main", mirror, suite)
		cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, suite, filepath.Join(dir, "root"), source)...)
		// Debian's kernel package would otherwise spend ten seconds on an initramfs that nobody boots.
		cmd.Env = append(os.Environ(), "INITRD=No", "DEBIAN_FRONTEND=noninteractive")
		if _, err := output(cmd, "mmdebstrap"); err != nil {
			return err
		}
		c.Log.Printf("tree made in %.0f s", time.Since(started).Seconds())
		return nil
	})
	if err != nil {
		return Tree{}, err
	}
	return Tree{Dir: filepath.Join(dir, "root"), Suite: suite, key: filepath.Base(dir)}, nil
}

// Release is the version of the tree's kernel, as uname -r prints it in the guest. A tree holds exactly one.
func (t Tree) Release() (string, error) {
	dirs, err := filepath.Glob(filepath.Join(t.Dir, "usr/lib/modules/*/modules.dep"))
	if err != nil {
		return "", err
	}
	if len(dirs) != 1 {
		return "", fmt.Errorf("tree %s: %d kernels with modules, want one", t.Suite, len(dirs))
	}
	return filepath.Base(filepath.Dir(dirs[0])), nil
}

// Kernel is the path of the tree's kernel image.
func (t Tree) Kernel() (string, error) {
	release, err := t.Release()
	if err != nil {
		return "", err
	}
	path := filepath.Join(t.Dir, "boot", "vmlinuz-"+release)
	_, err = os.Stat(path)
	return path, err
}

// mountAndRun makes the tree a place where programs run: a mount of its own, since who changes mounts needs / to be one, the work folder on /mnt, the
// machine's devices and processes, empty /run and temporary folders. All of it in a mount namespace of its own, gone when the program ends. Its arguments: work folder, tree, program and arguments.
const mountAndRun = `mount --bind "$2" "$2"
mount --bind "$1" "$2/mnt"
mount --rbind /dev "$2/dev"
mount -t proc proc "$2/proc"
mount -t sysfs -o ro sysfs "$2/sys"
for d in run tmp var/tmp; do mount -t tmpfs tmpfs "$2/$d"; done
root=$2; shift 2
exec chroot "$root" "$@"`

// Command is a program of the tree, to be run within it as root. The folder work is its /mnt, and the only thing outside of
// temporary folders that it can write without changing the tree. SOURCE_DATE_EPOCH is set, so that what it makes carries no date of today.
func (t Tree) Command(ctx context.Context, work string, name string, args ...string) *exec.Cmd {
	argv := append([]string{"--mount", "sh", "-ec", mountAndRun, "sh", work, t.Dir, name}, args...)
	cmd := exec.CommandContext(ctx, "unshare", argv...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/tmp", "SOURCE_DATE_EPOCH=" + epoch, "TZ=UTC"}
	return cmd
}

// epoch is the one date in everything that is made, in seconds since 1970: FAT cannot hold a date before 1980.
const epoch = "1000000000"

// run is Command, run; its standard output is returned.
func (t Tree) run(ctx context.Context, work string, name string, args ...string) ([]byte, error) {
	return output(t.Command(ctx, work, name, args...), name)
}

// ErrNoMirror says that the machine's apt sources name no Debian mirror.
var ErrNoMirror = errors.New("no Debian mirror in the machine's apt sources")

// debianMirror is the address from which the machine installs its own release: the first of its apt sources whose suites hold
// the release's codename (or stable, testing, unstable, sid) and whose components hold main. Formats: sources.list(5), os-release(5).
func debianMirror(apt, osRelease string) (string, error) {
	release, err := os.ReadFile(osRelease)
	if err != nil {
		return "", err
	}
	suites := []string{"stable", "testing", "unstable", "sid"}
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			suites = append(suites, strings.Trim(name, `"'`))
		}
	}
	files, err := filepath.Glob(filepath.Join(apt, "sources.list.d", "*"))
	if err != nil {
		return "", err
	}
	for _, file := range append(files, filepath.Join(apt, "sources.list")) {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		var sources []source
		switch filepath.Ext(file) {
		case ".sources":
			sources = deb822Sources(string(text))
		case ".list":
			sources = oneLineSources(string(text))
		}
		for _, s := range sources {
			if slices.Contains(s.components, "main") && slices.ContainsFunc(s.suites, func(suite string) bool { return slices.Contains(suites, suite) }) {
				return s.uri, nil
			}
		}
	}
	return "", ErrNoMirror
}

// source is one entry of apt's sources that has binary packages.
type source struct {
	uri                string
	suites, components []string
}

// oneLineSources reads "deb [options] uri suite component..." lines.
func oneLineSources(text string) []source {
	var sources []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if fields := strings.Fields(rest); len(fields) >= 3 {
			sources = append(sources, source{uri: fields[0], suites: fields[1:2], components: fields[2:]})
		}
	}
	return sources
}

// deb822Sources reads stanzas of "Field: value" lines; a line that begins with a blank continues the field before it.
func deb822Sources(text string) []source {
	var sources []source
	stanza := map[string]string{}
	last := ""
	end := func() {
		uris := strings.Fields(stanza["uris"])
		enabled := !strings.EqualFold(strings.TrimSpace(stanza["enabled"]), "no")
		if enabled && len(uris) > 0 && slices.Contains(strings.Fields(stanza["types"]), "deb") {
			sources = append(sources, source{uri: uris[0], suites: strings.Fields(stanza["suites"]), components: strings.Fields(stanza["components"])})
		}
		stanza, last = map[string]string{}, ""
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			stanza[last] += " " + line
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(name)
			stanza[last] = value
		}
	}
	end()
	return sources
}
