package resource

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
)

// impatient has no pauses between tries.
func impatient() *Client {
	return &Client{TotalTimeout: 10 * time.Second, jitter: func(time.Duration) time.Duration { return time.Millisecond }}
}

func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// at is a resource on s, with the canary in each of its secret places.
func at(t testing.TB, s *httptest.Server, path string) Resource {
	t.Helper()
	scheme, host, _ := strings.Cut(s.URL, "://")
	return Resource{
		Source:  mustURL(t, scheme+"://u"+canary+":p"+canary+"@"+host+path+"?q="+canary),
		Headers: []Header{{"X-Secret", NewSecret(canary)}},
	}
}

// body is some bytes that do not compress, from a seed.
func body(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func hash256(b []byte) Hash { s := sha256.Sum256(b); return Hash{"sha256", s[:]} }
func hash512(b []byte) Hash { s := sha512.Sum512(b); return Hash{"sha512", s[:]} }

func TestLocal(t *testing.T) {
	inline := func(s string) *Secret { v := NewSecret(s); return &v }
	large := body(1 << 20)
	for _, tt := range []struct {
		name     string
		resource Resource
		want     string
	}{
		{"nothing", Resource{}, ""},
		{"nothing, compressed", Resource{Compression: Gzip}, ""},
		{"nothing, hashed", Resource{Hash: hash256(nil)}, ""},
		{"inline", Resource{Inline: inline("text")}, "text"},
		{"inline, empty", Resource{Inline: inline("")}, ""},
		{"inline, hashed", Resource{Inline: inline("text"), Hash: hash512([]byte("text"))}, "text"},
		{"inline, gzip", Resource{Inline: inline(string(gz(t, large))), Compression: Gzip, Hash: hash256(large)}, string(large)},
		{"data", Resource{Source: mustURL(t, "data:,a%20b")}, "a b"},
		{"data, base64", Resource{Source: mustURL(t, "data:;base64,AAEC")}, "\x00\x01\x02"},
		{"data, large", Resource{Source: mustURL(t, "data:,"+strings.Repeat("x", 1<<20))}, strings.Repeat("x", 1<<20)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := new(Client).Bytes(t.Context(), tt.resource)
			if err != nil || string(got) != tt.want {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			// Any limit that holds it will do, also the largest there is.
			for _, limit := range []int64{int64(max(len(tt.want), 1)), math.MaxInt64} {
				if got, err = (&Client{Limit: limit}).Bytes(t.Context(), tt.resource); err != nil || string(got) != tt.want {
					t.Fatalf("limit %d: %d bytes, %v", limit, len(got), err)
				}
			}
			if got, err = tt.resource.Local(); err != nil || string(got) != tt.want {
				t.Fatalf("Local: %d bytes, %v", len(got), err)
			}
		})
	}
	_, err := Resource{Source: secretURL(t)}.Local()
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("Local of a remote resource: %v", err)
	}
	quietError(t, err)
}

func TestContradictions(t *testing.T) {
	secret := NewSecret(canary)
	u := mustURL(t, "http://127.0.0.1:1/")
	for _, tt := range []struct {
		resource Resource
		kind     error
		says     string
	}{
		{Resource{Source: u, Inline: &secret}, ErrSyntax, "both"},
		{Resource{Source: u, Compression: "xz"}, ErrCompression, "neither gzip nor zstd"},
		{Resource{Source: u, Hash: Hash{"md5", []byte("x")}}, ErrSyntax, "neither sha256 nor sha512"},
		{Resource{Source: u, Hash: Hash{"sha256", []byte("x")}}, ErrSyntax, "64 hexadecimal digits"},
		{Resource{Inline: &secret, Headers: []Header{{"A", secret}}}, ErrSyntax, "headers without"},
		{Resource{Source: mustURL(t, "data:,"+canary), Headers: []Header{{"A", secret}}}, ErrSyntax, "headers without"},
		{Resource{Source: u, Headers: []Header{{"A", secret}, {canary + " x", secret}}}, ErrSyntax, "header 1: the name"},
		{Resource{Source: u, Headers: []Header{{"", secret}}}, ErrSyntax, "header 0: the name"},
		{Resource{Source: u, Headers: []Header{{"A", Secret{}}}}, ErrSyntax, `header "A" has no value`},
		{Resource{Source: u, Headers: []Header{{"A", NewSecret(canary + "\r\nB: c")}}}, ErrSyntax, `value of header "A"`},
		{Resource{Source: u, Headers: []Header{{"content-length", secret}}}, ErrSyntax, "cannot be set"},
	} {
		_, err := new(Client).Bytes(t.Context(), tt.resource)
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q does not say %q", err, tt.says)
		}
		quietError(t, err)
	}
}

