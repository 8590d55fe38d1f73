package initrd

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// entrant ends after a while, well or not.
type entrant struct {
	name  string
	after time.Duration
	err   error
	deaf  bool // does not heed its context
}

func TestRace(t *testing.T) {
	no := errors.New("no")
	second := time.Second
	for name, c := range map[string]struct {
		list  []entrant
		won   string
		took  time.Duration
		begun string // names in the order in which they began
		drop  string
	}{
		"the first is quick":           {[]entrant{{"a", second / 2, nil, false}, {"b", 0, nil, false}}, "a", second / 2, "a", ""},
		"the first is dead":            {[]entrant{{"a", time.Hour, nil, false}, {"b", second / 2, nil, false}}, "b", second * 3 / 2, "ab", ""},
		"the first fails at once":      {[]entrant{{"a", 0, no, false}, {"b", second / 2, nil, false}, {"c", 0, nil, false}}, "b", second / 2, "ab", ""},
		"slow, but first all the same": {[]entrant{{"a", 2 * second, nil, false}, {"b", 5 * second, nil, false}, {"c", 5 * second, nil, false}}, "a", 2 * second, "abc", ""},
		"who fails later wakes nobody": {[]entrant{{"a", time.Hour, nil, false}, {"b", second / 2, no, false}, {"c", second / 2, nil, false}}, "c", second * 5 / 2, "abc", ""},
		"all fail":                     {[]entrant{{"a", second / 4, no, false}, {"b", second / 4, errors.New("never"), false}}, "", second / 2, "ab", ""},
		"the loser is through too":     {[]entrant{{"a", second * 3 / 2, nil, true}, {"b", second / 4, nil, false}}, "b", second * 3 / 2, "ab", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				started := time.Now()
				begun, dropped := make(chan string, len(c.list)), ""
				won, err := race(t.Context(), second, c.list, func(ctx context.Context, e entrant) (string, error) {
					begun <- e.name
					if e.deaf {
						time.Sleep(e.after)
						return e.name, e.err
					}
					select {
					case <-time.After(e.after):
						return e.name, e.err
					case <-ctx.Done():
						return "", ctx.Err()
					}
				}, func(s string) { dropped += s })
				close(begun)
				order := ""
				for s := range begun {
					order += s
				}
				if won != c.won || (err == nil) != (c.won != "") || time.Since(started) != c.took || order != c.begun || dropped != c.drop {
					t.Errorf("%q won after %v, began %q, dropped %q: %v", won, time.Since(started), order, dropped, err)
				}
				if err != nil && (!errors.Is(err, no) || err.Error() != "no; never") {
					t.Errorf("error %v", err)
				}
			})
		})
	}
	t.Run("its caller gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*second)
			defer cancel()
			_, err := race(ctx, second, []int{1, 2}, func(ctx context.Context, _ int) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}, func(int) {})
			if !errors.Is(err, context.DeadlineExceeded) || strings.Count(err.Error(), "deadline") != 1 {
				t.Errorf("error %v", err)
			}
		})
	})
}
