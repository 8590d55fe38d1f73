package stages

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
)

// volumes are Ignition's storage.luks, with what our section says of its entries. On a later
// boot those are unlocked again that the initrd needs, by what the config knows; the host
// does that for the others, by its crypttab.
func volumes(in Input) ([]initrd.Step, error) {
	list := in.Config.Ignition.Storage.Luks
	for _, l := range in.Config.Pilotlight.Luks {
		if !slices.ContainsFunc(list, func(o types.Luks) bool { return o.Name == l.Name }) {
			return nil, &Error{"luks", l.Name, fmt.Errorf("there is no entry of that name in storage.luks")}
		}
	}
	var steps []initrd.Step
	for _, l := range list {
		v, err := volume(l, in)
		if err != nil {
			return nil, err
		}
		if v.Wipe && !in.mayLose() {
			return nil, &Error{"storage.luks", v.Name, fmt.Errorf("wipeVolume is true, and without a record every boot of this machine is a first boot: " +
				"say policy.disks: wipe if each boot shall wipe it")}
		}
		if on := mountedFrom(in, volumePaths(v.Name)); (on == "/" || on == "/usr") && !opened(v, in) {
			return nil, fmt.Errorf("volume %s: it holds %s, and its key would lie in there: give it clevis, tpm2, or a keyFile with a data: URL", v.Name, on)
		}
		if in.Facts.Boot != Later {
			steps = append(steps, v)
			continue
		}
		if !opened(v, in) {
			continue
		}
		s, err := unlocked(v)
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// byHost says whether a device is a volume that the host alone can unlock at later boots.
func byHost(in Input, device string) bool {
	for _, l := range in.Config.Ignition.Storage.Luks {
		if slices.Contains(volumePaths(l.Name), device) {
			v, err := volume(l, in)
			return err == nil && !opened(v, in)
		}
	}
	return false
}

// opened says whether the initrd unlocks a volume at later boots: where the config mounts
// something of it, and where the initrd alone knows the PIN. Of a volume whose key it does not
// know then the host has the key.
func opened(v initrd.Volume, in Input) bool {
	known := v.Clevis != nil || v.TPM2 != nil || v.Key != nil && !v.Key.Remote()
	return known && mountedFrom(in, volumePaths(v.Name)) != "" || v.TPM2 != nil && !v.TPM2.PIN.Empty()
}

// unlocked is the wish of a later boot for a volume that an earlier one made.
func unlocked(v initrd.Volume) (initrd.Step, error) {
	switch {
	case v.Clevis != nil:
		return initrd.ClevisUnlocked{Name: v.Name, Device: v.Device, Clevis: *v.Clevis}, nil
	case v.TPM2 != nil:
		return initrd.Luks{Name: v.Name, Device: v.Device, TPM2: true, PIN: v.TPM2.PIN}, nil
	}
	key, err := v.Key.Local()
	if err != nil {
		return nil, fmt.Errorf("volume %s: keyFile: %w", v.Name, err)
	}
	return initrd.Luks{Name: v.Name, Device: v.Device, Key: resource.NewSecret(string(key))}, nil
}

func volume(l types.Luks, in Input) (initrd.Volume, error) {
	v := initrd.Volume{
		Name: l.Name, Label: l.Label, UUID: l.UUID,
		Discard: yes(l.Discard), Wipe: yes(l.WipeVolume), Provision: in.Facts.Provision,
	}
	if l.Device != nil {
		v.Device = *l.Device
	}
	for _, o := range l.Options {
		v.Options = append(v.Options, string(o))
	}
	for _, o := range l.OpenOptions {
		v.OpenOptions = append(v.OpenOptions, string(o))
	}
	if s := l.KeyFile.Source; s != nil && *s != "" {
		key, err := config.Resource(l.KeyFile)
		if err != nil {
			return v, fmt.Errorf("volume %s: keyFile: %w", l.Name, err)
		}
		v.Key = &key
	}
	if l.Clevis.IsPresent() {
		c, err := clevis(l.Clevis)
		if err != nil {
			return v, fmt.Errorf("volume %s: clevis: %w", l.Name, err)
		}
		v.Clevis = &c
	}
	at := slices.IndexFunc(in.Config.Pilotlight.Luks, func(o config.Luks) bool { return o.Name == l.Name })
	if at < 0 {
		return v, nil
	}
	if v.Clevis != nil {
		return v, &Error{"luks", l.Name, fmt.Errorf("the volume is bound by clevis in storage.luks: one of the two")}
	}
	e, err := enrolment(in.Config.Pilotlight.Luks[at])
	if err != nil {
		return v, &Error{"luks", l.Name, err}
	}
	v.TPM2 = &e
	return v, nil
}

// enrolment is what our section says of a volume.
func enrolment(l config.Luks) (initrd.Enrolment, error) {
	e := initrd.Enrolment{PCRs: l.TPM2PCRs}
	if l.PIN != nil {
		pin, err := l.PIN.Local()
		if err != nil {
			return e, fmt.Errorf("tpm2.pin: %w", err)
		}
		if len(pin) == 0 {
			return e, fmt.Errorf("tpm2.pin: it is empty")
		}
		e.PIN = resource.NewSecret(string(pin))
	}
	if r := l.Recovery; r != nil {
		e.Recovery = initrd.Recovery{Credential: r.Credential, Upload: r.URL}
	}
	return e, nil
}

// tangPin, sssPins and sss are the config of clevis' pin sss (clevis-encrypt-sss(1)).
type tangPin struct {
	URL           string `json:"url"`
	Thumbprint    string `json:"thp,omitempty"`
	Advertisement any    `json:"adv,omitempty"`
}

type sssPins struct {
	Tang []tangPin `json:"tang,omitempty"`
	TPM2 *struct{} `json:"tpm2,omitempty"`
}

type sss struct {
	Pins      sssPins `json:"pins"`
	Threshold int     `json:"t"`
}

// clevis turns Ignition's words into those of clevis: a pin of the user's own as it is, and
// else shares of a secret, of which some are enough.
func clevis(c types.Clevis) (initrd.Clevis, error) {
	if pin := c.Custom.Pin; pin != nil && *pin != "" {
		out := initrd.Clevis{Pin: *pin}
		if c.Custom.Config != nil {
			out.Config = resource.NewSecret(*c.Custom.Config)
		}
		var tree any
		if err := json.Unmarshal([]byte(out.Config.Reveal()), &tree); err != nil {
			return out, fmt.Errorf("custom.config: not JSON")
		}
		out.TPM2 = *pin == "tpm2" || names(tree, "tpm2")
		var urls []string
		urlsIn(tree, &urls)
		for _, u := range urls {
			r, err := advertisement(u)
			if err != nil {
				return out, err
			}
			if yes(c.Custom.NeedsNetwork) {
				out.Servers = append(out.Servers, r)
			}
		}
		out.Hosts = hosts(urls)
		return out, nil
	}
	words := sss{Threshold: 1}
	if c.Threshold != nil && *c.Threshold != 0 {
		words.Threshold = *c.Threshold
	}
	out := initrd.Clevis{Pin: "sss", TPM2: yes(c.Tpm2)}
	ready := 0
	if out.TPM2 {
		words.Pins.TPM2 = &struct{}{}
		ready++
	}
	for _, t := range c.Tang {
		pin := tangPin{URL: t.URL}
		if t.Thumbprint != nil {
			pin.Thumbprint = *t.Thumbprint
		}
		if a := t.Advertisement; a != nil && *a != "" {
			if err := json.Unmarshal([]byte(*a), &pin.Advertisement); err != nil {
				return out, fmt.Errorf("tang.advertisement: not JSON")
			}
		} else {
			r, err := advertisement(t.URL)
			if err != nil {
				return out, err
			}
			out.Servers = append(out.Servers, r)
			ready++
		}
		words.Pins.Tang = append(words.Pins.Tang, pin)
		out.Hosts = append(out.Hosts, hosts([]string{t.URL})...)
	}
	text, err := json.Marshal(words)
	out.Config = resource.NewSecret(string(text))
	// A server whose advertisement the config brings need not be there yet.
	out.Test = ready >= words.Threshold
	return out, err
}

// hosts are those of addresses that are names, with the port.
func hosts(urls []string) []string {
	var list []string
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			continue
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		list = append(list, net.JoinHostPort(u.Hostname(), port))
	}
	return list
}

// advertisement is where a key server has its keys.
func advertisement(server string) (resource.Resource, error) {
	u, err := url.Parse(server)
	if err != nil {
		return resource.Resource{}, fmt.Errorf("the address of a key server cannot be read")
	}
	u.Path = path.Join("/", u.Path, "adv")
	at, err := resource.ParseURL(u.String())
	return resource.Resource{Source: at}, err
}

// names says whether a key stands anywhere in a JSON value.
func names(v any, key string) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			if k == key || names(item, key) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return names(item, key) })
	}
	return false
}

