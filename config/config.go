// Package config is what a user may ask for.
//
// A config is a JSON document: an Ignition config of spec 3.0.0 to 3.5.0
// (https://coreos.github.io/ignition/specs/) with an optional top-level object
// `pilotlight`. Ignition's part is read with Ignition's own types, validation
// and translation to the newest spec, so that it means here what it means there.
// Without the section a config is that of an Ignition machine.
//
// # From bytes to a value
//
//	bytes --Parse--> Config, Report                  one document, every fault of it at once
//	documents --Collect--> Config                    with all that they pull in, measured before it is parsed
//
// [Parse] never changes its mind about a document because of another one.
// [Collect] follows ignition.config.replace and merge, level by level, joins
// the documents by [Merge], and holds the user's against those of the image by
// [Floor]. [Wrap] puts the section of a document into such a child, where tools
// that rewrite configs leave it alone.
//
// # Faults
//
// Whatever is wrong is a [Fault] with line, column, path, message and hint.
// Unknown keys, keys that stand twice and keys that this version does not build
// are errors in the section. In Ignition's part the first two are warnings, as
// there (errors with Options.Strict), and what is not built is an error too: no
// part of a config is ever ignored in silence.
//
// # Secrets
//
// Contents, password hashes, header values and what a URL carries besides
// scheme, host and path are secret. In the section they are types that do not
// print; Ignition's types are plain strings, therefore [Config] and [Document]
// print as a summary. No fault and no error of this package repeats a value that
// could be secret.
package config

import (
	"bytes"
	"fmt"

	"github.com/coreos/ignition/v2/config/v3_5/types"
)

// sectionKey is the key of our object in a config.
const sectionKey = "pilotlight"

// Config is a config that was checked. Nobody changes it afterwards.
type Config struct {
	// Ignition is Ignition's part, translated to spec 3.5.0.
	Ignition types.Config
	// Pilotlight is ours.
	Pilotlight Section
}

// String returns a summary without any value of the config.
func (c Config) String() string {
	i, p := c.Ignition, c.Pilotlight
	return fmt.Sprintf("config (%d files, %d directories, %d links, %d units; pilotlight: %d repart, %d verity, %d network, %d etc)",
		len(i.Storage.Files), len(i.Storage.Directories), len(i.Storage.Links), len(i.Systemd.Units),
		len(p.Repart), len(p.Verity), len(p.Network), len(p.Etc.Tmpfiles)+len(p.Etc.Sysusers)+len(p.Etc.Credentials))
}

// Format prints what String returns, for every verb: Ignition's part holds
// secrets as plain strings.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// Options change how documents are judged.
type Options struct {
	// Strict makes errors of unknown and duplicate keys in Ignition's part.
	Strict bool
	// Settings, if not nil, is called by Collect with what the documents read so far
	// say about fetching: before each level is fetched, and within one where a document
	// changes it for those after it.
	Settings func(Settings)

	unsifted bool // the library is shown all of a document; see sifted
}

// Parse reads one document and reports everything that is wrong with it, sorted
// by position. If the report is fatal the config is zero.
//
// What a document may leave to another one that it is merged with, such as the
// root hash of a verity device, is a warning if it lacks.
func Parse(raw []byte, o Options) (Config, Report) {
	c, d := parse(raw, o)
	for _, g := range d.incomplete {
		at := place{sectionKey, g.list}.item(c.Pilotlight.index(g))
		d.warn(at, g.message+", unless another document of the config changes that", g.hint)
	}
	r := d.report()
	if r.Fatal() {
		return Config{}, r
	}
	return c, r
}

// parse is Parse without the judgement on what is incomplete.
func parse(raw []byte, o Options) (Config, *document) {
	d := &document{raw: raw, broken: map[string]bool{}, unsifted: o.unsifted}
	root, syntax := readJSON(raw)
	if syntax != nil {
		if hint := foreign(raw); hint != "" {
			syntax.hint = hint
		}
		d.add(finding{severity: Error, offset: syntax.at, message: syntax.message, hint: syntax.hint})
		return Config{}, d
	}
	d.root = root
	if root.kind != object {
		d.fault(nil, fmt.Sprintf("a config is an object, not %s", root.kind), "")
		return Config{}, d
	}
	keys := Warning
	if o.Strict {
		keys = Error
	}
	c := Config{Ignition: d.ignition(keys)}
	// A second section is an error, like any key that stands there twice; only
	// one is read.
	for _, m := range root.members {
		if m.key == sectionKey {
			c.Pilotlight = d.section(m.value)
			break
		}
	}
	return c, d
}

// foreign recognises what people give by mistake in place of a config.
func foreign(raw []byte) string {
	start := bytes.TrimLeft(raw, " \t\r\n")
	begins := func(s string) bool { return bytes.HasPrefix(start, []byte(s)) }
	switch {
	case len(start) == 0:
		return "the document is empty"
	case begins("\xef\xbb\xbf"):
		return "the document begins with a byte order mark: save it without"
	case begins("\x1f\x8b"):
		return "this is gzip, and was not decompressed"
	case begins("#cloud-config"), begins("#!"), begins("Content-Type: multipart"):
		return "this is user data for cloud-init, not a config"
	case begins("<"):
		return "this looks like a page of a web server, not a config"
	case begins("variant:"), begins("---"), bytes.Contains(start[:min(len(start), 4096)], []byte("\nvariant:")):
		return "this looks like Butane: butane translates it to a config"
	}
	return ""
}
