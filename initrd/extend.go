package initrd

import (
	"context"
	"errors"
	"fmt"

	"pilotlight/initrd/tpm"
)

// Extend wishes that a word was measured into a PCR in this boot.
type Extend struct {
	PCR      int
	Word     string // see tpm.Word
	Required bool   // without a TPM: an error, not a warning
}

func (e Extend) String() string { return fmt.Sprintf("measure %s into PCR %d", e.Word, e.PCR) }

// Touches is the TPM, whose extends must keep their order.
func (e Extend) Touches() []string { return []string{"tpm"} }

// Resolve looks for the word in this boot's event log.
func (e Extend) Resolve(look Look) (State, Act, error) {
	done, err := look.Measured(e.PCR, e.Word)
	switch {
	case errors.Is(err, ErrNoTPM) && !e.Required:
		return Moot, nil, err
	case err != nil:
		return unresolved, nil, err
	case done:
		return So, nil, nil
	}
	return NotSo, extend{e}, nil
}

// measured is the receipt of a word that is in the PCR but, because somebody
// else left the event log dirty, not in the log.
func measured(pcr int, word string) Receipt {
	return Receipt{Name: fmt.Sprintf("measured:%d:%s", pcr, word)}
}

type extend struct{ Extend }

func (e extend) do(ctx context.Context, m *Machine) error {
	d, err := tpm.Open(ctx, m.TPM)
	if err != nil {
		return err
	}
	defer d.Close()
	err = m.Log.Extend(d, e.PCR, e.Word)
	var incomplete *tpm.ExtendError
	if errors.As(err, &incomplete) && incomplete.Outcome == tpm.Extended {
		// The PCR has it. That the log cannot say so, such as after another program
		// left it unfinished, is not this boot's failure.
		m.say("%s is measured, but not logged: %v", e.Word, err)
		err = nil
	}
	if err == nil {
		m.leave(measured(e.PCR, e.Word))
	}
	return err
}

// Cap extends a PCR by tpm.FailedWord, whatever state the event log is in: what is
// sealed to a good boot can then not be unsealed any more. Without a TPM nothing
// is sealed, and there is nothing to do.
func (m *Machine) Cap(ctx context.Context, pcr int) error {
	d, err := tpm.Open(ctx, m.TPM)
	if errors.Is(err, tpm.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return m.Log.Cap(d, pcr)
}
