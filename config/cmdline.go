package config

import "strings"

// argument is one KEY or KEY=VALUE of a kernel command line.
type argument struct {
	key      string
	value    string
	hasValue bool
}

// arguments splits a kernel command line as systemd does (proc_cmdline_parse):
// at blanks that stand in no quotes. Double and single quotes group, wherever in
// a word they stand, and are taken out; a quote that is never closed reaches to
// the end; a backslash has no meaning.
func arguments(cmdline string) []argument {
	var out []argument
	var word strings.Builder
	var quote byte
	inWord := false
	end := func() {
		if inWord {
			key, value, has := strings.Cut(word.String(), "=")
			out = append(out, argument{key, value, has})
		}
		word.Reset()
		inWord = false
	}
	for _, c := range []byte(cmdline) {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && strings.IndexByte(" \t\n\r\x00", c) >= 0:
			end()
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	end()
	return out
}
