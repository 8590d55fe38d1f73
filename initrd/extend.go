package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"pilotlight/initrd/tpm"
)

// Extend wishes that a word was measured into a PCR in this boot.
//
// Where no TPM answers it is moot, and an error if it is Required. A TPM answers if
// it says which banks it has. One that is not there, is in failure mode, says
// nothing or talks nonsense gives no answer; a boot that goes on without it leaves
// the PCR without the measurement, and so with a value that no good boot ends with:
// nothing that is sealed to a good boot can be unsealed. One that does answer must
// take the measurement: everything that goes wrong from there on is an error, since
// nobody could say what the PCR holds.
//
// A TPM that must be there is waited for, like any device: where the firmware has
// one, and where one is Required.
type Extend struct {
	PCR      int
	Word     string // see tpm.Word
	Required bool   // without a TPM that answers: an error, not a warning
}

func (e Extend) String() string { return fmt.Sprintf("measure %s into PCR %d", e.Word, e.PCR) }

// Touches is the TPM, whose extends must keep their order.
func (e Extend) Touches() []string { return []string{"tpm"} }

// Resolve looks for the word in this boot's event log.
func (e Extend) Resolve(look Look) (State, Act, error) {
	var done bool
	var err error
	if a, ok := look.(answering); ok {
		err = a.answers(e.Required)
	}
	if err == nil {
		done, err = look.Measured(e.PCR, e.Word)
	}
	switch {
	case (errors.Is(err, ErrNoTPM) || errors.Is(err, ErrSilentTPM)) && !e.Required:
		return Moot, nil, err
	case err != nil:
		return unresolved, nil, err
	case done:
		return So, nil, nil
	}
	return NotSo, extend{e}, nil
}

// ErrSilentTPM says that there is a TPM which gives no answer that could be used.
var ErrSilentTPM = errors.New("the TPM of this machine does not answer")

// answering is a look at a machine that may have a TPM which has to be waited for.
type answering interface {
	// answers says why no TPM answers: ErrNoTPM, ErrSilentTPM, or any other error
	// when that cannot be told.
	answers(required bool) error
}

func (l look) answers(required bool) error { return l.m.answers(l.ctx, required) }

// silent is how this process remembers that the TPM gave no answer, so that not
// every document waits for it anew. It is no receipt on disk: another unit asks again.
func silent() Receipt { return Receipt{Name: "tpm:silent"} }

func (m *Machine) answers(ctx context.Context, required bool) error {
	if m.Look(ctx).Done(silent()) {
		return ErrSilentTPM
	}
	d, err := m.openTPM(ctx, required)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Banks(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx) // it is this boot that had no time left
		}
		m.mu.Lock()
		m.receipts[silent()] = true
		m.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrSilentTPM, err)
	}
	return nil
}

// openTPM opens the TPM. One that is not there is ErrNoTPM: at once, or, where the
// firmware has one or the config requires one, after the machine's time for devices.
func (m *Machine) openTPM(ctx context.Context, required bool) (*tpm.Device, error) {
	open := func() (*tpm.Device, error) {
		d, err := tpm.Open(ctx, m.TPM)
		if errors.Is(err, tpm.ErrAbsent) {
			return nil, absentf("there is no %s", m.TPM)
		}
		return d, err
	}
	expected, err := m.firmwareTPM()
	if err != nil {
		return nil, err
	}
	if !expected && !required {
		d, err := open()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoTPM
		}
		return d, err
	}
	d, err := waitFor(ctx, m, "the TPM", open)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return d, err
	case expected:
		return nil, fmt.Errorf("%w that can be used, though its firmware has one (is its driver in this initrd?): %w", ErrNoTPM, err)
	}
	return nil, fmt.Errorf("%w, and measure.required asks for one: %w", ErrNoTPM, err)
}

// firmwareTPM says whether the firmware has a TPM, by the signs that
// systemd-tpm2-generator(8) goes by: the ACPI table, or an event log.
func (m *Machine) firmwareTPM() (bool, error) {
	for _, sign := range []string{"firmware/acpi/tables/TPM2", "kernel/security/tpm0/binary_bios_measurements"} {
		if _, err := fs.Stat(m.Disks.Sys, sign); err == nil {
			return true, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
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
	unlogged := errors.As(err, &incomplete) && incomplete.Outcome == tpm.Extended
	if err != nil && !unlogged {
		return err
	}
	m.leave(measured(e.PCR, e.Word))
	if !unlogged {
		return nil
	}
	// The PCR has it. That the log cannot say so, such as after another program
	// left it unfinished, is not this boot's failure.
	warning := fmt.Sprintf("%s is measured, but not logged: %v", e.Word, err)
	m.say("%s", warning)
	return m.Amend(func(r *Report) { r.Warnings = append(r.Warnings, warning) })
}

// capTime bounds Cap, with all that it waits for.
const capTime = 2 * time.Minute

// Cap extends a PCR by tpm.FailedWord, whatever state the event log is in: what is
// sealed to a good boot can then not be unsealed any more. Without a TPM nothing
// is sealed, and there is nothing to do; but a TPM that the firmware has or the
// config requires, and that is not there within the time for devices, may still come
// when somebody loads its driver: that is ErrNoTPM, as one that gives no answer is
// an error. It takes two minutes at most.
func (m *Machine) Cap(ctx context.Context, pcr int, required bool) error {
	ctx, cancel := context.WithTimeout(ctx, capTime)
	defer cancel()
	d, err := m.openTPM(ctx, required)
	if err == ErrNoTPM { // and nothing more: none is expected
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return m.Log.Cap(d, pcr)
}
