package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// The peer is Debian's package ignition: the program that ours stands in for. Its package
// is unpacked and not installed.
const peerPackage = "ignition"

// fetchPeer gives the peer's program, from a folder below the cache that is filled once.
func fetchPeer(ctx context.Context, cache string) (string, error) {
	dir := filepath.Join(cache, "peer")
	find := func() (string, error) {
		// It lies in a module of dracut, whose number may change.
		found, err := filepath.Glob(filepath.Join(dir, "tree/usr/lib/dracut/modules.d/*/ignition"))
		if err != nil || len(found) != 1 {
			return "", errors.Join(err, fmt.Errorf("%d programs of the peer in %s", len(found), dir))
		}
		return found[0], nil
	}
	if program, err := find(); err == nil {
		return program, nil
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return "", err
	}
	for _, argv := range [][]string{{"apt-get", "--quiet", "download", peerPackage}, {"sh", "-c", "dpkg-deb --extract ./*.deb tree"}} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = dir
		if _, err := clock(cmd); err != nil {
			return "", fmt.Errorf("the peer: %w", err)
		}
	}
	return find()
}

// staged is a config that is carried out as a distribution's units do it: by the stages
// fetch and files, in processes of their own.
type staged struct {
	dir string // of the last run; its root is in it
}

func (s *staged) root() string { return filepath.Join(s.dir, "root") }

// script runs both stages. $0 is the program, $1 a folder for what it leaves.
const script = `for stage in fetch files; do
	"$0" --platform=file --stage=$stage --root="$1/root" --config-cache="$1/cache" --neednet="$1/neednet" --log-to-stdout ${2:+--state-file="$1/state"}
done >"$1/log" 2>&1 || { tail "$1/log" >&2; exit 1; }`

// run is a trial of a program under the name ignition. One run's folder is there at a time.
func (s *staged) run(ctx context.Context, w *workshop, program, config, below string) trial {
	return func(int) (cmd *exec.Cmd, err error) {
		if s.dir != "" {
			if err := os.RemoveAll(s.dir); err != nil {
				return nil, err
			}
		}
		if s.dir, err = os.MkdirTemp(below, "staged-"); err != nil {
			return nil, err
		}
		// The peer asks for both where the root knows of SELinux, and stops if either lacks.
		policy := filepath.Join(s.root(), "etc/selinux/config")
		if err := errors.Join(os.MkdirAll(filepath.Dir(policy), 0o755), os.WriteFile(policy, []byte("SELINUX=permissive\nSELINUXTYPE=targeted\n"), 0o644)); err != nil {
			return nil, err
		}
		cmd = exec.CommandContext(ctx, "sh", "-ec", script, program, s.dir, "state")
		cmd.Env = append(os.Environ(), "PATH="+w.standIns+":"+os.Getenv("PATH"), "IGNITION_CONFIG_FILE="+config)
		return cmd, nil
	}
}

// done makes sure that what was timed was also done, and takes it away.
func (s *staged) done(files []wanted, size int64) error {
	return errors.Join(present(s.root(), files, size), os.RemoveAll(s.dir))
}

// resident is the most memory that a process of a trial has had resident, in bytes: the
// shell of a staged run is smaller than what it starts. The trial is run once more for it,
// by a program that is small itself: a process counts what the one that it was forked from
// had.
func (w *workshop) resident(t trial) (int64, error) {
	cmd, err := t(0)
	if err != nil {
		return 0, err
	}
	var out, said strings.Builder
	argv := append([]string{cmd.Path}, cmd.Args[1:]...)
	cmd.Path, cmd.Args = w.launch, append([]string{w.launch}, argv...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", argv[0], err, said.String())
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	return kib << 10, err
}

// against puts the peer beside a row, and what memory both take.
func (w *workshop) against(r row, peer samples, ours, theirs trial) (row, error) {
	r.Peer = 1000 * peer.median()
	r.PeerRatio = r.Peer / r.Floor
	a, err := w.resident(ours)
	if err != nil {
		return r, err
	}
	b, err := w.resident(theirs)
	if err != nil {
		return r, err
	}
	const mib = 1 << 20
	r.Memory, r.PeerMemory = float64(a)/mib, float64(b)/mib
	return r, nil
}

// launcher runs a command, and prints the most memory that it, or a child of it that it
// waited for, has had resident, in KiB (getrusage(2)).
const launcher = `package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}
`

// reader parses a file as JSON, once.
const reader = `package main

import (
	"encoding/json"
	"os"
)

func main() {
	data, err := os.ReadFile(os.Args[1])
	if err == nil {
		var v any
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		panic(err)
	}
}
`
