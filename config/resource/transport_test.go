package resource

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func serveTLS(t *testing.T, h http.HandlerFunc) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are what is tested
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, roots
}

func withTransport(t *testing.T, opts TransportOptions) *Client {
	t.Helper()
	c := impatient()
	transport := NewTransport(opts)
	t.Cleanup(transport.CloseIdleConnections)
	c.Transport = transport
	return c
}

func TestTLS(t *testing.T) {
	s, roots := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	cert := s.Certificate()
	within := func() time.Time { return cert.NotBefore.Add(time.Hour) }
	b, err := withTransport(t, TransportOptions{Roots: roots, Time: within}).Bytes(t.Context(), at(t, s, "/"))
	if err != nil || string(b) != "HTTP/1.1" {
		t.Fatalf("%q, %v", b, err)
	}
	for _, tt := range []struct {
		name string
		opts TransportOptions
		says string
	}{
		{"the clock says 1969", TransportOptions{Roots: roots, Time: func() time.Time { return time.Unix(-1, 0).Add(-time.Hour) }}, "compare the machine's clock"},
		{"the certificate has expired", TransportOptions{Roots: roots, Time: func() time.Time { return cert.NotAfter.Add(time.Hour) }}, "compare the machine's clock"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := withTransport(t, tt.opts)
			c.TotalTimeout = 300 * time.Millisecond
			_, err := c.Bytes(t.Context(), at(t, s, "/"))
			quietError(t, err)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("nobody here vouches for it", func(t *testing.T) {
		other := x509.NewCertPool()
		other.AddCert(selfSigned(t))
		r := at(t, &httptest.Server{URL: strings.Replace(s.URL, "127.0.0.1", "localhost", 1)}, "/")
		for name, tt := range map[string]struct {
			resource Resource
			roots    *x509.CertPool
			says     string
		}{
			"another authority": {at(t, s, "/"), other, "unknown authority (the machine does not know the authority"},
			"another name":      {r, roots, "not localhost (the URL must name"},
		} {
			var lines []string
			c := withTransport(t, TransportOptions{Roots: tt.roots, Time: within})
			c.Tell = func(line string) { lines = append(lines, line) }
			_, err := c.Bytes(t.Context(), tt.resource)
			quietError(t, err)
			if !errors.Is(err, ErrUntrusted) || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), tt.says) || lines != nil {
				t.Errorf("%s: %v, told %q", name, err, lines)
			}
		}
	})
	t.Run("nobody is trusted", func(t *testing.T) {
		c := withTransport(t, TransportOptions{Roots: x509.NewCertPool(), Dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("connected")
			return nil, errors.New("connected")
		}})
		_, err := c.Bytes(t.Context(), at(t, s, "/"))
		quietError(t, err)
		if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "no certificate authority on this machine to trust (give an initrd its CA bundle with initrd build --ca FILE, or the config ignition.security.tls.certificateAuthorities)") {
			t.Errorf("%v", err)
		}
		// What needs no trust goes on.
		plain := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "plain") })
		if b, err := withTransport(t, TransportOptions{Roots: x509.NewCertPool()}).Bytes(t.Context(), at(t, plain, "/")); err != nil || string(b) != "plain" {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("https to a port that speaks http", func(t *testing.T) {
		plain := serve(t, func(w http.ResponseWriter, r *http.Request) {})
		c := withTransport(t, TransportOptions{})
		c.TotalTimeout = 300 * time.Millisecond
		r := at(t, &httptest.Server{URL: strings.Replace(plain.URL, "http:", "https:", 1)}, "/")
		_, err := c.Bytes(t.Context(), r)
		quietError(t, err)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "speaks http") {
			t.Errorf("%v", err)
		}
	})
	t.Run("http to a port that speaks https", func(t *testing.T) {
		r := at(t, &httptest.Server{URL: strings.Replace(s.URL, "https:", "http:", 1)}, "/")
		_, err := withTransport(t, TransportOptions{}).Bytes(t.Context(), r)
		quietError(t, err)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	})
}

// TestRedirectsAndTLS: never from https to http; from http to https without the
// resource's headers and user info.
func TestRedirectsAndTLS(t *testing.T) {
	got := ""
	var plain *httptest.Server
	secure, roots := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain.URL+"/end", http.StatusFound)
			return
		}
		got += r.Header.Get("X-Secret") + r.Header.Get("Authorization") + r.Referer()
		fmt.Fprint(w, "secure")
	})
	requests := 0
	plain = serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		http.Redirect(w, r, secure.URL+"/end", http.StatusFound)
	})
	c := withTransport(t, TransportOptions{Roots: roots})
	b, err := c.Bytes(t.Context(), at(t, plain, "/up"))
	if err != nil || string(b) != "secure" || got != "" {
		t.Errorf("%q, %v, headers %q", b, err, got)
	}
	requests = 0
	_, err = c.Bytes(t.Context(), at(t, secure, "/down"))
	quietError(t, err)
	if !errors.Is(err, ErrRedirect) || !strings.Contains(err.Error(), "from https to http") || requests != 0 {
		t.Errorf("%v after %d requests to http", err, requests)
	}
}

