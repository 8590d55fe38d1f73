package tpm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// ErrTorn means that a record of an event log was not written to its end: the
// line feed that ends it is missing.
var ErrTorn = errors.New("torn: it has no end")

// NoPCR is the PCR of an event that was not measured into a PCR but into an NV
// index, as systemd 259 and newer do ("NvPCR").
const NoPCR = -1

// Event is a record of systemd's event log of user space.
type Event struct {
	PCR int // 0 to 23, or NoPCR
	// NvPCR is the name of the NV index for NoPCR, if the record has it.
	NvPCR string
	// Digests are what each bank was extended with. Those of [Banks] have the
	// right [Bank.Size].
	Digests map[Bank][]byte
	// Word is what was measured as the record describes it, without C escapes.
	// Nothing but [Event.Measured] proves that it is. systemd cuts it after 1024 bytes.
	Word string
	// Type is systemd's event type ("phase", "machine-id"); it may be empty.
	Type string
	// BootID is the boot of the event, 32 hex digits; it may be empty.
	BootID string
	// Timestamp is the time since boot, in microseconds.
	Timestamp time.Duration
}

// Measured is whether the word is what the event measured: every digest of a
// bank that this package can compute is the word's, and there is at least one.
func (e Event) Measured(word string) bool {
	n := 0
	for b, digest := range e.Digests {
		if b.Size() == 0 {
			continue
		}
		if !bytes.Equal(digest, Digest(b, word)) {
			return false
		}
		n++
	}
	return n > 0
}

// config is whether the event measured a document, as [Word] has it.
func (e Event) config() bool { return strings.HasPrefix(e.Word, configPrefix) && e.Measured(e.Word) }

// Has is whether the word was measured into the PCR in the boot: there is an
// event of it that says so and has its digests.
func Has(events []Event, bootID string, pcr int, word string) bool {
	for _, e := range events {
		if e.PCR == pcr && e.BootID == bootID && e.Word == word && e.Measured(word) {
			return true
		}
	}
	return false
}

// The order of the fields is that of systemd's records.
type record struct {
	PCR         *int            `json:"pcr,omitempty"`
	NvIndex     json.RawMessage `json:"nv_index,omitempty"` // read only, and only for its presence
	Digests     []recordDigest  `json:"digests"`
	ContentType string          `json:"content_type"`
	Content     json.RawMessage `json:"content"`
}

type recordDigest struct {
	HashAlg string `json:"hashAlg"`
	Digest  string `json:"digest"`
}

type recordContent struct {
	String      string `json:"string"`
	BootID      string `json:"bootId"`
	Timestamp   uint64 `json:"timestamp"`
	EventType   string `json:"eventType,omitempty"`   // read only
	NvIndexName string `json:"nvIndexName,omitempty"` // read only
}

const (
	recordSeparator = 0x1e // RFC 7464 section 2.2
	systemdContent  = "systemd"
)

// newRecord is the record as it is written to the log, from separator to line feed.
func newRecord(pcr int, digests []bankDigest, word, bootID string, since time.Duration) []byte {
	r := record{PCR: &pcr, ContentType: systemdContent}
	for _, d := range digests {
		r.Digests = append(r.Digests, recordDigest{HashAlg: string(d.bank), Digest: hex.EncodeToString(d.digest)})
	}
	r.Content = encodeJSON(recordContent{String: escape(word), BootID: bootID, Timestamp: uint64(since.Microseconds())})
	return append(append([]byte{recordSeparator}, encodeJSON(r)...), '\n')
}

// encodeJSON writes <, > and & as they are: so does systemd.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	// Only strings and numbers go in, and a RawMessage that was made here.
	_ = e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// parseRecords reads a JSON text sequence. The error is a *LogError; the events
