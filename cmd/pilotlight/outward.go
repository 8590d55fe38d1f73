package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/providers"
)

// outward is how this process reaches out. It is what providers are handed as
// their Reach, and what fetches a config's children by the settings known so far.
type outward struct {
	network *initrd.Network
	knobs   config.Knobs
	tell    func(string)

	account *resource.Account // as whom the stores of this machine's cloud are asked
	client  *resource.Client
	err     error // of settings that could not be followed; told at the next fetch

	clock     initrd.Clock
	clockTold sync.Once

	// authorities are the certificate authorities that were fetched, by partName.
	authorities map[string][]byte
}

// newOutward reaches out by the knobs alone. network says how a network is brought
// up; its zero value is a machine that has one.
func newOutward(network *initrd.Network, knobs config.Knobs, tell func(string)) *outward {
	o := &outward{network: network, knobs: knobs, tell: tell, authorities: map[string][]byte{}}
	network.Tell = tell
	o.account = providers.Account(knobs.Platform, o)
	o.clock, o.err = initrd.NewClock(buildTime())
	o.use(nil, resource.URL{}, resource.URL{}, nil, 0, 0)
	return o
}

// time is what the dates of certificates are compared with. That it is not the
// machine's clock is told once.
func (o *outward) time() time.Time {
	t, source := o.clock.Time()
	if source != initrd.MachineClock {
		o.clockTold.Do(func() {
			o.tell(fmt.Sprintf("the clock says %s, which cannot be: certificates are compared with %s, by %s",
				time.Now().UTC().Format(time.DateTime), t.UTC().Format(time.DateTime), source))
		})
	}
	return t
}

// use makes the client anew.
func (o *outward) use(roots *x509.CertPool, httpProxy, httpsProxy resource.URL, direct []string, header, total time.Duration) {
	if !o.knobs.Proxy.IsZero() {
		httpProxy, httpsProxy = o.knobs.Proxy, o.knobs.Proxy
	}
	if o.client != nil {
		if t, ok := o.client.Transport.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
	o.client = &resource.Client{
		Transport: o.network.Transport(resource.TransportOptions{Proxy: proxyFor(httpProxy, httpsProxy, direct), Roots: roots, Time: o.time}),
		Header: http.Header{
			"User-Agent": {"pilotlight/" + version()},
			"Accept":     {"application/vnd.coreos.ignition+json;version=3.5.0, */*;q=0.1"},
		},
		Account:               o.account,
		ResponseHeaderTimeout: header,
		TotalTimeout:          total,
		Patience:              o.knobs.DeadlineOrDefault(),
		Tell:                  o.tell,
	}
}

// proxyFor chooses by the scheme of a request. Without a proxy go this machine
// itself, and the hosts that an entry of direct means.
func proxyFor(httpProxy, httpsProxy resource.URL, direct []string) func(*http.Request) (*url.URL, error) {
	if httpProxy.IsZero() && httpsProxy.IsZero() {
		return nil
	}
	return func(r *http.Request) (*url.URL, error) {
		proxy := httpProxy
		if r.URL.Scheme == "https" {
			proxy = httpsProxy
		}
		host := strings.TrimSuffix(r.URL.Hostname(), ".")
		ip := net.ParseIP(host)
		switch {
		case proxy.IsZero(), strings.EqualFold(host, "localhost"), ip != nil && ip.IsLoopback(),
			slices.ContainsFunc(direct, func(d string) bool { return coversPort(d, host, portOf(r.URL)) }):
			return nil, nil
		}
		u, err := url.Parse(proxy.Reveal())
		if err != nil {
			return nil, errors.New("the address of the proxy is no URL")
		}
		return u, nil
	}
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// coversPort says whether an entry of noProxy means a host and a port: as covers,
// and where the entry ends with :PORT, that port alone.
func coversPort(entry, host, port string) bool {
	entry = strings.TrimSpace(entry)
	if name, only, err := net.SplitHostPort(entry); err == nil {
		return only == port && covers(name, host)
	}
	return covers(strings.Trim(entry, "[]"), host)
}

// covers says whether an entry of noProxy means a host: "*", an address, a
// network, a domain with all below it; with a point before it, or "*.", only
// what is below it.
func covers(entry, host string) bool {
	if entry == "*" || entry != "" && strings.EqualFold(entry, host) {
		return true
	}
	ip := net.ParseIP(host)
	if _, network, err := net.ParseCIDR(entry); err == nil {
		return ip != nil && network.Contains(ip)
	}
	if ip != nil {
		return ip.Equal(net.ParseIP(entry))
	}
	domain := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(entry, "*"), "."))
	return domain != "" && strings.HasSuffix(strings.ToLower(host), "."+domain)
}

