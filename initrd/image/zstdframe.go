package image

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// zstdFrame reads one frame of RFC 8878 and not a byte more. A decoder reads ahead, into whatever archive follows, so
// it must be told where the frame ends; the sizes of its blocks say so.
type zstdFrame struct {
	r        *bufio.Reader
	begun    bool
	last     bool // the block at hand is the last
	checksum bool
	head     []byte // of the frame or a block, still to be handed out
	body     int64  // of a block, the same
	done     bool
}

func (z *zstdFrame) Read(b []byte) (int, error) {
	for len(z.head) == 0 && z.body == 0 {
		if z.done {
			return 0, io.EOF
		}
		if err := z.next(); err != nil {
			return 0, err
		}
	}
	if len(z.head) > 0 {
		n := copy(b, z.head)
		z.head = z.head[n:]
		return n, nil
	}
	if int64(len(b)) > z.body {
		b = b[:z.body]
	}
	n, err := z.r.Read(b)
	z.body -= int64(n)
	if err != nil {
		return n, noEOF(err)
	}
	return n, nil
}

// next finds out what comes after what was handed out.
func (z *zstdFrame) next() error {
	switch {
	case !z.begun:
		z.begun = true
		start, err := z.r.Peek(5)
		if err != nil {
			return noEOF(err)
		}
		descriptor := start[4]
		size := 5
		single := descriptor&(1<<5) != 0
		z.checksum = descriptor&(1<<2) != 0
		if !single {
			size++ // window
		}
		size += []int{0, 1, 2, 4}[descriptor&3]  // dictionary
		size += []int{0, 2, 4, 8}[descriptor>>6] // content size
		if single && descriptor>>6 == 0 {
			size++
		}
		z.head = make([]byte, size)
		_, err = io.ReadFull(z.r, z.head)
		return noEOF(err)
	case z.last:
		z.done = true
		if z.checksum {
			z.body = 4
		}
		return nil
	}
	z.head = make([]byte, 3)
	if _, err := io.ReadFull(z.r, z.head); err != nil {
		return noEOF(err)
	}
	block := binary.LittleEndian.Uint32(append(z.head[:3:3], 0))
	z.last = block&1 != 0
	switch kind := block >> 1 & 3; kind {
	case 0, 2: // raw, compressed
		z.body = int64(block >> 3)
	case 1: // one byte, repeated
		z.body = 1
	default:
		return fmt.Errorf("block of the reserved type %d", kind)
	}
	return nil
}