// before the record that it is about are returned with it.
func parseRecords(data []byte) ([]Event, error) {
	var events []Event
	for n := 1; len(data) > 0; n++ {
		if data[0] != recordSeparator {
			return events, &LogError{Record: n, Err: errors.New("does not start with a record separator")}
		}
		text := data[1:]
		if end := bytes.IndexByte(text, recordSeparator); end >= 0 {
			text = text[:end]
		}
		data = data[1+len(text):]
		if len(text) == 0 || text[len(text)-1] != '\n' {
			return events, &LogError{Record: n, Err: ErrTorn}
		}
		e, err := parseRecord(text)
		if err != nil {
			return events, &LogError{Record: n, Err: err}
		}
		events = append(events, e)
	}
	return events, nil
}

func parseRecord(text []byte) (Event, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return Event{}, err
	}
	e := Event{PCR: NoPCR, Digests: make(map[Bank][]byte, len(r.Digests))}
	switch {
	case r.PCR != nil:
		if err := checkPCR(*r.PCR); err != nil {
			return Event{}, err
		}
		e.PCR = *r.PCR
	case r.NvIndex == nil:
		return Event{}, errors.New("neither pcr nor nv_index")
	}
	if len(r.Digests) == 0 {
		return Event{}, errors.New("no digests")
	}
	for _, d := range r.Digests {
		b := Bank(d.HashAlg)
		digest, err := hex.DecodeString(d.Digest)
		if err != nil {
			return Event{}, fmt.Errorf("digest %q: %w", d.HashAlg, err)
		}
		if size := b.Size(); size != 0 && len(digest) != size {
			return Event{}, fmt.Errorf("digest %q: %d bytes, not %d", d.HashAlg, len(digest), size)
		}
		if _, twice := e.Digests[b]; twice {
			return Event{}, fmt.Errorf("digest %q: twice", d.HashAlg)
		}
		e.Digests[b] = digest
	}
	// Other writers describe their events in ways of their own.
	if r.ContentType != systemdContent {
		return e, nil
	}
	var c recordContent
	if err := json.Unmarshal(r.Content, &c); err != nil {
		return Event{}, fmt.Errorf("content: %w", err)
	}
	if c.Timestamp > math.MaxInt64/1000 {
		return Event{}, fmt.Errorf("timestamp %d: too large", c.Timestamp)
	}
	e.Word = unescape(c.String)
	e.Type = c.EventType
	e.BootID = c.BootID
	e.NvPCR = c.NvIndexName
	e.Timestamp = time.Duration(c.Timestamp) * time.Microsecond
	return e, nil
}

// The escapes of one letter that systemd's cescape() writes.
const (
	escapeLetters = "abfnrtv\\\"'"
	escapeBytes   = "\a\b\f\n\r\t\v\\\"'"
)

// escape writes a word as systemd does in a record, before JSON's own escapes:
// what is left is printable ASCII.
func escape(word string) string {
	var s strings.Builder
	for _, c := range []byte(word) {
		if i := strings.IndexByte(escapeBytes, c); i >= 0 {
			s.WriteByte('\\')
			s.WriteByte(escapeLetters[i])
		} else if c < ' ' || c >= 0x7f {
			fmt.Fprintf(&s, "\\%03o", c)
		} else {
			s.WriteByte(c)
		}
	}
	return s.String()
}

// unescape undoes escape. A text that escape cannot have made is returned as it
// is: it describes the event in some other way.
func unescape(text string) string {
	word := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			word = append(word, text[i])
			continue
		}
		rest := text[i+1:]
		if rest == "" {
			return text
		}
		if j := strings.IndexByte(escapeLetters, rest[0]); j >= 0 {
			word = append(word, escapeBytes[j])
			i++
			continue
		}
		if len(rest) < 3 || strings.Trim(rest[:3], "01234567") != "" || rest[0] > '3' {
			return text
		}
		word = append(word, (rest[0]-'0')<<6|(rest[1]-'0')<<3|(rest[2]-'0'))
		i += 3
	}
	return string(word)
}
