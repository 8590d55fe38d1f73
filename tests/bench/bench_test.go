package main

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSamples(t *testing.T) {
	for _, test := range []struct {
		s              samples
		median, spread float64
	}{
		{samples{3}, 3, 0},
		{samples{9, 1, 5}, 5, 0.4},
		{samples{5, 4, 3, 2, 1}, 3, 1. / 3},
		{samples{10, 10, 10, 10, 1000}, 10, 0},
	} {
		if m, s := test.s.median(), test.s.spread(); m != test.median || s != test.spread {
			t.Errorf("%v: median %v, spread %v, want %v and %v", test.s, m, s, test.median, test.spread)
		}
	}
}

// TestTrialsTakeTurns looks at the order, and at the first turn, which does not count.
func TestTrialsTakeTurns(t *testing.T) {
	var order strings.Builder
	trial := func(name string) trial {
		return func(int) (*exec.Cmd, error) {
			order.WriteString(name)
			return exec.Command("true"), nil
		}
	}
	all, err := alternate(t.Context(), 2, trial("a"), trial("b"))
	if err != nil {
		t.Fatal(err)
	}
	if order.String() != "ababab" || len(all) != 2 || len(all[0]) != 2 || len(all[1]) != 2 {
		t.Errorf("order %s, samples %v", order.String(), all)
	}
}

func TestWhatFailsIsNotTimed(t *testing.T) {
	_, err := alternate(t.Context(), 1, func(int) (*exec.Cmd, error) { return exec.Command("sh", "-c", "echo why >&2; exit 3"), nil })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "why") {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := alternate(cancelled, 1, func(int) (*exec.Cmd, error) { return exec.Command("true"), nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := present(t.TempDir(), []wanted{{path: "/absent"}}, 1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestTable(t *testing.T) {
	rows := table{
		timed("start", "empty", samples{0.003}, samples{0.001}, 2.5),
		timed("apply", "tar", samples{0.002}, samples{0.001}, 2.5),
		sized("size", "packages", 12e6, 10e6, 0),
	}
	rows[0].Peer, rows[0].PeerRatio = 20, 20
	var text, doc bytes.Buffer
	if err := errors.Join(rows.print(&text, false), rows.print(&doc, true)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 4 || !strings.HasSuffix(lines[1], "3.00   2.50  over") || !strings.Contains(lines[1], "20.00 ms") || !strings.HasSuffix(lines[2], "2.00   2.50  ok") || !strings.Contains(lines[3], "1.20      -") {
		t.Errorf("%s", text.String())
	}
	var got []struct {
		What, Unit, Verdict string
		Ours, Ratio         float64
	}
	if err := json.Unmarshal(doc.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Verdict != "over" || got[1].Verdict != "ok" || got[2].Verdict != "" || got[2].Ratio != 1.2 || got[2].Ours != 12 {
		t.Errorf("%+v", got)
	}
}

func TestChoose(t *testing.T) {
	if l, err := choose(nil); err != nil || len(l) != len(all) || !l.guests() {
		t.Errorf("%d, %v", len(l), err)
	}
	if l, err := choose([]string{"large", "size"}); err != nil || len(l) != 2 || l[0].name != "size" || l.guests() {
		t.Errorf("%d, %v", len(l), err)
	}
	if _, err := choose([]string{"sise"}); err == nil {
		t.Error("a measurement that does not exist is chosen")
	}
}

func TestOrigin(t *testing.T) {
	const size, latency = 3 * chunk, 30 * time.Millisecond
	o, err := serve(size, latency)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	resp, err := http.Get(o.url + "/any")
	if err != nil {
		t.Fatal(err)
	}
	h := sha512.New()
	n, err := io.Copy(h, resp.Body)
	if err := errors.Join(err, resp.Body.Close(), o.stop()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < latency {
		t.Errorf("answered after %v", took)
	}
	if got := "sha512-" + hex.EncodeToString(h.Sum(nil)); n != size || resp.ContentLength != size || got != o.hash {
		t.Errorf("%d bytes of %d, hash %s, want %s", n, resp.ContentLength, got, o.hash)
	}
	if _, err := serve(chunk+1, 0); err == nil {
		t.Error("no multiple of a chunk is served")
	}
}

func TestMemory(t *testing.T) {
	if n, err := highWater(os.Getpid()); err != nil || n < 1<<20 || n > 1<<34 {
		t.Errorf("this process has had %d bytes, %v", n, err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"a": 10, "d/b": 200} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := weigh([]string{dir, filepath.Join(dir, "absent")}); err != nil || n != 210 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
