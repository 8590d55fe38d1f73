package providers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"pilotlight/config/resource"
)

// linkLocal is where most clouds have their metadata service (RFC 3927): an address
// that only the machine's own cloud answers at, and that needs no name server.
const linkLocal = "http://169.254.169.254"

// A ServiceError is a metadata service that answers, and does not give what it is
// asked for. It repeats nothing of what came over the wire.
type ServiceError struct {
	Address string // without a path
	Status  int    // of HTTP; 0 where the status is not what is wrong
	What    string // what is wrong, in words
}

func (e *ServiceError) Error() string {
	if e.Status == 0 {
		return e.Address + ": " + e.What
	}
	return fmt.Sprintf("%s: status %d %s (%s)", e.Address, e.Status, http.StatusText(e.Status), e.What)
}

// A service stands between a cloud's own library and the network: each request of
// the library is one fetch by our client, with its bounds, its tries and its lines.
// So the library never sees what may pass by itself, and has nothing to try again.
type service struct {
	client  *resource.Client
	address string                          // where every request goes, whatever host it names
	headers []string                        // of a request, that go along; canonical names
	judge   func(http.Header) *ServiceError // of an answer that is no error of the server's own; may be nil

	path   string // of the latest request
	status int    // of its answer, 0 if there was none
	err    error  // why there was none
}

// unanswered is an error that a library must not look into: what is behind it was
// tried again until its time was over.
type unanswered struct{}

func (unanswered) Error() string { return "no answer" }

// RoundTrip makes it an http.RoundTripper. It may not be called by two at once.
func (s *service) RoundTrip(req *http.Request) (*http.Response, error) {
	s.path, s.status, s.err = req.URL.EscapedPath(), 0, nil
	source, err := resource.ParseURL(s.address + s.path)
	if err != nil {
		s.err = err
		return nil, unanswered{}
	}
	wish := resource.Resource{Source: source}
	for _, name := range s.headers {
		for _, value := range req.Header.Values(name) {
			wish.Headers = append(wish.Headers, resource.Header{Name: name, Value: resource.NewSecret(value)})
		}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	var header http.Header
	client := *s.client
	client.Transport = asked{s.client.Transport, func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Method = req.Method
		answer, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		header = answer.Header
		if s.judge != nil && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests {
			if wrong := s.judge(header); wrong != nil {
				wrong.Address = s.address
				answer.Body.Close()
				cancel(wrong)
				return nil, wrong
			}
		}
		return answer, nil
	}}
	data, err := client.Bytes(ctx, wish)
	var failed *resource.Error
	var wrong *ServiceError
	switch {
	case err == nil:
		s.status = http.StatusOK
	case errors.As(context.Cause(ctx), &wrong):
		s.err = wrong
	case errors.As(err, &failed) && (errors.Is(err, resource.ErrNotFound) || errors.Is(err, resource.ErrRefused)):
		s.status = failed.Status
	default:
		s.err = err
	}
	if s.err != nil {
		return nil, unanswered{}
	}
	return &http.Response{
		Status: http.StatusText(s.status), StatusCode: s.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(data)), ContentLength: int64(len(data)), Request: req,
	}, nil
}

// fault is why the latest request did not give what it was for: why says what the
// status means to the service.
func (s *service) fault(why string) error {
	if s.err != nil {
		return s.err
	}
	if s.status == http.StatusOK {
		return &ServiceError{Address: s.address, What: why}
	}
	return &ServiceError{Address: s.address + s.path, Status: s.status, What: why}
}

// asked is a round tripper around another one.
type asked struct {
	next http.RoundTripper
	ask  func(next http.RoundTripper, r *http.Request) (*http.Response, error)
}

func (a asked) RoundTrip(r *http.Request) (*http.Response, error) { return a.ask(a.next, r) }

const (
	// grace is how long the others are waited for when one address has answered with
	// anything else: a refusal, or what is no config.
	grace = 5 * time.Second
	// hush is how long a line about one of several addresses waits for the answer of
	// another one, which makes it void.
	hush = time.Second
)

// first asks at several addresses side by side. The first config counts, or the
// first word that there is none; the others are given up then. So a family of
// addresses that the machine does not have costs it no time. ask is given a client of
// its own.
func first(ctx context.Context, client *resource.Client, addresses []string, ask func(context.Context, *resource.Client, string) (Answer, error)) (Answer, error) {
	type result struct {
		racer  int
		answer Answer
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	lines := &hushed{tell: client.Tell}
	results := make(chan result, len(addresses))
	var racers sync.WaitGroup
	// In this order: nobody speaks any more, the racers give up, and are gone.
	defer racers.Wait()
	defer cancel()
	defer lines.end()
	for i, address := range addresses {
		own := *client
		own.Tell = lines.later
		racers.Go(func() {
			answer, err := ask(ctx, &own, address)
			results <- result{i, answer, err}
		})
	}
	errs := make([]error, len(addresses))
	var refusal error
	var patience <-chan time.Time
	for range addresses {
		select {
		case r := <-results:
			if r.err == nil || errors.Is(r.err, ErrNone) {
				return r.answer, r.err
			}
			errs[r.racer] = r.err
			if refusal == nil && !errors.Is(r.err, resource.ErrUnreachable) {
				refusal = r.err
				timer := time.NewTimer(grace)
				defer timer.Stop()
				patience = timer.C
			}
		case <-patience:
			return Answer{}, refusal
		}
	}
	if refusal != nil {
		return Answer{}, refusal
	}
	return Answer{}, joined(errs)
}

// joined makes one line of several errors.
func joined(errs []error) error {
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// hushed tells lines a little later than they come, and after its end not at all.
type hushed struct {
	tell func(string)
	mu   sync.Mutex
	over bool
}

func (h *hushed) later(line string) {
	if h.tell == nil {
		return
	}
	time.AfterFunc(hush, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.over {
			h.tell(line)
		}
	})
}

func (h *hushed) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
}
