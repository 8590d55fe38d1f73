package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
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

// around is the rest of that boot.
func around() *initrd.Timeline {
	return &initrd.Timeline{
		Firmware: 31, Loader: 11, Initrd: 40.5, Userspace: 58.2, Finish: 61,
		Units: []initrd.TimedUnit{
			{Name: "systemd-udevd.service", At: 41, Took: 1.2}, {Name: "pilotlight-fetch.service", At: 46.7, Took: 5.9},
			{Name: "short.service", At: 46.7, Took: 0.02}, {Name: "network-online.service", At: 47, Took: 4}, {Name: "late.service", At: 58.9, Took: 2},
		},
	}
}

// golden compares a picture with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not as testdata/%s has it:\n%s", name, got)
	}
	if bytes.Contains(got, []byte("hunter2")) {
		t.Error("more than wishes shows")
	}
}

func TestTimeline(t *testing.T) {
	golden(t, "failed.svg", timeline(drawn(), around()))
	golden(t, "alone.svg", timeline(drawn(), nil))
}

// TestTimelineOfAGuest draws what a machine that was provisioned really reports.
func TestTimelineOfAGuest(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "boot.json"))
	if err != nil {
		t.Fatal(err)
	}
	var guest struct {
		Report initrd.Report
		Whole  initrd.Timeline
	}
	if err := json.Unmarshal(data, &guest); err != nil {
		t.Fatal(err)
	}
	svg := timeline(guest.Report, &guest.Whole)
	golden(t, "boot.svg", svg)
	apart(t, svg)
}

// An element is one of a picture: a rectangle or a text.
type element struct {
	kind, class, title, anchor, text string
	x, y, width                      float64
	row                              bool // it is of a row, and not of the frame
}

// elements reads a picture, which must be XML.
func elements(t *testing.T, svg []byte) []element {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	var list []element
	title, inTitle, inText, inRow := "", false, false, false
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
			inTitle, inText = e.Name.Local == "title", e.Name.Local == "text"
			inRow = inRow || e.Name.Local == "g"
			if e.Name.Local != "rect" && !inText {
				continue
			}
			b := element{kind: e.Name.Local, title: title, row: inRow}
			for _, a := range e.Attr {
				err := error(nil)
				switch a.Name.Local {
				case "class":
					b.class = a.Value
				case "text-anchor":
					b.anchor = a.Value
				case "x":
					b.x, err = strconv.ParseFloat(a.Value, 64)
				case "y":
					b.y, err = strconv.ParseFloat(a.Value, 64)
				case "width":
					if a.Value != "100%" {
						b.width, err = strconv.ParseFloat(a.Value, 64)
					}
				}
				if err != nil || math.IsNaN(b.x) || math.IsNaN(b.width) {
					t.Fatalf("%v: %v", a, err)
				}
			}
			list = append(list, b)
		case xml.EndElement:
			inTitle, inText = false, false
			inRow = inRow && e.Name.Local != "g"
		case xml.CharData:
			if inTitle {
				title = string(e)
			} else if inText {
				list[len(list)-1].text += string(e)
			}
		}
	}
}

// rowsOf are the rectangles of the rows.
func rowsOf(t *testing.T, svg []byte) []element {
	return slices.DeleteFunc(elements(t, svg), func(e element) bool { return e.kind != "rect" || !e.row })
}

