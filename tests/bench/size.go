package main

import (
	"context"
	"os"

	"github.com/klauspost/compress/zstd"
)

// most is what the stripped program is to have, in bytes.
const most = 11e6

// size compares the program with one that only links what was chosen for it, as it is and
// as an initrd holds it.
func size(_ context.Context, w *workshop) ([]row, error) {
	w.log.Printf("size")
	var plain, packed [2]int64
	for i, program := range []string{w.program, w.packages} {
		data, err := os.ReadFile(program)
		if err != nil {
			return nil, err
		}
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		if err != nil {
			return nil, err
		}
		plain[i], packed[i] = int64(len(data)), int64(len(z.EncodeAll(data, nil)))
		if err := z.Close(); err != nil {
			return nil, err
		}
	}
	stripped := sized("size, stripped", "the chosen packages alone", plain[0], plain[1], most/float64(plain[1]))
	info, err := os.Stat(w.peer)
	if err != nil {
		return nil, err
	}
	stripped.Peer = float64(info.Size()) / 1e6
	stripped.PeerRatio = stripped.Peer / stripped.Floor
	return []row{
		stripped,
		sized("size, zstd", "the chosen packages alone", packed[0], packed[1], 0),
	}, nil
}
