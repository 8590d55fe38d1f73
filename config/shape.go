package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// later is the type of a key that has a place in the format and no effect yet.
// A tag `why` says why, if it is not only a matter of time.
type later struct{}

var laterType = reflect.TypeFor[later]()

// shape compares a value with the Go type that it will be decoded into, and
// reports every key that the type does not know, every key that stands twice,
// and every value of another type. encoding/json would drop the first two
// silently and stop at the first of the third.
type shape struct {
	d *document
	// keys is how bad an unknown, misspelt or doubled key is.
	keys Severity
	// null tells whether null is taken for a key that is not there.
	null bool
	// extra is a key of the root object that somebody else reads.
	extra string
}

func (s shape) check(n *node, t reflect.Type, p place) {
	if n.plain {
		return
	}
	if n.kind == nullKind {
		if !s.null {
			s.wrong(n, p, "must not be null", "leave the key out instead")
		}
		return
	}
	if t == recoveryType && n.kind == text {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		s.check(n, t.Elem(), p)
	case reflect.Struct:
		if s.is(n, object, p) {
			s.object(n, t, p)
		}
	case reflect.Slice:
		if s.is(n, array, p) {
			for i, item := range n.items {
				s.check(item, t.Elem(), p.item(i))
			}
		}
	case reflect.String:
		if s.is(n, text, p) && !utf8.Valid(n.raw) {
			s.d.add(finding{severity: s.keys, offset: n.start, place: p,
				message: "is not valid UTF-8: other bytes than these would be used",
				hint:    "give binary contents as a data: URL in base64"})
		}
	case reflect.Bool:
		s.is(n, boolean, p)
	case reflect.Int, reflect.Uint64:
		if s.is(n, number, p) {
			s.integer(n, t, p)
		}
	default:
		s.wrong(n, p, "has a type that is not known", "")
	}
}

func (s shape) integer(n *node, t reflect.Type, p place) {
	var err error
	if t.Kind() == reflect.Uint64 {
		_, err = strconv.ParseUint(string(n.raw), 10, 64)
	} else {
		_, err = strconv.ParseInt(string(n.raw), 10, t.Bits())
	}
	if err != nil {
		s.wrong(n, p, "must be a whole number, written out, within range", "")
	}
}

// is reports a value that is of another kind than wanted.
func (s shape) is(n *node, want kind, p place) bool {
	if n.kind == want {
		return true
	}
	hint := ""
	if want == number && n.kind == text {
		hint = "without quotes"
		if octal, ok := leadingOctal(n.raw[1:]); ok && p[len(p)-1] == "mode" {
			hint = "modes are decimal numbers: " + octal
		}
	}
	if want == boolean && n.kind == text {
		hint = "without quotes"
	}
	s.wrong(n, p, fmt.Sprintf("must be %s, not %s", want, n.kind), hint)
	return false
}

func (s shape) wrong(n *node, p place, message, hint string) {
	s.d.add(finding{severity: Error, offset: n.start, place: p, message: message, hint: hint})
	s.d.broken[p.String()] = true
}

// object checks the members of an object against the fields of a struct.
func (s shape) object(n *node, t reflect.Type, p place) {
	fields := s.d.fieldsOf(t)
	seen := make(map[string]bool, len(n.members))
	for _, m := range n.members {
		at := p.then(m.key)
		field, known := fields[m.key]
		name := m.key
		if !known && !(len(p) == 0 && m.key == s.extra) {
			name = s.unknown(m, fields, at)
			field, known = fields[name]
		}
		if seen[name] {
			severity := s.keys
			if name == s.extra && len(p) == 0 {
				severity = Error
			}
			s.d.add(finding{severity: severity, offset: m.start, place: at,
				message: "the key stands here a second time", hint: "only one of the two would count"})
		}
		seen[name] = true
		switch {
		case !known:
		case field.Type == laterType:
			s.d.add(finding{severity: Error, offset: m.start, place: at,
				message: orDefault(field.Tag.Get("why"), "this version of pilotlight does not build it yet"),
				hint:    "take the key out"})
		default:
			s.check(m.value, field.Type, p.then(name))
		}
	}
}

// unknown reports a key that no field has, and returns the name of the field
// that encoding/json would store it in all the same (it ignores case), or the
// key itself.
func (s shape) unknown(m member, fields map[string]reflect.StructField, at place) string {
	names := make([]string, 0, len(fields)+1)
	for name := range fields {
		if strings.EqualFold(name, m.key) {
			s.d.add(finding{severity: s.keys, offset: m.start, place: at,
				message: "the key is spelt " + quoted(name), hint: "other programs do not read it as it stands"})
			return name
		}
		names = append(names, name)
	}
	slices.Sort(names)
	severity, hint := s.keys, ""
	name := nearest(m.key, names)
	// Whoever misspells or misplaces our own section does not want it ignored.
	switch {
	case s.extra == "":
	case len(at) == 1 && nearest(m.key, []string{s.extra}) != "":
		severity, name = Error, s.extra
	case m.key == s.extra:
		severity, hint = Error, "it stands at the top of the document"
	}
	if name != "" && hint == "" {
		hint = "did you mean " + quoted(name) + "?"
	}
	s.d.add(finding{severity: severity, offset: m.start, place: at, message: "unknown key", hint: hint})
	return m.key
}

// fieldsOf asks the function of that name once for each type.
func (d *document) fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields, known := d.fields[t]
	if !known {
		if d.fields == nil {
			d.fields = map[reflect.Type]map[string]reflect.StructField{}
		}
		fields = fieldsOf(t)
		d.fields[t] = fields
	}
	return fields
}

// fieldsOf lists the JSON names of a struct's fields, those of embedded structs
// among them.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && !f.Anonymous {
			fields[name] = f
		}
	}
	return fields
}

// nearest returns the candidate that a word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	if len(word) > maxQuoted {
		return ""
	}
	best, least := "", 1+min(2, len(word)/3)
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour that lead from a to b (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
