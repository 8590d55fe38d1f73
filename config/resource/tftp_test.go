package resource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func FuzzTFTPOptions(f *testing.F) {
	for _, s := range []string{"", "tsize\x0010\x00", "blksize\x001428\x00windowsize\x0032\x00", "BLKSIZE\x008\x00", "blksize\x007\x00", "blksize\x001429\x00", "windowsize\x000\x00", "windowsize\x0033\x00",
		"tsize\x00-1\x00", "timeout\x001\x00", "multicast\x00x\x00", "tsize", "tsize\x00", "tsize\x001", "\x00\x00", "tsize\x0099999999999999999999\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		agreed, err := tftpOACK(slices.Clone(b))
		if err != nil {
			if err != notTFTP {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if agreed.block < 8 || agreed.block > tftpBlock || agreed.window < 1 || agreed.window > tftpWindow || agreed.total < -1 {
			t.Fatalf("%q: %+v", b, agreed)
		}
	})
}

func TestTFTPOptions(t *testing.T) {
	for _, tt := range []struct {
		text string
		want tftpAgreed
		kind error
	}{
		{"", tftpAgreed{512, 1, -1}, nil},
		{"tsize\x0010\x00blksize\x001024\x00WindowSize\x004\x00timeout\x001\x00", tftpAgreed{1024, 4, 10}, nil},
		{"blksize\x001429\x00", tftpAgreed{}, notTFTP},
		{"windowsize\x0033\x00", tftpAgreed{}, notTFTP},
		{"tsize\x00", tftpAgreed{}, notTFTP},
		{"tsize\x001", tftpAgreed{}, notTFTP},
		{"rollover\x001\x00", tftpAgreed{}, notTFTP},
	} {
		got, err := tftpOACK([]byte(tt.text))
		if err != tt.kind || err == nil && got != tt.want {
			t.Errorf("%q: %+v, %v", tt.text, got, err)
		}
	}
	// What is asked for is what may be agreed on.
	request := tftpRequest("name", true)
	options := request[len(tftpRequest("name", false)):]
	if _, err := tftpOACK(options); err != nil {
		t.Errorf("%q cannot be agreed on: %v", options, err)
	}
}

// udp is a socket on loopback.
func udp(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// FuzzTFTPBlocks takes blocks in any order. What comes out of it is the file, from its
// first byte on, however much of it.
func FuzzTFTPBlocks(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4}, uint16(0), 1)
	f.Add([]byte{1, 3, 2, 2, 3, 1, 4, 5}, uint16(65530), 4)
	f.Add([]byte{9, 8, 7, 1, 2, 0, 255}, uint16(65535), 32)
	conn, sink := udp(f), udp(f)
	to, err := netip.ParseAddrPort(sink.LocalAddr().String())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, order []byte, begin uint16, window int) {
		x := &tftpTransfer{ctx: t.Context(), conn: conn, server: to, peer: to, last: begin, tftpAgreed: tftpAgreed{8, 1 + (window&31+32)%32, -1}}
		content := func(block uint16) []byte {
			return append([]byte("block "), byte(block>>8), byte(block))
		}
		next := begin + 1
		for _, ahead := range order {
			block := begin + uint16(ahead)
			more, err := x.take(block, content(block))
			if err != nil {
				t.Fatal(err)
			}
			if more != (block == next) || more && !bytes.Equal(x.data, content(next)) {
				t.Fatalf("block %d where %d comes next: taken %v, %q", block, next, more, x.data)
			}
			if more {
				next++
			}
			if x.since >= x.window || x.last != next-1 {
				t.Fatalf("%d blocks not acknowledged with a window of %d, last %d", x.since, x.window, x.last)
			}
		}
	})
}

// TestTFTPStrangeServers fetches from servers that Debian does not have.
func TestTFTPStrangeServers(t *testing.T) {
	data := func(block uint16, text string) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{0, tftpData}, block), text...)
	}
	refusal := func(code byte) []byte { return []byte{0, tftpErr, 0, code, 'x', 0} }
	for _, tt := range []struct {
		name    string
		answers [][]byte // to the packets that come, one each; nil is none
		want    string
		kind    error
		says    string
	}{
		{"no options known, and said so", [][]byte{refusal(8), data(1, "text")}, "text", nil, ""},
		{"options taken amiss", [][]byte{refusal(4), data(1, "text")}, "text", nil, ""},
		{"not found", [][]byte{refusal(1)}, "", ErrNotFound, "no such file"},
		{"refused", [][]byte{refusal(2)}, "", ErrRefused, "does not give it"},
		{"not now, and later", [][]byte{refusal(0), refusal(0), data(1, "text")}, "text", nil, ""},
		{"nothing, and then an answer", [][]byte{nil, data(1, "text")}, "text", nil, ""},
		{"more than was asked for", [][]byte{[]byte("\x00\x06blksize\x009999\x00"), nil, data(1, "text")}, "text", nil, ""},
		{"another length than was said", [][]byte{[]byte("\x00\x06tsize\x0099\x00"), data(1, "text"), nil, data(1, "text")}, "text", nil, ""},
		{"a block that is too long", [][]byte{data(1, strings.Repeat("x", 513)), nil, data(1, "text")}, "text", nil, ""},
		{"no packet of TFTP", [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n"), nil, data(1, "text")}, "text", nil, ""},
		{"a packet that is cut short", [][]byte{{0}, data(1, "text")}, "text", nil, ""},
		{"broken off", [][]byte{data(1, strings.Repeat("x", 512)), refusal(0), data(1, "text")}, "text", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := udp(t)
			go func() {
				b := make([]byte, 1<<10)
				for i := 0; ; i++ {
					_, from, err := server.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					if i < len(tt.answers) && tt.answers[i] != nil {
						_, _ = server.WriteToUDPAddrPort(tt.answers[i], from)
					}
				}
			}()
			c := impatient()
			begin := time.Now()
			got, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "tftp://"+server.LocalAddr().String()+"/"+canary)})
			if !errors.Is(err, tt.kind) || string(got) != tt.want || err != nil && !strings.Contains(err.Error(), tt.says) || time.Since(begin) > 8*time.Second {
				t.Errorf("%q, %v after %v", got, err, time.Since(begin))
			}
		})
	}
}
