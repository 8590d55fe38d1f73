package main

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
)

func manVerb() verb {
	return verb{
		name: "man", usage: "", short: "print the manual page",
		long: `It is pilotlight(8), in the macros of man(7).

example: pilotlight man > /usr/share/man/man8/pilotlight.8`,
		prepare: func(*flag.FlagSet) func(*call) error {
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				return bytesTo(manual(spelledOut(verbs()), version()))(c.show.out)
			}
		},
	}
}

// A described is a name with what there is to say of it.
type described struct{ name, text string }

// knobs are what config.Knobs reads.
func knobs() []described {
	return []described{
		{"pilotlight=no", "Do nothing at all in this boot. An argument only, never a credential."},
		{"pilotlight.platform=ID|auto", "The platform that the machine is on. Not said, ignition.platform.id= counts, else it is detected by what the firmware says."},
		{"pilotlight.media=yes", "Where the firmware does not say it, a drive that is labelled cidata may say that the platform is nocloud. An argument only, never a credential."},
		{"pilotlight.config.url=URL", "Where the config is, instead of where the platform has it. Not said, ignition.config.url= counts."},
		{"pilotlight.config", "The config itself. A credential only, since every program can read the kernel command line."},
		{"pilotlight.run=first-boot", "Overrules policy.run of the config."},
		{"pilotlight.onfailure=emergency|reboot|poweroff", "Overrules policy.onFailure of the config."},
		{"pilotlight.deadline=SPAN", "How long to wait for a config, what it pulls in, and the network: 30, 90s, 5min, 1h 30min. From 1 s to 24 h, 5 min if not said."},
		{"pilotlight.proxy=URL", "The proxy for http and https, in place of the config's."},
		{"pilotlight.firstboot=yes", "Provision anew, whatever the record of an earlier boot says."},
		{"pilotlight.strict=yes", "Unknown and duplicate keys in Ignition's part of a config are faults, not warnings."},
		{"pilotlight.debug=yes", "Say also of each step that there was nothing to do."},
	}
}

// manual is the manual page, in the macros of man(7).
func manual(list []spelled, version string) []byte {
	var m page
	m.line(".TH PILOTLIGHT 8 \"\" %s \"System Administration\"", argument("pilotlight "+version))
	m.section("NAME")
	m.line(`pilotlight \- provision a machine from its initrd`)

	m.section("SYNOPSIS")
	m.line(`.B pilotlight`)
	m.line(`.I VERB`)
	m.line(`.RI [ FLAGS ]`)
	m.line(`.RI [ ARGUMENTS ]`)

	m.section("DESCRIPTION")
	m.text(`pilotlight runs as systemd units in the initrd. It finds the config that is meant for the machine, measures it into
the TPM before a byte of it is read, partitions disks with systemd-repart, opens verity file systems by the root hash in the
config, generates /etc, and hands over by switch-root.`)
	m.text(`Configs are Ignition's, with one more object, "pilotlight", for what Ignition does not know. What a config asks for is
carried out as steps. A step first looks whether its wish is so already, so a boot that was interrupted goes on from where it
was, and a later boot repeats only what is gone with each boot.`)
	m.text(`The verbs below are for people and for the tools that make images: they check a config, show and predict what it would
do, put pilotlight into an initrd, and tell what a boot did. The units run one more, which is not for the command line.`)

	m.section("VERBS")
	for _, s := range list {
		m.verb(s)
	}

	m.section("KERNEL ARGUMENTS")
	m.text(`These are read before a config is known. Each is a kernel argument or, where the command line is silent, a system
credential of the same name. One that is not known, or has a value that is none, stops the boot before anything is changed.`)
	for _, k := range knobs() {
		name, value, given := strings.Cut(k.name, "=")
		tag := bold(name)
		if given {
			tag = bold(name+"=") + italic(value)
		}
		m.tagged(tag, k.text)
	}

	m.section("FILES")
	for _, f := range []described{
		{runDir + "/report.json", "What this boot was told and did, step by step. pilotlight status shows it."},
		{runDir + "/config", "The documents of the config, as they were measured. Every unit of the boot reads these."},
		{"ESP:/pilotlight/record.json", "The record, on the EFI system partition of the machine: how far provisioning came, and by which config."},
		{baseDir, "The base fragments of an image, in its initrd. Configs come over them, and cannot loosen what they set."},
	} {
		m.tagged(italic(f.name), f.text)
	}

	m.section("EXIT STATUS")
	for _, e := range []struct {
		code int
		text string
	}{
		{exitDone, "Done."},
		{exitFailed, "It failed, or what was looked at is not as it should be: a config with faults, an initrd that lacks something, a boot whose provisioning failed."},
		{exitMisuse, "It was called in a way that has no meaning."},
	} {
		m.tagged(bold(fmt.Sprint(e.code)), e.text)
	}

	m.section("SEE ALSO")
	also := []string{"systemd(1) systemd-repart(8) systemd-veritysetup(8) systemd-sysusers(8) systemd-tmpfiles(8)",
		"systemd.system-credentials(7) repart.d(5) bootup(7) kernel-command-line(7) ukify(1)"}
	names := strings.Fields(strings.Join(also, " "))
	for i, name := range names {
		word, chapter, _ := strings.Cut(name, "(")
		tail := "(" + chapter
		if i < len(names)-1 {
			tail += ","
		}
		m.line(".BR %s %s", roff(word), roff(tail))
	}
	return m.Bytes()
}

// A page is a manual page as it is written.
type page struct{ bytes.Buffer }

// line writes a line that is roff already.
func (m *page) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

func (m *page) section(name string) { m.line(".SH %s", argument(name)) }

// text writes a paragraph, which is filled.
func (m *page) text(s string) {
	m.line(".PP")
	m.lines(s)
}

// lines writes plain text, line by line.
func (m *page) lines(s string) {
	for line := range strings.SplitSeq(s, "\n") {
		m.line("%s", roff(line))
	}
}

// tagged writes a paragraph that hangs from a tag, which is roff already.
func (m *page) tagged(tag, text string) {
	m.line(".TP\n%s", tag)
	m.lines(text)
}

// verb writes usage, text and flags of a verb.
func (m *page) verb(s spelled) {
	m.line(".SS %s", argument(s.name))
	m.line(".PP\n%s", strings.TrimSpace(bold("pilotlight "+s.name)+" "+roff(s.usage)))
	m.text(strings.ToUpper(s.short[:1]) + s.short[1:] + ".")
	for paragraph := range strings.SplitSeq(strings.Trim(s.long, "\n"), "\n\n") {
		// Lines that are set by hand stay so.
		if strings.HasPrefix(paragraph, "example:") || strings.Contains("\n"+paragraph, "\n ") {
			m.line(".PP\n.EX")
			m.lines(paragraph)
			m.line(".EE")
		} else {
			m.text(paragraph)
		}
	}
	for _, f := range s.flags {
		tag := bold(f.option())
		if f.value != "" {
			tag += " " + italic(string(f.value))
		}
		m.tagged(tag, f.text)
	}
}

// roff is plain text as roff shows it: what it would take for its own is escaped,
// and what it would set as a typographic sign stays the character that it is.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// argument is one argument of a macro.
func argument(s string) string { return `"` + roff(s) + `"` }

func bold(s string) string { return `\fB` + roff(s) + `\fR` }

func italic(s string) string { return `\fI` + roff(s) + `\fR` }
