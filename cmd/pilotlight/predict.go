package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
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
		name: "predict", usage: "--config FILE [--with URL=FILE]... [--base DIR] [--initial HEX | --from EVENTLOG] [--json]",
		short: "say what the PCR will be on a machine that has this config",
		long: `FILE must be, byte for byte, what the machine will be given: pilotlight fetch prints it.
What it pulls in is fetched, unless --with says which file to take for an address.

Command line extras, credentials on the ESP and systemd's own measurements share the PCR.
--initial gives the SHA-256 value that it has before ours, --from an event log of the
machine (systemd's, or the firmware's) that ends there; without either it starts at zero.

example: pilotlight predict --config web.ign --json`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			file := f.String("config", "", "the config, a `file`, - for standard input")
			base := f.String("base", "", "`directory` of base fragments of the image")
			initial := f.String("initial", "", "SHA-256 value before, in `hex`")
			from := f.String("from", "", "event `log` that ends before ours")
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
				if *initial != "" && *from != "" {
					return misused("--initial and --from exclude each other")
				}
				o := newOutward(&initrd.Network{}, config.Knobs{}, c.show.tell)
				t, err := load(c, *file, *base, false, with.fetch(o.fetch), o)
				if err != nil {
					return err
				}
				pcr := t.config.Pilotlight.Measure.PCROrDefault()
				start, err := initialPCR(*initial, *from, pcr)
				if err != nil {
					return err
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
				return c.show.prediction(pcr, words, values, *asJSON)
			}
		},
	}
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

// initialPCR is the value before ours in each bank.
func initialPCR(initial, from string, pcr int) (map[tpm.Bank][]byte, error) {
	switch {
	case initial != "":
		sum, err := hex.DecodeString(initial)
		if err != nil || len(sum) != 32 {
			return nil, misused("--initial: not 64 hexadecimal digits")
		}
		return map[tpm.Bank][]byte{tpm.SHA256: sum}, nil
	case from != "":
		data, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		values, err := tpm.ReplayLog(bytes.NewReader(data), pcr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		return values, nil
	}
	return nil, nil
}

// prediction prints what a PCR will be.
func (s show) prediction(pcr int, words []string, values map[tpm.Bank][]byte, asJSON bool) error {
	banks := slices.Sorted(maps.Keys(values))
	if asJSON {
		text := map[tpm.Bank]string{}
		for _, b := range banks {
			text[b] = hex.EncodeToString(values[b])
		}
		return s.json(map[string]any{"pcr": pcr, "values": text, "events": words})
	}
	for _, w := range words {
		s.line("event   %s", w)
	}
	for _, b := range banks {
		s.line("PCR %d  %-6s %x", pcr, b, values[b])
	}
	return nil
}
