package initrd

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"pilotlight/initrd/disk"
)

const provision = "0a3c7d2e-5b1f-4a6d-8c9e-7f0123456789"

// tool runs a program of the machine that the test runs on.
func tool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// newPlace is a file system on a loop device, as a state partition would be. It
// needs root, util-linux and e2fsprogs.
func newPlace(t *testing.T) Place {
	t.Helper()
	file := filepath.Join(t.TempDir(), "place")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "", "mkfs.ext4", "-q", "-O", "^has_journal", file)
	node := tool(t, "", "losetup", "--find", "--show", file)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", node) })
	return Place{Node: node, Kind: "state partition", Disk: Identify{GPT: "d1", Serial: "s1"}}
}

// within does something with the files of a place.
func within(t *testing.T, m *Machine, p Place, do func(dir string)) {
	t.Helper()
	err := m.at(p, true, func(dir string) error {
		do(dir)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reborn is the machine at its next boot, which recalls what is at the place.
func reborn(t *testing.T, p Place) (*Machine, Memory) {
	t.Helper()
	m, _ := testMachine(t)
	m.Disks.Sys = fstest.MapFS{}
	m.TPM = filepath.Join(m.Run, "no-tpm")
	memory, err := m.recall(p)
	if err != nil {
		t.Fatal(err)
	}
	return m, memory
}

func someRecord() Record {
	return Record{
		Version: 1, State: Complete, Provision: provision, Platform: "metal", Config: "c0ffee",
		Disks: []Identify{{GPT: "d1", Serial: "s1"}}, Receipts: []string{"repart:main:" + provision},
	}
}

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	data, err := json.Marshal(someRecord())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(data), string(data) + "\n\n"} {
		got, err := parseRecord([]byte(text), Place{Disk: Identify{GPT: "d1", Serial: "s1"}})
		if err != nil || !reflect.DeepEqual(got, someRecord()) {
			t.Errorf("%+v %v", got, err)
		}
	}
}

// TestRecordThatIsNotUnderstood: none of these may be taken for a machine that has no
// record, nor for one that is provisioned.
func TestRecordThatIsNotUnderstood(t *testing.T) {
	const good = `{"version":1,"state":"complete","provision":"p","platform":"metal","config":"c","disks":[{"gpt":"d1","serial":"s1","wwn":"w1"}]}`
	place := Place{Disk: Identify{GPT: "d1", Serial: "s1", WWN: "w1"}}
	if _, err := parseRecord([]byte(good), place); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"empty":             {good, "", "EOF"},
		"zeroes":            {good, "\x00\x00\x00\x00", "invalid character"},
		"cut short":         {good, good[:len(good)/2], "unexpected EOF"},
		"no object":         {good, `[]`, "cannot unmarshal"},
		"null":              {good, `null`, "format 0 is not known"},
		"more behind":       {good, good + good, "something follows the record"},
		"garbage behind":    {good, good + "\x00\x00", "something follows the record"},
		"older format":      {`"version":1`, `"version":0`, "format 0 is not known"},
		"newer format":      {`"version":1`, `"version":2`, "format 2 is not known"},
		"newer, and richer": {`"version":1`, `"version":2,"wiped":true`, "format 2 is not known"},
		"no format":         {`"version":1,`, ``, "format 0 is not known"},
		"no such form":      {`"version":1`, `"version":1,"kept":{"form":"open"}`, "no kept copy that there could be"},
		"a kept elsewhere":  {`"version":1`, `"version":1,"kept":{"form":"plain","sha256":"../../../../../../../../etc/passwd"}`, "no kept copy that there could be"},
		"a kept unnamed":    {`"version":1`, `"version":1,"kept":{"form":"sealed"}`, "no kept copy that there could be"},
		"unknown field":     {`"version":1`, `"version":1,"wiped":true`, `unknown field "wiped"`},
		"unknown state":     {`"complete"`, `"done"`, `state "done" is neither`},
		"no state":          {`"complete"`, `""`, `state "" is neither`},
		"no provision id":   {`"p"`, `""`, "no provision id"},
		"another disk":      {`"d1"`, `"d2"`, "written on another disk"},
		"another serial":    {`"s1"`, `"s2"`, "written on another disk"},
		"another wwn":       {`"w1"`, `"w2"`, "written on another disk"},
		"no disk":           {`{"gpt":"d1","serial":"s1","wwn":"w1"}`, ``, "written on another disk"},
		"a number as text":  {`"version":1`, `"version":"1"`, "cannot unmarshal"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		r, err := parseRecord([]byte(text), place)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if !reflect.DeepEqual(r, Record{}) {
			t.Errorf("%s: beside the error there is %+v", name, r)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"state":"started","provision":"p","platform":"","config":"","disks":[{"gpt":"d1"}]}`))
	f.Add([]byte(`{"version":1,"state":"complete","provision":"p","disks":[{"gpt":"d1"}],"kept":{"form":"digest"}} `))
	f.Fuzz(func(t *testing.T, data []byte) {
		place := Place{Disk: Identify{GPT: "d1"}}
		r, err := parseRecord(data, place)
		if err != nil {
			return
		}
		if r.Version != 1 || r.Provision == "" || r.State != Started && r.State != Complete || !json.Valid(data) {
			t.Errorf("%q was taken for %+v", data, r)
		}
	})
}

func TestDisksAreComparedByWhatBothKnow(t *testing.T) {
	full := Identify{GPT: "g", Serial: "s", WWN: "w"}
	for _, c := range []struct {
		other Identify
		same  bool
	}{
		{full, true},
		{Identify{GPT: "g"}, true},
		{Identify{GPT: "g", Serial: "s"}, true},
		{Identify{GPT: "g", WWN: "w"}, true},
		{Identify{GPT: "g", Serial: "t", WWN: "w"}, false},
		{Identify{GPT: "g", Serial: "s", WWN: "v"}, false},
		{Identify{GPT: "h", Serial: "s", WWN: "w"}, false},
		{Identify{Serial: "s", WWN: "w"}, false},
	} {
		if full.same(c.other) != c.same || c.other.same(full) != c.same {
			t.Errorf("%+v and %+v: want %v", full, c.other, c.same)
		}
	}
}

func TestRecordOutlivesTheBoot(t *testing.T) {
	place := newPlace(t)
	m, memory := reborn(t, place)
	if !reflect.DeepEqual(memory, Memory{Place: place}) {
		t.Fatalf("on an empty file system: %+v", memory)
	}
	creds(t, m, "k1")
	look := m.Look(t.Context())
	started := Recorded{State: Started, Provision: provision, Platform: "metal", Config: "c0ffee"}
	complete := Recorded{State: Complete, Provision: provision, Platform: "metal", Config: "c0ffee", Form: "sealed", Documents: []byte("documents")}

	settle(t, m, started)
	if err := m.Keep(Receipt{Name: "erased", Scope: ScopeProvision}); err != nil {
		t.Fatal(err)
	}
	if !look.Done(Receipt{Name: "erased", Scope: ScopeProvision}) || look.Done(Receipt{Name: "erased"}) {
		t.Error("a receipt has the wrong scope")
	}

	// The power goes.
	m, memory = reborn(t, place)
	creds(t, m, "k1")
	want := Record{
		Version: 1, State: Started, Provision: provision, Platform: "metal", Config: "c0ffee",
		Disks: []Identify{place.Disk}, Receipts: []string{"erased"},
	}
	if !reflect.DeepEqual(memory.Record, want) {
		t.Fatalf("%+v", memory.Record)
	}
	if !m.Look(t.Context()).Done(Receipt{Name: "erased", Scope: ScopeProvision}) {
		t.Error("the receipt is gone")
	}
	if _, err := m.Unseal(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a kept copy before the end: %v", err)
	}
	for want := range 3 {
		if n, err := m.Failed(); n != want+1 || err != nil {
			t.Errorf("failed boots: %d %v", n, err)
		}
	}
	if _, err := apply(t, m, started, complete); err != nil {
		t.Fatal(err)
	}

	m, memory = reborn(t, place)
	creds(t, m, "k1")
	if memory.Record.State != Complete || memory.Record.Failures != 0 || !slices.Equal(memory.Record.Receipts, []string{"erased"}) {
		t.Errorf("%+v", memory.Record)
	}
	if got, err := m.Unseal(t.Context()); string(got) != "documents" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	state, _, err := complete.Resolve(m.Look(t.Context()))
	if state != So || err != nil {
		t.Errorf("%v %v", state, err)
	}

	// A failed boot in between is counted, and the count ends with the next good one,
	// which leaves the kept copy as it is.
	before := memory.Record.Kept
	if n, err := m.Failed(); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	settle(t, m, complete)
	_, memory = reborn(t, place)
	if memory.Record.Failures != 0 || !reflect.DeepEqual(memory.Record.Kept, before) {
		t.Errorf("%+v", memory.Record)
	}
}

func TestFilesOfTheRecordAreForRootAlone(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "plain", Documents: []byte("d")})
	within(t, m, place, func(dir string) {
		for name, want := range map[string]fs.FileMode{".": fs.ModeDir | 0o700, "record.json": 0o600, m.memory.Record.Kept.file(): 0o600} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
				t.Errorf("%s: %v %v", name, info.Mode(), err)
			}
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 2 {
			t.Errorf("%v", entries)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(m.Run, "place-*")); len(left) > 0 {
		t.Errorf("mount points are left: %v", left)
	}
}

func TestRecordThatCannotBeTrustedStopsTheBoot(t *testing.T) {
	place := newPlace(t)
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"damaged":             {func(d string) error { return os.WriteFile(filepath.Join(d, "record.json"), []byte("{"), 0o600) }, "unexpected EOF"},
		"empty":               {func(d string) error { return os.Truncate(filepath.Join(d, "record.json"), 0) }, "EOF"},
		"endless":             {func(d string) error { return os.Truncate(filepath.Join(d, "record.json"), 1<<30) }, "more than 1048576 bytes"},
		"a directory":         {func(d string) error { return replaceBy(filepath.Join(d, "record.json"), os.Mkdir) }, "no regular file"},
		"a FIFO":              {func(d string) error { return replaceBy(filepath.Join(d, "record.json"), namedPipe) }, "no regular file"},
		"a link":              {func(d string) error { return linkInstead(filepath.Join(d, "record.json")) }, "too many levels of symbolic links"},
		"a link to elsewhere": {func(d string) error { return linkInstead(d) }, "too many levels of symbolic links"},
		"lost, half a new one": {func(d string) error {
			return errors.Join(os.Rename(filepath.Join(d, "record.json"), filepath.Join(d, "record.json.new")), os.Truncate(filepath.Join(d, "record.json.new"), 9))
		}, "the record is gone"},
		"kept copy gone":      {func(d string) error { return os.Remove(keptAt(d)) }, "no such file"},
		"kept copy endless":   {func(d string) error { return os.Truncate(keptAt(d), 1<<30) }, "more than"},
		"kept copy a FIFO":    {func(d string) error { return replaceBy(keptAt(d), namedPipe) }, "no regular file"},
		"another kept copy":   {func(d string) error { return os.WriteFile(keptAt(d), []byte("x"), 0o600) }, "not the one that the record names"},
		"kept copy cut short": {func(d string) error { return os.Truncate(keptAt(d), 3) }, "not the one that the record names"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := testMachine(t)
			m.Disown(place)
			within(t, m, place, func(dir string) {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			})
			settle(t, m, Recorded{State: Complete, Provision: provision, Form: "plain", Documents: []byte("d")})
			within(t, m, place, func(dir string) {
				if err := c.spoil(dir); err != nil {
					t.Fatal(err)
				}
			})
			m, _ = testMachine(t)
			memory, err := m.recall(place)
			var record *RecordError
			if !errors.As(err, &record) || record.Place != place || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if !reflect.DeepEqual(memory, Memory{Place: place}) || m.Look(t.Context()).Placed() {
				t.Errorf("beside the error: %+v", memory)
			}
			// By hand only.
			if m.Disown(place); !m.Look(t.Context()).Placed() || m.Look(t.Context()).Record().State != "" {
				t.Errorf("%+v", m.memory)
			}
		})
	}
	m, _ := testMachine(t)
	var record *RecordError
	_, err := m.recall(Place{Node: filepath.Join(t.TempDir(), "gone"), Kind: "state partition"})
	if !errors.As(err, &record) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "as vfat: ") || !strings.Contains(err.Error(), "as ext4: ") {
		t.Errorf("a place that cannot be mounted: %v", err)
	}
}

func replaceBy(name string, make func(string, fs.FileMode) error) error {
	return errors.Join(os.Remove(name), make(name, 0o700))
}

func namedPipe(name string, mode fs.FileMode) error { return unix.Mkfifo(name, uint32(mode)) }

// linkInstead moves something aside and leaves a link to it.
func linkInstead(name string) error {
	return errors.Join(os.Rename(name, name+"-aside"), os.Symlink(filepath.Base(name)+"-aside", name))
}

// keptAt is the one kept copy of a directory, "" if there is not exactly one.
func keptAt(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, "kept-*"))
	if len(names) != 1 {
		return ""
	}
	return names[0]
}

func TestWithoutAPlaceNothingIsRecorded(t *testing.T) {
	m, _ := testMachine(t)
	out, err := apply(t, m, Recorded{State: Started, Provision: provision})
	if err != nil || out[0].State != Moot || !errors.Is(out[0].Why, ErrNoPlace) {
		t.Errorf("%+v %v", out[0], err)
	}
	erased := Receipt{Name: "erased", Scope: ScopeProvision}
	if err := m.Keep(erased); err != nil || !m.Look(t.Context()).Done(erased) {
		t.Errorf("a receipt does not hold for this boot: %v", err)
	}
	if n, err := m.Failed(); n != 0 || !errors.Is(err, ErrNoPlace) {
		t.Errorf("failed boots: %d %v", n, err)
	}
	if _, err := m.Unseal(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// TestNothingIsLostBeforeTheRecordSaysSo: these touch what the record touches.
func TestNothingIsLostBeforeTheRecordSaysSo(t *testing.T) {
	waits := conflicts([]Step{Recorded{State: Started}, Spread{}, Repart{}})
	if !slices.Contains(waits[1], 0) || !slices.Contains(waits[2], 0) {
		t.Errorf("%v", waits)
	}
}

func TestSealAndUnseal(t *testing.T) {
	documents := bytes.Repeat([]byte("documents with a canary; "), 100_000) // more than a credential may have
	for _, form := range []string{"sealed", "plain"} {
		t.Run(form, func(t *testing.T) {
			m, _ := testMachine(t)
			log := creds(t, m, "k1")
			kept, file, err := m.seal(t.Context(), form, documents)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(file, []byte("canary")) || len(file) > len(documents)/10 {
				t.Errorf("%d bytes, or not packed", len(file))
			}
			again, other, err := m.seal(t.Context(), form, documents)
			if err != nil || form == "sealed" && (bytes.Equal(file, other) || bytes.Equal(kept.Key, again.Key)) {
				t.Errorf("a key or nonce was used twice: %v", err)
			}
			m.memory = Memory{Record: Record{Kept: kept}, kept: file}
			got, err := m.Unseal(t.Context())
			if err != nil || !bytes.Equal(got, documents) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if form == "plain" {
				return
			}
			said := contentOf(t, log)
			if want := "encrypt --with-key=auto-initrd --name=pilotlight.kept --tpm2-pcrs= - -\n"; !strings.HasPrefix(said, want) {
				t.Errorf("%q, want %q", said, want)
			}
			if !strings.HasSuffix(said, "decrypt --name=pilotlight.kept - -\n") {
				t.Errorf("%q", said)
			}
		})
	}
	m, _ := testMachine(t)
	kept, file, err := m.seal(t.Context(), "digest", documents)
	if err != nil || file != nil || kept.Form != "digest" || kept.Key != nil {
		t.Errorf("%+v, %d bytes, %v", kept, len(file), err)
	}
	m.memory = Memory{Record: Record{Kept: kept}}
	if _, err := m.Unseal(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestUnsealRefusesWhatIsNotItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(m *Machine)
		want  error
		text  string
	}{
		"another machine's key": {func(m *Machine) { creds(t, m, "k2") }, nil, "wrong key or name"},
		"a flipped bit":         {func(m *Machine) { m.memory.kept[len(m.memory.kept)-1] ^= 1 }, nil, "message authentication failed"},
		"cut to the nonce":      {func(m *Machine) { m.memory.kept = m.memory.kept[:5] }, io.ErrUnexpectedEOF, "unseal the kept copy"},
		"no key": {func(m *Machine) {
			key, err := m.encrypt(t.Context(), keptName, []byte("short"))
			if err != nil {
				t.Fatal(err)
			}
			m.memory.Record.Kept.Key = key
		}, io.ErrUnexpectedEOF, "invalid key size"},
	} {
		m, _ := testMachine(t)
		creds(t, m, "k1")
		kept, file, err := m.seal(t.Context(), "sealed", []byte("d"))
		if err != nil {
			t.Fatal(err)
		}
		m.memory = Memory{Record: Record{Kept: kept}, kept: file, Place: Place{Node: "/dev/x", Kind: "ESP"}}
		c.spoil(m)
		got, err := m.Unseal(t.Context())
		var record *RecordError
		if !errors.As(err, &record) || got != nil || !strings.Contains(err.Error(), c.text) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %q %v", name, got, err)
		}
		if !strings.HasPrefix(err.Error(), "record on ESP /dev/x: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, _ := testMachine(t)
	m.memory = Memory{Record: Record{Kept: &Kept{Form: "plain"}}, kept: []byte("not gzip")}
	var record *RecordError
	if _, err := m.Unseal(t.Context()); !errors.As(err, &record) {
		t.Errorf("error %v", err)
	}
}

// cutOff carries out moves on a directory that begin makes, and calls check with what a
// power cut leaves of it: before, after and in the midst of each.
func cutOff(t *testing.T, begin func(dir string), moves func(dir string) []func() error, check func(what, dir string)) {
	t.Helper()
	names := func(dir string) []string {
		list, err := filepath.Glob(filepath.Join(dir, "*.new"))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	memory, made := memoryRoot(t), 0
	for n := range moves("") {
		// after gives the directory with the first moves done.
		after := func(n int) string {
			made++
			dir := filepath.Join(memory, strconv.Itoa(made), "pilotlight")
			begin(dir)
			for _, move := range moves(dir)[:n] {
				if err := move(); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}
		check(fmt.Sprintf("before move %d", n), after(n))
		check(fmt.Sprintf("after move %d", n), after(n+1))
		before, done := names(after(n)), names(after(n+1))
		switch {
		case len(done) > len(before): // it wrote a file: any part of it may be there
			for what, spoil := range map[string]func(name string) error{
				"nothing": os.Remove,
				"empty":   func(name string) error { return os.Truncate(name, 0) },
				"half":    func(name string) error { return os.Truncate(name, 40) },
				"zeroes": func(name string) error {
					return errors.Join(os.Truncate(name, 0), os.Truncate(name, 400))
				},
				"half, then zeroes": func(name string) error {
					return errors.Join(os.Truncate(name, 40), os.Truncate(name, 400))
				},
			} {
				dir := after(n + 1)
				for _, name := range names(dir) {
					if err := spoil(name); err != nil {
						t.Fatal(err)
					}
				}
				check(fmt.Sprintf("in move %d, %s is written", n, what), dir)
			}
		case len(done) < len(before) && filepath.Base(before[0]) == "record.json.new": // it renamed
			// On FAT the old name can go before the new one comes, or stay beside it.
			dir := after(n)
			if err := ignoreAbsent(os.Remove(filepath.Join(dir, "record.json"))); err != nil {
				t.Fatal(err)
			}
			check(fmt.Sprintf("in move %d, the new name alone", n), dir)
			dir = after(n + 1)
			write(t, filepath.Join(dir, "record.json.new"), contentOf(t, filepath.Join(dir, "record.json")))
			check(fmt.Sprintf("in move %d, both names", n), dir)
		}
	}
}

// TestPowerCutWhileTheRecordIsWritten: what is read is the old record, with its kept
// copy, or the new one with its own.
func TestPowerCutWhileTheRecordIsWritten(t *testing.T) {
	place := Place{Node: "/dev/x", Kind: "ESP", Disk: Identify{GPT: "d1", Serial: "s1"}}
	record := func(state, config, form string, documents string, failures int) (Memory, []byte) {
		m, _ := testMachine(t)
		r := Record{Version: 1, State: state, Provision: provision, Config: config, Disks: []Identify{place.Disk}, Failures: failures}
		var kept []byte
		if form != "" {
			var err error
			if r.Kept, kept, err = m.seal(t.Context(), form, []byte(documents)); err != nil {
				t.Fatal(err)
			}
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return Memory{Record: r, Place: place, kept: kept}, data
	}
	nothing := Memory{Place: place}
	started, startedData := record(Started, "c1", "", "", 0)
	failed, failedData := started, startedData
	failed.Record.Failures = 2
	complete, completeData := record(Complete, "c1", "plain", "one", 0)
	again, againData := record(Complete, "c1", "plain", "one", 0)
	other, otherData := record(Complete, "c2", "plain", "another config", 0)
	digest, digestData := record(Complete, "c1", "digest", "", 0)
	reprovisioned, reprovisionedData := record(Started, "c3", "", "", 0)

	for name, c := range map[string]struct {
		old, new         Memory
		oldData, newData []byte
	}{
		"the first record":          {nothing, started, nil, startedData},
		"it says complete":          {started, complete, startedData, completeData},
		"after failed boots":        {failed, complete, failedData, completeData},
		"the same once more":        {complete, again, completeData, againData},
		"another kept copy":         {complete, other, completeData, otherData},
		"no kept copy any more":     {complete, digest, completeData, digestData},
		"the machine begins anew":   {complete, reprovisioned, completeData, reprovisionedData},
		"a kept copy for the first": {digest, complete, digestData, completeData},
	} {
		seenOld, seenNew := false, false
		cutOff(t, func(dir string) {
			if c.oldData == nil {
				return
			}
			for _, move := range moves(dir, c.old.Record, c.oldData, c.old.kept) {
				if err := move(); err != nil {
					t.Fatal(err)
				}
			}
			if n := c.old.Record.Failures; n > 0 {
				write(t, filepath.Join(dir, "failures"), fmt.Sprintln(n))
			}
		}, func(dir string) []func() error {
			return moves(dir, c.new.Record, c.newData, c.new.kept)
		}, func(what, dir string) {
			got, err := readMemory(dir, place)
			got.Record.Failures = min(got.Record.Failures, c.old.Record.Failures)
			want := c.new
			if got.Record.State == Complete && got.Record.Failures > 0 {
				want.Record.Failures = got.Record.Failures // the count is the last to go
			}
			isOld, isNew := reflect.DeepEqual(got, c.old), reflect.DeepEqual(got, want)
			if err != nil || !isOld && !isNew {
				t.Errorf("%s: %s: %+v %v", name, what, got.Record, err)
			}
			seenOld, seenNew = seenOld || isOld, seenNew || isNew
		})
		if !seenOld || !seenNew {
			t.Errorf("%s: the old one was seen: %v, the new one: %v", name, seenOld, seenNew)
		}
	}
}

// TestPowerCutWhileFailuresAreCounted: it is the old count, the new one, or at least
// not none.
func TestPowerCutWhileFailuresAreCounted(t *testing.T) {
	cutOff(t, func(dir string) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "failures"), "1\n")
	}, func(dir string) []func() error {
		return replacing(filepath.Join(dir, "failures"), []byte("2\n"))
	}, func(what, dir string) {
		if n, err := readFailures(dir); err != nil || n != 1 && n != 2 {
			t.Errorf("%s: %d %v", what, n, err)
		}
	})
	dir := t.TempDir()
	for text, want := range map[string]int{"3\n": 3, "": 1, "\x00\x00": 1, "-1\n": 1, "x": 1} {
		write(t, filepath.Join(dir, "failures"), text)
		if n, err := readFailures(dir); n != want || err != nil {
			t.Errorf("%q: %d %v, want %d", text, n, err, want)
		}
	}
}

// TestNothingIsLeftBesideARecord: kept copies that no record names, and halves.
func TestNothingIsLeftBesideARecord(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "plain", Documents: []byte("one")})
	within(t, m, place, func(dir string) {
		write(t, filepath.Join(dir, "kept-0123456789abcdef"), "of a crash")
		write(t, filepath.Join(dir, "kept-0123456789abcdef.new"), "half")
		write(t, filepath.Join(dir, "record.json.new"), "{")
		write(t, filepath.Join(dir, "somebody's"), "stays")
	})
	m, _ = reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Config: "c2", Form: "plain", Documents: []byte("two")})
	within(t, m, place, func(dir string) {
		var names []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if want := []string{m.memory.Record.Kept.file(), "record.json", "somebody's"}; !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
	})
}

// TestFullDiskLeavesTheOldRecord, and gives back the space that was tried for.
func TestFullDiskLeavesTheOldRecord(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Config: "c1", Form: "plain", Documents: []byte("one")})
	within(t, m, place, func(dir string) {
		// A write that does not fit leaves blocks free: the last ones go one by one.
		for _, size := range []int{4096, 1024, 1} {
			f, err := os.Create(filepath.Join(filepath.Dir(dir), fmt.Sprint("filler", size)))
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = f.Write(make([]byte, size))
				err = errors.Join(err, f.Sync())
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			f.Close()
		}
	})
	m, before := reborn(t, place)
	documents := make([]byte, 64<<10)
	rand.Read(documents) // so that nothing packs it
	for _, step := range []Step{
		Recorded{State: Complete, Provision: provision, Config: "c2", Form: "plain", Documents: documents},
		Recorded{State: Started, Provision: "another", Config: "c2"},
	} {
		_, err := apply(t, m, step)
		var record *RecordError
		if !errors.As(err, &record) || !errors.Is(err, unix.ENOSPC) || record.Place != place {
			t.Errorf("%v: %v", step, err)
		}
		if _, after := reborn(t, place); !reflect.DeepEqual(after, before) {
			t.Errorf("%v: %+v, want %+v", step, after.Record, before.Record)
		}
	}
	if n, err := m.Failed(); n != 0 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("failed boots: %d %v", n, err)
	}
	within(t, m, place, func(dir string) {
		if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestReadOnlyPlace can be read, and says that it cannot be written.
func TestReadOnlyPlace(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Started, Provision: provision, Config: "c1"})
	tool(t, "", "blockdev", "--setro", place.Node)
	t.Cleanup(func() { tool(t, "", "blockdev", "--setrw", place.Node) })
	m, memory := reborn(t, place)
	if memory.Record.Provision != provision {
		t.Errorf("%+v", memory.Record)
	}
	var record *RecordError
	if _, err := apply(t, m, Recorded{State: Started, Provision: provision, Config: "c2"}); !errors.As(err, &record) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
	if n, err := m.Failed(); n != 0 || !errors.As(err, &record) {
		t.Errorf("failed boots: %d %v", n, err)
	}
}

// TestRecordOfAClonedDisk: byte for byte the same, GUID and all, on another drive.
func TestRecordOfAClonedDisk(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "plain", Documents: []byte("one")})
	clone := newPlace(t)
	tool(t, "", "dd", "if="+place.Node, "of="+clone.Node, "bs=1M", "status=none", "conv=fsync")
	for name, c := range map[string]struct {
		disk Identify
		want string
	}{
		"the same drive":       {Identify{GPT: "d1", Serial: "s1"}, ""},
		"a drive without one":  {Identify{GPT: "d1"}, ""},
		"another drive":        {Identify{GPT: "d1", Serial: "s2"}, "written on another disk"},
		"a new table":          {Identify{GPT: "d2", Serial: "s1"}, "written on another disk"},
		"another world's name": {Identify{GPT: "d1", Serial: "s2", WWN: "w"}, "written on another disk"},
	} {
		m, _ := testMachine(t)
		clone.Disk = c.disk
		_, err := m.recall(clone)
		var record *RecordError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.As(err, &record) || !strings.Contains(err.Error(), c.want) || m.Look(t.Context()).Placed()):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestRecordIsWhereItWasWritten, though a better place has come since.
func TestRecordIsWhereItWasWritten(t *testing.T) {
	esp, xbootldr := newPlace(t), newPlace(t)
	xbootldr.Kind = "XBOOTLDR"
	bare := newPlace(t)
	bare.Kind = "XBOOTLDR"
	tool(t, "", "dd", "if=/dev/zero", "of="+bare.Node, "bs=1M", "count=1", "status=none", "conv=fsync")

	m, _ := testMachine(t)
	if memory, err := m.recall(xbootldr, esp); err != nil || memory.Place != xbootldr {
		t.Errorf("no record: %v %v", memory.Place, err)
	}
	var record *RecordError
	if _, err := m.recall(bare, esp); !errors.As(err, &record) || record.Place != bare {
		t.Errorf("no record, and a place that cannot be read: %v", err)
	}
	m, _ = reborn(t, esp)
	settle(t, m, Recorded{State: Started, Provision: provision})
	for _, first := range []Place{xbootldr, bare} {
		m, _ := testMachine(t)
		if memory, err := m.recall(first, esp); err != nil || memory.Place != esp || memory.Record.Provision != provision {
			t.Errorf("beside %v: %+v %v", first, memory, err)
		}
	}
	m, _ = reborn(t, xbootldr)
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "digest"})
	if _, err := m.recall(xbootldr, esp); !errors.As(err, &record) || !strings.Contains(err.Error(), "there is another record on "+xbootldr.String()) {
		t.Errorf("two records: %v", err)
	}
	within(t, m, esp, func(dir string) { write(t, filepath.Join(dir, "record.json"), "{") })
	if _, err := m.recall(xbootldr, esp); !errors.As(err, &record) || record.Place != esp {
		t.Errorf("a damaged one beside it: %v", err)
	}
}

// stateDisk is a disk with a partition of our own type that has a file system: what
// sysfs, udev and /dev show of it. The partition's node is a loop device.
func stateDisk(t *testing.T, s *disk.System, name, serial string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "label: gpt\nstart=2048, size=8192, type="+disk.TypeState().String()+"\n", "sfdisk", "--quiet", file)
	loop := tool(t, "", "losetup", "--find", "--show", "--offset", "1048576", "--sizelimit", "4194304", file)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", loop) })
	tool(t, "", "mkfs.ext4", "-q", "-O", "^has_journal", loop)
	showDisk(t, s, name, serial, file, loop)
	return file
}

func showDisk(t *testing.T, s *disk.System, name, serial, file, partition string) {
	t.Helper()
	sys := s.Sys.(fstest.MapFS)
	dir := "devices/virtio/block/" + name
	sys["block/"+name] = &fstest.MapFile{Data: []byte("../" + dir), Mode: fs.ModeSymlink | 0o777}
	for attribute, value := range map[string]string{
		"dev": fmt.Sprintf("254:%d", len(sys)), "size": "16384", "ro": "0", "removable": "0", "hidden": "0", "serial": serial,
		"queue/logical_block_size": "512", "uevent": "DEVNAME=" + name + "\nDEVTYPE=disk",
		name + "1/partition": "1", name + "1/start": "2048", name + "1/size": "8192",
	} {
		sys[dir+"/"+attribute] = &fstest.MapFile{Data: []byte(value + "\n")}
	}
	for node, target := range map[string]string{name: file, name + "1": partition} {
		if err := os.Symlink(target, filepath.Join(s.Dev, node)); err != nil {
			t.Fatal(err)
		}
	}
}

// diskless is a machine without disks, whose boot loader says nothing.
func diskless(t *testing.T) *Machine {
	t.Helper()
	if _, err := bootPartition(); !errors.Is(err, disk.ErrNotSet) {
		t.Fatalf("the machine of the test was started by a boot loader that says where from (%v): run it in a container without efivarfs", err)
	}
	m, _ := testMachine(t)
	m.Disks = disk.System{Sys: fstest.MapFS{"block": {Mode: fs.ModeDir | 0o755}}, Run: fstest.MapFS{}, Dev: t.TempDir(),
		Open: func(node string) (disk.ReaderAtCloser, error) { return os.Open(node) }}
	program(t, m, "udevadm", "exit 0")
	return m
}

// TestStatePartition is found by its type; two of them are told, with their disks.
func TestStatePartition(t *testing.T) {
	m := diskless(t)
	if memory, err := m.Recall(t.Context()); err != nil || memory.Place != (Place{}) {
		t.Errorf("no disk: %+v %v", memory, err)
	}
	file := stateDisk(t, &m.Disks, "vdt", "s1")
	memory, err := m.Recall(t.Context())
	if err != nil || memory.Place.Node != m.Disks.Dev+"/vdt1" || memory.Place.Kind != "state partition" || memory.Place.Disk.Serial != "s1" {
		t.Fatalf("%+v %v", memory, err)
	}
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "plain", Documents: []byte("one")})

	next := diskless(t)
	next.Disks = m.Disks
	if memory, err := next.Recall(t.Context()); err != nil || memory.Record.Provision != provision {
		t.Errorf("%+v %v", memory, err)
	}

	// Its clone, all alone in another drive.
	clone := diskless(t)
	loop := tool(t, "", "losetup", "--find", "--show", "--offset", "1048576", "--sizelimit", "4194304", file)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", loop) })
	showDisk(t, &clone.Disks, "vdt", "s2", file, loop)
	var record *RecordError
	if memory, err := clone.Recall(t.Context()); !errors.As(err, &record) || !strings.Contains(err.Error(), "written on another disk") || memory.Record.State != "" {
		t.Errorf("a clone: %+v %v", memory, err)
	}

	// And beside the first one.
	showDisk(t, &next.Disks, "vdu", "s2", file, loop)
	var count *disk.CountError
	memory, err = next.Recall(t.Context())
	if !errors.As(err, &count) || len(count.Found) != 2 || !strings.Contains(err.Error(), "vdt") || !strings.Contains(err.Error(), "vdu") || memory.Place.Node != "" {
		t.Errorf("two of them: %+v %v", memory, err)
	}
}

// TestInterruptedBootFollowsItsConfig: what is fetched anew after an interrupted first
// boot may have changed. The record then says so; what happened once stays done, and
// the count of failures goes on.
func TestInterruptedBootFollowsItsConfig(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Started, Provision: provision, Platform: "metal", Config: "c1"})
	erased := Receipt{Name: "repart:main:" + provision, Scope: ScopeProvision}
	if err := m.Keep(erased); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Failed(); n != 1 || err != nil {
		t.Fatal(n, err)
	}

	m, memory := reborn(t, place)
	if memory.Record.State != Started || memory.Record.Provision != provision {
		t.Fatalf("%+v", memory.Record)
	}
	settle(t, m, Recorded{State: Started, Provision: provision, Platform: "qemu", Config: "c2"})
	m, memory = reborn(t, place)
	want := Record{
		Version: 1, State: Started, Provision: provision, Platform: "qemu", Config: "c2",
		Disks: []Identify{place.Disk}, Receipts: []string{erased.Name}, Failures: 1,
	}
	if !reflect.DeepEqual(memory.Record, want) || !m.Look(t.Context()).Done(erased) {
		t.Errorf("%+v, want %+v", memory.Record, want)
	}
	settle(t, m, Recorded{State: Complete, Provision: provision, Platform: "qemu", Config: "c2", Form: "plain", Documents: []byte("two")})
	if m, memory = reborn(t, place); memory.Record.Config != "c2" || memory.Record.Failures != 0 {
		t.Errorf("%+v", memory.Record)
	}
	if got, err := m.Unseal(t.Context()); string(got) != "two" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

// TestFailuresAreCountedBeforeThereIsARecord, and through a machine's first steps.
func TestFailuresAreCountedBeforeThereIsARecord(t *testing.T) {
	place := newPlace(t)
	for want := 1; want <= 4; want++ {
		m, memory := reborn(t, place)
		if memory.Record.State != "" || memory.Record.Failures != want-1 {
			t.Errorf("%+v", memory.Record)
		}
		if n, err := m.Failed(); n != want || err != nil {
			t.Errorf("%d %v, want %d", n, err, want)
		}
	}
	// By hand: what there was is forgotten, but not that boots fail.
	m, _ := reborn(t, place)
	m.Disown(place)
	settle(t, m, Recorded{State: Started, Provision: provision})
	if n, err := m.Failed(); n != 5 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	m, _ = reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "digest"})
	if _, memory := reborn(t, place); memory.Record.Failures != 0 {
		t.Errorf("%+v", memory.Record)
	}
}

// TestPlaceOnTheBootDisk reads a table that sfdisk(8) made.
func TestPlaceOnTheBootDisk(t *testing.T) {
	const esp = "start=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n"
	const xbootldr = "start=6144, size=4096, type=BC13C2FF-59E6-4262-A352-B275FD6F7172\n"
	for name, c := range map[string]struct {
		script string
		boot   int // the number of the partition that we were started from
		want   string
	}{
		"an ESP":                        {esp, 1, "ESP 1"},
		"XBOOTLDR beside it":            {esp + xbootldr, 1, "XBOOTLDR 2, ESP 1"},
		"started from XBOOTLDR":         {esp + xbootldr, 2, "XBOOTLDR 2, ESP 1"},
		"XBOOTLDR the kernel has not":   {esp + "start=14336, size=2048, type=BC13C2FF-59E6-4262-A352-B275FD6F7172\n", 1, "ESP 1"},
		"something else stands with it": {esp + "start=6144, size=2048, type=linux\n", 1, "ESP 1"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(file, make([]byte, 16<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			tool(t, "label: gpt\nlabel-id: 11223344-5566-7788-99AA-BBCCDDEEFF00\n"+c.script, "sfdisk", "--quiet", file)
			dev := t.TempDir()
			sys := fstest.MapFS{}
			for i, size := range []string{"4096", "4096"} {
				dir := fmt.Sprintf("block/vdt/vdt%d/", i+1)
				sys[dir+"partition"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d\n", i+1)}
				sys[dir+"start"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d\n", 2048+4096*i)}
				sys[dir+"size"] = &fstest.MapFile{Data: []byte(size + "\n")}
				sys[dir+"holders"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			}
			m, _ := testMachine(t)
			m.Disks = disk.System{Sys: sys, Run: fstest.MapFS{}, Dev: dev, Open: func(string) (disk.ReaderAtCloser, error) { return os.Open(file) }}
			d := disk.Disk{Node: dev + "/vdt", Name: "vdt", Size: 16 << 20, SectorSize: 512, Serial: "s1", WWN: "w1"}
			table, err := m.Disks.Table(d)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.bootPlaces(disk.Found{Disk: d, Partition: table.Partitions[c.boot-1]})
			if err != nil {
				t.Fatal(err)
			}
			var want []Place
			for place := range strings.SplitSeq(c.want, ", ") {
				kind, number, _ := strings.Cut(place, " ")
				want = append(want, Place{
					Node: dev + "/vdt" + number, Kind: kind,
					Disk: Identify{GPT: "11223344-5566-7788-99aa-bbccddeeff00", Serial: "s1", WWN: "w1"},
				})
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
