package config

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzParseSize: a size is what its digits say, times what its suffix says, and comes back
// where it is written without one.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "10G", "1T", "16777215T", "16777216T", "18446744073709551615", "1KK", "+1", "-1", "", "K", "0x10", "1 G", "1g"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if again, err := ParseSize(fmt.Sprint(n)); err != nil || again != n {
			t.Errorf("%q is %d, and that is %d, %v", s, n, again, err)
		}
		if digits := strings.TrimRight(s, "KMGT"); len(s)-len(digits) > 1 || strings.Trim(digits, "0123456789") != "" {
			t.Errorf("%q is %d", s, n)
		}
	})
}
