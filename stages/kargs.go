package stages

import "pilotlight/initrd"

// Kargs wishes Ignition's kernel arguments, on the first boot alone. It comes before
// anything that changes a disk: the distribution's helper may boot anew, and that boot
// is a first one again.
func Kargs(in Input) ([]initrd.Step, error) {
	k := in.Config.Ignition.KernelArguments
	if in.Facts.Boot == Later || len(k.ShouldExist)+len(k.ShouldNotExist) == 0 {
		return nil, nil
	}
	step := initrd.KernelArguments{Cmdline: in.Facts.Cmdline}
	for _, a := range k.ShouldExist {
		step.ShouldExist = append(step.ShouldExist, string(a))
	}
	for _, a := range k.ShouldNotExist {
		step.ShouldNotExist = append(step.ShouldNotExist, string(a))
	}
	return []initrd.Step{step}, nil
}
