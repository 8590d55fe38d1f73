package resource

import (
	"context"
	"sync"
	"time"
)

// slowest is how many new bytes a second are progress, on average over a span.
// The slowest line that anybody boots over has more; a server that lets a byte
// drop now and then has less, and would otherwise be waited for without an end.
const slowest = 1 << 10

// patience is a context that ends when a span has passed in which nothing new came,
// or next to nothing. Its deadline moves with the progress.
type patience struct {
	context.Context
	span   time.Duration
	enough int64 // bytes that are worth another span
	done   chan struct{}

	mu    sync.Mutex
	came  int64 // bytes since the span began
	until time.Time
	timer *time.Timer
	err   error
}

// newPatience begins to wait. stop must be called.
func newPatience(parent context.Context, span time.Duration) (p *patience, stop func()) {
	p = &patience{Context: parent, span: span, enough: int64(slowest * span.Seconds()), done: make(chan struct{}), until: time.Now().Add(span)}
	p.timer = time.AfterFunc(span, func() { p.end(context.DeadlineExceeded) })
	forget := context.AfterFunc(parent, func() { p.end(parent.Err()) })
	return p, func() {
		forget()
		p.end(context.Canceled)
	}
}

func (p *patience) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.timer.Stop()
		close(p.done)
	}
}

// progress says that so many new bytes came.
func (p *patience) progress(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.came += n; p.err == nil && p.came >= p.enough {
		p.came, p.until = 0, time.Now().Add(p.span)
		p.timer.Reset(p.span)
	}
}

func (p *patience) Done() <-chan struct{} { return p.done }

func (p *patience) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *patience) Deadline() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, ok := p.Context.Deadline(); ok && d.Before(p.until) {
		return d, true
	}
	return p.until, true
}
