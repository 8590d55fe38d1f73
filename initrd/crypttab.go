package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// Crypttab wishes that the target's /etc/crypttab (crypttab(5)) has a line for each
// encrypted volume of the config. A line of that name that is there already becomes ours.
type Crypttab struct {
	Root    string
	Volumes []CrypttabLine
}

// CrypttabLine is how the host unlocks a volume.
type CrypttabLine struct {
	Name    string
	Device  string   // as the config names it; the line has the volume's UUID
	Key     string   // path of the key file, "none"
	Options []string // beside "luks"
}

func (c Crypttab) String() string {
	var names []string
	for _, v := range c.Volumes {
		names = append(names, v.Name)
	}
	return "entries in /etc/crypttab for " + strings.Join(names, ", ")
}

const crypttabPath = "/etc/crypttab"

// Touches is the file.
func (c Crypttab) Touches() []string { return []string{path.Join("/", c.Root, crypttabPath)} }

// Reads is what the lines speak of.
func (c Crypttab) Reads() []string {
	var names []string
	for _, v := range c.Volumes {
		names = append(names, path.Join(VolumesDir, v.Name))
	}
	return names
}

// Resolve compares the lines, with the UUIDs that the volumes have.
func (c Crypttab) Resolve(look Look) (State, Act, error) {
	data, err := readFile(look, c.Root, crypttabPath, fstabLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unresolved, nil, err
	}
	was := before{there: err == nil}
	text, changed := string(data), 0
	for _, v := range c.Volumes {
		line, err := v.line(look)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrNoLUKS) {
			return After, nil, err
		}
		if err != nil {
			return unresolved, nil, err
		}
		with := withLine(text, v.Name, line)
		if with != text {
			text = with
			changed++
		}
	}
	if changed == 0 {
		return So, nil, nil
	}
	return NotSo, crypttab{c, text, changed, was}, nil
}

func (v CrypttabLine) line(look Look) (string, error) {
	node, err := look.Node(v.Device)
	if err != nil {
		return "", err
	}
	header, err := look.LUKS(node)
	if err != nil {
		return "", fmt.Errorf("%s: %w", v.Device, err)
	}
	return fmt.Sprintf("%s UUID=%s %s %s", v.Name, header.UUID, v.Key, strings.Join(append([]string{"luks"}, v.Options...), ",")), nil
}

// withLine gives a crypttab in which the volume of that name has this line and no other.
func withLine(text, name, line string) string {
	var b strings.Builder
	placed := false
	for l := range strings.Lines(text) {
		if f := strings.Fields(l); len(f) > 0 && f[0] == name {
			if !placed {
				b.WriteString(line + "\n")
			}
			placed = true
			continue
		}
		b.WriteString(l)
		if !strings.HasSuffix(l, "\n") {
			b.WriteByte('\n')
		}
	}
	if !placed {
		b.WriteString(line + "\n")
	}
	return b.String()
}

type crypttab struct {
	Crypttab
	text    string
	changed int
	was     before
}

// Effect tells whether there is a file.
func (c crypttab) Effect() (Effect, []string) { return c.was.replaced(crypttabPath) }

func (c crypttab) String() string {
	return fmt.Sprintf("write /etc/crypttab, with %d entries of the config", c.changed)
}

func (c crypttab) do(ctx context.Context, m *Machine) error {
	mode := fs.FileMode(0o600)
	text := resource.NewSecret(c.text)
	file := File{Root: c.Root, Path: crypttabPath, Contents: &resource.Resource{Inline: &text}, Overwrite: true, Mode: &mode}
	return writeFile{File: file}.do(ctx, m)
}
