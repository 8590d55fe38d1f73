package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Wrap moves the `pilotlight` object of a document into a child, so that the
// section survives tools that parse a config and write it again without the
// keys that they do not know, as matchbox and Butane do:
//
//	{"ignition": {"version": V, "config": {"merge": [
//	    {"source": "data:;base64,…"},              {"ignition": {"version": V}, "pilotlight": {…}}
//	    …                                          the document's own children
//	]}}, …}
//
// Parsing and collecting both forms gives the same Config: the child stands
// before the document's own children, since what they say wins over what the
// document says. Keys keep their order and values their spelling; the layout is
// anew. A document without a section is returned as it is.
//
// It fails with an *InvalidError if the document is faulty, and if one of the
// keys on the way to ignition.config.merge stands twice, where tools differ on
// which counts.
func Wrap(raw []byte) ([]byte, error) {
	if _, r := Parse(raw, Options{}); r.Fatal() {
		return nil, fmt.Errorf("wrap: %w", r.Err())
	}
	root, syntax := readJSON(raw)
	if syntax != nil {
		return nil, fmt.Errorf("wrap: %s", syntax.message)
	}
	section, err := only(root, sectionKey)
	if err != nil || section == nil {
		return raw, err
	}
	ignition, err := only(root, "ignition")
	if err != nil {
		return nil, err
	}
	version, err := only(ignition, "version")
	if err != nil {
		return nil, err
	}
	var child bytes.Buffer
	fmt.Fprintf(&child, `{"ignition":{"version":%s},%q:`, version.raw, sectionKey)
	if err := json.Compact(&child, section.raw); err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	child.WriteByte('}')

	config, err := reach(ignition, "config", object)
	if err != nil {
		return nil, err
	}
	merge, err := reach(config, "merge", array)
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf(`{"source":"data:;base64,%s"}`, base64.StdEncoding.EncodeToString(child.Bytes()))
	merge.items = append([]*node{{raw: []byte(source)}}, merge.items...)
	for i, m := range root.members {
		if m.value == section {
			root.members = append(root.members[:i], root.members[i+1:]...)
			break
		}
	}
	var compact, out bytes.Buffer
	root.write(&compact)
	if err := json.Indent(&out, compact.Bytes(), "", "  "); err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// only returns the value of a key, nil if the key is not there.
func only(n *node, key string) (*node, error) {
	var found *node
	for _, m := range n.members {
		if !strings.EqualFold(m.key, key) {
			continue
		}
		if found != nil {
			return nil, errors.New("wrap: the key " + key + " stands twice")
		}
		found = m.value
	}
	return found, nil
}

// reach returns the value of a key, an empty one of that kind if there is none.
func reach(n *node, key string, k kind) (*node, error) {
	v, err := only(n, key)
	if err != nil {
		return nil, err
	}
	if v == nil {
		v = &node{kind: nullKind}
		n.members = append(n.members, member{key: key, raw: strconv.AppendQuote(nil, key), value: v})
	}
	if v.kind == nullKind {
		v.kind = k
	}
	return v, nil
}

// write writes a value compactly: objects and lists from their parts, all else
// as it was read.
func (n *node) write(b *bytes.Buffer) {
	switch n.kind {
	case object:
		b.WriteByte('{')
		for i, m := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(m.raw)
			b.WriteByte(':')
			m.value.write(b)
		}
		b.WriteByte('}')
	case array:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.write(b)
		}
		b.WriteByte(']')
	default:
		b.Write(n.raw)
	}
}
