package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"time"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/initrd/units"
	"pilotlight/providers"
	"pilotlight/stages"
)

// runDir is where a boot keeps what it was told and what it did.
const runDir = "/run/pilotlight"

func bootVerb() verb {
	return verb{
		name: "boot", usage: "fetch|repart|disks|verity|luks|root|etc|report|onfailure...", short: "do parts of this boot",
		hidden: true,
		long:   "The units of the initrd run it; see pilotlight-fetch.service and the units after it.",
		prepare: func(*flag.FlagSet) func(*call) error {
			return func(c *call) error {
				if len(c.args) == 0 {
					return misused("give the parts of the boot")
				}
				// Nobody may run this on a machine that is up.
				if _, err := os.Stat("/etc/initrd-release"); err != nil {
					return fmt.Errorf("this is no initrd: %w", err)
				}
				b, err := newBoot(c)
				if err != nil {
					return (&boot{call: c}).failed(c.args[0], err)
				}
				if b.knobs.Off {
					return nil
				}
				defer b.machine.Close()
				for _, part := range c.args {
					switch part {
					case "fetch":
						err = b.fetch()
					case "onfailure":
						return b.onFailure()
					default:
						err = b.stage(part)
					}
					if err != nil {
						return b.failed(part, err)
					}
				}
				return nil
			}
		},
	}
}

// boot is this boot, as far as one unit of it is concerned.
type boot struct {
	*call
	knobs   config.Knobs
	args    units.Args
	machine *initrd.Machine
	memory  initrd.Memory
	outward *outward
	frozen  []config.Document // as far as they are known, to say where a failure was asked for
	id      string            // the machine id that arguments or a credential give
}

// newBoot reads the early knobs and the machine.
func newBoot(c *call) (*boot, error) {
	b := &boot{call: c}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	var credentials fs.FS
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		credentials = os.DirFS(dir)
	}
	if b.knobs, err = config.ReadKnobs(string(cmdline), credentials); err != nil {
		return nil, err
	}
	b.args = units.ParseArgs(strings.Fields(string(cmdline)))
	if b.id, err = givenMachineID(string(cmdline), credentials); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, err
	}
	network := &initrd.Network{}
	b.outward = newOutward(network, b.knobs, c.show.tell)
	if b.machine, err = initrd.NewMachine(runDir, b.outward.client); err != nil {
		return nil, err
	}
	network.Up = b.machine.StartNetwork
	b.machine.Tell = c.show.tell
	return b, nil
}

// givenMachineID is the machine id that PID 1 would take: systemd.machine_id= or
// the credential system.machine_id (machine-id(5)). "firmware" is left to PID 1.
func givenMachineID(cmdline string, credentials fs.FS) (string, error) {
	id := ""
	for _, word := range strings.Fields(cmdline) {
		if v, ok := strings.CutPrefix(word, "systemd.machine_id="); ok {
			id = v
		}
	}
	if id == "" && credentials != nil {
		data, err := fs.ReadFile(credentials, "system.machine_id")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		id = strings.TrimSpace(string(data))
	}
	id = strings.ToLower(strings.ReplaceAll(id, "-", ""))
	if id == "firmware" {
		id = ""
	}
	if b, err := hex.DecodeString(id); id != "" && (err != nil || len(b) != 16) {
		return "", advised{errors.New("systemd.machine_id is no machine id"), "correct the kernel argument or credential"}
	}
	return id, nil
}

