package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener and the dial function to it, without the kernel, so that
// both sides live in the same bubble of fake time.
type pipes struct {
	conns chan net.Conn
	end   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.end); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inFakeTime runs f with a client of a server that answers with h.
func inFakeTime(t *testing.T, h http.HandlerFunc, f func(t *testing.T, c *Client, r Resource)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), end: make(chan struct{})}
		var served sync.WaitGroup
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			defer served.Done()
			h(w, r)
		})}
		served.Go(func() { server.Serve(p) })
		transport := NewTransport(TransportOptions{Dial: p.dial})
		c := &Client{Transport: transport, jitter: func(d time.Duration) time.Duration { return d }}
		f(t, c, Resource{Source: mustURL(t, "http://u:"+canary+"@h/x?q="+canary), Headers: []Header{{"X", NewSecret(canary)}}})
		transport.CloseIdleConnections()
		server.Close()
		served.Wait()
	})
}

func TestPauses(t *testing.T) {
	var begun time.Time
	var at []time.Duration
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		at = append(at, time.Since(begun))
		if len(at) < 9 {
			w.WriteHeader(500)
		}
	}, func(t *testing.T, c *Client, r Resource) {
		begun = time.Now()
		if _, err := c.Bytes(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		var pauses []time.Duration
		for i := range at[1:] {
			pauses = append(pauses, at[i+1]-at[i])
		}
		ms := time.Millisecond
		if want := []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms, 5000 * ms}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
	})
}

func TestJitter(t *testing.T) {
	var times []time.Time
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		times = append(times, time.Now())
		if len(times) < 200 {
			w.WriteHeader(500)
		}
	}, func(t *testing.T, c *Client, r Resource) {
		c.jitter = nil
		if _, err := c.Bytes(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		different := map[time.Duration]bool{}
		for i := range times[1:] {
			pause, full := times[i+1].Sub(times[i]), min(firstPause<<min(i, 10), longestPause)
			if pause < full/2 || pause >= full {
				t.Errorf("pause %d is %v, not within %v and %v", i, pause, full/2, full)
			}
			different[pause] = true
		}
		if len(different) < 100 {
			t.Errorf("%d different pauses of %d", len(different), len(times)-1)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		header string
		date   string // "" for the server's own
		want   time.Duration
	}{
		{"7", "", 7 * time.Second},
		{"0", "", 200 * time.Millisecond},
		{"-5", "", 200 * time.Millisecond},
		{"soon", "", 200 * time.Millisecond},
		{"Thu, 05 Nov 2026 10:00:30 GMT", "Thu, 05 Nov 2026 10:00:00 GMT", 30 * time.Second},
		{"Thu, 05 Nov 2026 10:00:00 GMT", "Thu, 05 Nov 2026 10:00:30 GMT", 200 * time.Millisecond},
		{"Sat, 01 Jan 2000 00:00:20 GMT", "", 20 * time.Second}, // fake time starts at 2000-01-01
		{"99999999999999999", "", 24 * time.Hour},
		{"Fri, 31 Dec 9999 00:00:00 GMT", "", 24 * time.Hour},
	} {
		for _, status := range []int{429, 503} {
			var times []time.Time
			inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
				if times = append(times, time.Now()); len(times) > 1 {
					return
				}
				if tt.date != "" {
					w.Header().Set("Date", tt.date)
				}
				w.Header().Set("Retry-After", tt.header)
				w.WriteHeader(status)
			}, func(t *testing.T, c *Client, r Resource) {
				if _, err := c.Bytes(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				if got := times[1].Sub(times[0]); got != tt.want {
					t.Errorf("%d with %q: pause %v, want %v", status, tt.header, got, tt.want)
				}
			})
		}
	}
}

