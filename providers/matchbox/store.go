package matchbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// maxFile bounds a group, a profile, a config and a template, and what a template renders
// to. Assets have no bound.
const maxFile = 16 << 20

var (
	errNotRegular = errors.New("not a regular file")
	errOutside    = errors.New("name leaves its folder")
	errNoGroup    = errors.New("no group matches these labels")
)

// Problem is something wrong with one file of a directory. It quotes no value from it.
type Problem struct {
	File string // relative to the directory, or the directory itself
	Err  error
	Hint string // what to do, may be empty
}

// Error is "FILE: what is wrong (hint)", on one line.
func (p Problem) Error() string {
	if p.Hint == "" {
		return fmt.Sprintf("%s: %v", quote(p.File), p.Err)
	}
	return fmt.Sprintf("%s: %v (%s)", quote(p.File), p.Err, p.Hint)
}

// Unwrap returns Err.
func (p Problem) Unwrap() error { return p.Err }

// store is a matchbox directory. The root refuses every path and link that leads out.
type store struct{ *os.Root }

func openStore(dir string) (store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return store{}, Problem{File: dir, Err: bare(err)}
	}
	return store{root}, nil
}

// read returns a file of one folder. An error is a [Problem].
func (s store) read(folder, name string) ([]byte, error) {
	file := path.Join(folder, name)
	if !filepath.IsLocal(name) {
		return nil, Problem{File: folder, Err: fmt.Errorf("%s: %w", quote(name), errOutside)}
	}
	raw, err := s.regular(file)
	if err != nil {
		return nil, Problem{File: file, Err: bare(err)}
	}
	return raw, nil
}

func (s store) regular(file string) ([]byte, error) {
	// Opening a FIFO would hang until somebody writes to it.
	info, err := s.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := s.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return raw, nil
}

// bare takes the system call and the path off an error: whoever wraps it names the file.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// group is a file of groups/: which machines get which profile.
type group struct {
	file     string
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Profile  string            `json:"profile"`
	Selector map[string]string `json:"selector"`
	Metadata map[string]any    `json:"metadata"`
}

func parseGroup(file string, raw []byte) (group, error) {
	g := group{file: file}
	if err := json.Unmarshal(raw, &g); err != nil {
		return group{}, Problem{File: file, Err: jsonFault(raw, err)}
	}
	for key, value := range g.Selector {
		if !strings.EqualFold(key, "mac") {
			continue
		}
		mac, err := parseMAC(value)
		if err != nil {
			return group{}, Problem{File: file, Err: fmt.Errorf("selector %s: not a MAC address", quote(key))}
		}
		g.Selector[key] = mac.String()
	}
	return g, nil
}

