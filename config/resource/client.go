package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"
)

// Bounds on the bytes of one resource after decompression, where
// [Client.Limit] does not say otherwise.
const (
	DefaultLimit      = 64 << 30 // for Copy: far above any system image
	DefaultBytesLimit = 16 << 20 // for Bytes, which holds them in memory: config documents, keys, certificates
)

// DefaultResponseHeaderTimeout is Ignition's default.
const DefaultResponseHeaderTimeout = 10 * time.Second

const (
	stallTimeout = 30 * time.Second // a body that delivers nothing for so long has failed
	tellEvery    = 10 * time.Second
	copyBuffer   = 128 << 10
)

// Client fetches resources. The zero value works. Its fields must not change
// while it fetches; any number of goroutines may then use it at once.
type Client struct {
	// Transport makes one request. Nil stands for one of NewTransport for each
	// call, so that connections are not shared between calls. It must not
	// follow redirects, decompress, or try again by itself.
	Transport http.RoundTripper

	// Header is sent with every request, to every origin that a redirect leads
	// to, and so must hold nothing secret: User-Agent, Accept. A resource's
	// own header of the same name takes its place. Accept-Encoding: identity
	// is sent unless one of the resource's own headers says otherwise.
	Header http.Header

	// Account is as whom the stores of clouds are asked: S3, Google's, Azure's blob
	// storage. Nil: anonymously.
	Account *Account

	// ResponseHeaderTimeout bounds, in each try, the wait between a request
	// that is sent and the header of its answer. 0 is DefaultResponseHeaderTimeout.
	// Connecting has its own bound of 40 s.
	ResponseHeaderTimeout time.Duration

	// TotalTimeout bounds one resource, with all its tries. 0: only the
	// context does, and without a deadline there tries go on for ever.
	TotalTimeout time.Duration

	// Patience bounds the time in which no byte comes that did not come before,
	// or less than 1 KiB of such for each second of it, over all tries. A large
	// resource on a slow line takes as long as it takes; a server that is silent,
	// refuses, dribbles, or breaks off at the same place each time does not. 0: no
	// such bound.
	Patience time.Duration

	// Limit is how many bytes a resource may have after decompression. 0 is
	// DefaultLimit for Copy and DefaultBytesLimit for Bytes. What comes over
	// the wire may be an eighth and 64 KiB larger.
	Limit int64

	// Tell is given a line, without its end and without secrets, at the first
	// failure of a fetch that will be tried again, and then every 10 s while
	// the fetch lasts. It may be called from another goroutine than Copy's, but
	// for one fetch never twice at a time, and not after Copy has returned. Nil: silent.
	Tell func(line string)

	// jitter changes a pause between tries. Nil: somewhere between half and
	// all of it.
	jitter func(time.Duration) time.Duration
}

