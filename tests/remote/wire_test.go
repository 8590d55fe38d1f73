package remote_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"pilotlight/config/resource"
	"pilotlight/providers"
)

// An authority vouches for servers of a test under the names that clouds have.
type authority struct {
	roots     *x509.CertPool
	cert, key string // files of a server that has all names
}

func newAuthority(t *testing.T, names ...string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{x509.NewCertPool(), filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")}
	a.roots.AddCert(parsed)
	for file, block := range map[string]*pem.Block{a.cert: {Type: "CERTIFICATE", Bytes: der}, a.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// A wire leads names of clouds to servers on loopback, and nowhere else. It remembers the
// requests that went over it.
type wire struct {
	to   map[string]string // HOST:PORT by the name's HOST:PORT
	next http.RoundTripper

	mu       sync.Mutex
	requests []*http.Request
}

var errNoRoute = errors.New("no such host in this test")

func newWire(t *testing.T, roots *x509.CertPool, to map[string]string) *wire {
	t.Helper()
	w := &wire{to: to}
	next := resource.NewTransport(resource.TransportOptions{Roots: roots, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		there, ok := to[address]
		if !ok {
			return nil, errNoRoute
		}
		return new(net.Dialer).DialContext(ctx, network, there)
	}})
	t.Cleanup(next.CloseIdleConnections)
	w.next = next
	return w
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, r.Clone(r.Context()))
	w.mu.Unlock()
	return w.next.RoundTrip(r)
}

// sent gives the requests since it was last called.
func (w *wire) sent() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.requests
	w.requests = nil
	return list
}

// client fetches over a wire as a machine of that account.
func (w *wire) client(account *resource.Account) *resource.Client {
	return &resource.Client{Transport: w, Account: account, Patience: 20 * time.Second, TotalTimeout: 60 * time.Second}
}

// machine is what providers may ask in these tests: firmware, and a metadata service.
type machine struct {
	providers.Reach
	sys      fstest.MapFS
	metadata *wire
}

func (m machine) Sys() fs.FS                 { return m.sys }
func (m machine) Metadata() *resource.Client { return m.metadata.client(nil) }

// firmware of machines, in the files by which they are known.
func dmi(file, line string) fstest.MapFS {
	return fstest.MapFS{"class/dmi/id/" + file: {Data: []byte(line + "\n")}}
}

// text is some content that is longer than one buffer.
var text = bytes.Repeat([]byte("what a config asks for\n"), 20_000)

func get(t *testing.T, c *resource.Client, source string) ([]byte, error) {
	t.Helper()
	u, err := resource.ParseURL(source)
	if err != nil {
		t.Fatal(err)
	}
	return c.Bytes(t.Context(), resource.Resource{Source: u})
}