func TestRequest(t *testing.T) {
	var got *http.Request
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { got = r; fmt.Fprint(w, "ok") })
	c := impatient()
	c.Header = http.Header{"User-Agent": {"pilotlight/1"}, "Accept": {"a/b"}, "Accept-Encoding": {"br"}}
	r := at(t, s, "/a%2Fb")
	r.Headers = append(r.Headers, Header{"accept", NewSecret("c/d")}, Header{"Host", NewSecret("other.example")})
	b, err := c.Bytes(t.Context(), r)
	if err != nil || string(b) != "ok" {
		t.Fatalf("%q, %v", b, err)
	}
	if got.Method != "GET" || got.RequestURI != "/a%2Fb?q="+canary || got.Host != "other.example" {
		t.Errorf("%s %s from %s", got.Method, got.RequestURI, got.Host)
	}
	user, password, _ := got.BasicAuth()
	if user != "u"+canary || password != "p"+canary {
		t.Errorf("user info %s:%s", user, password)
	}
	got.Header.Del("Authorization")
	want := "map[Accept:[c/d] Accept-Encoding:[identity] User-Agent:[pilotlight/1] X-Secret:[" + canary + "]]"
	if fmt.Sprint(got.Header) != want {
		t.Errorf("%v, want %s", got.Header, want)
	}

	// A resource's own header comes before what we would send by ourselves.
	r.Headers = []Header{{"Authorization", NewSecret("Bearer x")}, {"Accept-Encoding", NewSecret("gzip")}}
	if _, err := c.Bytes(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got.Header.Get("Authorization") != "Bearer x" || got.Header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("%v", got.Header)
	}
	if fmt.Sprint(c.Header) != "map[Accept:[a/b] Accept-Encoding:[br] User-Agent:[pilotlight/1]]" {
		t.Errorf("the client's headers became %v", c.Header)
	}
}

func TestAnswers(t *testing.T) {
	const forever = 1 << 30
	for _, tt := range []struct {
		status   int
		failures int // how often the status comes before 200
		kind     error
		tries    int
	}{
		{200, 0, nil, 1},
		{204, 0, nil, 1},
		{201, forever, ErrRefused, 1},
		{206, forever, ErrRefused, 1},
		{300, forever, ErrRefused, 1},
		{304, forever, ErrRefused, 1},
		{400, forever, ErrRefused, 1},
		{401, forever, ErrRefused, 1},
		{403, forever, ErrRefused, 1},
		{404, forever, ErrNotFound, 1},
		{407, forever, ErrRefused, 1},
		{408, 2, nil, 3},
		{410, forever, ErrRefused, 1},
		{416, forever, ErrRefused, 1},
		{429, 2, nil, 3},
		{500, 2, nil, 3},
		{503, 12, nil, 13},
		{599, 2, nil, 3},
	} {
		t.Run(strconv.Itoa(tt.status), func(t *testing.T) {
			var n atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if int(n.Add(1)) <= tt.failures || tt.status == 204 {
					w.WriteHeader(tt.status)
				}
				if tt.status != 204 && tt.status != 304 {
					fmt.Fprint(w, canary)
				}
			})
			b, err := impatient().Bytes(t.Context(), at(t, s, "/x"))
			quietError(t, err)
			if !errors.Is(err, tt.kind) || int(n.Load()) != tt.tries {
				t.Fatalf("%v after %d tries", err, n.Load())
			}
			if tt.kind == nil {
				want := canary
				if tt.status == 204 {
					want = ""
				}
				if string(b) != want {
					t.Errorf("got %q", b)
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != tt.status || e.What != s.URL+"/x" || !strings.Contains(err.Error(), fmt.Sprintf("status %d", tt.status)) {
				t.Errorf("%#v", e)
			}
		})
	}
}

// TestNoContentIsNotDecompressed: 204 is empty whatever the resource says of
// its compression, and still has to have the hash.
func TestNoContentIsNotDecompressed(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	r := at(t, s, "/")
	r.Compression, r.Hash = Gzip, hash256(nil)
	if b, err := impatient().Bytes(t.Context(), r); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	r.Hash = hash256([]byte("x"))
	if _, err := impatient().Bytes(t.Context(), r); !errors.Is(err, ErrHash) {
		t.Errorf("%v", err)
	}
}

func TestHashes(t *testing.T) {
	content := []byte("content " + canary)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gzip":
			w.Write(gz(t, content))
		case "/zstd":
			w.Write(zst(t, content))
		default:
			w.Write(content)
		}
	})
	for _, path := range []string{"/", "/gzip", "/zstd"} {
		for _, good := range []Hash{hash256(content), hash512(content)} {
			r := at(t, s, path)
			r.Compression = Compression(path[1:])
			r.Hash = good
			if b, err := impatient().Bytes(t.Context(), r); err != nil || !bytes.Equal(b, content) {
				t.Errorf("%s %s: %v", path, good.Algorithm, err)
			}
			r.Hash = Hash{good.Algorithm, slices.Clone(good.Sum)}
			r.Hash.Sum[0] ^= 1
			b, err := impatient().Bytes(t.Context(), r)
			quietError(t, err)
			if !errors.Is(err, ErrHash) || b != nil {
				t.Fatalf("%s %s: %q, %v", path, good.Algorithm, b, err)
			}
			if says := fmt.Sprintf("%s wanted %x, got %x", good.Algorithm, r.Hash.Sum, good.Sum); !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not say %q", err, says)
			}
		}
	}
}

