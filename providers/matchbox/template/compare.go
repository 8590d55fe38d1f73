package template

import (
	"errors"
	"fmt"
)

// eq is whether the first argument equals one of the others.
func eq(args []any) (any, error) {
	if len(args) == 1 {
		return nil, errors.New("with nothing")
	}
	for _, other := range args[1:] {
		if same, err := equal(args[0], other); same || err != nil {
			return same, err
		}
	}
	return false, nil
}

// equal compares values of one kind; int and byte are one. Nothing equals nothing alone.
func equal(a, b any) (bool, error) {
	if a == nil || b == nil {
		return a == nil && b == nil, nil
	}
	if i, j, ok := integers(a, b); ok {
		return i == j, nil
	}
	ok := false
	switch a.(type) {
	case bool:
		_, ok = b.(bool)
	case string:
		_, ok = b.(string)
	case float64:
		_, ok = b.(float64)
	case complex128:
		_, ok = b.(complex128)
	}
	if !ok {
		return false, incomparable(a, b)
	}
	return a == b, nil
}

// less is a < b, of texts and of numbers of one kind.
func less(a, b any) (bool, error) {
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return a < b, nil
		}
	case float64:
		if b, ok := b.(float64); ok {
			return a < b, nil
		}
	}
	if i, j, ok := integers(a, b); ok {
		return i < j, nil
	}
	return false, incomparable(a, b)
}

func integers(a, b any) (i, j int, ok bool) {
	i, aOK := integer(a)
	j, bOK := integer(b)
	return i, j, aOK && bOK
}

func integer(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case byte:
		return int(v), true
	}
	return 0, false
}

func incomparable(a, b any) error { return fmt.Errorf("%s with %s", kindOf(a), kindOf(b)) }

func ne(args []any) (any, error) {
	same, err := equal(args[0], args[1])
	return !same, err
}

func lt(args []any) (any, error) { return less(args[0], args[1]) }

func le(args []any) (any, error) {
	if below, err := less(args[0], args[1]); below || err != nil {
		return below, err
	}
	return equal(args[0], args[1])
}

// gt is not the mirror of lt, but what is not le, and so ge: it matters to a number that is
// none.
func gt(args []any) (any, error) {
	if below, err := less(args[0], args[1]); below || err != nil {
		return false, err
	}
	same, err := equal(args[0], args[1])
	return !same, err
}

func ge(args []any) (any, error) {
	below, err := less(args[0], args[1])
	return !below, err
}
