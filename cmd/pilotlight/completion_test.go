package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUsageSaysWhichArgument(t *testing.T) {
	got := map[string]placeholder{}
	for _, s := range spelledOut(verbs()) {
		if s.argument != "" {
			got[s.name] = s.argument
		}
		for _, f := range s.flags {
			want := slices.Contains([]string{"predict --with", "predict --from", "initrd addon --ca", "initrd addon --program", "initrd addon --module", "initrd addon --with",
				"initrd build --ca", "initrd build --program", "initrd build --module", "initrd build --with"}, s.name+" --"+f.name)
			if f.repeats != want {
				t.Errorf("%s --%s repeats: %v", s.name, f.name, f.repeats)
			}
		}
	}
	want := map[string]placeholder{"validate": "FILE", "wrap": "FILE", "serve": "DIR", "completion": "bash|zsh|fish"}
	if len(got) != len(want) {
		t.Errorf("%v, want %v", got, want)
	}
	for name, p := range want {
		if got[name] != p {
			t.Errorf("%s takes %q, want %q", name, got[name], p)
		}
	}
}

// part is what a script says of one verb: from one line to another.
func part(t *testing.T, script, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(script, from)
	if !ok {
		t.Fatalf("the script has no %q", from)
	}
	body, _, ok := strings.Cut(rest, to)
	if !ok {
		t.Fatalf("the script has no %q after %q", to, from)
	}
	return body
}

// TestEveryVerbAndFlagCompletes: what a shell that is not on this machine would be
// given; bash itself is asked below.
func TestEveryVerbAndFlagCompletes(t *testing.T) {
	list := spelledOut(verbs())
	zsh, fish := string(zshCompletion(list)), string(fishCompletion(list))
	for _, s := range list {
		pattern := quoted(s.name)
		if len(s.words) == 1 {
			pattern = quoted(s.name+" ") + "*"
		}
		last := s.words[len(s.words)-1]
		of := part(t, zsh, "\t"+pattern+")\n", ";;")
		if !strings.Contains(zsh, "\t'"+last+":"+strings.ReplaceAll(s.short, "'", `'\''`)+"'\n") {
			t.Errorf("zsh: no verb %s", s.name)
		}
		if !strings.Contains(fish, " -a '"+last+"' -d '"+strings.ReplaceAll(s.short, "'", `\'`)+"'\n") {
			t.Errorf("fish: no verb %s", s.name)
		}
		for _, f := range s.flags {
			spec := "--" + f.name + "["
			if f.value != "" {
				spec = "--" + f.name + "=["
			}
			if !strings.Contains(of, spec) {
				t.Errorf("zsh: %s has no %s", s.name, spec)
			}
			if !strings.Contains(fish, "-n '__pilotlight_in "+s.name+"' -l '"+f.name+"' ") {
				t.Errorf("fish: %s has no --%s", s.name, f.name)
			}
		}
	}
	for name, script := range map[string]string{"zsh": zsh, "fish": fish} {
		if strings.Contains(script, "onfailure") {
			t.Errorf("%s: the hidden verb shows", name)
		}
	}
	for _, want := range []string{
		"'*--with=[take a file for an address, url=file]:URL=FILE: '",
		"'*--from=[event log of what comes before ours, once or twice]:LOG:_files'",
		":NAMES:_sequence compadd - measure network kargs repart ",
		":NAME:_sequence compadd - auto ",
		"'--root=[the tree]:TREE:_files -/'",
		"'1:bash|zsh|fish:(bash zsh fish)'",
		"'1:DIR:_files -/'",
	} {
		if !strings.Contains(zsh, want) {
			t.Errorf("zsh: no %s", want)
		}
	}
	for _, want := range []string{
		"'__pilotlight_in plan' -l 'stage' -r -f -a 'measure network kargs repart ",
		"'__pilotlight_in initrd build' -l 'root' -r -a '(__fish_complete_directories (commandline -ct))' ",
		"'__pilotlight_in initrd addon' -l 'check' -r -F ",
		"'__pilotlight_in completion' -a 'bash zsh fish'\n",
		"'__pilotlight_in validate' -F\n",
	} {
		if !strings.Contains(fish, want) {
			t.Errorf("fish: no %s", want)
		}
	}
}

