package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	translate1 "github.com/coreos/ignition/v2/config/v3_1/translate"
	translate2 "github.com/coreos/ignition/v2/config/v3_2/translate"
	translate3 "github.com/coreos/ignition/v2/config/v3_3/translate"
	translate4 "github.com/coreos/ignition/v2/config/v3_4/translate"
	translate5 "github.com/coreos/ignition/v2/config/v3_5/translate"

	types0 "github.com/coreos/ignition/v2/config/v3_0/types"
	types1 "github.com/coreos/ignition/v2/config/v3_1/types"
	types2 "github.com/coreos/ignition/v2/config/v3_2/types"
	types3 "github.com/coreos/ignition/v2/config/v3_3/types"
	types4 "github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/coreos/ignition/v2/config/v3_5/types"
	"github.com/coreos/ignition/v2/config/validate"
	"github.com/coreos/vcontext/report"

	"pilotlight/config/resource"
)

// newest is the newest spec that this program understands.
const newest = "3.5.0"

// ignition reads and checks Ignition's part of a document.
func (d *document) ignition(keys Severity) types.Config {
	version, known := d.ignitionVersion()
	text := d.sift()
	var c types.Config
	var r report.Report
	switch {
	case known && !slices.Contains(specVersions(), version):
		// Of another spec nothing can be said.
		return types.Config{}
	case known && d.bare():
		c.Ignition.Version = newest
	default:
		c = d.typed(version, text, keys, &r)
	}
	c.Storage.Files, c.Systemd.Units = d.sifted.files.full(c.Storage.Files), d.sifted.units.full(c.Systemd.Units)
	d.resources(c)
	d.library(r)
	return c
}

// specVersions are those of the spec that are understood.
func specVersions() []string { return []string{"3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", newest} }

// typed reads a document with the types of the spec that its version names. Where that is
// missing or misspelt, the newest is the best guess for the other faults.
func (d *document) typed(version string, text []byte, keys Severity, r *report.Report) types.Config {
	switch version {
	case "3.0.0":
		return translate5.Translate(translate4.Translate(translate3.Translate(translate2.Translate(translate1.Translate(spec[types0.Config](d, text, keys, r))))))
	case "3.1.0":
		return translate5.Translate(translate4.Translate(translate3.Translate(translate2.Translate(spec[types1.Config](d, text, keys, r)))))
	case "3.2.0":
		return translate5.Translate(translate4.Translate(translate3.Translate(spec[types2.Config](d, text, keys, r))))
	case "3.3.0":
		return translate5.Translate(translate4.Translate(spec[types3.Config](d, text, keys, r)))
	case "3.4.0":
		return translate5.Translate(spec[types4.Config](d, text, keys, r))
	}
	return spec[types.Config](d, text, keys, r)
}

// ignitionVersion returns ignition.version, and whether it names a spec at all,
// be it one that is not understood. It reports the latter.
func (d *document) ignitionVersion() (version string, known bool) {
	at := place{"ignition", "version"}
	top, _ := d.root.get("ignition")
	m, there := top.value.get("version")
	version = m.value.string()
	var major, minor, patch int
	n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	old, ofSpec1 := d.root.get("ignitionVersion")
	switch {
	case ofSpec1:
		d.add(finding{severity: Error, offset: old.start, place: place{old.key},
			message: "this is a config of Ignition's spec 1, which is not supported", hint: "write it for spec " + newest})
		return version, true
	case there && m.value.kind == nullKind:
		d.fault(at, "is null", `give it a value, such as "`+newest+`"`)
	case there && m.value.kind != text:
		// The shape of the value is reported with all others.
	case version == "" && there && d.root.blank():
		d.fault(at, "is empty, as is the whole config: a server such as matchbox answers so if it could not parse its own file",
			"look at the server's log; matchbox reads specs up to 3.4.0 only")
	case version == "":
		d.fault(at, "is missing", `add "ignition": {"version": "`+newest+`"}`)
	case slices.Contains(specVersions(), version):
		return version, true
	case n == 3 && major < 3:
		d.fault(at, fmt.Sprintf("this is a config of Ignition's spec %d, which is not supported", major), "ign-converter translates it to spec 3")
		return version, true
	case n == 3 && (major > 3 || minor > 5):
		d.fault(at, "is newer than this version of pilotlight understands", "the newest spec that it understands is "+newest)
		return version, true
	default:
		d.fault(at, "is not a version of Ignition's spec", "3.0.0 to "+newest)
	}
	return version, false
}

