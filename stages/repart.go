package stages

import (
	"fmt"
	"math"
	"path"
	"strings"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// Repart wishes the partitions of the config, on the first boot alone. Before
// anything that could lose data the record says that provisioning has started.
func Repart(in Input) ([]initrd.Step, error) {
	if in.Facts.Boot == Later {
		return nil, nil
	}
	steps := []initrd.Step{initrd.Recorded{
		State: initrd.Started, Provision: in.Facts.Provision, Platform: in.Facts.Platform, Config: in.Facts.Digest,
	}}
	for _, r := range in.Config.Pilotlight.Repart {
		step, err := repart(r, in)
		if err != nil {
			return nil, &Error{"repart", r.Name, err}
		}
		if !in.mayLose() && (step.FactoryReset || step.Empty == config.EmptyForce) {
			return nil, &Error{"repart", r.Name, fmt.Errorf("it erases, and without a record every boot of this machine is a first boot: " +
				"say policy.disks: wipe if each boot shall erase")}
		}
		steps = append(steps, initrd.Spread{On: step.On, Of: r.Name}, step)
	}
	return steps, nil
}

// An Error is a fault of a config that shows only when its parts are seen together.
type Error struct {
	List string // the list of the section, such as "repart"; or one of Ignition's: "storage.disks"
	Name string // the entry
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %v", e.List, e.Name, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Entry tells where in a config the entry is: its list, and the key that has the name.
func (e *Error) Entry() (list []string, key string) {
	switch e.List {
	case "storage.disks", "storage.filesystems":
		return strings.Split(e.List, "."), "device"
	case "storage.luks", "storage.raid":
		return strings.Split(e.List, "."), "name"
	}
	return []string{"pilotlight", e.List}, "name"
}

func repart(r config.Repart, in Input) (initrd.Repart, error) {
	on, err := selector(r)
	if err != nil {
		return initrd.Repart{}, err
	}
	step := initrd.Repart{
		Name: r.Name, On: on, Empty: r.EmptyOrDefault(), Seed: r.Seed,
		FactoryReset: r.FactoryReset, Provision: in.Facts.Provision, PCRs: r.TPM2PCRs,
	}
	if r.KeyFile != nil {
		key, err := r.KeyFile.Local()
		if err != nil {
			return initrd.Repart{}, fmt.Errorf("keyFile: %w", err)
		}
		secret := resource.NewSecret(string(key))
		step.Key = &secret
	}
	step.Definitions, err = definitions(r, in.Config.Pilotlight.Measure.PCROrDefault())
	return step, err
}

// selector says in initrd's words which disk an entry is about.
func selector(r config.Repart) (initrd.Selector, error) {
	if r.Match == nil {
		return initrd.Selector{Device: r.Device}, nil
	}
	least, most, err := r.Match.SizeBounds()
	if err != nil {
		return initrd.Selector{}, err
	}
	m := disk.Match{
		Serial: r.Match.Serial, WWN: r.Match.WWN, Model: r.Match.Model, Transport: r.Match.Transport,
		SizeMin: int64(min(least, math.MaxInt64)),
	}
	if r.Match.SizeMax != "" {
		m.SizeMax = int64(min(most, math.MaxInt64))
	}
	return initrd.Selector{Match: m}, nil
}

// definitions gives the repart.d files of an entry. Their contents are at hand:
// remote ones were fetched with the config. measured is the PCR that configs go into.
func definitions(r config.Repart, measured int) ([]initrd.Definition, error) {
	var list []initrd.Definition
	for _, d := range r.Definitions {
		contents, err := d.Contents.Local()
		if err != nil {
			return nil, fmt.Errorf("definition %s: %w", d.Name, err)
		}
		def := initrd.Definition{Name: d.Name, Contents: contents}
		if err := sealable(r, def, measured); err != nil {
			return nil, fmt.Errorf("definition %s: %w", d.Name, err)
		}
		list = append(list, def)
	}
	return list, nil
}

// partitionType is what Type= says (repart.d(5)).
func partitionType(d initrd.Definition) (disk.GUID, error) {
	return disk.TypeByName(d.Value("Partition", "Type"))
}

// A place is a definition that says what is to be mounted where.
type place struct {
	entry  string // of the list repart
	source initrd.Source
	where  string
	said   bool // by MountPoint=, not only by the type
	types  string
	option string
}

// places reads from the definitions which partitions are mounted: the one of the
// type root at "/", and those with MountPoint= (repart.d(5)).
func places(c config.Config) ([]place, error) {
	root, err := disk.TypeByName("root")
	if err != nil {
		return nil, err
	}
	var list []place
	err = eachDefinition(c, func(r config.Repart, on initrd.Selector, d initrd.Definition) error {
		guid, err := partitionType(d)
		if err != nil {
			return err
		}
		where, options, _ := strings.Cut(d.Value("Partition", "MountPoint"), ":")
		said := where != ""
		if !said && guid == root {
			where = "/"
		}
		if where == "" {
			return nil
		}
		source := initrd.Source{Disk: on, Type: guid, Name: d.Value("Partition", "Label")}
		locked, err := lock(r, d, on)
		if err != nil {
			return err
		}
		if locked != nil {
			source = initrd.Source{Path: locked.Mapper()}
		}
		list = append(list, place{
			entry: r.Name, source: source,
			where: path.Clean(where), said: said, types: d.Value("Partition", "Format"), option: options,
		})
		return nil
	})
	return list, err
}

// eachDefinition goes through the definitions of all entries. What is wrong with one is
// told with where it stands.
func eachDefinition(c config.Config, do func(config.Repart, initrd.Selector, initrd.Definition) error) error {
	for _, r := range c.Pilotlight.Repart {
		on, err := selector(r)
		if err != nil {
			return &Error{"repart", r.Name, err}
		}
		defs, err := definitions(r, c.Pilotlight.Measure.PCROrDefault())
		if err != nil {
			return &Error{"repart", r.Name, err}
		}
		for _, d := range defs {
			if err := do(r, on, d); err != nil {
				return &Error{"repart", r.Name, fmt.Errorf("definition %s: %w", d.Name, err)}
			}
		}
	}
	return nil
}
