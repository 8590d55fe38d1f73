package config

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Severity tells a fault that stops everything from one that is worth a line.
type Severity int

const (
	// Error makes a config unusable.
	Error Severity = iota
	// Warning leaves it usable, perhaps not as its author meant it.
	Warning
)

// String returns "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText writes a severity as String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Fault is one thing that is wrong with a config. No field of it holds a value
// that is secret by definition: it may be printed, logged and sent.
type Fault struct {
	Severity Severity `json:"severity"`
	// Document is the name of the document as Collect knows it, empty from Parse.
	Document string `json:"document,omitempty"`
	// Line and Column count from 1; a column is a character (a Unicode code
	// point), as editors count. Both are 0 where the fault is of the merged
	// config and stands in no one place.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Path leads to the value from the root of the document, $: keys and list
	// indices joined by dots, as in $.storage.files.0.path.
	Path string `json:"path"`
	// Message says what is wrong, Hint what to do about it (may be empty).
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// String returns "line:column: path: what is wrong (hint)". Whoever prints it
// puts the name of the file or the document before it.
func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", f.Line, f.Column)
	}
	b.WriteString(f.Path + ": " + f.Message)
	if f.Hint != "" {
		b.WriteString(" (" + f.Hint + ")")
	}
	return b.String()
}

// Report is every fault of a config, in the order of the text.
type Report []Fault

// Fatal tells whether a fault of the report is an Error.
func (r Report) Fatal() bool {
	return slices.ContainsFunc(r, func(f Fault) bool { return f.Severity == Error })
}

// Err returns nil if the report is not fatal, else an *InvalidError.
func (r Report) Err() error {
	if !r.Fatal() {
		return nil
	}
	return &InvalidError{Report: r}
}

// InvalidError is a config that cannot be used. It carries the whole report.
type InvalidError struct{ Report Report }

// Error tells the first Error of the report and how many more there are.
func (e *InvalidError) Error() string {
	first, more := "", 0
	for _, f := range e.Report {
		switch {
		case f.Severity != Error:
		case first == "":
			first = f.String()
			if f.Document != "" {
				first = f.Document + ": " + first
			}
		default:
			more++
		}
	}
	switch more {
	case 0:
		return first
	case 1:
		return first + " (and 1 more fault)"
	}
	return fmt.Sprintf("%s (and %d more faults)", first, more)
}

// maxFaults bounds a report: beyond it the faults of a hostile or wholly
// mistaken document tell nobody anything more.
const maxFaults = 1000

// finding is a fault before its offset has become a line and a column.
type finding struct {
	severity Severity
	offset   int
	place    place
	message  string
	hint     string
}

// document is one text under examination.
type document struct {
	fields map[reflect.Type]map[string]reflect.StructField // by fieldsOf, which is slow

	unsifted bool
	raw      []byte
	root     *node
	sifted   *sifted // nil before Ignition's part is read
	found    []finding
	// broken holds the places whose value has the wrong type. What could be
	// said of the values in there would only be a consequence.
	broken  map[string]bool
	skipped int
	// incomplete holds what another document may still supply.
	incomplete []gap
}

func (d *document) add(f finding) {
	if len(d.found) >= maxFaults {
		d.skipped++
		return
	}
	d.found = append(d.found, f)
}

// fault reports an Error at the value of a place, or at the innermost value
// around it that exists.
func (d *document) fault(p place, message, hint string) {
	d.judge(Error, p, message, hint)
}

// warn is like fault, with a Warning.
func (d *document) warn(p place, message, hint string) {
	d.judge(Warning, p, message, hint)
}

func (d *document) judge(s Severity, p place, message, hint string) {
	if len(d.broken) > 0 {
		for i := range len(p) + 1 {
			if d.broken[p[:i].String()] {
				return
			}
		}
	}
	d.add(finding{severity: s, offset: d.offset(p), place: p, message: message, hint: hint})
}

// offset returns where the value of a place begins, or the innermost value
// around it that exists.
func (d *document) offset(p place) int {
	n := d.root
	for _, e := range p {
		next := n.child(e)
		if next == nil {
			break
		}
		n = next
	}
	if n == nil {
		return 0
	}
	return n.start
}

// child returns the value of a key or an index, nil if there is none.
func (n *node) child(element string) *node {
	if n == nil {
		return nil
	}
	switch n.kind {
	case object:
		if m, ok := n.get(element); ok {
			return m.value
		}
	case array:
		if i, err := strconv.Atoi(element); err == nil && i >= 0 && i < len(n.items) {
			return n.items[i]
		}
	}
	return nil
}

// report turns findings into faults, sorted by where they stand.
func (d *document) report() Report {
	found := slices.Clone(d.found)
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.offset, b.offset) })
	if d.skipped > 0 {
		found = append(found, finding{severity: Error, offset: found[len(found)-1].offset,
			message: fmt.Sprintf("there are %d more faults, which are not shown", d.skipped)})
	}
	r := make(Report, 0, len(found))
	at := position{line: 1, column: 1}
	for _, f := range found {
		at.advance(d.raw, f.offset)
		r = append(r, Fault{Severity: f.severity, Line: at.line, Column: at.column,
			Path: f.place.String(), Message: f.message, Hint: f.hint})
	}
	return slices.Compact(r)
}

// position walks through a text once, however many faults it has: a config may
// be one line of megabytes.
type position struct{ offset, line, column int }

func (p *position) advance(raw []byte, offset int) {
	part := raw[p.offset:min(offset, len(raw))]
	if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
		p.line += bytes.Count(part, []byte{'\n'})
		p.column = 1
		part = part[i+1:]
	}
	p.column += utf8.RuneCount(part)
	p.offset = min(offset, len(raw))
}
