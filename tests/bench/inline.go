package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// wanted is a file of a config.
type wanted struct {
	path, source, hash string
}

// writeConfig writes an Ignition config of files.
func writeConfig(name string, files []wanted) error {
	list := make([]any, len(files))
	for i, f := range files {
		contents := map[string]any{"source": f.source}
		if f.hash != "" {
			contents["verification"] = map[string]any{"hash": f.hash}
		}
		list[i] = map[string]any{"path": f.path, "mode": 0o644, "contents": contents}
	}
	data, err := json.Marshal(map[string]any{
		"ignition": map[string]any{"version": "3.3.0"}, "storage": map[string]any{"files": list},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}

// apply is pilotlight apply into a new directory below dir.
func (w *workshop) apply(ctx context.Context, config, dir string) (*exec.Cmd, string, error) {
	root, err := os.MkdirTemp(dir, "root-")
	return exec.CommandContext(ctx, w.program, "apply", "--config", config, "--root", root), root, err
}

// inline compares files whose contents are in the config with a start, and with tar.
func inline(ctx context.Context, w *workshop) ([]row, error) {
	w.log.Printf("inline files")
	const many, bytesEach = 1000, 300
	text := strings.Repeat("x", bytesEach)
	files := make([]wanted, many)
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for i := range files {
		path := fmt.Sprintf("/etc/many/%04d", i)
		files[i] = wanted{path: path, source: "data:," + text}
		if err := tw.WriteHeader(&tar.Header{Name: "." + path, Mode: 0o644, Size: bytesEach}); err != nil {
			return nil, err
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	one, all, packed := filepath.Join(w.memory, "one.ign"), filepath.Join(w.memory, "many.ign"), filepath.Join(w.memory, "many.tar")
	if err := os.WriteFile(packed, archive.Bytes(), 0o600); err != nil {
		return nil, err
	}
	if err := writeConfig(one, files[:1]); err != nil {
		return nil, err
	}
	if err := writeConfig(all, files); err != nil {
		return nil, err
	}
	last := ""
	ours := func(config string) trial {
		return func(int) (cmd *exec.Cmd, err error) {
			cmd, last, err = w.apply(ctx, config, w.memory)
			return cmd, err
		}
	}
	var their staged
	peer := func(config string) trial { return their.run(ctx, w, w.peer, config, w.memory) }
	s, err := alternate(ctx, 21, ours(one), func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.empty), nil }, peer(one))
	if err != nil {
		return nil, err
	}
	m, err := alternate(ctx, 11, ours(all), func(int) (*exec.Cmd, error) {
		root, err := os.MkdirTemp(w.memory, "tar-")
		return exec.CommandContext(ctx, "tar", "--extract", "--file", packed, "--directory", root), err
	}, peer(all))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(present(last, files, bytesEach), their.done(files, bytesEach)); err != nil {
		return nil, err
	}
	small, err := w.against(timed("apply, 1 inline file", "an empty static Go program", s[0], s[1], 3), s[2], ours(one), peer(one))
	if err != nil {
		return nil, err
	}
	large, err := w.against(timed("apply, 1,000 inline files", "tar x of the same files", m[0], m[1], 1.5), m[2], ours(all), peer(all))
	return []row{small, large}, err
}

// present makes sure that what was timed was also done.
func present(root string, files []wanted, size int64) error {
	for _, f := range files {
		info, err := os.Stat(filepath.Join(root, f.path))
		if err != nil {
			return err
		}
		if info.Size() != size {
			return fmt.Errorf("%s has %d bytes, want %d", f.path, info.Size(), size)
		}
	}
	return nil
}
