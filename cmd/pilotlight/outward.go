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
)

// outward is how this process reaches out. It is what providers are handed as
// their Reach, and what fetches a config's children by the settings known so far.
type outward struct {
	network *initrd.Network
	knobs   config.Knobs
	tell    func(string)

	client *resource.Client
	err    error // of settings that could not be followed; told at the next fetch
}

// newOutward reaches out by the knobs alone. network says how a network is brought
// up; its zero value is a machine that has one.
func newOutward(network *initrd.Network, knobs config.Knobs, tell func(string)) *outward {
	o := &outward{network: network, knobs: knobs, tell: tell}
	o.use(nil, resource.URL{}, resource.URL{}, nil, 0, 0)
	return o
}

// use makes the client anew.
func (o *outward) use(roots *x509.CertPool, httpProxy, httpsProxy resource.URL, direct []string, header, total time.Duration) {
	if !o.knobs.Proxy.IsZero() {
		httpProxy, httpsProxy = o.knobs.Proxy, o.knobs.Proxy
	}
	o.client = &resource.Client{
		Transport: o.network.Transport(resource.TransportOptions{Proxy: proxyFor(httpProxy, httpsProxy, direct), Roots: roots}),
		Header: http.Header{
			"User-Agent": {"pilotlight/" + version()},
			"Accept":     {"application/vnd.coreos.ignition+json;version=3.5.0, */*;q=0.1"},
		},
		ResponseHeaderTimeout: header,
		TotalTimeout:          total,
		Patience:              o.knobs.DeadlineOrDefault(),
		Tell:                  o.tell,
	}
}

// proxyFor chooses by the scheme of a request. A host is reached directly if it is
// in the list, or below a domain that is.
func proxyFor(httpProxy, httpsProxy resource.URL, direct []string) func(*http.Request) (*url.URL, error) {
	if httpProxy.IsZero() && httpsProxy.IsZero() {
		return nil
	}
	return func(r *http.Request) (*url.URL, error) {
		proxy := httpProxy
		if r.URL.Scheme == "https" {
			proxy = httpsProxy
		}
		if proxy.IsZero() || slices.ContainsFunc(direct, func(d string) bool { return covers(d, r.URL.Hostname()) }) {
			return nil, nil
		}
		u, err := url.Parse(proxy.Reveal())
		if err != nil {
			return nil, errors.New("the address of the proxy is no URL")
		}
		return u, nil
	}
}

// covers says whether an entry of noProxy means a host: "*", an address, a
// network, a domain with all below it.
func covers(entry, host string) bool {
	if entry == "*" || strings.EqualFold(entry, host) {
		return true
	}
	if _, network, err := net.ParseCIDR(entry); err == nil {
		ip := net.ParseIP(host)
		return ip != nil && network.Contains(ip)
	}
	return strings.HasSuffix(strings.ToLower(host), "."+strings.ToLower(strings.TrimPrefix(entry, ".")))
}

// settings follows what the documents so far say about fetching.
func (o *outward) settings(ctx context.Context) func(config.Settings) {
	return func(s config.Settings) {
		var roots *x509.CertPool
		if len(s.CertificateAuthorities) > 0 {
			pool, err := x509.SystemCertPool()
			if err != nil {
				pool = x509.NewCertPool()
			}
			for _, ca := range s.CertificateAuthorities {
				pem, err := o.client.Bytes(ctx, ca)
				if err == nil && !pool.AppendCertsFromPEM(pem) {
					err = fmt.Errorf("%s: no certificate in it", ca)
				}
				if err != nil {
					o.err = fmt.Errorf("certificate authority: %w", err)
					return
				}
			}
			roots = pool
		}
		o.use(roots, s.HTTPProxy, s.HTTPSProxy, s.NoProxy, seconds(s.Timeouts.HTTPResponseHeaders), seconds(s.Timeouts.HTTPTotal))
	}
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

func seconds(n *int) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Second
}

// fetch gets resources side by side, in their order.
func (o *outward) fetch(ctx context.Context, list []resource.Resource) ([][]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	bodies := make([][]byte, len(list))
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	slots := make(chan struct{}, initrd.Overlap)
	for i, r := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			bodies[i], errs[i] = o.client.Bytes(ctx, r)
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
