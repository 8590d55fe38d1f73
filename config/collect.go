package config

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"
	"github.com/coreos/ignition/v2/config/validate"

	"pilotlight/config/resource"
)

// Bounds of what a config may pull in. A config that names itself, or makes
// more of itself, meets one of them.
const (
	// MaxLevels is how many levels of ignition.config.replace and merge are followed.
	MaxLevels = 32
	// MaxDocuments is how many documents a config may consist of.
	MaxDocuments = 1024
	// MaxBytes is how many bytes they may have together.
	MaxBytes = 16 << 20
)

// UserDocument is the name of the user's config among the first documents; all
// others of them are base fragments of the image.
const UserDocument = "user"

// Document is a config document as received: decoded and unwrapped, and not
// otherwise changed. Its bytes are what is measured.
type Document struct {
	// Name is a base fragment's name, UserDocument, or child-NNNN: children are
	// numbered from 0001 in the order in which they are measured.
	Name string
	// Source says where the document comes from, without secrets.
	Source string
	// Bytes are secret.
	Bytes []byte
}

// String returns the name and where the document comes from.
func (d Document) String() string {
	return fmt.Sprintf("%s (%s, %d bytes)", d.Name, d.Source, len(d.Bytes))
}

// Format prints what String returns, for every verb.
func (d Document) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.String()) }

// Collected is a config with all that it pulled in.
type Collected struct {
	// Config is the merged config. Its ignition.config is empty: the references
	// have been followed. It is zero if the report is fatal.
	Config Config
	// Documents are all documents, in the order in which they were measured;
	// those that another one replaced are among them.
	Documents []Document
	// Report holds the faults of all documents, each with its document's name,
	// then those of the merged config.
	Report Report
}

// CollectError is a failure to get at a config's documents, as opposed to a
// fault in one.
type CollectError struct {
	// Level is 0 for the first documents, 1 for those that they name, and so on.
	Level int
	// Doing is what failed: "fetch", "measure", "bound" or "settings".
	Doing string
	Err   error
}

// Error returns the level, what failed, and why.
func (e *CollectError) Error() string {
	return fmt.Sprintf("config: level %d: %s: %v", e.Level, e.Doing, e.Err)
}

// Unwrap returns why.
func (e *CollectError) Unwrap() error { return e.Err }

// Collect measures and parses the first documents, which are base fragments by
// name and then the user's, and all documents that they pull in through
// ignition.config.replace and merge, and merges them.
//
// It goes level by level. fetch gets references, in document order, and returns the
// bytes of each, decompressed and checked against its hash. Without Options.Settings it
// gets all of a level; with that, one at a time, and up to Abreast calls are under way at
// once. measure, if not nil, is called with the documents of a level in their order, in
// one call or in several, each document before it is parsed. Both the
// order and the names of documents depend on nothing but the documents' bytes,
// so that the same measurements can be predicted from files. A document that
// names a replacement names nothing else: its merge list is not followed.
//
// Timeouts, authorities and proxies of a document hold for those after it in its level,
// and for the levels below (Options.Settings). Options.Settings is never called while a
// fetch is under way.
//
// It fails with a *CollectError where a document cannot be had or measured or a
// bound is exceeded, and with an *InvalidError where the report is fatal. What was collected until then is returned too.
func Collect(
	ctx context.Context,
	first []Document,
	fetch func(context.Context, []resource.Resource) ([][]byte, error),
	measure func([]Document) error,
	o Options,
) (Collected, error) {
	c := collector{fetch: fetch, measure: measure, options: o}
	for _, d := range first {
		c.level = append(c.level, &part{Document: d})
	}
	roots := slices.Clone(c.level)
	for depth := 0; len(c.level) > 0; depth++ {
		if err := c.take(ctx, depth); err != nil {
			return c.out, err
		}
		if err := c.descend(depth + 1); err != nil {
			return c.out, err
		}
	}
	c.merge(roots)
	if c.out.Report.Fatal() {
		c.out.Config = Config{}
	}
	return c.out, c.out.Report.Err()
}

// part is a document in the tree of those that pull it in.
type part struct {
	Document
	config   Config
	document *document
	replaced bool // its only child stands in its place
	children []*part
}

type collector struct {
	fetch   func(context.Context, []resource.Resource) ([][]byte, error)
	measure func([]Document) error
	options Options

	out    Collected
	level  []*part
	wanted []resource.Resource // where the documents of the level are to be had; none for the first
	bytes  int
	// children counts the documents that were named by others.
	children int
	known    Config // what the documents so far say about fetching
}

// read measures and parses documents of a level.
func (c *collector) read(parts []*part, depth int) error {
	var documents []Document
	for _, p := range parts {
		documents = append(documents, p.Document)
		c.bytes += len(p.Bytes)
	}
	if c.bytes > MaxBytes {
		return &CollectError{depth, "bound", fmt.Errorf("the documents of the config have more than %d bytes together", MaxBytes)}
	}
	c.out.Documents = append(c.out.Documents, documents...)
	if c.measure != nil {
		if err := c.measure(documents); err != nil {
			return &CollectError{depth, "measure", err}
		}
	}
	for _, p := range parts {
		p.config, p.document = parse(p.Bytes, c.options)
		c.known = c.known.learn(p.config)
		for _, f := range p.document.report() {
			f.Document = p.Name
			c.out.Report = append(c.out.Report, f)
		}
	}
	return c.out.Report.Err()
}

