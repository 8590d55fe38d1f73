package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// luksImage is a volume that cryptsetup made, with a token and a flag.
func luksImage(t testing.TB, args ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "luks.img")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 4<<20)); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) {
		t.Helper()
		cmd := exec.Command("cryptsetup", args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cryptsetup %q: %v: %s", args, err, out)
		}
	}
	format := slices.Concat([]string{"luksFormat", "--batch-mode", "--key-file=-", "--pbkdf-force-iterations=1000"}, args, []string{file})
	run("key", format...)
	if slices.Contains(args, "luks2") {
		run(`{"type":"pilotlight","keyslots":[],"a":1}`, "token", "import", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func luks2Image(t testing.TB) []byte {
	return luksImage(t, "--type", "luks2", "--pbkdf=pbkdf2", "--luks2-metadata-size=16k", "--luks2-keyslots-size=512k", "--label=a label", "--subsystem=sub", "--uuid=5a9dd0f6-0f4b-4b3e-9d7c-0d6d5e0a3b11")
}

func TestLUKSIsReadAsCryptsetupWroteIt(t *testing.T) {
	l, err := ReadLUKS(bytes.NewReader(luks2Image(t)))
	if err != nil || l.Version != 2 || l.Label != "a label" || l.Subsystem != "sub" || l.UUID != "5a9dd0f6-0f4b-4b3e-9d7c-0d6d5e0a3b11" || len(l.Flags) != 0 {
		t.Fatalf("%+v %v", l, err)
	}
	if len(l.Tokens) != 1 || !strings.Contains(string(l.Tokens[0]), `"pilotlight"`) {
		t.Errorf("%s", l.Tokens)
	}
	if l, err := ReadLUKS(bytes.NewReader(luksImage(t, "--type", "luks1"))); err != nil || l.Version != 1 {
		t.Errorf("%+v %v", l, err)
	}
	for name, data := range map[string][]byte{"zeros": make([]byte, 1<<20), "short": []byte("x"), "nothing": nil} {
		if _, err := ReadLUKS(bytes.NewReader(data)); !errors.Is(err, ErrNoLUKS) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLUKSCopies damages one of the two, or makes it older.
func TestLUKSCopies(t *testing.T) {
	const second = 0x4000
	newer := luks2Image(t)
	for name, c := range map[string]struct {
		change func([]byte)
		label  string
		err    string
	}{
		"the first is damaged":       {func(b []byte) { b[luksBinary+10] ^= 1 }, "a label", ""},
		"the second is damaged":      {func(b []byte) { b[second+luksBinary+10] ^= 1 }, "a label", ""},
		"both are damaged":           {func(b []byte) { b[luksBinary+10] ^= 1; b[second+luksBinary+10] ^= 1 }, "", "damaged"},
		"the first is gone":          {func(b []byte) { clear(b[:second]) }, "a label", ""},
		"of a length that is none":   {func(b []byte) { binary.BigEndian.PutUint64(b[8:], 5000); clear(b[second : 2*second]) }, "", "damaged"},
		"a checksum of another kind": {func(b []byte) { copy(b[72:], "md5\x00"); clear(b[second : 2*second]) }, "", "damaged"},
		"both are gone":              {func(b []byte) { clear(b[:2*second]) }, "", ErrNoLUKS.Error()},
	} {
		data := bytes.Clone(newer)
		c.change(data)
		l, err := ReadLUKS(bytes.NewReader(data))
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || c.err == "" && (err != nil || l.Label != c.label) {
			t.Errorf("%s: %+v %v", name, l, err)
		}
	}
}

// cut is a device that cannot be read from a place on.
type cutOff struct {
	io.ReaderAt
	at int64
}

func (c cutOff) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > c.at {
		return 0, io.ErrNoProgress
	}
	return c.ReaderAt.ReadAt(b, at)
}

func TestLUKSThatCannotBeReadIsNotAbsent(t *testing.T) {
	data := bytes.NewReader(luks2Image(t))
	for _, at := range []int64{0, 100, 5000} {
		if _, err := ReadLUKS(cutOff{data, at}); err == nil || errors.Is(err, ErrNoLUKS) {
			t.Errorf("from %d: %v", at, err)
		}
	}
}

func FuzzReadLUKS(f *testing.F) {
	f.Add(luks2Image(f)[:2<<14])
	f.Add([]byte(luksPrimary + "\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ReadLUKS(bytes.NewReader(data))
		if (l == nil) == (err == nil) {
			t.Errorf("%v %v", l, err)
		}
	})
}
