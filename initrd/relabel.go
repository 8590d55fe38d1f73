package initrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Relabel wishes that what a boot wrote below the target root has the SELinux contexts
// that the target's own policy gives: an initrd has loaded no policy, so what is made
// there has none, and a policy that enforces would let nobody read it.
//
// A target whose /etc/selinux/config is not there, or says that SELinux is disabled,
// wants nothing (selinux_config(5)). Otherwise setfiles(8) does it, that of this initrd, or
// where it has none that of the target in a chroot. Neither is an error where the config
// says enforcing, and a warning where it says permissive.
//
// Files and links are labelled whatever they have, directories only where they have no
// context: that is how one is known which was made in this boot, and setfiles enters it
// with all that is below it on the same file system. So the paths need not name the
// directories that had to be made above them.
//
// It is opaque: only setfiles knows what the policy says, and what the policy gives no
// context never has one. A receipt for this boot says that it ran, and which of the paths
// were left without; a file that was written again since has none, and is another state.
type Relabel struct {
	Root  string
	Paths []string // absolute, as the target sees them; what is not there is passed over
	// Users are users who were made or whose SSH keys were written. The target's passwd says where
	// their homes are.
	Users []string
	// Swept are directories in which programs wrote what only they know: whatever has no
	// context there is labelled too.
	Swept []string
	// Except are directories that are not entered, since their files are seen under other
	// names: the upper layer of an overlay.
	Except []string
}

func (r Relabel) String() string { return "SELinux contexts of what was written" }

// Touches is the whole target: all that is written is written before.
func (r Relabel) Touches() []string { return []string{path.Join("/", r.Root)} }

// ErrNoLabels is the fault of a target that wants SELinux contexts, where nothing can give them.
var ErrNoLabels = errors.New("what was written gets no SELinux contexts")

