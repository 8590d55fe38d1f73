package resource

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestParseHash(t *testing.T) {
	for _, tt := range []struct {
		text      string
		algorithm string
		size      int
	}{
		{"sha256-" + strings.Repeat("aB", 32), "sha256", 32},
		{"sha512-" + strings.Repeat("01", 64), "sha512", 64},
	} {
		h, err := ParseHash(tt.text)
		if err != nil || h.Algorithm != tt.algorithm || len(h.Sum) != tt.size || h.IsZero() {
			t.Errorf("%q: %+v, %v", tt.text, h, err)
		}
		if h.String() != strings.ToLower(tt.text) {
			t.Errorf("%q prints as %q", tt.text, h)
		}
	}
	if h := (Hash{}); !h.IsZero() || h.String() != "" {
		t.Errorf("the zero hash is %q", h)
	}
	for text, says := range map[string]string{
		"":                                  "not of the form",
		"sha256":                            "not of the form",
		"sha256-":                           "64 hexadecimal digits, not 0",
		"md5-" + strings.Repeat("00", 16):   "neither sha256 nor sha512",
		"SHA256-" + strings.Repeat("0", 64): "neither sha256 nor sha512",
		"sha256-" + strings.Repeat("0", 62): "64 hexadecimal digits, not 62",
		"sha512-" + strings.Repeat("0", 64): "128 hexadecimal digits, not 64",
		"sha256-" + canary:                  "not hexadecimal",
		canary + "-" + canary:               "not hexadecimal",
		canary + "-00":                      "neither sha256 nor sha512",
	} {
		_, err := ParseHash(text)
		if !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
		quietError(t, err)
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("sha256-" + strings.Repeat("0f", 32))
	f.Add("sha512-" + strings.Repeat("F0", 64))
	f.Add("sha256-00-00")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if state := h.state(); state == nil || state.Size() != len(h.Sum) {
			t.Fatalf("%q: %+v", s, h)
		}
		algorithm, digits, _ := strings.Cut(s, "-")
		if h.String() != algorithm+"-"+strings.ToLower(digits) || hex.EncodeToString(h.Sum) != strings.ToLower(digits) {
			t.Fatalf("%q became %q", s, h)
		}
		if again, err := ParseHash(h.String()); err != nil || again.String() != h.String() {
			t.Fatalf("%q does not read back: %v", h, err)
		}
	})
}
