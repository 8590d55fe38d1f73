package config

import "fmt"

// Position is where a document says something.
type Position struct {
	Document     string
	Line, Column int // from 1; a column is a character
	Path         string
}

// String returns "document:line:column: path".
func (p Position) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.Document, p.Line, p.Column, p.Path)
}

// Find tells where an entry of a list stands: list leads to the list, such as
// storage, files, and the entry's member key has that value. Of several documents
// that have the entry the last one is told, since it has the last word.
func Find(documents []Document, list []string, key, value string) (Position, bool) {
	var found Position
	ok := false
	for _, doc := range documents {
		root, syntax := readJSON(doc.Bytes)
		if syntax != nil {
			continue // it was never carried out
		}
		n := root
		for _, element := range list {
			if n != nil {
				n = n.child(element)
			}
		}
		if n == nil || n.kind != array {
			continue
		}
		for i, item := range n.items {
			m := item.child(key)
			if m == nil || m.kind != text || m.string() != value {
				continue
			}
			at := position{line: 1, column: 1}
			at.advance(doc.Bytes, item.start)
			found, ok = Position{doc.Name, at.line, at.column, place(list).item(i).String()}, true
		}
	}
	return found, ok
}
