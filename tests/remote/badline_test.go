package remote_test

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// A badLine stands between TFTP clients and a server: of the packets in either direction it
// loses some, repeats some, and holds some back until the next one has gone.
type badLine struct {
	t      *testing.T
	server string
	front  *net.UDPConn
	ended  sync.WaitGroup

	mu                sync.Mutex
	dice              *rand.Rand
	open              []*net.UDPConn
	lost, twice, late int
}

func newBadLine(t *testing.T, server string) *badLine {
	t.Helper()
	l := &badLine{t: t, server: server, dice: rand.New(rand.NewPCG(4, 2))}
	l.front = l.socket()
	l.ended.Go(l.requests)
	t.Cleanup(l.close)
	return l
}

func (l *badLine) socket() *net.UDPConn {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.t.Error(err)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, c)
	return c
}

func (l *badLine) close() {
	l.mu.Lock()
	for _, c := range l.open {
		c.Close()
	}
	l.open = nil
	l.mu.Unlock()
	l.ended.Wait()
}

// requests begins a transfer for each request: with ports of its own on both sides, as at
// a server.
func (l *badLine) requests() {
	buffer := make([]byte, 64<<10)
	for {
		n, client, err := l.front.ReadFromUDP(buffer)
		if err != nil {
			return
		}
		server, err := net.ResolveUDPAddr("udp", l.server)
		if err != nil {
			l.t.Error(err)
			return
		}
		near, far := l.socket(), l.socket()
		if near == nil || far == nil {
			return
		}
		var mu sync.Mutex
		peer := server // until it answers from another port
		l.ended.Go(func() {
			l.carry(near, func(b []byte, _ *net.UDPAddr) {
				mu.Lock()
				defer mu.Unlock()
				_, _ = far.WriteToUDP(b, peer)
			})
		})
		l.ended.Go(func() {
			l.carry(far, func(b []byte, from *net.UDPAddr) {
				mu.Lock()
				peer = from
				mu.Unlock()
				_, _ = near.WriteToUDP(b, client)
			})
		})
		_, _ = far.WriteToUDP(buffer[:n], server)
	}
}

// carry hands on what comes, more or less.
func (l *badLine) carry(from *net.UDPConn, to func([]byte, *net.UDPAddr)) {
	var held []byte
	buffer := make([]byte, 64<<10)
	for {
		n, sender, err := from.ReadFromUDP(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		luck := l.dice.IntN(100)
		switch {
		case luck < 4:
			l.lost++
		case luck < 8:
			l.twice++
		case luck < 12:
			l.late++
		}
		l.mu.Unlock()
		switch {
		case luck < 4:
			continue
		case luck >= 8 && luck < 12 && held == nil:
			held = append([]byte(nil), buffer[:n]...)
			continue
		case luck < 8:
			to(buffer[:n], sender)
		}
		to(buffer[:n], sender)
		if held != nil {
			to(held, sender)
			held = nil
		}
	}
}
