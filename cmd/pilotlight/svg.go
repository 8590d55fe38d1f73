package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"time"

	"pilotlight/initrd"
)

// Measures of the timeline, in pixels.
const (
	svgWidth  = 1200
	svgText   = 520  // where what a row says ends, and the time begins
	svgRight  = 1080 // where the time ends; durations have room beside it
	svgTop    = 96   // of the first row
	svgRow    = 20
	svgLegend = 72
	// svgLetters is how many letters fit before svgText. The whole text is shown where
	// the pointer rests.
	svgLetters = 68
)

// timeline draws a boot: a row for a stage, below it one for each of its steps, over
// seconds since the kernel started. It shows wishes alone, which hold no secrets.
//
// A report knows when a stage began, but of a step only how long it took. Steps are
// drawn one after the other so that the last ends with its stage, and narrower than
// they were where they would not fit.
func timeline(r initrd.Report) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	rows := 0
	for _, s := range r.Stages {
		rows += 1 + len(s.Steps)
	}
	bottom := svgTop + svgRow*max(rows, 1)
	scale := newScale(r.Stages)

	p(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">`, svgWidth, bottom+svgLegend, svgWidth, bottom+svgLegend)
	p(`<title>pilotlight: %s</title>`, escaped(r.State))
	p(`<style>
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328 }
.head { font-size: 18px; font-weight: bold }
.stage { font-weight: bold }
.muted, .tick { fill: #6e7781 }
.failed { fill: #b3261e }
.grid { stroke: #d8dee4; stroke-width: 1 }
rect.stage { fill: #afc6e9 }
rect.changed { fill: #2f6fbd }
rect.plain { fill: #7d9cc4 }
rect.muted { fill: #c8ced4 }
rect.failed { fill: #d1362c }
</style>`)
	p(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	class := "head"
	if r.State == "failed" {
		class = "head failed"
	}
	p(`<text class="%s" x="20" y="34">%s</text>`, class, escaped("pilotlight: "+r.State))
	p(`<text class="muted" x="20" y="56">%s</text>`, escaped(headline(r)))

	if rows == 0 {
		p(`<text class="muted" x="20" y="%d">nothing was provisioned in this boot</text>`, svgTop+14)
		p("</svg>")
		return b.Bytes()
	}
	for _, t := range scale.ticks() {
		x := scale.x(t)
		p(`<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x, svgTop-8, x, bottom+4)
		p(`<text class="tick" x="%.1f" y="%d" text-anchor="middle">%s s</text>`, x, svgTop-14, scale.label(t))
	}

	y := svgTop
	row := func(class, label string, indent int, from, took, width float64, note string) {
		x := scale.x(from)
		// What took next to no time is to be seen all the same.
		w := max(scale.x(from+width)-x, 2)
		letters := []rune(label)
		shown := label
		if most := svgLetters - indent/7; len(letters) > most {
			shown = string(letters[:most-1]) + "…"
		}
		beside := short(span(took))
		if note != "" {
			beside += ", " + note
		}
		p(`<g><title>%s</title>`, escaped(label+": "+beside))
		p(`<text class="%s" x="%d" y="%d">%s</text>`, class, 20+indent, y+14, escaped(shown))
		p(`<rect class="%s" x="%.1f" y="%d" width="%.1f" height="12" rx="2"/>`, class, x, y+4, w)
		p(`<text class="%s" x="%.1f" y="%d">%s</text></g>`, class, x+w+6, y+14, escaped(beside))
		y += svgRow
	}
	for _, s := range r.Stages {
		class, note := "stage", ""
		if r.Failure != nil && r.Failure.Stage == s.Name {
			class, note = "stage failed", "failed"
		}
		took := max(s.Took, 0)
		row(class, s.Name, 0, s.At, took, took, note)
		sum := 0.0
		for _, step := range s.Steps {
			sum += max(step.Took, 0)
		}
		shrink := 1.0
		if sum > took {
			shrink = took / sum
		}
		at := s.At + took - sum*shrink
		for _, step := range s.Steps {
			class, note := "plain", ""
			switch {
			case step.Error != "":
				class, note = "failed", "failed"
			case step.State == initrd.So.String() || step.State == initrd.Moot.String():
				class, note = "muted", step.State
			case step.Changed:
				class = "changed"
			}
			took := max(step.Took, 0)
			row(class, step.Wish, 14, at, took, took*shrink, note)
			at += took * shrink
		}
	}

	x := 20
	for _, l := range []described{
		{"changed", "changed something"}, {"plain", "changed nothing"}, {"muted", "so already, or moot"}, {"failed", "failed"},
	} {
		p(`<rect class="%s" x="%d" y="%d" width="12" height="12" rx="2"/>`, l.name, x, bottom+24)
		p(`<text class="muted" x="%d" y="%d">%s</text>`, x+18, bottom+34, l.text)
		x += 48 + 8*len(l.text)
	}
	p(`<text class="muted" x="%d" y="%d" text-anchor="end">seconds since the kernel started</text>`, svgWidth-20, bottom+34)
	p(`<text class="muted" x="20" y="%d">steps are drawn one after the other, up to the end of their stage</text>`, bottom+56)
	p("</svg>")
	return b.Bytes()
}

// headline says which boot it is.
func headline(r initrd.Report) string {
	total, begin := 0.0, math.Inf(1)
	for _, s := range r.Stages {
		total += max(s.Took, 0)
		begin = min(begin, s.At)
	}
	text := fmt.Sprintf("%s boot", r.Boot)
	if r.Platform != "" {
		text += ", platform " + r.Platform
	}
	if len(r.Stages) > 0 {
		text += fmt.Sprintf(", %s in %d stages from %.1f s on", short(span(total)), len(r.Stages), begin)
	}
	if r.Failure != nil {
		text += ", failed in " + r.Failure.Stage
	}
	return text
}

// A scale leads from seconds to pixels.
type scale struct {
	step  float64 // between two ticks
	first float64 // tick
	count int     // of ticks after the first
}

// newScale fits the stages into few steps of 1, 2 or 5 times a power of ten, whose
// labels have room beside each other.
func newScale(list []initrd.ReportedStage) scale {
	from, to := math.Inf(1), math.Inf(-1)
	for _, s := range list {
		from, to = min(from, s.At), max(to, s.At+max(s.Took, 0))
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
