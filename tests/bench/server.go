package main

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// origin is a web server on the loopback that answers each request late, with as many bytes
// as it was made for.
type origin struct {
	url  string // without a slash at its end
	hash string // of what it serves, as a config has it
	stop func() error
}

// chunk is what is served, again and again.
const chunk = 64 << 10

// serve starts an origin of size bytes, which is a multiple of chunk.
func serve(size int64, latency time.Duration) (*origin, error) {
	if size%chunk != 0 {
		return nil, errors.New("no multiple of a chunk")
	}
	data := make([]byte, chunk)
	random := rand.NewChaCha8([32]byte{1})
	if _, err := random.Read(data); err != nil {
		return nil, err
	}
	h := sha512.New()
	for range size / chunk {
		h.Write(data)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(latency):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		for range size / chunk {
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	return &origin{
		url:  "http://" + l.Addr().String(),
		hash: "sha512-" + hex.EncodeToString(h.Sum(nil)),
		stop: func() error {
			err := s.Close()
			if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
				err = errors.Join(err, served)
			}
			return err
		},
	}, nil
}