// fetch finds the config, measures it before it is read, and freezes it. Nothing
// of it is carried out here, but for the network of this initrd.
func (b *boot) fetch() error {
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.knobs.DeadlineOrDefault(), overdue{b.knobs.DeadlineOrDefault()})
	defer cancel()
	begin, at := time.Now(), initrd.Uptime()

	frozen := initrd.Frozen{Boot: string(stages.First), Provision: newProvision()}
	var err error
	b.memory, err = b.machine.Recall(ctx)
	var unreadable *initrd.RecordError
	switch {
	case errors.As(err, &unreadable) && b.knobs.FirstBoot:
		b.show.tell(fmt.Sprintf("pilotlight.firstboot=yes overrules: %v", err))
		b.memory = b.machine.Disown(unreadable.Place)
	case err != nil:
		return err
	case b.knobs.FirstBoot:
		b.memory = b.machine.Disown(b.memory.Place)
	}
	switch r := b.memory.Record; r.State {
	case initrd.Started:
		frozen.Boot, frozen.Provision = string(stages.Interrupted), r.Provision
	case initrd.Complete:
		frozen.Boot, frozen.Provision = string(stages.Later), r.Provision
	}

	base, err := baseFragments(baseDir)
	if err != nil {
		return err
	}
	kept, err := b.machine.Unseal(ctx)
	switch {
	case frozen.Boot == string(stages.Later) && err == nil:
		old, err := initrd.UnpackFrozen(kept)
		if err != nil {
			return &initrd.RecordError{Place: b.memory.Place, Err: err}
		}
		if old.Digest() != b.memory.Record.Config {
			return &initrd.RecordError{Place: b.memory.Place, Err: errors.New("the kept copy is not of the config that the record names")}
		}
		frozen.Platform, frozen.Parts = old.Platform, old.Parts
		frozen.Documents = append(frozenDocuments(base), old.Outside()...)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}

	var steps []initrd.Outcome
	// The policy for measuring is the image's: it must be known before a document is read.
	image, err := config.Collect(ctx, base, b.outward.fetch, nil, config.Options{Strict: b.knobs.Strict})
	if err != nil {
		return err
	}
	b.knobs = b.knobs.OrMedia(image.Config.Pilotlight.Policy.Media)
	measure := func(list []config.Document) error {
		b.frozen = append(b.frozen, list...)
		level := initrd.Frozen{Documents: frozenDocuments(list)}
		want, err := stages.Measure(stages.Input{Config: image.Config, Documents: level.Outside()})
		if err != nil {
			return err
		}
		out, err := initrd.Run(ctx, b.machine, want, initrd.Apply, b.tell("measure"))
		steps = append(steps, out...)
		return err
	}

	var t told
	if frozen.Documents != nil {
		if err := measure(documents(frozen)); err != nil {
			return err
		}
	} else if frozen, err = b.ask(ctx, frozen, base, measure); err != nil {
		return err
	}
	if t, err = read(ctx, frozen, b.knobs.Strict); err != nil {
		return err
	}
	t.facts = b.facts(t.facts)
	if frozen.Boot == string(stages.Later) && frozen.Digest() != b.memory.Record.Config {
		return advised{fmt.Errorf("the config is not the one that this machine was provisioned with (digest %.16s…, was %.16s…), and policy.run is first-boot",
			frozen.Digest(), b.memory.Record.Config), "boot the image that it was provisioned with, or once with pilotlight.firstboot=yes to provision anew"}
	}
	if have, want := t.config.Pilotlight.Measure.PCROrDefault(), image.Config.Pilotlight.Measure.PCROrDefault(); have != want {
		return advised{fmt.Errorf("measure.pcr is %d, and the config was measured into PCR %d before it could be read: only a base fragment of the image can set it", have, want),
			"take measure.pcr out of the config"}
	}
	if have, want := t.config.Pilotlight.Policy.Media, image.Config.Pilotlight.Policy.Media; have != nil && (want == nil || *have != *want) {
		return advised{errors.New("policy.media counts before there is a config: only a base fragment of the image, or the kernel argument pilotlight.media=, can say it"),
			"take policy.media out of the config"}
	}
	for _, f := range t.report {
		b.show.tell("warning: " + f.Document + ":" + f.String())
	}
	if err := b.machine.Freeze(frozen); err != nil {
		return err
	}
	if err := b.reportInput(t); err != nil {
		return err
	}

	rest := []string{"network"}
	if r := t.config.Pilotlight.Measure.Required; r != nil && *r {
		// That a TPM is required may have been said by a document that was measured
		// when nobody knew.
		rest = append(rest, "measure")
	}
	for _, stage := range rest {
		out, err := b.run(ctx, stage, t)
		steps = append(steps, out...)
		if err != nil {
			return err
		}
	}
	want, err := t.want("measure", "network")
	if err != nil {
		return advised{err, "correct the config"}
	}
	if err := b.machine.Preflight(want); err != nil {
		return advised{err, "pack the initrd anew with what it lacks (pilotlight initrd addon --check names all of it)"}
	}
	return b.reported("fetch", at, begin, steps)
}

