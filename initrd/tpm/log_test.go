package tpm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"pilotlight/initrd/tpm/swtpm"
)

const boot = "0123456789abcdef0123456789abcdef"

func testLog(t testing.TB) Log {
	t.Helper()
	return Log{
		Path:   filepath.Join(t.TempDir(), "log", "systemd", "tpm2-measure.log"),
		BootID: boot,
		Now:    func() time.Duration { return 1500*time.Microsecond + 999 },
	}
}

func wantMode(t testing.TB, path string, want fs.FileMode) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != want {
		t.Errorf("%s: mode %v, want %v", path, fi.Mode(), want)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func wantEvents(t testing.TB, l Log, words ...string) []Event {
	t.Helper()
	events, err := l.Events()
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != len(words) {
		t.Fatalf("%d events, want %d", len(events), len(words))
	}
	for i, w := range words {
		if events[i].Word != w || !events[i].Measured(w) {
			t.Errorf("event %d: %+v, want word %q", i, events[i], w)
		}
	}
	return events
}

func TestExtend(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	l := testLog(t)
	if events, err := l.Events(); events != nil || err != nil {
		t.Fatalf("before: %v, %v", events, err)
	}
	if dirty, err := l.Dirty(); dirty || err != nil {
		t.Fatalf("before: dirty %v, %v", dirty, err)
	}
	words := []string{"abc", `it's "\` + "\x00\x1e\n\x7fé<&>", strings.Repeat("x", MaxWord)}
	for _, w := range words {
		if err := l.Extend(d, 12, w); err != nil {
			t.Fatal(err)
		}
		wantMode(t, l.Path, 0o600)
	}
	wantPCR(t, d, 12, Replay(nil, words))
	events := wantEvents(t, l, words...)

	e := events[0]
	if e.PCR != 12 || e.BootID != boot || e.Timestamp != 1500*time.Microsecond || e.Type != "" || e.NvPCR != "" {
		t.Errorf("event %+v", e)
	}
	first, _, _ := bytes.Cut(readFile(t, l.Path), []byte("\n"))
	want := "\x1e" + `{"pcr":12,"digests":[{"hashAlg":"sha1","digest":"a9993e364706816aba3e25717850c26c9cd0d89d"},` +
		`{"hashAlg":"sha256","digest":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},` +
		`{"hashAlg":"sha384","digest":"cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"},` +
		`{"hashAlg":"sha512","digest":"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"}],` +
		`"content_type":"systemd","content":{"string":"abc","bootId":"` + boot + `","timestamp":1500}}`
	if string(first) != want {
		t.Errorf("record\n%s\nwant\n%s", first, want)
	}
	for _, c := range []struct {
		boot string
		pcr  int
		word string
		want bool
	}{
		{boot, 12, "abc", true},
		{boot, 12, words[1], true},
		{boot, 12, "abcd", false},
		{boot, 11, "abc", false},
		{strings.Repeat("0", 32), 12, "abc", false},
		{"", 12, "abc", false},
	} {
		if got := Has(events, c.boot, c.pcr, c.word); got != c.want {
			t.Errorf("Has(%q, %d, %q) = %v", c.boot, c.pcr, c.word, got)
		}
	}
	events[0].Digests[SHA1][0] ^= 1
	if Has(events, boot, 12, "abc") {
		t.Error("an event with a digest of something else was taken for the word's")
	}
}

func TestExtendDefaults(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	l := Log{Path: filepath.Join(t.TempDir(), "log")}
	before := l.now()
	if err := l.Extend(d, 12, "word"); err != nil {
		t.Fatal(err)
	}
	e := wantEvents(t, l, "word")[0]
	id, err := BootID()
	if err != nil || e.BootID != id {
		t.Errorf("boot id %q, want %q, %v", e.BootID, id, err)
	}
	if e.Timestamp < before.Truncate(time.Microsecond) || e.Timestamp > l.now() {
		t.Errorf("timestamp %v, want one between %v and %v", e.Timestamp, before, l.now())
	}
	for _, bad := range []string{"0123", strings.Repeat("A", 32), strings.Repeat("0", 31) + "-"} {
		l.BootID = bad
		err := l.Extend(d, 12, "word")
		wantOutcome(t, err, NotExtended)
		if !strings.Contains(err.Error(), "boot id") {
			t.Errorf("boot id %q: %v", bad, err)
		}
	}
}

func TestDirtyLog(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	l := testLog(t)
	if err := l.Extend(d, 12, "one"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.Path, 0o600|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, l.Path)
	err := l.Extend(d, 12, "two")
	wantOutcome(t, err, Extended)
	if !errors.Is(err, ErrDirtyLog) {
		t.Errorf("%v, want %v", err, ErrDirtyLog)
	}
	if !bytes.Equal(readFile(t, l.Path), before) {
		t.Error("a record was written")
	}
	wantMode(t, l.Path, 0o600|fs.ModeSticky)
	wantPCR(t, d, 12, Replay(nil, []string{"one", "two"}))
	wantEvents(t, l, "one")
	if dirty, err := l.Dirty(); !dirty || err != nil {
		t.Errorf("dirty %v, %v", dirty, err)
	}
	// A TPM that refuses must not look like one that extended.
	err = l.Extend(d, 17, "x")
	wantOutcome(t, err, NotExtended)
	if errors.Is(err, ErrDirtyLog) || !errors.Is(err, tpm2.TPMRCLocality) {
		t.Errorf("%v, want %v alone", err, tpm2.TPMRCLocality)
	}
	if err := l.Cap(d, 12); err != nil {
		t.Errorf("cap: %v", err)
	}
	wantPCR(t, d, 12, Replay(nil, []string{"one", "two", FailedWord}))
}

// What the mark says after the TPM did not do as it was told.
func TestMarkAfterFailure(t *testing.T) {
	for _, c := range []struct {
		name    string
		extend  []byte
		outcome Outcome
		mode    fs.FileMode
		is      error
	}{
		{"refused", response(tpm2.TPMRCFailure), NotExtended, 0o600, tpm2.TPMRCFailure},
		{"refused for its locality", response(tpm2.TPMRCLocality), NotExtended, 0o600, tpm2.TPMRCLocality},
		{"no answer", nil, Unknown, 0o600 | fs.ModeSticky, context.DeadlineExceeded},
		{"hangs up", []byte{}, Unknown, 0o600 | fs.ModeSticky, io.EOF},
		{"answers nonsense", response(0), Unknown, 0o600 | fs.ModeSticky, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			d := openDevice(t, ctx, swtpm.Wire(t, func(command []byte) []byte {
				if commandCode(command) == tpm2.TPMCCGetCapability {
					return banksResponse(tpm2.TPMAlgSHA256)
				}
				return c.extend
			}))
			l := testLog(t)
			err := l.Extend(d, 12, "word")
			wantOutcome(t, err, c.outcome)
			if !errors.Is(err, c.is) {
				t.Errorf("%v, want %v", err, c.is)
			}
			wantMode(t, l.Path, c.mode)
			if got := readFile(t, l.Path); len(got) != 0 {
				t.Errorf("log has %q", got)
			}
		})
	}
}

// The TPM goes away between the question for its banks and the extension.
func TestMarkWhenTPMIsGone(t *testing.T) {
	socket := swtpm.Start(t)
	d := openDevice(t, t.Context(), socket)
	if _, err := d.Banks(); err != nil {
		t.Fatal(err)
	}
	d.conn = socketConn{filepath.Join(t.TempDir(), "gone")}
	l := testLog(t)
	err := l.Extend(d, 12, "word")
	wantOutcome(t, err, NotExtended)
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want %v", err, unix.ENOENT)
	}
	wantMode(t, l.Path, 0o600)
}

// A log that cannot be written to is no reason to change the PCR, except to cap it.
func TestRefusedLogs(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	link := filepath.Join(dir, "link")
	fifo := filepath.Join(dir, "fifo")
	file := filepath.Join(dir, "file")
	if err := errors.Join(
		os.WriteFile(target, nil, 0o600), os.Symlink(target, link),
		unix.Mkfifo(fifo, 0o600), os.WriteFile(file, nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		is         error
	}{
		{"symbolic link", link, unix.ELOOP},
		{"FIFO", fifo, unix.ENXIO},
		{"directory", dir, unix.EISDIR},
		{"null device", "/dev/null", nil},
		{"below a file", filepath.Join(file, "log"), unix.ENOTDIR},
	} {
		l := Log{Path: c.path}
		err := l.Extend(d, 12, "word")
		wantOutcome(t, err, NotExtended)
		var e *LogError
		if !errors.As(err, &e) || e.Path != c.path {
			t.Errorf("%s: %v, want a LogError of %s", c.name, err, c.path)
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", c.name, err, c.is)
		}
	}
	if got := readFile(t, target); len(got) != 0 {
		t.Errorf("the link's target has %q", got)
	}
	wantMode(t, target, 0o600)
	wantPCR(t, d, 12, Replay(nil, nil))
	for _, path := range []string{link, fifo, dir, "/dev/null"} {
		if events, err := (Log{Path: path}).Events(); err == nil {
			t.Errorf("events of %s: %v", path, events)
		}
		if dirty, err := (Log{Path: path}).Dirty(); err == nil {
			t.Errorf("dirty of %s: %v", path, dirty)
		}
	}
	if err := (Log{Path: link}).Cap(d, 12); err != nil {
		t.Error(err)
	}
	wantPCR(t, d, 12, Replay(nil, []string{FailedWord}))
}

func TestCap(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	l := testLog(t)
	if err := l.Cap(d, 12); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, FailedWord)
	wantPCR(t, d, 12, Replay(nil, []string{FailedWord}))
	wantOutcome(t, l.Cap(d, 17), NotExtended)
}

// A record that cannot be written whole leaves no half, and the mark.
func TestRecordDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4096"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	d := openDevice(t, t.Context(), swtpm.Start(t))
	l := Log{Path: filepath.Join(dir, "log"), BootID: boot}
	words := []string{"a" + strings.Repeat("x", MaxWord-1), "b" + strings.Repeat("x", MaxWord-1)}
	for _, w := range words {
		if err := l.Extend(d, 12, w); err != nil {
			t.Fatal(err)
		}
	}
	err := l.Extend(d, 12, "c"+strings.Repeat("x", MaxWord-1))
	wantOutcome(t, err, Extended)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want %v", err, unix.ENOSPC)
	}
	wantMode(t, l.Path, 0o600|fs.ModeSticky)
	wantEvents(t, l, words...)
}

func TestLockIsWaitedForAndBounded(t *testing.T) {
	socket := swtpm.Start(t)
	l := testLog(t)
	d := openDevice(t, t.Context(), socket)
	if err := l.Extend(d, 12, "one"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	hurried := openDevice(t, ctx, socket)
	if _, err := hurried.Banks(); err != nil {
		t.Fatal(err)
	}
	err = l.Extend(hurried, 12, "two")
	wantOutcome(t, err, NotExtended)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "locked by another program") {
		t.Errorf("%v, want the lock and %v", err, context.DeadlineExceeded)
	}
	if _, _, err := l.read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read: %v, want %v", err, context.DeadlineExceeded)
	}

	// flock(2) on a lock that is held turns it into the other kind.
	var wg sync.WaitGroup
	later := func(how int) {
		wg.Go(func() {
			time.Sleep(50 * time.Millisecond)
			if err := unix.Flock(fd, how); err != nil {
				t.Error(err)
			}
		})
	}
	later(unix.LOCK_SH)
	wantEvents(t, l, "one")
	wg.Wait()
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	later(unix.LOCK_UN)
	if err := l.Extend(d, 12, "two"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	wantEvents(t, l, "one", "two")
}

// Several processes, goroutines with a device each and goroutines that share
// one, all at once: the log must replay to the PCR.
func TestConcurrentExtends(t *testing.T) {
	socket := swtpm.Start(t)
	l := Log{Path: filepath.Join(t.TempDir(), "log")}
	shared := openDevice(t, t.Context(), socket)
	var wg sync.WaitGroup
	const each = 3
	for p := range each {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^$")
			cmd.Env = append(os.Environ(), childSocket+"="+socket, childLog+"="+l.Path, fmt.Sprint(childName, "=process ", p))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process %d: %v: %s", p, err, out)
			}
		})
		own := openDevice(t, t.Context(), socket)
		for name, d := range map[string]*Device{"own device": own, "shared device": shared} {
			wg.Go(func() {
				for i := range childExtends {
					if err := l.Extend(d, 12, fmt.Sprintf("%s %d %d", name, p, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for range childExtends {
				if _, err := l.Events(); err != nil {
					t.Errorf("a reader saw half a record: %v", err)
				}
			}
		})
	}
	wg.Wait()
	events, err := l.Events()
	if err != nil {
		t.Fatal(err)
	}
	if want := 3 * each * childExtends; len(events) != want {
		t.Errorf("%d events, want %d", len(events), want)
	}
	words := map[string]bool{}
	var order []string
	for _, e := range events {
		words[e.Word] = true
		order = append(order, e.Word)
	}
	if len(words) != len(events) {
		t.Errorf("%d different words in %d events", len(words), len(events))
	}
	replayed, err := ReplayLog(bytes.NewReader(readFile(t, l.Path)), 12)
	if err != nil {
		t.Fatal(err)
	}
	wantPCR(t, shared, 12, replayed)
	wantPCR(t, shared, 12, Replay(nil, order))
}

func TestEscape(t *testing.T) {
	for _, c := range []struct{ word, text string }{
		{"", ""},
		{"plain:word-1", "plain:word-1"},
		{"\a\b\f\n\r\t\v", `\a\b\f\n\r\t\v`},
		{`\ " '`, `\\ \" \'`},
		{"\x00\x1e\x7f\xff\u00e9", `\000\036\177\377\303\251`},
		{"\x001", `\0001`},
	} {
		if got := escape(c.word); got != c.text {
			t.Errorf("escape(%q) = %q, want %q", c.word, got, c.text)
		}
		if got := unescape(c.text); got != c.word {
			t.Errorf("unescape(%q) = %q, want %q", c.text, got, c.word)
		}
	}
	for _, text := range []string{`a\`, `\q`, `\12`, `\128`, `\400`, `a\x41`} {
		if got := unescape(text); got != text {
			t.Errorf("unescape(%q) = %q, want it as it is", text, got)
		}
	}
}

const goodRecord = "\x1e" + `{"pcr":12,"digests":[{"hashAlg":"sha1","digest":"a9993e364706816aba3e25717850c26c9cd0d89d"}],` +
	`"content_type":"systemd","content":{"string":"abc","bootId":"` + boot + `","timestamp":1}}` + "\n"

func TestParseRecords(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(goodRecord, old, new, 1) }
	for _, c := range []struct {
		name, log string
		is        func(Event) bool
	}{
		{"plain", goodRecord, func(e Event) bool { return e.PCR == 12 && e.Word == "abc" && e.Timestamp == time.Microsecond }},
		{"unknown fields", with(`"bootId"`, `"new":{"a":[1]},"bootId"`), func(e Event) bool { return e.Word == "abc" }},
		{"recnum", with(`{"pcr"`, `{"recnum":7,"pcr"`), func(e Event) bool { return e.PCR == 12 }},
		{"event type", with(`"timestamp":1`, `"timestamp":1,"eventType":"machine-id"`), func(e Event) bool { return e.Type == "machine-id" }},
		{"unknown bank", with(`"sha1"`, `"sm3_256"`), func(e Event) bool { return len(e.Digests["sm3_256"]) == 20 && !e.Measured("abc") }},
		{"NvPCR", with(`"pcr":12`, `"nv_index":30409216`), func(e Event) bool { return e.PCR == NoPCR && e.NvPCR == "" }},
		{"named NvPCR", strings.Replace(with(`"pcr":12`, `"nv_index":30409216`), `"bootId"`, `"nvIndexName":"hardware","bootId"`, 1), func(e Event) bool { return e.PCR == NoPCR && e.NvPCR == "hardware" }},
		{"another writer", with(`"content_type":"systemd","content":{`, `"content_type":"ima_template","content":["x"],"y":{`), func(e Event) bool { return e.PCR == 12 && e.Word == "" }},
		{"line feeds inside", with(`,"content"`, "\n,\n\"content\""), func(e Event) bool { return e.Word == "abc" }},
	} {
		events, err := parseRecords([]byte(c.log))
		if err != nil || len(events) != 1 || !c.is(events[0]) {
			t.Errorf("%s: %+v, %v", c.name, events, err)
		}
	}
}

func TestParseFaults(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(goodRecord, old, new, 1) }
	for _, c := range []struct {
		name, log string
		record    int
		is        error
		want      string
	}{
		{"no separator", goodRecord[1:], 1, nil, "does not start with a record separator"},
		{"text between", goodRecord + "x" + goodRecord, 1, ErrTorn, "record 1: torn"},
		{"torn at the end", goodRecord + goodRecord[:100], 2, ErrTorn, "record 2: torn"},
		{"torn at its line feed", goodRecord + goodRecord[:len(goodRecord)-1], 2, ErrTorn, ""},
		{"torn at its separator", goodRecord + "\x1e", 2, ErrTorn, ""},
		{"torn in the middle", goodRecord[:100] + goodRecord, 1, ErrTorn, ""},
		{"no JSON", "\x1ex\n", 1, nil, "invalid character"},
		{"two texts", with("\n", "{}\n"), 1, nil, "invalid character"},
		{"no PCR", with(`"pcr":12,`, ``), 1, nil, "neither pcr nor nv_index"},
		{"PCR 24", with(`"pcr":12`, `"pcr":24`), 1, nil, "PCR 24: not 0 to 23"},
		{"PCR -1", with(`"pcr":12`, `"pcr":-1`), 1, nil, "PCR -1: not 0 to 23"},
		{"no digests", "\x1e{\"pcr\":12,\"content_type\":\"systemd\",\"content\":{}}\n", 1, nil, "no digests"},
		{"short digest", with("a9993e", ""), 1, nil, "17 bytes, not 20"},
		{"no hex", with("a9993e", "x9993e"), 1, nil, "invalid byte"},
		{"a bank twice", with(`[{`, `[{"hashAlg":"sha1","digest":"a9993e364706816aba3e25717850c26c9cd0d89d"},{`), 1, nil, "twice"},
		{"timestamp", with(`"timestamp":1`, `"timestamp":9223372036854776`), 1, nil, "too large"},
		{"content of another kind", with(`"content":{`, `"content":[],"x":{`), 1, nil, "content: "},
	} {
		events, err := parseRecords([]byte(c.log))
		var e *LogError
		if !errors.As(err, &e) || e.Record != c.record {
			t.Errorf("%s: %v, want a LogError of record %d", c.name, err, c.record)
			continue
		}
		if len(events) != c.record-1 {
			t.Errorf("%s: %d events, want %d", c.name, len(events), c.record-1)
		}
		if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %v %q", c.name, err, c.is, c.want)
		}
	}
}

func TestEventsFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(goodRecord+goodRecord[:50]), 0o600); err != nil {
		t.Fatal(err)
	}
	events, err := Log{Path: path}.Events()
	if len(events) != 1 || !errors.Is(err, ErrTorn) || !strings.Contains(err.Error(), path+": record 2: torn") {
		t.Errorf("%d events and %v, want 1, the path and %v", len(events), err, ErrTorn)
	}
	if err := os.Truncate(path, MaxLog+1); err != nil {
		t.Fatal(err)
	}
	if _, err := (Log{Path: path}).Events(); err == nil || !strings.Contains(err.Error(), "more than 16777216 bytes") {
		t.Errorf("%v, want the bound", err)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(goodRecord + goodRecord))
	f.Add([]byte(goodRecord[:80]))
	f.Add([]byte("\x1e{\"nv_index\":1,\"digests\":[{\"hashAlg\":\"x\",\"digest\":\"\"}]}\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := parseRecords(log)
		if n := bytes.Count(log, []byte{recordSeparator}); len(events) > n || err == nil && len(events) != n {
			t.Fatalf("%d events, %v, %d separators", len(events), err, n)
		}
		for pcr := range PCRs {
			if _, err := ReplayEvents(nil, events, pcr); (err != nil) != (17 <= pcr && pcr <= 22) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzRecordRoundTrip(f *testing.F) {
	f.Add("word", uint32(12), int64(1))
	f.Add("\x00\\'\"\xff\u2028<", uint32(0), int64(0))
	f.Fuzz(func(t *testing.T, word string, pcr uint32, micros int64) {
		pcr %= PCRs
		since := time.Duration(micros&(1<<50-1)) * time.Microsecond
		line := newRecord(int(pcr), []bankDigest{{bank: SHA1, digest: Digest(SHA1, word)}}, word, boot, since)
		if !json.Valid(line[1:]) || bytes.ContainsFunc(line[1:len(line)-1], func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%q is not one line of printable ASCII", line)
		}
		events, err := parseRecords(line)
		if err != nil || len(events) != 1 || !Has(events, boot, int(pcr), word) || events[0].Timestamp != since {
			t.Fatalf("%q: %+v, %v", line, events, err)
		}
	})
}
