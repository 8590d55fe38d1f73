package config

import (
	"path"
	"slices"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_5/types"
)

// plainUnit decodes a unit that no rule of the library has anything to say of. An instance
// and a template are held against each other there, and are left to it.
func plainUnit(n *node) (*types.Unit, bool) {
	u := &types.Unit{}
	ok := n.fields(func(m member) bool {
		switch m.key {
		case "name":
			var name *string
			if !textOf(m.value, &name) {
				return false
			}
			u.Name = *name
			return true
		case "enabled":
			return flagOf(m.value, &u.Enabled)
		case "mask":
			return flagOf(m.value, &u.Mask)
		case "contents":
			return textOf(m.value, &u.Contents)
		}
		return m.value.kind == array && plainDropins(m.value, u)
	}, "name", "enabled", "mask", "contents", "dropins")
	if !ok || strings.Contains(u.Name, "@") || !slices.Contains(unitSuffixes(), path.Ext(u.Name)) {
		return nil, false
	}
	if u.Contents != nil {
		install, ok := wellFormed(*u.Contents)
		if !ok || said(u.Enabled) && *u.Contents != "" && !install {
			return nil, false
		}
	}
	return u, true
}

func unitSuffixes() []string {
	return []string{".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".snapshot", ".slice", ".scope"}
}

func plainDropins(list *node, u *types.Unit) bool {
	u.Dropins = []types.Dropin{}
	names := map[string]bool{}
	for _, item := range list.items {
		var name, contents *string
		ok := item.fields(func(m member) bool {
			if m.key == "name" {
				return textOf(m.value, &name)
			}
			return textOf(m.value, &contents)
		}, "name", "contents")
		if !ok || name == nil || path.Ext(*name) != ".conf" || names[*name] {
			return false
		}
		if contents != nil {
			if _, ok := wellFormed(*contents); !ok {
				return false
			}
		}
		names[*name] = true
		u.Dropins = append(u.Dropins, types.Dropin{Name: *name, Contents: contents})
	}
	return true
}

// wellFormed says whether a unit file (systemd.syntax(7)) is one that the library's reader
// takes, and whether its section [Install] says anything. It knows the usual forms alone:
// what it does not take is read by the library, letter by letter.
func wellFormed(text string) (install, ok bool) {
	// The reader refuses lines of more than 2048 bytes.
	const longest = 2000
	section, continued, any := "", false, false
	for line := range strings.Lines(text) {
		if len(line) > longest || strings.ContainsRune(line, '\r') {
			return false, false
		}
		line = strings.TrimSuffix(line, "\n")
		if continued {
			continued = strings.TrimSpace(line) != "" && strings.HasSuffix(line, `\`)
			continue
		}
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			continue
		}
		switch c := line[0]; {
		case c <= ' ' || c >= 0x7f:
			return false, false
		case c == '#' || c == ';':
			if strings.HasSuffix(strings.TrimRight(line, " "), `\`) {
				return false, false // it goes on in the next line, or not: readers differ
			}
		case c == '[':
			end := strings.IndexByte(line, ']')
			if end < 0 || strings.TrimRight(line[end+1:], " \t") != "" {
				return false, false
			}
			section, any = line[1:end], true
		case !any || !strings.Contains(line, "="):
			return false, false
		default:
			install = install || section == "Install"
			continued = strings.HasSuffix(line, `\`) && strings.TrimSpace(line[strings.IndexByte(line, '=')+1:]) != ""
		}
	}
	return install, true
}