func TestCompression(t *testing.T) {
	content := []byte(strings.Repeat("text "+canary+" ", 5000))
	half := len(content) / 2
	g, z := gz(t, content), zst(t, content)
	skippable := append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00"), "skip"...)
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	flip := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[(i+len(b))%len(b)] ^= 0x55
		return b
	}
	// A frame of one raw block that asks for a window of 256 MiB.
	window := []byte("\x28\xb5\x2f\xfd\x00\x90\x09\x00\x00a")
	for _, tt := range []struct {
		name string
		c    Compression
		raw  []byte
		says string // "" means that it decompresses to content
	}{
		{"gzip", Gzip, g, ""},
		{"gzip members", Gzip, join(gz(t, content[:half]), gz(t, content[half:])), ""},
		{"gzip empty member", Gzip, join(g, gz(t, nil)), ""},
		{"gzip trailing", Gzip, join(g, []byte(canary)), "followed by something else"},
		{"gzip trailing zeros", Gzip, join(g, make([]byte, 512)), "followed by something else"},
		{"gzip trailing byte", Gzip, join(g, []byte("x")), "truncated"},
		{"gzip truncated", Gzip, g[:len(g)-1], "truncated"},
		{"gzip truncated in the middle", Gzip, g[:len(g)/2], "truncated"},
		{"gzip truncated in the header", Gzip, g[:5], "truncated"},
		{"gzip truncated second member", Gzip, join(g, g[:len(g)-4]), "truncated"},
		{"gzip empty", Gzip, nil, "empty"},
		{"gzip of nothing like it", Gzip, content, "no gzip data"},
		{"gzip is zstd", Gzip, z, "no gzip data"},
		{"gzip checksum", Gzip, flip(g, -6), "wrong checksum"},
		{"gzip corrupt", Gzip, join(g[:10], []byte("\xff\xff\xff\xff"), g[14:]), "corrupt"},
		{"zstd", Zstd, z, ""},
		{"zstd frames", Zstd, join(zst(t, content[:half]), zst(t, content[half:])), ""},
		{"zstd skippable", Zstd, join(skippable, z, skippable), ""},
		{"zstd trailing", Zstd, join(z, []byte(canary)), "followed by something else"},
		{"zstd trailing zeros", Zstd, join(z, make([]byte, 512)), "followed by something else"},
		{"zstd trailing byte", Zstd, join(z, []byte("x")), "truncated"},
		{"zstd trailing 3 bytes", Zstd, join(z, []byte("xyz")), "truncated"},
		{"zstd truncated", Zstd, z[:len(z)-1], "truncated"},
		{"zstd truncated in the middle", Zstd, z[:len(z)/2], "truncated"},
		{"zstd truncated in the header", Zstd, z[:3], "truncated"},
		{"zstd truncated in a skippable frame", Zstd, join(z, skippable[:10]), "truncated"},
		{"zstd empty", Zstd, nil, "empty"},
		{"zstd of nothing like it", Zstd, content, "no zstd data"},
		{"zstd checksum", Zstd, flip(z, -1), "wrong checksum"},
		{"zstd window", Zstd, window, "--long=27"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				w.Write(tt.raw)
			})
			remote := at(t, s, "/")
			inline := NewSecret(string(tt.raw))
			for _, r := range []Resource{remote, {Inline: &inline}} {
				r.Compression = tt.c
				b, err := impatient().Bytes(t.Context(), r)
				quietError(t, err)
				if tt.says == "" {
					if err != nil || !bytes.Equal(b, content) {
						t.Errorf("%d bytes, %v", len(b), err)
					}
					continue
				}
				if !errors.Is(err, ErrCompression) || !strings.Contains(err.Error(), tt.says) || b != nil {
					t.Errorf("%d bytes, %q does not say %q", len(b), err, tt.says)
				}
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests for what another try does not change", requests.Load())
			}
		})
	}
}

// writes counts what arrives at a destination that cannot go back.
type writes struct{ n int64 }

func (w *writes) Write(b []byte) (int, error) { w.n += int64(len(b)); return len(b), nil }

func TestLimit(t *testing.T) {
	const limit = 100_000
	exact, over := body(limit), body(limit+1)
	for _, tt := range []struct {
		name string
		c    Compression
		raw  []byte
		kind error
	}{
		{"exact", None, exact, nil},
		{"over", None, over, ErrTooLarge},
		{"exact gzip", Gzip, gz(t, exact), nil},
		{"over gzip", Gzip, gz(t, over), ErrTooLarge},
		{"exact zstd", Zstd, zst(t, exact), nil},
		{"over zstd", Zstd, zst(t, over), ErrTooLarge},
		{"gzip bomb", Gzip, gz(t, make([]byte, 50<<20)), ErrTooLarge},
		{"zstd bomb", Zstd, zst(t, make([]byte, 50<<20)), ErrTooLarge},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", tt.name, chunked), func(t *testing.T) {
				s := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if chunked {
						w.(http.Flusher).Flush()
					} else {
						w.Header().Set("Content-Length", strconv.Itoa(len(tt.raw)))
					}
					w.Write(tt.raw)
				})
				c := impatient()
				c.Limit = limit
				r := at(t, s, "/")
				r.Compression = tt.c
				var dst writes
				n, err := c.Copy(t.Context(), r, &dst)
				quietError(t, err)
				if !errors.Is(err, tt.kind) || n != dst.n || n > limit {
					t.Errorf("%d bytes, %d written, %v", n, dst.n, err)
				}
				if tt.kind == nil && n != limit {
					t.Errorf("%d bytes", n)
				}
			})
		}
	}
}