// Bytes returns the content of r, verified. It holds all of it in memory. It
// fails as [Client.Copy] does.
func (c *Client) Bytes(ctx context.Context, r Resource) ([]byte, error) {
	var b bytes.Buffer
	if _, err := c.copy(ctx, r, &b, c.limit(DefaultBytesLimit)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Copy writes the content of r to dst and returns how many bytes it has. Until
// Copy has returned nil, what dst holds is not verified and perhaps not whole.
//
// Where a body breaks off after bytes were written and cannot be continued,
// dst has to go back to where it was. It can if it has a method Reset() error
// or Reset(), or Seek and Truncate as an [*os.File] that is not a pipe: it is
// then cut at the offset it had when Copy was called. If it cannot, the fetch
// fails with [ErrUnreachable].
//
// Every error is an [*Error]. An error of dst ends the fetch, and is its cause.
func (c *Client) Copy(ctx context.Context, r Resource, dst io.Writer) (int64, error) {
	return c.copy(ctx, r, dst, c.limit(DefaultLimit))
}

func (c *Client) limit(otherwise int64) int64 {
	if c.Limit > 0 {
		return c.Limit
	}
	return otherwise
}

func (c *Client) copy(ctx context.Context, r Resource, dst io.Writer, limit int64) (int64, error) {
	if err := r.check(); err != nil {
		return 0, err
	}
	rawLimit := limit
	if r.Compression != None {
		// Stored blocks and headers make what is compressed a little larger
		// than what it holds. The bound stops a stream that never yields any.
		if rawLimit += limit/8 + 64<<10; rawLimit < limit {
			rawLimit = math.MaxInt64
		}
	}
	p := &pour{ctx: ctx, resource: r, limit: limit, chunk: copyBuffer}
	var source io.Reader
	progress := func(int64) {}
	switch {
	case r.Inline != nil:
		text := r.Inline.Reveal()
		source, p.chunk = strings.NewReader(text), chunkFor(len(text))
	case r.Source.IsZero():
		source, p.chunk, p.empty = strings.NewReader(""), chunkFor(0), true
	case !r.Source.Remote():
		b, err := decodeData(r.Source.Reveal())
		if err != nil {
			return 0, &Error{What: r.String(), Err: ErrSyntax, Cause: reason(err.Error())}
		}
		source, p.chunk = bytes.NewReader(b), chunkFor(len(b))
	default:
		if c.TotalTimeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.TotalTimeout)
			defer cancel()
			p.ctx = ctx
		}
		if c.Patience > 0 {
			waits, stop := newPatience(ctx, c.Patience)
			defer stop()
			ctx, p.ctx, progress = waits, waits, waits.progress
		}
		d := c.newDownload(ctx, r, rawLimit)
		defer d.close()
		p.download, source = d, d
	}
	p.raw = &tap{source: source, limit: rawLimit, progress: progress}
	return p.run(dst)
}

// pour is one Copy under way: from raw bytes to dst.
type pour struct {
	ctx      context.Context
	resource Resource
	limit    int64
	raw      *tap
	download *download // nil for what is not remote
	empty    bool      // there is no content: nothing that could be compressed
	chunk    int       // bytes read at a time
}

// chunkFor returns the chunk for n bytes that are in memory. A config may hold
// thousands of small files.
func chunkFor(n int) int { return min(max(n, 512), copyBuffer) }

func (p *pour) run(dst io.Writer) (int64, error) {
	rewind := rewinder(dst)
	// Each further round follows a try that failed, so the download's deadline
	// bounds them.
	for {
		n, err := p.once(dst)
		restart, ok := errors.AsType[*restartError](err)
		if !ok {
			return n, err
		}
		if n > 0 {
			if rewind == nil {
				return n, p.fault(ErrUnreachable, restart.cause, "the destination takes each byte only once, and the server gives no strong ETag to continue by")
			}
			if err := rewind(); err != nil {
				return n, p.fault(nil, fmt.Errorf("starting over: %w", err), "")
			}
		}
		p.raw.restart()
	}
}

