package units

import (
	"strings"
	"testing"
)

// FuzzParseArgs: the last of a word counts, and a root hash has a root.
func FuzzParseArgs(f *testing.F) {
	f.Add("pilotlight=no root=/dev/vda1 usrhash=ABC")
	f.Add("roothash= pilotlight=no pilotlight=yes root")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		a := ParseArgs(words)
		if a.RootHash != "" && !strings.Contains(strings.ToLower(line), "roothash="+a.RootHash) || a.UsrHash != "" && !strings.Contains(strings.ToLower(line), "usrhash="+a.UsrHash) {
			t.Errorf("%+v", a)
		}
		if b := ParseArgs(append(words, "pilotlight=no")); !b.Off {
			t.Errorf("%q: the last word does not count", line)
		}
	})
}
