package config

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a document, so that a hostile one cannot
// exhaust the stack. Ignition's deepest value lies nine levels down.
const maxDepth = 100

// kind names a sort of JSON value as a message would.
type kind string

const (
	object   kind = "an object"
	array    kind = "a list"
	text     kind = "a string"
	number   kind = "a number"
	boolean  kind = "true or false"
	nullKind kind = "null"
)

// node is one JSON value and where it stands. Unlike encoding/json it keeps the
// order of keys, their duplicates, and the offset of everything.
type node struct {
	kind    kind
	start   int    // byte offset of the value's first character
	raw     []byte // the value as written
	members []member
	items   []*node
	plain   bool // see sifted
}

type member struct {
	key   string
	start int    // byte offset of the key's opening quote
	raw   []byte // the key as written, with its quotes
	value *node
}

// get returns the member that encoding/json would take: the last one that
// matches, regardless of case.
func (n *node) get(key string) (member, bool) {
	if n == nil {
		return member{}, false
	}
	for i := len(n.members) - 1; i >= 0; i-- {
		if strings.EqualFold(n.members[i].key, key) {
			return n.members[i], true
		}
	}
	return member{}, false
}

// blank tells whether a value says nothing at all, however deep.
func (n *node) blank() bool {
	for _, m := range n.members {
		if !m.value.blank() {
			return false
		}
	}
	switch n.kind {
	case object, nullKind:
		return true
	case array:
		return len(n.items) == 0
	}
	return len(n.raw) == len(`""`) && n.kind == text
}

// string decodes a node of kind text.
func (n *node) string() string {
	if n == nil || n.kind != text {
		return ""
	}
	return unquote(n.raw)
}

// unquote decodes a JSON string that the reader has already checked.
func unquote(raw []byte) string {
	if !bytes.ContainsRune(raw, '\\') && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return ""
	}
	return s
}

// place is the way from the root of a document to a value: keys, and decimal
// indices of lists.
type place []string

func (p place) then(elements ...string) place {
	return append(p[:len(p):len(p)], elements...)
}

func (p place) item(i int) place { return p.then(strconv.Itoa(i)) }

// String writes a place as $.storage.files.0.path. A key that would not read
// well in it is quoted.
func (p place) String() string {
	var b strings.Builder
	b.WriteByte('$')
	for _, e := range p {
		b.WriteByte('.')
		if plainKey(e) {
			b.WriteString(e)
		} else {
			b.WriteString(quoted(e))
		}
	}
	return b.String()
}