// TestEndless has bodies that never end, also such that never yield a byte.
func TestEndless(t *testing.T) {
	emptyMember := gz(t, nil)
	skippable := append([]byte("\x50\x2a\x4d\x18\x00\x04\x00\x00"), make([]byte, 1024)...)
	for name, tt := range map[string]struct {
		c     Compression
		piece []byte
	}{
		"plain":                {None, make([]byte, 32<<10)},
		"empty gzip members":   {Gzip, slices.Repeat(emptyMember, 100)},
		"skippable zstd":       {Zstd, skippable},
		"gzip of one gigabyte": {Gzip, gz(t, make([]byte, 1<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				for {
					if _, err := w.Write(tt.piece); err != nil {
						return
					}
				}
			})
			c := impatient()
			c.Limit = 4 << 20
			r := at(t, s, "/")
			r.Compression = tt.c
			var dst writes
			_, err := c.Copy(t.Context(), r, &dst)
			if !errors.Is(err, ErrTooLarge) || dst.n > c.Limit {
				t.Errorf("%d bytes written, %v", dst.n, err)
			}
		})
	}
}

func TestDefaultLimits(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(DefaultBytesLimit+1, 10))
		io.CopyN(w, zeros{}, DefaultBytesLimit+1)
	})
	if _, err := impatient().Bytes(t.Context(), at(t, s, "/")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Bytes: %v", err)
	}
	if n, err := impatient().Copy(t.Context(), at(t, s, "/"), io.Discard); err != nil || n != DefaultBytesLimit+1 {
		t.Errorf("Copy: %d, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// broken serves content, and breaks each answer off after some bytes of it
// until it has done so often enough.
type broken struct {
	content []byte
	after   int
	times   int32
	etag    string
	ranges  bool // honours Range
	n       atomic.Int32
	asked   []string // Range headers
}

func (b *broken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := b.n.Add(1)
	b.asked = append(b.asked, r.Header.Get("Range"))
	start := 0
	if b.etag != "" {
		w.Header().Set("ETag", b.etag)
	}
	code := http.StatusOK
	if rng := r.Header.Get("Range"); rng != "" && b.ranges && r.Header.Get("If-Range") == b.etag {
		fmt.Sscanf(rng, "bytes=%d-", &start)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(b.content)-1, len(b.content)))
		code = http.StatusPartialContent
	}
	rest := b.content[start:]
	w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
	w.WriteHeader(code)
	if n > b.times {
		w.Write(rest)
		return
	}
	w.Write(rest[:min(b.after, len(rest))])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// resettable keeps what was written since it was last told to forget.
type resettable struct {
	bytes.Buffer
	resets int
}

func (r *resettable) Reset() { r.resets++; r.Buffer.Reset() }

// resettableWithError has the other form of the method.
type resettableWithError struct {
	writes
	err error
}

func (r *resettableWithError) Reset() error { r.n = 0; return r.err }

func TestBrokenOff(t *testing.T) {
	content := body(1 << 20)
	for _, c := range []struct {
		c   Compression
		raw []byte
	}{{None, content}, {Gzip, gz(t, content)}, {Zstd, zst(t, content)}} {
		t.Run("start over "+string(c.c), func(t *testing.T) {
			b := &broken{content: c.raw, after: 300_000, times: 3}
			s := serve(t, b.ServeHTTP)
			r := at(t, s, "/")
			r.Compression, r.Hash = c.c, hash512(content)
			var dst resettable
			n, err := impatient().Copy(t.Context(), r, &dst)
			if err != nil || n != int64(len(content)) || !bytes.Equal(dst.Bytes(), content) || dst.resets != 3 || b.n.Load() != 4 {
				t.Errorf("%d bytes, %d resets, %d requests, %v", n, dst.resets, b.n.Load(), err)
			}
		})
		t.Run("continue "+string(c.c), func(t *testing.T) {
			b := &broken{content: c.raw, after: 300_000, times: 3, etag: `"v1"`, ranges: true}
			s := serve(t, b.ServeHTTP)
			r := at(t, s, "/")
			r.Compression, r.Hash = c.c, hash512(content)
			got := &struct{ io.Writer }{new(bytes.Buffer)} // cannot go back
			n, err := impatient().Copy(t.Context(), r, got)
			if err != nil || n != int64(len(content)) || !bytes.Equal(got.Writer.(*bytes.Buffer).Bytes(), content) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if want := []string{"", "bytes=300000-", "bytes=600000-", "bytes=900000-"}; !slices.Equal(b.asked, want) {
				t.Errorf("asked %q, want %q", b.asked, want)
			}
		})
		t.Run("no way back "+string(c.c), func(t *testing.T) {
			for _, etag := range []string{"", `W/"v1"`} {
				b := &broken{content: c.raw, after: 300_000, times: 3, etag: etag, ranges: true}
				s := serve(t, b.ServeHTTP)
				r := at(t, s, "/")
				r.Compression = c.c
				n, err := impatient().Copy(t.Context(), r, new(writes))
				quietError(t, err)
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "only once") || n == 0 || b.n.Load() != 1 {
					t.Errorf("%d bytes, %d requests, %v", n, b.n.Load(), err)
				}
			}
		})
	}
	t.Run("the file has changed", func(t *testing.T) {
		// The second answer is the whole of another file.
		var n atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				(&broken{content: content, after: 300_000, times: 9, etag: `"old"`, ranges: true}).ServeHTTP(w, r)
			}
			(&broken{content: content[1:], etag: `"new"`, ranges: true}).ServeHTTP(w, r)
		})
		var dst resettable
		if _, err := impatient().Copy(t.Context(), at(t, s, "/"), &dst); err != nil || !bytes.Equal(dst.Bytes(), content[1:]) || dst.resets != 1 || n.Load() != 2 {
			t.Errorf("%d bytes, %d resets, %d requests, %v", dst.Len(), dst.resets, n.Load(), err)
		}
		n.Store(0)
		if _, err := impatient().Copy(t.Context(), at(t, s, "/"), new(writes)); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
	for name, answer := range map[string]func(http.ResponseWriter){
		"the part does not exist":   func(w http.ResponseWriter) { w.WriteHeader(416) },
		"the precondition fails":    func(w http.ResponseWriter) { w.WriteHeader(412) },
		"another part":              func(w http.ResponseWriter) { w.Header().Set("Content-Range", "bytes 5-9/10"); w.WriteHeader(206) },
		"a part that says nothing":  func(w http.ResponseWriter) { w.WriteHeader(206) },
		"a part in other units":     func(w http.ResponseWriter) { w.Header().Set("Content-Range", "lines 1-2/3"); w.WriteHeader(206) },
		"a part that is no numbers": func(w http.ResponseWriter) { w.Header().Set("Content-Range", "bytes x-y/z"); w.WriteHeader(206) },
		"a part of another file": func(w http.ResponseWriter) {
			w.Header().Set("ETag", `"w"`)
			w.Header().Set("Content-Range", "bytes 300000-1048575/1048576")
			w.WriteHeader(206)
			w.Write(make([]byte, len(content)-300_000))
		},
		"a part of a longer file": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 300000-1048576/1048577")
			w.WriteHeader(206)
			w.Write(make([]byte, len(content)-299_999))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch n.Add(1) {
				case 1:
					(&broken{content: content, after: 300_000, times: 9, etag: `"v"`}).ServeHTTP(w, r)
				case 2:
					answer(w)
				default:
					if r.Header.Get("Range") != "" {
						t.Error("it is asked for a part again")
					}
					w.Write(content)
				}
			})
			var dst resettable
			if _, err := impatient().Copy(t.Context(), at(t, s, "/"), &dst); err != nil || !bytes.Equal(dst.Bytes(), content) || dst.resets != 1 {
				t.Errorf("%d bytes, %d resets, %v", dst.Len(), dst.resets, err)
			}
		})
	}
	t.Run("reset with an error", func(t *testing.T) {
		for _, fault := range []error{nil, os.ErrPermission} {
			s := serve(t, (&broken{content: content, after: 300_000, times: 1}).ServeHTTP)
			dst := &resettableWithError{err: fault}
			_, err := impatient().Copy(t.Context(), at(t, s, "/"), dst)
			if !errors.Is(err, fault) || fault == nil && dst.n != int64(len(content)) {
				t.Errorf("%d bytes, %v", dst.n, err)
			}
		}
	})
	t.Run("into the middle of a file", func(t *testing.T) {
		s := serve(t, (&broken{content: content, after: 300_000, times: 2}).ServeHTTP)
		name := filepath.Join(t.TempDir(), "f")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("before"); err != nil {
			t.Fatal(err)
		}
		if _, err := impatient().Copy(t.Context(), at(t, s, "/"), f); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != "before"+string(content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("into a pipe", func(t *testing.T) {
		s := serve(t, (&broken{content: content, after: 300_000, times: 1}).ServeHTTP)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var read sync.WaitGroup
		read.Go(func() { io.Copy(io.Discard, r) })
		_, err = impatient().Copy(t.Context(), at(t, s, "/"), w)
		w.Close()
		read.Wait()
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
}

// TestNothingWrittenYet: what breaks off before a byte was delivered needs
// nothing of the destination.
func TestNothingWrittenYet(t *testing.T) {
	content := []byte("content")
	s := serve(t, (&broken{content: content, after: 0, times: 2}).ServeHTTP)
	if n, err := impatient().Copy(t.Context(), at(t, s, "/"), new(writes)); err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
	// Six bytes arrive, but the decompressor gives none of them away.
	s = serve(t, (&broken{content: gz(t, content), after: 6, times: 2}).ServeHTTP)
	r := at(t, s, "/")
	r.Compression = Gzip
	if n, err := impatient().Copy(t.Context(), r, new(writes)); err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
}

// wire serves raw bytes, one string a connection, and closes it.
func wire(t *testing.T, answers ...string) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { l.Close(); done.Wait() })
	done.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(conn))
			io.WriteString(conn, answers[min(n, len(answers)-1)])
			conn.Close()
		}
	})
	return &httptest.Server{URL: "http://" + l.Addr().String()}
}

