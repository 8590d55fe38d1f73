package lab

import (
	"context"
	"slices"
)

// volumePackages are what makes and opens arrays and encrypted volumes, and a key server, beside treePackages.
var volumePackages = []string{"mdadm", "clevis", "clevis-luks", "clevis-tpm2", "clevis-systemd", "tang", "curl", "jose", "systemd-sysv"}

// Volumes gives a tree like that of [Cache.Tree] that can make arrays and encrypted volumes, and has the programs of a key server.
func (c Cache) Volumes(ctx context.Context, suite string) (Tree, error) {
	return c.tree(ctx, suite, "volumes-"+suite, slices.Concat(treePackages, suitePackages[suite], volumePackages))
}
