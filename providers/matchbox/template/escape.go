package template

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// text is what the escaping functions escape.
func text(args []any) string {
	values := make([]any, len(args))
	for i, arg := range args {
		values[i] = shown(arg)
	}
	return fmt.Sprint(values...)
}

// escapeHTML escapes for the text and the quoted attributes of HTML.
func escapeHTML(s string) string {
	return strings.NewReplacer(
		"\x00", "\uFFFD", `"`, "&#34;", `'`, "&#39;", "&", "&amp;", "<", "&lt;", ">", "&gt;",
	).Replace(s)
}

// escapeJS escapes for the inside of a quoted string of JavaScript, also within HTML. Bytes
// that are no UTF-8 stay.
func escapeJS(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case strings.ContainsRune(`\'"`, r):
			b.WriteString(`\` + s[:size])
		case strings.ContainsRune(`<>&=`, r), r < ' ', r >= utf8.RuneSelf && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}
