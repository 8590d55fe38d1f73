package config

import (
	"encoding/hex"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
)

// section reads and checks the `pilotlight` object of a document.
func (d *document) section(n *node) Section {
	at := place{sectionKey}
	shape{d: d, keys: Error}.check(n, reflect.TypeFor[wireSection](), at)
	if n.kind != object {
		return Section{}
	}
	w := decode[wireSection](d, n, at)
	s := Section{
		Version: d.version(w.Version, at.then("version")),
		Policy:  d.policy(w.Policy, at.then("policy")),
		Measure: d.measure(w.Measure, at.then("measure")),
		Root:    enum(d, w.Root, at.then("root"), RootTmpfs),
		Network: d.dropins(w.Network, at.then("network"), ".network", ".netdev", ".link"),
		Etc: Etc{
			Upper:       enum(d, w.Etc.Upper, at.then("etc", "upper"), UpperRun, UpperVar),
			Tmpfiles:    d.dropins(w.Etc.Tmpfiles, at.then("etc", "tmpfiles"), ".conf"),
			Sysusers:    d.dropins(w.Etc.Sysusers, at.then("etc", "sysusers"), ".conf"),
			Credentials: list(w.Etc.Credentials, at.then("etc", "credentials"), d.credential),
		},
		Repart: list(w.Repart, at.then("repart"), d.repart),
		Verity: list(w.Verity, at.then("verity"), d.verity),
		Luks:   list(w.Luks, at.then("luks"), d.luks),
	}
	unique(d, s.Repart, at.then("repart"))
	unique(d, s.Verity, at.then("verity"))
	unique(d, s.Luks, at.then("luks"))
	unique(d, s.Etc.Credentials, at.then("etc", "credentials"))
	d.incomplete = s.gaps()
	return s
}

// sectionVersion is the one version of the section's format.
const sectionVersion = "1"

func (d *document) version(v *string, at place) string {
	switch {
	case v == nil:
		d.fault(at, "is missing", `add "version": "1"`)
	case *v != sectionVersion:
		d.fault(at, "is not a version that this program knows", `it knows "1"`)
	}
	return said(v)
}

func (d *document) policy(w wirePolicy, at place) Policy {
	p := Policy{
		Disks:     enum(d, w.Disks, at.then("disks"), DisksKeep, DisksWipe),
		OnFailure: enum(d, w.OnFailure, at.then("onFailure"), OnFailureEmergency, OnFailureReboot, OnFailurePoweroff),
		Media:     w.Media,
		Keep:      enum(d, w.Keep, at.then("keep"), KeepSealed, KeepPlain, KeepDigest),
	}
	if said(w.Run) == "every-boot" {
		d.fault(at.then("run"), `"every-boot" is not built in this version of pilotlight`, `"first-boot" is`)
	} else {
		p.Run = enum(d, w.Run, at.then("run"), RunFirstBoot)
	}
	return p
}

func (d *document) measure(w wireMeasure, at place) Measure {
	if w.PCR != nil {
		if why := refusedPCR(*w.PCR); why != "" {
			d.fault(at.then("pcr"), why, "12, the default, is the register for configuration; 8, 13, 14 and 23 can be chosen")
		} else if *w.PCR == 23 {
			d.warn(at.then("pcr"), "PCR 23 can be reset by the running system", "12, the default, cannot")
		}
	}
	return Measure(w)
}

