package main

import (
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// inflate compares a large file that is served compressed with gzip -dc of a local copy.
func inflate(ctx context.Context, w *workshop) (r row, err error) {
	w.log.Printf("a compressed file")
	const size = 128 << 20
	packed := filepath.Join(w.memory, "image.gz")
	hash, err := pack(packed, size)
	if err != nil {
		return row{}, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return row{}, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, packed) })}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() {
		err = errors.Join(err, s.Close(), os.Remove(packed))
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}()
	data, err := json.Marshal(map[string]any{
		"ignition": map[string]any{"version": "3.3.0"},
		"storage": map[string]any{"files": []any{map[string]any{"path": "/var/image", "contents": map[string]any{
			"source": "http://" + l.Addr().String() + "/", "compression": "gzip", "verification": map[string]string{"hash": hash},
		}}}},
	})
	if err != nil {
		return row{}, err
	}
	config, plain := filepath.Join(w.memory, "gzip.ign"), filepath.Join(w.memory, "image")
	if err := os.WriteFile(config, data, 0o600); err != nil {
		return row{}, err
	}
	root := ""
	out, err := os.Create(plain)
	if err != nil {
		return row{}, err
	}
	defer out.Close()
	var their staged
	peer := their.run(ctx, w, w.peer, config, w.memory)
	samples, err := alternate(ctx, 5,
		func(int) (cmd *exec.Cmd, err error) {
			if err := os.RemoveAll(their.dir); err != nil {
				return nil, err
			}
			// One at a time is there, or they would fill the memory.
			if err := errors.Join(os.RemoveAll(root), out.Truncate(0)); err != nil {
				return nil, err
			}
			cmd, root, err = w.apply(ctx, config, w.memory)
			return cmd, err
		},
		func(int) (*exec.Cmd, error) {
			if err := errors.Join(present(root, []wanted{{path: "/var/image"}}, size), os.RemoveAll(root)); err != nil {
				return nil, err
			}
			if _, err := out.Seek(0, io.SeekStart); err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, "gzip", "-dc", packed)
			cmd.Stdout = out
			return cmd, nil
		},
		func(n int) (*exec.Cmd, error) {
			if err := out.Truncate(0); err != nil {
				return nil, err
			}
			return peer(n)
		})
	if err != nil {
		return row{}, err
	}
	if err := errors.Join(os.RemoveAll(plain), os.RemoveAll(root)); err != nil {
		return row{}, err
	}
	ours := func(int) (cmd *exec.Cmd, err error) {
		cmd, root, err = w.apply(ctx, config, w.memory)
		return cmd, err
	}
	r, err = w.against(timed("apply, one gzip file of 128 MiB", "gzip -dc to the same tmpfs", samples[0], samples[1], 1), samples[2], ours, peer)
	return r, errors.Join(err, os.RemoveAll(root), os.RemoveAll(their.dir))
}

// pack writes size bytes, compressed as programs are (to about a half), and gives the
// hash of what they are plain.
func pack(name string, size int64) (string, error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, sum := gzip.NewWriter(f), sha512.New()
	dice := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+dice.IntN(9))
		for j := range words[i] {
			words[i][j] = byte(dice.Uint32())
		}
	}
	out := io.MultiWriter(z, sum)
	var block []byte
	for left := size; left > 0; left -= int64(len(block)) {
		block = block[:0]
		for len(block) < chunk {
			block = append(block, words[dice.IntN(len(words))]...)
		}
		block = block[:min(chunk, left)]
		if _, err := out.Write(block); err != nil {
			return "", err
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		return "", err
	}
	return "sha512-" + hex.EncodeToString(sum.Sum(nil)), nil
}