// matches reports whether labels satisfy g's selector. A label that is missing equals "",
// as in matchbox.
func (g group) matches(labels map[string]string) bool {
	for key, value := range g.Selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// selector is g's selector as one text, by which groups are ordered.
func (g group) selector() string {
	pairs := make([]string, 0, len(g.Selector))
	for key, value := range g.Selector {
		pairs = append(pairs, key+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// precedence orders groups: the first that matches wins.
func precedence(a, b group) int {
	return cmp.Or(
		cmp.Compare(len(b.Selector), len(a.Selector)),
		cmp.Compare(b.selector(), a.selector()),
		cmp.Compare(a.file, b.file),
	)
}

// groups returns all groups in order of precedence, and what is wrong with those that had
// to be left out. Files without the ending .json are no groups.
func (s store) groups() ([]group, []Problem, error) {
	names, err := s.names("groups")
	if err != nil {
		return nil, nil, err
	}
	var groups []group
	var broken []Problem
	for _, name := range names {
		if path.Ext(name) != ".json" {
			continue
		}
		raw, err := s.read("groups", name)
		var g group
		if err == nil {
			g, err = parseGroup(path.Join("groups", name), raw)
		}
		var problem Problem
		if errors.As(err, &problem) {
			broken = append(broken, problem)
			continue
		}
		groups = append(groups, g)
	}
	slices.SortFunc(groups, precedence)
	return groups, broken, nil
}

// names lists a folder, sorted.
func (s store) names(folder string) ([]string, error) {
	entries, err := fs.ReadDir(s.FS(), folder)
	if err != nil {
		return nil, Problem{File: folder, Err: bare(err)}
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

// profile is a file of profiles/: what a machine gets.
type profile struct {
	file       string
	ID         string `json:"id"`
	Name       string `json:"name"`
	IgnitionID string `json:"ignition_id"`
	CloudID    string `json:"cloud_id"`
	GenericID  string `json:"generic_id"`
	Boot       *boot  `json:"boot"`
}

// profile reads a profile by the name that a group gives it.
func (s store) profile(name string) (profile, error) {
	raw, err := s.read("profiles", name+".json")
	if err != nil {
		return profile{}, err
	}
	p := profile{file: path.Join("profiles", name+".json")}
	if err := json.Unmarshal(raw, &p); err != nil {
		return profile{}, Problem{File: p.file, Err: jsonFault(raw, err)}
	}
	if p.ID == "" {
		return profile{}, Problem{File: p.file, Err: errors.New("id: required")}
	}
	return p, nil
}

// chooseGroup finds the group of this request.
func (q *request) chooseGroup() (group, error) {
	groups, broken, err := q.store.groups()
	if err != nil {
		return group{}, err
	}
	for _, problem := range broken {
		q.warn("%v: this group is left out", problem)
	}
	matching := slices.DeleteFunc(groups, func(g group) bool { return !g.matches(q.labels) })
	if len(matching) == 0 {
		return group{}, errNoGroup
	}
	for _, rival := range matching[1:] {
		if maps.Equal(rival.Selector, matching[0].Selector) {
			q.warn("%v: %s is chosen by file name", sameSelector(matching[0], rival), quote(matching[0].file))
		}
	}
	q.group = matching[0].file
	return matching[0], nil
}

// chooseProfile finds the group of this request and its profile.
func (q *request) chooseProfile() (group, profile, error) {
	g, err := q.chooseGroup()
	if err != nil {
		return group{}, profile{}, err
	}
	if g.Profile == "" {
		return group{}, profile{}, Problem{File: g.file, Err: errors.New("profile: required")}
	}
	p, err := q.store.profile(g.Profile)
	if err != nil {
		return group{}, profile{}, err
	}
	q.profile = p.file
	return g, p, nil
}

// sameSelector says that matchbox would choose between two groups by chance.
func sameSelector(first, second group) Problem {
	what := "has the same selector as"
	if len(first.Selector) == 0 {
		what = "has no selector, and neither has"
	}
	return Problem{
		File: second.file,
		Err:  fmt.Errorf("%s %s", what, quote(first.file)),
		Hint: "matchbox chooses between them by chance",
	}
}

// jsonFault says where raw is not the JSON that was asked for, and how, without quoting a
// value from it.
func jsonFault(raw []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("line %d: %w", lineAt(raw, syntax.Offset), err)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		at := wrong.Field
		if at == "" {
			at = "document"
		}
		// Value may hold a number of the document behind the word.
		got, _, _ := strings.Cut(wrong.Value, " ")
		return fmt.Errorf("line %d: %s: wants %s, has %s", lineAt(raw, wrong.Offset), quote(at), jsonName(wrong.Type), got)
	}
	return errors.New("not the JSON that is asked for here")
}

func lineAt(raw []byte, offset int64) int {
	return 1 + bytes.Count(raw[:min(max(offset, 0), int64(len(raw)))], []byte("\n"))
}

// jsonName is what JSON calls a Go type.
func jsonName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonName(t.Elem())
	case reflect.String, reflect.Bool:
		return t.Kind().String()
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Map, reflect.Struct:
		return "object"
	}
	return "number"
}
