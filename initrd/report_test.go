package initrd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pilotlight/config/resource"
)

func TestReportBeginsEmpty(t *testing.T) {
	m, _ := testMachine(t)
	r, err := m.Report()
	if err != nil || r.Version != 1 || r.State != "running" || r.BootID != m.Log.BootID || r.BootID == "" || r.Stages == nil {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := os.Stat(m.reportFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading the report wrote it: %v", err)
	}
}

// TestUnitsAmendOneReport has several processes' worth of machines change it at once.
func TestUnitsAmendOneReport(t *testing.T) {
	dir := t.TempDir()
	const units, each = 6, 15
	var wg sync.WaitGroup
	for u := range units {
		m, err := NewMachine(dir, &resource.Client{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		wg.Go(func() {
			for i := range each {
				err := m.Amend(func(r *Report) {
					r.Stages = append(r.Stages, ReportedStage{Name: fmt.Sprintf("%d-%d", u, i)})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	m, err := NewMachine(dir, &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Report()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range r.Stages {
		names[s.Name] = true
	}
	if len(r.Stages) != units*each || len(names) != units*each {
		t.Errorf("%d stages with %d names, want %d", len(r.Stages), len(names), units*each)
	}
	info, err := os.Stat(m.reportFile())
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v %v: whoever runs pilotlight status reads it", info.Mode(), err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".pilotlight-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDamagedReportIsNotWrittenOver(t *testing.T) {
	m, _ := testMachine(t)
	write(t, m.reportFile(), `{"version":1`)
	var syntax *json.SyntaxError
	if _, err := m.Report(); !errors.As(err, &syntax) {
		t.Errorf("error %v", err)
	}
	if err := m.Amend(func(*Report) { t.Error("changed") }); !errors.As(err, &syntax) {
		t.Errorf("error %v", err)
	}
	if got := contentOf(t, m.reportFile()); got != `{"version":1` {
		t.Errorf("now it holds %q", got)
	}
}

func TestOutcomesInTheReport(t *testing.T) {
	why, wrong := errors.New("no TPM"), errors.New("disk full")
	outcomes := []Outcome{
		{Wish: "a", State: So, Reached: true, Took: 250 * time.Millisecond},
		{Wish: "b", State: NotSo, Deed: "make b", Changed: true, Reached: true},
		{Wish: "c", State: Moot, Why: why, Reached: true},
		{Wish: "d", State: NotSo, Deed: "make d", Effect: Destroys, Lost: []string{"d"}, Err: wrong, Reached: true},
		{Wish: "e"},
	}
	want := ReportedStage{Name: "etc", At: 1.5, Took: 2, Steps: []ReportedStep{
		{Wish: "a", State: "so", Took: 0.25},
		{Wish: "b", State: "not so", Deed: "make b", Effect: "makes", Changed: true},
		{Wish: "c", State: "moot", Why: "no TPM"},
		{Wish: "d", State: "not so", Deed: "make d", Effect: "destroys", Lost: []string{"d"}, Error: "disk full"},
	}}
	if got := ReportStage("etc", 1.5, 2, outcomes); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	data, err := json.Marshal(ReportStage("root", 0, 0, nil))
	if err != nil || string(data) != `{"name":"root","at":0,"took":0,"steps":[]}` {
		t.Errorf("a stage without steps: %s %v", data, err)
	}
}

func TestFailureIsAtMostThreeLines(t *testing.T) {
	f := Failure{Stage: "repart", What: "no space", Next: "a larger disk"}
	if got := f.Lines(); !slices.Equal(got, []string{
		"pilotlight: FAILED: repart: no space", "pilotlight:   next: a larger disk",
	}) {
		t.Errorf("%q", got)
	}
	f.Where = "user:3:5: pilotlight.repart[0]"
	if got := f.Lines(); !slices.Equal(got, []string{
		"pilotlight: FAILED: repart: no space", "pilotlight:   config: user:3:5: pilotlight.repart[0]", "pilotlight:   next: a larger disk",
	}) {
		t.Errorf("%q", got)
	}
}

func TestUptimeRuns(t *testing.T) {
	a := Uptime()
	if b := Uptime(); a <= 0 || b < a {
		t.Errorf("%v and then %v", a, b)
	}
}
