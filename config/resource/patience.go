package resource

import (
	"context"
	"sync"
	"time"
)

// patience is a context that ends when a span has passed in which nothing new came.
// Its deadline moves with each progress.
type patience struct {
	context.Context
	span time.Duration
	done chan struct{}

	mu    sync.Mutex
	until time.Time
	timer *time.Timer
	err   error
}

// newPatience begins to wait. stop must be called.
func newPatience(parent context.Context, span time.Duration) (p *patience, stop func()) {
	p = &patience{Context: parent, span: span, done: make(chan struct{}), until: time.Now().Add(span)}
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

// progress says that something new came.
func (p *patience) progress() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.until = time.Now().Add(p.span)
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
