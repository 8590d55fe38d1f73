package config

import (
	"encoding/json"
)

// The section as it stands in a document. Pointers tell what is not said; a
// field of type later is a key of the format that this version refuses.

type wireSection struct {
	Version *string      `json:"version"`
	Policy  wirePolicy   `json:"policy"`
	Repart  []wireRepart `json:"repart"`
	Verity  []wireVerity `json:"verity"`
	Luks    []wireLuks   `json:"luks"`
	Root    *string      `json:"root"`
	Images  later        `json:"images"`
	Measure wireMeasure  `json:"measure"`
	Network []wireDropin `json:"network"`
	Etc     wireEtc      `json:"etc"`
	Report  later        `json:"report"`
}

type wirePolicy struct {
	Run            *string `json:"run"`
	Disks          *string `json:"disks"`
	OnFailure      *string `json:"onFailure"`
	OnFetchFailure later   `json:"onFetchFailure"`
	Keep           *string `json:"keep"`
	Media          *bool   `json:"media"`
}

type wireRepart struct {
	Name         *string       `json:"name"`
	Device       *string       `json:"device"`
	Match        *wireMatch    `json:"match"`
	Empty        *string       `json:"empty"`
	Seed         *string       `json:"seed"`
	FactoryReset *bool         `json:"factoryReset"`
	TPM2PCRs     []int         `json:"tpm2PCRs"`
	KeyFile      *wireResource `json:"keyFile"`
	Definitions  []wireDropin  `json:"definitions"`
}

type wireMatch struct {
	Serial    *string `json:"serial"`
	WWN       *string `json:"wwn"`
	Model     *string `json:"model"`
	SizeMin   *string `json:"sizeMin"`
	SizeMax   *string `json:"sizeMax"`
	Transport *string `json:"transport"`
}

type wireVerity struct {
	Name              *string       `json:"name"`
	RootHash          *string       `json:"rootHash"`
	Data              *string       `json:"data"`
	Hash              *string       `json:"hash"`
	RootHashSignature *wireResource `json:"rootHashSignature"`
	OnCorruption      *string       `json:"onCorruption"`
	OnError           later         `json:"onError" why:"systemd-veritysetup has no option for what follows an I/O error, only for corruption"`
	FEC               *wireFEC      `json:"fec"`
	Mount             *string       `json:"mount"`
}

type wireFEC struct {
	Device *string `json:"device"`
	Offset *uint64 `json:"offset"`
	Roots  *int    `json:"roots"`
}

type wireMeasure struct {
	PCR      *int  `json:"pcr"`
	Required *bool `json:"required"`
}

type wireDropin struct {
	Name     *string       `json:"name"`
	Contents *wireResource `json:"contents"`
}

type wireEtc struct {
	Upper       *string          `json:"upper"`
	Tmpfiles    []wireDropin     `json:"tmpfiles"`
	Sysusers    []wireDropin     `json:"sysusers"`
	Credentials []wireCredential `json:"credentials"`
	Extensions  later            `json:"extensions"`
}

type wireCredential struct {
	Name      *string       `json:"name"`
	Contents  *wireResource `json:"contents"`
	Encrypted *bool         `json:"encrypted"`
	Scope     *string       `json:"scope"`
}

type wireResource struct {
	Source       *string      `json:"source"`
	Inline       *string      `json:"inline"`
	HTTPHeaders  []wireHeader `json:"httpHeaders"`
	Compression  *string      `json:"compression"`
	Verification struct {
		Hash *string `json:"hash"`
	} `json:"verification"`
}

type wireHeader struct {
	Name  *string `json:"name"`
	Value *string `json:"value"`
}

// decode stores a value as encoding/json does. What has the wrong type was
// reported by its shape and stays zero; encoding/json goes on behind it.
func decode[T any](d *document, n *node, p place) T {
	var v T
	if err := json.Unmarshal(n.raw, &v); err != nil && len(d.found) == 0 {
		d.fault(p, "cannot be decoded", "")
	}
	return v
}
