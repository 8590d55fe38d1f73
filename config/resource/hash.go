package resource

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Hash is a digest that content must have. The zero value is none.
type Hash struct {
	Algorithm string // "sha256" or "sha512"
	Sum       []byte
}

// ParseHash reads "sha256-HEX" or "sha512-HEX", the form of
// verification.hash in Ignition's spec. HEX may be of either case. It fails
// with [ErrSyntax] for everything else.
func ParseHash(s string) (Hash, error) {
	fault := func(cause error) (Hash, error) {
		return Hash{}, &Error{What: "hash", Err: ErrSyntax, Cause: cause}
	}
	algorithm, digits, ok := strings.Cut(s, "-")
	if !ok {
		return fault(reason("not of the form sha512-HEX or sha256-HEX"))
	}
	sum, err := hex.DecodeString(digits)
	if err != nil {
		return fault(reason("what follows the first - is not hexadecimal"))
	}
	h := Hash{Algorithm: algorithm, Sum: sum}
	if err := h.check(); err != nil {
		return fault(err)
	}
	return h, nil
}

// String returns the form that [ParseHash] reads, in lower case, or "" for the
// zero hash.
func (h Hash) String() string {
	if h.IsZero() {
		return ""
	}
	return h.Algorithm + "-" + hex.EncodeToString(h.Sum)
}

// IsZero reports whether h is none.
func (h Hash) IsZero() bool { return h.Algorithm == "" && len(h.Sum) == 0 }

func (h Hash) check() error {
	state := h.state()
	if state == nil {
		return reason("the algorithm is neither sha256 nor sha512")
	}
	if len(h.Sum) != state.Size() {
		return reason(fmt.Sprintf("a %s sum has %d hexadecimal digits, not %d", h.Algorithm, 2*state.Size(), 2*len(h.Sum)))
	}
	return nil
}

// state returns the empty state of h's algorithm, or nil for none and unknown
// ones.
func (h Hash) state() hash.Hash {
	switch h.Algorithm {
	case "sha256":
		return sha256.New()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// verify compares h with what state has seen. Sums are no secrets.
func (h Hash) verify(state hash.Hash) error {
	if got := state.Sum(nil); !bytes.Equal(got, h.Sum) {
		return reason(fmt.Sprintf("%s wanted %x, got %x", h.Algorithm, h.Sum, got))
	}
	return nil
}
