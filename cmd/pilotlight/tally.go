package main

import (
	"fmt"
	"strings"

	"pilotlight/initrd"
)

// A mark is what a plan shows before a step.
type mark string

// The marks.
const (
	makes    mark = "+"
	changes  mark = "~"
	destroys mark = "-"
	asItIs   mark = "="
	later    mark = ">"
	cannot   mark = "?"
	fails    mark = "!"
)

// colour is a mark's on a terminal (ECMA-48, SGR).
func (m mark) colour() string {
	switch m {
	case makes:
		return "32"
	case changes, cannot:
		return "33"
	case destroys, fails:
		return "1;31"
	}
	return "2"
}

// markOf is the mark of what became of a step, or would become of it.
func markOf(o initrd.Outcome) mark {
	switch {
	case o.Err != nil:
		return fails
	case o.State == initrd.So:
		return asItIs
	case o.State == initrd.After:
		return later
	case o.State == initrd.Moot:
		return cannot
	case o.Effect == initrd.Destroys:
		return destroys
	case o.Effect == initrd.Changes:
		return changes
	}
	return makes
}

// A tally counts steps by their marks.
type tally struct {
	Make    int `json:"make"`
	Change  int `json:"change"`
	Destroy int `json:"destroy"`
	AsItIs  int `json:"asItIs"`
	After   int `json:"after"`
	Moot    int `json:"moot"`
	Failed  int `json:"failed"`

	lost []string // what is destroyed
}

func (t *tally) count(o initrd.Outcome) {
	switch markOf(o) {
	case fails:
		t.Failed++
	case asItIs:
		t.AsItIs++
	case later:
		t.After++
	case cannot:
		t.Moot++
	case destroys:
		t.Destroy++
		t.lost = append(t.lost, lost(o)...)
	case changes:
		t.Change++
	default:
		t.Make++
	}
}

// lost names what a step destroys, and is never empty for one that does.
func lost(o initrd.Outcome) []string {
	if o.Effect == initrd.Destroys && len(o.Lost) == 0 {
		return []string{"what is there now, for: " + o.Wish}
	}
	return o.Lost
}

// summary is one line on all steps: what will be, or what was done.
func (t tally) summary(mode initrd.Mode) string {
	parts := []string{
		fmt.Sprintf("%d to make", t.Make), fmt.Sprintf("%d to change", t.Change), fmt.Sprintf("%d destroyed", t.Destroy),
		fmt.Sprintf("%d as they are", t.AsItIs), fmt.Sprintf("%d after an earlier step", t.After),
	}
	if mode == initrd.Apply {
		parts = []string{
			fmt.Sprintf("%d made", t.Make), fmt.Sprintf("%d changed", t.Change), fmt.Sprintf("%d destroyed", t.Destroy),
			fmt.Sprintf("%d were so already", t.AsItIs),
		}
	}
	if t.Moot > 0 {
		parts = append(parts, fmt.Sprintf("%d cannot be here", t.Moot))
	}
	if t.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", t.Failed))
	}
	return strings.Join(parts, ", ")
}

// warning says what is destroyed, "" where nothing is.
func (t tally) warning(mode initrd.Mode) string {
	switch {
	case len(t.lost) == 0:
		return ""
	case mode == initrd.Apply:
		return "DESTROYED: " + strings.Join(t.lost, "; ")
	}
	return "THIS DESTROYS " + strings.Join(t.lost, "; ")
}

// spoken says whether a line says all that a deed would add: each of its words but the
// first, which is the verb.
func spoken(line, deed string) bool {
	_, rest, _ := strings.Cut(deed, " ")
	for word := range strings.FieldsSeq(rest) {
		if !strings.Contains(line, strings.Trim(word, ",:")) {
			return false
		}
	}
	return true
}