// spec decodes a document into the types of one spec and checks it by that
// spec's rules.
func spec[T any](d *document, text []byte, keys Severity, r *report.Report) T {
	shape{d: d, keys: keys, null: true, extra: sectionKey}.check(d.root, reflect.TypeFor[T](), nil)
	var c T
	if err := json.Unmarshal(text, &c); err != nil && len(d.broken) == 0 {
		d.fault(nil, "cannot be decoded", "")
	}
	s := shortened{d: d, number: map[string]int{}}
	s.shorten(reflect.ValueOf(&c).Elem(), nil)
	*r = validate.ValidateWithContext(c, nil)
	s.restore()
	return c
}

// shortened is what was put aside while the library looks at a config. It
// decodes each data: URL letter by letter to find out whether it could, which
// takes longer than everything else; resource.ParseURL has the same rules.
type shortened struct {
	d     *document
	where []*string
	what  []string
	// number of each different URL: equal ones must stay equal and others
	// different, since the library looks for duplicates among them.
	number map[string]int
}

func (s *shortened) shorten(v reflect.Value, at place) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			s.shorten(v.Elem(), at)
		}
	case reflect.Slice:
		for i := range v.Len() {
			s.shorten(v.Index(i), at.item(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			field := v.Field(i)
			source, isText := field.Interface().(*string)
			switch {
			case name == "source" && isText && source != nil && strings.HasPrefix(*source, "data:"):
				s.aside(source, at.then(name))
			case name == "":
				s.shorten(field, at)
			default:
				s.shorten(field, at.then(name))
			}
		}
	}
}

func (s *shortened) aside(source *string, at place) {
	_, err := resource.ParseURL(*source)
	s.d.unusable(s.d.sifted.original(at), err)
	n, known := s.number[*source]
	if !known {
		n = len(s.number)
		s.number[*source] = n
	}
	s.where = append(s.where, source)
	s.what = append(s.what, *source)
	*source = fmt.Sprintf("data:,%d", n)
}

func (s *shortened) restore() {
	for i, p := range s.where {
		*p = s.what[i]
	}
}

// library takes over what the library found, save where something was found
// already: ours is the closer word on sources and hashes.
func (d *document) library(r report.Report) {
	ours := map[string]bool{}
	for _, f := range d.found {
		if f.severity == Error {
			ours[f.place.String()] = true
		}
	}
	// It looks at some values twice, once more for the object around them.
	type told struct{ at, message string }
	deeper := map[told]bool{}
	places := make([]place, len(r.Entries))
	for i, e := range r.Entries {
		for _, element := range e.Context.Path {
			places[i] = append(places[i], fmt.Sprint(element))
		}
		places[i] = d.sifted.original(places[i])
		if n := len(places[i]); n > 0 {
			deeper[told{places[i][:n-1].String(), e.Message}] = true
		}
	}
	for i, e := range r.Entries {
		at := places[i]
		if slices.Equal(at, place{"ignition", "version"}) || deeper[told{at.String(), e.Message}] || ours[at.String()] {
			continue
		}
		message, hint := ignitionMessage(e.Message)
		if e.Kind.IsFatal() {
			d.fault(at, message, hint)
		} else {
			d.warn(at, message, hint)
		}
	}
}

