package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"time"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/providers"
	"pilotlight/stages"
)

// errNeedNet says that there is something which cannot be had without the network.
var errNeedNet = errors.New("the network is needed")

// fetch finds the config and keeps it for the stages that come. Offline, nothing is asked
// that needs the network: where something is needed from there, a flag file says so to
// whoever can bring it up, nothing is kept, and the stage fetch does it all again.
func (i *ignition) fetch(ctx context.Context, state *faceState) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	network := &initrd.Network{}
	if i.offline() {
		// What a config names is judged by its address. Whatever else a platform asks, its
		// first connection to anywhere ends all.
		network.Up = func(context.Context) error {
			cancel(errNeedNet)
			return errNeedNet
		}
	}
	i.reachOut(network, i.timeout)
	t, err := i.ask(ctx)
	if errors.Is(context.Cause(ctx), errNeedNet) {
		err = errNeedNet
	}
	if i.offline() && err == nil {
		var needs bool
		if needs, err = t.config.NeedsNetwork(); needs {
			err = errNeedNet
		}
	}
	if errors.Is(err, errNeedNet) {
		i.log.info("%s: %v: the stage fetch has to run", i.stage, err)
		return writePrivate(i.needNet, nil)
	}
	if err != nil {
		return err
	}
	// A run that ends between the two files must not leave what an earlier config said.
	*state = faceState{Version: state.Version}
	if err := errors.Join(state.write(i.state), i.freeze(t.frozen, t.config.Ignition)); err != nil {
		return err
	}
	if state.Idle, err = i.idle(t); err != nil {
		return err
	}
	for _, d := range t.frozen.Documents {
		f := faceDocument{Kind: "user", Source: d.Source, Referenced: strings.HasPrefix(d.Name, "child-")}
		if strings.HasPrefix(d.Name, initrd.BasePrefix) {
			f.Kind = "base"
		}
		i.log.fetched(f)
		state.Fetched = append(state.Fetched, f)
	}
	return nil
}

// offline says that the network must not be asked for anything.
func (i *ignition) offline() bool { return i.stage == "fetch-offline" }

// idle are the stages that have nothing to do. They need not read the config, which may
// be large.
func (i *ignition) idle(t told) ([]string, error) {
	var list []string
	for _, name := range []string{"kargs", "disks", "mount"} {
		other := *i
		other.stage = name
		steps, err := other.want(t, faceState{})
		if err != nil {
			return nil, err
		}
		if len(steps) == 0 {
			list = append(list, name)
		}
	}
	return list, nil
}

// reachOut makes what the stage reaches out by. patience is how long it waits for a
// server; not positive, without an end.
func (i *ignition) reachOut(network *initrd.Network, patience time.Duration) {
	if patience <= 0 {
		patience = unlimited
	}
	i.outward = newOutward(network, config.Knobs{Platform: i.platform, Deadline: patience}, func(line string) { i.log.info("%s: %s", i.stage, line) })
	i.outward.client.TotalTimeout = patience
}

// ask gets the config with all that it pulls in, and holds that it can be carried out.
func (i *ignition) ask(ctx context.Context) (told, error) {
	frozen := initrd.Frozen{Boot: string(stages.First), Platform: i.platform, Provision: newProvision()}
	base, err := providers.SystemBase(i.around.dirs(), i.platform)
	if err != nil {
		return told{}, err
	}
	var first []config.Document
	for _, f := range base {
		first = append(first, config.Document{Name: initrd.BasePrefix + f.Name, Source: f.Source, Bytes: f.Bytes})
	}
	answer, err := i.userConfig(ctx)
	switch {
	case errors.Is(err, providers.ErrNone):
		i.log.info("%s: %v: only what the image brings is carried out", i.stage, err)
	case err != nil:
		return told{}, err
	default:
		first = append(first, config.Document{Name: config.UserDocument, Source: answer.Source, Bytes: answer.Bytes})
	}
	i.frozen = first
	// From here on the config says how long to wait.
	i.outward.knobs.Deadline = unlimited
	fetch := i.outward.fetch
	if i.offline() {
		fetch = offlineFetch(fetch)
	}
	got, err := config.Collect(ctx, first, fetch, nil, config.Options{Settings: i.outward.settings(ctx)})
	i.log.faults(got.Report)
	i.frozen = got.Documents
	if err != nil {
		return told{}, err
	}
	if err := ownSection(got.Config); err != nil {
		return told{}, err
	}
	if err := i.outward.follow(ctx, got.Config); err != nil {
		return told{}, err
	}
	frozen.Documents = frozenDocuments(got.Documents)
	if frozen.Parts, err = i.outward.keep(got.Config, nil); err != nil {
		return told{}, err
	}
	t, err := tell(frozen, got)
	if err != nil {
		return told{}, err
	}
	if t.facts, err = i.facts(t.facts); err != nil {
		return told{}, err
	}
	// What no stage could want is told before the first of them changes something.
	_, err = t.want("measure", "network", "report")
	return t, err
}