func TestWire(t *testing.T) {
	good := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, bad := range map[string]string{
		"nothing":               "",
		"no HTTP":               canary + "\r\n",
		"no status":             "HTTP/1.1 " + canary + "\r\n\r\n",
		"broken header":         "HTTP/1.1 200 OK\r\n" + canary + "\r\n\r\n",
		"half a header":         "HTTP/1.1 200 OK\r\nX: " + canary,
		"shorter than it says":  "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + canary,
		"no length":             "HTTP/1.1 200 OK\r\nContent-Length: " + canary + "\r\n\r\n",
		"two lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
		"last chunk is missing": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
		"broken chunk":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + canary + "\r\n",
		"odd encoding":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + canary + "\r\n\r\nok",
		"reason with a secret":  "HTTP/1.1 503 " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"TLS alert":             "\x15\x03\x01\x00\x02\x02\x46",
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			c := impatient()
			c.Tell = func(s string) { lines = append(lines, s) }
			s := wire(t, bad, bad, good)
			if b, err := c.Bytes(t.Context(), at(t, s, "/")); err != nil || string(b) != "ok" {
				t.Errorf("%q, %v", b, err)
			}
			if len(lines) != 1 {
				t.Errorf("told %q", lines)
			}
			c.TotalTimeout = 50 * time.Millisecond
			_, err := c.Bytes(t.Context(), at(t, wire(t, bad), "/"))
			quietError(t, err)
			if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			quiet(t, strings.Join(lines, "\n"))
		})
	}
	t.Run("header flood", func(t *testing.T) {
		c := impatient()
		c.TotalTimeout = 300 * time.Millisecond
		flood := wire(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat(canary, 1<<17)+"\r\n\r\n")
		_, err := c.Bytes(t.Context(), at(t, flood, "/"))
		quietError(t, err)
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
	t.Run("closed by the end", func(t *testing.T) {
		// HTTP/1.0 has bodies whose end is the end of the connection.
		b, err := impatient().Bytes(t.Context(), at(t, wire(t, "HTTP/1.0 200 OK\r\n\r\nok"), "/"))
		if err != nil || string(b) != "ok" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		s := httptest.NewServer(nil)
		s.Close()
		c := impatient()
		c.TotalTimeout = 50 * time.Millisecond
		_, err := c.Bytes(t.Context(), at(t, s, "/"))
		quietError(t, err)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%v", err)
		}
	})
}

