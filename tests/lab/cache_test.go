package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCacheEntry(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	build := func(text string) func(context.Context, string) error {
		return func(_ context.Context, dir string) error {
			return os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644)
		}
	}
	first, err := c.entry(t.Context(), "thing", []string{"a", "b"}, build("first"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.entry(t.Context(), "thing", []string{"a", "b"}, build("second"))
	if err != nil || again != first {
		t.Fatalf("got %s, %v, want %s again", again, err, first)
	}
	if raw, err := os.ReadFile(filepath.Join(first, "f")); err != nil || string(raw) != "first" {
		t.Errorf("built twice: %q, %v", raw, err)
	}
	other, err := c.entry(t.Context(), "thing", []string{"ab", ""}, build("other"))
	if err != nil || other == first {
		t.Errorf("another recipe gives %s, %v", other, err)
	}
}

func TestCacheFailureLeavesNothing(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	broken := errors.New("broken")
	// What a builder that was killed left behind goes too.
	if err := os.MkdirAll(filepath.Join(c.Dir, "thing.new-1", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := c.entry(t.Context(), "thing", nil, func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want the builder's", err)
	}
	left, err := os.ReadDir(c.Dir)
	if err != nil || len(left) != 1 || left[0].Name() != "thing.lock" {
		t.Errorf("left behind: %q, %v", left, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.entry(ctx, "thing", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestCacheOneBuilder(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	var builds atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := c.entry(t.Context(), "thing", nil, func(context.Context, string) error {
				builds.Add(1)
				time.Sleep(20 * time.Millisecond)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("%d builds of one recipe", n)
	}
}

func TestCachePrune(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	dirs := map[int]string{}
	for i := range keep + 2 {
		dir, err := c.entry(t.Context(), "thing", []string{fmt.Sprint(i)}, func(context.Context, string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		dirs[i] = dir
		old := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for i, dir := range dirs {
		_, err := os.Stat(dir)
		if gone := errors.Is(err, os.ErrNotExist); gone != (i < 2) {
			t.Errorf("entry %d: gone is %v", i, gone)
		}
	}
}
