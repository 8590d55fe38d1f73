package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pilotlight/config"
)

func TestRoffEscapes(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"plain words":     "plain words",
		".hidden is text": `\&.hidden is text`,
		"'quote'":         `\(aqquote\(aq`,
		"a.b":             "a.b",
		`C:\n`:            `C:\en`,
		`\(aq`:            `\e(aq`,
		"--json":          `\-\-json`,
		"f^ ~ ` \"":       `f\(ha \(ti \(ga \(dq`,
	} {
		if got := roff(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestManualIsWellFormed: only macros of man(7), only escapes that roff knows, and
// fonts and examples that end.
func TestManualIsWellFormed(t *testing.T) {
	odd := append(spelledOut(verbs()), spelled{
		verb: verb{name: "odd", usage: `[--a\b] .X`, short: `'tis odd`, long: ".TH is text\n'br too \\fB\n\n  .by hand\n\nexample: .example"},
	})
	text := string(manual(odd, `v1-"x"`))
	if !strings.HasSuffix(text, "\n") || strings.Contains(text, "\n\n") {
		t.Error("an empty line, or none at the end")
	}
	macros := []string{".TH", ".SH", ".SS", ".PP", ".TP", ".EX", ".EE", ".B", ".I", ".RI", ".BR"}
	escape := regexp.MustCompile(`\\(e|-|&|f[BIR]|\((aq|ga|ha|ti|dq))`)
	inExample := false
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, "'") {
			t.Errorf("%d: a request: %s", i+1, line)
		}
		if strings.HasPrefix(line, ".") {
			macro, _, _ := strings.Cut(line, " ")
			if !slices.Contains(macros, macro) {
				t.Errorf("%d: no macro: %s", i+1, line)
			}
			switch macro {
			case ".EX", ".EE":
				if inExample == (macro == ".EX") {
					t.Errorf("%d: %s out of turn", i+1, macro)
				}
				inExample = macro == ".EX"
			case ".SH", ".SS", ".TP", ".PP":
				if inExample {
					t.Errorf("%d: %s within an example", i+1, macro)
				}
			}
		}
		if strings.Contains(escape.ReplaceAllString(line, ""), `\`) {
			t.Errorf("%d: no escape of roff: %s", i+1, line)
		}
		if strings.Contains(escape.ReplaceAllString(line, ""), "-") {
			t.Errorf("%d: a bare hyphen: %s", i+1, line)
		}
		if strings.Count(line, `\fB`)+strings.Count(line, `\fI`) != strings.Count(line, `\fR`) {
			t.Errorf("%d: a font that does not end: %s", i+1, line)
		}
	}
	if inExample {
		t.Error("an example does not end")
	}
	for _, want := range []string{
		`.TH PILOTLIGHT 8 "" "pilotlight v1\-\(dqx\(dq" "System Administration"` + "\n",
		".SS \"odd\"\n.PP\n" + `\fBpilotlight odd\fR [\-\-a\eb] .X` + "\n.PP\n" + `\(aqtis odd.` + "\n.PP\n" + `\&.TH is text` + "\n" + `\(aqbr too \efB` + "\n",
		".PP\n.EX\n  .by hand\n.EE\n.PP\n.EX\nexample: .example\n.EE\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

// section is what the manual has under a heading.
func section(t *testing.T, text, name string) string {
	t.Helper()
	return part(t, text+".SH", ".SH \""+name+"\"\n", ".SH")
}

func TestManualIsComplete(t *testing.T) {
	list := spelledOut(verbs())
	text := string(manual(list, "v1"))
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\.SH "(.*)"$`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	if want := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "VERBS", "KERNEL ARGUMENTS", "FILES", "EXIT STATUS", "SEE ALSO"}; !slices.Equal(names, want) {
		t.Errorf("sections %q, want %q", names, want)
	}
	all := section(t, text, "VERBS")
	for _, s := range list {
		of := part(t, all+".SS", ".SS "+argument(s.name)+"\n", ".SS")
		for _, want := range []string{bold("pilotlight " + s.name), roff(s.usage), roff(s.short[1:]) + ".\n", "\nexample: pilotlight "} {
			if !strings.Contains(of, want) {
				t.Errorf("%s: no %q", s.name, want)
			}
		}
		for _, f := range s.flags {
			if !strings.Contains(of, "\n.TP\n"+bold(f.option())) || !strings.Contains(of, "\n"+roff(f.text)+"\n") {
				t.Errorf("%s: no flag %s", s.name, f.option())
			}
		}
	}
	if strings.Contains(all, "pilotlight boot") {
		t.Error("the hidden verb shows")
	}
	files := section(t, text, "FILES")
	for _, name := range []string{"/run/pilotlight/report.json", "/run/pilotlight/config", "ESP:/pilotlight/record.json", "/usr/lib/pilotlight/base.d"} {
		if !strings.Contains(files, ".TP\n"+italic(name)+"\n") {
			t.Errorf("no file %s", name)
		}
	}
	status := section(t, text, "EXIT STATUS")
	for _, code := range []string{"0", "1", "2"} {
		if !strings.Contains(status, ".TP\n"+bold(code)+"\n") {
			t.Errorf("no exit status %s", code)
		}
	}
}

// TestManualHasEveryKnob holds the section beside what config reads.
func TestManualHasEveryKnob(t *testing.T) {
	source, err := os.ReadFile("../../config/knobs.go")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pilotlight", "pilotlight.config"}
	for _, m := range regexp.MustCompile(`r\.(?:read|flag)\("(pilotlight[a-z.]*)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	want = slices.Compact(want)
	arguments := section(t, string(manual(spelledOut(verbs()), "v1")), "KERNEL ARGUMENTS")
	var got []string
	for _, k := range knobs() {
		name, value, given := strings.Cut(k.name, "=")
		got = append(got, name)
		tag := ".TP\n" + bold(name) + "\n"
		if given {
			tag = ".TP\n" + bold(name+"=") + italic(value) + "\n"
		}
		if !strings.Contains(arguments, tag+roff(k.text)+"\n") {
			t.Errorf("no %s", name)
		}
		// Each alternative that is spelled out is one that config takes.
		for word := range strings.SplitSeq(value, "|") {
			if given && word == strings.ToLower(word) {
				if _, err := config.ReadKnobs(name+"="+word, nil); err != nil {
					t.Errorf("%s=%s: %v", name, word, err)
				}
			}
		}
	}
	slices.Sort(got)
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("knobs %q, config reads %q", got, want)
	}
}
