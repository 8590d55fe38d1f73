package resource

import "testing"

// FuzzSoundData holds the check that keeps nothing against the reading itself.
func FuzzSoundData(f *testing.F) {
	for _, s := range dataSeeds {
		f.Add(s)
	}
	for c := range 256 {
		f.Add("data:," + string([]byte{byte(c)}) + "x")
		f.Add("data:,%4" + string([]byte{byte(c)}))
		f.Add("data:;base64,QUJ" + string([]byte{byte(c)}))
	}
	for _, s := range []string{"=", "==", "===", "====", "A===", "AA==", "AA=A", "AAA=", "=AAA", "AAAA=", "AAAAA===", "AAAA==", "AAAAAA=="} {
		f.Add("data:;base64," + s)
	}
	for _, s := range []string{"%", "%4", "%41", "%%41", "x%4", "%4g", "%g4"} {
		f.Add("data:," + s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := decodeData(s)
		if soundData(s) != (err == nil) {
			t.Fatalf("%q: sound %t, decoded with %v", s, err != nil, err)
		}
	})
}
