package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pilotlight/initrd"
)

// drawn is a boot that failed, with every kind of step.
func drawn() initrd.Report {
	return initrd.Report{
		Version: 1, State: "failed", Boot: "first", Platform: "metal",
		Config:    "c0ffee",
		Documents: []initrd.ReportedInput{{Name: "user", Source: "http://boot.example/hunter2", SHA256: "c0ffee"}},
		Warnings:  []string{"hunter2"},
		Stages: []initrd.ReportedStage{
			{Name: "fetch", At: 46.8, Took: 5.72, Steps: []initrd.ReportedStep{
				{Wish: "pilotlight:config:v1:user:sha256:dd34309f22f9a3f0b2 measured into PCR 12 of the TPM", State: "not so", Deed: "measure", Changed: true, Took: 0.08},
			}},
			{Name: "repart", At: 53.1, Took: 2.48, Steps: []initrd.ReportedStep{
				{Wish: "the record says: started", State: "so", Took: 0.004},
				{Wish: `partitions "system" on /dev/vda by <3> definitions & more`, State: "not so", Deed: "repartition", Changed: true, Took: 2.2},
				{Wish: "the rest is looked at", State: "after", Took: 0.05},
			}},
			{Name: "verity", At: 56.4, Took: 1.5, Steps: []initrd.ReportedStep{
				{Wish: "events in the log of systemd", State: "moot", Why: "hunter2", Took: 0.01},
				{Wish: "/dev/mapper/usr open", State: "not so", Deed: "hunter2", Took: 2, Error: "hunter2"},
			}},
		},
		Failure: &initrd.Failure{Stage: "verity", What: "hunter2", Where: "hunter2", Next: "hunter2"},
	}
}

func TestTimeline(t *testing.T) {
	got := timeline(drawn())
	want, err := os.ReadFile(filepath.Join("testdata", "boot.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not as testdata/boot.svg has it:\n%s", got)
	}
	if bytes.Contains(got, []byte("hunter2")) {
		t.Error("more than wishes shows")
	}
}

// A bar is a rectangle of a row.
type bar struct {
	class, title string
	x, width     float64
}

// bars reads a picture, which must be XML.
func bars(t *testing.T, svg []byte) []bar {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	var list []bar
	title, inTitle, inRow := "", false, false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
		switch e := token.(type) {
		case xml.StartElement:
			inTitle = e.Name.Local == "title"
			inRow = inRow || e.Name.Local == "g"
			if e.Name.Local != "rect" || !inRow {
				continue
			}
			b := bar{title: title}
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "class":
					b.class = a.Value
				case "x":
					b.x, err = strconv.ParseFloat(a.Value, 64)
				case "width":
					b.width, err = strconv.ParseFloat(a.Value, 64)
				}
				if err != nil || math.IsNaN(b.x) || math.IsNaN(b.width) {
					t.Fatalf("%v: %v", a, err)
				}
			}
			list = append(list, b)
		case xml.EndElement:
			inTitle = false
			inRow = inRow && e.Name.Local != "g"
		case xml.CharData:
			if inTitle {
				title = string(e)
			}
		}
	}
}

func TestBarsAreWhereTheStageIs(t *testing.T) {
	r := drawn()
	got := bars(t, timeline(r))
	classes := []string{"stage", "changed", "stage", "muted", "changed", "plain", "stage failed", "muted", "failed"}
	if len(got) != len(classes) {
		t.Fatalf("%d bars, want %d", len(got), len(classes))
	}
	// Pixels have one decimal, and no bar is narrower than 2.
	const near = 0.2
	i := 0
	perSecond := 0.0
	for _, s := range r.Stages {
		stage := got[i]
		if perSecond == 0 {
			perSecond = stage.width / s.Took
		} else if math.Abs(stage.width-s.Took*perSecond) > near {
			t.Errorf("stage %s is %.1f wide", s.Name, stage.width)
		}
		if want := got[0].x + (s.At-r.Stages[0].At)*perSecond; math.Abs(stage.x-want) > near {
			t.Errorf("stage %s is at %.1f, want %.1f", s.Name, stage.x, want)
		}
		if end := stage.x + stage.width; stage.x < svgText || end > svgRight+near {
			t.Errorf("stage %s is from %.1f to %.1f", s.Name, stage.x, end)
		}
		sum := 0.0
		for _, step := range s.Steps {
			sum += step.Took
		}
		shrink := min(1, s.Took/sum)
		x := stage.x + stage.width - sum*shrink*perSecond
		for j, step := range s.Steps {
			b := got[i+1+j]
			width := step.Took * shrink * perSecond
			if math.Abs(b.x-x) > near || math.Abs(b.width-max(width, 2)) > near {
				t.Errorf("%q is at %.1f and %.1f wide, want %.1f and %.1f", step.Wish, b.x, b.width, x, width)
			}
			// The whole wish, though the row shows less of a long one.
			if !strings.HasPrefix(b.title, step.Wish) {
				t.Errorf("title %q of %q", b.title, step.Wish)
			}
			x += width
		}
		i += 1 + len(s.Steps)
	}
	for i, b := range got {
		if b.class != classes[i] {
			t.Errorf("bar %d is %q, want %q", i, b.class, classes[i])
		}
	}
}