// TestBashCompletes sources the script and completes as bash would.
func TestBashCompletes(t *testing.T) {
	list := spelledOut(verbs())
	dir := t.TempDir()
	script := filepath.Join(dir, "completion")
	if err := os.WriteFile(script, bashCompletion(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("bash", "-n", script).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("bash -n: %v\n%s", err, out)
	}
	work := filepath.Join(dir, "work")
	for _, name := range []string{"tree one", "trove"} {
		if err := os.MkdirAll(filepath.Join(work, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(work, "tr file.ign"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The last word is the one that is completed.
	complete := func(words ...string) []string {
		t.Helper()
		cmd := exec.Command("bash", "--norc", "-c", `source "$1" || exit
shift
complete -p pilotlight >/dev/null || exit
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_pilotlight || exit
printf '%s\n' "${COMPREPLY[@]}"`, "bash", script)
		cmd.Args = append(cmd.Args, append([]string{"pilotlight"}, words...)...)
		cmd.Dir = work
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil || said.Len() > 0 {
			t.Fatalf("%q: %v\n%s", words, err, &said)
		}
		got := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
		slices.Sort(got)
		return got
	}
	files, trees := []string{"tr file.ign", "tree one", "trove"}, []string{"tree one", "trove"}
	for _, c := range []struct{ words, want []string }{
		{[]string{"va"}, []string{"validate"}},
		{[]string{"bo"}, nil},
		{[]string{"--"}, []string{"--help", "--version"}},
		{[]string{"initrd", ""}, []string{"addon", "build", "uki"}},
		{[]string{"initrd", "u"}, []string{"uki"}},
		{[]string{"validate", "tr"}, files},
		{[]string{"validate", "--strict", "tr"}, files},
		{[]string{"validate", "--s"}, []string{"--strict"}},
		{[]string{"serve", "tr"}, trees},
		{[]string{"plan", "--config", "tr"}, files},
		{[]string{"plan", "--root", "tr"}, trees},
		{[]string{"plan", "--config", "=", "tr"}, files},
		{[]string{"plan", "--root", "="}, trees},
		{[]string{"plan", "--stage", "re"}, []string{"repart", "report"}},
		{[]string{"plan", "--stage", "verity,re"}, []string{"verity,repart", "verity,report"}},
		{[]string{"plan", "--stage", "=", "et"}, []string{"etc"}},
		{[]string{"fetch", "--platform", "q"}, []string{"qemu"}},
		{[]string{"fetch", "--platform", "au"}, []string{"auto"}},
		{[]string{"plan", "--stage", "etc", "--ro"}, []string{"--root"}},
		{[]string{"initrd", "addon", "--check", "tr f"}, []string{"tr file.ign"}},
		{[]string{"initrd", "build", "--root", ""}, trees},
		{[]string{"initrd", "build", "--kernel", ""}, nil},
		{[]string{"predict", "--from", "tr"}, files},
		{[]string{"completion", ""}, []string{"bash", "fish", "zsh"}},
		{[]string{"completion", "z"}, []string{"zsh"}},
		{[]string{"version", ""}, []string{"--help", "--json"}},
		{[]string{"nonsense", ""}, nil},
	} {
		if got := complete(c.words...); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	for _, s := range list {
		for i, w := range s.words {
			if got := complete(append(slices.Clone(s.words[:i]), w)...); !slices.Contains(got, w) {
				t.Errorf("%s: %q", s.name, got)
			}
		}
		want := s.options()
		slices.Sort(want)
		if got := complete(append(slices.Clone(s.words), "-")...); !slices.Equal(got, want) {
			t.Errorf("flags of %s: %q, want %q", s.name, got, want)
		}
	}
}

func TestCompletionOfNoShell(t *testing.T) {
	do := completionVerb().prepare(nil)
	for _, args := range [][]string{nil, {"tcsh"}, {"bash", "zsh"}} {
		var m misuse
		if err := do(&call{args: args}); !errors.As(err, &m) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
