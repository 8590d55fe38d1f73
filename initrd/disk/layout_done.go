package disk

// Afterwards is what a config wants of a disk on which it was carried out already. What
// happens once has happened: nothing is deleted for it a second time, what was placed
// in the largest free block of that day stays where it is, and a partition that was
// given the next free number is known by its label.
func Afterwards(t *Table, wanted []Wanted) []Wanted {
	var list []Wanted
	for _, w := range wanted {
		w.WipeEntry = false
		if w.StartMiB != nil && *w.StartMiB == 0 {
			w.StartMiB = nil
		}
		if w.SizeMiB != nil && *w.SizeMiB == 0 {
			w.SizeMiB = nil
		}
		for _, p := range t.Partitions {
			if w.Number == 0 && w.Label != nil && (placed{Wanted: w}).differs(p) == nil {
				w.Number = p.Number
			}
		}
		list = append(list, w)
	}
	return list
}

// Once says whether what is wanted is, at least in part, something that happens and not
// something that is: deleting a partition to make another one, giving one the next free
// number, or placing one where the largest free block is on that day. A second look may
// find another answer even where the first one was just carried out: a partition that
// begins unaligned, since no other sector was left, changes what the next one is aligned to.
func Once(wanted []Wanted) bool {
	zero := func(n *int) bool { return n != nil && *n == 0 }
	for _, w := range wanted {
		if w.WipeEntry || w.Number == 0 || zero(w.StartMiB) || zero(w.SizeMiB) {
			return true
		}
	}
	return false
}
