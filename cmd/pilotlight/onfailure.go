package main

import (
	"time"

	"pilotlight/config"
	"pilotlight/initrd"
)

const (
	// inView is how long a failure stays on the console before a reboot.
	inView = 30 * time.Second
	// mostFailures is how many boots in a row may fail before reboots stop.
	mostFailures = 3
)

// onFailure carries out policy.onFailure. It runs before the emergency shell, for
// whatever led there: a shell in the initrd could unseal what a good boot may, so
// the failure is measured first.
func (b *boot) onFailure() error {
	t, err := b.thaw()
	if err != nil {
		// Whatever is wrong with the config or the record was told by the unit that
		// met it. What is left are the knobs and the defaults.
		t = told{}
	}
	report, err := b.machine.Report()
	if err != nil {
		b.show.tell(err.Error())
	}
	if report.Failure == nil {
		b.show.note("pilotlight: FAILED: something other than pilotlight brought this boot to emergency mode")
		b.show.note("pilotlight:   next: systemctl --failed and journalctl -b -p err name it")
	} else {
		for _, line := range report.Failure.Lines() {
			b.show.note("%s", line)
		}
	}
	counted, err := initrd.Counted()
	if err != nil {
		b.show.tell(err.Error())
	}
	knobs := b.knobs.Or(t.config)
	policy := config.Policy{OnFailure: knobs.OnFailure}.OnFailureOrDefault(counted)
	failures, err := b.machine.Failed()
	if err != nil {
		b.show.tell("failed boots could not be counted: " + err.Error())
	}
	if policy == config.OnFailureReboot && failures >= mostFailures {
		b.show.note("pilotlight: %d boots in a row failed: no further reboot", failures)
		policy = config.OnFailureEmergency
	}
	switch policy {
	case config.OnFailurePoweroff:
		b.show.note("pilotlight: powering off")
		return initrd.PowerOff()
	case config.OnFailureReboot:
		b.show.note("pilotlight: reboot in %d s", int(inView.Seconds()))
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(inView):
		}
		return initrd.Reboot()
	}
	if err := b.machine.Cap(b.ctx, t.config.Pilotlight.Measure.PCROrDefault()); err != nil {
		// Without that measurement a shell may unseal what it must not.
		b.show.note("pilotlight: the failure could not be measured (%v): powering off instead of giving a shell", err)
		return initrd.PowerOff()
	}
	b.show.note("pilotlight: the failure is measured; nothing that is sealed to a good boot can be unsealed now")
	return nil
}
