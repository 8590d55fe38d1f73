package config

import (
	"fmt"
	"slices"
)

// gap is what an entry lacks to be carried out. A document may leave it to
// another of the same config, so it is fatal only when all are merged.
type gap struct {
	list    string // repart, verity or luks
	name    string
	message string
	hint    string
}

// gaps lists what a section lacks.
func (s Section) gaps() []gap {
	var gaps []gap
	for _, r := range s.Repart {
		if r.Device == "" && r.Match == nil {
			gaps = append(gaps, gap{"repart", r.Name, "names no disk", `"device" or "match"`})
		}
		if slices.Contains(r.TPM2PCRs, s.Measure.PCROrDefault()) {
			gaps = append(gaps, gap{"repart", r.Name, fmt.Sprintf("binds data to PCR %d, into which the config is measured: with the next change of the config that data could not be unlocked any more",
				s.Measure.PCROrDefault()), "take it out of tpm2PCRs; PCR 7 holds the state of Secure Boot"})
		}
		if len(r.Definitions) == 0 {
			gaps = append(gaps, gap{"repart", r.Name, "has no definitions", "list repart.d files"})
		}
	}
	mounted := map[string]string{}
	for _, v := range s.Verity {
		if v.RootHash == "" {
			gaps = append(gaps, gap{"verity", v.Name, "has no rootHash", "veritysetup format and systemd-repart print it"})
		}
		m := v.MountOrDefault()
		if other, taken := mounted[m]; taken && m != "" {
			gaps = append(gaps, gap{"verity", v.Name, "is mounted where " + quoted(other) + " is", "change one mount"})
		}
		mounted[m] = v.Name
	}
	return append(gaps, s.luksGaps()...)
}

// index returns where the entry of a gap stands in its list, or -1.
func (s Section) index(g gap) int {
	switch g.list {
	case "repart":
		return slices.IndexFunc(s.Repart, func(r Repart) bool { return r.Name == g.name })
	case "luks":
		return slices.IndexFunc(s.Luks, func(l Luks) bool { return l.Name == g.name })
	}
	return slices.IndexFunc(s.Verity, func(v Verity) bool { return v.Name == g.name })
}
