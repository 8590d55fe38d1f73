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
// from the first unit on, outlives switch-root, and holds no secrets.
type Report struct {
	Version   int             `json:"version"` // 1
	BootID    string          `json:"bootId"`
	State     string          `json:"state"` // "running", "complete" or "failed"
	Boot      string          `json:"boot"`  // "first", "interrupted" or "later"
	Platform  string          `json:"platform,omitempty"`
	Provision string          `json:"provision,omitempty"`
	Record    string          `json:"record"` // where the record lies, for people
	Config    string          `json:"config,omitempty"`
	Documents []ReportedInput `json:"documents,omitempty"`
	PCR       map[string]any  `json:"pcr,omitempty"`
	Warnings  []string        `json:"warnings,omitempty"`
	Stages    []ReportedStage `json:"stages"`
	Failure   *Failure        `json:"failure,omitempty"`
}

// A ReportedInput is one document of the config, by its digest.
type ReportedInput struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	SHA256 string `json:"sha256"`
}

// A ReportedStage is one stage that ran.
type ReportedStage struct {
	Name  string         `json:"name"`
	At    float64        `json:"at"` // seconds since the kernel started
	Took  float64        `json:"took"`
	Steps []ReportedStep `json:"steps"`
}

// A ReportedStep is one step of a stage.
type ReportedStep struct {
	Wish    string  `json:"wish"`
	State   string  `json:"state"`
	Deed    string  `json:"deed,omitempty"`
	Changed bool    `json:"changed"`
	Took    float64 `json:"took"`
	Why     string  `json:"why,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// A Failure is the three lines that the console shows.
type Failure struct {
	Stage string `json:"stage"`
	What  string `json:"what"`
	Where string `json:"where,omitempty"` // in the config: document, line, path
	Next  string `json:"next"`
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
