package resource

import (
	"fmt"
	"sync"
	"time"
)

// narrator tells people about one fetch that takes long.
type narrator struct {
	tell  func(string)
	what  string
	start time.Time
	end   chan struct{}
	ended sync.WaitGroup

	mu      sync.Mutex
	state   string
	bytes   int64
	total   int64 // of the body, -1 if not known
	inBody  bool
	told    bool // the first failure
	telling sync.Mutex
}

// narrate starts to tell every 10 s until stop is called. It returns a narrator
// that does nothing if tell is nil.
func narrate(tell func(string), what string) *narrator {
	n := &narrator{tell: tell, what: what, start: time.Now(), end: make(chan struct{})}
	if tell == nil {
		return n
	}
	n.ended.Go(func() {
		ticker := time.NewTicker(tellEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				n.line()
			case <-n.end:
				return
			}
		}
	})
	return n
}

// stop returns when no line can follow.
func (n *narrator) stop() {
	close(n.end)
	n.ended.Wait()
}

// remark tells something that is no failure and does not last.
func (n *narrator) remark(text string) {
	if n.tell == nil {
		return
	}
	n.telling.Lock()
	defer n.telling.Unlock()
	n.tell(n.what + ": " + text)
}

func (n *narrator) line() {
	n.mu.Lock()
	text := n.state
	if n.inBody {
		text = size(n.bytes)
		if n.total >= 0 {
			text += " of " + size(n.total)
		}
	}
	n.mu.Unlock()
	n.telling.Lock()
	defer n.telling.Unlock()
	n.tell(fmt.Sprintf("%s: %s (%s so far)", n.what, text, time.Since(n.start).Round(100*time.Millisecond)))
}

// waiting: a request is out. failure is why there was one before.
func (n *narrator) waiting(try int, failure error) {
	text := fmt.Sprintf("try %d: waiting for an answer", try)
	if failure != nil {
		text += ", before that: " + failure.Error()
	}
	n.set(text)
}

// pausing: a try failed, and another follows after the pause.
func (n *narrator) pausing(try int, failure error, pause time.Duration) {
	n.set(fmt.Sprintf("try %d: %v; next try after %s", try, failure, pause.Round(10*time.Millisecond)))
	if n.tell != nil && !n.told {
		n.told = true
		n.line()
	}
}

// reading: a body arrives, from offset on, with length more bytes or -1.
func (n *narrator) reading(offset, length int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inBody, n.bytes, n.total = true, offset, -1
	if length >= 0 {
		n.total = offset + length
	}
}

func (n *narrator) read(bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bytes = bytes
}

func (n *narrator) set(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inBody, n.state = false, state
}
