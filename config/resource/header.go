package resource

import (
	"fmt"
	"net/http"
	"strings"
)

// check refuses a header that net/http would refuse or silently leave out: the
// index is told instead of a name that is no name, since that may be anything.
func (h Header) check(index int) error {
	if !headerName(h.Name) {
		return reason(fmt.Sprintf("header %d: the name is empty or has a character that a header name cannot have", index))
	}
	switch http.CanonicalHeaderKey(h.Name) {
	case "Content-Length", "Transfer-Encoding", "Trailer":
		return reason(fmt.Sprintf("header %q cannot be set", h.Name))
	}
	value := h.Value.Reveal()
	if value == "" {
		return reason(fmt.Sprintf("header %q has no value", h.Name))
	}
	for i := range len(value) {
		if c := value[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return reason(fmt.Sprintf("the value of header %q has a control character", h.Name))
		}
	}
	return nil
}

// headerName reports whether s is a token of RFC 9110, section 5.6.2.
func headerName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= 0x20 || c >= 0x7f || strings.IndexByte("()<>@,;:\\\"/[]?={}", c) >= 0 {
			return false
		}
	}
	return s != ""
}
