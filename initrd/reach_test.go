package initrd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pilotlight/config/resource"
)

// TestNameServersOfNetworkd reads state files as sd_network(3)'s writer leaves them.
func TestNameServersOfNetworkd(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"the state of all links": {
			map[string]string{"state": "OPER_STATE=routable\nDNS=10.0.2.3 fec0::3\nNTP=10.0.2.9\n", "links/2": "DNS=192.0.2.1\n"},
			[]string{"10.0.2.3", "fec0::3"},
		},
		"a link, where all together say nothing": {
			map[string]string{"state": "OPER_STATE=routable\nDNS=\n", "links/2": "ADMIN_STATE=configured\nDNS=192.0.2.1\n"},
			[]string{"192.0.2.1"},
		},
		"no state, the first link that knows one": {
			map[string]string{"links/1": "ADMIN_STATE=unmanaged\n", "links/2": "DNS=192.0.2.2\n", "links/3": "DNS=192.0.2.3\n"},
			[]string{"192.0.2.2"},
		},
		"a name for DNS over TLS": {
			map[string]string{"state": "DNS=9.9.9.9#dns.quad9.net 2620:fe::fe#dns.quad9.net\n"},
			[]string{"9.9.9.9", "2620:fe::fe"},
		},
		"what is no address": {
			map[string]string{"state": "DNS=dns.example 192.0.2.4\nXDNS=192.0.2.5\n"},
			[]string{"192.0.2.4"},
		},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			write(t, filepath.Join(dir, file), text)
		}
		got, err := linkNameServers(dir)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}
	for name, files := range map[string]map[string]string{
		"nothing at all": {}, "no server": {"state": "DNS=\n", "links/2": "DNS=\n"},
	} {
		dir := t.TempDir()
		for file, text := range files {
			write(t, filepath.Join(dir, file), text)
		}
		if got, err := linkNameServers(dir); err == nil || !strings.Contains(err.Error(), "networkd learned of no name server") {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "state/is-a-directory"), "")
	if _, err := linkNameServers(dir); err == nil {
		t.Error("a file that cannot be read is as if there were none")
	}
}

func TestNetworkComesUpOnceAndBeforeTheFirstConnection(t *testing.T) {
	var mu sync.Mutex
	ups := 0
	down := errors.New("no carrier")
	n := &Network{Up: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		ups++
		return down
	}}
	transport := n.Transport(resource.TransportOptions{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// A documentation address (RFC 5737): nothing may be sent there.
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://192.0.2.1/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := transport.RoundTrip(req); !errors.Is(err, down) || !strings.Contains(err.Error(), "network: no carrier") {
				t.Errorf("%v %v", resp, err)
			}
		})
	}
	wg.Wait()
	if ups != 1 {
		t.Errorf("brought up %d times", ups)
	}
}

func TestLoopbackNeedsNoNetwork(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }))
	defer server.Close()
	n := &Network{Up: func(context.Context) error { t.Error("brought up"); return nil }}
	client := &resource.Client{Transport: n.Transport(resource.TransportOptions{})}
	u, err := resource.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.Bytes(t.Context(), resource.Resource{Source: u}); string(got) != "here" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	for _, host := range []string{strings.TrimPrefix(server.URL, "http://"), "127.0.0.1", "[::1]:80"} {
		// An IPv6 loopback need not be there; then there is no way, and no network either.
		ctx, cancel := context.WithCancel(t.Context())
		if strings.HasPrefix(host, "[") {
			cancel()
		}
		mac, err := n.MACTowards(ctx, host)
		cancel()
		if mac != "" || err != nil && !strings.HasPrefix(host, "[") {
			t.Errorf("%s: %q %v", host, mac, err)
		}
	}
}

func TestNoWayToAHostEndsWithTheContext(t *testing.T) {
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	_, err := (&Network{}).MACTowards(ctx, "192.0.2.1:80")
	if !errors.Is(err, over) || !strings.Contains(err.Error(), "no way to 192.0.2.1:80") {
		t.Errorf("error %v", err)
	}
	down := errors.New("no carrier")
	if _, err := (&Network{Up: func(context.Context) error { return down }}).MACTowards(t.Context(), "192.0.2.1"); !errors.Is(err, down) {
		t.Errorf("error %v", err)
	}
}

func TestAddressOfAnInterface(t *testing.T) {
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip := a.(*net.IPNet).IP
			if ip.IsLinkLocalUnicast() {
				continue // may be on several links
			}
			looked++
			if got, err := macOf(&net.UDPAddr{IP: ip}); got != l.HardwareAddr.String() || err != nil {
				t.Errorf("%s on %s: %q %v", ip, l.Name, got, err)
			}
		}
	}
	if looked == 0 {
		t.Error("not even a loopback address")
	}
	if got, err := macOf(&net.UDPAddr{IP: net.ParseIP("192.0.2.1")}); got != "" || err != nil {
		t.Errorf("an address of nobody here: %q %v", got, err)
	}
	if _, err := macOf(&net.UnixAddr{Name: "x"}); err == nil {
		t.Error("what is no address was taken")
	}
}