// descend makes what the documents of a level name the level.
func (c *collector) descend(depth int) error {
	var next []*part
	var wanted []resource.Resource
	for _, p := range c.level {
		references := p.config.Ignition.Ignition.Config.Merge
		if r := p.config.Ignition.Ignition.Config.Replace; said(r.Source) != "" {
			references, p.replaced = []types.Resource{r}, true
		}
		for _, r := range references {
			source, err := Resource(r)
			if err != nil {
				return &CollectError{depth, "fetch", err}
			}
			c.children++
			child := &part{Document: Document{Name: fmt.Sprintf("child-%04d", c.children), Source: source.String()}}
			p.children = append(p.children, child)
			next = append(next, child)
			wanted = append(wanted, source)
		}
	}
	c.level, c.wanted = next, wanted
	switch {
	case len(next) == 0:
		return nil
	case depth > MaxLevels:
		return &CollectError{depth, "bound", fmt.Errorf("more than %d levels of ignition.config.merge and replace: does a config pull itself in?", MaxLevels)}
	case len(c.out.Documents)+len(next) > MaxDocuments:
		return &CollectError{depth, "bound", fmt.Errorf("the config pulls in more than %d documents: does one pull itself in?", MaxDocuments)}
	}
	if c.options.Settings == nil {
		return nil
	}
	s, err := c.known.Settings()
	if err != nil {
		return &CollectError{depth, "settings", err}
	}
	c.options.Settings(s)
	return nil
}

// merge joins the trees: base fragments, then the user's over them.
func (c *collector) merge(roots []*part) {
	var base, user Config
	var baseParts, userParts []*part
	for _, p := range roots {
		if p.Name == UserDocument {
			user = Merge(user, p.render(&userParts))
		} else {
			base = Merge(base, p.render(&baseParts))
		}
	}
	for _, l := range loosened(base.Pilotlight, user.Pilotlight) {
		// On each side the last document that has its way is the one to name.
		by := last(userParts, func(s Section) bool { return l.in(loosened(base.Pilotlight, s)) })
		against := last(baseParts, func(s Section) bool { return l.in(loosened(s, user.Pilotlight)) })
		f := l.fault(against.Name, by.Name, by.config.Pilotlight)
		by.locate(&f, l.at(by.config.Pilotlight))
		c.out.Report = append(c.out.Report, f)
	}
	merged := Merge(base, user)
	merged.Ignition.Ignition.Config = types.IgnitionConfig{}
	c.complete(&merged, append(baseParts, userParts...))
	c.out.Config = merged
}

// render merges a document with its children, and lists the documents that
// count, each before those that come over it.
func (p *part) render(counted *[]*part) Config {
	if p.replaced {
		return p.children[0].render(counted)
	}
	*counted = append(*counted, p)
	merged := p.config
	for _, child := range p.children {
		merged = Merge(merged, child.render(counted))
	}
	return merged
}

// last returns the last document whose section is such, or one without a name.
func last(parts []*part, such func(Section) bool) *part {
	for _, p := range slices.Backward(parts) {
		if such(p.config.Pilotlight) {
			return p
		}
	}
	return &part{document: &document{}}
}

// locate says in which document a fault stands, and where.
func (p *part) locate(f *Fault, at place) {
	pos := position{line: 1, column: 1}
	pos.advance(p.Bytes, p.document.offset(at))
	f.Document, f.Line, f.Column, f.Path = p.Name, pos.line, pos.column, at.String()
}

// complete reports what no single document could be blamed for.
func (c *collector) complete(merged *Config, parts []*part) {
	for _, g := range merged.Pilotlight.gaps() {
		p := last(parts, func(s Section) bool { return s.index(g) >= 0 })
		f := Fault{Severity: Error, Message: g.message, Hint: g.hint}
		p.locate(&f, place{sectionKey, g.list}.item(p.config.Pilotlight.index(g)))
		c.out.Report = append(c.out.Report, f)
	}
	if len(parts) < 2 {
		return
	}
	// Each document is valid; that they contradict each other is left.
	shown := merged.Ignition
	d := &document{sifted: &sifted{}}
	count, links := nodes(shown.Storage), map[string]bool{}
	for _, l := range shown.Storage.Links {
		links[l.Path] = true
	}
	shown.Storage.Files = nil
	for i, f := range merged.Ignition.Storage.Files {
		if !unremarkable(f) || count[f.Path] > 1 || overLink(f.Path, links) {
			shown.Storage.Files = append(shown.Storage.Files, f)
			d.sifted.files.left = append(d.sifted.files.left, i)
		}
	}
	s := shortened{d: d, number: map[string]int{}}
	s.shorten(reflect.ValueOf(&shown).Elem(), nil)
	found := validate.ValidateWithContext(shown, nil)
	s.restore()
	d.library(found)
	for _, f := range d.found {
		if f.severity == Error {
			c.out.Report = append(c.out.Report, Fault{Severity: Error, Path: f.place.String(),
				Message: "in the merged config: " + f.message, Hint: f.hint})
		}
	}
}
