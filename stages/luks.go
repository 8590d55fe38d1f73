package stages

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
)

// Luks wishes, at every boot, that the partitions which the definitions encrypt are
// unlocked. It comes after all measuring: what a config binds to a PCR is bound to
// the value after it.
func Luks(in Input) ([]initrd.Step, error) {
	list, err := locked(in.Config)
	if err != nil {
		return nil, err
	}
	var steps []initrd.Step
	for _, l := range list {
		steps = append(steps, l)
	}
	return steps, nil
}

// locked are the partitions that the definitions encrypt (repart.d(5), Encrypt=).
func locked(c config.Config) ([]initrd.Luks, error) {
	var list []initrd.Luks
	err := eachDefinition(c, func(r config.Repart, on initrd.Selector, d initrd.Definition) error {
		l, err := lock(r, d, on)
		if l == nil || err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(o initrd.Luks) bool { return o.Name == l.Name }) {
			return fmt.Errorf("two encrypted partitions would be /dev/mapper/%s: say which by EncryptedVolume=", l.Name)
		}
		list = append(list, *l)
		return nil
	})
	return list, err
}

// lock is what unlocks the partition of a definition, nil for one that is not
// encrypted. EncryptedVolume=NAME:KEYFILE:OPTIONS gives its name and options; the
// name is else that of the partition.
func lock(r config.Repart, d initrd.Definition, on initrd.Selector) (*initrd.Luks, error) {
	e := encryption(d)
	if e == "" {
		return nil, nil
	}
	guid, err := partitionType(d)
	if err != nil {
		return nil, err
	}
	label := d.Value("Partition", "Label")
	volume := strings.SplitN(d.Value("Partition", "EncryptedVolume"), ":", 4)
	l := &initrd.Luks{
		Name: volume[0],
		Of:   r.Name,
		What: initrd.Source{Disk: on, Type: guid, Name: label},
		TPM2: strings.Contains(e, "tpm2"),
	}
	if l.Name == "" {
		l.Name = label
	}
	if !mapperName(l.Name) {
		return nil, fmt.Errorf("an encrypted partition needs a name: Label= or EncryptedVolume=, of letters, digits, \"_\", \".\", \"+\" and \"-\"")
	}
	if len(volume) > 1 && volume[1] != "" && volume[1] != "none" && volume[1] != "-" {
		return nil, fmt.Errorf("EncryptedVolume= names a key file of the host: the key of an initrd is keyFile of the config")
	}
	if len(volume) > 2 && volume[2] != "" {
		l.Options = strings.Split(volume[2], ",")
	}
	if !l.TPM2 {
		key, err := r.KeyFile.Local()
		if err != nil {
			return nil, fmt.Errorf("keyFile: %w", err)
		}
		l.Key = resource.NewSecret(string(key))
	}
	return l, nil
}

// encryption is the value of Encrypt=, "" for none.
func encryption(d initrd.Definition) string {
	switch e := d.Value("Partition", "Encrypt"); e {
	case "off", "no", "false", "0":
		return ""
	default:
		return e
	}
}

// mapperName says whether device-mapper takes a name as it is.
func mapperName(s string) bool {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-"
	return s != "" && len(s) <= 127 && strings.Trim(s, plain) == "" && !strings.ContainsAny(s[:1], "_.+-") && s != "control"
}

// sealable says whether what a definition encrypts can be unlocked again, by this
// boot and by the next: with which PCRs and which key is never left to a default of
// systemd's, which was PCR 7 up to version 257 and is none since. measured is the
// PCR that configs go into.
func sealable(r config.Repart, d initrd.Definition, measured int) error {
	switch e := encryption(d); e {
	case "":
		return nil
	case "tpm2", "key-file+tpm2":
		if r.TPM2PCRs == nil {
			return fmt.Errorf("with Encrypt=%s say tpm2PCRs, the PCRs that it is bound to: [7] for the state of Secure Boot, [] for this TPM alone", e)
		}
		for word := range strings.FieldsFuncSeq(d.Value("Partition", "TPM2PCRs"), func(c rune) bool { return c == '+' || c == ',' || c == ' ' }) {
			word, _, _ = strings.Cut(word, ":")
			if n, err := strconv.Atoi(word); err == nil && n == measured || err != nil && word == "kernel-config" && measured == config.DefaultPCR {
				return fmt.Errorf("TPM2PCRs= holds PCR %d, into which the config is measured: with the next change of the config that data could not be unlocked any more", measured)
			}
		}
		if e == "tpm2" {
			return nil
		}
	case "key-file":
	default:
		return fmt.Errorf("value Encrypt=%s is not known: off, key-file, tpm2 or key-file+tpm2", e)
	}
	if r.KeyFile == nil {
		return fmt.Errorf("with Encrypt=%s say keyFile: without one systemd-repart takes an empty key", encryption(d))
	}
	return nil
}
