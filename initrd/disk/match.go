package disk

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// A Match is what is known of the one disk that is meant. Zero fields are not asked
// for; those that are set must all hold.
type Match struct {
	// Serial and Model are compared whole and case by case, but runs of spaces and
	// underscores are one and the same, since udev writes one for the other.
	Serial, Model string
	// WWN is compared without regard to case and to how its kind is written: 0x…, naa.…,
	// eui.… and the wwn-0x… of a link in /dev/disk/by-id are the same.
	WWN string
	// Transport is one of the words of Disk.Transport.
	Transport string
	// SizeMin and SizeMax, in bytes, are inclusive.
	SizeMin, SizeMax int64
}

// Matches says whether a disk has everything that is asked for.
func (m Match) Matches(d Disk) bool {
	same := func(asked, said string, plain func(string) string) bool {
		return asked == "" || plain(said) != "" && plain(asked) == plain(said)
	}
	return same(m.Serial, d.Serial, plain) &&
		same(m.Model, d.Model, plain) &&
		same(m.WWN, d.WWN, plainWWN) &&
		(m.Transport == "" || m.Transport == d.Transport) &&
		(m.SizeMin == 0 || d.Size >= m.SizeMin) &&
		(m.SizeMax == 0 || d.Size <= m.SizeMax)
}

// String gives what is asked for, in the words of a config.
func (m Match) String() string {
	var words []string
	for _, w := range [...][2]string{
		{"serial", m.Serial}, {"wwn", m.WWN}, {"model", m.Model}, {"transport", m.Transport},
	} {
		if w[1] != "" {
			words = append(words, w[0]+" "+strconv.Quote(w[1]))
		}
	}
	if m.SizeMin != 0 {
		words = append(words, "sizeMin "+formatSize(m.SizeMin))
	}
	if m.SizeMax != 0 {
		words = append(words, "sizeMax "+formatSize(m.SizeMax))
	}
	return strings.Join(words, ", ")
}

// plain is a text in which space and underscore are the same.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '_' || unicode.IsSpace(r) }), " ")
}

func plainWWN(s string) string {
	s = strings.TrimPrefix(strings.ToLower(s), "wwn-")
	for _, prefix := range [...]string{"0x", "naa.", "eui."} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return rest
		}
	}
	return s
}

// A SelectError says why there is not exactly one disk that was meant.
type SelectError struct {
	Match      Match
	Candidates []Disk // the disks that match: none, or more than one
	Looked     []Disk // all disks that were looked at
}

// named bounds the disks that an error names, so that it can be read on a console.
const named = 16

func (e *SelectError) Error() string {
	if (e.Match == Match{}) {
		return "no property to choose a disk by: at least one of serial, wwn, model, transport, sizeMin, sizeMax is needed"
	}
	if len(e.Candidates) > 0 {
		return fmt.Sprintf("%d disks match %s, and only one may: %s", len(e.Candidates), e.Match, nameDisks(e.Candidates))
	}
	if len(e.Looked) == 0 {
		return fmt.Sprintf("no disk matches %s: there is no disk at all", e.Match)
	}
	return fmt.Sprintf("no disk matches %s: there are %s", e.Match, nameDisks(e.Looked))
}

func nameDisks(disks []Disk) string {
	var names []string
	for _, d := range disks[:min(len(disks), named)] {
		names = append(names, d.String())
	}
	if more := len(disks) - named; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// Select gives the one disk that matches. None, several, or nothing asked for is a
// *SelectError; that only one disk is there does not make it the one that was meant.
func Select(disks []Disk, m Match) (Disk, error) {
	e := &SelectError{Match: m, Looked: disks}
	if (m == Match{}) {
		return Disk{}, e
	}
	for _, d := range disks {
		if m.Matches(d) {
			e.Candidates = append(e.Candidates, d)
		}
	}
	if len(e.Candidates) != 1 {
		return Disk{}, e
	}
	return e.Candidates[0], nil
}

// sizeUnits are bytes and the suffixes of their multiples, each 1024 times the one before.
const sizeUnits = "BKMGTPE"

// formatSize writes a size for people: 1536 is 1.5 KiB.
func formatSize(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	unit, value := 0, float64(n)
	for value >= 1024 && unit < len(sizeUnits)-1 {
		value /= 1024
		unit++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + sizeUnits[unit:unit+1] + "iB"
}