// apart holds that no two texts of a picture overlap, and that all are inside it. A
// letter of the 12 pixels that all texts but the head have is at most 7.3 wide.
func apart(t *testing.T, svg []byte) {
	t.Helper()
	type box struct {
		left, right, top, bottom float64
		text                     string
	}
	var list []box
	for _, e := range elements(t, svg) {
		if e.kind != "text" {
			continue
		}
		letter, tall := svgLetter, 12.0
		if strings.HasPrefix(e.class, "head") {
			letter, tall = 11, 18
		}
		width := letter * float64(len([]rune(e.text)))
		b := box{e.x, e.x + width, e.y - tall*0.8, e.y + tall*0.2, e.text}
		switch e.anchor {
		case "middle":
			b.left, b.right = e.x-width/2, e.x+width/2
		case "end":
			b.left, b.right = e.x-width, e.x
		}
		if b.left < 0 || b.right > svgWidth {
			t.Errorf("%q is from %.0f to %.0f", b.text, b.left, b.right)
		}
		for _, o := range list {
			if b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom {
				t.Errorf("%q lies on %q", b.text, o.text)
			}
		}
		list = append(list, b)
	}
	if len(list) == 0 {
		t.Error("there is no text")
	}
}

func TestTextsDoNotOverlap(t *testing.T) {
	odd := around()
	odd.Finish = odd.Userspace + 0.1
	long := drawn()
	long.Stages[1].Took = 123456
	for name, svg := range map[string][]byte{
		"alone": timeline(drawn(), nil), "with systemd": timeline(drawn(), around()),
		"moments close to each other": timeline(drawn(), odd),
		"a bar to the end":            timeline(long, nil),
		"nothing":                     timeline(initrd.Report{}, nil),
		"a boot that is not over":     timeline(booted(), &initrd.Timeline{Initrd: 3}),
	} {
		t.Run(name, func(t *testing.T) { apart(t, svg) })
	}
}

func TestBarsAreWhereTheStageIs(t *testing.T) {
	r := drawn()
	got := rowsOf(t, timeline(r, nil))
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

// TestTheRestOfTheBootIsBesideIt: phases first, then units and stages as they began.
func TestTheRestOfTheBootIsBesideIt(t *testing.T) {
	var got []string
	for _, b := range bars(drawn(), around()) {
		if b.indent == 0 {
			got = append(got, b.label)
		}
	}
	want := []string{"firmware", "boot loader", "kernel", "initrd", "system",
		"systemd-udevd.service", "fetch", "network-online.service", "repart", "verity", "late.service"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	svg := string(timeline(drawn(), around()))
	for _, want := range []string{">switch-root<", ">all is started<", ">other units<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q", want)
		}
	}
}

// TestShortStepsShareARow, or a boot with many files would have a row for each.
func TestShortStepsShareARow(t *testing.T) {
	s := initrd.ReportedStage{Name: "etc", At: 1, Took: 2}
	for i := range 500 {
		s.Steps = append(s.Steps, initrd.ReportedStep{Wish: fmt.Sprint(i), State: "not so", Changed: i != 7, Took: 0.0001})
	}
	s.Steps[250].Took = 1
	s.Steps[300].Error = "x"
	got := bars(initrd.Report{Stages: []initrd.ReportedStage{s}}, nil)
	var labels []string
	sum := 0.0
	for _, b := range got[1:] {
		labels = append(labels, b.label+" "+b.class)
		sum += b.took
	}
	if want := []string{"250 short steps changed", "250 changed", "49 short steps changed", "300 failed", "199 short steps changed"}; !slices.Equal(labels, want) {
		t.Errorf("%q", labels)
	}
	if math.Abs(sum-1.0499) > 1e-6 {
		t.Errorf("%v s in all", sum)
	}
}

func TestUnitsAreBounded(t *testing.T) {
	whole := &initrd.Timeline{Initrd: 1, Userspace: 2, Finish: 10}
	for i := range 3 * mostDrawn {
		whole.Units = append(whole.Units, initrd.TimedUnit{Name: fmt.Sprint(i), At: 2, Took: 1 + float64(i)/100})
	}
	if n := len(bars(initrd.Report{}, whole)); n != mostDrawn+3 {
		t.Errorf("%d rows", n)
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
		svg := timeline(c.report, nil)
		if got := len(rowsOf(t, svg)); got != c.bars {
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
			s := newScale([]bar{{at: at, width: took}})
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
