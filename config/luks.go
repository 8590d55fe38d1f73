package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
)

// Luks says more of an entry of Ignition's storage.luks: that its volume is bound to the TPM
// by systemd-cryptenroll(1), without clevis.
type Luks struct {
	// Name is that of the entry.
	Name string
	// TPM2PCRs are the PCRs that the volume is bound to, as --tpm2-pcrs=. Nil is not said;
	// empty binds to the TPM alone. It cannot hold the PCR that configs are measured into.
	TPM2PCRs []int
	// PIN is asked for beside the TPM; nil if there is none. It is known to the initrd alone,
	// by the config.
	PIN *resource.Resource
	// Recovery says where the recovery key goes; nil is not said.
	Recovery *Recovery
}

// Recovery is where a recovery key goes. One of the fields is set.
type Recovery struct {
	// None says that there shall be no such key.
	None bool
	// Credential is the name of a credential for services of the host, in the boot that
	// made the volume.
	Credential string
	// URL is an address that the key is sent to by POST, with headers. Nothing else of
	// the resource is used.
	URL *resource.Resource
}

func (l Luks) key() string { return l.Name }

type wireLuks struct {
	Name     *string       `json:"name"`
	TPM2     *wireTPM2     `json:"tpm2"`
	Recovery *wireRecovery `json:"recovery"`
}

type wireTPM2 struct {
	PCRs []int         `json:"pcrs"`
	PIN  *wireResource `json:"pin"`
}

// wireRecovery is an object, or the word "none".
type wireRecovery struct {
	Credential *string      `json:"credential"`
	URL        *wireAddress `json:"url"`
	word       *string      // in place of the object
}

type wireAddress struct {
	Source      *string      `json:"source"`
	HTTPHeaders []wireHeader `json:"httpHeaders"`
}

var recoveryType = reflect.TypeFor[wireRecovery]()

// UnmarshalJSON takes the object and the word.
func (w *wireRecovery) UnmarshalJSON(raw []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte{'"'}) {
		return json.Unmarshal(raw, &w.word)
	}
	type plain wireRecovery
	return json.Unmarshal(raw, (*plain)(w))
}

func (d *document) luks(w wireLuks, at place) Luks {
	l := Luks{Name: said(w.Name)}
	if l.Name == "" {
		d.fault(at.then("name"), "is missing", "the name of an entry of storage.luks")
	}
	if w.TPM2 != nil {
		l.TPM2PCRs = w.TPM2.PCRs
		for i, pcr := range w.TPM2.PCRs {
			if pcr < 0 || pcr > 23 {
				d.fault(at.then("tpm2", "pcrs").item(i), "there are the PCRs 0 to 23", "")
			}
		}
		if w.TPM2.PIN != nil {
			pin := d.resource(*w.TPM2.PIN, at.then("tpm2", "pin"))
			l.PIN = &pin
		}
	}
	if w.Recovery != nil {
		r := d.recovery(*w.Recovery, at.then("recovery"))
		l.Recovery = &r
	}
	return l
}

func (d *document) recovery(w wireRecovery, at place) Recovery {
	r := Recovery{None: said(w.word) == "none", Credential: said(w.Credential)}
	switch {
	case w.word != nil && !r.None:
		d.fault(at, "is not a value that can stand here", `"none", or an object with credential or url`)
	case w.Credential != nil && w.URL != nil:
		d.fault(at.then("url"), "credential and url cannot both be set", "take one of them out")
	case w.word == nil && w.Credential == nil && w.URL == nil:
		d.fault(at, "says nothing", `"none", or an object with credential or url`)
	}
	if w.Credential != nil && (r.Credential == "" || !credentialName(r.Credential)) {
		d.fault(at.then("credential"), "is not a credential's name", `printable ASCII without "/" and ":", at most 255 bytes`)
	}
	if w.URL != nil {
		to := resource.Resource{Source: d.source(said(w.URL.Source), at.then("url", "source"))}
		if s := to.Source.Scheme(); !to.Source.IsZero() && s != "http" && s != "https" {
			d.fault(at.then("url", "source"), "cannot be sent to", "an address of http or https")
		} else if s == "http" {
			d.warn(at.then("url", "source"), "the recovery key will be sent in the clear", "https")
		}
		for i, h := range w.URL.HTTPHeaders {
			to.Headers = append(to.Headers, d.header(h, at.then("url", "httpHeaders").item(i)))
		}
		r.URL = &to
	}
	return r
}

func mergeLuks(p, c Luks) Luks {
	l := Luks{Name: c.Name, TPM2PCRs: p.TPM2PCRs, PIN: orNil(c.PIN, p.PIN), Recovery: orNil(c.Recovery, p.Recovery)}
	if c.TPM2PCRs != nil {
		l.TPM2PCRs = c.TPM2PCRs
	}
	return l
}

// luksGaps lists what entries of the list luks lack.
func (s Section) luksGaps() []gap {
	var gaps []gap
	for _, l := range s.Luks {
		if l.TPM2PCRs == nil {
			gaps = append(gaps, gap{"luks", l.Name, "does not say what the volume is bound to", `"tpm2": {"pcrs": [7]} for the state of Secure Boot, {"pcrs": []} for this TPM alone`})
		}
		if slices.Contains(l.TPM2PCRs, s.Measure.PCROrDefault()) {
			gaps = append(gaps, gap{"luks", l.Name, fmt.Sprintf("binds a volume to PCR %d, into which the config is measured: with the next change of the config it could not be unlocked any more",
				s.Measure.PCROrDefault()), "take it out of pcrs; PCR 7 holds the state of Secure Boot"})
		}
		if l.Recovery == nil {
			gaps = append(gaps, gap{"luks", l.Name, "does not say where its recovery key goes: without one all is lost with the TPM",
				`"recovery": {"credential": NAME}, {"url": {"source": …}}, or "none"`})
		}
	}
	return gaps
}

// volumes checks what the library leaves open in storage.luks.
func (d *document) volumes(list []types.Luks) {
	for i, l := range list {
		at := place{"storage", "luks"}.item(i)
		if l.Cex.IsPresent() {
			d.fault(at.then("cex"), "is for the crypto cards of s390x, which this program does not know", "take it out")
		}
		if l.Name == "." || l.Name == ".." || l.Name == "control" {
			d.fault(at.then("name"), "is not a name that can be used here", "it becomes the name of a file in /dev/mapper and in /etc/luks")
		}
	}
}
