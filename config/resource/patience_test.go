package resource

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// drip is a body that yields some bytes after each pause, so many times.
type drip struct {
	pause time.Duration
	left  int
	bytes int
}

func (d *drip) Read(b []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(d.pause)
	d.left--
	return copy(b, make([]byte, d.bytes)), nil
}

func (d *drip) Close() error { return nil }

// half is a server that breaks off at the same place each time, and never lets a
// transfer go on where it ended.
func half(*http.Request) (*http.Response, error) {
	time.Sleep(time.Second)
	body := io.MultiReader(bytes.NewReader(make([]byte, 10)), cutOff{})
	return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: 20, Body: io.NopCloser(body)}, nil
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestPatience(t *testing.T) {
	source, err := ParseURL("http://server.example/x")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		transport roundTrip
		patience  time.Duration
		err       error
		took      time.Duration // at the least and, within a half more, at the most
	}{
		"slow but going on": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: 30 * 30 << 10, Body: &drip{20 * time.Second, 30, 30 << 10}}, nil
		}, time.Minute, nil, 10 * time.Minute},
		"dribbles without an end": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: &drip{20 * time.Second, 1 << 30, 1 << 10}}, nil
		}, time.Minute, ErrUnreachable, 40 * time.Second},
		"breaks off at the same place": {half, time.Minute, ErrUnreachable, 30 * time.Second},
		"never answers": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, time.Minute, ErrUnreachable, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				c := &Client{Transport: tt.transport, Patience: tt.patience}
				var dst bytes.Buffer
				_, err := c.Copy(t.Context(), Resource{Source: source}, &dst)
				if !errors.Is(err, tt.err) {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if took := time.Since(begin); took < tt.took || took > tt.took*5/2 {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

func TestPatienceEndsWithItsParent(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	p, stop := newPatience(parent, time.Hour)
	defer stop()
	cancel()
	<-p.Done()
	if !errors.Is(p.Err(), context.Canceled) {
		t.Error(p.Err())
	}
	p.progress(1 << 20) // too late, and no harm
}
