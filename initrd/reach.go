package initrd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"pilotlight/config/resource"
)

const (
	// dialTime bounds one connection, from the name to the last of its addresses.
	dialTime = 30 * time.Second
	// dialHead is how long an address is tried alone before the next one is tried
	// too (RFC 8305, section 8).
	dialHead = 250 * time.Millisecond
	// dialMost bounds how many addresses of a name are tried.
	dialMost = 8
	// upTime bounds one attempt to bring the network up. systemd gives up before.
	upTime = 5 * time.Minute
)

// A Network is the way out of the initrd. Nothing is brought up before the first
// connection: a config that is wholly local costs no network.
type Network struct {
	Up   func(context.Context) error // brings the network up; nil where it is somebody else's
	Tell func(line string)           // is told every 10 s what is waited for; nil: nobody

	mu     sync.Mutex
	rising *rise // under way, or done; nil before, and after a failure
}

// rise is one attempt to bring the network up.
type rise struct {
	done chan struct{}
	err  error
}

// Transport gives a transport whose connections bring the network up first, and
// that finds names without a resolver on this machine. Where a name has several
// addresses they race, so that a dead one, or a family without a route, does not
// cost the time that the other needs.
func (n *Network) Transport(o resource.TransportOptions) http.RoundTripper {
	o.Dial = n.dial
	return resource.NewTransport(o)
}

func (n *Network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := n.bringUp(ctx, host); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	addrs, err := names{"/etc/resolv.conf", "/run/systemd/netif"}.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	return dialFirst(ctx, network, port, addrs)
}

// dialFirst connects to the first address that answers. There is at least one.
func dialFirst(ctx context.Context, network, port string, addrs []netip.Addr) (net.Conn, error) {
	return race(ctx, dialHead, alternate(addrs), func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(a.String(), port))
	}, func(c net.Conn) { c.Close() })
}

// alternate orders addresses so that the families take turns, the first one's
// first; within a family the order stays. It cuts the list at dialMost.
func alternate(addrs []netip.Addr) []netip.Addr {
	var same, other, list []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() == addrs[0].Unmap().Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	for i := range max(len(same), len(other)) {
		list = append(list, same[min(i, len(same)):min(i+1, len(same))]...)
		list = append(list, other[min(i, len(other)):min(i+1, len(other))]...)
	}
	return list[:min(len(list), dialMost)]
}

// bringUp waits until the network is up, for which it sees to that once. After a
// failure the next connection tries again: a cable may be plugged in, a switch
// may let packets through at last.
func (n *Network) bringUp(ctx context.Context, host string) error {
	if n.Up == nil || loopback(host) {
		return nil
	}
	n.mu.Lock()
	r := n.rising
	if r == nil {
		r = &rise{done: make(chan struct{})}
		n.rising = r
		// Whoever came first may give up before it is done. The others do not.
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upTime)
			defer cancel()
			stop := n.waiting(func() string { return "network: still coming up" })
			r.err = n.Up(ctx)
			stop()
			if r.err != nil {
				n.mu.Lock()
				n.rising = nil
				n.mu.Unlock()
			}
			close(r.done)
		}()
	}
	n.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("network: still coming up: %w", context.Cause(ctx))
	}
	if r.err != nil {
		return fmt.Errorf("network: %w", r.err)
	}
	return nil
}

// waiting tells every 10 s what is waited for, until stop is called.
func (n *Network) waiting(what func() string) (stop func()) {
	if n.Tell == nil {
		return func() {}
	}
	var ended sync.WaitGroup
	end, begun := make(chan struct{}), time.Now()
	ended.Go(func() {
		ticker := time.NewTicker(10 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				n.Tell(fmt.Sprintf("%s (%s so far)", what(), time.Since(begun).Round(time.Second)))
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		ended.Wait()
	}
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// StartNetwork has PID 1 start the initrd's network and waits until one link is
// routable. It is what a unit may do from inside itself: that of the network is not
// ordered after any other of ours.
func (m *Machine) StartNetwork(ctx context.Context) error {
	m.say("bringing the network up")
	_, _, err := m.run(ctx, Program{Argv: []string{"systemctl", "start", "pilotlight-network.service"}})
	return err
}

// MACTowards gives the hardware address of the interface whose address is used
// towards a host, "" where that interface has none (loopback, a tunnel). It brings
// the network up and tries until ctx ends, as links may come one after the other.
func (n *Network) MACTowards(ctx context.Context, host string) (string, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
	}
	var mu sync.Mutex
	var last error
	defer n.waiting(func() string {
		mu.Lock()
		defer mu.Unlock()
		if last == nil {
			return "looking for the way to " + host
		}
		return fmt.Sprintf("no way to %s yet: %v", host, last)
	})()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		// UDP sends nothing: the kernel only chooses the way.
		conn, err := n.dial(ctx, "udp", net.JoinHostPort(name, port))
		if err == nil {
			defer conn.Close()
			return macOf(conn.LocalAddr())
		}
		mu.Lock()
		last = err
		mu.Unlock()
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no way to %s: %w", host, lost{err, context.Cause(ctx)})
		case <-time.After(pause):
		}
	}
}

// macOf finds the interface that has an address.
func macOf(local net.Addr) (string, error) {
	udp, ok := local.(*net.UDPAddr)
	if !ok {
		return "", fmt.Errorf("%v is not an address", local)
	}
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if p, ok := a.(*net.IPNet); ok && p.IP.Equal(udp.IP) {
				return link.HardwareAddr.String(), nil
			}
		}
	}
	return "", nil
}
