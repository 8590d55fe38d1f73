package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/stages"

	"github.com/coreos/ignition/v2/config/v3_5/types"
)

// spread parses flags that may stand between and after arguments. done is true where
// the call ends with that exit code.
func spread(f *flag.FlagSet, args []string) (rest []string, code int, done bool) {
	for {
		switch err := f.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			return nil, exitDone, true
		case err != nil:
			return nil, exitMisuse, true
		case f.NArg() == 0:
			return rest, 0, false
		}
		args = f.Args()
		// What "--" ends is all arguments.
		rest, args = append(rest, args[0]), args[1:]
	}
}

func ignitionApplyFace(ctx context.Context, args []string, in io.Reader, s show) int {
	f := flag.NewFlagSet("ignition-apply", flag.ContinueOnError)
	f.SetOutput(s.err)
	f.Usage = func() {
		s.note("usage: ignition-apply [FLAGS] FILE|-\n\nFILE is a config, - for standard input. Its files and units are made below the root.\n")
		f.PrintDefaults()
	}
	root := f.String("root", "/", "root `directory` of the target")
	offline := f.Bool("offline", false, "fail where the config refers to something that needs the network")
	ignore := f.Bool("ignore-unsupported", false, "leave out what only a boot can do")
	printVersion := f.Bool("version", false, "print the version")
	rest, code, done := spread(f, args)
	switch {
	case done:
		return code
	case *printVersion:
		s.faceVersion("ignition-apply")
		return exitDone
	case len(rest) != 1:
		f.Usage()
		return exitFailed
	}
	log := newFaceLog("ignition-apply", true, s)
	defer log.close()
	a := applied{call: &call{ctx: ctx, in: in, show: s}, log: log, around: newSurroundings(), root: *root, offline: *offline, ignore: *ignore}
	if err := a.apply(rest[0]); err != nil {
		log.critical("%s", what(err))
		if at := where(err, a.documents); at != "" {
			log.info("the config asks for it at %s", at)
		}
		return exitFailed
	}
	return exitDone
}

// applied is one call of ignition-apply.
type applied struct {
	*call
	log             *faceLog
	around          surroundings
	root            string
	offline, ignore bool
	documents       []config.Document
}

func (a *applied) apply(name string) error {
	if !a.around.inContainer(containerMarks) {
		return errors.New("this is no container: a machine that runs is provisioned anew, not changed by ignition-apply")
	}
	root, err := filepath.Abs(a.root)
	if err != nil {
		return err
	}
	if err := isDirectory(root); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	raw, err := a.read(name)
	if err != nil {
		return err
	}
	o := newOutward(&initrd.Network{}, config.Knobs{}, func(line string) { a.log.info("%s", line) })
	fetch := o.fetch
	if a.offline {
		fetch = offlineFetch(fetch)
	}
	first := []config.Document{{Name: config.UserDocument, Source: name, Bytes: raw}}
	a.documents = first
	got, err := config.Collect(a.ctx, first, fetch, nil, config.Options{Settings: o.settings(a.ctx)})
	a.log.faults(got.Report)
	if err != nil {
		return err
	}
	a.documents = got.Documents
	if err := a.judge(&got.Config); err != nil {
		return err
	}
	if err := o.follow(a.ctx, got.Config); err != nil {
		return err
	}
	return a.carryOut(root, got, o)
}

