package config

import (
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"
)

// NeedsNetwork says whether anything that Ignition's part of a config names can be had
// only over a network: contents, certificates, key files, the advertisement of a tang
// server, and what a pin of the user's own says of itself. What the documents pull in is
// not counted, since it is followed already where a config was collected.
func (c Config) NeedsNetwork() (bool, error) {
	i := c.Ignition
	list := slices.Clone(i.Ignition.Security.TLS.CertificateAuthorities)
	for _, f := range i.Storage.Files {
		list = append(append(list, f.Contents), f.Append...)
	}
	for _, l := range i.Storage.Luks {
		list = append(list, l.KeyFile)
		if slices.ContainsFunc(l.Clevis.Tang, func(t types.Tang) bool { return said(t.Advertisement) == "" }) || said(l.Clevis.Custom.NeedsNetwork) {
			return true, nil
		}
	}
	for _, r := range list {
		u, err := Resource(r)
		if err != nil {
			return false, err
		}
		if u.Remote() {
			return true, nil
		}
	}
	return false, nil
}
