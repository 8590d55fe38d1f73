// Package tests_test holds what is true of the whole: the rules of the house.
package tests_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pilotlight/initrd"
)

// repository is where go.mod lies.
const repository = ".."

// sizeLimit bounds the stripped program, in bytes.
const sizeLimit = 13_800_000

type pkg struct {
	ImportPath                 string
	Imports, TestImports       []string
	XTestImports               []string
	Dir                        string
	GoFiles, CgoFiles          []string
	TestGoFiles, XTestGoFiles  []string
	IgnoredGoFiles, EmbedFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Dir = repository
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("go list found %d packages", len(list))
	}
	return list
}

// room is the top-level directory of a package of ours, with config/resource as a
// room of its own, "" for packages of others.
func room(importPath string) string {
	rest, ok := strings.CutPrefix(importPath, "pilotlight/")
	if !ok {
		return ""
	}
	if strings.HasPrefix(rest, "config/resource") {
		return "config/resource"
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func TestImportsRunOneWay(t *testing.T) {
	may := map[string][]string{
		"config/resource": {},
		"config":          {"config/resource"},
		"providers":       {"config/resource"},
		"initrd":          {"config/resource"},
		"stages":          {"config", "config/resource", "initrd"},
		"cmd":             {"config", "config/resource", "providers", "initrd", "stages"},
		"tests":           {"config", "config/resource", "providers", "initrd", "stages", "cmd"},
	}
	for _, p := range packages(t) {
		from := room(p.ImportPath)
		allowed, ok := may[from]
		if !ok {
			t.Errorf("%s is in no room", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if to := room(i); to != "" && to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s", p.ImportPath, i)
			}
		}
	}
}

func TestSideEffectsAreInTheInitrdAlone(t *testing.T) {
	acting := []string{"os/exec", "syscall", "golang.org/x/sys/unix", "unsafe", "plugin"}
	for _, p := range packages(t) {
		if r := room(p.ImportPath); r == "initrd" || r == "tests" {
			continue
		}
		for _, i := range p.Imports {
			if slices.Contains(acting, i) || strings.HasPrefix(i, "github.com/google/go-tpm") {
				t.Errorf("%s imports %s", p.ImportPath, i)
			}
		}
	}
}

// sources parses every Go file of ours.
func sources(t *testing.T, each func(p pkg, name string, test bool, f *ast.File, set *token.FileSet)) {
	t.Helper()
	for _, p := range packages(t) {
		for i, list := range [][]string{p.GoFiles, p.TestGoFiles, p.XTestGoFiles} {
			for _, name := range list {
				set := token.NewFileSet()
				f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				each(p, name, i > 0, f, set)
			}
		}
	}
}

func TestNothingHappensBeforeMain(t *testing.T) {
	sources(t, func(p pkg, name string, _ bool, f *ast.File, _ *token.FileSet) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s/%s has an init function", p.ImportPath, name)
			}
		}
		for _, i := range f.Imports {
			if i.Name != nil && (i.Name.Name == "_" && i.Path.Value != `"embed"` || i.Name.Name == ".") {
				t.Errorf("%s/%s imports %s as %s", p.ImportPath, name, i.Path.Value, i.Name.Name)
			}
		}
		for _, i := range f.Imports {
			if i.Path.Value == `"C"` {
				t.Errorf("%s/%s uses cgo", p.ImportPath, name)
			}
		}
	})
}

func TestNoTestIsSkipped(t *testing.T) {
	sources(t, func(p pkg, name string, test bool, f *ast.File, set *token.FileSet) {
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && test && strings.HasPrefix(s.Sel.Name, "Skip") {
				if x, ok := s.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b" || x.Name == "f") {
					t.Errorf("%s: a skipped test", set.Position(n.Pos()))
				}
			}
			return true
		})
	})
}

// TestKindsAreComplete finds every type of package initrd with a Resolve method,
// and wants it in the table.
func TestKindsAreComplete(t *testing.T) {
	want := map[string]bool{}
	sources(t, func(p pkg, _ string, test bool, f *ast.File, _ *token.FileSet) {
		if p.ImportPath != "pilotlight/initrd" || test {
			return
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fn.Name.Name == "Resolve" {
				if id, ok := fn.Recv.List[0].Type.(*ast.Ident); ok {
					want[id.Name] = true
				}
			}
		}
	})
	if len(want) < 10 {
		t.Fatalf("found %d kinds of step", len(want))
	}
	for _, k := range initrd.Kinds {
		name := reflect.TypeOf(k.Step).Name()
		if !want[name] {
			t.Errorf("%s is in the table twice, or has no Resolve", name)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is a kind of step, and not in the table", name)
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	allowed := []string{
		"cmd", "providers", "stages", "config", "initrd", "tests", "go.mod", "README.md",
		"go.sum", "Makefile", "LICENSE", "ARCHITECTURE.md", ".ci", ".gitignore", ".git", ".cache", "bin",
	}
	entries, err := os.ReadDir(repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s is no room of this house", e.Name())
		}
	}
}

func TestNamesOfRoomsSayWhatTheyHold(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "shared", "base", "types", "manager", "core", "misc"}
	for _, p := range packages(t) {
		if slices.Contains(vague, filepath.Base(p.ImportPath)) {
			t.Errorf("%s says nothing", p.ImportPath)
		}
	}
}

// TestTheProjectStandsAlone finds text that speaks of something outside.
func TestTheProjectStandsAlone(t *testing.T) {
	outside := []string{".." + "/shared", "/wo" + "rk/", "to" + "do:", "fix" + "me"}
	err := filepath.WalkDir(repository, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", ".cache", "bin"}, d.Name()) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, o := range outside {
			if bytes.Contains(bytes.ToLower(data), []byte(o)) {
				t.Errorf("%s holds %q", name, o)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestEveryDependencyHasItsReason reads the comments of go.mod.
func TestEveryDependencyHasItsReason(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	before := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); len(f) == 2 && strings.Contains(f[0], "/") && strings.HasPrefix(f[1], "v") {
			direct++
			if !strings.HasPrefix(before, "//") {
				t.Errorf("%s has no reason beside it", f[0])
			}
		}
		before = line
	}
	if direct < 5 {
		t.Fatalf("go.mod names %d direct dependencies", direct)
	}
}

func TestTheProgramIsStaticAndSmall(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pilotlight")
	build := exec.Command("go", "build", "-trimpath", "-tags=nethttpomithttp2", "-ldflags=-s -w -funcalign=16", "-o", binary, "./cmd/pilotlight")
	build.Dir = repository
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is linked dynamically (%v)", p.Type)
		}
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the stripped program has %.2f MB; the limit is %.2f MB", float64(info.Size())/1e6, float64(sizeLimit)/1e6)
	if info.Size() > sizeLimit {
		t.Errorf("the stripped program has %d bytes, more than %d", info.Size(), sizeLimit)
	}
}