func TestRedirects(t *testing.T) {
	type seen struct{ host, path, secret, user, referer, agent string }
	var mu sync.Mutex
	var log []seen
	record := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		user, _, _ := r.BasicAuth()
		log = append(log, seen{r.Host, r.URL.Path, r.Header.Get("X-Secret"), user, r.Referer(), r.UserAgent()})
	}
	var back string
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		record(r)
		switch r.URL.Path {
		case "/back":
			http.Redirect(w, r, back+"/end", http.StatusFound)
		case "/pong":
			http.Redirect(w, r, back+"/302/ping", http.StatusFound)
		case "/denied":
			w.WriteHeader(403)
		}
		fmt.Fprint(w, "other")
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		record(r)
		code, to, ok := strings.Cut(r.URL.Path[1:], "/")
		n, err := strconv.Atoi(code)
		if err != nil || !ok {
			fmt.Fprint(w, "end")
			return
		}
		switch to {
		case "same":
			to = "/end"
		case "relative":
			to = "../end"
		case "other":
			to = other.URL + "/end"
		case "denied":
			to = other.URL + "/denied?q=" + canary
		case "back":
			to = other.URL + "/back"
		case "loop":
			to = r.URL.Path + "?q=" + canary
		case "ping":
			to = other.URL + "/pong"
		case "far":
			to = "/302/far?q=" + canary + r.URL.RawQuery
		case "data":
			to = "data:," + canary
		case "file":
			to = "file:///" + canary
		case "nowhere":
			to = ""
		case "bad":
			to = "http://[" + canary
		}
		if to != "" {
			w.Header().Set("Location", to)
		}
		w.WriteHeader(n)
	})
	back = s.URL
	c := impatient()
	c.Header = http.Header{"User-Agent": {"a"}}

	host, otherHost := s.URL[len("http://"):], other.URL[len("http://"):]
	mine := func(path string) seen { return seen{host, path, canary, "u" + canary, "", "a"} }
	then := func(path string) seen { return seen{host, path, "", "u" + canary, "", "a"} }
	bare := func(host, path string) seen { return seen{host, path, "", "", "", "a"} }
	for _, tt := range []struct {
		path string
		body string
		log  []seen
	}{
		{"/301/same", "end", []seen{mine("/301/same"), then("/end")}},
		{"/302/same", "end", []seen{mine("/302/same"), then("/end")}},
		{"/303/relative", "end", []seen{mine("/303/relative"), then("/end")}},
		{"/307/same", "end", []seen{mine("/307/same"), then("/end")}},
		{"/308/other", "other", []seen{mine("/308/other"), bare(otherHost, "/end")}},
		{"/302/back", "end", []seen{mine("/302/back"), bare(otherHost, "/back"), bare(host, "/end")}},
	} {
		log = nil
		b, err := c.Bytes(t.Context(), at(t, s, tt.path))
		if err != nil || string(b) != tt.body || !slices.Equal(log, tt.log) {
			t.Errorf("%s: %q, %v, requests %v", tt.path, b, err, log)
		}
	}
	for _, tt := range []struct {
		path     string
		kind     error
		says     string
		requests int
	}{
		{"/302/loop", ErrRedirect, "it leads back to " + s.URL + "/302/loop, round and round", 2},
		{"/302/ping", ErrRedirect, "it leads back to " + other.URL + "/pong, round and round", 3},
		{"/302/far", ErrRedirect, "more than 10 in a row", 11},
		{"/302/data", ErrRedirect, "valid location", 1},
		{"/302/file", ErrRedirect, "valid location", 1},
		{"/302/ftp://h/", ErrRedirect, "other than http and https", 1},
		{"/302/nowhere", ErrRedirect, "valid location", 1},
		{"/302/bad", ErrRedirect, "valid location", 1},
		{"/304/same", ErrRefused, "status 304", 1},
		{"/302/denied", ErrRefused, "status 403 Forbidden from " + other.URL + "/denied (", 2},
	} {
		log = nil
		_, err := c.Bytes(t.Context(), at(t, s, tt.path))
		quietError(t, err)
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) || len(log) != tt.requests {
			t.Errorf("%s: %v after %d requests", tt.path, err, len(log))
		}
	}
}

