package resource

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrNobody is what a function of [Account] fails with where the machine's cloud was
// asked, and trusts it with nothing. Whatever it asks a store for it asks anonymously.
var ErrNobody = errors.New("this machine has no identity")

// An Account is as whom a machine asks the stores of its own cloud. Functions that are
// nil belong to clouds in which it is not, and its platform decides that: nothing here
// asks any address by itself. Their errors are told to people, and fail the fetch,
// but for [ErrNobody]. What they return is used for a few minutes, in which they are not
// called again.
//
// It also remembers what stores said of themselves. The zero value, and nil, is
// nobody. It may be used by many at once, and must not be copied.
type Account struct {
	AWS    func(context.Context) (Keys, error)   // keys of the machine's role, for s3 and arn
	Region func(context.Context) (string, error) // of AWS in which it runs, as eu-west-1
	Google func(context.Context) (Secret, error) // an OAuth access token, for gs
	Azure  func(context.Context) (Secret, error) // the same, for https to blob storage

	aws           remembered[Keys]
	region        remembered[string]
	google, azure remembered[Secret]

	mu      sync.Mutex
	regions map[string]string // of buckets
	skew    time.Duration     // by which the clock of AWS is ahead of ours
}

// Keys prove to AWS who asks.
type Keys struct {
	ID      string
	Secret  Secret
	Session Secret
}

// lasting is how long what the functions of an Account gave is used. Each of these clouds gives
// out new credentials at least five minutes before the old ones end, so no clock is needed.
const lasting = 4 * time.Minute

// remembered is a value that is asked for by one at a time.
type remembered[T any] struct {
	mu    sync.Mutex
	turn  chan struct{}
	value T
	err   error // nil or ErrNobody
	since time.Time
}

// get returns the value that ask gave, now or within the last minutes. ask may be nil.
func (r *remembered[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	var none T
	if ask == nil {
		return none, ErrNobody
	}
	r.mu.Lock()
	if r.turn == nil {
		r.turn = make(chan struct{}, 1)
	}
	r.mu.Unlock()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	if !r.since.IsZero() && time.Since(r.since) < lasting {
		return r.value, r.err
	}
	value, err := ask(ctx)
	if err != nil && !errors.Is(err, ErrNobody) {
		return none, err
	}
	r.value, r.err, r.since = value, err, time.Now()
	return value, err
}

// regionOf returns the region in which a bucket was found, "" if it was not yet.
func (a *Account) regionOf(bucket string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.regions[bucket]
}

func (a *Account) foundIn(bucket, region string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.regions == nil {
		a.regions = map[string]string{}
	}
	a.regions[bucket] = region
}

// clock is the time that AWS has.
func (a *Account) clock() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Add(a.skew)
}

// set follows the time that an answer of AWS has.
func (a *Account) set(there time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skew = time.Until(there)
}