func (d *document) repart(w wireRepart, at place) Repart {
	r := Repart{
		Name:             d.name(w.Name, at.then("name"), entryName, `letters, digits, "_", "." and "-", at most 64`),
		Device:           said(w.Device),
		Empty:            enum(d, w.Empty, at.then("empty"), EmptyRefuse, EmptyAllow, EmptyRequire, EmptyForce),
		Seed:             strings.ToLower(said(w.Seed)),
		FactoryReset:     w.FactoryReset != nil && *w.FactoryReset,
		factoryResetSaid: w.FactoryReset != nil,
		TPM2PCRs:         w.TPM2PCRs,
		Definitions:      d.dropins(w.Definitions, at.then("definitions"), ".conf"),
	}
	if w.Device != nil && *w.Device != DeviceBoot {
		d.device(w.Device, at.then("device"), `, or "boot"`)
	}
	if w.Seed != nil && !isUUID(*w.Seed) {
		d.fault(at.then("seed"), "is not a UUID", "8-4-4-4-12 hexadecimal digits")
	}
	for i, pcr := range w.TPM2PCRs {
		if pcr < 0 || pcr > 23 {
			d.fault(at.then("tpm2PCRs").item(i), "there are the PCRs 0 to 23", "")
		}
	}
	if w.KeyFile != nil {
		k := d.resource(*w.KeyFile, at.then("keyFile"))
		r.KeyFile = &k
	}
	if w.Match != nil {
		r.Match = d.match(*w.Match, at.then("match"))
		if w.Device != nil {
			d.fault(at.then("match"), "device and match cannot both be set", "take one of them out")
		}
	}
	return r
}

func (d *document) match(w wireMatch, at place) *Match {
	m := &Match{Serial: said(w.Serial), WWN: said(w.WWN), Model: said(w.Model),
		SizeMin: said(w.SizeMin), SizeMax: said(w.SizeMax), Transport: said(w.Transport)}
	if *m == (Match{}) {
		d.fault(at, "matches any disk", "say serial, wwn, model, sizeMin, sizeMax or transport")
	}
	ok := true
	for _, size := range []struct {
		key   string
		value string
	}{{"sizeMin", m.SizeMin}, {"sizeMax", m.SizeMax}} {
		if _, err := ParseSize(size.value); size.value != "" && err != nil {
			d.fault(at.then(size.key), "is not a size", "a whole number of bytes, or one with the suffix K, M, G or T, as in 100G")
			ok = false
		}
	}
	if least, most, _ := m.SizeBounds(); ok && least > most {
		d.fault(at.then("sizeMin"), "is larger than sizeMax", "")
	}
	return m
}

func (d *document) verity(w wireVerity, at place) Verity {
	v := Verity{
		Name:         d.name(w.Name, at.then("name"), mapperName, `"usr", "root", or another name for /dev/mapper, at most 127 letters, digits, "_", ".", "+" and "-"`),
		RootHash:     strings.ToLower(said(w.RootHash)),
		Data:         d.device(w.Data, at.then("data"), ""),
		Hash:         d.device(w.Hash, at.then("hash"), ""),
		OnCorruption: enum(d, w.OnCorruption, at.then("onCorruption"), CorruptionRestart, CorruptionPanic, CorruptionIgnore),
		Mount:        said(w.Mount),
	}
	if w.RootHash != nil {
		if _, err := hex.DecodeString(v.RootHash); err != nil || len(v.RootHash) < 64 {
			d.fault(at.then("rootHash"), "is not a root hash", "64 hexadecimal digits for SHA-256; at least as many, an even number, for another hash")
		}
	}
	if w.RootHashSignature != nil {
		r := d.resource(*w.RootHashSignature, at.then("rootHashSignature"))
		v.RootHashSignature = &r
	}
	if w.FEC != nil {
		v.FEC = d.fec(*w.FEC, at.then("fec"))
	}
	if w.Mount != nil && (!path.IsAbs(v.Mount) || path.Clean(v.Mount) != v.Mount) {
		d.fault(at.then("mount"), "is not an absolute path in its shortest form", "as in /usr or /opt/app")
	}
	if v.OnCorruption == CorruptionIgnore {
		d.warn(at.then("onCorruption"), "changed data will be read as if it were good", `"restart", the default, and "panic" protect`)
	}
	return v
}

func (d *document) fec(w wireFEC, at place) *FEC {
	f := &FEC{Device: d.device(w.Device, at.then("device"), "")}
	if w.Device == nil {
		d.fault(at.then("device"), "is missing", "the device with the error correction data")
	}
	if w.Offset != nil {
		f.Offset = *w.Offset
	}
	if w.Roots != nil {
		f.Roots = *w.Roots
		if f.Roots < 2 || f.Roots > 24 {
			d.fault(at.then("roots"), "is out of range", "2 to 24")
		}
	}
	return f
}

