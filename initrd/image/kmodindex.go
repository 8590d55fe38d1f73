package image

import (
	"encoding/binary"
	"sort"
	"strings"
)

// index is what libkmod searches: a trie in a file, modules.*.bin, described in libkmod/libkmod-index.h of kmod.
//
//	magic, version, offset of the root      32 bit, big endian, as all numbers
//	nodes, each before its children:
//	  prefix, NUL                           if the offset that leads here has bit 31
//	  first, last, offset of each child     bit 29; a child's letter is its place between first and last
//	  count of values,                      bit 30
//	    and of each: priority, text, NUL
//
// An offset of 0 is no child. encode writes byte for byte what depmod of kmod 34 does.
type index struct {
	root *indexNode
}

type indexNode struct {
	prefix   string
	children [128]*indexNode // keys are ASCII
	values   []indexValue
}

type indexValue struct {
	priority int
	text     string
}

const (
	indexMagic   = 0xB007F457
	indexVersion = 0x00020001

	indexPrefix = 1 << 31
	indexValues = 1 << 30
	indexChilds = 1 << 29
)

func newIndex() *index { return &index{root: &indexNode{}} }

// insert adds a value to a key. Keys hold ASCII only; another one is left out, as it can be searched by nobody.
func (x *index) insert(key, text string, priority int) {
	for i := range len(key) {
		if key[i] >= 128 || key[i] == 0 {
			return
		}
	}
	n := x.root
	for {
		common := 0
		for common < len(n.prefix) && common < len(key) && n.prefix[common] == key[common] {
			common++
		}
		if common < len(n.prefix) {
			lower := *n
			lower.prefix = n.prefix[common+1:]
			letter := n.prefix[common]
			*n = indexNode{prefix: n.prefix[:common]}
			n.children[letter] = &lower
		}
		key = key[common:]
		if key == "" {
			n.add(indexValue{priority, text})
			return
		}
		child := n.children[key[0]]
		if child == nil {
			child = &indexNode{prefix: key[1:]}
			child.add(indexValue{priority, text})
			n.children[key[0]] = child
			return
		}
		n, key = child, key[1:]
	}
}

// add keeps values in order of priority, a later one before an equal earlier one.
func (n *indexNode) add(v indexValue) {
	at := sort.Search(len(n.values), func(i int) bool { return n.values[i].priority >= v.priority })
	n.values = append(n.values, indexValue{})
	copy(n.values[at+1:], n.values[at:])
	n.values[at] = v
}

func (x *index) encode() []byte {
	out := binary.BigEndian.AppendUint32(nil, indexMagic)
	out = binary.BigEndian.AppendUint32(out, indexVersion)
	out = binary.BigEndian.AppendUint32(out, 0)
	out, root := x.root.encode(out)
	binary.BigEndian.PutUint32(out[8:], root)
	return out
}

// encode appends a node and what is below it, and returns where it is.
func (n *indexNode) encode(out []byte) ([]byte, uint32) {
	first, last := -1, -1
	for i, c := range n.children {
		if c != nil {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	at := uint32(len(out))
	if n.prefix != "" {
		at |= indexPrefix
		out = append(out, n.prefix...)
		out = append(out, 0)
	}
	table := 0
	if first >= 0 {
		at |= indexChilds
		out = append(out, byte(first), byte(last))
		table = len(out)
		out = append(out, make([]byte, 4*(last-first+1))...)
	}
	if len(n.values) > 0 {
		at |= indexValues
		out = binary.BigEndian.AppendUint32(out, uint32(len(n.values)))
		for _, v := range n.values {
			out = binary.BigEndian.AppendUint32(out, uint32(int32(v.priority)))
			out = append(out, v.text...)
			out = append(out, 0)
		}
	}
	if first >= 0 {
		for i, c := range n.children[first : last+1] {
			if c != nil {
				var child uint32
				out, child = c.encode(out)
				binary.BigEndian.PutUint32(out[table+4*i:], child)
			}
		}
	}
	return out, at
}

// normalAlias turns dashes into underscores, save between brackets, as libkmod does with what it looks up. An alias
// with unpaired brackets is no key.
func normalAlias(alias string) (string, bool) {
	var b strings.Builder
	inside := false
	for i := range len(alias) {
		c := alias[i]
		switch {
		case c == '[' && !inside:
			inside = true
		case c == ']' && inside:
			inside = false
		case c == ']':
			return "", false
		case c == '-' && !inside:
			c = '_'
		}
		b.WriteByte(c)
	}
	return b.String(), !inside
}