// ask gets the user's config from where it is, with all that it pulls in.
func (b *boot) ask(ctx context.Context, f initrd.Frozen, base []config.Document, measure func([]config.Document) error) (initrd.Frozen, error) {
	platform, answer, err := userConfig(ctx, b.knobs, b.outward)
	f.Platform = platform
	first := base
	switch {
	case errors.Is(err, providers.ErrNone):
		b.show.tell(err.Error() + ": only what the image brings is carried out")
	case err != nil:
		return f, err
	default:
		b.show.line("pilotlight: fetch: config from %s (%s)", answer.Source, platform)
		first = append(first, config.Document{Name: config.UserDocument, Source: answer.Source, Bytes: answer.Bytes})
	}
	got, err := config.Collect(ctx, first, b.outward.fetch, measure, config.Options{Strict: b.knobs.Strict, Settings: b.outward.settings(ctx)})
	if err != nil {
		return f, err
	}
	for _, d := range got.Documents {
		f.Documents = append(f.Documents, initrd.Document(d))
	}
	if err := b.outward.follow(ctx, got.Config); err != nil {
		return f, err
	}
	if f.Parts, err = fetchWholes(ctx, &got.Config, b.outward.fetch); err != nil {
		return f, err
	}
	f.Parts, err = b.outward.keep(got.Config, f.Parts)
	return f, err
}

// userConfig asks in this order: the config itself as a credential; the place that
// an argument or a credential names; the platform.
func userConfig(ctx context.Context, k config.Knobs, o *outward) (string, providers.Answer, error) {
	name := k.Platform
	var platform providers.Platform
	var err error
	if name != "" && name != "auto" {
		if platform, err = providers.Named(name); err != nil {
			return name, providers.Answer{}, advised{err, "correct pilotlight.platform= (or ignition.platform.id=) of the kernel arguments"}
		}
	}
	switch {
	case k.Config != nil:
		return orWord(name, "credential"), providers.Answer{Source: "credential pilotlight.config", Bytes: []byte(k.Config.Reveal())}, nil
	case !k.ConfigURL.IsZero():
		// An address without a platform is a machine of somebody's own.
		name = orWord(name, "metal")
		a, err := providers.Direct(ctx, name, k.ConfigURL.Reveal(), o)
		return name, a, err
	}
	if platform.Name == "" {
		found, err := providers.Detect(ctx, o, k.MediaOrDefault())
		if err != nil {
			return "", providers.Answer{}, err
		}
		platform = found.Platform
	}
	a, err := platform.UserConfig(ctx, o)
	return platform.Name, a, err
}

func orWord(s, otherwise string) string {
	if s == "" || s == "auto" {
		return otherwise
	}
	return s
}

// facts completes what was frozen by what each unit finds out anew.
func (b *boot) facts(f stages.Facts) stages.Facts {
	f.Placed = b.memory.Place.Node != ""
	f.SystemdRoot, f.SystemdUsr, f.RootHashes = b.args.Root, b.args.Usr, b.args.RootHashes()
	f.MachineID, f.Result = b.id, true
	return f
}

