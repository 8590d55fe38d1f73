package config

import (
	"bytes"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
)

// sifted are the files and units of a document that are plain: what they say means the
// same in each version of the spec, and none of the library's rules has anything to say
// of them, alone or beside the others. They are decoded here, and the library never sees
// them. To the library a file costs some 50 µs of reflection, and a config can be a
// thousand files and little else.
//
// Whatever could be a fault is not plain. So each fault, with its words, its place and
// its order, is still the library's own; a test compares both ways.
type sifted struct {
	files sieve[types.File]
	units sieve[types.Unit]
}

// sieve is one list.
type sieve[T any] struct {
	plain []*T  // by their index in the document; nil for what is left to the library
	left  []int // the indices of those
}

// full puts the plain ones back among those that the library decoded.
func (s sieve[T]) full(left []T) []T {
	if len(s.left) == len(s.plain) {
		return left
	}
	all := make([]T, len(s.plain))
	for i, p := range s.plain {
		if p != nil {
			all[i] = *p
		}
	}
	for i, at := range s.left {
		if i < len(left) {
			all[at] = left[i]
		}
	}
	return all
}

// original turns a place in what the library saw into one in the document.
func (s *sifted) original(p place) place {
	if s == nil || len(p) < 3 {
		return p
	}
	var left []int
	switch {
	case p[0] == "storage" && p[1] == "files":
		left = s.files.left
	case p[0] == "systemd" && p[1] == "units":
		left = s.units.left
	}
	if i, err := strconv.Atoi(p[2]); err == nil && i >= 0 && i < len(left) {
		p = slices.Clone(p)
		p[2] = strconv.Itoa(left[i])
	}
	return p
}

// unitDir is where units lie. The library compares paths of files with those of units.
const unitDir = "/etc/systemd/system/"

// sift finds the plain files and units of a document, marks their nodes, and gives the
// text without them.
func (d *document) sift() []byte {
	d.sifted = &sifted{}
	if d.unsifted {
		return d.raw
	}
	storage, systemd := d.root.sole("storage", object), d.root.sole("systemd", object)
	files, units := storage.sole("files", array), systemd.sole("units", array)
	s := d.sifted
	s.files, s.units = decodeAll(files, plainFile), decodeAll(units, plainUnit)
	if storage != nil {
		s.alone(storage, files)
	}
	if units != nil {
		s.distinct(units, storage)
	}
	some := mark(&s.files, files)
	if mark(&s.units, units) || some {
		return d.root.without(d.raw)
	}
	return d.raw
}

// bare says whether nothing is left of a document, beside its version and our section,
// when what is plain is taken away: then there is nothing to ask the library.
func (d *document) bare() bool {
	list := func(key string) func(member) bool {
		return func(m member) bool {
			return m.value.fields(func(m member) bool {
				return m.value.kind == array && len(m.value.items) > 0 && !slices.ContainsFunc(m.value.items, func(n *node) bool { return !n.plain })
			}, key)
		}
	}
	return !d.unsifted && d.root.fields(func(m member) bool {
		switch m.key {
		case "ignition":
			return m.value.fields(func(m member) bool { return m.value.kind == text }, "version")
		case "storage":
			return list("files")(m)
		case "systemd":
			return list("units")(m)
		}
		return true
	}, "ignition", "storage", "systemd", sectionKey)
}

// decodeAll decodes what is plain of a list; nil has nothing in it.
func decodeAll[T any](list *node, decode func(*node) (*T, bool)) (s sieve[T]) {
	if list == nil {
		return s
	}
	s.plain = make([]*T, len(list.items))
	for i, item := range list.items {
		if v, ok := decode(item); ok {
			s.plain[i] = v
		}
	}
	return s
}

// mark notes in the nodes which of them are plain, and what is left.
func mark[T any](s *sieve[T], list *node) bool {
	for i, p := range s.plain {
		if list.items[i].plain = p != nil; p == nil {
			s.left = append(s.left, i)
		}
	}
	return len(s.left) < len(s.plain)
}