func TestTimelineOfOddReports(t *testing.T) {
	for name, c := range map[string]struct {
		report initrd.Report
		bars   int
		want   string
	}{
		"nothing yet": {initrd.Report{State: "running", Boot: "first"}, 0, "nothing was provisioned in this boot"},
		"failed before a stage": {
			initrd.Report{State: "failed", Boot: "first", Failure: &initrd.Failure{Stage: "fetch"}}, 0, "failed in fetch"},
		"no time at all": {initrd.Report{Stages: []initrd.ReportedStage{{Name: "a"}}}, 1, ">0 ms<"},
		"steps of no time in a stage of none": {
			initrd.Report{Stages: []initrd.ReportedStage{{Name: "a", Steps: []initrd.ReportedStep{{Wish: "b"}}}}}, 2, ">b<"},
		"a negative time":    {initrd.Report{Stages: []initrd.ReportedStage{{Name: "a", At: 1, Took: -1}}}, 1, ">a<"},
		"a time beyond days": {initrd.Report{Stages: []initrd.ReportedStage{{Name: "a", At: 1e18, Took: 1}}}, 1, ">a<"},
		"characters that XML has not": {
			initrd.Report{Stages: []initrd.ReportedStage{{Name: "a\x00\x1b<b>\"&"}}}, 1, "a\ufffd\ufffd&lt;b&gt;&#34;&amp;<"},
		"letters of several bytes": {
			initrd.Report{Stages: []initrd.ReportedStage{{Name: strings.Repeat("ä", 100)}}}, 1, ">" + strings.Repeat("ä", svgLetters-1) + "…<"},
	} {
		svg := timeline(c.report)
		if got := len(bars(t, svg)); got != c.bars {
			t.Errorf("%s: %d bars, want %d", name, got, c.bars)
		}
		if !strings.Contains(string(svg), c.want) {
			t.Errorf("%s: no %q in\n%s", name, c.want, svg)
		}
		if len(svg) > 8<<10 {
			t.Errorf("%s: %d bytes", name, len(svg))
		}
	}
}

func TestScaleHasRoomForItsLabels(t *testing.T) {
	for _, took := range []float64{0, 0.011, 0.3, 1, 1.01, 7, 9.99, 60, 3601} {
		for _, at := range []float64{0, 0.7, 46.8, 999.95} {
			s := newScale([]initrd.ReportedStage{{At: at, Took: took}})
			ticks := s.ticks()
			if len(ticks) < 2 || len(ticks) > 8 {
				t.Errorf("%v from %v: ticks %v", took, at, ticks)
			}
			if ticks[0] > at || ticks[len(ticks)-1] < at+took-1e-9 {
				t.Errorf("%v from %v: ticks %v leave some out", took, at, ticks)
			}
			seen := map[string]bool{}
			for _, v := range ticks {
				seen[s.label(v)] = true
			}
			if len(seen) != len(ticks) {
				t.Errorf("%v from %v: labels %v", took, at, seen)
			}
		}
	}
}

func TestStatusDrawsOrPrints(t *testing.T) {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	do := statusVerb().prepare(flags)
	if err := flags.Parse([]string{"--json", "--svg", filepath.Join(t.TempDir(), "boot.svg")}); err != nil {
		t.Fatal(err)
	}
	var m misuse
	if err := do(&call{}); !errors.As(err, &m) {
		t.Errorf("%v", err)
	}
}
