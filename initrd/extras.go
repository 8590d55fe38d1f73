package initrd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Extra is what steps need beside the table of kinds where a config wishes for something that
// not every initrd is to have room for: "raid" is storage.raid, "clevis" is clevis in
// storage.luks. A name that is none of these is an error.
func Extra(name string) (programs, modules []string, err error) {
	extras := map[string][2][]string{
		"raid": {{"mdadm"}, {"md_mod", "raid0", "raid1", "raid10", "raid456"}},
		"clevis": {{
			// A set of scripts, with all that they call for any of the pins tang, tpm2 and sss.
			"bash", "clevis", "clevis-luks-bind", "clevis-luks-unlock", "clevis-luks-common-functions", "clevis-decrypt",
			"clevis-encrypt-sss", "clevis-decrypt-sss", "clevis-encrypt-tang", "clevis-decrypt-tang", "clevis-encrypt-tpm2", "clevis-decrypt-tpm2",
			"jose", "curl", "tpm2_createprimary", "tpm2_create", "tpm2_load", "tpm2_unseal", "tpm2_flushcontext", "tpm2_createpolicy", "tpm2_pcrread",
			"basename", "cat", "cut", "grep", "mkdir", "mktemp", "rm", "sed", "sort", "tr",
		}, nil},
	}
	e, ok := extras[name]
	if !ok {
		return nil, nil, fmt.Errorf("%q is none of %s", name, strings.Join(slices.Sorted(maps.Keys(extras)), ", "))
	}
	return e[0], e[1], nil
}