// urlsIn collects the addresses of key servers in the config of a pin.
func urlsIn(v any, list *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			if s, ok := item.(string); ok && k == "url" {
				*list = append(*list, s)
			}
			urlsIn(item, list)
		}
	case []any:
		for _, item := range v {
			urlsIn(item, list)
		}
	}
}

// volumeFiles are the keys of volumes in the new root, and its crypttab.
func volumeFiles(in Input) ([]initrd.Step, error) {
	var steps []initrd.Step
	tab := initrd.Crypttab{Root: in.Facts.Root}
	for _, l := range in.Config.Ignition.Storage.Luks {
		v, err := volume(l, in)
		if err != nil {
			return nil, err
		}
		line := initrd.CrypttabLine{Name: v.Name, Device: v.Device, Key: "none"}
		switch {
		case v.TPM2 != nil:
			line.Options = append(line.Options, "tpm2-device=auto")
		case v.Clevis == nil:
			key := initrd.KeyFile{Root: in.Facts.Root, Name: v.Name, Key: v.Key}
			line.Key = key.Path()
			steps = append(steps, key)
		}
		if len(l.Clevis.Tang) > 0 || l.Clevis.Custom.Pin != nil && yes(l.Clevis.Custom.NeedsNetwork) {
			line.Options = append(line.Options, "_netdev")
		}
		if opened(v, in) {
			// What the initrd unlocked stays as it is through a soft-reboot, and until the root is
			// gone at shutdown (crypttab(5)).
			line.Options = append(line.Options, "x-initrd.attach")
		}
		tab.Volumes = append(tab.Volumes, line)
	}
	if len(tab.Volumes) == 0 {
		return nil, nil
	}
	return append(steps, tab), nil
}
