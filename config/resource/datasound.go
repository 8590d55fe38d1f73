package resource

import "strings"

// What the content of a data URL consists of: the digits of base64 (RFC 4648), or what
// stands for itself, beside the % of an escape.
const (
	base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	selfEvident  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + `!$&'()*+,-./:;=?@_~`
	hexDigits    = "0123456789abcdefABCDEF"
)

// soundData says whether decodeData takes a data URL, and keeps nothing of it: a config
// may carry megabytes in such URLs, of which each is looked at when the config is read,
// but decoded only when it is written.
func soundData(s string) bool {
	payload, isBase64, ok := splitData(s)
	if !ok {
		return false
	}
	if isBase64 {
		digits := setOf(base64Digits)
		return len(payload)%4 == 0 && digits.all(strings.TrimSuffix(strings.TrimSuffix(payload, "="), "="))
	}
	plain, hex := setOf(selfEvident), setOf(hexDigits)
	for {
		part, escaped, found := strings.Cut(payload, "%")
		if !plain.all(part) {
			return false
		}
		if !found {
			return true
		}
		if len(escaped) < 2 || !hex.all(escaped[:2]) {
			return false
		}
		payload = escaped[2:]
	}
}

// usualData says whether a text is a sound data URL whose media type and parameters are
// written in such letters that net/url has nothing to say of them.
func usualData(s string) bool {
	before, _, _ := strings.Cut(s[:min(len(s), 256)], ",")
	letters := setOf(base64Digits + ":;=-._")
	return strings.HasPrefix(s, "data:") && letters.all(before) && soundData(s)
}

// byteSet is a set of bytes.
type byteSet [256]bool

func setOf(members string) (s byteSet) {
	for i := range len(members) {
		s[members[i]] = true
	}
	return s
}

// all says whether a text consists of nothing else.
func (s *byteSet) all(text string) bool {
	for i := range len(text) {
		if !s[text[i]] {
			return false
		}
	}
	return true
}
