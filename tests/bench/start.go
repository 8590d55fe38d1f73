package main

import (
	"context"
	"os/exec"
)

// start compares a program that does nothing with one that is nothing.
func start(ctx context.Context, w *workshop) ([]row, error) {
	w.log.Printf("start")
	ours := func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.program, "version"), nil }
	peer := func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.peer, "--version"), nil }
	s, err := alternate(ctx, 41, ours,
		func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.packages), nil },
		func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.empty), nil },
		peer,
	)
	if err != nil {
		return nil, err
	}
	begun, err := w.against(timed("start", "an empty static Go program", s[0], s[2], 2.5), s[3], ours, peer)
	return []row{begun, timed("start", "the chosen packages alone", s[0], s[1], 0)}, err
}
