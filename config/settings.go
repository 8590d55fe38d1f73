package config

import (
	"fmt"

	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
)

// Settings is what a config says about fetching.
type Settings struct {
	// Timeouts in seconds as in Ignition's spec: nil is not said, 0 no limit.
	Timeouts types.Timeouts
	// CertificateAuthorities are bundles of PEM certificates to trust besides
	// those of the initrd.
	CertificateAuthorities []resource.Resource
	// Proxy is the proxy for http and for https; zero is none. NoProxy lists the
	// hosts and networks that are reached without it.
	HTTPProxy, HTTPSProxy resource.URL
	NoProxy               []string
}

// Settings returns what the config says about fetching. It fails if the config
// did not come out of Parse.
func (c Config) Settings() (Settings, error) {
	i := c.Ignition.Ignition
	s := Settings{Timeouts: i.Timeouts}
	for n, r := range i.Security.TLS.CertificateAuthorities {
		ca, err := Resource(r)
		if err != nil {
			return Settings{}, fmt.Errorf("ignition.security.tls.certificateAuthorities.%d: %w", n, err)
		}
		s.CertificateAuthorities = append(s.CertificateAuthorities, ca)
	}
	var err error
	if s.HTTPProxy, err = resource.ParseURL(said(i.Proxy.HTTPProxy)); err != nil {
		return Settings{}, fmt.Errorf("ignition.proxy.httpProxy: %w", err)
	}
	if s.HTTPSProxy, err = resource.ParseURL(said(i.Proxy.HTTPSProxy)); err != nil {
		return Settings{}, fmt.Errorf("ignition.proxy.httpsProxy: %w", err)
	}
	for _, host := range i.Proxy.NoProxy {
		s.NoProxy = append(s.NoProxy, string(host))
	}
	return s, nil
}

// fetching is a config with nothing in it but what Settings reads.
func (c Config) fetching() Config {
	i := c.Ignition.Ignition
	return Config{Ignition: types.Config{Ignition: types.Ignition{
		Version: i.Version, Timeouts: i.Timeouts, Security: i.Security, Proxy: i.Proxy,
	}}}
}

func (c Config) learn(child Config) Config {
	return Config{Ignition: v3_5.Merge(c.Ignition, child.fetching().Ignition)}
}