// Resolve reads the target's SELinux config, and the contexts of the paths.
func (r Relabel) Resolve(look Look) (State, Act, error) {
	data, err := readFile(look, r.Root, selinuxConfig, selinuxConfigLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return So, nil, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	policy, mode := parseSELinux(string(data))
	if mode == "disabled" || policy == "" && mode == "" || len(r.Paths)+len(r.Users)+len(r.Swept) == 0 {
		return So, nil, nil
	}
	tool, err := r.tool(look, policy)
	if errors.Is(err, ErrNoLabels) && mode != "enforcing" {
		return Moot, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	now, err := r.gather(look)
	if err != nil {
		return unresolved, nil, err
	}
	if look.Done(r.receipt(policy, now)) {
		return So, nil, nil
	}
	return NotSo, setfiles{r, tool, policy, now.give}, nil
}

// tool finds the program, and the contexts that it shall read.
func (r Relabel) tool(look Look, policy string) (program string, err error) {
	if policy == "" || policy != path.Base(policy) || strings.HasPrefix(policy, ".") {
		return "", fmt.Errorf("%w: %s names no policy by SELINUXTYPE=", ErrNoLabels, selinuxConfig)
	}
	contexts := fileContexts(policy)
	if _, err := look.Stat(r.Root, contexts); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: the policy has no %s", ErrNoLabels, contexts)
	} else if err != nil {
		return "", err
	}
	if look.Has("setfiles") {
		return "setfiles", nil
	}
	for _, p := range []string{"/usr/sbin/setfiles", "/sbin/setfiles", "/usr/bin/setfiles"} {
		e, err := look.Stat(r.Root, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", err
		case e.Mode.IsRegular() && e.Mode&0o111 != 0:
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: neither this initrd nor %s has setfiles", ErrNoLabels, path.Join("/", r.Root))
}

const (
	selinuxConfig      = "/etc/selinux/config"
	selinuxConfigLimit = 1 << 20 // bytes
)

// fileContexts is where a policy says which context a path has (file_contexts(5)).
func fileContexts(policy string) string {
	return path.Join("/etc/selinux", policy, "contexts/files/file_contexts")
}

// parseSELinux reads selinux_config(5) as libselinux does: of SELINUXTYPE the last line
// counts, of SELINUX the first one. The mode is enforcing, permissive, disabled, or "" where
// it is none of them.
func parseSELinux(text string) (policy, mode string) {
	said := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch strings.ToUpper(key) {
		case "SELINUXTYPE":
			policy = strings.TrimSpace(value)
		case "SELINUX":
			value = strings.ToLower(value)
			for _, m := range []string{"enforcing", "permissive", "disabled"} {
				if !said && strings.HasPrefix(value, m) {
					mode = m
				}
			}
			said = true
		}
	}
	return policy, mode
}

// labels is how paths stand.
type labels struct {
	give []string // what setfiles shall label
	bare []string // what has no context
}

// gather looks at the paths and at the directories above them.
func (r Relabel) gather(look Look) (labels, error) {
	var now labels
	directories := map[string]Labelled{}
	homes, err := r.homes(look)
	if err != nil {
		return labels{}, err
	}
	for _, p := range append(homes, r.Paths...) {
		at, err := look.Context(r.Root, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return labels{}, err
		}
		if at.Context == "" {
			now.bare = append(now.bare, at.Path)
		}
		top := ""
		if !at.Dir {
			// By its name too: in an overlay of two disks a file has another device number
			// than its directory, and setfiles takes it for what is mounted there.
			now.give = append(now.give, at.Path)
		} else if at.bare() {
			top = at.Path
		}
		for dir := path.Dir(at.Path); dir != "/"; dir = path.Dir(dir) {
			above, known := directories[dir]
			if !known {
				if above, err = look.Context(r.Root, dir); err != nil {
					return labels{}, err
				}
				directories[dir] = above
			}
			if !above.bare() {
				break
			}
			top = dir
		}
		if top != "" {
			now.give = append(now.give, top)
		}
	}
	for _, dir := range r.Swept {
		found, err := look.Bare(r.Root, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return labels{}, err
		}
		now.give, now.bare = append(now.give, found...), append(now.bare, found...)
	}
	now.give, now.bare = sorted(now.give), sorted(now.bare)
	return now, nil
}

// homes are the homes of the users, with the files of SSH keys.
func (r Relabel) homes(look Look) (paths []string, err error) {
	if len(r.Users) == 0 {
		return nil, nil
	}
	data, err := readFile(look, r.Root, "/etc/passwd", 16<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) == 7 && path.IsAbs(f[5]) && slices.Contains(r.Users, f[0]) {
			ssh := path.Join(f[5], ".ssh")
			paths = append(paths, f[5], ssh, path.Join(ssh, "authorized_keys"), path.Join(ssh, "authorized_keys.d/ignition"))
		}
	}
	return paths, nil
}

// Labelled is what lies at a path, with its SELinux context.
type Labelled struct {
	Path     string // with all links above it followed, as the root sees it
	Context  string // "" for none
	Dir      bool
	ReadOnly bool // its file system is
}

// bare says that nobody has given a context who could have.
func (l Labelled) bare() bool { return l.Context == "" && !l.ReadOnly }

// receipt names what was asked for, and what was left without a context.
func (r Relabel) receipt(policy string, now labels) Receipt {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q %q %q", r.Root, policy, r.Paths, r.Users, now.bare)
	return Receipt{Name: "relabel:" + hex.EncodeToString(sum.Sum(nil)[:16])}
}

// setfiles gives contexts to paths.
type setfiles struct {
	Relabel
	tool   string // a name of this initrd's, or a path of the target's
	policy string
	paths  []string
}

func (s setfiles) String() string {
	return fmt.Sprintf("run setfiles for %d paths by the policy %s", len(s.paths), s.policy)
}

// Effect is a change: contexts that were there are set anew.
func (s setfiles) Effect() (Effect, []string) { return Changes, nil }

// argv is the argument vector: verbose, whole contexts, names from standard input that end
// with NUL. setfiles stays on one file system by itself.
func (s setfiles) argv() []string {
	argv := []string{s.tool, "-vF0"}
	for _, dir := range s.Except {
		argv = append(argv, "-e", s.sees(dir))
	}
	if !s.inTarget() {
		argv = append(argv, "-r", s.sees("/"))
	}
	return append(argv, s.sees(fileContexts(s.policy)), "-f", "-")
}

// sees is a path of the target as setfiles sees it.
func (s setfiles) sees(p string) string {
	if s.inTarget() {
		return p
	}
	return path.Join("/", s.Root, p)
}

func (s setfiles) inTarget() bool { return strings.HasPrefix(s.tool, "/") }

// names is what setfiles reads: each is a pattern of glob(7) to it, with braces.
func (s setfiles) names() []byte {
	quote := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`, `}`, `\}`, `,`, `\,`)
	var b strings.Builder
	for _, p := range s.paths {
		b.WriteString(quote.Replace(s.sees(p)))
		b.WriteByte(0)
	}
	return []byte(b.String())
}

func (s setfiles) do(ctx context.Context, m *Machine) error {
	if len(s.paths) > 0 {
		p := Program{Argv: s.argv(), Stdin: s.names()}
		if s.inTarget() {
			p.Chroot = path.Join("/", s.Root)
		}
		_, said, err := m.runBelow(ctx, s.Root, p)
		if err != nil {
			return err
		}
		if said != "" {
			m.say("setfiles: %s", said)
		}
	}
	now, err := s.gather(m.Look(ctx))
	if err != nil {
		return err
	}
	m.leave(s.receipt(s.policy, now))
	return nil
}