// failing is a destination that takes some bytes only.
type failing struct{ left int }

var errFull = errors.New("disk full")

func (f *failing) Write(b []byte) (int, error) {
	if len(b) > f.left {
		return f.left, errFull
	}
	f.left -= len(b)
	return len(b), nil
}

// lazy breaks the contract of io.Writer.
type lazy struct{}

func (lazy) Write(b []byte) (int, error) { return len(b) - 1, nil }

func TestDestinationFails(t *testing.T) {
	var requests atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { requests.Add(1); w.Write(body(1 << 20)) })
	n, err := impatient().Copy(t.Context(), at(t, s, "/"), &failing{1000})
	if !errors.Is(err, errFull) || n != 1000 || requests.Load() != 1 {
		t.Errorf("%d bytes, %d requests, %v", n, requests.Load(), err)
	}
	quietError(t, err)
	if _, err := impatient().Copy(t.Context(), at(t, s, "/"), lazy{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

func TestCancel(t *testing.T) {
	arrived := make(chan struct{}, 10)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
		case "/retry":
			w.Header().Set("Retry-After", "100")
			w.WriteHeader(503)
			arrived <- struct{}{}
			return
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	for _, path := range []string{"/header", "/body", "/retry"} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		begun := time.Now()
		_, err := new(Client).Bytes(ctx, at(t, s, path))
		quietError(t, err)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: %v after %v", path, err, time.Since(begun))
		}
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	inline := NewSecret("x")
	for _, r := range []Resource{at(t, s, "/header"), {Inline: &inline}} {
		if _, err := new(Client).Bytes(ctx, r); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", r, err)
		}
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, r := range []Resource{at(t, s, "/header"), {Inline: &inline}} {
		if _, err := new(Client).Bytes(late, r); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: %v", r, err)
		}
	}
}

func TestParallel(t *testing.T) {
	content := body(200_000)
	b := gz(t, content)
	var n atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 == 0 {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			w.Write(b[:len(b)/2])
			panic(http.ErrAbortHandler)
		}
		w.Write(b)
	})
	var lines atomic.Int32
	c := impatient()
	c.Transport = NewTransport(TransportOptions{})
	defer c.Transport.(*http.Transport).CloseIdleConnections()
	c.Tell = func(line string) { lines.Add(1); quiet(t, line) }
	r := at(t, s, "/")
	r.Compression, r.Hash = Gzip, hash256(content)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			got, err := c.Bytes(t.Context(), r)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if lines.Load() == 0 {
		t.Error("nothing was told of the tries that failed")
	}
}