func TestDial(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	var asked []string
	c := withTransport(t, TransportOptions{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		asked = append(asked, network+" "+address)
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}})
	b, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "http://config.example/")})
	if err != nil || string(b) != "config.example" || fmt.Sprint(asked) != "[tcp config.example:80]" {
		t.Errorf("%q, %v, dialled %v", b, err, asked)
	}
	none := errors.New("there are no name servers")
	c = withTransport(t, TransportOptions{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, none }})
	c.TotalTimeout = 50 * time.Millisecond
	if _, err := c.Bytes(t.Context(), at(t, s, "/")); !errors.Is(err, none) || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), none.Error()) {
		t.Errorf("%v", err)
	}
}

func TestProxy(t *testing.T) {
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	secure, roots := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secure") })
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			fmt.Fprintf(w, "proxied %s", r.URL.Host)
			return
		}
		server, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		w.WriteHeader(200)
		client, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		go func() { io.Copy(server, buffered); server.Close() }()
		io.Copy(client, server)
	})
	u, err := url.Parse(strings.Replace(proxy.URL, "://", "://"+canary+":"+canary+"@", 1))
	if err != nil {
		t.Fatal(err)
	}
	c := withTransport(t, TransportOptions{Roots: roots, Proxy: func(*http.Request) (*url.URL, error) { return u, nil }})
	b, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "http://config.example/")})
	if err != nil || string(b) != "proxied config.example" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err = c.Bytes(t.Context(), at(t, secure, "/")); err != nil || string(b) != "secure" {
		t.Errorf("%q, %v", b, err)
	}

	bad := errors.New("the proxy's address is no URL")
	c = withTransport(t, TransportOptions{Proxy: func(*http.Request) (*url.URL, error) { return nil, bad }})
	c.TotalTimeout = 50 * time.Millisecond
	if _, err = c.Bytes(t.Context(), at(t, secure, "/")); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}

	// Without a proxy function there is none, whatever the environment says.
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "direct") })
	if b, err = withTransport(t, TransportOptions{}).Bytes(t.Context(), at(t, plain, "/")); err != nil || string(b) != "direct" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestProxyRefuses: what a proxy says is told as its own, and judged like what a
// server says.
func TestProxyRefuses(t *testing.T) {
	secure, roots := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secure") })
	for _, tt := range []struct {
		status int
		after  string // Retry-After
		kind   error  // for https
		says   string
		hint   string
		plain  error // for http
	}{
		{407, "", ErrRefused, "status 407 Proxy Authentication Required", "pilotlight.proxy=http://USER:PASSWORD@HOST:PORT", ErrRefused},
		{403, "", ErrRefused, "status 403 Forbidden", "", ErrRefused},
		{404, "", ErrRefused, "status 404 Not Found", "", ErrNotFound},
		{429, "", ErrUnreachable, "status 429 Too Many Requests until the deadline, ", "", ErrUnreachable},
		{502, "", ErrUnreachable, "status 502 Bad Gateway until the deadline, ", "", ErrUnreachable},
		{503, "9", ErrUnreachable, "status 503 Service Unavailable until the deadline, 1 try in ", "come back after 9s", ErrUnreachable},
		{504, "", ErrUnreachable, "status 504 Gateway Timeout until the deadline, ", "", ErrUnreachable},
	} {
		var tries atomic.Int32
		proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
			tries.Add(1)
			if tt.after != "" {
				w.Header().Set("Retry-After", tt.after)
			}
			w.WriteHeader(tt.status)
			io.WriteString(w, canary)
		})
		u, err := url.Parse(strings.Replace(proxy.URL, "://", "://"+canary+":"+canary+"@", 1))
		if err != nil {
			t.Fatal(err)
		}
		c := withTransport(t, TransportOptions{Roots: roots, Proxy: func(*http.Request) (*url.URL, error) { return u, nil }})
		c.TotalTimeout = 100 * time.Millisecond
		c.Tell = func(line string) { quiet(t, line) }
		_, err = c.Bytes(t.Context(), at(t, secure, "/"))
		quietError(t, err)
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), "proxy "+u.Host+": "+tt.says) || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("https, %d: %v", tt.status, err)
		}
		if again := tries.Load() > 1; again != (tt.kind == ErrUnreachable && tt.after == "") {
			t.Errorf("https, %d: %d tries", tt.status, tries.Load())
		}
		_, err = c.Bytes(t.Context(), Resource{Source: mustURL(t, "http://"+canary+"@config.example/x?q="+canary)})
		quietError(t, err)
		if !errors.Is(err, tt.plain) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("http, %d: %v", tt.status, err)
		}
	}
	t.Run("nobody listens", func(t *testing.T) {
		closed := httptest.NewServer(nil)
		closed.Close()
		u, err := url.Parse(strings.Replace(closed.URL, "://", "://"+canary+":"+canary+"@", 1))
		if err != nil {
			t.Fatal(err)
		}
		c := withTransport(t, TransportOptions{Roots: roots, Proxy: func(*http.Request) (*url.URL, error) { return u, nil }})
		c.TotalTimeout = 100 * time.Millisecond
		for _, r := range []Resource{at(t, secure, "/"), {Source: mustURL(t, "http://config.example/")}} {
			_, err := c.Bytes(t.Context(), r)
			quietError(t, err)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "proxyconnect tcp: dial tcp "+u.Host) {
				t.Errorf("%v", err)
			}
		}
	})
}

// selfSigned is an authority that has signed nothing but itself.
func selfSigned(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
