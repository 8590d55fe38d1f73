package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
	"pilotlight/stages"
)

// baseDir holds the base fragments of an image. It is part of the initrd, and so
// of what was signed and measured with it.
const baseDir = "/usr/lib/pilotlight/base.d"

// baseFragments reads a directory of base fragments, by name.
func baseFragments(dir string) ([]config.Document, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.ign"))
	if err != nil {
		return nil, err
	}
	var list []config.Document
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list = append(list, config.Document{Name: initrd.BasePrefix + filepath.Base(name), Source: name, Bytes: data})
	}
	return list, nil
}

// told is all that a boot was told, ready for the stages.
type told struct {
	frozen initrd.Frozen
	config config.Config
	report config.Report // warnings
	facts  stages.Facts
}

func (t told) input() stages.Input {
	return stages.Input{Config: t.config, Documents: t.frozen.Outside(), Facts: t.facts}
}

// wantOf is what a stage wants. Only the last one keeps a copy of all documents, which
// can be megabytes.
func (t told) wantOf(s stages.Stage) ([]initrd.Step, error) {
	in := t.input()
	if s.Name == "report" {
		packed, err := t.frozen.Pack()
		if err != nil {
			return nil, err
		}
		in.Facts.Packed = packed
	}
	return s.Want(in)
}

// frozenDocuments is the other way round.
func frozenDocuments(list []config.Document) []initrd.Document {
	var out []initrd.Document
	for _, d := range list {
		out = append(out, initrd.Document(d))
	}
	return out
}

// documents are those of a frozen config, as package config knows them.
func documents(f initrd.Frozen) []config.Document {
	var list []config.Document
	for _, d := range f.Documents {
		list = append(list, config.Document(d))
	}
	return list
}

// read makes a config of what is frozen: the same documents in the same order, so
// that nothing is fetched.
func read(ctx context.Context, f initrd.Frozen, strict bool) (told, error) {
	all := documents(f)
	first := slices.DeleteFunc(slices.Clone(all), func(d config.Document) bool { return strings.HasPrefix(d.Name, "child-") })
	rest := all[len(first):]
	again := func(_ context.Context, list []resource.Resource) ([][]byte, error) {
		if len(rest) < len(list) {
			return nil, fmt.Errorf("%d documents are wanted and %d are left: this config was frozen by another version", len(list), len(rest))
		}
		var bodies [][]byte
		for _, d := range rest[:len(list)] {
			bodies = append(bodies, d.Bytes)
		}
		rest = rest[len(list):]
		return bodies, nil
	}
	got, err := config.Collect(ctx, first, again, nil, config.Options{Strict: strict})
	if err != nil {
		return told{}, err
	}
	return tell(f, got)
}

// tell is what a boot is told by documents that were collected.
func tell(f initrd.Frozen, got config.Collected) (told, error) {
	t := told{frozen: f, config: got.Config, report: got.Report}
	if err := t.inline(); err != nil {
		return told{}, err
	}
	t.facts = stages.Facts{
		Boot: stages.Boot(f.Boot), Platform: f.Platform, Provision: f.Provision,
		Root: initrd.BootRoot, Digest: f.Digest(),
	}
	return t, nil
}

// wholes are the resources that stages must know as a whole.
func wholes(c *config.Config) []*resource.Resource {
	var list []*resource.Resource
	for i := range c.Pilotlight.Repart {
		if k := c.Pilotlight.Repart[i].KeyFile; k != nil {
			list = append(list, k)
		}
		for j := range c.Pilotlight.Repart[i].Definitions {
			list = append(list, &c.Pilotlight.Repart[i].Definitions[j].Contents)
		}
	}
	for _, l := range c.Pilotlight.Luks {
		if l.PIN != nil {
			list = append(list, l.PIN)
		}
	}
	for i := range c.Pilotlight.Verity {
		if s := c.Pilotlight.Verity[i].RootHashSignature; s != nil {
			list = append(list, s)
		}
	}
	return list
}

// fetchWholes gets those of them that are remote, to be frozen with the config.
func fetchWholes(ctx context.Context, c *config.Config, fetch func(context.Context, []resource.Resource) ([][]byte, error)) (map[string][]byte, error) {
	var remote []resource.Resource
	for _, r := range wholes(c) {
		if r.Remote() {
			remote = append(remote, *r)
		}
	}
	bodies, err := fetch(ctx, remote)
	if err != nil || len(remote) == 0 {
		return nil, err
	}
	parts := map[string][]byte{}
	for i, r := range remote {
		parts[partName(r)] = bodies[i]
	}
	return parts, nil
}

func partName(r resource.Resource) string {
	id := r.Identity()
	return hex.EncodeToString(id[:])
}

// inline puts what was frozen in the place of remote resources.
func (t *told) inline() error {
	for _, r := range wholes(&t.config) {
		if !r.Remote() {
			continue
		}
		data, ok := t.frozen.Parts[partName(*r)]
		if !ok {
			return fmt.Errorf("%s was not fetched with the config", r)
		}
		text := resource.NewSecret(string(data))
		*r = resource.Resource{Inline: &text}
	}
	return nil
}

// newProvision makes a provision id: a random version 4 UUID.
func newProvision() string {
	var g disk.GUID
	rand.Read(g[:])
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g.String()
}

// want is all that a boot wants, stage by stage.
func (t told) want(skip ...string) ([]initrd.Step, error) {
	var steps []initrd.Step
	for _, s := range stages.All {
		if slices.Contains(skip, s.Name) {
			continue
		}
		list, err := t.wantOf(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		steps = append(steps, list...)
	}
	return steps, nil
}

// where tells at which place of the config a failure was asked for, "" if at none
// in particular.
func where(err error, list []config.Document) string {
	var invalid *config.InvalidError
	var fault *stages.Error
	var failed *initrd.Error
	var at config.Position
	ok := false
	switch {
	case errors.As(err, &invalid):
		for _, f := range invalid.Report {
			if f.Severity == config.Error {
				return config.Position{Document: f.Document, Line: f.Line, Column: f.Column, Path: f.Path}.String()
			}
		}
	case errors.As(err, &fault):
		of, key := fault.Entry()
		at, ok = config.Find(list, of, key, fault.Name)
	case errors.As(err, &failed):
		if path, key, value := stages.Asked(failed.Step); path != nil {
			at, ok = config.Find(list, path, key, value)
		}
	}
	if !ok {
		return ""
	}
	return at.String()
}
