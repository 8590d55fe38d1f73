package main

import (
	"bytes"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// heard are the entries that a journal gets while a log is written to.
func heard(t *testing.T, write func(*faceLog)) (entries []string, stderr string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	l := &faceLog{name: "ignition", journal: conn, show: show{err: &said}}
	write(l)
	l.close()
	// All of it is there: it was sent by this process.
	if err := journal.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	l = &faceLog{name: "end"}
	if l.journal, err = net.Dial("unixgram", socket); err != nil {
		t.Fatal(err)
	}
	l.entry("", priorityInfo)
	l.close()
	buf := make([]byte, 1<<16)
	for {
		n, err := journal.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(buf[:n]), "SYSLOG_IDENTIFIER=end\n") {
			return entries, said.String()
		}
		entries = append(entries, string(buf[:n]))
	}
}

func TestJournalEntries(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	entries, stderr := heard(t, func(l *faceLog) {
		l.info("one\nPRIORITY=0\x1b[1m")
		l.warn("two")
		l.fetched(faceDocument{Kind: "user", Source: "a\nb", Referenced: true})
		l.critical("%s: %s", "files", "three")
	})
	want := []string{
		"MESSAGE=one; PRIORITY=0?[1m\nPRIORITY=6\nSYSLOG_IDENTIFIER=ignition\n",
		"MESSAGE=two\nPRIORITY=4\nSYSLOG_IDENTIFIER=ignition\n",
		"MESSAGE=fetched referenced user config from \"a\\nb\"\nPRIORITY=6\nSYSLOG_IDENTIFIER=ignition\n" +
			"MESSAGE_ID=57124006b5c94805b77ce473e92a8aeb\nIGNITION_CONFIG_TYPE=user\nIGNITION_CONFIG_SRC=a; b\nIGNITION_CONFIG_REFERENCED=true\n",
		"MESSAGE=CRITICAL: files: three\nPRIORITY=2\nSYSLOG_IDENTIFIER=ignition\n",
	}
	if len(entries) != len(want) {
		t.Fatalf("%d entries: %q", len(entries), entries)
	}
	for i := range want {
		if entries[i] != want[i] {
			t.Errorf("%q\nwant %q", entries[i], want[i])
		}
	}
	if stderr != "ignition: files: three\n" {
		t.Errorf("on standard error: %q", stderr)
	}

	// In a unit standard error is the journal too.
	t.Setenv("JOURNAL_STREAM", "8:1")
	if _, stderr := heard(t, func(l *faceLog) { l.critical("x") }); stderr != "" {
		t.Errorf("said twice: %q", stderr)
	}
}