// TestFlatMemory fetches far more than it may allocate.
func TestFlatMemory(t *testing.T) {
	const total = 96 << 20
	piece := make([]byte, 1<<20)
	packed := zst(t, piece)
	for name, tt := range map[string]struct {
		c     Compression
		piece []byte
	}{"plain": {None, piece}, "gzip": {Gzip, gz(t, piece)}, "zstd": {Zstd, packed}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				for range total / len(piece) {
					w.Write(tt.piece)
				}
			})
			r := at(t, s, "/")
			r.Compression = tt.c
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c := impatient()
			c.TotalTimeout = 5 * time.Minute
			n, err := c.Copy(t.Context(), r, io.Discard)
			runtime.ReadMemStats(&after)
			if err != nil || n != total {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
				t.Errorf("%d bytes allocated for %d", used, n)
			}
		})
	}
}

func TestNoGoroutineStays(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) })
	before := runtime.NumGoroutine()
	c := impatient()
	c.Tell = func(string) {}
	for range 20 {
		c.Bytes(t.Context(), at(t, s, "/"))
		ParseURL("data:;base64,a")
		ParseURL("data:;a=%zz,x")
	}
	s.CloseClientConnections()
	// The server's side of a connection ends a little later.
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestWhole: a decompressor that ends before its input does, or that takes a
// failure of its input for the end, is not believed.
func TestWhole(t *testing.T) {
	fault := errors.New("fault")
	for _, tt := range []struct {
		rest io.Reader
		want error
	}{
		{strings.NewReader(""), nil},
		{strings.NewReader("x"), errTrailing},
		{iotest.ErrReader(fault), fault},
	} {
		w := &whole{content: strings.NewReader("content"), in: bufio.NewReader(tt.rest)}
		b, err := io.ReadAll(w)
		if !errors.Is(err, tt.want) || string(b) != "content" {
			t.Errorf("%q, %v, want %v", b, err, tt.want)
		}
	}
}

// roundTrip is a transport that is only a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestBytesWithTheirError: a body may give its last bytes and its error at once.
func TestBytesWithTheirError(t *testing.T) {
	content := "content"
	c := impatient()
	var asked []string
	c.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.Header.Get("Range")+r.Header.Get("If-Range"))
		resp := &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Etag": {`"v"`}}}
		switch len(asked) {
		case 1:
			resp.Body = io.NopCloser(iotest.DataErrReader(io.MultiReader(strings.NewReader(content[:4]), iotest.ErrReader(errors.New(canary)))))
		default:
			resp.StatusCode = 206
			resp.Header.Set("Content-Range", "bytes 4-6/7")
			resp.Body = io.NopCloser(iotest.DataErrReader(strings.NewReader(content[4:])))
		}
		return resp, nil
	})
	var dst bytes.Buffer
	n, err := c.Copy(t.Context(), Resource{Source: mustURL(t, "http://h/")}, struct{ io.Writer }{&dst})
	if err != nil || n != 7 || dst.String() != content || fmt.Sprint(asked) != `[ bytes=4-"v"]` {
		t.Errorf("%d bytes %q, asked %v, %v", n, dst.String(), asked, err)
	}
}

func TestPublicCause(t *testing.T) {
	secret := errors.New(canary)
	for _, tt := range []struct {
		err  error
		says string
		hint string
	}{
		{secret, "no valid HTTP answer", ""},
		{fmt.Errorf("%s: %w", canary, io.EOF), "connection closed", ""},
		{fmt.Errorf("%s: %w", canary, io.ErrUnexpectedEOF), "connection closed", ""},
		{fmt.Errorf("%s: %w", canary, os.ErrDeadlineExceeded), "timed out", ""},
		{fmt.Errorf("%s: %w", canary, stalled), "stopped arriving", ""},
		{fmt.Errorf("%s: %w", canary, &net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}), "lookup h: no such host", "name servers"},
		{fmt.Errorf("%s: %w", canary, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrPermission}), "dial tcp: permission denied", ""},
		{fmt.Errorf("%s: %w", canary, &tls.CertificateVerificationError{Err: x509.SystemRootsError{}}), "roots", "--ca FILE"},
		{fmt.Errorf("%s: %w", canary, tls.RecordHeaderError{Msg: "first record", RecordHeader: [5]byte([]byte(canary))}), "first record", ""},
	} {
		cause := publicCause(tt.err)
		if !strings.Contains(cause.Error(), tt.says) || !strings.Contains(hintFor(cause), tt.hint) || (tt.hint == "") != (hintFor(cause) == "") {
			t.Errorf("%v became %q (%s)", tt.err, cause, hintFor(cause))
		}
		quietError(t, &Error{What: "x", Err: ErrUnreachable, Cause: cause})
	}
}

func BenchmarkInline(b *testing.B) {
	text := NewSecret(strings.Repeat("x", 300))
	r := Resource{Inline: &text}
	c := new(Client)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Copy(b.Context(), r, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
