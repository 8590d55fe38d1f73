package matchbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	ignerrors "github.com/coreos/ignition/v2/config/shared/errors"
	"github.com/coreos/ignition/v2/config/util"
	ignition "github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	vpath "github.com/coreos/vcontext/path"
	"github.com/coreos/vcontext/report"
)

func (q *request) ignition() (body, error) {
	_, p, err := q.chooseProfile()
	if err != nil {
		return body{}, err
	}
	raw, err := q.store.named(p, "ignition", p.IgnitionID)
	if err != nil {
		return body{}, err
	}
	file := path.Join("ignition", p.IgnitionID)
	if !isIgnition(file) {
		return body{}, butane(file)
	}
	if q.raw {
		return body{mediaType: "application/json", text: raw}, nil
	}
	done, err := rewrite(raw)
	if err != nil {
		return body{}, Problem{File: file, Err: err}
	}
	if done.refused != nil {
		q.warn("%v: answering with the EMPTY config that matchbox answers with", refused(file, done.refused))
	}
	if len(done.unknown) > 0 {
		q.warn("%v", dropped(file, done.unknown))
	}
	return body{mediaType: "application/json", text: done.text}, nil
}

// isIgnition reports whether matchbox takes a file for an Ignition config, and not for a
// Butane template.
func isIgnition(file string) bool {
	return strings.HasSuffix(file, ".ign") || strings.HasSuffix(file, ".ignition")
}

func butane(file string) Problem {
	return Problem{
		File: file,
		Err:  errors.New("a Butane template to matchbox, and Butane is not built in"),
		Hint: "run butane and name the result in ignition_id, ending in .ign",
	}
}

func refused(file string, reason error) Problem {
	return Problem{
		File: file,
		Err:  fmt.Errorf("not an Ignition config that matchbox can parse: %w", reason),
		Hint: "matchbox says nothing to the machine: it sees status 200 and an empty ignition.version",
	}
}

func dropped(file string, keys []string) Problem {
	return Problem{
		File: file,
		Err:  fmt.Errorf("keys dropped: %s", strings.Join(keys, ", ")),
		Hint: "Ignition 3.4 does not know them, so matchbox does not pass them on; pilotlight wrap puts them where they survive, serve --raw leaves the file alone",
	}
}

// rewritten is what becomes of an Ignition file in matchbox.
type rewritten struct {
	text    []byte   // the answer, spec 3.4.0; of an empty config where refused
	unknown []string // keys that the text has lost, by path, sorted
	refused error    // why the file did not parse
}

// rewrite parses a config of spec 3.0 to 3.4 and writes it as 3.4.0. Like matchbox it makes
// the empty config of what does not parse.
func rewrite(raw []byte) (rewritten, error) {
	config, rep, parseErr := ignition.ParseCompatibleVersion(raw)
	text, err := json.Marshal(config)
	if err != nil {
		return rewritten{}, fmt.Errorf("write as spec %v: %w", &types.MaxVersion, err)
	}
	if parseErr != nil {
		return rewritten{text: text, refused: refusal(raw, rep, parseErr)}, nil
	}
	return rewritten{text: text, unknown: unknownKeys(rep)}, nil
}

// unknownKeys finds the keys that Ignition's validation calls unused.
func unknownKeys(rep report.Report) []string {
	const most = 20
	var keys []string
	for _, entry := range rep.Entries {
		if len(entry.Context.Path) > 0 && entry.Message == "unused key "+last(entry.Context) {
			keys = append(keys, jsonPath(entry.Context))
		}
	}
	// The library walks maps, so its order is by chance.
	slices.Sort(keys)
	if len(keys) > most {
		keys = append(keys[:most], fmt.Sprintf("and %d more", len(keys)-most))
	}
	return keys
}

// refusal says why the library refused raw.
func refusal(raw []byte, rep report.Report, err error) error {
	switch {
	case errors.Is(err, ignerrors.ErrUnknownVersion):
		if version, _, verr := util.GetConfigVersion(raw); verr == nil {
			return fmt.Errorf("ignition.version is %s, and it knows 3.0.0 to %v: %w", quote(version.String()), &types.MaxVersion, err)
		}
	case errors.Is(err, ignerrors.ErrEmpty):
		return err
	}
	for _, entry := range rep.Entries {
		if !entry.Kind.IsFatal() || len(entry.Context.Path) == 0 {
			continue
		}
		line := ""
		if start := entry.Marker.StartP; start != nil && start.Line > 0 {
			line = fmt.Sprintf("line %d: ", start.Line)
		}
		return fmt.Errorf("%s%s: %s", line, jsonPath(entry.Context), verdict(entry))
	}
	// Without a path the report tells of a JSON error, in words that may quote the file.
	if jsonErr := json.Unmarshal(raw, new(types.Config)); jsonErr != nil {
		return jsonFault(raw, jsonErr)
	}
	return err
}

// verdict is the message of a report as far as it speaks in the library's own words: what
// stands behind a colon or in quotes may come from the file, which decoders of data URLs and
// units quote.
func verdict(entry report.Entry) string {
	own := entry.Message
	if end := strings.IndexAny(own, ":\""); end >= 0 {
		own = own[:end]
	}
	// One word is the name of a decoder, not a message.
	if !strings.Contains(own, " ") {
		return "not valid"
	}
	return strings.TrimSpace(own)
}

func last(p vpath.ContextPath) string {
	return fmt.Sprint(p.Path[len(p.Path)-1])
}

// jsonPath writes a path as storage.files[0].mode.
func jsonPath(p vpath.ContextPath) string {
	var b strings.Builder
	for _, element := range p.Path {
		if i, ok := element.(int); ok {
			fmt.Fprintf(&b, "[%d]", i)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(quote(fmt.Sprint(element)))
	}
	return b.String()
}
