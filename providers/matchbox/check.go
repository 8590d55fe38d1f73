package matchbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Check looks through a whole directory for what would go wrong in an answer: groups and
// profiles that do not parse or that name what is not there, selectors that leave the
// choice to chance, templates that do not parse, Ignition files that matchbox would empty
// or rob of keys (left out where raw is set, see [Server.Raw]), and missing assets. It
// returns what it found in order of file names, nothing if all is well.
//
// A template is parsed but not rendered, since what it needs depends on the request.
func Check(dir string, raw bool) []Problem {
	s, err := openStore(dir)
	if err != nil {
		return []Problem{{File: dir, Err: errors.Unwrap(err)}}
	}
	defer s.Close()

	c := check{store: s, raw: raw}
	named := c.groups()
	names, err := s.names("profiles")
	if err != nil {
		c.add("profiles", err)
	}
	for _, file := range names {
		if name, ok := strings.CutSuffix(file, ".json"); ok {
			delete(named, name)
			c.profile(name)
		}
	}
	// What is left has no file in profiles/ itself: it stands in a folder below, or nowhere.
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if _, err := s.profile(name); err != nil {
			c.add(named[name], fmt.Errorf("profile: %w", err))
			continue
		}
		c.profile(name)
	}
	slices.SortStableFunc(c.found, func(a, b Problem) int { return strings.Compare(a.File, b.File) })
	return c.found
}

type check struct {
	store
	raw   bool
	found []Problem
}

// add notes err against file, unless err is a Problem of that file already.
func (c *check) add(file string, err error) {
	if problem, ok := err.(Problem); ok && problem.File == file {
		c.found = append(c.found, problem)
		return
	}
	c.found = append(c.found, Problem{File: file, Err: err})
}

// groups checks groups/ and returns the profiles that groups name, each with the file of
// the first such group.
func (c *check) groups() map[string]string {
	named := map[string]string{}
	groups, broken, err := c.store.groups()
	if err != nil {
		c.add("groups", err)
		return named
	}
	c.found = append(c.found, broken...)
	for i, g := range groups {
		if i > 0 && maps.Equal(groups[i-1].Selector, g.Selector) {
			c.found = append(c.found, sameSelector(groups[i-1], g))
		}
		if g.Profile == "" {
			c.add(g.file, errors.New("profile: required"))
		} else if _, ok := named[g.Profile]; !ok {
			named[g.Profile] = g.file
		}
		for _, key := range slices.Sorted(maps.Keys(g.Selector)) {
			if lower := strings.ToLower(key); lower != key && slices.Contains(wellKnown, lower) {
				c.add(g.file, fmt.Errorf("selector %s: does not match label %s, keys are case-sensitive", key, lower))
			}
		}
		c.unknownFields(g.file, new(group))
	}
	if names, err := c.names("groups"); err == nil {
		for _, name := range names {
			if path.Ext(name) != ".json" {
				c.add(path.Join("groups", name), errors.New("does not end in .json, so it is no group"))
			}
		}
	}
	return named
}

// profile checks a profile and what it names.
func (c *check) profile(name string) {
	p, err := c.store.profile(name)
	if err != nil {
		c.add(path.Join("profiles", name+".json"), err)
		return
	}
	c.unknownFields(p.file, new(profile))
	if p.IgnitionID != "" {
		if raw, err := c.named(p, "ignition", p.IgnitionID); err != nil {
			c.add(p.file, err)
		} else {
			c.ignition(path.Join("ignition", p.IgnitionID), raw)
		}
	}
	for _, template := range []struct{ folder, id string }{{"generic", p.GenericID}, {"cloud", p.CloudID}} {
		if template.id == "" {
			continue
		}
		raw, err := c.named(p, template.folder, template.id)
		if err == nil {
			_, err = parseTemplate(path.Join(template.folder, template.id), raw)
		}
		if err != nil {
			c.add(p.file, err)
		}
	}
	if p.Boot == nil {
		return
	}
	if p.Boot.Kernel == "" {
		c.add(p.file, errNoKernel)
	}
	// An initrd entry may have iPXE options before the path.
	for _, word := range strings.Fields(strings.Join(append([]string{p.Boot.Kernel}, p.Boot.Initrd...), " ")) {
		if !strings.HasPrefix(word, "/assets/") {
			continue
		}
		file := path.Clean(strings.TrimPrefix(word, "/"))
		if _, err := c.Stat(file); errors.Is(err, fs.ErrNotExist) {
			c.add(p.file, fmt.Errorf("boot: %s is not there", quote(word)))
		} else if err != nil {
			c.add(p.file, fmt.Errorf("boot: %s: %w", quote(word), bare(err)))
		}
	}
}

func (c *check) ignition(file string, raw []byte) {
	if !isIgnition(file) {
		c.found = append(c.found, butane(file))
		return
	}
	if c.raw {
		return
	}
	done, err := rewrite(raw)
	switch {
	case err != nil:
		c.add(file, err)
	case done.refused != nil:
		c.found = append(c.found, refused(file, done.refused))
	case len(done.unknown) > 0:
		c.found = append(c.found, dropped(file, done.unknown))
	}
}

// unknownFields finds a key that nobody reads: "selectors" for "selector" makes a group
// match every machine.
func (c *check) unknownFields(file string, into any) {
	raw, err := c.regular(file)
	if err != nil {
		c.add(file, bare(err))
		return
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		c.add(file, fmt.Errorf("ignored: %w", err))
	}
}
