package config

import (
	"reflect"
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_5/types"
)

// Merge joins a document with one that it pulls in, or a base fragment with
// what comes over it. What the child says wins; what it does not say stays.
//
// Ignition's part is merged by Ignition's rules. In ours, lists are joined by
// name: the parent's entries in their order, then what is new of the child. Two
// entries of repart or verity with one name are joined field by field, where a
// child's device takes the place of a parent's match and the reverse; a
// drop-in or credential takes the place of its namesake as a whole.
func Merge(parent, child Config) Config {
	p, c := parent.Pilotlight, child.Pilotlight
	return Config{
		Ignition: mergeIgnition(parent.Ignition, child.Ignition),
		Pilotlight: Section{
			Version: orDefault(c.Version, p.Version),
			Policy: Policy{
				Run:       orDefault(c.Policy.Run, p.Policy.Run),
				Disks:     orDefault(c.Policy.Disks, p.Policy.Disks),
				OnFailure: orDefault(c.Policy.OnFailure, p.Policy.OnFailure),
				Keep:      orDefault(c.Policy.Keep, p.Policy.Keep),
				Media:     orNil(c.Policy.Media, p.Policy.Media),
			},
			Repart: join(p.Repart, c.Repart, mergeRepart),
			Verity: join(p.Verity, c.Verity, mergeVerity),
			Luks:   join(p.Luks, c.Luks, mergeLuks),
			Root:   orDefault(c.Root, p.Root),
			Measure: Measure{
				PCR:      orNil(c.Measure.PCR, p.Measure.PCR),
				Required: orNil(c.Measure.Required, p.Measure.Required),
			},
			Network: join(p.Network, c.Network, replace),
			Etc: Etc{
				Upper:       orDefault(c.Etc.Upper, p.Etc.Upper),
				Tmpfiles:    join(p.Etc.Tmpfiles, c.Etc.Tmpfiles, replace),
				Sysusers:    join(p.Etc.Sysusers, c.Etc.Sysusers, replace),
				Credentials: join(p.Etc.Credentials, c.Etc.Credentials, replace),
			},
		},
	}
}

// mergeIgnition merges by Ignition's rules. Over nothing a document is what it is, which
// Ignition finds out field by field: with many files that is felt. For the same reason it
// is not shown the files of which only one of both says anything.
func mergeIgnition(parent, child types.Config) types.Config {
	if reflect.ValueOf(parent).IsZero() {
		return child
	}
	in, over := nodes(parent.Storage), nodes(child.Storage)
	old, more := parent.Storage.Files, child.Storage.Files
	parent.Storage.Files = filesOf(old, func(f types.File) bool { return over[f.Path] > 0 })
	child.Storage.Files = filesOf(more, func(f types.File) bool { return in[f.Path] > 0 })
	merged := v3_5.Merge(parent, child)
	if len(parent.Storage.Files) == len(old) && len(child.Storage.Files) == len(more) {
		return merged
	}
	both := map[string]types.File{}
	for _, f := range merged.Storage.Files {
		both[f.Path] = f
	}
	// The parent's in their order, then what is new.
	all := make([]types.File, 0, len(old)+len(more))
	for _, f := range slices.Concat(old, more) {
		if one, there := both[f.Path]; there {
			all = append(all, one)
			delete(both, f.Path)
		} else if in[f.Path] == 0 || over[f.Path] == 0 {
			all = append(all, f)
		}
	}
	merged.Storage.Files = all
	return merged
}

// nodes counts the entries of storage by their paths.
func nodes(s types.Storage) map[string]int {
	count := make(map[string]int, len(s.Files)+len(s.Directories)+len(s.Links))
	for _, f := range s.Files {
		count[f.Path]++
	}
	for _, d := range s.Directories {
		count[d.Path]++
	}
	for _, l := range s.Links {
		count[l.Path]++
	}
	return count
}

// filesOf are those files that are such.
func filesOf(files []types.File, such func(types.File) bool) []types.File {
	return slices.DeleteFunc(slices.Clone(files), func(f types.File) bool { return !such(f) })
}

func mergeRepart(p, c Repart) Repart {
	r := Repart{
		Name:             c.Name,
		Device:           p.Device,
		Match:            p.Match,
		Empty:            orDefault(c.Empty, p.Empty),
		Seed:             orDefault(c.Seed, p.Seed),
		FactoryReset:     p.FactoryReset,
		factoryResetSaid: p.factoryResetSaid || c.factoryResetSaid,
		TPM2PCRs:         p.TPM2PCRs,
		KeyFile:          orNil(c.KeyFile, p.KeyFile),
		Definitions:      join(p.Definitions, c.Definitions, replace),
	}
	if c.Device != "" || c.Match != nil {
		r.Device, r.Match = c.Device, c.Match
	}
	if c.TPM2PCRs != nil {
		r.TPM2PCRs = c.TPM2PCRs
	}
	if c.FactoryReset || c.factoryResetSaid {
		r.FactoryReset = c.FactoryReset
	}
	return r
}

func mergeVerity(p, c Verity) Verity {
	return Verity{
		Name:              c.Name,
		RootHash:          orDefault(c.RootHash, p.RootHash),
		Data:              orDefault(c.Data, p.Data),
		Hash:              orDefault(c.Hash, p.Hash),
		RootHashSignature: orNil(c.RootHashSignature, p.RootHashSignature),
		OnCorruption:      orDefault(c.OnCorruption, p.OnCorruption),
		FEC:               orNil(c.FEC, p.FEC),
		Mount:             orDefault(c.Mount, p.Mount),
	}
}

func replace[T any](_, child T) T { return child }

func orNil[T any](v, d *T) *T {
	if v == nil {
		return d
	}
	return v
}

func join[T named](parent, child []T, merge func(p, c T) T) []T {
	var out []T
	for _, p := range parent {
		i := slices.IndexFunc(child, func(c T) bool { return c.key() == p.key() })
		if i >= 0 {
			p = merge(p, child[i])
		}
		out = append(out, p)
	}
	for _, c := range child {
		if !slices.ContainsFunc(parent, func(p T) bool { return p.key() == c.key() }) {
			out = append(out, c)
		}
	}
	return out
}
