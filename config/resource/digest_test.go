package resource

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestDigest: whatever the lengths of the pieces, and wherever the goroutine takes
// over, the sum is that of all of them.
func TestDigest(t *testing.T) {
	content := body(5 << 20)
	for _, chunk := range []int{700, 64 << 10, copyBuffer} {
		for _, n := range []int{0, 1, asideFrom - 1, asideFrom, asideFrom + 1, len(content)} {
			for name, source := range map[string]io.Reader{
				"whole pieces":      bytes.NewReader(content[:n]),
				"half pieces":       iotest.HalfReader(bytes.NewReader(content[:n])),
				"pieces of nothing": &idle{source: bytes.NewReader(content[:n])},
			} {
				d := newDigest(hash512(nil), chunk)
				for {
					b := d.lend()
					if len(b) != chunk {
						t.Fatalf("a buffer of %d bytes, not %d", len(b), chunk)
					}
					m, err := source.Read(b)
					d.took(b, m)
					if err != nil {
						break
					}
				}
				d.stop()
				d.stop()
				if err := hash512(content[:n]).verify(d.state); err != nil {
					t.Errorf("%s, %d bytes by %d: %v", name, n, chunk, err)
				}
			}
		}
	}
}

// idle yields nothing at every other read.
type idle struct {
	source io.Reader
	turn   bool
}

func (i *idle) Read(b []byte) (int, error) {
	if i.turn = !i.turn; i.turn {
		return 0, nil
	}
	return i.source.Read(b)
}

// TestDigestOfLarge fetches what is hashed aside, whole and not, and leaves nobody
// behind.
func TestDigestOfLarge(t *testing.T) {
	content := body(6 << 20)
	b := &broken{content: content, after: 3 << 20, times: 2}
	s := serve(t, b.ServeHTTP)
	before := runtime.NumGoroutine()
	for _, want := range []Hash{hash512(content), hash256(content)} {
		b.n.Store(0)
		r := at(t, s, "/")
		r.Hash = want
		var dst resettable
		if n, err := impatient().Copy(t.Context(), r, &dst); err != nil || n != int64(len(content)) || !bytes.Equal(dst.Bytes(), content) || dst.resets != 2 {
			t.Errorf("%d bytes, %d resets, %v", n, dst.resets, err)
		}
		r.Hash.Sum = bytes.Repeat([]byte{7}, len(want.Sum))
		_, err := impatient().Bytes(t.Context(), r)
		quietError(t, err)
		if !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), strings.Repeat("07", len(want.Sum))+", got "+want.String()[7:]) {
			t.Errorf("%v", err)
		}
		if _, err := impatient().Copy(t.Context(), r, &failing{2 << 20}); !errors.Is(err, errFull) {
			t.Errorf("%v", err)
		}
	}
	s.CloseClientConnections()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestContentEncoding: what a server does to a body unasked is not undone, and is
// told where it matters.
func TestContentEncoding(t *testing.T) {
	content := []byte("content")
	packed := gz(t, content)
	for _, tt := range []struct {
		says  string // Content-Encoding
		asked bool   // by the resource's own header
		c     Compression
		told  string // "" for nothing
	}{
		{"gzip", false, None, "Content-Encoding gzip, which"},
		{"X-Gzip", false, None, "Content-Encoding x-gzip, which"},
		{canary, false, None, "Content-Encoding of another kind, which"},
		{"identity", false, None, ""},
		{"gzip", true, None, ""},
		{"gzip", false, Gzip, ""},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", tt.says)
			w.Write(packed)
		})
		r := at(t, s, "/")
		r.Compression = tt.c
		if tt.asked {
			r.Headers = append(r.Headers, Header{"accept-encoding", NewSecret("gzip")})
		}
		var lines []string
		c := impatient()
		c.Tell = func(line string) { lines = append(lines, line) }
		want := packed
		if tt.c == Gzip {
			want = content
		}
		if got, err := c.Bytes(t.Context(), r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v", tt.says, got, err)
		}
		told := strings.Join(lines, "\n")
		quiet(t, told)
		if (told == "") != (tt.told == "") || !strings.Contains(told, tt.told) {
			t.Errorf("%s: told %q", tt.says, told)
		}
		if tt.c == None {
			r.Hash = hash256(content)
			_, err := c.Bytes(t.Context(), r)
			quietError(t, err)
			if !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), tt.told) {
				t.Errorf("%s: %v", tt.says, err)
			}
		}
	}
}
