package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// large compares one big file with what it cannot do without, its transfer and its hash, of
// which the slower is the floor, since both can be done at once. And it looks at the memory:
// the process's, and what lies in file systems of memory or temporary files meanwhile.
func large(ctx context.Context, w *workshop) (rows []row, err error) {
	w.log.Printf("a large file")
	const size = 512 << 20
	o, err := serve(size, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.stop()) }()
	files := []wanted{{path: "/var/image", source: o.url + "/image", hash: o.hash}}
	config := filepath.Join(w.memory, "large.ign")
	if err := writeConfig(config, files); err != nil {
		return nil, err
	}
	root, got := "", filepath.Join(w.memory, "image")
	var their staged
	peer := their.run(ctx, w, w.peer, config, w.memory)
	s, err := alternate(ctx, 5,
		func(int) (cmd *exec.Cmd, err error) {
			// One at a time is there, or they would fill the memory.
			if err := errors.Join(os.RemoveAll(root), os.RemoveAll(their.dir)); err != nil {
				return nil, err
			}
			cmd, root, err = w.apply(ctx, config, w.memory)
			return cmd, err
		},
		func(int) (*exec.Cmd, error) {
			if err := errors.Join(present(root, files, size), os.RemoveAll(root), os.RemoveAll(got)); err != nil {
				return nil, err
			}
			return exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--output", got, files[0].source), nil
		},
		func(int) (*exec.Cmd, error) { return exec.CommandContext(ctx, "sha512sum", got), nil },
		func(n int) (*exec.Cmd, error) {
			if err := os.RemoveAll(got); err != nil {
				return nil, err
			}
			return peer(n)
		})
	if err != nil {
		return nil, err
	}
	ours := func(int) (cmd *exec.Cmd, err error) {
		if err := errors.Join(their.done(files, size), os.RemoveAll(got)); err != nil {
			return nil, err
		}
		cmd, root, err = w.apply(ctx, config, w.memory)
		return cmd, err
	}
	floor, name := s[1], "curl to the same tmpfs"
	if s[2].median() > s[1].median() {
		floor, name = s[2], "sha512sum of it"
	}
	peak, err := w.peak(ctx, config, files, size)
	if err != nil {
		return nil, err
	}
	whole, err := w.against(timed("apply, one file of 512 MiB", name, s[0], floor, 1.15), s[3], ours, func(n int) (*exec.Cmd, error) {
		if err := os.RemoveAll(root); err != nil {
			return nil, err
		}
		return peer(n)
	})
	if err != nil {
		return nil, err
	}
	if err := their.done(files, size); err != nil {
		return nil, err
	}
	packed, err := inflate(ctx, w)
	return []row{whole, peak, packed}, err
}

// peak applies a config to a directory on a disk, and gives the most memory that was in use.
func (w *workshop) peak(ctx context.Context, config string, files []wanted, size int64) (row, error) {
	const limit = 40 << 20
	cmd, root, err := w.apply(ctx, config, w.disk)
	if err != nil {
		return row{}, err
	}
	temporary, err := os.MkdirTemp(w.disk, "tmp-")
	if err != nil {
		return row{}, err
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	aside := []string{temporary, "/run/pilotlight"}
	before, err := weigh(aside)
	if err != nil {
		return row{}, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return row{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var most int64
	looks := 0
	for {
		select {
		case err := <-ended:
			if err != nil {
				return row{}, fmt.Errorf("apply: %w\n%s", err, said.String())
			}
			if looks < 10 {
				return row{}, fmt.Errorf("the memory was seen %d times only", looks)
			}
			if err := present(root, files, size); err != nil {
				return row{}, err
			}
			return sized("  its memory, with temporary files", "40 MiB", most, limit, 1), nil
		case <-tick.C:
			process, err := highWater(cmd.Process.Pid)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, errGone) {
				continue // it has ended
			}
			if err != nil {
				return row{}, err
			}
			files, err := weigh(aside)
			if err != nil {
				return row{}, err
			}
			looks++
			most = max(most, process+files-before)
		}
	}
}

var errGone = errors.New("the process has no memory any more")

// highWater is the most that a process has had resident, in bytes: VmHWM of proc_pid_status(5).
// What wait4(2) says instead includes what this process had when it forked.
func highWater(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.Join(errGone, lines.Err())
}

// weigh adds up the files below folders, which need not be there.
func weigh(folders []string) (int64, error) {
	var sum int64
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				sum += info.Size()
			}
			return err
		})
		// Files come and go meanwhile.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	return sum, nil
}
