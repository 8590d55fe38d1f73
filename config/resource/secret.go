package resource

import (
	"fmt"
	"io"
)

const hidden = "[secret]"

// Secret is text that is never printed. Whatever formats or encodes it gets
// "[secret]", also for the zero value, which is empty. Only [Secret.Reveal]
// gives the text.
//
// It protects against printing, not against reading memory: the text is a
// string like any other.
type Secret struct {
	// A pointer, because package fmt looks into the unexported fields of a
	// struct without asking their methods, but follows no pointer to a string.
	text *string
}

// NewSecret returns s as a secret.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty reports whether the text has no bytes.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// String returns "[secret]".
func (s Secret) String() string { return hidden }

// GoString returns "[secret]".
func (s Secret) GoString() string { return hidden }

// Format writes "[secret]" for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) {
	// An error of a printing destination reaches the caller of fmt by itself.
	_, _ = io.WriteString(f, hidden)
}

// MarshalJSON returns "[secret]" as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText returns "[secret]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
