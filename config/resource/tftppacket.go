package resource

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
)

// The packets of TFTP (RFC 1350, section 5; RFC 2347).
const (
	tftpRead    = 1
	tftpData    = 3
	tftpAck     = 4
	tftpErr     = 5
	tftpOptions = 6

	tftpHead       = 4 // bytes before the data of a block
	tftpPacketMost = 64 << 10
)

// What is asked for in each request. A server that knows no options sends blocks
// of 512 bytes, one at a time.
const (
	tftpPlain  = 512
	tftpBlock  = 1428 // with all headers within what Ethernet carries in one packet (RFC 2348)
	tftpWindow = 32   // blocks under way at once (RFC 7440); one at a time costs a round trip each
)

const notTFTP reason = "no valid TFTP answer"

// tftpError is what a server says in place of the file: a code of RFC 1350. The text
// beside it is not looked at.
type tftpError uint16

func (e tftpError) Error() string { return "TFTP error " + strconv.Itoa(int(e)) }

// status is that of HTTP which means the same.
func (e tftpError) status() int {
	switch e {
	case 1: // file not found
		return http.StatusNotFound
	case 0, 3, 5: // not defined; disk full; unknown transfer ID
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

// tftpRequest asks for a file, with what we wish for or without.
func tftpRequest(name string, options bool) []byte {
	b := binary.BigEndian.AppendUint16(nil, tftpRead)
	words := []string{name, "octet"}
	if options {
		words = append(words, "tsize", "0", "blksize", strconv.Itoa(tftpBlock), "timeout", "1", "windowsize", strconv.Itoa(tftpWindow))
	}
	for _, word := range words {
		b = append(append(b, word...), 0)
	}
	return b
}

func tftpAcknowledge(block uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tftpAck), block)
}

// tftpStop tells a server that nobody waits any more.
func tftpStop(code uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, tftpErr)
	return append(binary.BigEndian.AppendUint16(b, code), 0)
}

// tftpAgreed is what a server takes of what it was asked for.
type tftpAgreed struct {
	block, window int
	total         int64 // of the file, -1 if it does not say
}

// tftpOACK reads an acknowledgement of options without its first two bytes. A server may
// only take what it was offered, or less.
func tftpOACK(b []byte) (tftpAgreed, error) {
	agreed := tftpAgreed{tftpPlain, 1, -1}
	if len(b) == 0 {
		return agreed, nil // of nothing, as atftpd says it
	}
	if b[len(b)-1] != 0 {
		return agreed, notTFTP
	}
	words := bytes.Split(b[:len(b)-1], []byte{0})
	if len(words)%2 != 0 {
		return agreed, notTFTP
	}
	for i := 0; i < len(words); i += 2 {
		n, err := strconv.ParseInt(string(words[i+1]), 10, 64)
		bad := err != nil
		switch strings.ToLower(string(words[i])) {
		case "blksize":
			agreed.block = int(n)
			bad = bad || n < 8 || n > tftpBlock
		case "windowsize":
			agreed.window = int(n)
			bad = bad || n < 1 || n > tftpWindow
		case "tsize":
			agreed.total = n
			bad = bad || n < 0
		case "timeout":
		default:
			bad = true
		}
		if bad {
			return agreed, notTFTP
		}
	}
	return agreed, nil
}