// resources checks what the library leaves open in the sources that will be
// fetched.
func (d *document) resources(c types.Config) {
	check := func(r types.Resource, at place, covered bool) {
		if r.Source != nil && !strings.HasPrefix(*r.Source, "data:") {
			u, err := resource.ParseURL(*r.Source)
			d.unusable(at.then("source"), err)
			if !covered && r.Verification.Hash == nil && u.Remote() {
				d.warn(at.then("source"), uncovered, uncoveredHint)
			}
		}
		if r.Verification.Hash != nil {
			d.hash(*r.Verification.Hash, at.then("verification", "hash"))
		}
		for i, h := range r.HTTPHeaders {
			if h.Name != "" && !madeOf(h.Name, letters+digits+headerExtra, 256) {
				d.fault(at.then("httpHeaders").item(i).then("name"), "is not the name of an HTTP header", "")
			}
			if h.Value != nil && strings.ContainsFunc(*h.Value, notInHeader) {
				d.fault(at.then("httpHeaders").item(i).then("value"), "may not contain line breaks or control characters", "")
			}
		}
	}
	ignition := place{"ignition"}
	// Configs that are pulled in are measured themselves.
	check(c.Ignition.Config.Replace, ignition.then("config", "replace"), true)
	for i, r := range c.Ignition.Config.Merge {
		check(r, ignition.then("config", "merge").item(i), true)
	}
	if said(c.Ignition.Config.Replace.Source) != "" && len(c.Ignition.Config.Merge) > 0 {
		d.warn(ignition.then("config", "merge"), "has no effect beside replace, which drops this document", "")
	}
	for i, r := range c.Ignition.Security.TLS.CertificateAuthorities {
		check(r, ignition.then("security", "tls", "certificateAuthorities").item(i), false)
	}
	for key, proxy := range map[string]*string{"httpProxy": c.Ignition.Proxy.HTTPProxy, "httpsProxy": c.Ignition.Proxy.HTTPSProxy} {
		// The library says which schemes a proxy can have.
		if _, err := resource.ParseURL(said(proxy)); errors.Is(err, resource.ErrSyntax) {
			d.unusable(ignition.then("proxy", key), err)
		}
	}
	if said(c.Ignition.Timeouts.HTTPResponseHeaders) < 0 {
		d.fault(ignition.then("timeouts", "httpResponseHeaders"), "is negative", "seconds; 0 for no limit")
	}
	if said(c.Ignition.Timeouts.HTTPTotal) < 0 {
		d.fault(ignition.then("timeouts", "httpTotal"), "is negative", "seconds; 0 for no limit")
	}
	d.volumes(c.Storage.Luks)
	for i, l := range c.Storage.Luks {
		check(l.KeyFile, place{"storage", "luks"}.item(i).then("keyFile"), false)
	}
	for i, f := range c.Storage.Files {
		at := place{"storage", "files"}.item(i)
		check(f.Contents, at.then("contents"), false)
		for j, r := range f.Append {
			check(r, at.then("append").item(j), false)
		}
	}
}

// Resource converts a resource of Ignition's part. A source of "" is empty
// contents, and none at all the zero resource, as in Ignition's spec; a header
// without a value, which only takes one away in merging, is left out. It fails
// if r did not come out of Parse.
func Resource(r types.Resource) (resource.Resource, error) {
	var out resource.Resource
	var err error
	switch {
	case r.Source == nil:
	case *r.Source == "":
		empty := resource.NewSecret("")
		out.Inline = &empty
	default:
		if out.Source, err = resource.ParseURL(*r.Source); err != nil {
			return resource.Resource{}, err
		}
	}
	if r.Verification.Hash != nil {
		if out.Hash, err = resource.ParseHash(*r.Verification.Hash); err != nil {
			return resource.Resource{}, err
		}
	}
	out.Compression = resource.Compression(said(r.Compression))
	for _, h := range r.HTTPHeaders {
		if h.Value != nil {
			out.Headers = append(out.Headers, resource.Header{Name: h.Name, Value: resource.NewSecret(*h.Value)})
		}
	}
	return out, nil
}
