package initrd

import (
	"context"
	"strings"
	"time"
)

// race tries each of a list, the next one after a head start for those before it
// or at once where they have all failed, and gives what is there first (RFC 8305,
// section 5). So a dead one costs its head start and not the whole time. What
// comes too late goes to drop. All have ended when race returns, as far as try
// heeds its context.
func race[T, R any](ctx context.Context, head time.Duration, list []T, try func(context.Context, T) (R, error), drop func(R)) (R, error) {
	type outcome struct {
		n      int
		result R
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make(chan outcome, len(list))
	begun, ended := 0, 0
	errs := make([]error, len(list))
	begin := func() {
		n := begun
		begun++
		go func() {
			r, err := try(ctx, list[n])
			outcomes <- outcome{n, r, err}
		}()
	}
	// Whoever lost ends now, and is waited for.
	defer func() {
		cancel()
		for ; ended < begun; ended++ {
			if o := <-outcomes; o.err == nil {
				drop(o.result)
			}
		}
	}()
	timer := time.NewTimer(head)
	defer timer.Stop()
	begin()
	for {
		select {
		case o := <-outcomes:
			ended++
			if o.err == nil {
				return o.result, nil
			}
			errs[o.n] = o.err
			if ended == len(list) {
				var none R
				return none, lost(errs)
			}
			if ended < begun {
				continue
			}
		case <-timer.C:
		}
		if begun < len(list) {
			begin()
			timer.Reset(head)
		}
	}
}

// lost is why each of several failed, in one line. The same words are said once.
type lost []error

func (l lost) Error() string {
	var texts []string
	said := map[string]bool{}
	for _, err := range l {
		if text := err.Error(); !said[text] {
			said[text] = true
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

func (l lost) Unwrap() []error { return l }
