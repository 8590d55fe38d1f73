package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"pilotlight/config/resource"
)

// Abreast is how many documents of a level are fetched at once.
const Abreast = 50

// A level is fetched at once, by what is known of fetching when it begins. But Ignition
// fetches one document after the other, and what the first says of timeouts, authorities
// and proxies holds for the second. So the documents are taken in their order, and where
// one has changed how those after it are to be fetched, they are fetched anew:
//
//	child 1  ────▶ taken             says: proxy p
//	child 2  ────▶ thrown away       ────▶ through p
//	child 3  ─ ─ ─ given up          ────▶ through p
//
// What has come is thrown away only if it would have gone another way, through another
// proxy, or none. Under other timeouts, or with more authorities to trust, it would be the
// same bytes. A server may give its answer only once, to who has a one-time token: if it
// refuses the second request, the first answer stands.
type flight struct {
	source  resource.Resource
	earlier []byte // what came the other way; nil for nothing

	cancel context.CancelFunc
	done   chan struct{}
	body   []byte
	err    error
}

// take fetches, measures and parses the documents of a level.
func (c *collector) take(ctx context.Context, depth int) error {
	flights, err := c.depart(ctx, depth)
	if err != nil {
		return err
	}
	defer func() { // nothing is left behind, however this ends
		for _, f := range flights {
			f.stop()
		}
	}()
	for from := 0; from < len(c.level); {
		to := len(c.level)
		if flights != nil {
			if to, err = c.land(flights, from); err != nil {
				return &CollectError{depth, "fetch", err}
			}
		}
		before := c.known
		if err := c.read(c.level[from:to], depth); err != nil {
			return err
		}
		if from = to; from == len(c.level) {
			return nil
		}
		if err := c.divert(ctx, flights[from:], before, depth); err != nil {
			return err
		}
	}
	return nil
}

// depart begins to fetch a level. Where nobody follows what documents say of fetching, it
// is fetched by one call, and nil is returned: so a level of frozen documents is read.
func (c *collector) depart(ctx context.Context, depth int) ([]*flight, error) {
	if len(c.wanted) == 0 {
		return nil, nil
	}
	if c.options.Settings == nil || len(c.wanted) == 1 {
		err := ctx.Err()
		var bodies [][]byte
		if err == nil {
			bodies, err = c.fetch(ctx, c.wanted)
		}
		if err == nil && len(bodies) != len(c.wanted) {
			err = fmt.Errorf("%d documents came for %d references", len(bodies), len(c.wanted))
		}
		if err != nil {
			return nil, &CollectError{depth, "fetch", err}
		}
		for i, p := range c.level {
			p.Bytes = bodies[i]
		}
		return nil, nil
	}
	flights := make([]*flight, len(c.wanted))
	for i, r := range c.wanted {
		flights[i] = &flight{source: r}
	}
	c.start(ctx, flights)
	return flights, nil
}

// start fetches side by side. The first in the list begin first.
func (c *collector) start(ctx context.Context, flights []*flight) {
	slots := make(chan struct{}, Abreast)
	var wait sync.WaitGroup
	for _, f := range flights {
		own, cancel := context.WithCancel(ctx)
		f.cancel, f.done = cancel, make(chan struct{})
		wait.Add(1)
		go func() {
			defer close(f.done)
			defer cancel()
			wait.Done()
			select {
			case slots <- struct{}{}:
			case <-own.Done():
				f.err = own.Err()
				return
			}
			defer func() { <-slots }()
			f.body, f.err = c.one(own, f.source)
			if f.earlier != nil && (errors.Is(f.err, resource.ErrRefused) || errors.Is(f.err, resource.ErrNotFound)) {
				f.body, f.err = f.earlier, nil
			}
		}()
		wait.Wait()
	}
}

func (c *collector) one(ctx context.Context, r resource.Resource) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bodies, err := c.fetch(ctx, []resource.Resource{r})
	if err == nil && len(bodies) != 1 {
		err = fmt.Errorf("%d documents came for 1 reference", len(bodies))
	}
	if err != nil {
		return nil, err
	}
	return bodies[0], nil
}

// stop ends a flight, and returns when it has ended.
func (f *flight) stop() {
	f.cancel()
	<-f.done
}

func (f *flight) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// land waits for documents in their order, as many as can be measured and parsed together:
// up to one that may say something of how those after it are fetched.
func (c *collector) land(flights []*flight, from int) (to int, err error) {
	for i := from; i < len(flights); i++ {
		<-flights[i].done
		if err := flights[i].err; err != nil {
			return 0, err
		}
		c.level[i].Bytes = flights[i].body
		if mayDirect(flights[i].body) {
			return i + 1, nil
		}
	}
	return len(flights), nil
}

// mayDirect says whether a document that is not measured yet could say something of
// fetching. It is not read for that: only whether certain bytes are in it is looked at, and
// that decides nothing but in how many parts the level is measured.
func mayDirect(raw []byte) bool {
	for _, c := range raw {
		if c >= 0x80 {
			return true // a letter that is one of those in another case, perhaps
		}
	}
	lower := bytes.ToLower(raw)
	for _, word := range []string{"timeouts", "proxy", "security", `\u`} {
		if bytes.Contains(lower, []byte(word)) {
			return true
		}
	}
	return false
}

// divert begins anew what would be fetched otherwise by what is known now.
func (c *collector) divert(ctx context.Context, rest []*flight, before Config, depth int) error {
	was, err := before.Settings()
	if err != nil {
		return &CollectError{depth, "settings", err}
	}
	is, err := c.known.Settings()
	if err != nil {
		return &CollectError{depth, "settings", err}
	}
	if reflect.DeepEqual(was, is) {
		return nil
	}
	otherWay := was.HTTPProxy.Reveal() != is.HTTPProxy.Reveal() || was.HTTPSProxy.Reveal() != is.HTTPSProxy.Reveal() || !reflect.DeepEqual(was.NoProxy, is.NoProxy)
	var again []*flight
	for _, f := range rest {
		if !f.source.Remote() {
			continue
		}
		arrived := f.ended() && f.err == nil
		if arrived && !otherWay {
			continue
		}
		f.stop()
		if f.err == nil {
			f.earlier = f.body
		}
		if f.err == nil && !otherWay {
			continue // it came at the last moment
		}
		again = append(again, f)
	}
	c.options.Settings(is)
	c.start(ctx, again)
	return nil
}
