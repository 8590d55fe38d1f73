package resource

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// A packet that nothing answers is sent again after tftpFirst, then after twice as long
// each time, tftpTries times in all.
const (
	tftpFirst = time.Second
	tftpTries = 5
	tftpFill  = 100 * time.Millisecond // one Read gathers blocks no longer than that
)

const (
	tftpSilent reason = "the TFTP server does not answer any more"
	tftpBroken reason = "the TFTP server broke the transfer off"
)

// tftpTransfer is one file on its way.
type tftpTransfer struct {
	ctx    context.Context
	conn   *net.UDPConn
	forget func() bool
	server netip.AddrPort // where requests go
	peer   netip.AddrPort // where the transfer comes from; zero before the first answer

	tftpAgreed
	in, out []byte // room for a packet; the packet to be sent when nothing comes
	last    uint16 // the latest block that came in order
	got     int64  // bytes
	since   int    // blocks since one was acknowledged
	missed  bool   // what follows last was asked for again
	data    []byte // what came and is not read yet
	done    bool   // the last block is here
	err     error
}

// begin asks for a file until there is a first answer: options, a block, or an error.
func (x *tftpTransfer) begin(name string) error {
	err := x.request(name, true)
	if e, ok := errors.AsType[tftpError](err); ok && e != 1 && e != 2 {
		// An old server may take the options amiss, in whatever words.
		return x.request(name, false)
	}
	return err
}

func (x *tftpTransfer) request(name string, options bool) error {
	x.peer, x.tftpAgreed, x.done = netip.AddrPort{}, tftpAgreed{tftpPlain, 1, -1}, false
	if err := x.send(tftpRequest(name, options)); err != nil {
		return err
	}
	return x.step()
}

// send sends a packet, and keeps it to be sent again.
func (x *tftpTransfer) send(packet []byte) error {
	x.out = packet
	to := x.peer
	if !to.IsValid() {
		to = x.server
	}
	_, err := x.conn.WriteToUDPAddrPort(packet, to)
	return err
}

// step waits for one thing more: the answer to a request, or the next block in order.
func (x *tftpTransfer) step() error {
	wait := tftpFirst
	for try := 1; ; {
		until := time.Now().Add(wait)
		more, err := false, error(nil)
		for err == nil && !more {
			more, err = x.receive(until)
		}
		switch {
		case err == nil:
			return nil
		case x.ctx.Err() != nil:
			return x.ctx.Err()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case try == tftpTries:
			return tftpSilent
		}
		try, wait = try+1, 2*wait
		x.since, x.missed = 0, false
		if err := x.send(x.out); err != nil {
			return err
		}
	}
}

// receive takes one packet, and says whether it was the one that was waited for.
func (x *tftpTransfer) receive(until time.Time) (bool, error) {
	if err := x.conn.SetReadDeadline(until); err != nil {
		return false, err
	}
	if x.ctx.Err() != nil {
		return false, x.ctx.Err() // it ended before the deadline was set, and nothing else ends the read
	}
	n, from, err := x.conn.ReadFromUDPAddrPort(x.in)
	if err != nil {
		return false, err
	}
	switch {
	case from.Addr().Unmap().WithZone("") != x.server.Addr().Unmap().WithZone(""):
		return false, nil // a stranger
	case x.peer.IsValid() && from != x.peer:
		// Another transfer, as of a request that was sent twice.
		_, err := x.conn.WriteToUDPAddrPort(tftpStop(5), from)
		return false, err
	case n < 2 || n < tftpHead && binary.BigEndian.Uint16(x.in) != tftpOptions:
		return false, nil
	}
	first := !x.peer.IsValid()
	x.peer = from
	p := x.in[:n]
	switch binary.BigEndian.Uint16(p) {
	case tftpErr:
		said := tftpError(binary.BigEndian.Uint16(p[2:]))
		x.done = true // nobody has to be told that we stop
		if first {
			return false, said
		}
		return false, tftpBroken
	case tftpOptions:
		if !first {
			// Our acknowledgement was lost.
			if x.last == 0 && x.got == 0 {
				return false, x.send(x.out)
			}
			return false, nil
		}
		x.tftpAgreed, err = tftpOACK(p[2:])
		if err != nil {
			x.done = true
			_, _ = x.conn.WriteToUDPAddrPort(tftpStop(8), from)
			return false, err
		}
		return true, x.send(tftpAcknowledge(0))
	case tftpData:
		return x.take(binary.BigEndian.Uint16(p[2:]), p[tftpHead:])
	}
	return false, notTFTP
}

// take looks at a block. Numbers go on with 0 after 65535.
func (x *tftpTransfer) take(block uint16, data []byte) (bool, error) {
	if len(data) > x.block {
		return false, notTFTP
	}
	switch ahead := block - x.last; {
	case ahead == 1:
		x.last, x.data, x.got, x.missed = block, data, x.got+int64(len(data)), false
		x.since++
		x.done = len(data) < x.block
		if x.done && x.total >= 0 && x.got != x.total {
			return false, brokenOff
		}
		if x.done || x.since == x.window {
			x.since = 0
			return true, x.send(tftpAcknowledge(block))
		}
		x.out = tftpAcknowledge(block)
		return true, nil
	case ahead > 1 && int(ahead) <= x.window:
		// One was lost: the server begins again behind the one that is acknowledged. Said
		// once, or each block of this window would bring the whole window again.
		if x.missed {
			return false, nil
		}
		x.missed, x.since = true, 0
		return false, x.send(tftpAcknowledge(x.last))
	case ahead == 0 && x.since == 0 && x.last != 0:
		// The acknowledgement was lost.
		return false, x.send(tftpAcknowledge(x.last))
	}
	return false, nil
}

func (x *tftpTransfer) Read(b []byte) (int, error) {
	n := 0
	for begin := time.Now(); n < len(b); {
		if len(x.data) == 0 {
			switch {
			case x.err != nil || x.done:
				if n > 0 {
					return n, nil
				}
				if x.err != nil {
					return 0, x.err
				}
				return 0, io.EOF
			case n > 0 && time.Since(begin) > tftpFill:
				return n, nil
			}
			x.err = x.step()
			continue
		}
		m := copy(b[n:], x.data)
		n, x.data = n+m, x.data[m:]
	}
	return n, nil
}

// Close ends the transfer, and tells the server so if it still sends.
func (x *tftpTransfer) Close() error {
	x.forget()
	if !x.done && x.peer.IsValid() {
		_, _ = x.conn.WriteToUDPAddrPort(tftpStop(0), x.peer)
	}
	return x.conn.Close()
}
