package config

import (
	"fmt"
	"reflect"
	"slices"
)

// Floor compares what the image's base fragments set for policy, measure and
// verity with what the user's config sets. It may make it stricter; what makes
// it looser is an Error that names both documents. Where there is none,
// Merge(base, user) holds the stricter value of each.
//
//	policy.disks          wipe < keep
//	policy.onFailure      emergency < reboot < poweroff
//	policy.keep           plain < sealed < digest
//	measure.required      false < true
//	verity.onCorruption   ignore < restart < panic
//
// What has no order may not be changed: policy.run, measure.pcr, and of a verity
// device root hash, signature, devices, error correction and mount. What the
// base does not say the user may say, other verity devices among it.
func Floor(base, user Config, baseName, userName string) Report {
	var r Report
	for _, l := range loosened(base.Pilotlight, user.Pilotlight) {
		r = append(r, l.fault(baseName, userName, user.Pilotlight))
	}
	return r
}

// loosening is one thing that a section sets looser than the base.
type loosening struct {
	device string // the name of a verity device, or ""
	place  place  // within the entry of that device, or within the section
	hint   string
}

// at returns where the section that loosens does so.
func (l loosening) at(s Section) place {
	p := place{sectionKey}
	if l.device != "" {
		p = p.then("verity").item(s.index(gap{list: "verity", name: l.device}))
	}
	return p.then(l.place...)
}

// in tells whether the same thing is among others.
func (l loosening) in(others []loosening) bool {
	return slices.ContainsFunc(others, func(o loosening) bool {
		return o.device == l.device && slices.Equal(o.place, l.place)
	})
}

func (l loosening) fault(baseName, userName string, user Section) Fault {
	return Fault{
		Severity: Error, Document: userName, Path: l.at(user).String(),
		Message: fmt.Sprintf("%s loosens what %s of the image sets", quoted(userName), quoted(baseName)),
		Hint:    l.hint,
	}
}

func loosened(base, user Section) []loosening {
	var out []loosening
	device := ""
	note := func(at place, hint string) {
		out = append(out, loosening{device, at, hint})
	}
	ordered(base.Policy.Disks, user.Policy.Disks, place{"policy", "disks"}, note, DisksWipe, DisksKeep)
	ordered(base.Policy.OnFailure, user.Policy.OnFailure, place{"policy", "onFailure"}, note, OnFailureEmergency, OnFailureReboot, OnFailurePoweroff)
	ordered(base.Policy.Keep, user.Policy.Keep, place{"policy", "keep"}, note, KeepPlain, KeepSealed, KeepDigest)
	fixed(base.Policy.Run, user.Policy.Run, place{"policy", "run"}, note)
	fixed(base.Measure.PCR, user.Measure.PCR, place{"measure", "pcr"}, note)
	if said(base.Measure.Required) && user.Measure.Required != nil && !*user.Measure.Required {
		note(place{"measure", "required"}, "true, or leave it out")
	}
	for _, b := range base.Verity {
		i := slices.IndexFunc(user.Verity, func(u Verity) bool { return u.Name == b.Name })
		if i < 0 {
			continue
		}
		u := user.Verity[i]
		device = b.Name
		fixed(b.RootHash, u.RootHash, place{"rootHash"}, note)
		fixed(b.RootHashSignature, u.RootHashSignature, place{"rootHashSignature"}, note)
		fixed(b.Data, u.Data, place{"data"}, note)
		fixed(b.Hash, u.Hash, place{"hash"}, note)
		fixed(b.FEC, u.FEC, place{"fec"}, note)
		if u.Mount != "" && u.Mount != b.MountOrDefault() {
			note(place{"mount"}, "leave it as the image has it")
		}
		// The default protects, so what weakens it is looser than silence.
		ordered(b.OnCorruptionOrDefault(), u.OnCorruption, place{"onCorruption"}, note, CorruptionIgnore, CorruptionRestart, CorruptionPanic)
	}
	return out
}

// ordered notes a user's value that stands before the base's in the order of
// values, loosest first. Neither said is no loosening.
func ordered[T ~string](base, user T, at place, note func(place, string), loosestFirst ...T) {
	b, u := slices.Index(loosestFirst, base), slices.Index(loosestFirst, user)
	if b >= 0 && u >= 0 && u < b {
		note(at, fmt.Sprintf("the image sets %s: this or stricter, or leave it out", base))
	}
}

// fixed notes a user's value that is not the base's, if both say one.
func fixed[T any](base, user T, at place, note func(place, string)) {
	b, u := reflect.ValueOf(&base).Elem(), reflect.ValueOf(&user).Elem()
	if !b.IsZero() && !u.IsZero() && !reflect.DeepEqual(base, user) {
		note(at, "leave it as the image has it")
	}
}
