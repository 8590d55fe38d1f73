package initrd

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const resultPath = "etc/.ignition-result.json"

// resultOf is the wish of a test whose boot has that id.
func resultOf(t *testing.T, root, boot string, user bool) Result {
	t.Helper()
	id := filepath.Join(t.TempDir(), "boot_id")
	write(t, id, boot+"\n")
	return Result{Root: root, Path: ResultFile, BootID: id, User: user}
}

func readResult(t *testing.T, root string) map[string]any {
	t.Helper()
	var have map[string]any
	if err := json.Unmarshal([]byte(contentOf(t, filepath.Join(root, resultPath))), &have); err != nil {
		t.Fatal(err)
	}
	return have
}

func TestResultHoldsTheOnesBeforeIt(t *testing.T) {
	m, root := testMachine(t)
	for i, boot := range []string{"first", "second", "third"} {
		settle(t, m, resultOf(t, root, boot, i != 1))
	}
	info, err := os.Stat(filepath.Join(root, resultPath))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	have := readResult(t, root)
	for i, boot := range []string{"third", "second", "first"} {
		if have["provisioningBootID"] != boot || have["userConfigProvided"] != (boot != "second") {
			t.Errorf("%d back: %v", i, have)
		}
		date, ok := have["provisioningDate"].(string)
		if at, err := time.Parse(time.RFC3339, date); !ok || err != nil || time.Since(at).Abs() > time.Hour {
			t.Errorf("%d back: date %q: %v", i, date, err)
		}
		have, _ = have["previousReport"].(map[string]any)
	}
	if have != nil {
		t.Errorf("before the first: %v", have)
	}
}

// TestResultOfOneBoot: a run that was cut short is not one of its own.
func TestResultOfOneBoot(t *testing.T) {
	m, root := testMachine(t)
	settle(t, m, resultOf(t, root, "before", true))
	settle(t, m, resultOf(t, root, "now", false))
	settle(t, m, resultOf(t, root, "now", true))
	have := readResult(t, root)
	previous, _ := have["previousReport"].(map[string]any)
	if have["userConfigProvided"] != true || previous["provisioningBootID"] != "before" || previous["previousReport"] != nil {
		t.Errorf("%v", have)
	}
}

func TestResultOfALiveImageBeginsAnew(t *testing.T) {
	m, root := testMachine(t)
	settle(t, m, resultOf(t, root, "of the image", true))
	program(t, m, "is-live-image", "exit 1")
	settle(t, m, resultOf(t, root, "installed", true))
	if have := readResult(t, root); have["previousReport"] == nil {
		t.Errorf("%v", have)
	}
	program(t, m, "is-live-image", "exit 0")
	settle(t, m, resultOf(t, root, "live", true))
	if have := readResult(t, root); have["previousReport"] != nil {
		t.Errorf("%v", have)
	}
}

func TestResultThatIsNoneIsLeftAlone(t *testing.T) {
	m, root := testMachine(t)
	write(t, filepath.Join(root, resultPath), "canary")
	_, err := apply(t, m, resultOf(t, root, "now", true))
	if err == nil || !strings.Contains(err.Error(), "is no result of a provisioning") || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
	if got := contentOf(t, filepath.Join(root, resultPath)); got != "canary" {
		t.Errorf("it is %q now", got)
	}
}

// argumentsOf wishes arguments of a kernel whose command line is text.
func argumentsOf(t *testing.T, text string, with, without []string) KernelArguments {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cmdline")
	write(t, file, text)
	return KernelArguments{ShouldExist: with, ShouldNotExist: without, Cmdline: file}
}

func TestKernelArgumentsAreWholeWords(t *testing.T) {
	m, _ := testMachine(t)
	for _, c := range []struct {
		cmdline       string
		with, without []string
		want          State
	}{
		{"a b=1 c\n", []string{"a", "b=1"}, []string{"d"}, So},
		{"a b=10\n", []string{"b=1"}, nil, NotSo},
		{"ab\n", []string{"a"}, nil, NotSo},
		{"a b=1\n", nil, []string{"b"}, So},
		{"a b=1\n", nil, []string{"b=1"}, NotSo},
		{"x a b y\n", []string{"a b"}, nil, So},
		{"a x b\n", []string{"a b"}, nil, NotSo},
		{"", nil, []string{"a"}, So},
	} {
		state, act, err := argumentsOf(t, c.cmdline, c.with, c.without).Resolve(m.Look(t.Context()))
		if err != nil || state != c.want || (act != nil) != (c.want == NotSo) {
			t.Errorf("%q with %q without %q: %v %v", c.cmdline, c.with, c.without, state, err)
		}
	}
}

func TestKernelArgumentsAreTheHelpersToChange(t *testing.T) {
	m, root := testMachine(t)
	said := filepath.Join(root, "said")
	program(t, m, KernelArgumentsHelper, `printf '<%s>' "$@" >>`+said)
	k := argumentsOf(t, "a\n", []string{"b=1 2", "c"}, []string{"a"})
	settle(t, m, k)
	if got := contentOf(t, said); got != "<--should-exist><b=1 2><--should-exist><c><--should-not-exist><a>" {
		t.Errorf("the helper was given %s", got)
	}
	if _, err := apply(t, m, k); err != nil || strings.Count(contentOf(t, said), "--should-not-exist") != 1 {
		t.Errorf("asked once more: %v", err)
	}

	m.Programs = []string{t.TempDir()}
	_, err := apply(t, m, argumentsOf(t, "a\n", []string{"d"}, nil))
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "no way to change kernel arguments") {
		t.Errorf("%v", err)
	}
	program(t, m, KernelArgumentsHelper, "echo full >&2; exit 4")
	if _, err := apply(t, m, argumentsOf(t, "a\n", []string{"d"}, nil)); err == nil || !strings.Contains(err.Error(), "exit 4: full") {
		t.Errorf("%v", err)
	}
}

func TestOtherProgramsInstead(t *testing.T) {
	m, _ := testMachine(t)
	program(t, m, "other", "echo by name")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "plain"), "#!/bin/sh\n")
	m.Instead = map[string]string{"named": "other", "absolute": filepath.Join(m.Programs[0], "other"), "absent": filepath.Join(dir, "absent"), "plain": filepath.Join(dir, "plain")}
	for _, name := range []string{"named", "absolute", "other"} {
		if out, _, err := m.run(t.Context(), Program{Argv: []string{name}}); err != nil || string(out) != "by name\n" {
			t.Errorf("%s: %q %v", name, out, err)
		}
	}
	for _, name := range []string{"absent", "plain"} {
		if _, _, err := m.run(t.Context(), Program{Argv: []string{name}}); !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
