package tpm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"pilotlight/initrd/tpm/swtpm"
)

type algSize struct{ alg, size uint16 }

var twoBanks = []algSize{{uint16(tpm2.TPMAlgSHA1), 20}, {uint16(tpm2.TPMAlgSHA256), 32}}

// specID is the first event of a crypto-agile log.
func specID(algs ...algSize) []byte {
	le := binary.LittleEndian
	content := []byte(specIDEvent)
	content = append(content, 0, 0, 0, 0, 0, 2, 0, 2)
	content = le.AppendUint32(content, uint32(len(algs)))
	for _, a := range algs {
		content = le.AppendUint16(le.AppendUint16(content, a.alg), a.size)
	}
	content = append(content, 0)
	log := le.AppendUint32(nil, 0)
	log = le.AppendUint32(log, evNoAction)
	log = append(log, make([]byte, 20)...)
	log = le.AppendUint32(log, uint32(len(content)))
	return append(log, content...)
}

// event2 is a TCG_PCR_EVENT2 that measured word.
func event2(pcr, kind uint32, word string, algs ...algSize) []byte {
	le := binary.LittleEndian
	log := le.AppendUint32(nil, pcr)
	log = le.AppendUint32(log, kind)
	log = le.AppendUint32(log, uint32(len(algs)))
	for _, a := range algs {
		log = le.AppendUint16(log, a.alg)
		digest := Digest(bankOf(tpm2.TPMAlgID(a.alg)), word)
		if digest == nil || kind == evNoAction {
			digest = make([]byte, a.size)
		}
		log = append(log, digest...)
	}
	log = le.AppendUint32(log, uint32(len(word)))
	return append(log, word...)
}

func TestReplayTCGLog(t *testing.T) {
	const evIPL = 0xd
	threeBanks := append(slices.Clone(twoBanks), algSize{uint16(tpm2.TPMAlgSM3256), 32})
	log := slices.Concat(
		specID(threeBanks...),
		event2(0, evNoAction, "StartupLocality\x00\x03", threeBanks...),
		event2(0, evIPL, "firmware", threeBanks...),
		event2(12, evIPL, "cmdline", threeBanks...),
		event2(12, evNoAction, "nothing", threeBanks...),
		event2(11, evIPL, "linux", threeBanks...),
		event2(12, evIPL, "credential", threeBanks...),
	)
	locality := map[Bank][]byte{SHA1: make([]byte, 20), SHA256: make([]byte, 32)}
	for _, v := range locality {
		v[len(v)-1] = 3
	}
	for _, c := range []struct {
		pcr  int
		want map[Bank][]byte
	}{
		{0, Replay(locality, []string{"firmware"})},
		{1, Replay(nil, nil)},
		{11, Replay(nil, []string{"linux"})},
		{12, Replay(nil, []string{"cmdline", "credential"})},
	} {
		got, err := ReplayLog(bytes.NewReader(log), c.pcr)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 {
			t.Errorf("PCR %d: %d banks, want sha1 and sha256", c.pcr, len(got))
		}
		for b, value := range got {
			if !bytes.Equal(value, c.want[b]) {
				t.Errorf("PCR %d, bank %s: %x, want %x", c.pcr, b, value, c.want[b])
			}
		}
	}

	// The firmware's log, and systemd's after it.
	initial, err := ReplayLog(bytes.NewReader(log), 12)
	if err != nil {
		t.Fatal(err)
	}
	events, err := parseRecords([]byte(goodRecord))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReplayEvents(initial, events, 12)
	if err != nil {
		t.Fatal(err)
	}
	if want := Replay(nil, []string{"cmdline", "credential", "abc"})[SHA1]; !bytes.Equal(got[SHA1], want) {
		t.Errorf("%x, want %x", got[SHA1], want)
	}
	if !bytes.Equal(got[SHA256], initial[SHA256]) {
		t.Errorf("%x, want %x: the event has no digest of that bank", got[SHA256], initial[SHA256])
	}
	if _, err := ReplayEvents(map[Bank][]byte{SHA1: {1}}, events, 12); err == nil || !strings.Contains(err.Error(), "1 bytes, not 20") {
		t.Errorf("short initial value: %v", err)
	}
}

// The log of OVMF and of the EFI stub of Linux 6.12, taken from
// binary_bios_measurements of a virtual machine with swtpm, and the PCRs that
// its TPM had.
const (
	ovmfLog  = "testdata/ovmf-linux-6.12.log"
	zeros256 = "0000000000000000000000000000000000000000000000000000000000000000"
)

