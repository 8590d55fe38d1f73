package initrd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is a host whose machine is a set of words. A toy wishes that its word is in it.
type world struct {
	Look // nil: toys look at the world itself
	mu   sync.Mutex
	so   map[string]bool
	did  []string
	do   func(toy) error
}

func (w *world) Do(_ context.Context, a Act) error {
	t := a.(toyAct).toy
	if w.do != nil {
		if err := w.do(t); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, t.word)
	w.so[t.word] = true
	return nil
}

type worldHost struct{ *world }

func (w worldHost) Look(context.Context) Look { return w.world }

type toy struct {
	word    string
	touches []string
	needs   string // a word that an earlier step makes
	moot    error
	fault   error
}

func (t toy) String() string    { return "wish " + t.word }
func (t toy) Touches() []string { return append([]string{t.word}, t.touches...) }

func (t toy) Lingers() bool { return true }

func (t toy) Resolve(l Look) (State, Act, error) {
	w := l.(*world)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case t.fault != nil:
		return unresolved, nil, t.fault
	case t.moot != nil:
		return Moot, nil, t.moot
	case t.needs != "" && !w.so[t.needs]:
		return After, nil, fmt.Errorf("%s is not there", t.needs)
	case w.so[t.word]:
		return So, nil, nil
	}
	return NotSo, toyAct{t}, nil
}

type toyAct struct{ toy }

func (a toyAct) String() string                     { return "make " + a.word }
func (a toyAct) do(context.Context, *Machine) error { panic("not on a machine") }
func newWorld(so ...string) *world {
	w := &world{so: map[string]bool{}}
	for _, s := range so {
		w.so[s] = true
	}
	return w
}

func states(out []Outcome) string {
	var s []string
	for _, o := range out {
		s = append(s, o.State.String())
	}
	return strings.Join(s, " ")
}

func TestPlanDoesNothing(t *testing.T) {
	w := newWorld("b")
	steps := []Step{toy{word: "a"}, toy{word: "b"}, toy{word: "c", needs: "a", touches: []string{"a"}}, toy{word: "d", moot: errors.New("no")}}
	out, err := Run(t.Context(), worldHost{w}, steps, Plan, nil)
	if err != nil || len(w.did) > 0 {
		t.Fatalf("err %v, did %v", err, w.did)
	}
	if got := states(out); got != "not so so after moot" {
		t.Errorf("states: %s", got)
	}
	if out[0].Deed != "make a" || out[0].Changed {
		t.Errorf("%+v", out[0])
	}
}

func TestApplyMakesItSoAndThenDoesNothing(t *testing.T) {
	w := newWorld()
	steps := []Step{toy{word: "a"}, toy{word: "b", needs: "a", touches: []string{"a"}}}
	out, err := Run(t.Context(), worldHost{w}, steps, Apply, nil)
	if err != nil || !slices.Equal(w.did, []string{"a", "b"}) || !out[1].Changed {
		t.Fatalf("err %v, did %v, %+v", err, w.did, out)
	}
	out, err = Run(t.Context(), worldHost{w}, steps, Apply, nil)
	if err != nil || len(w.did) != 2 || states(out) != "so so" || out[0].Changed {
		t.Fatalf("second run: err %v, did %v, %s", err, w.did, states(out))
	}
}

func TestFirstErrorInListOrderIsTold(t *testing.T) {
	slow, fast := errors.New("slow"), errors.New("fast")
	release := make(chan struct{})
	w := newWorld()
	w.do = func(s toy) error {
		switch s.word {
		case "a":
			<-release
			return slow
		case "b":
			defer close(release)
			return fast
		}
		return nil
	}
	// c conflicts with b, so it can begin only when the failure is known.
	steps := []Step{toy{word: "a"}, toy{word: "b"}, toy{word: "c", touches: []string{"b"}}}
	out, err := Run(t.Context(), worldHost{w}, steps, Apply, nil)
	var failed *Error
	if !errors.Is(err, slow) || !errors.As(err, &failed) || failed.Step.String() != "wish a" {
		t.Fatalf("error: %v", err)
	}
	if out[2].Reached || out[2].Wish != "wish c" {
		t.Errorf("c was begun after a failure: %+v", out[2])
	}
}

func TestLyingHostIsCaught(t *testing.T) {
	w := newWorld()
	w.so = map[string]bool{}
	lying := lyingHost{worldHost{w}}
	_, err := Run(t.Context(), lying, []Step{toy{word: "a"}}, Apply, nil)
	if !errors.Is(err, ErrStillNotSo) {
		t.Fatalf("error: %v", err)
	}
}

type lyingHost struct{ worldHost }

func (lyingHost) Do(context.Context, Act) error { return nil }

