package lab

import (
	"io"
	"regexp"
	"strings"
	"time"
)

// Line is one line of a guest's console, without control sequences.
type Line struct {
	At   time.Duration // since power-on, by the host's clock
	Text string
}

const (
	// maxLine bounds a line: what is longer is broken.
	maxLine = 4096
	// maxLines bounds what is kept of a console; the file beside it has everything.
	maxLines = 50000
)

// control are the escape sequences that firmware and systemd send to a terminal: CSI, OSC and two-character ones (ECMA-48).
var control = regexp.MustCompile("\x1b\\[[0-9;?=<>]*[ -/]*[@-~]|\x1b\\][^\a\x1b]*(\a|\x1b\\\\)|\x1b[@-Z\\\\^_=>78()]")

// console cuts a stream into lines.
type console struct {
	now     func() time.Duration
	line    func(Line)        // called for each line that is complete and not blank
	partial func(text string) // called with what has come of the line that is not complete: prompts have no line break
	rest    []byte
}

// copy reads from r until its end.
func (c *console) copy(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		c.write(buf[:n])
		if err == io.EOF {
			c.end()
			return nil
		}
		if err != nil {
			c.end()
			return err
		}
	}
}

func (c *console) write(p []byte) {
	for _, b := range p {
		switch {
		// A lone carriage return begins the line anew: progress displays. Both texts are worth a line.
		case b == '\n' || b == '\r' || len(c.rest) >= maxLine:
			c.end()
			if b != '\n' && b != '\r' {
				c.rest = append(c.rest, b)
			}
		default:
			c.rest = append(c.rest, b)
		}
	}
	if len(c.rest) > 0 && c.partial != nil {
		c.partial(plain(c.rest))
	}
}

func (c *console) end() {
	text := strings.TrimRight(plain(c.rest), " ")
	c.rest = c.rest[:0]
	if text != "" {
		c.line(Line{At: c.now(), Text: text})
	}
}

// plain is what a person would see of the bytes.
func plain(raw []byte) string {
	text := control.ReplaceAllString(strings.ToValidUTF8(string(raw), "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}
