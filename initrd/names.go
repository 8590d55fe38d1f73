package initrd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// nameServerHead is how long a name server is asked alone before the next
	// one is asked too.
	nameServerHead = time.Second
	// nameServerMost bounds how many are asked.
	nameServerMost = 8
)

// names finds the addresses of names without a resolver on this machine: by
// /etc/resolv.conf where it names a server, else by the servers that networkd
// has learned (sd-network's state files; nothing in an initrd without
// systemd-resolved makes a resolv.conf of them).
type names struct {
	resolv string // /etc/resolv.conf
	netif  string // /run/systemd/netif
}

// lookup gives the addresses of a host, at least one.
func (n names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	named, err := n.resolvConf()
	if err != nil {
		return nil, err
	}
	if named {
		return (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", host)
	}
	servers, err := n.linkServers()
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		// /etc/hosts may know it.
		if addrs, err := via(netip.AddrPort{}).LookupNetIP(ctx, "ip", host); err == nil {
			return addrs, nil
		}
		return nil, fmt.Errorf("lookup %s: no name server: %s names none, and networkd knows none (%s)", host, n.resolv, n.netif)
	}
	return race(ctx, nameServerHead, servers, func(ctx context.Context, s netip.AddrPort) ([]netip.Addr, error) {
		addrs, err := via(s).LookupNetIP(ctx, "ip", host)
		if e, ok := errors.AsType[*net.DNSError](err); ok {
			// The resolver does not know whom it asks.
			e.Server = s.String()
		}
		return addrs, err
	}, func([]netip.Addr) {})
}

// via is a resolver that asks one server, in place of the one that the resolver
// falls back to where no file names any.
func via(s netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if !s.IsValid() {
			return nil, errors.New("no name server")
		}
		return new(net.Dialer).DialContext(ctx, network, s.String())
	}}
}

// resolvConf reports whether resolv.conf(5) names a server. A link into a
// directory that nobody made, as distributions have it, is no file.
func (n names) resolvConf() (bool, error) {
	data, err := os.ReadFile(n.resolv)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			return true, nil
		}
	}
	return false, nil
}

// linkServers reads the DNS= lines of networkd's state files: the state of all
// links together, or where that says nothing, that of each link. None is no error:
// a lease may yet come.
func (n names) linkServers() ([]netip.AddrPort, error) {
	list, err := stateServers(filepath.Join(n.netif, "state"), "")
	if err != nil || len(list) > 0 {
		return list, err
	}
	files, err := filepath.Glob(filepath.Join(n.netif, "links", "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		more, err := stateServers(file, filepath.Base(file))
		if err != nil {
			return nil, err
		}
		for _, s := range more {
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return list[:min(len(list), nameServerMost)], nil
}

// stateServers reads one state file. link is the index of the interface that a
// link-local server without a zone is on, "" where that is not known.
func stateServers(file, link string) ([]netip.AddrPort, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []netip.AddrPort
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		words, ok := strings.CutPrefix(lines.Text(), "DNS=")
		if !ok {
			continue
		}
		for _, word := range strings.Fields(words) {
			if s, ok := parseNameServer(word, link); ok && !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return list[:min(len(list), nameServerMost)], lines.Err()
}

// parseNameServer reads a server as systemd writes it: ADDRESS, ADDRESS:PORT or
// [ADDRESS]:PORT for IPv6, then %INTERFACE for a link-local one, then #NAME for
// DNS over TLS, which is not spoken here. resolved.conf(5) describes it.
func parseNameServer(word, link string) (netip.AddrPort, bool) {
	word, _, _ = strings.Cut(word, "#")
	word, zone, _ := strings.Cut(word, "%")
	port := uint16(53)
	a, err := netip.ParseAddr(word)
	if err != nil {
		host, digits, split := net.SplitHostPort(word)
		if inner, ok := strings.CutPrefix(word, "["); split != nil && ok && strings.HasSuffix(inner, "]") {
			host, digits = strings.TrimSuffix(inner, "]"), "53"
		}
		n, bad := strconv.ParseUint(digits, 10, 16)
		if a, err = netip.ParseAddr(host); err != nil || bad != nil || n == 0 {
			return netip.AddrPort{}, false
		}
		port = uint16(n)
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		if zone == "" {
			zone = link
		}
		a = a.WithZone(zone)
	}
	return netip.AddrPortFrom(a, port), true
}
