package main

import (
	"context"
	"os/exec"
)

// start compares a program that does nothing with one that is nothing.
func start(ctx context.Context, w *workshop) ([]row, error) {
	w.log.Printf("start")
	s, err := alternate(ctx, 41,
		func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.program, "version"), nil },
		func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.packages), nil },
		func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, w.empty), nil },
	)
	if err != nil {
		return nil, err
	}
	return []row{
		timed("start", "an empty static Go program", s[0], s[2], 2.5),
		timed("start", "the chosen packages alone", s[0], s[1], 0),
	}, nil
}