func TestWhatNobodyMadeIsAnError(t *testing.T) {
	_, err := Run(t.Context(), worldHost{newWorld()}, []Step{toy{word: "a", needs: "ghost"}}, Apply, nil)
	if !errors.Is(err, ErrStillAfter) || !strings.Contains(err.Error(), "ghost is not there") {
		t.Fatalf("error: %v", err)
	}
}

func TestCannotLookIsAnError(t *testing.T) {
	blind := errors.New("blind")
	for _, mode := range []Mode{Plan, Apply} {
		w := newWorld()
		_, err := Run(t.Context(), worldHost{w}, []Step{toy{word: "a", fault: blind}, toy{word: "b", touches: []string{"a"}}}, mode, nil)
		if !errors.Is(err, blind) || len(w.did) > 0 {
			t.Errorf("mode %v: error %v, did %v", mode, err, w.did)
		}
	}
}

type unsure struct{ toy }

func (unsure) Resolve(Look) (State, Act, error) { return unresolved, nil, nil }

func TestAStepThatDoesNotSayIsAnError(t *testing.T) {
	if _, err := Run(t.Context(), worldHost{newWorld()}, []Step{unsure{toy{word: "a"}}}, Plan, nil); err == nil {
		t.Fatal("no error")
	}
}

func TestStepsThatTouchNothingInCommonOverlap(t *testing.T) {
	var w *world
	meet := make(chan struct{})
	w = newWorld()
	w.do = func(s toy) error {
		// Each needs the other to be under way.
		select {
		case meet <- struct{}{}:
		case <-meet:
		case <-time.After(10 * time.Second):
			return errors.New("they did not overlap")
		}
		return nil
	}
	if _, err := Run(t.Context(), worldHost{w}, []Step{toy{word: "/a/x"}, toy{word: "/a/y"}}, Apply, nil); err != nil {
		t.Fatal(err)
	}
}

func TestConflicts(t *testing.T) {
	steps := []Step{
		toy{word: "/s/etc/a"}, // 0
		toy{word: "/s/etc/b"}, // 1
		toy{word: "/s/etc"},   // 2: above both
		toy{word: "/s/etc/a/deep"},
		toy{word: "tpm"},
		toy{word: "tpm"},
		toy{word: "/s/etcetera"},
	}
	want := [][]int{nil, nil, {0, 1}, {2, 0}, nil, {4}, nil}
	got := conflicts(steps)
	for i := range want {
		slices.Sort(got[i])
		slices.Sort(want[i])
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("step %d waits for %v, want %v", i, got[i], want[i])
		}
	}
}

func TestCancelledRunBeginsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := newWorld()
	out, err := Run(ctx, worldHost{w}, []Step{toy{word: "a"}}, Apply, nil)
	if !errors.Is(err, context.Canceled) || len(w.did) > 0 || out[0].Reached {
		t.Fatalf("err %v, did %v", err, w.did)
	}
}

// settling is a host that has to be waited for.
type settling struct {
	worldHost
	after []int // how many deeds were done when it was asked
	err   error
}

func (s *settling) Settle() error {
	s.after = append(s.after, len(s.did))
	return s.err
}

// TestWhatWasChangedSettlesOnce, after the last deed; what changed nothing waits for nothing.
func TestWhatWasChangedSettlesOnce(t *testing.T) {
	lost := errors.New("the disk is gone")
	for _, c := range []struct {
		mode Mode
		so   []string
		err  error
		want []int
	}{{Apply, nil, nil, []int{2}}, {Apply, nil, lost, []int{2}}, {Plan, nil, nil, nil}, {Apply, []string{"a", "b"}, lost, nil}} {
		host := &settling{worldHost: worldHost{newWorld(c.so...)}, err: c.err}
		_, err := Run(t.Context(), host, []Step{toy{word: "a"}, toy{word: "b"}}, c.mode, nil)
		if !slices.Equal(host.after, c.want) || c.want != nil && !errors.Is(err, c.err) || c.want == nil && err != nil {
			t.Errorf("mode %v: asked after %v deeds, want %v; error %v", c.mode, host.after, c.want, err)
		}
	}
}

func TestLastingBelow(t *testing.T) {
	got := lastingBelow([]Mounted{
		{Where: "/", Type: "rootfs"}, {Where: "/sysroot", Type: "ext4"}, {Where: "/sysroot/usr", Type: "erofs", ReadOnly: true},
		{Where: "/sysroot/var", Type: "ext4"}, {Where: "/sysroot/tmp", Type: "tmpfs"}, {Where: "/sysrootish", Type: "ext4"},
	}, BootRoot)
	if want := []string{"/sysroot", "/sysroot/var"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
