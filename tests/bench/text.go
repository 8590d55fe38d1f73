package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
)

// text compares a config of 5 MB, nearly all of it the contents of files, with parsing its
// JSON once: it goes through two processes, each of which reads it whole.
func text(ctx context.Context, w *workshop) ([]row, error) {
	w.log.Printf("a config of 5 MB")
	const many, bytesEach = 500, 7500
	random := rand.NewChaCha8([32]byte{2})
	body := make([]byte, bytesEach)
	files := make([]wanted, many)
	for i := range files {
		random.Read(body)
		files[i] = wanted{path: fmt.Sprintf("/etc/many/%04d", i), source: "data:;base64," + base64.StdEncoding.EncodeToString(body)}
	}
	config := filepath.Join(w.memory, "text.ign")
	if err := writeConfig(config, files); err != nil {
		return nil, err
	}
	var our, their staged
	ours, peer := our.run(ctx, w, w.ignition, config, w.memory), their.run(ctx, w, w.peer, config, w.memory)
	s, err := alternate(ctx, 11, ours, func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.reader, config), nil }, peer)
	if err != nil {
		return nil, err
	}
	// 100 ms, where the JSON takes 20.
	r, err := w.against(timed("fetch and files, 5 MB in 500 files", "its JSON parsed once, by Go", s[0], s[1], 5), s[2], ours, peer)
	if err != nil {
		return nil, err
	}
	for _, st := range []*staged{&our, &their} {
		if err := st.done(files, bytesEach); err != nil {
			return nil, err
		}
	}
	return []row{r}, nil
}
