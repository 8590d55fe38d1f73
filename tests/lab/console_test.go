package lab

import (
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestConsole(t *testing.T) {
	tests := []struct {
		name, raw string
		lines     []string
		partial   string // the last incomplete text that was shown
	}{
		{"lines", "one\r\ntwo\n", []string{"one", "two"}, ""},
		{"blank lines", "\r\n\r\n  \r\n", nil, ""},
		{"no line break at the end", "login: ", []string{"login:"}, "login: "},
		{"colours", "[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mUnit\x1b[0m.\r\n", []string{"[  OK  ] Started Unit."}, ""},
		{"a line begun anew", "waiting\rdone\n", []string{"waiting", "done"}, ""},
		{"title and screen codes", "\x1b]0;title\a\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe\r\n", []string{"BdsDxe"}, ""},
		{"not text", "a\xff\x00\x07b\n", []string{"a\uFFFDb"}, ""},
		{"too long", strings.Repeat("x", maxLine+3) + "\n", []string{strings.Repeat("x", maxLine), "xxx"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for name, wrap := range map[string]bool{"whole": false, "byte by byte": true} {
				var lines []string
				partial := ""
				c := console{now: func() time.Duration { return time.Second }, line: func(l Line) {
					if l.At != time.Second {
						t.Errorf("%s: line at %s", name, l.At)
					}
					lines = append(lines, l.Text)
					partial = ""
				}}
				last := ""
				c.partial = func(text string) { partial = text; last = text }
				r := strings.NewReader(test.raw)
				var err error
				if wrap {
					err = c.copy(iotest.OneByteReader(r))
				} else {
					err = c.copy(r)
				}
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(lines, test.lines) {
					t.Errorf("%s: lines %q, want %q", name, lines, test.lines)
				}
				if test.partial != "" && last != test.partial {
					t.Errorf("%s: partial %q (%q), want %q", name, last, partial, test.partial)
				}
			}
		})
	}
}

func TestConsoleReadError(t *testing.T) {
	var lines []string
	c := console{now: func() time.Duration { return 0 }, line: func(l Line) { lines = append(lines, l.Text) }}
	err := c.copy(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab\n"))))
	if err != iotest.ErrTimeout {
		t.Errorf("error %v, want %v", err, iotest.ErrTimeout)
	}
	if !slices.Equal(lines, []string{"a"}) {
		t.Errorf("lines %q: what had come must be shown", lines)
	}
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte("a\x1b[0;1mb\r\nc"))
	f.Add([]byte("\x1b]0;\x1b\\\x1b"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := console{now: func() time.Duration { return 0 }, line: func(l Line) {
			if strings.ContainsAny(l.Text, "\x1b\r\n\a") || l.Text == "" {
				t.Errorf("line %q", l.Text)
			}
		}}
		if err := c.copy(strings.NewReader(string(raw))); err != nil {
			t.Fatal(err)
		}
	})
}