// alone takes away the files whose path another entry has, or whose path leads over a
// link: the library has a word on both.
func (s *sifted) alone(storage, files *node) {
	paths, links := map[string]int{}, map[string]bool{}
	note := func(list *node, skip func(int) bool) bool {
		if list == nil || list.kind != array {
			return list == nil
		}
		for i, item := range list.items {
			if skip(i) {
				continue
			}
			for _, m := range item.members {
				if strings.EqualFold(m.key, "path") {
					paths[m.value.string()]++
				}
			}
		}
		return true
	}
	none := func(int) bool { return false }
	known := note(storage.soleOrNone("directories"), none) && note(storage.soleOrNone("links"), none)
	if !known || storage.twice("directories") || storage.twice("links") {
		clear(s.files.plain)
		return
	}
	if list := storage.soleOrNone("links"); list != nil {
		for _, item := range list.items {
			for _, m := range item.members {
				if strings.EqualFold(m.key, "path") {
					links[m.value.string()] = true
				}
			}
		}
	}
	if files != nil {
		note(files, func(i int) bool { return s.files.plain[i] != nil })
	}
	for _, f := range s.files.plain {
		if f != nil {
			paths[f.Path]++
		}
	}
	for i, f := range s.files.plain {
		if f != nil && (paths[f.Path] > 1 || len(links) > 0 && overLink(f.Path, links)) {
			s.files.plain[i] = nil
		}
	}
}

// overLink says whether a path lies below one of the links, as the library compares them.
func overLink(p string, links map[string]bool) bool {
	for i := range len(p) {
		if p[i] == '/' && links[p[:i]] {
			return true
		}
	}
	return false
}

// distinct takes away the units whose name another one has, and all of them if anything
// of storage lies where units do.
func (s *sifted) distinct(units, storage *node) {
	names := map[string]int{}
	for _, item := range units.items {
		for _, m := range item.members {
			if strings.EqualFold(m.key, "name") {
				names[m.value.string()]++
			}
		}
	}
	for i, u := range s.units.plain {
		if u != nil && names[u.Name] > 1 {
			s.units.plain[i] = nil
		}
	}
	if storage == nil {
		return
	}
	for _, list := range storage.members {
		for _, item := range list.value.items {
			for _, m := range item.members {
				if strings.EqualFold(m.key, "path") && strings.HasPrefix(m.value.string(), unitDir) {
					clear(s.units.plain)
					return
				}
			}
		}
	}
}

// sole returns the value of a key that stands there once, spelt so, and is of that kind.
func (n *node) sole(key string, k kind) *node {
	if n == nil || n.twice(key) {
		return nil
	}
	for _, m := range n.members {
		if m.key == key && m.value.kind == k {
			return m.value
		}
	}
	return nil
}

// soleOrNone returns the value of a key, in whatever case, nil if there is none.
func (n *node) soleOrNone(key string) *node {
	m, _ := n.get(key)
	return m.value
}

// twice says whether more than one key is taken for this one.
func (n *node) twice(key string) bool {
	count := 0
	for _, m := range n.members {
		if strings.EqualFold(m.key, key) {
			count++
		}
	}
	return count > 1
}

// without writes a value as it stands, but for what is plain, and for our section.
func (n *node) without(raw []byte) []byte {
	var out bytes.Buffer
	from := 0
	cut := func(n *node) {
		var kept []*node
		for _, item := range n.items {
			if !item.plain {
				kept = append(kept, item)
			}
		}
		if len(kept) == len(n.items) {
			return
		}
		out.Write(raw[from:n.start])
		out.WriteByte('[')
		for i, item := range kept {
			if i > 0 {
				out.WriteByte(',')
			}
			out.Write(item.raw)
		}
		out.WriteByte(']')
		from = n.start + len(n.raw)
	}
	for _, m := range n.members {
		if m.key == sectionKey {
			out.Write(raw[from:m.value.start])
			out.WriteString("{}")
			from = m.value.start + len(m.value.raw)
		}
		for _, list := range m.value.members {
			cut(list.value)
		}
	}
	out.Write(raw[from:])
	return out.Bytes()
}

