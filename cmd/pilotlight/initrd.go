package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"pilotlight/initrd"
	"pilotlight/initrd/image"
	"pilotlight/initrd/units"
)

// contents is what pilotlight needs in an initrd: its units, and what the table of
// kinds of step says of programs, libraries and modules.
func contents(binary, base string) (image.Contents, error) {
	var c image.Contents
	var err error
	c.Binary = binary
	if binary == "" {
		if c.Binary, err = os.Executable(); err != nil {
			return c, err
		}
	}
	files, err := units.Files()
	if err != nil {
		return c, err
	}
	for _, f := range files {
		c.Files = append(c.Files, image.File{Path: f.Path, Mode: 0o644, Data: f.Data})
	}
	for _, l := range units.Links() {
		c.Links = append(c.Links, image.Link(l))
	}
	if base != "" {
		list, err := baseFragments(base)
		if err != nil {
			return c, err
		}
		for _, d := range list {
			c.Files = append(c.Files, image.File{Path: baseDir + "/" + d.Name[len(initrd.BasePrefix):], Mode: 0o644, Data: d.Bytes})
		}
	}
	for _, k := range initrd.Kinds {
		c.Programs = append(c.Programs, k.Programs...)
		c.Libraries = append(c.Libraries, k.Libraries...)
		c.Modules = append(c.Modules, k.Modules...)
	}
	// What a platform shows through the kernel.
	// For what comes before any config: the firmware device of QEMU, and drives that hold one.
	c.Modules = append(c.Modules, "qemu_fw_cfg", "isofs")
	for _, list := range []*[]string{&c.Programs, &c.Libraries, &c.Modules} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return c, nil
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// wishes are the flags for what an initrd is to have beyond what pilotlight's own
// table asks for.
type wishes struct {
	binary, base          string
	ca, programs, modules list
	with                  list
}

func (w *wishes) flags(f *flag.FlagSet) {
	f.StringVar(&w.binary, "binary", "", "`file` to pack as pilotlight; this program if not given")
	f.StringVar(&w.base, "base", "", "`directory` of base fragments to put into the image")
	f.Var(&w.ca, "ca", "PEM `file` of certificate authorities for https; system for those of the tree")
	f.Var(&w.programs, "program", "one more program, a `name` or path, such as mkfs.xfs")
	f.Var(&w.modules, "module", "one more kernel module, a `name`")
	f.Var(&w.with, "with", "what `part` of a config needs more than the usual: raid for storage.raid, clevis for clevis in storage.luks")
}

func (w *wishes) contents() (image.Contents, error) {
	c, err := contents(w.binary, w.base)
	c.Programs = append(c.Programs, w.programs...)
	c.Modules = append(c.Modules, w.modules...)
	for _, name := range w.with {
		programs, modules, err := initrd.Extra(name)
		if err != nil {
			return c, misused("--with: %v", err)
		}
		c.Programs, c.Modules = append(c.Programs, programs...), append(c.Modules, modules...)
	}
	return c, err
}

func addonVerb() verb {
	return verb{
		name: "initrd addon",
		usage: "[--to INITRD | --for INITRD] [--root TREE] [--output FILE] [--kernel VERSION] [--ca FILE]... [--program NAME]... [--module NAME]... [--with PART]... [--base DIR] " +
			"| --check INITRD",
		short: "make an addition to a systemd initrd, or say what one lacks",
		long: `The addition is a small cpio archive: this program, its units and links. Give it to the
boot loader beside the distribution's initrd, or append it to that file, which must end
on a multiple of 4 bytes.

--to makes it for one initrd, of dracut or mkosi for example, and writes that one with
the addition appended; --for writes the addition alone. With --root, what that initrd
lacks comes along: programs, libraries, kernel modules and units of TREE, which must be
what the initrd was made from (/ for that of this system).

--check reads an initrd and names what it lacks for pilotlight. Exit 1 if there is
anything.

example: pilotlight initrd addon --to /boot/initrd.img --root / --output /boot/pilotlight.img
example: pilotlight initrd addon --output pilotlight.cpio
example: pilotlight initrd addon --check /boot/initrd.img`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			var w wishes
			w.flags(f)
			output := f.String("output", "-", "`file` to write, - for standard output")
			to := f.String("to", "", "`initrd` to append the addition to")
			alone := f.String("for", "", "`initrd` that the addition is for")
			root := f.String("root", "", "the `tree` that the initrd was made from")
			kernel := f.String("kernel", "", "kernel `version` whose modules are brought, where the initrd has none and TREE several")
			check := f.String("check", "", "`initrd` to look at instead")
			asJSON := f.Bool("json", false, "print JSON (with --check)")
			quiet := f.Bool("quiet", false, "say nothing of what is brought")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				switch {
				case *to != "" && *alone != "":
					return misused("--to and --for exclude each other")
				case *root != "" && *to == "" && *alone == "":
					return misused("--root needs --to or --for: what is brought depends on the initrd")
				case *check != "" && (*to != "" || *alone != ""):
					return misused("--check makes no addition")
				}
				parts, err := w.contents()
				if err != nil {
					return err
				}
				switch {
				case *check != "":
					return c.check(*check, parts, *asJSON)
				case *to == "" && *alone == "":
					return c.writeTo(*output, 0o644, func(out io.Writer) error { return image.Addon(out, parts, w.ca...) })
				}
				in, err := os.Open(cmp.Or(*to, *alone))
				if err != nil {
					return err
				}
				defer in.Close()
				a := image.Addition{Initrd: in, Tree: *root, Kernel: *kernel, CA: w.ca, Contents: parts}
				write := a.Write
				if *to != "" {
					write = a.Join
				}
				var brought []string
				err = c.writeTo(*output, 0o644, func(out io.Writer) (err error) {
					brought, err = write(out)
					return err
				})
				if err != nil {
					return fmt.Errorf("%s: %w", in.Name(), err)
				}
				if !*quiet {
					for _, name := range brought {
						c.show.note("brings %s", name)
					}
				}
				return nil
			}
		},
	}
}

