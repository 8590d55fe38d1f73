package matchbox

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"pilotlight/providers/matchbox/template"
)

// variables are what templates and /metadata see. What is set later stands over what was
// set before.
func (q *request) variables(g group) map[string]any {
	vars := maps.Clone(g.Metadata)
	if vars == nil {
		vars = map[string]any{}
	}
	for _, key := range slices.Sorted(maps.Keys(g.Selector)) {
		vars[strings.ToLower(key)] = g.Selector[key]
	}
	vars["request"] = map[string]any{
		"query":     q.labels,
		"raw_query": q.URL.RawQuery,
	}
	return vars
}

func (q *request) generic() (body, error) {
	g, p, err := q.chooseProfile()
	if err != nil {
		return body{}, err
	}
	text, err := q.rendered(g, p, "generic", p.GenericID)
	return body{text: text}, err
}

func (q *request) cloud() (body, error) {
	g, p, err := q.chooseProfile()
	if err != nil {
		return body{}, err
	}
	text, err := q.rendered(g, p, "cloud", p.CloudID)
	if err != nil {
		return body{}, err
	}
	// matchbox goes on to parse the YAML; that much it takes another program to do.
	first, _, _ := strings.Cut(string(text), "\n")
	if strings.TrimSpace(first) != "#cloud-config" && !strings.HasPrefix(first, "#!") {
		return body{}, Problem{
			File: path.Join("cloud", p.CloudID),
			Err:  errors.New("has neither #cloud-config nor #! in its first line"),
		}
	}
	return body{text: text}, nil
}

// rendered reads the template that a profile names for a folder, and renders it.
func (q *request) rendered(g group, p profile, folder, name string) ([]byte, error) {
	raw, err := q.store.named(p, folder, name)
	if err != nil {
		return nil, err
	}
	file := path.Join(folder, name)
	parsed, err := parseTemplate(file, raw)
	if err != nil {
		return nil, err
	}
	text, err := parsed.Render(q.variables(g), maxFile)
	if errors.Is(err, template.ErrTooLong) {
		err = errTooLong
	}
	if err != nil {
		return nil, Problem{File: file, Err: err}
	}
	return text, nil
}

// named reads the file that a profile names for a folder.
func (s store) named(p profile, folder, name string) ([]byte, error) {
	if name == "" {
		return nil, Problem{File: p.file, Err: fmt.Errorf("%s_id: not there", folder)}
	}
	raw, err := s.read(folder, name)
	if errors.Is(err, errOutside) {
		return nil, Problem{File: p.file, Err: fmt.Errorf("%s_id: %w", folder, err)}
	}
	return raw, err
}

func parseTemplate(file string, raw []byte) (*template.Template, error) {
	parsed, err := template.Parse(file, string(raw))
	if err != nil {
		return nil, Problem{File: file, Err: err}
	}
	return parsed, nil
}

var errTooLong = fmt.Errorf("renders to more than %d MiB", maxFile>>20)

func (q *request) metadata() (body, error) {
	g, err := q.chooseGroup()
	if err != nil {
		return body{}, err
	}
	lines := envLines("", q.variables(g))
	slices.Sort(lines)
	// Not a media type that exists, but the one that matchbox sends.
	return body{mediaType: "plain/text", text: []byte(strings.Join(lines, ""))}, nil
}

// envLines flattens vars into KEY=value lines. Keys are joined by "_" and put in upper
// case; nothing is quoted; what is neither string, bool, number nor object is left out.
func envLines(prefix string, vars map[string]any) []string {
	var lines []string
	for key, value := range vars {
		name := prefix + key
		switch value := value.(type) {
		case string, bool, float64:
			lines = append(lines, fmt.Sprintf("%s=%v\n", strings.ToUpper(name), value))
		case map[string]string:
			for key, value := range value {
				lines = append(lines, fmt.Sprintf("%s=%s\n", strings.ToUpper(name+"_"+key), value))
			}
		case map[string]any:
			lines = append(lines, envLines(name+"_", value)...)
		}
	}
	return lines
}