func TestReplayOVMFLog(t *testing.T) {
	log := readFile(t, ovmfLog)
	for _, c := range []struct {
		pcr          int
		sha1, sha256 string
	}{
		{0, "5ca4ef5fbe527bef22bfe4d3a1b9a36a71753de9", "177e29c417b6b61c7cf46ed30b4468931f58642527a268b556254e39b941ec6a"},
		{4, "37b2bde0b985cffca7baf24f0485bab26682fbec", "9b10ea8976bc81a70b1e068dc7791942dc3be43e67614dcf40a8dd36b9b207a1"},
		{7, "518bd167271fbb64589c61e43d8c0165861431d8", "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068"},
		{9, "fd32d3717cf34d95693c5a6e04a3da3dc9319255", "cd1b3b76eccf90eb504ffaacb6108cde94f17dd92d1d1819fb8484c9d5df5a1c"},
		{12, zeros256[:40], zeros256},
	} {
		values, err := ReplayLog(bytes.NewReader(log), c.pcr)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(values[SHA1]); got != c.sha1 {
			t.Errorf("PCR %d: sha1 %s, want %s", c.pcr, got, c.sha1)
		}
		if got := hex.EncodeToString(values[SHA256]); got != c.sha256 {
			t.Errorf("PCR %d: sha256 %s, want %s", c.pcr, got, c.sha256)
		}
	}
}

func TestReplayLogFaults(t *testing.T) {
	good := slices.Concat(specID(twoBanks...), event2(12, 0xd, "x", twoBanks...))
	event := len(specID(twoBanks...))
	with := func(at int, b ...byte) []byte {
		log := slices.Clone(good)
		copy(log[at:], b)
		return log
	}
	locality := event2(0, evNoAction, "StartupLocality\x00\x03", twoBanks...)
	for _, c := range []struct {
		name string
		log  []byte
		pcr  int
		want string
	}{
		{"empty", nil, 12, "empty"},
		{"text", []byte("hello"), 12, "neither a JSON text sequence nor a crypto-agile TCG log"},
		{"zeros", make([]byte, 4096), 12, "neither a JSON text sequence nor"},
		{"TPM 1.2's log", with(32, []byte("Spec ID Event00\x00")...), 12, "neither a JSON text sequence nor"},
		{"first event in another PCR", with(0, 1), 12, "neither a JSON text sequence nor"},
		{"torn JSON", []byte(goodRecord[:80]), 12, "record 1: torn"},
		{"torn in the header", good[:event-1], 12, "neither a JSON text sequence nor"},
		{"torn in an event", good[:len(good)-1], 12, "record 2: torn"},
		{"torn in a digest", good[:event+20], 12, "record 2: torn"},
		{"a byte too many", append(slices.Clone(good), 0), 12, "record 3: torn"},
		{"too many algorithms", specID(slices.Repeat(twoBanks, 9)...), 12, "18 algorithms"},
		{"algorithm twice", specID(twoBanks[0], twoBanks[0]), 12, "algorithm 0x0004: twice"},
		{"no algorithm", specID(), 12, "no bank that can be computed"},
		{"only SM3", specID(algSize{0x12, 32}), 12, "no bank that can be computed"},
		{"wrong digest size", specID(algSize{0xb, 20}), 12, "20 bytes, not 32"},
		{"too many digests", with(event+8, 3), 12, "3 digests"},
		{"no digests", slices.Concat(specID(twoBanks...), event2(12, 0xd, "x")), 12, "no digest for bank"},
		{"a digest missing", slices.Concat(specID(twoBanks...), event2(12, 0xd, "x", twoBanks[0])), 12, "no digest for bank sha256"},
		{"a digest twice", slices.Concat(specID(twoBanks...), event2(12, 0xd, "x", twoBanks[0], twoBanks[0])), 12, "twice"},
		{"unannounced digest", with(event+12, 0xc), 12, "does not announce"},
		{"event larger than the log", with(len(good)-5, 0xff, 0xff, 0xff, 0xff), 12, "needs 4294967295 bytes more"},
		{"late startup locality", slices.Concat(specID(twoBanks...), event2(0, 1, "x", twoBanks...), locality), 0, "startup locality after"},
		{"PCR 17", good, 17, "does not start at zeros"},
		{"PCR 24", good, 24, "not 0 to 23"},
	} {
		values, err := ReplayLog(bytes.NewReader(c.log), c.pcr)
		var e *LogError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", c.name, values, err, c.want)
		}
	}
	values, err := ReplayLog(bytes.NewReader([]byte(goodRecord)), 11)
	if err != nil || len(values) != 0 {
		t.Errorf("a PCR without events: %v, %v", values, err)
	}
}

func FuzzTCGLog(f *testing.F) {
	f.Add(readFile(f, ovmfLog), 9)
	f.Add(slices.Concat(specID(twoBanks...), event2(12, 0xd, "x", twoBanks...)), 12)
	f.Add(slices.Concat(specID(twoBanks...), event2(0, evNoAction, "StartupLocality\x00\x03", twoBanks...)), 0)
	f.Add(specID(algSize{0x12, 0xffff}, algSize{0xb, 32}), 1)
	f.Fuzz(func(t *testing.T, log []byte, pcr int) {
		values, err := ReplayLog(bytes.NewReader(log), pcr)
		if err != nil {
			if values != nil {
				t.Fatalf("values %v and %v", values, err)
			}
			return
		}
		for b, value := range values {
			if len(value) != b.Size() {
				t.Fatalf("bank %s: %d bytes", b, len(value))
			}
		}
	})
}

