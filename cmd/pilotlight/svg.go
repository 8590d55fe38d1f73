package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pilotlight/initrd"
)

// Measures of the timeline, in pixels.
const (
	svgWidth  = 1200
	svgText   = 520  // where what a row says ends, and the time begins
	svgRight  = 1060 // where the time ends; durations have room beside it
	svgTop    = 132  // of the first row
	svgRow    = 20
	svgLegend = 72
	// svgLetter is the width of a letter. svgLetters is how many fit before svgText: the
	// whole text is shown where the pointer rests.
	svgLetter  = 7.3
	svgLetters = 67
)

const (
	// mostDrawn bounds the units of the rest of the boot: those that took longest.
	mostDrawn = 40
	// tooShort is the part of a boot that a unit must have taken to be drawn, and a
	// step to have a row of its own.
	tooShort = 1.0 / 400
)

// A bar is a row of the timeline.
type bar struct {
	class  string
	label  string
	indent int
	at     float64 // seconds since the kernel started
	took   float64 // seconds
	width  float64 // seconds that are drawn, where they are not those it took
	note   string  // beside the duration
}

// timeline draws a boot over seconds since the kernel started: its phases, and below
// them in the order in which they began our stages, each with its steps, and the units
// of the rest of the boot that took noticeably long. whole is what PID 1 says; without
// it the picture has ours alone. It shows wishes and names, which hold no secrets.
//
// A report knows when a stage began, but of a step only how long it took. Steps are
// drawn one after the other so that the last ends with its stage, and narrower than
// they were where they would not fit.
func timeline(r initrd.Report, whole *initrd.Timeline) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	list := bars(r, whole)
	bottom := svgTop + svgRow*max(len(list), 1)
	scale := newScale(list)

	p(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">`, svgWidth, bottom+svgLegend, svgWidth, bottom+svgLegend)
	p(`<title>pilotlight: %s</title>`, escaped(r.State))
	p(`<style>
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328; stroke: #ffffff; stroke-width: 3px; paint-order: stroke }
.head { font-size: 18px; font-weight: bold }
.stage { font-weight: bold }
.muted, .tick, .unit, .phase { fill: #59636e }
.failed { fill: #b3261e }
.grid { stroke: #d8dee4; stroke-width: 1 }
.moment { stroke: #8250df; stroke-width: 1; stroke-dasharray: 4 3 }
.paper { fill: #ffffff }
rect.phase { fill: #d3c6ee }
rect.unit { fill: #b9c4bd }
rect.stage { fill: #afc6e9 }
rect.changed { fill: #2f6fbd }
rect.plain { fill: #7d9cc4 }
rect.muted { fill: #c8ced4 }
rect.failed { fill: #d1362c }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; stroke: #0d1117 }
.muted, .tick, .unit, .phase { fill: #9198a1 }
.failed { fill: #ff7b72 }
.grid { stroke: #30363d }
.moment { stroke: #a371f7 }
.paper { fill: #0d1117 }
rect.phase { fill: #4c3d75 }
rect.unit { fill: #4d5a52 }
rect.stage { fill: #29456b }
rect.changed { fill: #58a6ff }
rect.plain { fill: #4b6c94 }
rect.muted { fill: #3d444d }
rect.failed { fill: #f85149 }
}
</style>`)
	p(`<rect class="paper" width="100%%" height="100%%"/>`)
	class := "head"
	if r.State == "failed" {
		class = "head failed"
	}
	p(`<text class="%s" x="20" y="34">%s</text>`, class, escaped("pilotlight: "+r.State))
	subtitle := headline(r)
	if len(r.Stages) == 0 && r.Failure == nil {
		subtitle = "nothing was provisioned in this boot"
	}
	p(`<text class="muted" x="20" y="56">%s</text>`, escaped(subtitle))
	if whole == nil {
		p(`<text class="muted" x="20" y="76">systemd's times are not known: this is pilotlight alone</text>`)
	}

	if len(list) == 0 {
		p("</svg>")
		return b.Bytes()
	}
	for _, t := range scale.ticks() {
		x := scale.x(t)
		p(`<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x, svgTop-8, x, bottom+4)
		p(`<text class="tick" x="%.1f" y="%d" text-anchor="middle">%s s</text>`, x, svgTop-14, scale.label(t))
	}
	for i, m := range moments(whole) {
		x, y := scale.x(m.at), svgTop-32-16*i
		anchor, beside := "start", 4.0
		if x > (svgText+svgRight)/2 {
			anchor, beside = "end", -4
		}
		p(`<line class="moment" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x, y-10, x, bottom+4)
		p(`<text class="muted" x="%.1f" y="%d" text-anchor="%s">%s</text>`, x+beside, y, anchor, m.label)
	}
	for i, row := range list {
		row.draw(p, scale, svgTop+svgRow*i)
	}

	x := 20
	for _, l := range []described{
		{"changed", "changed something"}, {"plain", "changed nothing"}, {"muted", "so already, or moot"}, {"failed", "failed"},
		{"unit", "other units"}, {"phase", "phases"},
	} {
		if whole == nil && (l.name == "unit" || l.name == "phase") {
			continue
		}
		p(`<rect class="%s" x="%d" y="%d" width="12" height="12" rx="2"/>`, l.name, x, bottom+24)
		p(`<text class="muted" x="%d" y="%d">%s</text>`, x+18, bottom+34, l.text)
		x += 48 + 8*len(l.text)
	}
	p(`<text class="muted" x="%d" y="%d" text-anchor="end">seconds since the kernel started</text>`, svgWidth-20, bottom+56)
	p(`<text class="muted" x="20" y="%d">steps are drawn one after the other, up to the end of their stage</text>`, bottom+56)
	p("</svg>")
	return b.Bytes()
}

