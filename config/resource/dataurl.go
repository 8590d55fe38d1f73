package resource

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// decodeData returns the payload of a data URL (RFC 2397).
//
// It takes and refuses the same URLs, with the same result, as
// github.com/vincent-petithory/dataurl, which Ignition's spec rests on; a fuzz
// test compares the two. That package is not called here because it leaves a
// goroutine behind for each URL whose payload is malformed, and because it
// reads large payloads rune by rune, twice. One thing is stricter: control
// characters, a line feed inside base64 among them, are refused. Ignition
// refuses them too, before it decodes.
//
// Errors hold nothing of the URL.
func decodeData(s string) ([]byte, error) {
	payload, isBase64, ok := splitData(s)
	if !ok {
		return nil, errors.New("data: what precedes the content is no media type with parameters (data:text/plain;base64,...)")
	}
	for i := range len(payload) {
		if payload[i] <= 0x20 || payload[i] >= 0x7f {
			return nil, fmt.Errorf("data: byte %d of the content is a blank, a control or not ASCII, and must be escaped", i)
		}
	}
	if isBase64 {
		b, err := base64.StdEncoding.DecodeString(payload)
		if err != nil {
			// Its text is an offset.
			return nil, fmt.Errorf("data: content: %w", err)
		}
		return b, nil
	}
	if i := strings.IndexAny(payload, "<>#\"{}|\\^[]`"); i >= 0 {
		return nil, fmt.Errorf("data: byte %d of the content is a character that must be escaped", i)
	}
	return unescape(payload)
}

// splitData takes a data URL apart:
//
//	"data:" [ type "/" [ subtype ] ] *( ";" attribute "=" ( token | quoted ) ) [ ";base64" ] "," payload
//
// The media type and the parameters are checked, and not used further.
func splitData(s string) (payload string, isBase64, ok bool) {
	rest, ok := strings.CutPrefix(s, "data:")
	if !ok {
		return "", false, false
	}
	if !strings.HasPrefix(rest, ";") && !strings.HasPrefix(rest, ",") {
		kind, after, found := strings.Cut(rest, "/")
		if !found || token(kind) != len(kind) || !knownMediaType(kind) {
			return "", false, false
		}
		rest = after[token(after):]
	}
	// In the library an empty quoted value leaves the next value to be
	// unquoted, and so not to be unescaped.
	unquoteNext := false
	for strings.HasPrefix(rest, ";") {
		n := token(rest[1:])
		attribute, after := rest[1:1+n], rest[1+n:]
		if attribute == "base64" && strings.HasPrefix(after, ",") {
			return after[1:], true, true
		}
		if attribute == "" || !strings.HasPrefix(after, "=") {
			return "", false, false
		}
		if value, quoted := strings.CutPrefix(after[1:], `"`); quoted {
			n = quotedLen(value)
			if n < 0 {
				return "", false, false
			}
			if _, err := strconv.Unquote(`"` + value[:n] + `"`); err != nil {
				return "", false, false
			}
			unquoteNext = n == 0
			rest = value[n+1:]
			continue
		}
		value := after[1:]
		n = token(value)
		if n == 0 {
			return "", false, false
		}
		if _, err := unescape(value[:n]); err != nil && !unquoteNext {
			return "", false, false
		}
		unquoteNext = false
		rest = value[n:]
	}
	payload, ok = strings.CutPrefix(rest, ",")
	return payload, false, ok
}

// token returns how many bytes at the start of s may stand in a token
// (RFC 2045, section 5.1).
func token(s string) int {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=`, s[i]) >= 0 {
			return i
		}
	}
	return len(s)
}

// quotedLen returns how many bytes of s precede the quote that ends it, or -1.
func quotedLen(s string) int {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] >= 0x80:
			return -1
		case s[i] == '"':
			return i
		case s[i] == '\\':
			i++
			if i < len(s) && s[i] >= 0x80 {
				return -1
			}
		}
	}
	return -1
}

func knownMediaType(kind string) bool {
	for _, prefix := range []string{"text", "image", "audio", "video", "application", "message", "multipart", "x-", "X-"} {
		if strings.HasPrefix(kind, prefix) {
			return true
		}
	}
	return false
}

// unescape decodes %XX. It knows no +.
func unescape(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for {
		plain, escaped, found := strings.Cut(s, "%")
		b = append(b, plain...)
		if !found {
			return b, nil
		}
		if len(escaped) < 2 {
			return nil, errors.New("data: content: ends within a % escape")
		}
		one, err := hex.DecodeString(escaped[:2])
		if err != nil {
			return nil, errors.New("data: content: a % that two hexadecimal digits do not follow")
		}
		b = append(b, one...)
		s = escaped[2:]
	}
}