// check says what an initrd lacks.
func (c *call) check(name string, parts image.Contents, asJSON bool) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	missing, err := image.Check(in, parts)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if asJSON {
		err = c.show.json(map[string]any{"initrd": name, "missing": append([]image.Missing{}, missing...)})
	} else {
		c.show.missing(name, missing)
	}
	if err == nil && len(missing) > 0 {
		return errShown
	}
	return err
}

func buildVerb() verb {
	return verb{
		name: "initrd build", usage: "--root TREE [--output FILE] [--kernel VERSION] [--ca FILE]... [--program NAME]... [--module NAME]... [--with PART]... [--base DIR]", short: "make a whole initrd from a distribution's tree",
		long: `TREE is an unpacked distribution with systemd 257 or newer, as mmdebstrap makes it. It is
only read, and nothing of it is run.

example: pilotlight initrd build --root trixie/ --output initrd.img`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			var w wishes
			w.flags(f)
			root := f.String("root", "", "the `tree`")
			output := f.String("output", "-", "`file` to write, - for standard output")
			kernel := f.String("kernel", "", "kernel `version`; the only one in the tree if not given")
			level := f.Int("level", 0, "zstd `level`, 1 to 22; 0 is the densest")
			quiet := f.Bool("quiet", false, "say nothing about the way")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				if *root == "" {
					return misused("--root is needed")
				}
				parts, err := w.contents()
				if err != nil {
					return err
				}
				b := image.Build{Tree: *root, Kernel: *kernel, CA: w.ca, Contents: parts, Level: *level}
				if !*quiet {
					b.Progress = c.show.tell
				}
				var s image.Summary
				err = c.writeTo(*output, 0o644, func(out io.Writer) (err error) {
					s, err = b.Write(out)
					return err
				})
				if err == nil && !*quiet {
					c.show.note("pilotlight: kernel %s, %d files, %.1f MB, %.1f MB packed", s.Kernel, s.Files, float64(s.Unpacked)/1e6, float64(s.Packed)/1e6)
				}
				return err
			}
		},
	}
}

func ukiVerb() verb {
	return verb{
		name: "initrd uki", usage: "--kernel FILE --initrd FILE --output FILE [--root TREE] [--cmdline TEXT]", short: "join kernel and initrd in a unified kernel image",
		long: `systemd's ukify does it: that of TREE, or of this machine. Arguments after -- are ukify's.

example: pilotlight initrd uki --root trixie/ --kernel trixie/vmlinuz --initrd initrd.img \
           --cmdline console=ttyS0 --output linux.efi`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			var u image.UKI
			f.StringVar(&u.Kernel, "kernel", "", "the kernel, a `file`")
			f.StringVar(&u.Initrd, "initrd", "", "the initrd, a `file`")
			f.StringVar(&u.Output, "output", "", "`file` to write")
			f.StringVar(&u.Tree, "root", "", "the `tree` that has ukify and the stub")
			f.StringVar(&u.Cmdline, "cmdline", "", "kernel command line, a `text`")
			f.StringVar(&u.OSRelease, "os-release", "", "os-release `file`; the tree's if not given")
			f.StringVar(&u.Uname, "uname", "", "kernel `version`; searched for in the kernel if not given")
			return func(c *call) error {
				if u.Kernel == "" || u.Initrd == "" || u.Output == "" {
					return misused("--kernel, --initrd and --output are needed")
				}
				u.Args = c.args
				return u.Write(c.ctx)
			}
		},
	}
}

// missing prints what an initrd lacks.
func (s show) missing(name string, list []image.Missing) {
	for _, m := range list {
		s.line("%s: lacks %s", name, m)
	}
	if len(list) == 0 {
		s.line("%s has all that pilotlight needs", name)
	}
}
