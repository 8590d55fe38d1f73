package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/tpm"
	"pilotlight/stages"
)

func predictVerb() verb {
	return verb{
		name: "predict", usage: "--config FILE [--with URL=FILE]... [--base DIR] [--initial HEX | --from EVENTLOG... | --os-separator] [--json]",
		short: "say what the PCR will be on a machine that has this config",
		long: `FILE must be, byte for byte, what the machine will be given: pilotlight fetch prints it.
What it pulls in is fetched, unless --with says which file to take for an address.

Command line extras, credentials on the ESP and systemd's own measurements share the PCR.
--initial gives the SHA-256 value that it has before ours, --from an event log of such a
machine; without either it starts at zero. Where a UKI was booted there are two logs, and
the first one comes first:

  /sys/kernel/security/tpm0/binary_bios_measurements   the firmware's
  /run/log/systemd/tpm2-measure.log                    systemd's, up to our first event

--os-separator is the start on a machine whose UKI has systemd 261 or newer, and nothing
else in that PCR: there systemd measures a word of that name before us.

example: pilotlight predict --config web.ign --from binary_bios_measurements --from tpm2-measure.log`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			file := f.String("config", "", "the config, a `file`, - for standard input")
			base := f.String("base", "", "`directory` of base fragments of the image")
			initial := f.String("initial", "", "SHA-256 value before, in `hex`")
			var from logs
			f.Var(&from, "from", "event `log` of what comes before ours, once or twice")
			separator := f.Bool("os-separator", false, "systemd of 261 and newer measures before us")
			asJSON := f.Bool("json", false, "print JSON")
			with := substitutes{}
			f.Var(with, "with", "take a file for an address, `url=file`")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				if *file == "" {
					return misused("--config is needed")
				}
				if *initial != "" && len(from) > 0 || *separator && (*initial != "" || len(from) > 0) {
					return misused("--initial, --from and --os-separator exclude each other")
				}
				o := newOutward(&initrd.Network{}, config.Knobs{}, c.show.tell)
				t, err := load(c, *file, *base, false, with.fetch(o.fetch), o)
				if err != nil {
					return err
				}
				pcr := t.config.Pilotlight.Measure.PCROrDefault()
				start, err := initialPCR(c, *initial, from, pcr)
				if err != nil {
					return err
				}
				if *separator {
					start = tpm.Replay(start, []string{osSeparator})
				}
				want, err := stages.Measure(t.input())
				if err != nil {
					return err
				}
				var words []string
				for _, s := range want {
					words = append(words, s.(initrd.Extend).Word)
				}
				values := tpm.Replay(start, words)
				if *initial != "" {
					// The start of the other banks is not known.
					values = map[tpm.Bank][]byte{tpm.SHA256: values[tpm.SHA256]}
				}
				return c.show.prediction(prediction{pcr, words, start, values}, *asJSON)
			}
		},
	}
}

// osSeparator is the word of systemd-pcrosseparator.service(8).
const osSeparator = "os-separator"

// logs are event logs of one boot, in their order.
type logs []string

func (l *logs) String() string { return "" }

func (l *logs) Set(name string) error {
	*l = append(*l, name)
	return nil
}

// substitutes are files that stand for addresses.
type substitutes map[string]string

func (s substitutes) String() string { return "" }

// Set takes URL=FILE. A URL may hold "=" in its query, so the last one counts.
func (s substitutes) Set(v string) error {
	i := strings.LastIndex(v, "=")
	if i <= 0 || i == len(v)-1 {
		return errors.New("not of the form URL=FILE")
	}
	s[v[:i]] = v[i+1:]
	return nil
}

// fetch takes a file where there is one for the address, verified and decompressed
// as the address's bytes would be.
func (s substitutes) fetch(otherwise func(context.Context, []resource.Resource) ([][]byte, error)) func(context.Context, []resource.Resource) ([][]byte, error) {
	return func(ctx context.Context, list []resource.Resource) ([][]byte, error) {
		list = slices.Clone(list)
		for i, r := range list {
			name, ok := s[r.Source.Reveal()]
			if !ok {
				continue
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			text := resource.NewSecret(string(data))
			list[i] = resource.Resource{Inline: &text, Compression: r.Compression, Hash: r.Hash}
		}
		return otherwise(ctx, list)
	}
}

// initialPCR is the value before ours in each bank that anything is known of.
func initialPCR(c *call, initial string, from logs, pcr int) (map[tpm.Bank][]byte, error) {
	if initial != "" {
		sum, err := hex.DecodeString(initial)
		if err != nil || len(sum) != 32 {
			return nil, misused("--initial: not 64 hexadecimal digits")
		}
		return map[tpm.Bank][]byte{tpm.SHA256: sum}, nil
	}
	var readers []io.Reader
	firmware := false
	for _, name := range from {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		firmware = firmware || !tpm.Userspace(data)
		readers = append(readers, bytes.NewReader(data))
	}
	values, err := tpm.Start(pcr, readers...)
	if err != nil {
		return nil, fmt.Errorf("--from %s: %w", strings.Join(from, ", "), err)
	}
	if len(from) > 0 && !firmware {
		c.show.note("warning: without the firmware's log, what boot loader and stub measured into PCR %d is taken for nothing", pcr)
	}
	return values, nil
}

// A prediction is what a PCR will be.
type prediction struct {
	pcr    int
	words  []string
	start  map[tpm.Bank][]byte // before the words; a bank that is not there starts at zeros
	values map[tpm.Bank][]byte
}

// prediction prints what a PCR will be, and from where it starts.
func (s show) prediction(p prediction, asJSON bool) error {
	banks := slices.Sorted(maps.Keys(p.values))
	start := tpm.Replay(p.start, nil)
	if asJSON {
		from, to := map[tpm.Bank]string{}, map[tpm.Bank]string{}
		for _, b := range banks {
			from[b], to[b] = hex.EncodeToString(start[b]), hex.EncodeToString(p.values[b])
		}
		return s.json(map[string]any{"pcr": p.pcr, "start": from, "values": to, "events": p.words})
	}
	for _, b := range banks {
		if _, known := p.start[b]; known {
			s.line("start   %-6s %x", b, start[b])
		}
	}
	for _, w := range p.words {
		s.line("event   %s", w)
	}
	for _, b := range banks {
		s.line("PCR %d  %-6s %x", p.pcr, b, p.values[b])
	}
	return nil
}
