package initrd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/config/resource"
)

// TestNetworkComesUpBeforeTheFirstConnection: once for all that wait for it, and once
// more for who comes after a failure.
func TestNetworkComesUpBeforeTheFirstConnection(t *testing.T) {
	var ups atomic.Int32
	down := errors.New("no carrier")
	end := make(chan struct{})
	n := &Network{Up: func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no bound")
		}
		ups.Add(1)
		<-end
		return down
	}}
	transport := n.Transport(resource.TransportOptions{})
	get := func(ctx context.Context) error {
		// A documentation address (RFC 5737): nothing may be sent there.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://192.0.2.1/", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	// Who gives up takes nothing from the others.
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- get(ctx) }()
	for ups.Load() == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who gave up: %v", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = n.bringUp(t.Context(), "192.0.2.1") })
	}
	close(end)
	wg.Wait()
	for _, err := range errs {
		if !errors.Is(err, down) || !strings.Contains(err.Error(), "network: no carrier") {
			t.Errorf("%v", err)
		}
	}
	before := ups.Load()
	if err := get(t.Context()); !errors.Is(err, down) || ups.Load() != before+1 {
		t.Errorf("%v, brought up %d times, %d before", err, ups.Load(), before)
	}
	n.Up = func(context.Context) error { ups.Add(1); return nil }
	before = ups.Load()
	for range 3 {
		if err := n.bringUp(t.Context(), "192.0.2.1"); err != nil || ups.Load() != before+1 {
			t.Errorf("%v, brought up %d times", err, ups.Load()-before)
		}
	}
}

// TestWaitingIsTold: the network, and then the way to a host, take their time.
func TestWaitingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		n := &Network{
			Up: func(ctx context.Context) error {
				select {
				case <-time.After(25 * time.Second):
				case <-ctx.Done():
					t.Error("who waits has ended it")
				}
				return errors.New("no carrier")
			},
			Tell: func(line string) { lines = append(lines, line) },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Second)
		defer cancel()
		if err := n.bringUp(ctx, "192.0.2.1"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "network: still coming up") {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if want := []string{"network: still coming up (10s so far)", "network: still coming up (20s so far)"}; !slices.Equal(lines, want) {
			t.Errorf("told %q", lines)
		}
		time.Sleep(time.Minute)

		lines = nil
		n.Up = func(context.Context) error { return errors.New("no carrier") }
		ctx, cancel = context.WithTimeout(t.Context(), 24*time.Second)
		defer cancel()
		if _, err := n.MACTowards(ctx, "192.0.2.1"); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q", err)
		}
		if want := []string{"no way to 192.0.2.1 yet: network: no carrier (10s so far)", "no way to 192.0.2.1 yet: network: no carrier (20s so far)"}; !slices.Equal(lines, want) {
			t.Errorf("told %q", lines)
		}
	})
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
