package resource

import (
	"hash"
	"sync"
)

const (
	asideFrom    = 1 << 20 // content up to here is hashed before it is passed on
	asideBuffers = 3       // one is read into, one is hashed, one is on its way
)

// digest hashes content on its way, and lends the buffers that it is read into.
// From the second MiB on a goroutine hashes while the next bytes are read:
// SHA-512 is slower than many a network, and the two should not add up.
type digest struct {
	state  hash.Hash // nil: nothing is hashed
	buffer []byte    // as long as nobody else reads it
	n      int

	full, free chan []byte // both nil before there is a goroutine
	ended      sync.WaitGroup
}

// newDigest hashes for h, or lends buffers only if h is none. Its stop must be
// called.
func newDigest(h Hash, chunk int) *digest {
	d := &digest{buffer: make([]byte, chunk)}
	if !h.IsZero() {
		d.state = h.state()
	}
	return d
}

// lend gives a buffer to read into. It is valid until the next lend.
func (d *digest) lend() []byte {
	if d.free == nil {
		return d.buffer
	}
	return <-d.free
}

// took says how many bytes of the lent buffer were filled. They must not change
// until the next lend.
func (d *digest) took(lent []byte, n int) {
	switch {
	case d.full != nil:
		// A buffer has to come back even if nothing is in it.
		d.full <- lent[:n]
	case d.state != nil:
		d.state.Write(lent[:n])
		if d.n += n; d.n > asideFrom {
			d.begin()
		}
	}
}

// begin hands over to the goroutine.
func (d *digest) begin() {
	d.full, d.free = make(chan []byte, asideBuffers), make(chan []byte, asideBuffers)
	d.free <- d.buffer
	for range asideBuffers - 1 {
		d.free <- make([]byte, len(d.buffer))
	}
	d.ended.Go(func() {
		for b := range d.full {
			d.state.Write(b)
			d.free <- b[:cap(b)]
		}
	})
}

// stop ends the goroutine, after which the state has all that was taken.
func (d *digest) stop() {
	if d.full != nil {
		close(d.full)
		d.ended.Wait()
		d.full, d.free = nil, nil
	}
}