// TestDeadline: whatever is wrong, the fetch ends by the deadline, says what it
// was, and begins no pause that nothing can follow.
func TestDeadline(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answer  http.HandlerFunc
		says    string
		status  int
		atLeast time.Duration
		limit   time.Duration
	}{
		{"errors", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) },
			"status 502 Bad Gateway until the deadline", 502, 60 * time.Second, 65 * time.Second},
		{"no answer", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"no answer in time until the deadline", 0, 60 * time.Second, 65 * time.Second},
		{"asked to come back too late", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "66")
			w.WriteHeader(429)
		}, "the server asks to come back after 1m6s", 429, 0, 65 * time.Second},
		{"stalled", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "the body stopped arriving until the deadline", 200, 65 * time.Second, 65 * time.Second},
		{"stalled at once", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "an answer without its body until the deadline", 200, 25 * time.Second, 25 * time.Second},
		{"too slow", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Second)
			}
		}, "only 7 B until the deadline", 200, 65 * time.Second, 65 * time.Second},
	} {
		for _, byContext := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, context %v", tt.name, byContext), func(t *testing.T) {
				inFakeTime(t, tt.answer, func(t *testing.T, c *Client, r Resource) {
					ctx := t.Context()
					if byContext {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.limit)
						defer cancel()
					} else {
						c.TotalTimeout = tt.limit
					}
					begun := time.Now()
					_, err := c.Bytes(ctx, r)
					took := time.Since(begun)
					quietError(t, err)
					if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("%v", err)
					}
					if e, ok := errors.AsType[*Error](err); !ok || e.Status != tt.status {
						t.Errorf("%#v", e)
					}
					if took > tt.limit || took < tt.atLeast {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// TestSlowHeader: a header that comes a byte at a time, or behind any number of
// provisional ones, is no answer in time.
func TestSlowHeader(t *testing.T) {
	for name, piece := range map[string]string{
		"bytes":       "x",
		"lines":       "X-Y: z\r\n",
		"provisional": "Z: z\r\n\r\nHTTP/1.1 103 Early Hints\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				io.WriteString(conn, "HTTP/1.1 103 "+canary+"\r\nX-Secret: "+canary)
				for err == nil {
					time.Sleep(3 * time.Second)
					_, err = io.WriteString(conn, piece)
				}
			}, func(t *testing.T, c *Client, r Resource) {
				c.Patience = time.Minute
				begun := time.Now()
				_, err := c.Bytes(t.Context(), r)
				quietError(t, err)
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), " until the deadline, ") || time.Since(begun) > c.Patience {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
				if name != "provisional" && !strings.Contains(err.Error(), "no answer in time") {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestHeaderTimeout: the wait for a header ends when it is said to, and does
// not end a body that takes longer.
func TestHeaderTimeout(t *testing.T) {
	var times []time.Duration
	var begun time.Time
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		times = append(times, time.Since(begun))
		if len(times) < 3 {
			<-r.Context().Done()
			return
		}
		time.Sleep(2900 * time.Millisecond)
		for range 10 {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(29 * time.Second)
		}
	}, func(t *testing.T, c *Client, r Resource) {
		c.ResponseHeaderTimeout = 3 * time.Second
		begun = time.Now()
		b, err := c.Bytes(t.Context(), r)
		if err != nil || string(b) != "xxxxxxxxxx" {
			t.Errorf("%q, %v", b, err)
		}
		if want := []time.Duration{0, 3200 * time.Millisecond, 6600 * time.Millisecond}; !slices.Equal(times, want) {
			t.Errorf("tries at %v, want %v", times, want)
		}
	})
}

// TestConnectTimeout has a transport that never gets through.
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{Transport: never{}, TotalTimeout: 5 * time.Minute}
		begun := time.Now()
		_, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "http://h/")})
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no connection in time until the deadline, 6 tries in 5m0s") {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); took < 4*time.Minute || took > 5*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

// TestLateAnswer has a transport that answers although its time is over.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		c := &Client{TotalTimeout: 3 * time.Minute, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			time.Sleep(51 * time.Second)
			return &http.Response{StatusCode: 200, Body: closing{&closed}}, nil
		})}
		_, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "http://h/")})
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no answer in time") || closed != 4 {
			t.Errorf("%v, %d bodies closed", err, closed)
		}
	})
}

