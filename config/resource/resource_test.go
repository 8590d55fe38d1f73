package resource

import (
	"strings"
	"testing"
)

func TestResourceNames(t *testing.T) {
	inline := NewSecret(canary)
	for _, tt := range []struct {
		resource     Resource
		name         string
		remote, zero bool
	}{
		{Resource{}, "(empty)", false, true},
		{Resource{Inline: &inline}, "inline", false, false},
		{Resource{Source: mustURL(t, "data:,"+canary)}, "data:", false, false},
		{Resource{Source: secretURL(t)}, "https://example.com/path", true, false},
	} {
		if r := tt.resource; r.String() != tt.name || r.Remote() != tt.remote || r.IsZero() != tt.zero {
			t.Errorf("%v: remote %v, zero %v", r, r.Remote(), r.IsZero())
		}
	}
}

func TestIdentity(t *testing.T) {
	secret := func(s string) *Secret { v := NewSecret(s); return &v }
	hash := func(s string) Hash {
		h, err := ParseHash(s)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	// All of these say different things, though some would run together if
	// they were only joined.
	different := []Resource{
		{},
		{Inline: secret("")},
		{Inline: secret("x")},
		{Source: mustURL(t, "data:,x")},
		{Source: mustURL(t, "http://h/")},
		{Source: mustURL(t, "http://h/?a")},
		{Source: mustURL(t, "http://u@h/?a")},
		{Source: mustURL(t, "http://h/"), Compression: Gzip},
		{Source: mustURL(t, "http://h/"), Compression: Zstd},
		{Source: mustURL(t, "http://h/"), Hash: hash("sha256-" + strings.Repeat("0", 64))},
		{Source: mustURL(t, "http://h/"), Hash: hash("sha512-" + strings.Repeat("0", 128))},
		{Source: mustURL(t, "http://h/"), Headers: []Header{{"A", NewSecret("bc")}}},
		{Source: mustURL(t, "http://h/"), Headers: []Header{{"Ab", NewSecret("c")}}},
		{Source: mustURL(t, "http://h/"), Headers: []Header{{"A", NewSecret("b")}, {"C", NewSecret("d")}}},
		{Source: mustURL(t, "http://h/"), Headers: []Header{{"C", NewSecret("d")}, {"A", NewSecret("b")}}},
		{Source: mustURL(t, "http://h/"), Headers: []Header{{"A", NewSecret("b")}}},
	}
	seen := map[[32]byte]int{}
	for i, r := range different {
		if j, ok := seen[r.Identity()]; ok {
			t.Errorf("%d and %d are the same", i, j)
		}
		seen[r.Identity()] = i
	}
	a := Resource{Source: mustURL(t, "http://h/?a"), Headers: []Header{{"A", NewSecret("b")}}}
	b := Resource{Source: mustURL(t, "http://h/?a"), Headers: []Header{{"A", NewSecret("b")}}}
	if a.Identity() != b.Identity() {
		t.Error("what says the same has two identities")
	}
}