// draw draws a row: what it is, when it was, and how long, beside the bar where there
// is room.
func (row bar) draw(p func(string, ...any), scale scale, y int) {
	x := scale.x(row.at)
	// What took next to no time is to be seen all the same.
	w := max(scale.x(row.at+row.width)-x, 2)
	letters := []rune(row.label)
	shown := row.label
	if most := svgLetters - row.indent/7; len(letters) > most {
		shown = string(letters[:most-1]) + "…"
	}
	beside := short(span(row.took))
	if row.note != "" {
		beside += ", " + row.note
	}
	p(`<g><title>%s</title>`, escaped(row.label+": "+beside))
	p(`<text class="%s" x="%d" y="%d">%s</text>`, row.class, 20+row.indent, y+14, escaped(shown))
	p(`<rect class="%s" x="%.1f" y="%d" width="%.1f" height="12" rx="2"/>`, row.class, x, y+4, w)
	at, anchor := x+w+6, "start"
	if at+svgLetter*float64(len(beside)) > svgWidth-4 {
		at, anchor = x-6, "end"
	}
	p(`<text class="%s" x="%.1f" y="%d" text-anchor="%s">%s</text></g>`, row.class, at, y+14, anchor, escaped(beside))
}

// A moment is a point in time that is drawn through all rows.
type moment struct {
	at    float64
	label string
}

func moments(whole *initrd.Timeline) []moment {
	var list []moment
	if whole != nil && whole.Userspace > 0 {
		list = append(list, moment{whole.Userspace, "switch-root"})
	}
	if whole != nil && whole.Finish > 0 {
		list = append(list, moment{whole.Finish, "all is started"})
	}
	return list
}

// bars are the rows of a timeline, from top to bottom.
func bars(r initrd.Report, whole *initrd.Timeline) []bar {
	var list []bar
	from, to := math.Inf(1), math.Inf(-1) // of all that is drawn
	reach := func(at, took float64) { from, to = min(from, at), max(to, at+took) }
	for _, s := range r.Stages {
		reach(s.At, max(s.Took, 0))
	}
	phase := func(label string, at, end float64) {
		if end > at {
			list = append(list, bar{class: "phase", label: label, at: at, took: end - at, width: end - at})
			reach(at, end-at)
		}
	}
	if whole != nil {
		for _, u := range whole.Units {
			reach(u.At, u.Took)
		}
		known := max(to, 0) // a phase that is not over lasts as long as is known
		phase("firmware", -whole.Firmware, -whole.Loader)
		phase("boot loader", -whole.Loader, 0)
		phase("kernel", 0, whole.Initrd)
		if whole.Initrd > 0 {
			phase("initrd", whole.Initrd, cmp.Or(whole.Userspace, known))
		}
		if whole.Userspace > 0 {
			phase("system", whole.Userspace, cmp.Or(whole.Finish, known))
		}
	}
	least := (to - from) * tooShort
	blocks := make([][]bar, 0, len(r.Stages))
	for _, s := range r.Stages {
		blocks = append(blocks, stageBars(r, s, least))
	}
	if whole != nil {
		for _, u := range longest(whole.Units, least) {
			blocks = append(blocks, []bar{{class: "unit", label: u.Name, at: u.At, took: u.Took, width: u.Took}})
		}
	}
	// The units of one moment come after the stage.
	slices.SortStableFunc(blocks, func(a, b []bar) int { return cmp.Compare(a[0].at, b[0].at) })
	return append(list, slices.Concat(blocks...)...)
}

