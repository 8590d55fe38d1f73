package template

import (
	"errors"
	"fmt"
	"strings"
	"text/template/parse"
)

// piped is what a command gets from the one before it.
type piped struct {
	value any
	there bool
}

// pipeline returns the last value of a pipeline and sets the variables that it declares.
// Without pipeline the value is nil.
func (f *frame) pipeline(dot any, pipe *parse.PipeNode) (any, error) {
	if pipe == nil {
		return nil, nil
	}
	var last piped
	for _, command := range pipe.Cmds {
		value, err := f.command(dot, command, last)
		if err != nil {
			return nil, err
		}
		last = piped{value, true}
	}
	for _, name := range pipe.Decl {
		if !pipe.IsAssign {
			f.vars = append(f.vars, variable{name.Ident[0], last.value})
		} else if err := f.assign(name, last.value); err != nil {
			return nil, err
		}
	}
	return last.value, nil
}

// variable finds the innermost variable of a name.
func (f *frame) variable(node *parse.VariableNode) (*variable, error) {
	for i := len(f.vars) - 1; i >= 0; i-- {
		if f.vars[i].name == node.Ident[0] {
			return &f.vars[i], nil
		}
	}
	// The parser knows them all, but not those whose declaration "and" and "or" left out.
	return nil, f.fault(node, fmt.Errorf("no variable %.100s", node.Ident[0]))
}

func (f *frame) assign(node *parse.VariableNode, value any) error {
	v, err := f.variable(node)
	if err == nil {
		v.value = value
	}
	return err
}

func (f *frame) command(dot any, command *parse.CommandNode, last piped) (any, error) {
	first := command.Args[0]
	if name, ok := first.(*parse.IdentifierNode); ok {
		return f.function(dot, name, command.Args[1:], last)
	}
	if len(command.Args) > 1 || last.there {
		return nil, f.fault(first, errors.New("an argument for what is no function"))
	}
	if _, ok := first.(*parse.NilNode); ok {
		return nil, f.fault(first, errors.New("nil is no command"))
	}
	return f.operand(dot, first)
}

// operand returns the value of a command of one word, or of an argument.
func (f *frame) operand(dot any, node parse.Node) (any, error) {
	switch node := node.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.NilNode:
		return nil, nil
	case *parse.BoolNode:
		return node.True, nil
	case *parse.StringNode:
		return node.Text, nil
	case *parse.NumberNode:
		return f.number(node)
	case *parse.FieldNode:
		return f.fields(node, dot, node.Ident)
	case *parse.VariableNode:
		v, err := f.variable(node)
		if err != nil {
			return nil, err
		}
		return f.fields(node, v.value, node.Ident[1:])
	case *parse.ChainNode:
		value, err := f.operand(dot, node.Node)
		if err != nil {
			return nil, err
		}
		return f.fields(node, value, node.Field)
	case *parse.PipeNode:
		return f.pipeline(dot, node)
	case *parse.IdentifierNode:
		return f.function(dot, node, nil, piped{})
	}
	return nil, f.fault(node, errors.New("a value of an unknown kind"))
}

// fields follows a chain of keys.
func (f *frame) fields(at parse.Node, value any, keys []string) (any, error) {
	for _, key := range keys {
		var next any
		var ok bool
		switch m := value.(type) {
		case map[string]any:
			next, ok = m[key]
		case map[string]string:
			next, ok = m[key]
		default:
			return nil, f.fault(at, fmt.Errorf("no variable %.100s in %s", key, kindOf(value)))
		}
		if !ok {
			return nil, f.fault(at, fmt.Errorf("no variable %.100s", key))
		}
		value = next
	}
	return value, nil
}

// number gives a constant the type that its spelling says, as in Go.
func (f *frame) number(node *parse.NumberNode) (any, error) {
	hex := strings.HasPrefix(strings.ToLower(node.Text), "0x") && !strings.ContainsAny(node.Text, "pP")
	switch {
	case node.IsComplex:
		return node.Complex128, nil
	case node.IsFloat && !hex && node.Text[0] != '\'' && strings.ContainsAny(node.Text, ".eEpP"):
		return node.Float64, nil
	case node.IsInt && int64(int(node.Int64)) == node.Int64:
		return int(node.Int64), nil
	}
	return nil, f.fault(node, errors.New("a number that is too large"))
}

// truth is what {{if}} goes by: not the zero value, not empty.
func truth(value any) bool {
	switch v := value.(type) {
	case bool:
		return v
	case string:
		return v != ""
	case int:
		return v != 0
	case byte:
		return v != 0
	case float64:
		return v != 0
	case complex128:
		return v != 0
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	case map[string]string:
		return len(v) > 0
	}
	return false
}

// kindOf names the kind of a value, for a fault.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case bool:
		return "true or false"
	case string:
		return "a text"
	case int, byte:
		return "an integer"
	case float64, complex128:
		return "a number"
	case []any:
		return "a list"
	}
	return "a map"
}
