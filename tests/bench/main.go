// Command bench is `make bench`: what is claimed of size and speed, each beside a floor
// that is measured in the same run, as a ratio, with the ratio that is aimed at.
//
//	size       the stripped program               beside one that only links its packages
//	start      pilotlight version                 beside an empty static Go program
//	inline     apply of 1 and 1,000 inline files  beside an empty start, and tar x
//	text       a config of 5 MB                   beside parsing its JSON once
//	remote     apply of 200 remote files          beside curl --parallel
//	           apply of 10 merged configs         beside one request
//	large      apply of one file of 512 MiB       beside its transfer or its hash, and its memory
//	           apply of one gzip file             beside gzip -dc
//	boot       a guest with our units             beside the same guest without them
//
// Where Debian's package ignition does the same, it takes its turn too, as a distribution
// runs it: its stages fetch and files, one after the other. It knows the spec up to 3.3.
//
// It is no test: that something is slower than was aimed at is shown, and is no failure.
// What cannot be measured is one. Ours and the floor take turns, so that both see the same
// machine; medians count, and the spread that is shown is half of the distance between the
// quartiles, of ours.
//
//	bench [--json] [NAME]...
//
// Without names all are measured. Boots need root, and what packages tests/lab needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"

	"pilotlight/initrd"
	"pilotlight/tests/lab"
)

func main() {
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), initrd.Endings()...)
	defer stop()
	code := 0
	chosen, err := choose(flag.Args())
	elevated := false
	if err == nil && chosen.guests() {
		elevated, code, err = lab.Elevate(ctx)
	}
	if err == nil && !elevated {
		err = bench(ctx, chosen, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make bench:", err)
		code = 1
	}
	os.Exit(code)
}

// workshop is what the measurements share.
type workshop struct {
	repository string
	memory     string // a folder on a tmpfs
	disk       string // a folder on a disk
	log        *lab.Log
	program    string // pilotlight
	empty      string // an empty static Go program
	packages   string // a program that only links the packages of pilotlight
	ignition   string // pilotlight, by the name of the peer
	peer       string // Debian's ignition
	standIns   string // a folder of programs that the peer wants and that have nothing to do here
	launch     string // a program that tells the memory of another
	reader     string // a program that parses JSON
}

// measurement gives rows of the table.
type measurement struct {
	name    string
	measure func(context.Context, *workshop) ([]row, error)
}

type measurements []measurement

// all is in the order of the table: what needs guests comes last.
var all = measurements{{"size", size}, {"start", start}, {"inline", inline}, {"text", text}, {"remote", remote}, {"large", large}, {"boot", boot}}

// choose gives the measurements of the names, all if there are none.
func choose(names []string) (measurements, error) {
	for _, name := range names {
		if !slices.ContainsFunc(all, func(m measurement) bool { return m.name == name }) {
			return nil, fmt.Errorf("there is no measurement %q", name)
		}
	}
	if len(names) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(m measurement) bool { return !slices.Contains(names, m.name) }), nil
}

// guests is whether a virtual machine is needed.
func (l measurements) guests() bool {
	return slices.ContainsFunc(l, func(m measurement) bool { return m.name == "boot" })
}

func bench(ctx context.Context, chosen measurements, asJSON bool) error {
	log := lab.NewLog(os.Stderr)
	if chosen.guests() {
		if err := lab.Prepare(ctx, log); err != nil {
			return err
		}
	}
	if err := haveTools("curl", "tar"); err != nil {
		return err
	}
	w, remove, err := openWorkshop(ctx, log)
	if err != nil {
		return err
	}
	var table table
	for _, m := range chosen {
		var rows []row
		if rows, err = m.measure(ctx, w); err != nil {
			err = fmt.Errorf("%s: %w", m.name, err)
			break
		}
		table = append(table, rows...)
	}
	return errors.Join(err, table.print(os.Stdout, asJSON), remove())
}

func haveTools(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return &lab.MissingError{Packages: []string{name}, Reason: name + " is not installed"}
		}
	}
	return nil
}

// openWorkshop makes the folders and the programs. On Linux /dev/shm is a tmpfs; the
// repository is taken to lie on a disk.
func openWorkshop(ctx context.Context, log *lab.Log) (*workshop, func() error, error) {
	repository, err := lab.FindRepository()
	if err != nil {
		return nil, nil, err
	}
	cache := filepath.Join(repository, ".cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, nil, err
	}
	disk, err := os.MkdirTemp(cache, "bench-")
	if err != nil {
		return nil, nil, err
	}
	memory, err := os.MkdirTemp("/dev/shm", "pilotlight-bench-")
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(disk))
	}
	w := &workshop{
		repository: repository, memory: memory, disk: disk, log: log,
		program: filepath.Join(disk, "pilotlight"), empty: filepath.Join(disk, "empty"), packages: filepath.Join(disk, "packages"),
		ignition: filepath.Join(disk, "ignition"), standIns: filepath.Join(disk, "bin"),
		launch: filepath.Join(disk, "launch"), reader: filepath.Join(disk, "reader"),
	}
	remove := func() error { return errors.Join(os.RemoveAll(memory), os.RemoveAll(disk)) }
	if w.peer, err = fetchPeer(ctx, cache); err == nil {
		err = w.build(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return w, remove, nil
}