func plainKey(s string) bool {
	if s == "" || len(s) > maxQuoted {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// maxQuoted is how many bytes of a key or name a message repeats.
const maxQuoted = 64

// quoted writes a key or a name (never a secret) for a message: on one line,
// without control characters, and not endless.
func quoted(s string) string {
	if len(s) <= maxQuoted {
		return strconv.QuoteToASCII(s)
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.QuoteToASCII(s[:cut]) + "..."
}

// syntaxError tells where a text stops being JSON.
type syntaxError struct {
	at      int
	message string
	hint    string
}

// readJSON reads one JSON value (RFC 8259) that fills the whole text. It accepts
// what encoding/json accepts, down to maxDepth.
func readJSON(raw []byte) (*node, *syntaxError) {
	r := jsonReader{raw: raw}
	r.space()
	n := r.value(0)
	if r.fault == nil {
		r.space()
		if r.at < len(raw) {
			r.fail("there is more after the end of the document", "a missing comma or a bracket too many?")
		}
	}
	if r.fault != nil {
		return nil, r.fault
	}
	return n, nil
}

type jsonReader struct {
	raw   []byte
	at    int
	fault *syntaxError
}

// fail keeps the first fault and ends the reading, since every loop of the
// reader stops when the text is at its end.
func (r *jsonReader) fail(message, hint string) {
	if r.fault == nil {
		r.fault = &syntaxError{at: r.at, message: message, hint: hint}
	}
}

func (r *jsonReader) space() {
	for r.at < len(r.raw) {
		switch r.raw[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end; a NUL byte in the text is never
// valid either, so the two need no telling apart.
func (r *jsonReader) peek() byte {
	if r.at < len(r.raw) {
		return r.raw[r.at]
	}
	return 0
}

func (r *jsonReader) value(depth int) *node {
	n := &node{start: r.at}
	switch c := r.peek(); {
	case depth > maxDepth:
		r.fail(fmt.Sprintf("values are nested more than %d deep", maxDepth), "")
	case c == '{':
		n.kind = object
		r.object(n, depth)
	case c == '[':
		n.kind = array
		r.list(n, depth)
	case c == '"':
		n.kind = text
		r.quotedString()
	case c == '-' || c >= '0' && c <= '9':
		n.kind = number
		r.number()
	case r.word("true"), r.word("false"):
		n.kind = boolean
	case r.word("null"):
		n.kind = nullKind
	case r.at >= len(r.raw):
		r.fail("the document ends in the middle", "is it cut off?")
	case c == '\'':
		r.fail("a value was expected", "JSON strings stand in double quotes")
	case c == '}' || c == ']':
		r.fail("a value was expected", "a comma too many before this bracket?")
	case c == '/' || c == '#':
		r.fail("a value was expected", "JSON has no comments")
	default:
		r.fail("a value was expected", "JSON values are objects, lists, strings in double quotes, numbers, true, false and null")
	}
	n.raw = r.raw[n.start:r.at]
	return n
}

func (r *jsonReader) word(w string) bool {
	if !bytes.HasPrefix(r.raw[r.at:], []byte(w)) {
		return false
	}
	r.at += len(w)
	return true
}

func (r *jsonReader) object(n *node, depth int) {
	r.at++
	r.space()
	if r.peek() == '}' {
		r.at++
		return
	}
	for r.fault == nil {
		m := member{start: r.at}
		switch c := r.peek(); {
		case c == '"':
		case r.at >= len(r.raw):
			r.fail("the document ends in the middle", "is it cut off?")
			return
		case c == '}':
			r.fail("a key was expected", "a comma too many before this bracket?")
			return
		case c == '/' || c == '#':
			r.fail("a key was expected", "JSON has no comments")
			return
		default:
			r.fail("a key was expected", "keys stand in double quotes")
			return
		}
		r.quotedString()
		if r.fault != nil {
			return
		}
		m.raw = r.raw[m.start:r.at]
		m.key = unquote(m.raw)
		r.space()
		if r.peek() != ':' {
			r.fail("a colon was expected after the key "+quoted(m.key), "")
			return
		}
		r.at++
		r.space()
		m.value = r.value(depth + 1)
		n.members = append(n.members, m)
		if r.closed('}') {
			return
		}
	}
}

func (r *jsonReader) list(n *node, depth int) {
	r.at++
	r.space()
	if r.peek() == ']' {
		r.at++
		return
	}
	for r.fault == nil {
		n.items = append(n.items, r.value(depth+1))
		if r.closed(']') {
			return
		}
	}
}

// closed reads what stands behind a member or an item: the closing bracket,
// which ends the list, or a comma, which does not.
func (r *jsonReader) closed(bracket byte) bool {
	if r.fault != nil {
		return true
	}
	r.space()
	switch c := r.peek(); {
	case c == bracket:
		r.at++
		return true
	case c == ',':
		r.at++
		r.space()
		return false
	case r.at >= len(r.raw):
		r.fail("the document ends in the middle", "is it cut off?")
	default:
		r.fail(fmt.Sprintf("a comma or %q was expected", bracket), "")
	}
	return true
}

func (r *jsonReader) quotedString() {
	open := r.at
	// Most strings have nothing in them but letters, and some are megabytes of such.
	if end := bytes.IndexByte(r.raw[r.at+1:], '"'); end >= 0 && ordinary(r.raw[r.at+1:r.at+1+end]) {
		r.at += end + 2
		return
	}
	for r.at++; r.at < len(r.raw); r.at++ {
		switch c := r.raw[r.at]; {
		case c == '"':
			r.at++
			return
		case c < ' ':
			r.fail("a string may not contain a line break or a control character as it is", `write \n, \t or \u00XX; or is the closing quote missing?`)
			return
		case c == '\\':
			r.at++
			switch r.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for i := 1; i <= 4; i++ {
					if r.at+i >= len(r.raw) || !isHex(r.raw[r.at+i]) {
						r.fail(`\u needs four hexadecimal digits`, "")
						return
					}
				}
				r.at += 4
			default:
				r.fail("a backslash in a string begins an escape, and this is not one", `a backslash itself is written \\`)
				return
			}
		}
	}
	r.at = open
	r.fail("a string begins here and does not end", "")
}

// ordinary says whether a text has neither a backslash nor a control character in it.
func ordinary(text []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	// Eight bytes at a time: a byte of the result has its highest bit set if that of
	// the text is below a blank, or is a backslash; or, in vain, sometimes if the one
	// before it is.
	for len(text) >= 8 {
		x := binary.LittleEndian.Uint64(text)
		y := x ^ '\\'*ones
		if ((x-' '*ones)&^x|(y-ones)&^y)&highs != 0 {
			break
		}
		text = text[8:]
	}
	for _, c := range text {
		if c < ' ' || c == '\\' {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (r *jsonReader) digits() bool {
	first := r.at
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.at++
	}
	return r.at > first
}

func (r *jsonReader) number() {
	start := r.at
	if r.peek() == '-' {
		r.at++
	}
	if r.peek() == '0' {
		r.at++
		if c := r.peek(); c >= '0' && c <= '9' {
			r.at = start
			hint := ""
			if octal, ok := leadingOctal(r.raw[start:]); ok {
				hint = "JSON has no octal numbers: " + octal
			}
			r.fail("a number may not begin with 0", hint)
			return
		}
	} else if !r.digits() {
		r.fail("a digit was expected", "")
		return
	}
	if r.peek() == '.' {
		r.at++
		if !r.digits() {
			r.fail("a digit was expected", "")
			return
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		r.at++
		if c := r.peek(); c == '+' || c == '-' {
			r.at++
		}
		if !r.digits() {
			r.fail("a digit was expected", "")
		}
	}
}

// leadingOctal reads a file mode as people write it, such as 0644, and says
// what it is in decimal.
func leadingOctal(raw []byte) (string, bool) {
	end := 0
	for end < len(raw) && end < 6 && raw[end] >= '0' && raw[end] <= '7' {
		end++
	}
	v, err := strconv.ParseUint(string(raw[:end]), 8, 16)
	if err != nil || v > 0o7777 {
		return "", false
	}
	return fmt.Sprintf("0%o is %d", v, v), true
}