// bootLogs are what a boot by a UKI leaves: into a software TPM goes what boot loader
// and stub measure (the firmware's log is made beside it), and then what is measured
// in user space, with systemd's log. ours are measured last, and then a stranger.
func bootLogs(t *testing.T, ours ...string) (d *Device, firmware []byte, systemd Log) {
	t.Helper()
	const evIPL, evEventTag = 0xd, 6
	d = openDevice(t, t.Context(), swtpm.Start(t))
	allBanks := append(slices.Clone(twoBanks), algSize{uint16(tpm2.TPMAlgSHA384), 48}, algSize{uint16(tpm2.TPMAlgSHA512), 64})
	firmware = specID(allBanks...)
	for _, e := range []struct {
		pcr, kind uint32
		word      string
	}{
		{0, 8, "firmware"},
		{12, evIPL, "c\x00o\x00n\x00s\x00o\x00l\x00e\x00=\x00t\x00t\x00y\x00S\x000\x00\x00\x00"}, // a command line's add-on
		{11, evIPL, ".linux\x00"},
		{12, evIPL, "Credentials initrd"}, // of the ESP
		{12, evNoAction, "not measured"},
		{12, evEventTag, "a tagged one"},
	} {
		firmware = append(firmware, event2(e.pcr, e.kind, e.word, allBanks...)...)
		if e.kind == evNoAction {
			continue
		}
		if err := d.Extend(int(e.pcr), e.word); err != nil {
			t.Fatal(err)
		}
	}
	systemd = testLog(t)
	for _, e := range []struct {
		pcr  int
		word string
	}{{11, "enter-initrd"}, {12, "os-separator"}, {12, "imds-userdata:{}"}, {15, "machine-id:0"}} {
		if err := systemd.Extend(d, e.pcr, e.word); err != nil {
			t.Fatal(err)
		}
	}
	for _, word := range ours {
		if err := systemd.Extend(d, 12, word); err != nil {
			t.Fatal(err)
		}
	}
	return d, firmware, systemd
}

// TestStart: both logs of a boot by a UKI lead to what its TPM holds, and ours from
// there to what it will hold.
func TestStart(t *testing.T) {
	d, firmware, systemd := bootLogs(t)
	logs := func() []io.Reader {
		return []io.Reader{bytes.NewReader(firmware), bytes.NewReader(readFile(t, systemd.Path))}
	}
	for _, pcr := range []int{0, 11, 12, 15, 16} {
		start, err := Start(pcr, logs()...)
		if err != nil {
			t.Fatal(err)
		}
		wantPCR(t, d, pcr, start)
	}
	start, err := Start(12, logs()...)
	if err != nil {
		t.Fatal(err)
	}
	ours := []string{Word("user", []byte("{}")), Word("child-0001", nil)}
	for _, word := range ours {
		if err := systemd.Extend(d, 12, word); err != nil {
			t.Fatal(err)
		}
	}
	wantPCR(t, d, 12, Replay(start, ours))

	// The log of a machine that was provisioned goes on after that.
	if err := systemd.Extend(d, 12, "somebody else's"); err != nil {
		t.Fatal(err)
	}
	again, err := Start(12, logs()...)
	if err != nil {
		t.Fatal(err)
	}
	for b, value := range start {
		if !bytes.Equal(again[b], value) {
			t.Errorf("bank %s starts at %x, want %x", b, again[b], value)
		}
	}
	if alone, err := Start(12, logs()[1]); err != nil || bytes.Equal(alone[SHA256], start[SHA256]) {
		t.Errorf("without the firmware's log: %x %v", alone[SHA256], err)
	}
	if none, err := Start(12); err != nil || len(none) != 0 {
		t.Errorf("no log: %v %v", none, err)
	}
}

func TestStartFaults(t *testing.T) {
	firmware := string(specID(twoBanks...))
	for name, c := range map[string]struct {
		pcr  int
		logs []string
		want string
	}{
		"the firmware's second": {12, []string{goodRecord, firmware}, "it comes before all others"},
		"the firmware's twice":  {12, []string{firmware, firmware}, "it comes before all others"},
		"an empty one":          {12, []string{firmware, ""}, "empty"},
		"a torn one":            {12, []string{firmware, goodRecord[:20]}, "torn"},
		"another format":        {12, []string{"{}"}, "neither a JSON text sequence"},
		"PCR 17":                {17, nil, "does not start at zeros"},
	} {
		var logs []io.Reader
		for _, l := range c.logs {
			logs = append(logs, strings.NewReader(l))
		}
		values, err := Start(c.pcr, logs...)
		var fault *LogError
		if values != nil || !errors.As(err, &fault) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v %v, want %q", name, values, err, c.want)
		}
	}
	// A word that only looks like ours does not end what counts.
	e := Event{PCR: 12, Word: Word("user", nil), Digests: map[Bank][]byte{SHA256: make([]byte, 32)}}
	if e.config() {
		t.Error("an event of something else was taken for a config's")
	}
}