// settings follows what the documents so far say about fetching.
func (o *outward) settings(ctx context.Context) func(config.Settings) {
	return func(s config.Settings) {
		roots, err := o.roots(ctx, s.CertificateAuthorities)
		if err != nil {
			o.err = fmt.Errorf("certificate authorities: %w", err)
			return
		}
		o.use(roots, s.HTTPProxy, s.HTTPSProxy, s.NoProxy, seconds(s.Timeouts.HTTPResponseHeaders, unlimited), seconds(s.Timeouts.HTTPTotal, 0))
	}
}

// roots are the authorities of this system and those that a config adds; nil where
// it adds none.
func (o *outward) roots(ctx context.Context, more []resource.Resource) (*x509.CertPool, error) {
	if len(more) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	for _, ca := range more {
		// Once for all levels of a config, and for all units of a boot.
		bundle, ok := o.authorities[partName(ca)]
		if !ok {
			if bundle, err = o.client.Bytes(ctx, ca); err != nil {
				return nil, err
			}
			o.authorities[partName(ca)] = bundle
		}
		if !pool.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("%s: no certificate in it", ca)
		}
	}
	return pool, nil
}

// keep adds the authorities that came over the network to what is frozen, so that
// a later unit, or boot, needs no network to know whom to trust.
func (o *outward) keep(c config.Config, parts map[string][]byte) (map[string][]byte, error) {
	s, err := c.Settings()
	if err != nil {
		return nil, err
	}
	for _, ca := range s.CertificateAuthorities {
		bundle, ok := o.authorities[partName(ca)]
		if !ok || !ca.Remote() {
			continue
		}
		if parts == nil {
			parts = map[string][]byte{}
		}
		parts[partName(ca)] = bundle
	}
	return parts, nil
}

// follow does what a whole config says about fetching, for all that is fetched after
// the config itself.
func (o *outward) follow(ctx context.Context, c config.Config) error {
	s, err := c.Settings()
	if err != nil {
		return err
	}
	o.settings(ctx)(s)
	return o.err
}

// unlimited is longer than anything that has a deadline.
const unlimited = 24 * time.Hour

// seconds reads one of Ignition's timeouts: 0 where it is not said, and none where
// it is said to be 0.
func seconds(n *int, none time.Duration) time.Duration {
	switch {
	case n == nil:
		return 0
	case *n == 0:
		return none
	}
	return time.Duration(*n) * time.Second
}

// fetch gets resources side by side, in their order. The error is that of the first
// in the list that fails; what comes after it in the list is given up.
func (o *outward) fetch(ctx context.Context, list []resource.Resource) ([][]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	bodies := make([][]byte, len(list))
	errs := make([]error, len(list))
	contexts := make([]context.Context, len(list))
	cancels := make([]context.CancelFunc, len(list))
	for i := range list {
		contexts[i], cancels[i] = context.WithCancel(ctx)
		defer cancels[i]()
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, initrd.Overlap)
	for i, r := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if bodies[i], errs[i] = o.client.Bytes(contexts[i], r); errs[i] != nil {
				for _, cancel := range cancels[i+1:] {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return bodies, nil
}