// thaw reads what this boot was told, and the record.
func (b *boot) thaw() (told, error) {
	frozen, err := b.machine.Thaw()
	if err != nil {
		return told{}, err
	}
	b.frozen = documents(frozen)
	b.memory, err = b.machine.Recall(b.ctx)
	var unreadable *initrd.RecordError
	if errors.As(err, &unreadable) && b.knobs.FirstBoot {
		b.memory, err = b.machine.Disown(unreadable.Place), nil
	}
	if err != nil {
		return told{}, err
	}
	t, err := read(b.ctx, frozen, b.knobs.Strict)
	if err != nil {
		return told{}, err
	}
	t.facts = b.facts(t.facts)
	maps.Copy(b.outward.authorities, frozen.Parts)
	if err := b.outward.follow(b.ctx, t.config); err != nil {
		return told{}, err
	}
	b.machine.Client = b.outward.client
	return t, nil
}

// stage runs one stage of this boot.
func (b *boot) stage(name string) error {
	begin, at := time.Now(), initrd.Uptime()
	t, err := b.thaw()
	if err != nil {
		return err
	}
	out, err := b.run(b.ctx, name, t)
	err = errors.Join(err, b.reported(name, at, begin, out))
	if err != nil || name != "report" {
		return err
	}
	if err := b.complete(); err != nil {
		return err
	}
	return b.machine.Melt()
}

// timesLimit is how long PID 1 may take to tell the times of its units.
const timesLimit = 10 * time.Second

// complete ends the report. PID 1 forgets the units of the initrd at switch-root, so
// when they ran is asked for now.
func (b *boot) complete() error {
	ctx, cancel := context.WithTimeout(b.ctx, timesLimit)
	defer cancel()
	times, err := b.machine.Timeline(ctx)
	if err != nil {
		b.show.tell("when the other units ran is not in the report: " + err.Error())
	}
	return b.machine.Amend(func(r *initrd.Report) {
		r.State = "complete"
		if err == nil {
			r.Initrd = &times
		}
	})
}

// run runs the steps of a stage.
func (b *boot) run(ctx context.Context, name string, t told) ([]initrd.Outcome, error) {
	s, ok := stages.Named(name)
	if !ok {
		return nil, misused("there is no part %q of a boot", name)
	}
	want, err := t.wantOf(s)
	if err != nil {
		return nil, err
	}
	return initrd.Run(ctx, b.machine, want, initrd.Apply, b.tell(name))
}

func (b *boot) tell(stage string) func(int, initrd.Outcome) {
	return func(_ int, o initrd.Outcome) { b.show.did(stage, o, b.knobs.Debug) }
}

func (b *boot) reportInput(t told) error {
	pcr := initrd.ReportedPCR{Index: t.config.Pilotlight.Measure.PCROrDefault()}
	var err error
	if pcr.Banks, err = b.machine.PCR(pcr.Index); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.show.tell(fmt.Sprintf("PCR %d is not in the report: %v", pcr.Index, err))
	}
	return b.machine.Amend(func(r *initrd.Report) {
		if err == nil {
			r.PCR = &pcr
		}
		r.Boot, r.Platform, r.Provision = t.frozen.Boot, t.frozen.Platform, t.frozen.Provision
		r.Record, r.Config = b.memory.Place.String(), t.frozen.Digest()
		r.Documents = nil
		for _, d := range t.frozen.Documents {
			r.Documents = append(r.Documents, initrd.ReportedInput{Name: d.Name, Source: d.Source, SHA256: digest(d.Bytes)})
		}
		for _, f := range t.report {
			r.Warnings = append(r.Warnings, f.Document+":"+f.String())
		}
	})
}

func (b *boot) reported(name string, at float64, begin time.Time, out []initrd.Outcome) error {
	return b.machine.Amend(func(r *initrd.Report) {
		r.Stages = append(r.Stages, initrd.ReportStage(name, at, time.Since(begin).Seconds(), out))
	})
}

// failed tells the three lines, and leaves them for what comes after.
func (b *boot) failed(part string, err error) error {
	f := failure(part, err, b.frozen)
	for _, line := range f.Lines() {
		b.show.note("%s", line)
	}
	if b.machine != nil {
		if err := b.machine.Amend(func(r *initrd.Report) { r.State, r.Failure = "failed", &f }); err != nil {
			b.show.tell("the report could not be written: " + err.Error())
		}
	}
	return errShown
}