// closing is an empty body that counts how often it is closed.
type closing struct{ n *int }

func (closing) Read([]byte) (int, error) { return 0, io.EOF }
func (c closing) Close() error           { *c.n++; return nil }

type never struct{}

func (never) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

// TestStall: a body that delivers nothing for 30 s is a failed try, at its
// start as in its middle. Time that the destination takes does not count.
func TestStall(t *testing.T) {
	var times []time.Duration
	var begun time.Time
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		times = append(times, time.Since(begun))
		switch len(times) {
		case 1:
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case 2:
			io.WriteString(w, "go")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			io.WriteString(w, "good")
		}
	}, func(t *testing.T, c *Client, r Resource) {
		var dst sleepy
		begun = time.Now()
		n, err := c.Copy(t.Context(), r, &dst)
		if err != nil || n != 4 || dst.text != "good" {
			t.Errorf("%d, %q, %v", n, dst.text, err)
		}
		// The destination's minute lies between the second and the third try.
		if want := []time.Duration{0, 30200 * time.Millisecond, 120600 * time.Millisecond}; !slices.Equal(times, want) {
			t.Errorf("tries at %v, want %v", times, want)
		}
	})
}

// sleepy takes a minute for each write.
type sleepy struct{ text string }

func (s *sleepy) Write(b []byte) (int, error) {
	time.Sleep(time.Minute)
	s.text += string(b)
	return len(b), nil
}

func (s *sleepy) Reset() { s.text = "" }

func TestTell(t *testing.T) {
	tries := 0
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries++; {
		case tries <= 8:
			w.WriteHeader(503)
		case tries == 9:
			<-r.Context().Done()
		default:
			w.Header().Set("Content-Length", "4096")
			for range 4 {
				io.WriteString(w, strings.Repeat(canary[:8], 128))
				w.(http.Flusher).Flush()
				time.Sleep(9 * time.Second)
			}
		}
	}, func(t *testing.T, c *Client, r Resource) {
		var mu sync.Mutex
		var lines []string
		var last time.Time
		c.Tell = func(line string) {
			mu.Lock()
			defer mu.Unlock()
			if !last.IsZero() && time.Since(last) > 10*time.Second {
				t.Errorf("%v of silence before %q", time.Since(last), line)
			}
			last = time.Now()
			quiet(t, line)
			lines = append(lines, line)
		}
		c.ResponseHeaderTimeout = 12 * time.Second
		if _, err := c.Bytes(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"http://h/x: try 1: status 503 Service Unavailable; next try after 200ms (0s so far)",
			"http://h/x: try 6: status 503 Service Unavailable; next try after 5s (10s so far)",
			"http://h/x: try 8: status 503 Service Unavailable; next try after 5s (20s so far)",
			"http://h/x: try 9: waiting for an answer, before that: status 503 Service Unavailable (30s so far)",
			"http://h/x: 1.0 KiB of 4.0 KiB (40s so far)",
			"http://h/x: 2.0 KiB of 4.0 KiB (50s so far)",
			"http://h/x: 3.0 KiB of 4.0 KiB (1m0s so far)",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		told := len(lines)
		time.Sleep(time.Hour)
		if len(lines) != told {
			t.Errorf("told after the end: %q", lines[told:])
		}
	})
}

func TestTellWithoutLength(t *testing.T) {
	inFakeTime(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		time.Sleep(11 * time.Second)
	}, func(t *testing.T, c *Client, r Resource) {
		var lines []string
		c.Tell = func(line string) { lines = append(lines, line) }
		if _, err := c.Bytes(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if want := []string{"http://h/x: 4 B (10s so far)"}; !slices.Equal(lines, want) {
			t.Errorf("told %q, want %q", lines, want)
		}
	})
}
