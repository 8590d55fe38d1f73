package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"unicode"

	"pilotlight/config"
	"pilotlight/initrd"
)

// faceLog is where a face tells what it does: the journal, under Ignition's identifier,
// or standard output. A line that says CRITICAL is of something that ended the run, and
// no other line says so.
type faceLog struct {
	name    string
	out     *bufio.Writer // of standard output; nil with a journal
	journal net.Conn
	show    show
}

// journalSocket is where the journal takes entries in its own protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
const journalSocket = "/run/systemd/journal/socket"

// newFaceLog opens the log. Where there is no journal it is standard output.
func newFaceLog(name string, toStdout bool, s show) *faceLog {
	l := &faceLog{name: name, show: s}
	if !toStdout {
		if conn, err := net.Dial("unixgram", journalSocket); err == nil {
			l.journal = conn
			return l
		}
	}
	l.out = bufio.NewWriter(s.out)
	return l
}

func (l *faceLog) close() {
	if l.journal != nil {
		l.journal.Close()
		return
	}
	l.out.Flush()
}

// The priorities of syslog(3).
const (
	priorityCritical = 2
	priorityWarning  = 4
	priorityInfo     = 6
)

func (l *faceLog) info(format string, args ...any) { l.tell(priorityInfo, format, args...) }
func (l *faceLog) warn(format string, args ...any) { l.tell(priorityWarning, format, args...) }

// critical tells of what ends the run. Who called without a unit finds it on standard
// error too.
func (l *faceLog) critical(format string, args ...any) {
	l.tell(priorityCritical, format, args...)
	if l.journal != nil && os.Getenv("JOURNAL_STREAM") == "" {
		l.show.note("%s: "+format, append([]any{l.name}, args...)...)
	}
}

func (l *faceLog) tell(priority int, format string, args ...any) {
	text := oneLine(fmt.Sprintf(format, args...))
	word := map[int]string{priorityCritical: "CRITICAL", priorityWarning: "WARNING", priorityInfo: "INFO"}[priority]
	if l.journal == nil {
		fmt.Fprintf(l.out, "%-8s : %s\n", word, text)
		return
	}
	if priority == priorityCritical {
		text = word + ": " + text
	}
	l.entry(text, priority)
}

// entry sends one entry to the journal, with further fields. That it could not be sent
// is nothing that a boot should fail for.
func (l *faceLog) entry(text string, priority int, fields ...string) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=%s\n", text, priority, l.name)
	for _, f := range fields {
		fmt.Fprintf(&b, "%s\n", oneLine(f))
	}
	_, _ = l.journal.Write(b.Bytes())
}

// fetchedMessage is the id of Ignition's journal entries about configs. Distributions
// look for them to tell a user whether his config came.
const fetchedMessage = "57124006b5c94805b77ce473e92a8aeb"

// fetched tells of a document of the config.
func (l *faceLog) fetched(d faceDocument) {
	text := fmt.Sprintf("fetched %s config from %q", d.Kind, d.Source)
	if d.Referenced {
		text = fmt.Sprintf("fetched referenced %s config from %q", d.Kind, d.Source)
	}
	if l.journal == nil {
		l.info("%s", text)
		return
	}
	l.entry(oneLine(text), priorityInfo, "MESSAGE_ID="+fetchedMessage, "IGNITION_CONFIG_TYPE="+d.Kind,
		"IGNITION_CONFIG_SRC="+d.Source, fmt.Sprintf("IGNITION_CONFIG_REFERENCED=%v", d.Referenced))
}

// faults tells what is wrong with a config: the errors in it end the run.
func (l *faceLog) faults(r config.Report) {
	for _, f := range r {
		if f.Severity == config.Warning {
			l.warn("%s:%s", f.Document, f)
		} else {
			l.critical("%s:%s", f.Document, f)
		}
	}
}

// did tells what a step has changed.
func (l *faceLog) did(stage string, o initrd.Outcome) {
	switch {
	case o.Changed:
		l.info("%s: %s (%s)", stage, o.Deed, short(o.Took))
		for _, what := range lost(o) {
			l.warn("%s: DESTROYED %s", stage, what)
		}
	case o.State == initrd.Moot:
		l.warn("%s: %v; so not: %s", stage, o.Why, o.Wish)
	}
}

// oneLine is a text that cannot begin another line, or field, of a log.
func oneLine(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
