package premise_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/initrd/tpm"
	"pilotlight/initrd/tpm/swtpm"
	"pilotlight/tests/lab"
)

// measurer measures words into PCR 12 of a TPM of its own, with a log of its own.
type measurer struct {
	socket string // of swtpm
	log    tpm.Log
	device *tpm.Device
}

func newMeasurer(t *testing.T) measurer {
	t.Helper()
	m := measurer{
		socket: swtpm.Start(t),
		log:    tpm.Log{Path: filepath.Join(t.TempDir(), "tpm2-measure.log")},
	}
	d, err := tpm.Open(t.Context(), m.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	m.device = d
	return m
}

// systemd runs a program of the lab's tree with the measurer's TPM and log, and
// returns its standard output.
func (m measurer) systemd(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cache, err := lab.OpenCache(lab.NewLog(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	debian, err := cache.Tree(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	tree := debian.Dir
	// In mounts of its own, so that the tree itself stays as it is.
	const script = `
		tree=$1 tpm=$2 log=$3; shift 3
		mount -t tmpfs tmpfs "$tree/mnt"
		mkdir "$tree/mnt/tpm" "$tree/mnt/log"
		mount --bind "$tpm" "$tree/mnt/tpm"
		mount --bind "$log" "$tree/mnt/log"
		mount -t proc proc "$tree/proc"
		exec chroot "$tree" "$@"`
	command := append([]string{"--mount", "--propagation", "private", "sh", "-euc", script, "sh",
		tree, filepath.Dir(m.socket), filepath.Dir(m.log.Path)}, args...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", command...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"SYSTEMD_FORCE_MEASURE=1", // though no stub has measured the kernel
		"SYSTEMD_TPM2_DEVICE=swtpm:path=/mnt/tpm/" + filepath.Base(m.socket),
		"SYSTEMD_MEASURE_LOG_USERSPACE=/mnt/log/" + filepath.Base(m.log.Path),
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", args[0], err, complaint.Bytes())
	}
	return string(out), err
}

const pcrextend = "/usr/lib/systemd/systemd-pcrextend"

// commandLine measures as systemd's own units do.
func (m measurer) commandLine(t *testing.T, word string, options ...string) error {
	_, err := m.systemd(t, slices.Concat([]string{pcrextend, "--pcr=12"}, options, []string{"--", word})...)
	return err
}

// varlink measures as systemd lets others do. The word goes as bytes: as text,
// systemd's JSON parser refuses some control characters.
func (m measurer) varlink(t *testing.T, word string) error {
	parameters, err := json.Marshal(map[string]any{"pcr": 12, "data": []byte(word)})
	if err != nil {
		return err
	}
	_, err = m.systemd(t, "varlinkctl", "call", pcrextend, "io.systemd.PCRExtend.Extend", string(parameters))
	return err
}

// records are the log as it is, but for the times in it.
func (m measurer) records(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(m.log.Path)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"timestamp":[1-9][0-9]*`).ReplaceAllString(string(data), `"timestamp":0`)
}

func (m measurer) pcr(t *testing.T) map[tpm.Bank][]byte {
	t.Helper()
	values, err := m.device.PCR(12)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func (m measurer) mode(t *testing.T) fs.FileMode {
	t.Helper()
	fi, err := os.Stat(m.log.Path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode()
}

func wantSame(t *testing.T, what string, ours, systemds measurer) {
	t.Helper()
	if got, want := ours.records(t), systemds.records(t); got != want {
		t.Errorf("%s: our log is\n%q\nsystemd's is\n%q", what, got, want)
	}
	if got, want := ours.mode(t), systemds.mode(t); got != want {
		t.Errorf("%s: our log has mode %v, systemd's %v", what, got, want)
	}
	wantPCR(t, what, ours.pcr(t), systemds.pcr(t))
}

func wantPCR(t *testing.T, what string, got, want map[tpm.Bank][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d banks, want %d", what, len(got), len(want))
	}
	for b, value := range want {
		if !bytes.Equal(got[b], value) {
			t.Errorf("%s: bank %s is %x, want %x", what, b, got[b], value)
		}
	}
}

// measuredWords are ours, and what the escapes of the record are for.
func measuredWords() []string {
	return []string{
		tpm.Word("user", []byte(`{"ignition":{"version":"3.5.0"}}`)),
		tpm.Word("a name: with\neverything é", nil),
		tpm.FailedWord,
		`it's "quoted" \ and <b>&</b> /`,
		"\a\b\f\n\r\t\v\x01\x1e\x7fé\u2028",
		strings.Repeat("x", tpm.MaxWord),
	}
}

// Our records, PCR and log mode are those of systemd's Varlink interface, which
// is how a third party measures.
func TestTPMRecordIsThatOfVarlink(t *testing.T) {
	ours, systemds := newMeasurer(t), newMeasurer(t)
	for _, word := range measuredWords() {
		if err := ours.log.Extend(ours.device, 12, word); err != nil {
			t.Fatal(err)
		}
		if err := systemds.varlink(t, word); err != nil {
			t.Fatal(err)
		}
		wantSame(t, fmt.Sprintf("%.40q", word), ours, systemds)
	}
	wantPCR(t, "prediction", systemds.pcr(t), tpm.Replay(nil, measuredWords()))
}

// The command line writes the same record with an event type, always the same.
func TestTPMRecordOfCommandLine(t *testing.T) {
	ours, systemds := newMeasurer(t), newMeasurer(t)
	for _, word := range measuredWords() {
		if err := ours.log.Extend(ours.device, 12, word); err != nil {
			t.Fatal(err)
		}
		if err := systemds.commandLine(t, word); err != nil {
			t.Fatal(err)
		}
	}
	got := strings.ReplaceAll(ours.records(t), `"timestamp":0}`, `"timestamp":0,"eventType":"phase"}`)
	if want := systemds.records(t); got != want {
		t.Errorf("our log with event types is\n%q\nsystemd's is\n%q", got, want)
	}
	wantPCR(t, "PCR", ours.pcr(t), systemds.pcr(t))
	events, err := systemds.log.Events()
	if err != nil {
		t.Fatal(err)
	}
	id, err := tpm.BootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range measuredWords() {
		if !tpm.Has(events, id, 12, word) {
			t.Errorf("systemd's record of %.40q is not found", word)
		}
	}
	for _, e := range events {
		if e.Type != "phase" {
			t.Errorf("%.40q has type %q", e.Word, e.Type)
		}
	}
}

// The record of a longer word does not say what was measured: the reason for MaxWord.
func TestTPMLongWordIsCut(t *testing.T) {
	m := newMeasurer(t)
	word := strings.Repeat("x", tpm.MaxWord+1)
	if err := m.commandLine(t, word); err != nil {
		t.Fatal(err)
	}
	events, err := m.log.Events()
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 || events[0].Word != word[:tpm.MaxWord]+"..." || !events[0].Measured(word) {
		t.Errorf("events %+v", events)
	}
}

// Systemd extends and writes nothing if the log has the sticky bit, and leaves it.
func TestTPMDirtyLog(t *testing.T) {
	ours, systemds := newMeasurer(t), newMeasurer(t)
	for _, word := range []string{"before", "after"} {
		err := ours.log.Extend(ours.device, 12, word)
		if word == "before" && err != nil || word == "after" && !errors.Is(err, tpm.ErrDirtyLog) {
			t.Fatalf("%s: %v", word, err)
		}
		if err := systemds.varlink(t, word); err != nil {
			t.Fatal(err)
		}
		wantSame(t, word, ours, systemds)
		for _, m := range []measurer{ours, systemds} {
			if err := os.Chmod(m.log.Path, 0o600|fs.ModeSticky); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantPCR(t, "both words", systemds.pcr(t), tpm.Replay(nil, []string{"before", "after"}))
	events, err := systemds.log.Events()
	if err != nil || len(events) != 1 {
		t.Errorf("%d events, %v, want 1", len(events), err)
	}
}

// Systemd and we measure at the same time, into the same TPM and the same log:
// the log replays to the PCR.
func TestTPMSharedLog(t *testing.T) {
	m := newMeasurer(t)
	const each = 8
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range each {
			if err := m.log.Extend(m.device, 12, fmt.Sprint("ours ", i)); err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	wg.Go(func() {
		for i := range each {
			if err := m.commandLine(t, fmt.Sprint("command line ", i)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for i := range each {
			if err := m.varlink(t, fmt.Sprint("varlink ", i)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	data, err := os.ReadFile(m.log.Path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte{0x1e}); n != 3*each {
		t.Errorf("%d records, want %d", n, 3*each)
	}
	replayed, err := tpm.ReplayLog(bytes.NewReader(data), 12)
	if err != nil {
		t.Fatal(err)
	}
	wantPCR(t, "replay", m.pcr(t), replayed)
}

// Systemd leaves out a bank in which the PCR is zero if it is not zero in
// another, and the log says so; we leave none out.
func TestTPMBankLeftOut(t *testing.T) {
	m := newMeasurer(t)
	if err := m.commandLine(t, "one", "--bank=sha256"); err != nil {
		t.Fatal(err)
	}
	if err := m.commandLine(t, "two"); err != nil {
		t.Fatal(err)
	}
	if err := m.log.Extend(m.device, 12, "three"); err != nil {
		t.Fatal(err)
	}
	events, err := m.log.Events()
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i, want := range []int{1, 1, 4} {
		if got := len(events[i].Digests); got != want {
			t.Errorf("%q is measured into %d banks, want %d", events[i].Word, got, want)
		}
	}
	want := tpm.Replay(nil, []string{"three"})
	want[tpm.SHA256] = tpm.Replay(nil, []string{"one", "two", "three"})[tpm.SHA256]
	wantPCR(t, "PCR", m.pcr(t), want)
	replayed, err := tpm.ReplayEvents(nil, events, 12)
	if err != nil {
		t.Fatal(err)
	}
	wantPCR(t, "replay", m.pcr(t), replayed)
}

// systemd-pcrlock takes our records for good ones, and finds that they explain
// the PCR.
func TestTPMPcrlockReadsLog(t *testing.T) {
	m := newMeasurer(t)
	for _, word := range measuredWords() {
		if err := m.log.Extend(m.device, 12, word); err != nil {
			t.Fatal(err)
		}
	}
	// It wants a firmware's log too; this one has nothing about PCR 12.
	firmware, err := os.ReadFile("../../initrd/tpm/testdata/ovmf-linux-6.12.log")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(m.log.Path), "firmware.log"), firmware, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := m.systemd(t, "env", "SYSTEMD_MEASURE_LOG_FIRMWARE=/mnt/log/firmware.log",
		"/usr/lib/systemd/systemd-pcrlock", "log", "--json=short")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Log []struct {
			PCR    int
			SHA256 string
		}
		PCRs []struct {
			PCR                 int
			Count               int
			HashMatchesEventLog bool
			ObservedSHA256      string
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var digests, want []string
	for _, e := range got.Log {
		if e.PCR == 12 {
			digests = append(digests, e.SHA256)
		}
	}
	for _, word := range measuredWords() {
		want = append(want, hex.EncodeToString(tpm.Digest(tpm.SHA256, word)))
	}
	if !slices.Equal(digests, want) {
		t.Errorf("pcrlock reads the digests %v, want %v", digests, want)
	}
	for _, p := range got.PCRs {
		if p.PCR != 12 {
			continue
		}
		predicted := hex.EncodeToString(tpm.Replay(nil, measuredWords())[tpm.SHA256])
		if !p.HashMatchesEventLog || p.Count != len(measuredWords()) || p.ObservedSHA256 != predicted {
			t.Errorf("pcrlock finds %+v, want a match, %d events and %s", p, len(measuredWords()), predicted)
		}
		return
	}
	t.Errorf("pcrlock does not name PCR 12: %s", out)
}