// ownSection refuses a config with a section of ours.
func ownSection(c config.Config) error {
	if c.Pilotlight.Version == "" {
		return nil
	}
	return errors.New("the config has a pilotlight section, which needs the units of pilotlight: under the name of Ignition it cannot be carried out")
}

// userConfig asks in this order: the address in the kernel arguments, the directories
// that prepare a boot, the platform.
func (i *ignition) userConfig(ctx context.Context) (providers.Answer, error) {
	a, err := i.userAnswer(ctx)
	if err == nil && len(a.Bytes) == 0 {
		return a, fmt.Errorf("%s is empty: %w", a.Source, providers.ErrNone)
	}
	return a, err
}

func (i *ignition) userAnswer(ctx context.Context) (providers.Answer, error) {
	data, err := os.ReadFile(i.around.cmdline())
	if err != nil {
		return providers.Answer{}, err
	}
	i.ownArguments(string(data))
	if from := config.Argument(string(data), "ignition.config.url"); from != "" {
		if u, err := resource.ParseURL(from); i.offline() && err == nil && u.Remote() {
			return providers.Answer{}, fmt.Errorf("%s: %w", u, errNeedNet)
		}
		// Not as on platform metal of our own: nothing is added to the address.
		return providers.Direct(ctx, "", from, i.outward)
	}
	if a, err := providers.SystemUser(i.around.dirs()); !errors.Is(err, providers.ErrNone) {
		return a, err
	}
	platform, err := providers.Named(i.platform)
	if err != nil {
		return providers.Answer{}, err
	}
	if _, err := fs.Stat(i.outward.Sys(), "firmware/qemu_fw_cfg"); i.platform == "qemu" && errors.Is(err, fs.ErrNotExist) {
		// udev has not come so far, or there is none.
		m, err := i.machine()
		if err != nil {
			return providers.Answer{}, err
		}
		defer m.Close()
		if err := m.LoadModule(ctx, "qemu_fw_cfg"); err != nil {
			return providers.Answer{}, err
		}
	}
	return platform.UserConfig(ctx, faceReach{i.outward, string(data)})
}

// ownArguments tells of kernel arguments that mean something to our own units alone.
func (i *ignition) ownArguments(cmdline string) {
	for word := range strings.FieldsSeq(cmdline) {
		if name, _, _ := strings.Cut(word, "="); name == "pilotlight" || strings.HasPrefix(name, "pilotlight.") {
			i.log.warn("the kernel argument %s has no effect here: the initrd calls this program as ignition", name)
		}
	}
}

// faceReach reaches out as the environment would have it.
type faceReach struct {
	*outward
	cmdline string
}

func (r faceReach) Argument(name string) (string, error) {
	return config.Argument(r.cmdline, name), nil
}

// File is the file of the platform of that name, which has to be there.
func (r faceReach) File() (providers.Answer, error) {
	a, err := r.outward.File()
	if errors.Is(err, providers.ErrNone) {
		err = &fs.PathError{Op: "open", Path: strings.TrimSuffix(err.Error(), ": "+providers.ErrNone.Error()), Err: fs.ErrNotExist}
	}
	return a, err
}

// thaw reads what the stage fetch has kept. The stage umount needs nothing of it.
func (i *ignition) thaw(ctx context.Context) (told, error) {
	i.reachOut(&initrd.Network{}, 0)
	if i.stage == "umount" {
		return told{}, i.fetched()
	}
	data, err := os.ReadFile(frozenFile(i.cache))
	if errors.Is(err, fs.ErrNotExist) {
		return told{}, initrd.ErrNotFrozen
	}
	if err != nil {
		return told{}, err
	}
	frozen, err := initrd.UnpackFrozen(data)
	if err != nil {
		return told{}, fmt.Errorf("%s: %w", frozenFile(i.cache), err)
	}
	i.frozen = documents(frozen)
	t, err := read(ctx, frozen, false)
	if err != nil {
		return told{}, err
	}
	if t.facts, err = i.facts(t.facts); err != nil {
		return told{}, err
	}
	maps.Copy(i.outward.authorities, frozen.Parts)
	return t, i.outward.follow(ctx, t.config)
}

// fetched holds that there is a config.
func (i *ignition) fetched() error {
	_, err := os.Stat(frozenFile(i.cache))
	if errors.Is(err, fs.ErrNotExist) {
		return initrd.ErrNotFrozen
	}
	return err
}

// offlineFetch gets what needs no network.
func offlineFetch(fetch func(context.Context, []resource.Resource) ([][]byte, error)) func(context.Context, []resource.Resource) ([][]byte, error) {
	return func(ctx context.Context, list []resource.Resource) ([][]byte, error) {
		for _, r := range list {
			if r.Remote() {
				return nil, fmt.Errorf("%s: %w", r, errNeedNet)
			}
		}
		return fetch(ctx, list)
	}
}
