package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/providers"
	"pilotlight/stages"
)

// A face is this program under a name of Ignition's. It serves who calls Ignition, such
// as a distribution's dracut module and its units, by the same flags, environment, files
// and exit codes; https://coreos.github.io/ignition/distributor-notes/ is about them.
//
//	ignition           one stage of a first boot, in a process of its own
//	ignition-apply     files and units of a config, in a container that is built
//	ignition-validate  the faults of a config
//	ignition-rmcfg     takes the config away from where a hypervisor keeps it
//
// Who calls decides that this is a first boot. So there is no record, and nothing is
// measured: both are those of our own units. For the same reason a config with a
// pilotlight section is refused, and kernel arguments of ours are told to be without
// effect. Nothing of what was asked for is left out in silence.
type face func(ctx context.Context, args []string, in io.Reader, s show) int

// faces are known by the name that the program is called by.
func faces(name string) face {
	switch name {
	case "ignition":
		return ignitionFace
	case "ignition-apply":
		return ignitionApplyFace
	case "ignition-validate":
		return ignitionValidateFace
	case "ignition-rmcfg":
		return ignitionRmcfgFace
	}
	return nil
}

// exitState is what ignition ends with where its state cannot be read.
const exitState = 3

// ignitionStages are the stages in their order.
var ignitionStages = [...]string{"fetch-offline", "fetch", "kargs", "disks", "mount", "files", "umount"}

// ignition is one call of that program.
type ignition struct {
	platform, stage, root, cache, needNet, state string
	timeout                                      time.Duration

	around  surroundings
	log     *faceLog
	outward *outward
	frozen  []config.Document // as far as they are known, to say where a failure was asked for
}

func ignitionFace(ctx context.Context, args []string, _ io.Reader, s show) int {
	i := &ignition{around: newSurroundings()}
	f := flag.NewFlagSet("ignition", flag.ContinueOnError)
	f.SetOutput(s.err)
	f.StringVar(&i.cache, "config-cache", "/run/ignition.json", "`file` that the config is kept in between stages")
	f.DurationVar(&i.timeout, "fetch-timeout", 2*time.Minute, "how long to wait for the config, as long as it says nothing else")
	f.StringVar(&i.needNet, "neednet", "/run/ignition/neednet", "`file` that fetch-offline makes where the network is needed")
	f.Func("platform", "`name` of the platform: "+strings.Join(platformNames(), ", "), knownPlatform(&i.platform))
	f.StringVar(&i.root, "root", "/", "root `directory` of the target")
	f.Func("stage", "`name` of the stage: "+strings.Join(ignitionStages[:], ", "), func(v string) error {
		if !slices.Contains(ignitionStages[:], v) {
			return fmt.Errorf("there is no stage of that name")
		}
		i.stage = v
		return nil
	})
	f.StringVar(&i.state, "state-file", "/run/ignition/state", "`file` for what stages tell later ones")
	printVersion := f.Bool("version", false, "print the version")
	toStdout := f.Bool("log-to-stdout", false, "write the log to standard output, not to the journal")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitMisuse // flag has said why
	case *printVersion:
		s.faceVersion("ignition")
		return exitDone
	case i.platform == "":
		s.note("ignition: --platform is needed")
		return exitMisuse
	case i.stage == "":
		s.note("ignition: --stage is needed")
		return exitMisuse
	}
	i.log = newFaceLog("ignition", *toStdout, s)
	defer i.log.close()
	for _, a := range f.Args() {
		if a != "" { // systemd makes an empty one of a variable that is not set
			i.log.warn("argument %q has no meaning here", a)
		}
	}
	return i.run(ctx)
}

// run does the stage.
func (i *ignition) run(ctx context.Context) int {
	i.log.info("pilotlight %s, stage %s", version(), i.stage)
	for _, name := range i.around.without() {
		i.log.warn("the environment variable %s has no effect here", name)
	}
	state, err := readFaceState(i.state)
	if err != nil {
		i.log.critical("state: %v", err)
		return exitState
	}
	if i.root, err = filepath.Abs(cmp.Or(i.root, "/")); err != nil {
		i.log.critical("%v", err)
		return exitFailed
	}
	switch i.stage {
	case "fetch-offline", "fetch":
		err = i.fetch(ctx, &state)
	default:
		err = i.carryOut(ctx, &state)
	}
	if err == nil {
		err = state.write(i.state)
	}
	if err != nil {
		i.log.critical("%s: %s", i.stage, what(err))
		if at := where(err, i.frozen); at != "" {
			i.log.info("%s: the config asks for it at %s", i.stage, at)
		}
		return exitFailed
	}
	i.log.info("%s: done", i.stage)
	return exitDone
}

