package initrd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Report says what this boot was and did. It lies at /run/pilotlight/report.json
// from the first unit on, outlives switch-root, and holds no secrets. pilotlight status
// prints it; with --json it is that file. Members may be added to it; what is there
// keeps its name and meaning as long as the version is 1.
type Report struct {
	Version   int             `json:"version"` // 1
	BootID    string          `json:"bootId"`
	State     string          `json:"state"`               // "running", "complete" or "failed"
	Boot      string          `json:"boot"`                // "first", "interrupted" or "later"; "" as long as it is not known
	Platform  string          `json:"platform,omitempty"`  // as in pilotlight.platform=
	Provision string          `json:"provision,omitempty"` // the provision id, a UUID
	Record    string          `json:"record"`              // where the record lies, for people; "nowhere" without one
	Config    string          `json:"config,omitempty"`    // the SHA-256 of all documents, in hexadecimal
	Documents []ReportedInput `json:"documents,omitempty"` // in the order in which they were measured
	PCR       *ReportedPCR    `json:"pcr,omitempty"`       // what the config was measured into; none without a TPM
	Warnings  []string        `json:"warnings,omitempty"`  // for people
	Stages    []ReportedStage `json:"stages"`              // those that ran, in the order of the boot
	Failure   *Failure        `json:"failure,omitempty"`   // why State is "failed"
	Initrd    *Timeline       `json:"initrd,omitempty"`    // the other units of the initrd, by PID 1's word; none before the end
}

// A ReportedInput is one document of the config, by its digest.
type ReportedInput struct {
	Name   string `json:"name"`
	Source string `json:"source"` // for people, without secrets
	SHA256 string `json:"sha256"` // of its bytes as they were measured, in hexadecimal
}

// A ReportedPCR is a PCR with its value when all of the config was measured.
type ReportedPCR struct {
	Index int               `json:"index"`
	Banks map[string]string `json:"banks"` // hexadecimal, by the name of the bank: sha256
}

// A ReportedStage is one stage that ran.
type ReportedStage struct {
	Name  string         `json:"name"` // "fetch", or of a stage of the config: "repart", "verity", …
	At    float64        `json:"at"`   // seconds since the kernel started
	Took  float64        `json:"took"` // seconds
	Steps []ReportedStep `json:"steps"`
}

// A ReportedStep is one step of a stage that was reached.
type ReportedStep struct {
	Wish    string   `json:"wish"`             // what shall be so, in one line
	State   string   `json:"state"`            // how that stood before: "so", "not so", "after" or "moot"
	Deed    string   `json:"deed,omitempty"`   // what was done, or would be, in one line
	Effect  string   `json:"effect,omitempty"` // of the deed: "makes", "changes" or "destroys"
	Lost    []string `json:"lost,omitempty"`   // what the deed destroys, for people
	Changed bool     `json:"changed"`          // the deed was done, and then the wish was so
	Took    float64  `json:"took"`             // seconds
	Why     string   `json:"why,omitempty"`    // of "after" and "moot": the reason
	Error   string   `json:"error,omitempty"`
}

// A Failure is the three lines that the console shows.
type Failure struct {
	Stage string `json:"stage"` // or another part of a boot, such as "fetch"
	What  string `json:"what"`
	Where string `json:"where,omitempty"` // in the config: document, line, path
	Next  string `json:"next"`            // what to do
}

// Lines gives the lines for the console: what failed, where in the config it is
// said, and what to do next.
func (f Failure) Lines() []string {
	lines := []string{"pilotlight: FAILED: " + f.Stage + ": " + f.What}
	if f.Where != "" {
		lines = append(lines, "pilotlight:   config: "+f.Where)
	}
	return append(lines, "pilotlight:   next: "+f.Next)
}

// ReportStage turns outcomes into their form in the report.
func ReportStage(name string, at, took float64, outcomes []Outcome) ReportedStage {
	s := ReportedStage{Name: name, At: at, Took: took, Steps: []ReportedStep{}}
	for _, o := range outcomes {
		if !o.Reached {
			continue
		}
		r := ReportedStep{Wish: o.Wish, State: o.State.String(), Deed: o.Deed, Changed: o.Changed, Took: o.Took.Seconds()}
		if o.Deed != "" {
			r.Effect, r.Lost = o.Effect.String(), o.Lost
		}
		if o.Why != nil {
			r.Why = o.Why.Error()
		}
		if o.Err != nil {
			r.Error = o.Err.Error()
		}
		s.Steps = append(s.Steps, r)
	}
	return s
}

func (m *Machine) reportFile() string { return filepath.Join(m.Run, "report.json") }

// Report reads this boot's report; one that is not there yet is empty.
func (m *Machine) Report() (Report, error) {
	data, err := os.ReadFile(m.reportFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Report{Version: 1, BootID: m.Log.BootID, State: "running", Stages: []ReportedStage{}}, nil
	}
	if err != nil {
		return Report{}, err
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return Report{}, fmt.Errorf("%s: %w", m.reportFile(), err)
	}
	return r, nil
}

// Amend changes the report in one step. Several units may do so at once.
func (m *Machine) Amend(change func(*Report)) error {
	lock, err := os.OpenFile(filepath.Join(m.Run, "report.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	r, err := m.Report()
	if err != nil {
		return err
	}
	change(&r)
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return writeWhole(m.reportFile(), append(data, '\n'), 0o644)
}

// Uptime is the time since the kernel started, in seconds.
func Uptime() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return float64(t.Sec) + float64(t.Nsec)/1e9
}