func (d *document) credential(w wireCredential, at place) Credential {
	c := Credential{
		Name:      said(w.Name),
		Contents:  d.contents(w.Contents, at.then("contents")),
		Encrypted: w.Encrypted != nil && *w.Encrypted,
		Scope:     enum(d, w.Scope, at.then("scope"), ScopeInitrd, ScopeHost),
	}
	switch {
	case c.Name == "":
		d.fault(at.then("name"), "is missing", "")
	case !credentialName(c.Name):
		d.fault(at.then("name"), "is not a credential's name", `printable ASCII without "/" and ":", at most 255 bytes`)
	}
	return c
}

// dropins checks a list of files of one format, which its suffixes tell.
func (d *document) dropins(w []wireDropin, at place, suffixes ...string) []Dropin {
	files := list(w, at, func(w wireDropin, at place) Dropin {
		f := Dropin{Name: said(w.Name), Contents: d.contents(w.Contents, at.then("contents"))}
		switch {
		case f.Name == "":
			d.fault(at.then("name"), "is missing", "a file name that ends in "+strings.Join(suffixes, ", "))
		case !fileName(f.Name):
			d.fault(at.then("name"), "is not a file name", `no "/", no control characters, not hidden, at most 255 bytes`)
		case !slices.Contains(suffixes, path.Ext(f.Name)):
			d.fault(at.then("name"), "has a suffix that systemd would not read", "ends in "+strings.Join(suffixes, ", "))
		case path.Ext(f.Name) == f.Name:
			d.fault(at.then("name"), "is only a suffix", "")
		}
		return f
	})
	unique(d, files, at)
	return files
}

// device checks a path of a device; more is what else the place takes.
func (d *document) device(v *string, at place, more string) string {
	if v != nil && (!strings.HasPrefix(*v, "/dev/") || path.Clean(*v) != *v) {
		d.fault(at, "is not the path of a device", "a path under /dev in its shortest form, as in /dev/disk/by-id/…"+more)
	}
	return said(v)
}

func (d *document) name(v *string, at place, good func(string) bool, hint string) string {
	switch {
	case said(v) == "":
		d.fault(at, "is missing", hint)
	case !good(*v):
		d.fault(at, "is not a name that can be used here", hint)
	}
	return said(v)
}

func said[T any](v *T) T {
	if v == nil {
		var none T
		return none
	}
	return *v
}

// enum checks that a value is one of those allowed. What it holds is not
// repeated: a secret may stand in the wrong place.
func enum[T ~string](d *document, v *string, at place, allowed ...T) T {
	if v == nil || slices.Contains(allowed, T(*v)) {
		return T(said(v))
	}
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	hint := "one of " + strings.Join(slices.DeleteFunc(slices.Clone(words), func(s string) bool { return s == "" }), ", ")
	if len(words) == 1 {
		hint = "only " + words[0] + " can"
	}
	if word := nearest(*v, words); word != "" {
		hint += "; did you mean " + word + "?"
	}
	d.fault(at, "is not a value that can stand here", hint)
	return ""
}

// list converts the items of a list, each with its place.
func list[W, T any](w []W, at place, convert func(W, place) T) []T {
	var l []T
	for i, item := range w {
		l = append(l, convert(item, at.item(i)))
	}
	return l
}

// named is an entry of a list of the section, joined by its name on merging.
type named interface{ key() string }

func (r Repart) key() string     { return r.Name }
func (v Verity) key() string     { return v.Name }
func (f Dropin) key() string     { return f.Name }
func (c Credential) key() string { return c.Name }

// unique reports a name that stands twice in one list.
func unique[T named](d *document, l []T, at place) {
	first := map[string]int{}
	for i, e := range l {
		if j, taken := first[e.key()]; !taken {
			first[e.key()] = i
		} else if e.key() != "" {
			d.fault(at.item(i).then("name"), quoted(e.key())+" stands twice in this list", fmt.Sprintf("the first is item %d", j))
		}
	}
}