// platformNames are those that this version knows.
func platformNames() []string {
	var names []string
	for _, p := range providers.All {
		names = append(names, p.Name)
	}
	return names
}

// knownPlatform takes a platform's name for a flag.
func knownPlatform(to *string) func(string) error {
	return func(v string) error {
		if _, err := providers.Named(v); err != nil {
			return fmt.Errorf("this version knows no platform of that name")
		}
		*to = v
		return nil
	}
}

// machine is this machine, as the environment would have it.
func (i *ignition) machine() (*initrd.Machine, error) {
	run := faceRunDir(i.state)
	if err := makePrivate(run); err != nil {
		return nil, err
	}
	m, err := initrd.NewMachine(run, i.outward.client)
	if err != nil {
		return nil, err
	}
	i.around.onto(m)
	m.Tell = func(line string) { i.log.info("%s: %s", i.stage, line) }
	return m, nil
}

// carryOut runs the steps of a stage that comes after the fetching.
func (i *ignition) carryOut(ctx context.Context, state *faceState) error {
	if slices.Contains(state.Idle, i.stage) {
		return i.fetched()
	}
	t, err := i.thaw(ctx)
	if err != nil {
		return err
	}
	m, err := i.machine()
	if err != nil {
		return err
	}
	defer m.Close()
	want, err := i.want(t, *state)
	if err != nil {
		return err
	}
	switch i.stage {
	case "disks":
		// Before the first deed that loses data all that the others need is looked for.
		err = m.Preflight(want)
	case "mount":
		err = i.remember(m.Look(ctx), want, state)
	}
	if err != nil {
		return err
	}
	_, err = initrd.Run(ctx, m, want, initrd.Apply, func(_ int, o initrd.Outcome) { i.log.did(i.stage, o) })
	if err == nil && i.stage == "files" {
		// The keys of volumes lie in the target now.
		err = m.Melt()
	}
	return err
}

// want are the steps of a stage of Ignition's.
func (i *ignition) want(t told, state faceState) ([]initrd.Step, error) {
	switch i.stage {
	case "kargs":
		return stages.Kargs(t.input())
	case "disks":
		return stages.Disks(t.input())
	case "mount":
		return stages.Mounted(t.input())
	case "files":
		return i.files(t)
	case "umount":
		var steps []initrd.Step
		for _, where := range slices.Backward(state.Mounted) {
			steps = append(steps, initrd.Unmounted{Where: where})
		}
		return steps, nil
	}
	return nil, fmt.Errorf("stage %s has no steps: a fault of this program", i.stage)
}

// remember notes, before anything is mounted, where nothing is yet. Those mounts are ours
// to take away again; others, such as a root that is one of the config's file systems, are
// not.
func (i *ignition) remember(look initrd.Look, want []initrd.Step, state *faceState) error {
	for _, s := range want {
		m, ok := s.(initrd.Mount)
		if !ok || slices.Contains(state.Mounted, m.Where) {
			continue
		}
		switch _, err := look.Mounted(m.Where); {
		case errors.Is(err, fs.ErrNotExist):
			state.Mounted = append(state.Mounted, m.Where)
		case err != nil:
			return err
		}
	}
	return state.write(i.state)
}

// files are the steps of that stage. Contexts of SELinux are given unless the environment
// says that somebody else does.
func (i *ignition) files(t told) ([]initrd.Step, error) {
	label, err := i.around.truth("SELINUX_RELABEL", true)
	if err != nil {
		return nil, err
	}
	steps, err := stages.Etc(t.input())
	return slices.DeleteFunc(steps, func(s initrd.Step) bool {
		_, is := s.(initrd.Relabel)
		return is && !label
	}), err
}

// faceVersion prints what a face is.
func (s show) faceVersion(name string) {
	s.line("pilotlight %s in place of %s (Ignition spec 3.0.0 to 3.5.0)", version(), name)
}
