package matchbox

import (
	"errors"
	"strings"
)

// chainScript has iPXE say who it is. The address is relative, so it works under whatever
// name and port the firmware used. See https://ipxe.org/cfg for the settings.
const chainScript = "#!ipxe\n" +
	"chain ipxe?uuid=${uuid}&mac=${mac:hexhyp}&domain=${domain}&hostname=${hostname}&serial=${serial}&arch=${buildarch:uristring}\n"

// boot is a profile's boot section: what firmware loads.
type boot struct {
	Kernel string   `json:"kernel"` // URL, or path on this server
	Initrd []string `json:"initrd"` // the same; for iPXE with options before it
	Args   []string `json:"args"`   // kernel arguments; iPXE expands ${...} in them
}

// bootScript answers with a script made from the boot section of the request's profile.
func (q *request) bootScript(script func(boot) string) (body, error) {
	_, p, err := q.chooseProfile()
	if err != nil {
		return body{}, err
	}
	if p.Boot == nil {
		return body{}, Problem{File: p.file, Err: errors.New("boot: not there")}
	}
	if p.Boot.Kernel == "" {
		q.warn("%v", Problem{File: p.file, Err: errNoKernel})
	}
	return body{text: []byte(script(*p.Boot))}, nil
}

var errNoKernel = errors.New("boot.kernel: empty, the boot script will fail")

// ipxe is the section as an iPXE script, https://ipxe.org/scripting.
func (b boot) ipxe() string {
	lines := []string{"#!ipxe", strings.Join(append([]string{"kernel " + b.Kernel}, b.Args...), " ")}
	for _, initrd := range b.Initrd {
		lines = append(lines, "initrd "+initrd)
	}
	return strings.Join(append(lines, "boot"), "\n") + "\n"
}

// grub is the section as a GRUB menu: first for EFI, then for BIOS, where the commands of
// the first entry do not exist.
func (b boot) grub() string {
	kernel := strings.Join(append([]string{`"` + b.Kernel + `"`}, b.Args...), " ")
	var initrd strings.Builder
	for _, one := range b.Initrd {
		initrd.WriteString(` "` + one + `"`)
	}
	var menu strings.Builder
	menu.WriteString("default=0\nfallback=1\ntimeout=1\n")
	for _, entry := range []struct{ title, suffix string }{{"EFI", "efi"}, {"BIOS", ""}} {
		menu.WriteString(`menuentry "CoreOS (` + entry.title + `)" {` + "\n" +
			`echo "Loading kernel"` + "\n" +
			"linux" + entry.suffix + " " + kernel + "\n" +
			`echo "Loading initrd"` + "\n" +
			"initrd" + entry.suffix + initrd.String() + "\n" +
			"}\n")
	}
	return menu.String()
}
