package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// merged compares ten configs that a config merges, from a server that is far away, with
// one request to it.
func merged(ctx context.Context, w *workshop) (r row, err error) {
	w.log.Printf("merged configs")
	const many, latency = 10, 50 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return row{}, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(latency):
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, `{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/etc/merged%s", "contents": {"source": "data:,x"}}]}}`, r.URL.Path)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() {
		err = errors.Join(err, s.Close())
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}()
	url := "http://" + l.Addr().String()
	merge := make([]any, many)
	for i := range merge {
		merge[i] = map[string]string{"source": fmt.Sprintf("%s/%d", url, i)}
	}
	data, err := json.Marshal(map[string]any{"ignition": map[string]any{"version": "3.3.0", "config": map[string]any{"merge": merge}}})
	if err != nil {
		return row{}, err
	}
	config := filepath.Join(w.memory, "merge.ign")
	if err := os.WriteFile(config, data, 0o600); err != nil {
		return row{}, err
	}
	last := ""
	ours := func(int) (cmd *exec.Cmd, err error) {
		cmd, last, err = w.apply(ctx, config, w.memory)
		return cmd, err
	}
	var their staged
	peer := their.run(ctx, w, w.peer, config, w.memory)
	samples, err := alternate(ctx, 11, ours,
		func(int) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--output", "/dev/null", url+"/0"), nil
		}, peer)
	if err != nil {
		return row{}, err
	}
	made, err := filepath.Glob(filepath.Join(last, "etc/merged/*"))
	if err != nil || len(made) != many {
		return row{}, errors.Join(err, fmt.Errorf("%d of %d configs left a file", len(made), many))
	}
	return w.against(timed("apply, 10 merged configs, 50 ms", "curl of one of them", samples[0], samples[1], 1.3), samples[2], ours, peer)
}
