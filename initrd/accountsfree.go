package initrd

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// errNoneFree is the fault of a range of ids that has none left.
var errNoneFree = errors.New("no number is free")

// free gives the id for a new entry: above all that are in use, so that nobody gets
// what belonged to somebody who is gone; for a system account below them. Only where
// there is none is a gap taken. So useradd(8) has it.
func free(in span, system bool, t *table, field int, taken func(uint32) bool) (uint32, error) {
	up, down := in.least, in.most
	var below bool
	for _, f := range t.rows() {
		n, err := strconv.ParseUint(f[field], 10, 32)
		if id := uint32(n); err == nil && id >= in.least && id <= in.most {
			up = max(up, id+1)
			if id <= down {
				down, below = id-1, id == in.least
			}
		}
	}
	if system {
		if below {
			down = in.most // the lowest is in use
		}
		for _, from := range []uint32{down, in.most} {
			for id := from; id >= in.least; id-- {
				if !taken(id) {
					return id, nil
				}
			}
		}
		return 0, errNoneFree
	}
	if up > in.most {
		up = in.least
	}
	for _, from := range []uint32{up, in.least} {
		for id := from; id <= in.most; id++ {
			if !taken(id) {
				return id, nil
			}
		}
	}
	return 0, errNoneFree
}

// freeUID gives the number of a new user.
func (a *accounts) freeUID(system bool) (uint32, error) {
	in, err := a.login.ids("UID", system)
	if err != nil {
		return 0, err
	}
	return free(in, system, a.passwd, passwdUID, a.uidTaken)
}

// freeGID gives the number of a new group: the preferred one where there is one and it
// is free and fit.
func (a *accounts) freeGID(system bool, preferred *uint32) (uint32, error) {
	in, err := a.login.ids("GID", system)
	if err != nil {
		return 0, err
	}
	least := in.least
	if system {
		least = 1
	}
	if preferred != nil && *preferred >= least && *preferred <= in.most && !a.gidTaken(*preferred) {
		return *preferred, nil
	}
	return free(in, system, a.group, groupGID, a.gidTaken)
}

// grant adds a range of subordinate ids for a user (subuid(5)): the first that is large
// enough. The file comes out in the order of the ids.
func (a *accounts) grant(t *table, word, user string) error {
	least, most := a.login.number(word+"_MIN", 100000), a.login.number(word+"_MAX", 600100000)
	count := a.login.number(word+"_COUNT", 65536)
	if least < 0 || count >= most || least+count-1 > most {
		return errors.New("login.defs: no range of " + word + " has room")
	}
	type held struct {
		start, count int64
		owner        string
	}
	// parsed is false for what is no entry: that goes to the end.
	parsed := func(line string) (held, bool) {
		f := t.fields(line)
		if f == nil {
			return held{}, false
		}
		start, err1 := strconv.ParseInt(f[1], 0, 64)
		n, err2 := strconv.ParseInt(f[2], 0, 64)
		return held{start, n, f[0]}, errors.Join(err1, err2) == nil
	}
	slices.SortStableFunc(t.lines, func(x, y string) int {
		a, isA := parsed(x)
		b, isB := parsed(y)
		switch {
		case !isA && !isB:
			return 0
		case !isA:
			return 1
		case !isB:
			return -1
		}
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.count, b.count), strings.Compare(a.owner, b.owner))
	})
	low := least
	for _, line := range t.lines {
		h, ok := parsed(line)
		if !ok {
			continue
		}
		if min(h.start, most+1)-low >= count {
			break
		}
		low = max(low, h.start+h.count)
	}
	if most-low+1 < count {
		return errNoneFree
	}
	t.lines = append(t.lines, user+":"+strconv.FormatInt(low, 10)+":"+strconv.FormatInt(count, 10))
	return nil
}
