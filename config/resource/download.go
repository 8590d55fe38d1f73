package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
	maxRedirects = 10
)

// download is the raw body of a remote resource as one stream, whatever number
// of tries it takes. Its Read returns a restartError where the stream begins
// anew, the deadline's or caller's error, or an answer that no try can change.
type download struct {
	client    *Client
	ctx       context.Context
	resource  Resource
	transport http.RoundTripper
	release   func()
	store     store // nil for a plain server
	limit     int64
	narrator  *narrator

	body   *answer // nil: the next read opens one
	empty  bool    // the answer was 204
	offset int64   // bytes of the body that were read
	etag   string  // strong validator of the body, "" if there is none
	total  int64   // bytes that the body has, -1 if not known
	status int     // latest HTTP status

	encoding string // what the server did to the body without being asked, "" if nothing

	connected  bool // in some try
	begun      time.Time
	tries      int
	failure    error         // why the latest try failed, nil once bytes have followed
	retryAfter time.Duration // what the latest answer asked for
}

// transient is a failure that may pass by itself.
type transient struct {
	cause      error
	retryAfter time.Duration
}

func (e *transient) Error() string { return e.cause.Error() }

func (c *Client) newDownload(ctx context.Context, r Resource, limit int64) *download {
	d := &download{client: c, ctx: ctx, resource: r, transport: c.Transport, release: func() {}, limit: limit, begun: time.Now()}
	if d.transport == nil {
		t := NewTransport(TransportOptions{})
		d.transport, d.release = t, t.CloseIdleConnections
	}
	d.store = storeOf(r.Source, r.Headers, c.Account)
	d.narrator = narrate(c.Tell, r.String())
	return d
}

// close ends the download, and everything that it started.
func (d *download) close() {
	d.drop()
	d.release()
	d.narrator.stop()
}

// drop gives up the body that is being read, if there is one.
func (d *download) drop() {
	if d.body != nil {
		d.body.close()
		d.body = nil
	}
}

// answered waits until there is a body to read from.
func (d *download) answered() error {
	if d.body != nil {
		return nil
	}
	return d.open()
}

