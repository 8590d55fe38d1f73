package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
)

const (
	// inView is how long a failure stays on the console before a reboot.
	inView = 30 * time.Second
	// mostFailures is how many boots in a row may fail before reboots stop.
	mostFailures = 3
)

// ending is how a machine can end its boot, and what is known of who counts boots.
type ending struct {
	counted  func() (bool, error) // by the boot loader
	reboot   func() error         // returns only if it is refused
	powerOff func() error         // the same
	inView   time.Duration
	base     string // the directory of base fragments
}

// onFailure carries out policy.onFailure. It runs before the emergency shell, for
// whatever led there: a shell in the initrd could unseal what a good boot may, so
// the failure is measured first, and where it cannot be, there is no shell.
func (b *boot) onFailure() error {
	return b.end(ending{initrd.Counted, initrd.Reboot, initrd.PowerOff, inView, baseDir})
}

// end is onFailure with a given ending. It returns nil when there may be a shell.
//
//	poweroff    at once
//	reboot      after 30 s, as long as failed boots can be counted and are less than
//	            three in a row; else as emergency, so that no reboot is for ever
//	emergency   the failure is measured, and there is a shell
func (b *boot) end(e ending) error {
	b.tellFailure()
	t, unmeasurable := b.thawed(e.base)
	counted, err := e.counted()
	if err != nil {
		b.show.tell(err.Error())
	}
	policy := config.Policy{OnFailure: b.knobs.Or(t.config).OnFailure}.OnFailureOrDefault(counted)
	failures, err := b.machine.Failed()
	switch {
	case policy == config.OnFailureReboot && errors.Is(err, initrd.ErrNoPlace):
		b.show.note("pilotlight: there is no place where failed boots can be counted: no reboot, since nothing would ever end it")
		policy = config.OnFailureEmergency
	case policy == config.OnFailureReboot && err != nil:
		b.show.note("pilotlight: failed boots cannot be counted (%v): no reboot, since nothing would ever end it", err)
		policy = config.OnFailureEmergency
	case policy == config.OnFailureReboot && failures >= mostFailures:
		b.show.note("pilotlight: %d boots in a row failed: no further reboot", failures)
		policy = config.OnFailureEmergency
	case err != nil && !errors.Is(err, initrd.ErrNoPlace):
		b.show.tell("failed boots could not be counted: " + err.Error())
	}
	switch policy {
	case config.OnFailurePoweroff:
		b.show.note("pilotlight: powering off")
		err = e.powerOff()
	case config.OnFailureReboot:
		b.show.note("pilotlight: reboot in %d s", int(e.inView.Seconds()))
		if err := b.pause(e.inView); err != nil {
			return err
		}
		err = e.reboot()
	default:
		err = nil
	}
	if err != nil {
		b.show.note("pilotlight: refused: %v", err)
	}
	return b.shell(e, t.config.Pilotlight.Measure, unmeasurable)
}

// shell measures the failure, so that a shell can unseal nothing that a good boot may.
// Where that is not possible, or where it is not known which PCR it is about, it
// switches the machine off; where even that is refused, it does not return.
func (b *boot) shell(e ending, m config.Measure, unmeasurable error) error {
	err := unmeasurable
	if err == nil {
		err = b.machine.Cap(b.ctx, m.PCROrDefault(), m.Required != nil && *m.Required)
	}
	if err == nil {
		b.show.note("pilotlight: the failure is measured; nothing that is sealed to a good boot can be unsealed now")
		return nil
	}
	b.show.note("pilotlight: the failure could not be measured (%v): powering off in %d s instead of giving a shell", err, int(e.inView.Seconds()))
	if err := b.pause(e.inView); err != nil {
		return err
	}
	if err := e.powerOff(); err != nil {
		b.show.note("pilotlight: refused: %v", err)
	}
	<-b.ctx.Done()
	return b.ctx.Err()
}

func (b *boot) pause(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// tellFailure shows the three lines once more.
func (b *boot) tellFailure() {
	report, err := b.machine.Report()
	if err != nil {
		b.show.tell(err.Error())
	}
	if report.Failure == nil {
		b.show.note("pilotlight: FAILED: something other than pilotlight brought this boot to emergency mode")
		b.show.note("pilotlight:   next: systemctl --failed and journalctl -b -p err name it")
		return
	}
	for _, line := range report.Failure.Lines() {
		b.show.note("%s", line)
	}
}

// thawed is what this boot was told. Whatever is wrong with the config or the record
// was said by the unit that met it: what is left then are the knobs and what the image
// says. The error is about that: which PCR the image measures into is not known.
func (b *boot) thawed(base string) (told, error) {
	t, err := b.thaw()
	if err == nil {
		return t, nil
	}
	if errors.Is(err, initrd.ErrNotFrozen) {
		// It failed before, or has ended well already: where failures are counted was
		// not looked for.
		if b.memory, err = b.machine.Recall(b.ctx); err != nil {
			b.show.tell(err.Error())
		}
	}
	fragments, err := baseFragments(base)
	if err != nil {
		return told{}, err
	}
	// What a fragment pulls in is left out: a boot that failed fetches nothing.
	empty := func(_ context.Context, list []resource.Resource) ([][]byte, error) {
		bodies := make([][]byte, len(list))
		for i := range bodies {
			bodies[i] = []byte(`{"ignition": {"version": "3.0.0"}}`)
		}
		return bodies, nil
	}
	image, err := config.Collect(b.ctx, fragments, empty, nil, config.Options{Strict: b.knobs.Strict})
	if err != nil {
		return told{}, fmt.Errorf("the image's base fragments: %w", err)
	}
	return told{config: image.Config}, nil
}
