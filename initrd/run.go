package initrd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Outcome is what became of one step.
type Outcome struct {
	Wish    string        // Step.String
	State   State         // how it stood when it was first looked at
	Deed    string        // Act.String, where there was one
	Effect  Effect        // of the deed
	Lost    []string      // what it destroys
	Changed bool          // the deed was done, and a second look saw the wish fulfilled
	Why     error         // of Moot and After: the reason
	Took    time.Duration // looking and doing
	Err     error         // what went wrong; nil also for a step that was never reached
	Reached bool
}

// A Mode says which parts of the loop run.
type Mode int

// The modes of Run.
const (
	Plan  Mode = iota // look only
	Apply             // look, do, look again
)

// Overlap is how many steps may be under way at once. It is the bound on
// concurrent downloads too, since a remote file is one step.
const Overlap = 50

// Lingering is a step that may wait long for somebody else, such as a server. Only
// such steps are begun and left to themselves; what is done in microseconds is done
// at once, since handing it to another thread would take longer.
type Lingering interface{ Lingers() bool }

// Settling is a host whose deeds may still be on their way to a disk when they are done.
type Settling interface {
	// Settle returns when they have arrived.
	Settle() error
}

// An Error says which step failed, and keeps what it wanted.
type Error struct {
	Step Step
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// ErrStillNotSo is the fault of a deed that ended well and yet changed nothing.
var ErrStillNotSo = errors.New("done without an error, and yet it is not so")

// ErrStillAfter is the fault of a step that waits for something which no earlier step made.
var ErrStillAfter = errors.New("what it needs was not made by any earlier step")

// Run is the one loop. It takes the steps in order; steps that touch nothing in
// common overlap. In mode Apply each wish that is not so is made so and looked
// at again: a deed that ended well without its wish coming true is an error.
// After the first failure nothing new begins.
//
// What was changed is on the disk when Run returns without an error, if the host
// knows to wait for that ([Settling]): once for all steps, not for each.
//
// Outcomes are in list order, one for each step. The error is that of the first
// step, in list order, that failed, as an *Error. tell, where not nil, hears of
// each outcome when it is known; it is called by one goroutine at a time.
func Run(ctx context.Context, host Host, steps []Step, mode Mode, tell func(int, Outcome)) ([]Outcome, error) {
	outcomes := make([]Outcome, len(steps))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		failed bool
		done   = make([]chan struct{}, len(steps))
		slots  = make(chan struct{}, Overlap)
		waits  = conflicts(steps)
	)
	for i := range steps {
		done[i] = make(chan struct{})
	}
	stop := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failed || ctx.Err() != nil
	}
	ended := func(i int, o Outcome) {
		defer close(done[i])
		mu.Lock()
		defer mu.Unlock()
		outcomes[i] = o
		if o.Err != nil {
			failed = true
		}
		if tell != nil && o.Reached {
			tell(i, o)
		}
	}
	// Deeds that are done together are collected as long as nothing else comes between.
	crowd := crowd{ctx: ctx, host: host, ended: ended}
	for i := range steps {
		if slices.ContainsFunc(waits[i], crowd.has) {
			crowd.do()
		}
		// A step takes its slot in list order, after all that it must wait for:
		// the list's head can therefore always move on.
		for _, j := range waits[i] {
			<-done[j]
		}
		if stop() {
			crowd.do()
			close(done[i])
			continue
		}
		if l, ok := steps[i].(Lingering); ok && l.Lingers() {
			crowd.do()
			slots <- struct{}{}
			if stop() {
				<-slots
				close(done[i])
				continue
			}
			wg.Go(func() {
				defer func() { <-slots }()
				ended(i, one(ctx, host, steps[i], mode))
			})
			continue
		}
		o, act := looked(ctx, host, steps[i], mode)
		if act != nil && crowd.takes(i, steps[i], o, act) {
			continue
		}
		if crowd.do(); stop() {
			close(done[i])
			continue
		}
		if act != nil {
			o = made(ctx, host, steps[i], act, o)
		}
		ended(i, o)
	}
	crowd.do()
	wg.Wait()
	for i := range outcomes {
		if !outcomes[i].Reached {
			outcomes[i].Wish = steps[i].String()
		}
	}
	for i := range outcomes {
		if err := outcomes[i].Err; err != nil {
			return outcomes, &Error{Step: steps[i], Err: err}
		}
	}
	if s, ok := host.(Settling); ok && slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Changed }) {
		if err := s.Settle(); err != nil {
			return outcomes, err
		}
	}
	return outcomes, context.Cause(ctx)
}