// longest are the units that took longest, but not those that run our stages.
func longest(units []initrd.TimedUnit, least float64) []initrd.TimedUnit {
	list := slices.DeleteFunc(slices.Clone(units), func(u initrd.TimedUnit) bool {
		return strings.HasPrefix(u.Name, "pilotlight-") || u.Took < least
	})
	slices.SortStableFunc(list, func(a, b initrd.TimedUnit) int { return cmp.Compare(b.Took, a.Took) })
	return list[:min(len(list), mostDrawn)]
}

// stageBars are a stage and its steps. Steps that took less than least share a row
// with their neighbours, unless they failed.
func stageBars(r initrd.Report, s initrd.ReportedStage, least float64) []bar {
	took := max(s.Took, 0)
	head := bar{class: "stage", label: s.Name, at: s.At, took: took, width: took}
	if r.Failure != nil && r.Failure.Stage == s.Name {
		head.class, head.note = "stage failed", "failed"
	}
	list := []bar{head}
	sum := 0.0
	for _, step := range s.Steps {
		sum += max(step.Took, 0)
	}
	shrink := 1.0
	if sum > took {
		shrink = took / sum
	}
	at := s.At + took - sum*shrink
	for i := 0; i < len(s.Steps); {
		step := s.Steps[i]
		n := 1 // steps that share the row
		for step.Took < least && step.Error == "" && i+n < len(s.Steps) && s.Steps[i+n].Took < least && s.Steps[i+n].Error == "" {
			n++
		}
		row := bar{class: classOf(s.Steps[i : i+n]...), label: step.Wish, indent: 14, at: at}
		for _, together := range s.Steps[i : i+n] {
			row.took += max(together.Took, 0)
		}
		switch {
		case n > 1:
			row.label = fmt.Sprintf("%d short steps", n)
		case step.Error != "":
			row.note = "failed"
		case row.class == "muted":
			row.note = step.State
		}
		row.width = row.took * shrink
		at += row.width
		list = append(list, row)
		i += n
	}
	return list
}

// classOf is how steps that share a row are drawn: as the one of them that did most.
func classOf(steps ...initrd.ReportedStep) string {
	class := "muted"
	for _, step := range steps {
		switch {
		case step.Error != "":
			return "failed"
		case step.Changed:
			class = "changed"
		case class == "muted" && step.State != initrd.So.String() && step.State != initrd.Moot.String():
			class = "plain"
		}
	}
	return class
}

// A scale leads from seconds to pixels.
type scale struct {
	step  float64 // between two ticks
	first float64 // tick
	count int     // of ticks after the first
}

// newScale fits what is drawn into few steps of 1, 2 or 5 times a power of ten, whose
// labels have room beside each other.
func newScale(list []bar) scale {
	from, to := math.Inf(1), math.Inf(-1)
	for _, row := range list {
		from, to = min(from, row.at), max(to, row.at+row.width)
	}
	if len(list) == 0 {
		from, to = 0, 1
	}
	// Durations are told in milliseconds, so nothing is gained below some of them.
	rough := max(to-from, 0.01) / 6
	power := math.Pow(10, math.Floor(math.Log10(rough)))
	step := 10 * power
	for _, n := range []float64{1, 2, 5} {
		if n*power >= rough {
			step = n * power
			break
		}
	}
	first := math.Floor(from/step) * step
	// Seven are the most, but where the numbers are so large that floats have gaps.
	return scale{step: step, first: first, count: int(min(max(math.Ceil((to-first)/step), 1), 7))}
}

func (s scale) x(t float64) float64 {
	return svgText + (t-s.first)/(s.step*float64(s.count))*(svgRight-svgText)
}

func (s scale) ticks() []float64 {
	var list []float64
	for i := range s.count + 1 {
		list = append(list, s.first+float64(i)*s.step)
	}
	return list
}

// label has as many decimals as the step between two ticks.
func (s scale) label(t float64) string {
	return fmt.Sprintf("%.*f", max(0, -int(math.Floor(math.Log10(s.step)+1e-9))), t)
}

// span is a duration that a report has in seconds.
func span(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// escaped is text in XML. What XML cannot hold becomes U+FFFD.
func escaped(s string) string {
	var b strings.Builder
	// A builder takes everything.
	_ = xml.EscapeText(&b, []byte(cmp.Or(s, "-")))
	return b.String()
}
