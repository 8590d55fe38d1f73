package template

import (
	"errors"
	"fmt"
	"net/url"
	"text/template/parse"
)

// function is a function of the language.
type function struct {
	name        string
	least, most int // arguments, without end where most is 0
	// do gets as many arguments as it may have. And, or evaluate their own.
	do func(args []any) (any, error)
}

// functions are all that there are.
var functions = []function{
	{"and", 1, 0, nil},
	{"or", 1, 0, nil},
	{"not", 1, 1, func(args []any) (any, error) { return !truth(args[0]), nil }},
	{"eq", 1, 0, eq},
	{"ne", 2, 2, ne},
	{"lt", 2, 2, lt},
	{"le", 2, 2, le},
	{"gt", 2, 2, gt},
	{"ge", 2, 2, ge},
	{"len", 1, 1, length},
	{"index", 1, 0, index},
	{"slice", 1, 0, slice},
	{"print", 0, 0, func(args []any) (any, error) { return fmt.Sprint(args...), nil }},
	{"println", 0, 0, func(args []any) (any, error) { return fmt.Sprintln(args...), nil }},
	{"printf", 1, 0, printf},
	{"html", 0, 0, func(args []any) (any, error) { return escapeHTML(text(args)), nil }},
	{"js", 0, 0, func(args []any) (any, error) { return escapeJS(text(args)), nil }},
	{"urlquery", 0, 0, func(args []any) (any, error) { return url.QueryEscape(text(args)), nil }},
	{"call", 1, 0, func([]any) (any, error) { return nil, errors.New("data holds no functions") }},
}

// function calls a function with arguments, the last of which may come from a pipeline.
func (f *frame) function(dot any, name *parse.IdentifierNode, nodes []parse.Node, last piped) (any, error) {
	var fn function
	for _, fn = range functions {
		if fn.name == name.Ident {
			break
		}
	}
	given := len(nodes)
	if last.there {
		given++
	}
	if given < fn.least || fn.most > 0 && given > fn.most {
		return nil, f.fault(name, fmt.Errorf("%s with %d arguments", fn.name, given))
	}
	if fn.do == nil {
		return f.choose(dot, fn.name == "or", nodes, last)
	}
	args := make([]any, 0, given)
	for _, node := range nodes {
		value, err := f.operand(dot, node)
		if err != nil {
			return nil, err
		}
		args = append(args, value)
	}
	if last.there {
		args = append(args, last.value)
	}
	value, err := fn.do(args)
	if err != nil {
		return nil, f.fault(name, fmt.Errorf("%s: %w", fn.name, err))
	}
	if text, ok := value.(string); ok {
		err = f.made(name, len(text), len(text))
	}
	return value, err
}

// choose is "and" and "or": the first argument that decides, else the last. What comes after
// it is not evaluated.
func (f *frame) choose(dot any, decides bool, nodes []parse.Node, last piped) (any, error) {
	var value any
	for _, node := range nodes {
		var err error
		if value, err = f.operand(dot, node); err != nil || truth(value) == decides {
			return value, err
		}
	}
	if last.there {
		value = last.value
	}
	return value, nil
}

// length is of bytes, elements or keys.
func length(args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return len(v), nil
	case []any:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	case map[string]string:
		return len(v), nil
	}
	return nil, fmt.Errorf("of %s", kindOf(args[0]))
}

// index goes into its first argument by the others. A key that is not there gives nothing,
// or of a map of texts the empty text.
func index(args []any) (any, error) {
	value := args[0]
	if value == nil {
		return nil, errors.New("of nothing")
	}
	for _, at := range args[1:] {
		switch v := value.(type) {
		case map[string]any, map[string]string:
			key, ok := at.(string)
			if !ok {
				return nil, fmt.Errorf("of a map by %s", kindOf(at))
			}
			if texts, ok := v.(map[string]string); ok {
				value = texts[key]
			} else {
				value = v.(map[string]any)[key]
			}
		case string:
			i, err := position(at, len(v)-1)
			if err != nil {
				return nil, err
			}
			value = v[i]
		case []any:
			i, err := position(at, len(v)-1)
			if err != nil {
				return nil, err
			}
			value = v[i]
		default:
			return nil, fmt.Errorf("of %s", kindOf(value))
		}
	}
	return value, nil
}

// position is an index from 0 to last. Numbers from JSON are none, as they are no integers.
func position(at any, last int) (int, error) {
	var i int
	switch at := at.(type) {
	case int:
		i = at
	case byte:
		i = int(at)
	default:
		return 0, fmt.Errorf("by %s", kindOf(at))
	}
	if i < 0 || i > last {
		return 0, errors.New("out of range")
	}
	return i, nil
}

// slice is x[a:b:c] of a text or a list, by as many of a, b and c as are there.
func slice(args []any) (any, error) {
	if len(args) > 4 {
		return nil, errors.New("by more than three indexes")
	}
	var size, room int
	switch v := args[0].(type) {
	case string:
		if len(args) == 4 {
			return nil, errors.New("of a text by three indexes")
		}
		size, room = len(v), len(v)
	case []any:
		size, room = len(v), cap(v)
	default:
		return nil, fmt.Errorf("of %s", kindOf(args[0]))
	}
	ends := [3]int{0, size, room}
	for i, arg := range args[1:] {
		end, err := position(arg, room)
		if err != nil {
			return nil, err
		}
		ends[i] = end
	}
	if ends[0] > ends[1] || ends[1] > ends[2] {
		return nil, errors.New("indexes that go down")
	}
	if text, ok := args[0].(string); ok {
		return text[ends[0]:ends[1]], nil
	}
	return args[0].([]any)[ends[0]:ends[1]:ends[2]], nil
}

func printf(args []any) (any, error) {
	format, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("by %s", kindOf(args[0]))
	}
	return fmt.Sprintf(format, args[1:]...), nil
}
