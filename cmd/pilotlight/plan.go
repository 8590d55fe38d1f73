package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/stages"
)

func planVerb() verb {
	return verb{
		name: "plan", usage: "--config FILE --root DIR [--stage NAMES] [--all] [--json]", short: "say what would be done, and do nothing",
		long: `  + is made new             ~ changes what is there     - DESTROYS what is there
  = is so already           > after an earlier step
  ? cannot be here, and need not                        ! fails

The last lines count them, and say again what is destroyed. --json has the effect of
each step, and what is lost by it.

With --root /sysroot a plan is that of a boot, disks included. With any other root it
is that of the stage etc alone, unless --stage names others.

example: pilotlight plan --config web.ign --root /mnt/target`,
		prepare: planOrApply(initrd.Plan),
	}
}

func applyVerb() verb {
	return verb{
		name: "apply", usage: "--config FILE --root DIR [--stage NAMES] [--all] [--json]", short: "carry a config out below a directory",
		long: `The stage etc is carried out: files, directories, links, units, and, where the config
has a pilotlight section, users, tmpfiles and a machine id. Other stages need --stage.
A second run changes nothing: it does again what cannot be told by looking (users,
tmpfiles, presets), which is harmless. Credentials for the host are handed over by a
boot alone. Each step is shown when it is done, with the marks of pilotlight plan.

example: pilotlight apply --config web.ign --root /mnt/target`,
		prepare: planOrApply(initrd.Apply),
	}
}

func planOrApply(mode initrd.Mode) func(*flag.FlagSet) func(*call) error {
	return func(f *flag.FlagSet) func(*call) error {
		file := f.String("config", "", "the config, a `file`, - for standard input")
		root := f.String("root", "", "the target's root `directory`")
		only := f.String("stage", "", "comma-separated `names` of stages, of "+strings.Join(stageNames(), ", "))
		base := f.String("base", "", "`directory` of base fragments that the config comes over")
		strict := f.Bool("strict", false, "unknown and duplicate keys in Ignition's part are faults")
		all := f.Bool("all", false, "name also what is so already")
		asJSON := f.Bool("json", false, "print JSON")
		return func(c *call) error {
			if err := c.none(); err != nil {
				return err
			}
			if *file == "" || *root == "" {
				return misused("--config and --root are needed")
			}
			dir, err := filepath.Abs(*root)
			if err != nil {
				return err
			}
			if err := isDirectory(dir); err != nil {
				return fmt.Errorf("root: %w", err)
			}
			names := "etc"
			if dir == initrd.BootRoot {
				names = "network,kargs,repart,disks,verity,root,etc"
			}
			if *only != "" {
				names = *only
			}
			t, o, err := loadFile(c, *file, *base, *strict)
			if err != nil {
				return err
			}
			t.facts.Root = dir
			// A plan is of a boot that has a place for its record. Whether this machine has one is
			// seen by the wish for the record, and a plan of another machine's boot cannot know.
			t.facts.Placed = mode == initrd.Plan
			c.show.all = *all
			return runStages(c, t, o, strings.Split(names, ","), mode, *asJSON)
		}
	}
}

// stageNames are the stages that can be named.
func stageNames() []string {
	var names []string
	for _, s := range stages.All {
		names = append(names, s.Name)
	}
	return names
}

// runStages runs stages on the machine that this process runs on, outside a boot.
func runStages(c *call, t told, o *outward, names []string, mode initrd.Mode, asJSON bool) error {
	var list []stages.Stage
	for _, name := range names {
		s, ok := stages.Named(name)
		if !ok {
			return misused("there is no stage %q", name)
		}
		list = append(list, s)
	}
	work, err := os.MkdirTemp("", "pilotlight-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	m, err := initrd.NewMachine(work, o.client)
	if err != nil {
		return err
	}
	defer m.Close()
	m.Tell = c.show.tell
	c.show.brush = c.show.paint()
	if mode == initrd.Plan {
		m.Wait = 0 // what an earlier step makes is not there yet, and will not come
	}

	var report []initrd.ReportedStage
	var sum tally
	var failed error
	for i, s := range list {
		want, err := t.wantOf(s)
		if err != nil {
			return err
		}
		var tell func(int, initrd.Outcome)
		if !asJSON {
			c.show.stage(i, s)
			if mode == initrd.Apply { // a plan keeps the order of the list
				tell = func(_ int, o initrd.Outcome) { c.show.planned(o) }
			}
		}
		before := sum.AsItIs
		out, err := initrd.Run(c.ctx, m, want, mode, tell)
		for _, o := range out {
			if !o.Reached {
				continue
			}
			sum.count(o)
			if !asJSON && mode == initrd.Plan {
				c.show.planned(o)
			}
		}
		report = append(report, initrd.ReportStage(s.Name, 0, 0, out))
		if !asJSON && (!c.show.all || len(want) == 0) {
			c.show.same(sum.AsItIs-before, len(want))
		}
		if err != nil {
			failed = err
			break
		}
	}
	if !asJSON {
		c.show.summary(sum, mode)
	}
	if asJSON {
		if err := c.show.json(map[string]any{"stages": report, "summary": sum}); err != nil {
			return err
		}
	}
	if failed != nil {
		if at := where(failed, documents(t.frozen)); at != "" {
			return fmt.Errorf("%w (%s)", failed, at)
		}
	}
	return failed
}

// loadFile makes a config of a file, with all that it pulls in, outside a boot.
func loadFile(c *call, name, base string, strict bool) (told, *outward, error) {
	o := newOutward(&initrd.Network{}, config.Knobs{}, c.show.tell)
	t, err := load(c, name, base, strict, o.fetch, o)
	if err == nil {
		err = o.follow(c.ctx, t.config)
	}
	return t, o, err
}

// load reads a config and what it pulls in. fetch gets the documents.
func load(c *call, name, base string, strict bool, fetch func(context.Context, []resource.Resource) ([][]byte, error), o *outward) (told, error) {
	raw, err := c.read(name)
	if err != nil {
		return told{}, err
	}
	var first []config.Document
	if base != "" {
		if first, err = baseFragments(base); err != nil {
			return told{}, err
		}
	}
	first = append(first, config.Document{Name: config.UserDocument, Source: name, Bytes: raw})
	got, err := config.Collect(c.ctx, first, fetch, nil, config.Options{Strict: strict, Settings: o.settings(c.ctx)})
	c.show.warnings(name, got.Report)
	var invalid *config.InvalidError
	if errors.As(err, &invalid) {
		return told{}, errShown
	}
	if err != nil {
		return told{}, err
	}
	f := initrd.Frozen{Boot: string(stages.First), Provision: newProvision()}
	f.Documents = frozenDocuments(got.Documents)
	if slices.ContainsFunc(wholes(&got.Config), func(r *resource.Resource) bool { return r.Remote() }) {
		if err := o.follow(c.ctx, got.Config); err != nil {
			return told{}, err
		}
	}
	if f.Parts, err = fetchWholes(c.ctx, &got.Config, fetch); err != nil {
		return told{}, err
	}
	return tell(f, got)
}
