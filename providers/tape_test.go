package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"pilotlight/config/resource"
)

// A tape is a server that knows which requests come, in which order, and what it
// answers. Another request than the next one is a failure of the test, and so is one
// that is missing at the end.
type tape struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	rest   []exchange
}

// An exchange is a request and its answer.
type exchange struct {
	slow    bool     // the answer comes when nobody waits for it any more
	request string   // method and what is asked for
	headers []string // NAME: VALUE; all that Go does not send by itself
	status  int
	answer  []string // headers of the answer, NAME: VALUE
	body    string
}

func play(t *testing.T, list ...exchange) *tape {
	t.Helper()
	p := &tape{t: t, rest: list}
	p.server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.server.Close()
		for _, e := range p.rest {
			t.Errorf("nobody asked: %s", e.request)
		}
	})
	return p
}

func (p *tape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := r.Method + " " + r.RequestURI
	if len(p.rest) == 0 {
		p.t.Errorf("one request too many: %s", got)
		http.Error(w, "end of tape", http.StatusTeapot)
		return
	}
	next := p.rest[0]
	p.rest = p.rest[1:]
	if got != next.request {
		p.t.Errorf("%s, want %s", got, next.request)
	}
	var headers []string
	for name, values := range r.Header {
		for _, v := range values {
			headers = append(headers, name+": "+v)
		}
	}
	slices.Sort(headers)
	if want := append(next.headers, sent...); !slices.Equal(headers, sorted(want)) {
		p.t.Errorf("%s with headers %q, want %q", got, headers, sorted(want))
	}
	if next.slow {
		// The next request on the tape may come before this one is given up by the server.
		p.mu.Unlock()
		<-r.Context().Done()
		p.mu.Lock()
		return
	}
	for _, h := range next.answer {
		name, value, _ := strings.Cut(h, ": ")
		w.Header().Set(name, strings.ReplaceAll(value, "SERVER", p.server.URL))
	}
	w.WriteHeader(next.status)
	fmt.Fprint(w, next.body)
}

// sent is with every request: what the client of the test says of itself.
var sent = []string{"Accept-Encoding: identity", "User-Agent: pilotlight/test"}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// reach is what a machine of a test can reach.
type reach struct {
	sys      fs.FS
	file     func() (Answer, error)
	labels   func(host string) (map[string]string, error)
	at       map[string]*tape // servers of the cloud, by HOST:PORT; nil is one that never connects
	header   time.Duration    // how long an answer may take
	patience time.Duration    // for the whole
	tell     func(string)
	argument map[string]string
	drives   func() ([]Drive, error)
	open     func(Drive, func(fs.FS) error) error
}

func (r reach) Client() *resource.Client {
	return &resource.Client{Header: http.Header{"User-Agent": {"pilotlight/test"}}}
}

// errNoRoute is what a machine has without a family of addresses.
var errNoRoute = errors.New("network is unreachable")

// Metadata connects to the tapes of the test, and to nobody else.
func (r reach) Metadata() *resource.Client {
	c := r.Client()
	c.ResponseHeaderTimeout, c.Patience, c.Tell = r.header, cmp.Or(r.patience, 20*time.Second), r.tell
	c.Transport = resource.NewTransport(resource.TransportOptions{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		server, ok := r.at[address]
		switch {
		case !ok:
			return nil, errNoRoute
		case server == nil:
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return new(net.Dialer).DialContext(ctx, network, server.server.Listener.Addr().String())
	}})
	return c
}

func (r reach) Argument(name string) (string, error) { return r.argument[name], nil }

func (r reach) Drives(context.Context) ([]Drive, error) { return r.drives() }

func (r reach) Open(d Drive, use func(fs.FS) error) error { return r.open(d, use) }

func (r reach) Sys() fs.FS {
	if r.sys == nil {
		return fstest.MapFS{}
	}
	return r.sys
}

func (r reach) Labels(_ context.Context, host string) (map[string]string, error) {
	return r.labels(host)
}

func (r reach) File() (Answer, error) { return r.file() }
