package resource

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 10 * time.Second
	connectTimeout   = dialTimeout + handshakeTimeout
)

// TransportOptions are what a machine in its initrd knows better than the
// standard library. The zero value is the standard library's behaviour, without
// the proxies of the environment.
type TransportOptions struct {
	// Dial connects, as net.Dialer.DialContext does. It resolves names too.
	// Its errors are told to people. Nil: a net.Dialer that gives up after 30 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Proxy returns the proxy for a request, or nil for none. Its errors are
	// told to people, so they must not hold the proxy's credentials. Nil: no proxy.
	Proxy func(*http.Request) (*url.URL, error)

	// Roots are the authorities that are trusted, in place of the system's. Nil: the system's.
	// Where there are none at all, https fails with [ErrUntrusted] before anything is sent.
	Roots *x509.CertPool

	// Time is what certificates' dates are compared with. Nil: the system's clock.
	Time func() time.Time
}

// NewTransport returns a transport for [Client]. It speaks HTTP/1.1, and TLS 1.2
// or newer with the standard library's cryptography alone; and TFTP, without a proxy. It reads
// neither the environment nor, by itself, any file; the defaults for Dial and Roots do.
func NewTransport(opts TransportOptions) *http.Transport {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: opts.Roots, Time: opts.Time, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: handshakeTimeout,
		// The body is what the server has stored: the hash and the compression are
		// said of that.
		DisableCompression: true,
		Protocols:          new(http.Protocols),
		// As many as a caller may have transfers at once: a connection that is
		// given up costs a new one, and its handshakes.
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         64 << 10,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return &proxyError{proxy.Host, resp.StatusCode, retryAfter(resp.Header, time.Now())}
			}
			return nil
		},
	}
	// One connection for each transfer: a bulk download gains nothing from HTTP/2.
	t.Protocols.SetHTTP1(true)
	if opts.Dial != nil {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := opts.Dial(ctx, network, address)
			if err != nil {
				return nil, &connectError{err}
			}
			return conn, nil
		}
	}
	if opts.Proxy != nil {
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			u, err := opts.Proxy(r)
			if err != nil {
				return nil, &connectError{err}
			}
			return u, nil
		}
	}
	t.RegisterProtocol("tftp", tftpRoundTripper{t.DialContext})
	t.RegisterProtocol("https", &vouched{roots: opts.Roots})
	return t
}

// vouched lets https requests through to the transport where there is anybody who
// could vouch for a server.
type vouched struct {
	roots *x509.CertPool // nil: the system's
	once  sync.Once
	err   error
}

func (v *vouched) RoundTrip(*http.Request) (*http.Response, error) {
	// The system's are only read when they are needed.
	v.once.Do(func() {
		if v.roots == nil {
			if v.roots, v.err = x509.SystemCertPool(); v.err != nil {
				v.err = &noRootsError{v.err}
				return
			}
		}
		if v.roots.Equal(x509.NewCertPool()) {
			v.err = &noRootsError{}
		}
	})
	if v.err != nil {
		return nil, v.err
	}
	return nil, http.ErrSkipAltProtocol
}