func (d *download) Read(b []byte) (int, error) {
	// A round without a return follows a failed try; the deadline bounds them.
	for {
		if err := d.answered(); err != nil {
			return 0, err
		}
		// Bytes that are here already would be read without a look at the time.
		if d.ctx.Err() != nil {
			return 0, d.over()
		}
		n, err := d.body.Read(b)
		d.offset += int64(n)
		d.narrator.read(d.offset)
		if n > 0 {
			d.failure = nil
		}
		if err == nil || err == io.EOF {
			return n, err
		}
		d.drop()
		if d.ctx.Err() != nil {
			return n, d.over()
		}
		d.failed(&transient{cause: err})
		if d.offset > 0 && d.etag == "" {
			d.offset = 0
			return n, &restartError{d.failure}
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (d *download) failed(t *transient) {
	d.failure, d.retryAfter = t.cause, t.retryAfter
}

// open tries until there is a body that starts at offset, or at 0, which is a
// restartError if the two differ.
func (d *download) open() error {
	for {
		if d.ctx.Err() != nil {
			return d.over()
		}
		if d.tries > 0 {
			if err := d.pause(); err != nil {
				return err
			}
		}
		d.tries++
		d.narrator.waiting(d.tries, d.failure)
		a, err := d.try()
		if err == nil {
			err = d.accept(a)
		}
		if t, ok := errors.AsType[*transient](err); ok {
			if d.ctx.Err() != nil {
				return d.over()
			}
			d.failed(t)
			continue
		}
		return err
	}
}

// accept judges an answer and makes its body the one that is read.
func (d *download) accept(a *answer) error {
	if a.Proto != tftpProto {
		d.status = a.StatusCode
	}
	resumed := false
	switch code := a.StatusCode; {
	case code == http.StatusOK, code == http.StatusNoContent:
	case code == http.StatusPartialContent && d.offset > 0:
		if cause := d.foreign(a); cause != "" {
			a.close()
			// Not the part that was asked for: ask for everything next time.
			d.etag = ""
			return &transient{cause: cause}
		}
		resumed = true
	case d.offset > 0 && (code == http.StatusRequestedRangeNotSatisfiable || code == http.StatusPreconditionFailed):
		a.close()
		cause := reason(statusText(code) + " when continuing")
		d.failed(&transient{cause: cause})
		d.offset, d.etag = 0, ""
		return &restartError{cause}
	case worthAnotherTry(code):
		a.close()
		return &transient{cause: d.told(a), retryAfter: retryAfter(a.Header, time.Now())}
	case code == http.StatusNotFound:
		a.close()
		return d.fault(ErrNotFound, d.told(a), "")
	default:
		a.close()
		return d.fault(ErrRefused, d.told(a), d.refusalHint(code))
	}

	start := d.offset
	if !resumed {
		d.offset, d.etag, d.total = 0, "", a.ContentLength
		if tag := a.Header.Get("Etag"); strings.HasPrefix(tag, `"`) {
			d.etag = tag
		}
		d.encoded(a.Header.Get("Content-Encoding"))
	}
	if a.ContentLength > 0 && a.ContentLength > d.limit-d.offset {
		a.close()
		return d.fault(ErrTooLarge, reason(fmt.Sprintf("%s, more than %s", size(d.offset+a.ContentLength), size(d.limit))), "")
	}
	d.body, d.empty = a, a.StatusCode == http.StatusNoContent
	d.narrator.reading(d.offset, a.ContentLength)
	if start > d.offset {
		return &restartError{d.failure}
	}
	return nil
}

// worthAnotherTry reports whether a status speaks of a moment, not of the resource.
func worthAnotherTry(code int) bool {
	return code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500
}

// foreign says why an answer of status 206 is no continuation of the body that
// was read so far, or "". A server may honour Range and know nothing of
// If-Range (RFC 9110, section 13.1.5): then a file that was replaced meanwhile
// must not become the end of the old one.
func (d *download) foreign(a *answer) reason {
	first, total, ok := contentRange(a.Header.Get("Content-Range"))
	switch tag := a.Header.Get("Etag"); {
	case !ok || first != d.offset:
		return "the server sent another part than it was asked for"
	case tag != "" && tag != d.etag, total >= 0 && d.total >= 0 && total != d.total:
		return "the file was replaced on the server meanwhile"
	}
	return ""
}

// encoded takes note of a Content-Encoding, for which nobody asked. The bytes
// stay as they came: for a stored .gz file servers say gzip too.
func (d *download) encoded(word string) {
	d.encoding = ""
	switch word = strings.ToLower(word); {
	case word == "" || word == "identity" || d.resource.Compression != None || d.asksForEncoding():
	case slices.Contains([]string{"gzip", "x-gzip", "deflate", "compress", "br", "zstd"}, word):
		d.encoding = word
	default:
		d.encoding = "of another kind" // the server's own word
	}
	if d.encoding != "" {
		d.narrator.remark("the server sent it with Content-Encoding " + d.encoding + ", which it was not asked for; it is kept as it came")
	}
}

// asksForEncoding reports whether the resource's own headers leave the choice to
// the server.
func (d *download) asksForEncoding() bool {
	return slices.ContainsFunc(d.resource.Headers, func(h Header) bool {
		return http.CanonicalHeaderKey(h.Name) == "Accept-Encoding"
	})
}

// pause waits before the next try.
func (d *download) pause() error {
	pause := longestPause
	if n := d.tries - 1; n < 5 {
		pause = min(firstPause<<n, longestPause)
	}
	if d.client.jitter != nil {
		pause = d.client.jitter(pause)
	} else {
		// Machines that start together should not come back together.
		pause = pause/2 + rand.N(pause/2)
	}
	pause = max(pause, d.retryAfter)
	if deadline, ok := d.ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return d.over()
	}
	d.narrator.pausing(d.tries, d.failure, pause)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-d.ctx.Done():
		return d.over()
	}
}

// over is the error of a download that its caller or its deadline has ended,
// or for which the deadline leaves no other try.
func (d *download) over() error {
	if errors.Is(d.ctx.Err(), context.Canceled) {
		return d.fault(context.Canceled, nil, "")
	}
	last := d.failure
	switch {
	case last != nil:
	case d.offset > 0:
		last = reason("only " + size(d.offset))
	case d.status != 0:
		last = reason("an answer without its body")
	case d.connected:
		last = reason("no answer")
	default:
		last = reason("no connection")
	}
	last = &lateError{last, d.tries, time.Since(d.begun)}
	hint := hintFor(last)
	if d.retryAfter > longestPause {
		hint = fmt.Sprintf("the server asks to come back after %s", d.retryAfter.Round(time.Second))
	}
	return d.fault(ErrUnreachable, last, hint)
}

func (d *download) fault(kind, cause error, hint string) error {
	return &Error{What: d.resource.String(), Status: d.status, Err: kind, Cause: cause, Hint: hint}
}

// contentRange reads where a part begins and how long the whole is, -1 where
// that is not said (RFC 9110, section 14.4).
func contentRange(s string) (first, total int64, ok bool) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, false
	}
	from, rest, _ := strings.Cut(rest, "-")
	_, whole, ok := strings.Cut(rest, "/")
	first, err := strconv.ParseInt(from, 10, 64)
	if !ok || err != nil {
		return 0, 0, false
	}
	if whole == "*" {
		return first, -1, true
	}
	total, err = strconv.ParseInt(whole, 10, 64)
	return first, total, err == nil
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date,
// which is compared with the server's own Date where it sends one, because our
// clock may not be set yet. It is at least 0 and at most a day.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const longest = 24 * time.Hour
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	}
	when, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(when.Sub(now), 0), longest)
}
