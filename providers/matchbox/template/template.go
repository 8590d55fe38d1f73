// Package template renders files of Go's template language over data that came out of JSON.
//
// The language is the one of https://pkg.go.dev/text/template, parsed by its own parser and
// run as text/template runs it with missingkey=error, with all actions and all functions.
// Only the data is less: map[string]any, map[string]string, []any, string, float64, bool and
// nil, and what the language itself makes (int, byte, complex128). Such data has no methods,
// and so nothing here looks methods up by name. That is why this package exists: a program
// that links text/template has to keep every exported method of every type.
//
// # Bounds
//
// What a template renders to is bounded by the caller, and so is each text that it makes on
// the way; what it does in all by 64 million steps. A file has 100,000 actions at
// most, and they may be nested as deep, also by templates that call each other.
//
// # Differences to text/template
//
// The bounds; and the function call, which fails, since data from JSON holds no functions.
// Errors say where and why, and never quote a value.
package template

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template/parse"
)

const (
	// Both recurse with each nested action, the parser and we.
	maxActions = 100_000
	maxNested  = 100_000
	// A step is an action, a turn of a loop, a byte of a text that was made.
	maxSteps = 1 << 26
)

// ErrTooLong is in a [Fault] if the text, or a value made for it, is longer than it may be.
var ErrTooLong = errors.New("too long")

// Fault says at which line of a template the fault is, from 1, and what it is. It names
// functions, templates and missing keys, and quotes nothing else of the template or the data.
type Fault struct {
	Line int
	Err  error
}

func (f *Fault) Error() string { return fmt.Sprintf("line %d: %v", f.Line, f.Err) }

// Unwrap gives the fault without its place.
func (f *Fault) Unwrap() error { return f.Err }

// Template is a parsed file. It may be rendered any number of times, at once too.
type Template struct {
	text  string
	root  *parse.Tree
	trees map[string]*parse.Tree // by name, the file's own among them
}

// Parse parses a file. Its name is what {{template}} calls the file itself by. An error is a
// *[Fault].
func Parse(name, text string) (*Template, error) {
	if n := strings.Count(text, "{{"); n > maxActions {
		return nil, &Fault{Line: 1, Err: fmt.Errorf("%d actions, more than %d", n, maxActions)}
	}
	trees, err := parse.Parse(name, text, "", "", names())
	if err != nil {
		return nil, parseFault(name, err)
	}
	return &Template{text: text, root: trees[name], trees: trees}, nil
}

// names tells the parser which functions there are.
func names() map[string]any {
	known := make(map[string]any, len(functions))
	for _, f := range functions {
		known[f.name] = f
	}
	return known
}

// parseFault takes from "template: NAME:LINE: MESSAGE" what is fit to be shown: MESSAGE may
// quote the file.
func parseFault(name string, err error) *Fault {
	rest, _ := strings.CutPrefix(err.Error(), "template: "+name+":")
	number, message, _ := strings.Cut(rest, ": ")
	line, numErr := strconv.Atoi(number)
	if numErr != nil {
		return &Fault{Line: 1, Err: errUnparsable}
	}
	if after, ok := strings.CutPrefix(message, `function "`); ok {
		if function, _, ok := strings.Cut(after, `" not defined`); ok {
			return &Fault{Line: line, Err: fmt.Errorf("no function %.100s", function)}
		}
	}
	return &Fault{Line: line, Err: errUnparsable}
}

var errUnparsable = errors.New("cannot be parsed")

// Render runs the template over data, and returns at most limit bytes. An error is a
// *[Fault].
func (t *Template) Render(data any, limit int) ([]byte, error) {
	r := run{template: t, limit: limit, steps: maxSteps}
	f := frame{run: &r, vars: []variable{{"$", data}}}
	if _, err := f.walk(data, t.root.Root); err != nil {
		return nil, err
	}
	return r.out, nil
}