// once sends the source through to dst and verifies it.
func (p *pour) once(dst io.Writer) (int64, error) {
	content, done, err := p.open()
	if err != nil {
		return 0, err
	}
	defer done()
	sum := newDigest(p.resource.Hash, p.chunk)
	defer sum.stop()

	var n int64
	for {
		if p.ctx.Err() != nil && p.download == nil {
			if errors.Is(p.ctx.Err(), context.Canceled) {
				return n, p.fault(context.Canceled, nil, "")
			}
			return n, p.fault(ErrUnreachable, p.ctx.Err(), "")
		}
		buf := sum.lend()
		m, err := content.Read(buf)
		if int64(m) > p.limit-n {
			return n, p.fault(ErrTooLarge, reason(fmt.Sprintf("more than %s", size(p.limit))), "")
		}
		sum.took(buf, m)
		if m > 0 {
			w, werr := dst.Write(buf[:m])
			n += int64(w)
			if werr == nil && w != m {
				werr = io.ErrShortWrite
			}
			if werr != nil {
				return n, p.fault(nil, fmt.Errorf("write: %w", werr), "")
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, p.readFault(err)
		}
	}
	sum.stop()
	if sum.state != nil {
		if err := p.resource.Hash.verify(sum.state); err != nil {
			return n, p.fault(ErrHash, err, p.hashHint())
		}
	}
	return n, nil
}

// hashHint says what else than another file may have led to another hash.
func (p *pour) hashHint() string {
	switch {
	case p.download != nil && p.download.encoding != "":
		return "the server sent it with Content-Encoding " + p.download.encoding + ", which it was not asked for and which is not undone"
	case p.resource.Compression != None:
		return "the hash is that of the decompressed bytes"
	}
	return ""
}

// open returns the decompressed source, and what is to be called after it.
func (p *pour) open() (io.Reader, func(), error) {
	if p.download != nil {
		// Before there is an answer it is not known whether there is content.
		if err := p.download.answered(); err != nil {
			return nil, nil, err
		}
		p.empty, p.chunk = p.download.empty, copyBuffer
		if n := p.download.total; p.resource.Compression == None && n >= 0 && n < copyBuffer {
			p.chunk = chunkFor(int(n)) // many small files come at once
		}
	}
	if p.empty {
		return p.raw, func() {}, nil
	}
	content, done, err := decompress(p.raw, p.resource.Compression)
	if err != nil {
		return nil, nil, p.readFault(err)
	}
	return content, done, nil
}

// readFault tells whose fault a failed read is: the source's, which the tap has
// kept, or that of bytes that do not decompress.
func (p *pour) readFault(err error) error {
	if p.raw.err == errRawLimit {
		return p.fault(ErrTooLarge, reason(fmt.Sprintf("more than %s before decompression", size(p.raw.limit))), "")
	}
	if p.raw.err != nil && p.raw.err != io.EOF {
		return p.raw.err
	}
	hint, cause := compressionCause(err)
	return p.fault(ErrCompression, cause, hint)
}

func (p *pour) fault(kind, cause error, hint string) error {
	e := &Error{What: p.resource.String(), Err: kind, Cause: cause, Hint: hint}
	if p.download != nil {
		e.Status = p.download.status
	}
	return e
}

// restartError says that the source begins again at its first byte.
type restartError struct{ cause error }

func (e *restartError) Error() string { return e.cause.Error() }

// tap stands between the source and the decompressor. It counts and bounds,
// and it keeps the source's own error, which decompressors wrap or replace.
type tap struct {
	source io.Reader
	limit  int64
	n      int64
	most   int64 // the largest n there was
	err    error

	progress func(int64) // is told of bytes that did not come before
}

var errRawLimit = errors.New("raw limit")

func (t *tap) Read(b []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.source.Read(b)
	t.n += int64(n)
	if t.n > t.most {
		t.progress(t.n - t.most)
		t.most = t.n
	}
	if t.n > t.limit {
		err = errRawLimit
	}
	t.err = err
	return n, err
}

func (t *tap) restart() { t.n, t.err = 0, nil }

// rewinder returns how dst is brought back to what it is now, or nil if it
// cannot be.
func rewinder(dst io.Writer) func() error {
	switch w := dst.(type) {
	case interface{ Reset() error }:
		return w.Reset
	case interface{ Reset() }:
		return func() error { w.Reset(); return nil }
	case interface {
		io.Seeker
		Truncate(size int64) error
	}:
		start, err := w.Seek(0, io.SeekCurrent)
		if err != nil {
			// A pipe or a socket has these methods too.
			return nil
		}
		return func() error {
			if err := w.Truncate(start); err != nil {
				return err
			}
			_, err := w.Seek(start, io.SeekStart)
			return err
		}
	}
	return nil
}

// size prints a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/(1<<10), 0
	for f >= 1<<10 && i < len(units)-1 {
		f, i = f/(1<<10), i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
