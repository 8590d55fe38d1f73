package providers

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestFileOfTheRunningSystem(t *testing.T) {
	p, err := Named("file")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer Answer
		err    error
		want   error
	}{
		"there":         {Answer{"/config.ign", []byte("{}")}, nil, nil},
		"not there":     {Answer{}, fmt.Errorf("config.ign: %w", ErrNone), ErrNone},
		"empty":         {Answer{"/config.ign", nil}, nil, ErrNone},
		"not for us":    {Answer{}, fs.ErrPermission, fs.ErrPermission},
		"never partial": {Answer{"/config.ign", []byte("{")}, fs.ErrClosed, fs.ErrClosed},
	} {
		a, err := p.UserConfig(t.Context(), reach{file: func() (Answer, error) { return c.answer, c.err }})
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want == nil && string(a.Bytes) != "{}" || c.want != nil && a.Bytes != nil {
			t.Errorf("%s: %+v", name, a)
		}
		if c.want != ErrNone && errors.Is(err, ErrNone) {
			t.Errorf("%s: taken for no config: %v", name, err)
		}
	}
}
