package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// samples are seconds, one for each run.
type samples []float64

// quantile is the sample that q of them are below, q from 0 to 1.
func (s samples) quantile(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func (s samples) median() float64 { return s.quantile(0.5) }

// spread is half of what lies between the quartiles, as a part of the median.
func (s samples) spread() float64 {
	return (s.quantile(0.75) - s.quantile(0.25)) / 2 / s.median()
}

// trial makes what one run needs, and gives the command whose time counts.
type trial func(run int) (*exec.Cmd, error)

// alternate runs the trials in turns, each so many times, and gives the samples of each.
// One more turn before the first is not counted: it fills caches.
func alternate(ctx context.Context, runs int, trials ...trial) ([]samples, error) {
	all := make([]samples, len(trials))
	for n := range runs + 1 {
		for i, t := range trials {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			cmd, err := t(n)
			if err != nil {
				return nil, err
			}
			took, err := clock(cmd)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				all[i] = append(all[i], took.Seconds())
			}
		}
	}
	return all, nil
}

// clock runs a command to its end.
func clock(cmd *exec.Cmd) (time.Duration, error) {
	var said strings.Builder
	cmd.Stderr = &said
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args[:min(3, len(cmd.Args))], " "), err, said.String())
	}
	return time.Since(begin), nil
}
