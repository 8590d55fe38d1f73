package tpm

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	// printf '%s' '{"a":1}' | sha256sum
	const sum = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
	for _, c := range []struct{ name, want string }{
		{"user", "pilotlight:config:v1:user:sha256:" + sum},
		{"child-0001", "pilotlight:config:v1:child-0001:sha256:" + sum},
		{"10-base_B.ign", "pilotlight:config:v1:10-base_B.ign:sha256:" + sum},
		{"", "pilotlight:config:v1::sha256:" + sum},
		{"a:b", "pilotlight:config:v1:a%3Ab:sha256:" + sum},
		{"a%3Ab", "pilotlight:config:v1:a%253Ab:sha256:" + sum},
		{"x\n\x1e\x00é/", "pilotlight:config:v1:x%0A%1E%00%C3%A9%2F:sha256:" + sum},
		{"user:sha256:00", "pilotlight:config:v1:user%3Asha256%3A00:sha256:" + sum},
	} {
		if got := Word(c.name, []byte(`{"a":1}`)); got != c.want {
			t.Errorf("Word(%q) = %q, want %q", c.name, got, c.want)
		}
	}
	if w := Word(strings.Repeat("\xff", 255), nil); len(w) > MaxWord {
		t.Errorf("the longest file name gives a word of %d bytes, more than %d", len(w), MaxWord)
	}
}

func FuzzWord(f *testing.F) {
	f.Add("user", "user%", []byte("x"))
	f.Add("a:b", "a%3Ab", []byte{})
	f.Add("a", "a:sha256:"+strings.Repeat("0", 64), []byte("x"))
	f.Fuzz(func(t *testing.T, a, b string, contents []byte) {
		if (Word(a, contents) == Word(b, contents)) != (a == b) {
			t.Fatalf("names %q and %q give %q", a, b, Word(a, contents))
		}
		if n := strings.Count(Word(a, contents), ":"); n != 5 {
			t.Fatalf("%q has %d colons", Word(a, contents), n)
		}
	})
}

func TestDigest(t *testing.T) {
	// printf '%s' abc | sha1sum and its siblings: the vectors of FIPS 180-4.
	for b, want := range map[Bank]string{
		SHA1:   "a9993e364706816aba3e25717850c26c9cd0d89d",
		SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		SHA384: "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
		SHA512: "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
	} {
		if got := hex.EncodeToString(Digest(b, "abc")); got != want {
			t.Errorf("%s: %s, want %s", b, got, want)
		}
		if b.Size() != len(want)/2 {
			t.Errorf("%s: size %d, want %d", b, b.Size(), len(want)/2)
		}
	}
	if got := Digest("sm3_256", "abc"); got != nil {
		t.Errorf("unknown bank: %x, want nil", got)
	}
}

func TestReplay(t *testing.T) {
	join := func(a, b []byte) []byte { s := sha256.Sum256(slices.Concat(a, b)); return s[:] }
	digest := func(w string) []byte { s := sha256.Sum256([]byte(w)); return s[:] }
	zero := make([]byte, 32)
	start := slices.Repeat([]byte{7}, 32)

	for _, c := range []struct {
		name    string
		initial map[Bank][]byte
		words   []string
		want    []byte
	}{
		{"nothing", nil, nil, zero},
		{"from zeros", nil, []string{"a", "b"}, join(join(zero, digest("a")), digest("b"))},
		{"from a value", map[Bank][]byte{SHA256: start, "sm3_256": start}, []string{"a"}, join(start, digest("a"))},
	} {
		got := Replay(c.initial, c.words)
		if !slices.Equal(got[SHA256], c.want) {
			t.Errorf("%s: %x, want %x", c.name, got[SHA256], c.want)
		}
		if banks := slices.Sorted(maps.Keys(got)); !slices.Equal(banks, Banks()) {
			t.Errorf("%s: banks %v, want %v", c.name, banks, Banks())
		}
	}
	if !slices.Equal(start, slices.Repeat([]byte{7}, 32)) {
		t.Error("the initial value was changed")
	}
}
