package template

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
)

// run is one rendering.
type run struct {
	template *Template
	out      []byte
	limit    int // bytes that out, and any text made on the way, may have
	steps    int // that are left
	nested   int // actions that are being run, one within another
}

// frame is one template of a run: the variables that it sees.
type frame struct {
	*run
	vars []variable // a stack
}

type variable struct {
	name  string
	value any
}

// flow is how an action ends.
type flow int

const (
	onward flow = iota
	nextTurn
	leaveLoop
)

var (
	errTooMuch = errors.New("does too much")
	errTooDeep = fmt.Errorf("actions nested more than %d deep", maxNested)
)

func (r *run) fault(at parse.Node, err error) *Fault {
	return &Fault{Line: 1 + strings.Count(r.template.text[:at.Position()], "\n"), Err: err}
}

// spend takes steps from those that are left.
func (r *run) spend(at parse.Node, steps int) error {
	r.steps -= steps
	if r.steps < 0 {
		return r.fault(at, errTooMuch)
	}
	return nil
}

// made accounts for a text that stands in the output, or in a value.
func (r *run) made(at parse.Node, size, whole int) error {
	if whole > r.limit {
		return r.fault(at, ErrTooLong)
	}
	return r.spend(at, size)
}

func (f *frame) walk(dot any, node parse.Node) (flow, error) {
	if err := f.spend(node, 1); err != nil {
		return onward, err
	}
	if f.nested == maxNested {
		return onward, f.fault(node, errTooDeep)
	}
	f.nested++
	defer func() { f.nested-- }()
	switch node := node.(type) {
	case *parse.ListNode:
		for _, one := range node.Nodes {
			if how, err := f.walk(dot, one); how != onward || err != nil {
				return how, err
			}
		}
		return onward, nil
	case *parse.TextNode:
		f.out = append(f.out, node.Text...)
		return onward, f.made(node, len(node.Text), len(f.out))
	case *parse.ActionNode:
		value, err := f.pipeline(dot, node.Pipe)
		if err != nil || len(node.Pipe.Decl) > 0 {
			return onward, err
		}
		return onward, f.print(node, value)
	case *parse.IfNode:
		return f.branch(dot, &node.BranchNode, false)
	case *parse.WithNode:
		return f.branch(dot, &node.BranchNode, true)
	case *parse.RangeNode:
		return f.loop(dot, node)
	case *parse.TemplateNode:
		return onward, f.include(dot, node)
	case *parse.BreakNode:
		return leaveLoop, nil
	case *parse.ContinueNode:
		return nextTurn, nil
	}
	return onward, f.fault(node, errors.New("an action of an unknown kind"))
}

func (f *frame) print(at parse.Node, value any) error {
	before := len(f.out)
	f.out = fmt.Append(f.out, shown(value))
	return f.made(at, len(f.out)-before, len(f.out))
}

// shown is a value as it is printed.
func shown(value any) any {
	if value == nil {
		return "<no value>"
	}
	return value
}

// branch is {{if}} and, with dot set to the value, {{with}}.
func (f *frame) branch(dot any, node *parse.BranchNode, with bool) (flow, error) {
	mark := len(f.vars)
	defer func() { f.vars = f.vars[:mark] }()
	value, err := f.pipeline(dot, node.Pipe)
	if err != nil {
		return onward, err
	}
	switch {
	case truth(value) && with:
		return f.walk(value, node.List)
	case truth(value):
		return f.walk(dot, node.List)
	case node.ElseList != nil:
		return f.walk(dot, node.ElseList)
	}
	return onward, nil
}

func (f *frame) loop(dot any, node *parse.RangeNode) (flow, error) {
	mark := len(f.vars)
	defer func() { f.vars = f.vars[:mark] }()
	over, err := f.pipeline(dot, node.Pipe)
	if err != nil {
		return onward, err
	}
	turns, err := elements(over, len(node.Pipe.Decl))
	if err != nil {
		return onward, f.fault(node, err)
	}
	body, ran := len(f.vars), false
	for index, element := range turns {
		ran = true
		if err := f.turn(node, index, element); err != nil {
			return onward, err
		}
		how, err := f.walk(element, node.List)
		f.vars = f.vars[:body]
		if err != nil {
			return onward, err
		}
		if how == leaveLoop {
			break
		}
	}
	if ran || node.ElseList == nil {
		return onward, nil
	}
	how, err := f.walk(dot, node.ElseList)
	if how == leaveLoop {
		// The parser means an outer loop, but text/template leaves this one.
		how = onward
	}
	return how, err
}

// turn sets the variables of one turn of a loop: of two the first is the index, a single one
// is the element.
func (f *frame) turn(node *parse.RangeNode, index, element any) error {
	values := []any{index, element}
	names := node.Pipe.Decl
	values = values[len(values)-len(names):]
	for i, name := range names {
		if node.Pipe.IsAssign {
			if err := f.assign(name, values[i]); err != nil {
				return err
			}
		} else {
			// The pipeline has just declared them, on top of the stack.
			f.vars[len(f.vars)-len(names)+i].value = values[i]
		}
	}
	return nil
}

// elements are what a loop with so many variables goes over; maps in order of their keys.
func elements(over any, variables int) (iter.Seq2[any, any], error) {
	switch over := over.(type) {
	case nil:
		return func(func(any, any) bool) {}, nil
	case []any:
		return func(yield func(any, any) bool) {
			for i, element := range over {
				if !yield(i, element) {
					return
				}
			}
		}, nil
	case map[string]any:
		return sorted(over), nil
	case map[string]string:
		return sorted(over), nil
	case int:
		return numbers(over, variables)
	case byte:
		return numbers(over, variables)
	}
	return nil, fmt.Errorf("range over %s", kindOf(over))
}

func sorted[V any](m map[string]V) iter.Seq2[any, any] {
	return func(yield func(any, any) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}

func numbers[N int | byte](end N, variables int) (iter.Seq2[any, any], error) {
	if variables > 1 {
		return nil, errors.New("range over a number with two variables")
	}
	return func(yield func(any, any) bool) {
		for i := N(0); i < end; i++ {
			if !yield(nil, i) {
				return
			}
		}
	}, nil
}

// include runs another template, which sees its own variables alone.
func (f *frame) include(dot any, node *parse.TemplateNode) error {
	tree := f.template.trees[node.Name]
	if tree == nil {
		return f.fault(node, fmt.Errorf("no template %.100q", node.Name))
	}
	dot, err := f.pipeline(dot, node.Pipe)
	if err != nil {
		return err
	}
	inner := frame{run: f.run, vars: []variable{{"$", dot}}}
	_, err = inner.walk(dot, tree.Root)
	return err
}
