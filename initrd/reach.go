package initrd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pilotlight/config/resource"
)

// A Network is the way out of the initrd. Nothing is brought up before the first
// connection: a config that is wholly local costs no network.
type Network struct {
	Up   func(context.Context) error // brings the network up; nil where it is somebody else's
	once sync.Once
	err  error
}

// Transport gives a transport whose connections bring the network up first, and
// that finds names without a resolver on this machine.
func (n *Network) Transport(o resource.TransportOptions) http.RoundTripper {
	dialer := &net.Dialer{Timeout: 30 * time.Second, Resolver: &net.Resolver{PreferGo: true, Dial: dialNameServer}}
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := n.bringUp(ctx, address); err != nil {
			return nil, err
		}
		return dialer.DialContext(ctx, network, address)
	}
	return resource.NewTransport(o)
}

func (n *Network) bringUp(ctx context.Context, address string) error {
	if n.Up == nil {
		return nil
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
			return nil
		}
	}
	n.once.Do(func() { n.err = n.Up(ctx) })
	if n.err != nil {
		return fmt.Errorf("network: %w", n.err)
	}
	return nil
}

// StartNetwork has PID 1 start the initrd's network and waits until one link is
// routable. It is what a unit may do from inside itself: network-online.target is
// not ordered after any of ours.
func (m *Machine) StartNetwork(ctx context.Context) error {
	m.say("bringing the network up")
	_, _, err := m.run(ctx, Program{Argv: []string{"systemctl", "start", "network-online.target"}})
	return err
}

// dialNameServer connects to a name server. address is what /etc/resolv.conf gave
// the resolver; where there is no such file, it is the resolver's default, which
// is nobody, and the servers are those that networkd learned.
func dialNameServer(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if _, err := os.Stat("/etc/resolv.conf"); err == nil {
		return d.DialContext(ctx, network, address)
	}
	servers, err := linkNameServers("/run/systemd/netif")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, s := range servers {
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(s, "53"))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append(errs, errors.New("no name server answers: none is in /etc/resolv.conf, and those that networkd learned do not connect"))...)
}

// linkNameServers reads the DNS= lines of networkd's state files: the state of all
// links together, then that of each.
func linkNameServers(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "links", "*"))
	if err != nil {
		return nil, err
	}
	var servers []string
	for _, name := range append([]string{filepath.Join(dir, "state")}, files...) {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			list, ok := strings.CutPrefix(lines.Text(), "DNS=")
			if !ok {
				continue
			}
			for _, s := range strings.Fields(list) {
				// A server may carry a name after "#", for DNS over TLS.
				s, _, _ = strings.Cut(s, "#")
				if net.ParseIP(s) != nil {
					servers = append(servers, s)
				}
			}
		}
		if len(servers) > 0 {
			break
		}
	}
	if len(servers) == 0 {
		return nil, errors.New("there is no /etc/resolv.conf, and networkd learned of no name server")
	}
	return servers, nil
}

// MACTowards gives the hardware address of the interface whose address is used
// towards a host, "" where that interface has none (loopback, a tunnel). It brings
// the network up and tries until ctx ends, as links may come one after the other.
func (n *Network) MACTowards(ctx context.Context, host string) (string, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
	}
	address := net.JoinHostPort(name, port)
	if err := n.bringUp(ctx, address); err != nil {
		return "", err
	}
	dialer := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: dialNameServer}}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		// UDP sends nothing: the kernel only chooses the way.
		conn, err := dialer.DialContext(ctx, "udp", address)
		if err == nil {
			defer conn.Close()
			return macOf(conn.LocalAddr())
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no way to %s: %w", host, errors.Join(err, context.Cause(ctx)))
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
