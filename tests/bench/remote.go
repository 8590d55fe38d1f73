package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// remote compares many small files from a server that is far away with curl.
func remote(ctx context.Context, w *workshop) (rows []row, err error) {
	w.log.Printf("remote files")
	const many = 200
	o, err := serve(chunk, 20*time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.stop()) }()

	files := make([]wanted, many)
	var list strings.Builder
	for i := range files {
		name := fmt.Sprintf("%04d", i)
		files[i] = wanted{path: "/etc/many/" + name, source: o.url + "/" + name, hash: o.hash}
		fmt.Fprintf(&list, "url = \"%s/%s\"\noutput = \"%s\"\n", o.url, name, name)
	}
	config, urls := filepath.Join(w.memory, "remote.ign"), filepath.Join(w.memory, "urls")
	if err := writeConfig(config, files); err != nil {
		return nil, err
	}
	if err := os.WriteFile(urls, []byte(list.String()), 0o600); err != nil {
		return nil, err
	}
	last := ""
	ours := func(int) (cmd *exec.Cmd, err error) {
		cmd, last, err = w.apply(ctx, config, w.memory)
		return cmd, err
	}
	var their staged
	peer := their.run(ctx, w, w.peer, config, w.memory)
	s, err := alternate(ctx, 11, ours,
		func(int) (*exec.Cmd, error) {
			dir, err := os.MkdirTemp(w.memory, "curl-")
			return exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--noproxy", "*",
				"--parallel", "--parallel-max", "50", "--output-dir", dir, "--config", urls), err
		}, peer)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(present(last, files, chunk), their.done(files, chunk)); err != nil {
		return nil, err
	}
	many200, err := w.against(timed("apply, 200 files of 64 KiB, 20 ms", "curl --parallel-max 50", s[0], s[1], 1.3), s[2], ours, peer)
	if err != nil {
		return nil, err
	}
	configs, err := merged(ctx, w)
	return []row{many200, configs}, err
}
