package initrd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"pilotlight/config/resource"
)

// Result wishes that the target says when it was provisioned: Ignition's result file
// (https://coreos.github.io/ignition/operator-notes/), JSON of mode 0600.
type Result struct {
	Root   string
	Path   string // absolute, in the target
	BootID string // the file that holds this boot's id; "" for the kernel's
	User   bool   // the user gave a config: not only the image did
}

// ResultFile is where Ignition has it.
const ResultFile = "/etc/.ignition-result.json"

func (r Result) String() string { return "result file " + r.Path }

// Touches is the path in the target.
func (r Result) Touches() []string { return []string{path.Join("/", r.Root, r.Path)} }

// provisioned is what the file holds.
type provisioned struct {
	BootID   string          `json:"provisioningBootID"`
	Date     string          `json:"provisioningDate"` // RFC 3339
	User     bool            `json:"userConfigProvided"`
	Previous json.RawMessage `json:"previousReport,omitempty"`
}

// resultLimit bounds the file, in bytes: each provisioning holds the ones before it.
const resultLimit = 1 << 20

// Resolve reads the file. What another boot has left becomes part of it.
func (r Result) Resolve(look Look) (State, Act, error) {
	file := r.BootID
	if file == "" {
		file = "/proc/sys/kernel/random/boot_id"
	}
	id, err := readFile(look, "/", file, 1<<10)
	if err != nil {
		return unresolved, nil, err
	}
	write := writeResult{Result: r, boot: strings.TrimSpace(string(id))}
	data, err := readFile(look, r.Root, r.Path, resultLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, write, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	var have provisioned
	if err := json.Unmarshal(data, &have); err != nil {
		return unresolved, nil, fmt.Errorf("%s is no result of a provisioning: it is not JSON of that form", r.Path)
	}
	write.was = before{there: true}
	switch {
	case have.BootID == write.boot && have.User == r.User:
		return So, nil, nil
	case have.BootID == write.boot:
		write.previous = have.Previous
	default:
		write.previous = data
	}
	return NotSo, write, nil
}

type writeResult struct {
	Result
	boot     string
	previous json.RawMessage
	was      before
}

func (w writeResult) String() string { return "write " + w.Path }

// Effect tells whether there is one.
func (w writeResult) Effect() (Effect, []string) { return w.was.replaced(w.Path) }

// text is the whole file.
func (w writeResult) text(now time.Time) (string, error) {
	data, err := json.MarshalIndent(provisioned{w.boot, now.Format(time.RFC3339), w.User, w.previous}, "", "  ")
	return string(data) + "\n", err
}

func (w writeResult) do(ctx context.Context, m *Machine) error {
	live, err := m.liveImage(ctx)
	if err != nil {
		return err
	}
	if live {
		w.previous = nil
	}
	text, err := w.text(time.Now())
	if err != nil {
		return err
	}
	mode, inline := fs.FileMode(0o600), resource.NewSecret(text)
	file := File{Root: w.Root, Path: w.Path, Contents: &resource.Resource{Inline: &inline}, Overwrite: true, Mode: &mode}
	return writeFile{File: file, was: w.was}.do(ctx, m)
}

// liveImage asks the distribution's hook, where it has one, whether its root is made
// anew at each boot: what is found there then comes from its maker.
func (m *Machine) liveImage(ctx context.Context) (bool, error) {
	const hook = "is-live-image"
	if _, err := m.find(hook); err != nil {
		return false, nil
	}
	_, _, err := m.run(ctx, Program{Argv: []string{hook}})
	if failed, ok := errors.AsType[*ProgramError](err); ok && failed.Err == nil {
		return false, nil // it says no
	}
	return err == nil, err
}