// one looks at, and in mode Apply does, a single step.
func one(ctx context.Context, host Host, step Step, mode Mode) Outcome {
	o, act := looked(ctx, host, step, mode)
	if act == nil {
		return o
	}
	return made(ctx, host, step, act, o)
}

// looked looks at a single step, and gives the deed that is to be done for it, if any.
func looked(ctx context.Context, host Host, step Step, mode Mode) (o Outcome, deed Act) {
	begin := time.Now()
	o.Wish, o.Reached = step.String(), true
	defer func() { o.Took = time.Since(begin) }()

	state, act, err := step.Resolve(host.Look(ctx))
	o.State = state
	if state == Moot || state == After {
		o.Why = err
		if state == After && mode == Apply {
			o.Err = ErrStillAfter
			if err != nil {
				o.Err = fmt.Errorf("%w: %w", err, ErrStillAfter)
			}
		}
		return o, nil
	}
	if err != nil {
		o.Err = err
		return o, nil
	}
	switch {
	case state == So:
		return o, nil
	case state != NotSo || act == nil:
		o.Err = fmt.Errorf("resolved to %v with deed %v: a fault of this program", state, act)
		return o, nil
	}
	o.Deed = act.String()
	if a, ok := act.(Affecting); ok {
		o.Effect, o.Lost = a.Effect()
	}
	if mode == Plan {
		return o, nil
	}
	return o, act
}

// made does the deed of a step that was looked at, and looks again.
func made(ctx context.Context, host Host, step Step, act Act, o Outcome) Outcome {
	begin := time.Now()
	if o.Err = host.Do(ctx, act); o.Err == nil {
		o = judged(ctx, host, step, o)
	}
	o.Took += time.Since(begin)
	return o
}

// judged looks at a step whose deed ended well.
func judged(ctx context.Context, host Host, step Step, o Outcome) Outcome {
	state, _, err := step.Resolve(host.Look(ctx))
	switch {
	case err != nil:
		o.Err = fmt.Errorf("after the deed: %w", err)
	case state != So:
		o.Err = ErrStillNotSo
	default:
		o.Changed = true
	}
	return o
}

// Reading is a step that looks at what others make. It waits for them, and those that
// come later wait for it; for others that only read the same it does not wait.
type Reading interface {
	// Reads names what is read, as Touches does what is changed.
	Reads() []string
}

// conflicts gives, for each step, the earlier ones that it must wait for: those
// that touch the same name, or a parent or child of it; and those that touch what it
// reads, or read what it touches. Words that are no absolute path stand for themselves.
func conflicts(steps []Step) [][]int {
	waits := make([][]int, len(steps))
	touched, read := claims{}, claims{}
	waiting := make([]int, len(steps)) // for each step, the last one that needs it
	for i, s := range steps {
		need := func(list []int) {
			for _, j := range list {
				if waiting[j] < i {
					waiting[j] = i
					waits[i] = append(waits[i], j)
				}
			}
		}
		var reads []string
		if r, ok := s.(Reading); ok {
			reads = r.Reads()
		}
		touches := s.Touches()
		for _, name := range touches {
			touched.related(name, need)
			read.related(name, need)
		}
		for _, name := range reads {
			touched.related(name, need)
		}
		for _, name := range touches {
			touched.add(name, i)
		}
		for _, name := range reads {
			read.add(name, i)
		}
	}
	return waits
}

// claims are steps by the names that they touch or read.
type claims map[string]*claim

type claim struct {
	at    []int // steps with exactly this name
	below []int // steps with a name below this one
}

func (c claims) of(name string) *claim {
	if c[name] == nil {
		c[name] = &claim{}
	}
	return c[name]
}

func (c claims) add(name string, step int) {
	c.of(name).at = append(c.of(name).at, step)
	for up := range upwards(name) {
		if up != name {
			c.of(up).below = append(c.of(up).below, step)
		}
	}
}

// related gives the steps of a name, of its parents, and of what is below it.
func (c claims) related(name string, each func([]int)) {
	for up := range upwards(name) {
		if there := c[up]; there != nil {
			each(there.at)
		}
	}
	if there := c[name]; there != nil {
		each(there.below)
	}
}

// upwards gives a name and, of an absolute path, the directories above it, nearest first.
func upwards(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			if !yield(name) || name == "/" || !strings.HasPrefix(name, "/") {
				return
			}
			name = name[:max(strings.LastIndexByte(name, '/'), 1)]
		}
	}
}
