package disk

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// A GUID is a 128-bit identifier in the byte order of its text form: the bytes of
// c12a7328-f81f-… are c1 2a 73 28 f8 1f …. That is the order of systemd's
// sd_id128_t and of a verity root hash, so that GUID(rootHash[:16]) is the UUID of
// the data partition and GUID(rootHash[16:]) that of the hash partition. A GPT on
// the disk stores the first three fields with their bytes swapped (UEFI 2.10,
// appendix A); ReadTable undoes that.
type GUID [16]byte

// ParseGUID reads the forms that sd_id128_from_string(3) reads: 32 hexadecimal
// digits, with the dashes of 8-4-4-4-12 or with none, in either case.
func ParseGUID(s string) (GUID, error) {
	digits := s
	if len(s) == 36 {
		if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
			return GUID{}, fmt.Errorf("GUID %q: dashes are not where they belong", s)
		}
		digits = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	if len(digits) != 32 {
		return GUID{}, fmt.Errorf("GUID %q: not 32 hexadecimal digits", s)
	}
	var g GUID
	if _, err := hex.Decode(g[:], []byte(digits)); err != nil {
		return GUID{}, fmt.Errorf("GUID %q: not 32 hexadecimal digits", s)
	}
	return g, nil
}

// String gives the 36 characters of the text form, in lower case.
func (g GUID) String() string {
	h := hex.EncodeToString(g[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// IsZero says whether every bit is zero: in a GPT, the type of an entry not in use.
func (g GUID) IsZero() bool { return g == GUID{} }

// MarshalText gives what String gives.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText reads what ParseGUID reads.
func (g *GUID) UnmarshalText(text []byte) error {
	parsed, err := ParseGUID(string(text))
	if err != nil {
		return err
	}
	*g = parsed
	return nil
}

// guidOnDisk reads the mixed byte order of UEFI from the first 16 bytes of b.
func guidOnDisk(b []byte) GUID {
	return GUID{
		b[3], b[2], b[1], b[0],
		b[5], b[4],
		b[7], b[6],
		b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
	}
}
