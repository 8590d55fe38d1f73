package config

import (
	"errors"
	"strings"

	"pilotlight/config/resource"
)

// contents reads the resource that an entry must have.
func (d *document) contents(w *wireResource, at place) resource.Resource {
	if w == nil {
		d.fault(at, "is missing", `{"inline": "…"} or {"source": "…"}`)
		return resource.Resource{}
	}
	return d.resource(*w, at)
}

func (d *document) resource(w wireResource, at place) resource.Resource {
	r := resource.Resource{}
	switch {
	case w.Source != nil && w.Inline != nil:
		d.fault(at.then("inline"), "source and inline cannot both be set", "take one of them out")
	case w.Inline != nil:
		inline := resource.NewSecret(*w.Inline)
		r.Inline = &inline
		if said(w.Compression) != "" {
			d.fault(at.then("compression"), "has no meaning for inline contents", "take it out")
		}
		if len(w.HTTPHeaders) > 0 {
			d.fault(at.then("httpHeaders"), "has no meaning for inline contents", "take it out")
		}
	case w.Source != nil:
		r.Source = d.source(*w.Source, at.then("source"))
	default:
		d.fault(at, "says no contents", `"inline" or "source"`)
	}
	r.Compression = enum(d, w.Compression, at.then("compression"), resource.None, resource.Gzip, resource.Zstd)
	if w.Verification.Hash != nil {
		r.Hash = d.hash(*w.Verification.Hash, at.then("verification", "hash"))
	}
	for i, h := range w.HTTPHeaders {
		r.Headers = append(r.Headers, d.header(h, at.then("httpHeaders").item(i)))
	}
	if len(r.Headers) > 0 && !r.Source.IsZero() && !r.Source.TakesHeaders() {
		d.fault(at.then("httpHeaders"), "has no meaning for a "+r.Source.Scheme()+": URL", "take it out")
	}
	if w.Source != nil && w.Verification.Hash == nil && r.Source.Remote() {
		d.warn(at.then("source"), uncovered, uncoveredHint)
	}
	return r
}

const (
	uncovered     = "what it holds is not covered by the measurement"
	uncoveredHint = "add verification.hash"
)

func (d *document) source(s string, at place) resource.URL {
	if s == "" {
		d.fault(at, "is empty", `empty contents are {"inline": ""}`)
	}
	u, err := resource.ParseURL(s)
	d.unusable(at, err)
	return u
}

// unusable reports an error of package resource, which holds no secrets.
func (d *document) unusable(at place, err error) {
	if e, ok := errors.AsType[*resource.Error](err); ok {
		d.fault(at, (&resource.Error{What: e.What, Err: e.Err, Cause: e.Cause}).Error(), e.Hint)
	} else if err != nil {
		d.fault(at, "cannot be used", "")
	}
}

func (d *document) hash(s string, at place) resource.Hash {
	h, err := resource.ParseHash(s)
	d.unusable(at, err)
	return h
}

func (d *document) header(w wireHeader, at place) resource.Header {
	switch {
	case said(w.Name) == "":
		d.fault(at.then("name"), "is missing", "")
	case !madeOf(*w.Name, letters+digits+headerExtra, 256):
		d.fault(at.then("name"), "is not the name of an HTTP header", "")
	}
	switch {
	case said(w.Value) == "":
		d.fault(at.then("value"), "is missing", "")
	case strings.ContainsFunc(*w.Value, notInHeader):
		d.fault(at.then("value"), "may not contain line breaks or control characters", "")
	}
	return resource.Header{Name: said(w.Name), Value: resource.NewSecret(said(w.Value))}
}

// notInHeader tells what may not stand in the value of a header: it could end
// the header and begin another one.
func notInHeader(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
