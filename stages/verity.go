package stages

import (
	"fmt"

	"pilotlight/config"
	"pilotlight/initrd"
)

// Verity wishes that the devices of the config are open, at every boot. Where a kernel
// argument names the root hash of one, systemd opens it, and the config can only agree.
func Verity(in Input) ([]initrd.Step, error) {
	var steps []initrd.Step
	for _, v := range in.Config.Pilotlight.Verity {
		given, theirs := in.Facts.RootHashes[v.Name]
		if theirs && given != v.RootHash {
			return nil, &Error{"verity", v.Name, fmt.Errorf("the kernel arguments open it with root hash %s, and the config asks for %s", given, v.RootHash)}
		}
		step := initrd.Verity{Theirs: theirs, Name: v.Name, RootHash: v.RootHash, Data: v.Data, Hash: v.Hash, Options: verityOptions(v)}
		if v.RootHashSignature != nil {
			sig, err := v.RootHashSignature.Local()
			if err != nil {
				return nil, &Error{"verity", v.Name, fmt.Errorf("root hash signature: %w", err)}
			}
			step.Signature = sig
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// verityOptions are in the words of veritytab(5).
func verityOptions(v config.Verity) []string {
	var o []string
	switch v.OnCorruptionOrDefault() {
	case config.CorruptionRestart:
		o = append(o, "restart-on-corruption")
	case config.CorruptionPanic:
		o = append(o, "panic-on-corruption")
	case config.CorruptionIgnore:
		o = append(o, "ignore-corruption")
	}
	if f := v.FEC; f != nil {
		o = append(o, "fec-device="+f.Device, fmt.Sprintf("fec-offset=%d", f.Offset), fmt.Sprintf("fec-roots=%d", f.Roots))
	}
	return o
}
