package initrd

import (
	"bytes"
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
	"strings"
	"testing"
	"testing/fstest"

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
		"empty":            {good, "", "EOF"},
		"zeroes":           {good, "\x00\x00\x00\x00", "invalid character"},
		"cut short":        {good, good[:len(good)/2], "unexpected EOF"},
		"no object":        {good, `[]`, "cannot unmarshal"},
		"null":             {good, `null`, "format 0 is not known"},
		"more behind":      {good, good + good, "something follows the record"},
		"garbage behind":   {good, good + "\x00\x00", "something follows the record"},
		"older format":     {`"version":1`, `"version":0`, "format 0 is not known"},
		"newer format":     {`"version":1`, `"version":2`, "format 2 is not known"},
		"no format":        {`"version":1,`, ``, "format 0 is not known"},
		"unknown field":    {`"version":1`, `"version":1,"wiped":true`, `unknown field "wiped"`},
		"unknown state":    {`"complete"`, `"done"`, `state "done" is neither`},
		"no state":         {`"complete"`, `""`, `state "" is neither`},
		"no provision id":  {`"p"`, `""`, "no provision id"},
		"another disk":     {`"d1"`, `"d2"`, "written on another disk"},
		"another serial":   {`"s1"`, `"s2"`, "written on another disk"},
		"another wwn":      {`"w1"`, `"w2"`, "written on another disk"},
		"no disk":          {`{"gpt":"d1","serial":"s1","wwn":"w1"}`, ``, "written on another disk"},
		"a number as text": {`"version":1`, `"version":"1"`, "cannot unmarshal"},
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
		for name, want := range map[string]fs.FileMode{".": fs.ModeDir | 0o700, "record.json": 0o600, "kept": 0o600} {
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

// TestCrashWhileTheRecordIsWritten leaves what each moment of it would leave.
func TestCrashWhileTheRecordIsWritten(t *testing.T) {
	place := newPlace(t)
	m, _ := reborn(t, place)
	settle(t, m, Recorded{State: Complete, Provision: provision, Form: "plain", Documents: []byte("d")})

	// The new name alone: FAT replaces in more than one step.
	within(t, m, place, func(dir string) {
		if err := os.Rename(filepath.Join(dir, "record.json"), filepath.Join(dir, "record.json.new")); err != nil {
			t.Fatal(err)
		}
	})
	if _, memory := reborn(t, place); memory.Record.State != Complete {
		t.Errorf("%+v", memory.Record)
	}
	// Half of the new one beside the old one.
	within(t, m, place, func(dir string) {
		if err := os.Rename(filepath.Join(dir, "record.json.new"), filepath.Join(dir, "record.json")); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "record.json.new"), `{"vers`)
		write(t, filepath.Join(dir, "kept.new"), `half`)
	})
	if _, memory := reborn(t, place); memory.Record.State != Complete {
		t.Errorf("%+v", memory.Record)
	}
}

func TestRecordThatCannotBeTrustedStopsTheBoot(t *testing.T) {
	place := newPlace(t)
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"damaged":             {func(d string) error { return os.WriteFile(filepath.Join(d, "record.json"), []byte("{"), 0o600) }, "unexpected EOF"},
		"unreadable":          {func(d string) error { return replaceByDirectory(filepath.Join(d, "record.json")) }, "is a directory"},
		"kept copy gone":      {func(d string) error { return os.Remove(filepath.Join(d, "kept")) }, "no such file"},
		"another kept copy":   {func(d string) error { return os.WriteFile(filepath.Join(d, "kept"), []byte("x"), 0o600) }, "not the one that the record names"},
		"kept copy cut short": {func(d string) error { return os.Truncate(filepath.Join(d, "kept"), 3) }, "not the one that the record names"},
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

func replaceByDirectory(name string) error {
	return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
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
	if n, err := m.Failed(); n != 1 || err != nil {
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
		"XBOOTLDR beside it":            {esp + xbootldr, 1, "XBOOTLDR 2"},
		"started from XBOOTLDR":         {esp + xbootldr, 2, "XBOOTLDR 2"},
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
			got, err := m.bootPlace(disk.Found{Disk: d, Partition: table.Partitions[c.boot-1]})
			if err != nil {
				t.Fatal(err)
			}
			kind, number, _ := strings.Cut(c.want, " ")
			want := Place{
				Node: dev + "/vdt" + number, Kind: kind,
				Disk: Identify{GPT: "11223344-5566-7788-99aa-bbccddeeff00", Serial: "s1", WWN: "w1"},
			}
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