// fields reads the members of an object: each key that each knows at most once, and
// nothing else. It says false where anything is not so.
func (n *node) fields(each func(m member) bool, keys ...string) bool {
	if n.kind != object {
		return false
	}
	seen := 0
	for _, m := range n.members {
		i := slices.Index(keys, m.key)
		if i < 0 || seen&(1<<i) != 0 || !each(m) {
			return false
		}
		seen |= 1 << i
	}
	return true
}

// textOf, flagOf and numberOf read a value of one kind, and nothing that is null.
func textOf(n *node, to **string) bool {
	if n.kind != text || !utf8.Valid(n.raw) {
		return false
	}
	s := n.string()
	*to = &s
	return true
}

func flagOf(n *node, to **bool) bool {
	b := len(n.raw) == len("true")
	*to = &b
	return n.kind == boolean
}

func numberOf(n *node, to **int) bool {
	if n.kind != number {
		return false
	}
	i, err := strconv.Atoi(string(n.raw))
	*to = &i
	return err == nil
}

// plainFile decodes a file that no rule of the library has anything to say of.
func plainFile(n *node) (*types.File, bool) {
	f := &types.File{}
	ok := n.fields(func(m member) bool {
		switch m.key {
		case "path":
			var p *string
			if !textOf(m.value, &p) {
				return false
			}
			f.Path = *p
			return true
		case "mode":
			return numberOf(m.value, &f.Mode)
		case "overwrite":
			return flagOf(m.value, &f.Overwrite)
		case "user":
			return owner(m.value, &f.User.ID, &f.User.Name)
		case "group":
			return owner(m.value, &f.Group.ID, &f.Group.Name)
		}
		return m.value.fields(func(m member) bool {
			switch m.key {
			case "source":
				return textOf(m.value, &f.Contents.Source)
			case "compression":
				return textOf(m.value, &f.Contents.Compression)
			}
			return m.value.fields(func(m member) bool { return textOf(m.value, &f.Contents.Verification.Hash) }, "hash")
		}, "source", "compression", "verification")
	}, "path", "mode", "overwrite", "user", "group", "contents")
	return f, ok && unremarkable(*f) && sound(f.Contents)
}

func owner(n *node, id **int, name **string) bool {
	return n.fields(func(m member) bool {
		if m.key == "id" {
			return numberOf(m.value, id)
		}
		return textOf(m.value, name)
	}, "id", "name")
}

// unremarkable says whether a file, its source apart, is such that every version of the
// library takes it without a word.
func unremarkable(f types.File) bool {
	c := f.Contents
	switch {
	case !path.IsAbs(f.Path), path.Clean(f.Path) != f.Path, strings.HasPrefix(f.Path, unitDir):
		return false
	case said(f.Mode) < 0, said(f.Mode) > 0o777, len(f.Append) > 0, len(c.HTTPHeaders) > 0:
		return false
	case f.User.ID != nil && f.User.Name != nil, f.Group.ID != nil && f.Group.Name != nil:
		return false
	case c.Source == nil && (said(f.Overwrite) || c.Verification.Hash != nil):
		return false
	}
	return said(c.Compression) == "" || *c.Compression == "gzip"
}

// sound says whether a source and a hash are such that every version of the library takes
// them. The oldest knows one hash.
func sound(r types.Resource) bool {
	if r.Source != nil {
		u, err := resource.ParseURL(*r.Source)
		if err != nil || !slices.Contains([]string{"", "data", "http", "https"}, u.Scheme()) {
			return false
		}
	}
	if h := r.Verification.Hash; h != nil {
		_, err := resource.ParseHash(*h)
		return err == nil && strings.HasPrefix(*h, "sha512-")
	}
	return true
}
