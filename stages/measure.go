package stages

import (
	"pilotlight/initrd"
	"pilotlight/initrd/tpm"
)

// Measure wishes one extend for each document, in their order. On the way to the
// whole config it is asked level by level, each before that level is parsed, with
// the policy of the image's base fragments; and once more with the whole config,
// when all that is left to find out is whether a TPM was required.
func Measure(in Input) ([]initrd.Step, error) {
	m := in.Config.Pilotlight.Measure
	var steps []initrd.Step
	for _, d := range in.Documents {
		steps = append(steps, initrd.Extend{
			PCR:      m.PCROrDefault(),
			Word:     tpm.Word(d.Name, d.Bytes),
			Required: m.Required != nil && *m.Required,
		})
	}
	return steps, nil
}