// judge refuses what only a boot can do, or takes it out, and holds that the network is
// not needed where it may not be.
func (a *applied) judge(c *config.Config) error {
	i := &c.Ignition
	var cannot []string
	for _, part := range []struct {
		name string
		used bool
	}{
		{"kernelArguments", len(i.KernelArguments.ShouldExist)+len(i.KernelArguments.ShouldNotExist) > 0},
		{"storage.disks", len(i.Storage.Disks) > 0},
		{"storage.raid", len(i.Storage.Raid) > 0},
		{"storage.luks", len(i.Storage.Luks) > 0},
		{"storage.filesystems", len(i.Storage.Filesystems) > 0},
		{"passwd", len(i.Passwd.Users)+len(i.Passwd.Groups) > 0},
		{"pilotlight", c.Pilotlight.Version != ""},
	} {
		if part.used {
			cannot = append(cannot, part.name)
		}
	}
	switch {
	case len(cannot) > 0 && !a.ignore:
		return fmt.Errorf("only a boot can do what the config says in %s", strings.Join(cannot, ", "))
	case len(cannot) > 0:
		a.log.warn("left out, since only a boot can do it: %s", strings.Join(cannot, ", "))
	}
	i.KernelArguments, i.Passwd = types.KernelArguments{}, types.Passwd{}
	i.Storage.Disks, i.Storage.Raid, i.Storage.Luks, i.Storage.Filesystems = nil, nil, nil, nil
	c.Pilotlight = config.Section{}
	if !a.offline {
		return nil
	}
	needs, err := c.NeedsNetwork()
	if err == nil && needs {
		err = fmt.Errorf("the config refers to something elsewhere: %w", errNeedNet)
	}
	return err
}

// carryOut makes files and units.
func (a *applied) carryOut(root string, got config.Collected, o *outward) error {
	work, err := os.MkdirTemp("", "ignition-apply-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	m, err := initrd.NewMachine(work, o.client)
	if err != nil {
		return err
	}
	defer m.Close()
	a.around.onto(m)
	m.Tell = func(line string) { a.log.info("%s", line) }
	want, err := stages.Etc(stages.Input{Config: got.Config, Facts: stages.Facts{Boot: stages.First, Root: root, SystemdRoot: true, SystemdUsr: true}})
	if err != nil {
		return err
	}
	_, err = initrd.Run(a.ctx, m, want, initrd.Apply, func(_ int, o initrd.Outcome) { a.log.did("files", o) })
	return err
}

func ignitionValidateFace(_ context.Context, args []string, in io.Reader, s show) int {
	f := flag.NewFlagSet("ignition-validate", flag.ContinueOnError)
	f.SetOutput(s.err)
	f.Usage = func() {
		s.note("usage: ignition-validate [FLAGS] FILE|-\n\nFILE is a config, - for standard input.\n")
		f.PrintDefaults()
	}
	printVersion := f.Bool("version", false, "print the version")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitMisuse
	case *printVersion:
		s.faceVersion("ignition-validate")
		return exitDone
	case f.NArg() != 1:
		f.Usage()
		return exitFailed
	}
	raw, err := (&call{in: in}).read(f.Arg(0))
	if err != nil {
		return s.end("ignition-validate", err)
	}
	_, report := config.Parse(raw, config.Options{})
	s.faults(f.Arg(0), report)
	if report.Fatal() {
		return exitFailed
	}
	return exitDone
}

func ignitionRmcfgFace(_ context.Context, args []string, _ io.Reader, s show) int {
	f := flag.NewFlagSet("ignition-rmcfg", flag.ContinueOnError)
	f.SetOutput(s.err)
	f.Usage = func() {
		s.note("usage: ignition-rmcfg [FLAGS]\n\nTakes the config away from where the platform's hypervisor keeps it.\n")
		f.PrintDefaults()
	}
	platform := ""
	f.Func("platform", "`name` of the platform: "+strings.Join(platformNames(), ", "), knownPlatform(&platform))
	toStdout := f.Bool("log-to-stdout", false, "write the log to standard output, not to the journal")
	printVersion := f.Bool("version", false, "print the version")
	rest, code, done := spread(f, args)
	rest = slices.DeleteFunc(rest, func(a string) bool { return a == "" })
	switch {
	case done:
		return code
	case *printVersion:
		s.faceVersion("ignition-rmcfg")
		return exitDone
	case len(rest) > 0:
		f.Usage()
		return exitMisuse
	case platform == "":
		s.note("ignition-rmcfg: --platform is needed")
		return exitMisuse
	}
	log := newFaceLog("ignition-rmcfg", *toStdout, s)
	defer log.close()
	// None of the platforms that this version knows lets a machine take its config away.
	log.critical("on platform %s a machine cannot take its config away", platform)
	return exitFailed
}
