package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	ignition "github.com/coreos/ignition/v2/config"
	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_5/types"
	translate6 "github.com/coreos/ignition/v2/config/v3_6_experimental/translate"
	"github.com/coreos/vcontext/report"
)

// The library's own reading of a document is what Ignition does with it. These tests
// hold ours against it: the same value, and the same verdict.

// stricter are the documents that are refused here and that the library takes, with the
// reason.
var stricter = map[string]string{
	"here-hash-no-hex":      "no content could ever have that hash",
	"here-header-name":      "no request could be made with it",
	"here-header-lines":     "it would end the header and begin another",
	"here-source-no-host":   "there is nobody to ask",
	"here-proxy-no-host":    "there is nobody to ask",
	"here-timeouts":         "no time is less than none",
	"here-section":          "the section is ours: what it says and nobody carries out is not ignored",
	"here-section-misspelt": "who misspells the section does not want it ignored",
}

// corpus are all documents of a pattern below testdata/spec, by name.
func corpus(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata/spec", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(strings.TrimPrefix(file, "testdata/spec/"), ".ign")] = raw
	}
	return all
}

// TestSpecReadAsByTheLibrary: each document of the spec is the same config here as there.
func TestSpecReadAsByTheLibrary(t *testing.T) {
	for name, raw := range corpus(t, "3.*/*.ign") {
		c, d := parse(raw, Options{})
		if name == "3.5/cex" {
			if err := d.report().Err(); err == nil {
				t.Error("crypto cards of s390x are not refused any more")
			}
			continue
		}
		if err := d.report().Err(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, found, err := v3_5.ParseCompatibleVersion(raw)
		if err != nil || len(found.Entries) > 0 {
			t.Errorf("%s: the library says %v: %v", name, err, found)
			continue
		}
		if !reflect.DeepEqual(c.Ignition, want) {
			t.Errorf("%s: got\n%+v\nwant\n%+v", name, c.Ignition, want)
		}
		newest, _, err := ignition.Parse(raw)
		if err != nil || !reflect.DeepEqual(translate6.Translate(c.Ignition), newest) {
			t.Errorf("%s: what the library's newest spec makes of it is another config (%v)", name, err)
		}
	}
}

// TestSpecFaults compares all that is said of faulty documents, and the verdict with the library's.
func TestSpecFaults(t *testing.T) {
	for name, raw := range corpus(t, "faults/*.ign") {
		t.Run(strings.TrimPrefix(name, "faults/"), func(t *testing.T) {
			_, d := parse(raw, Options{})
			report := d.report()
			var got strings.Builder
			for _, f := range report {
				got.WriteString(f.Severity.String() + ": " + f.String() + "\n")
			}
			golden := filepath.Join("testdata/spec", name+".want")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
			if len(report) == 0 {
				t.Error("nothing is said of it")
			}
			_, found, err := v3_5.ParseCompatibleVersion(raw)
			theirs := err != nil
			why, deliberate := stricter[strings.TrimPrefix(name, "faults/")]
			switch ours := report.Fatal(); {
			case deliberate && (theirs || !ours || why == ""):
				t.Errorf("listed as refused here alone: here %v, there %v, because %q", ours, theirs, why)
			case !deliberate && ours != theirs:
				t.Errorf("refused here: %v, by the library: %v (%v)\n%v", ours, theirs, err, found)
			}
		})
	}
}

// unfound are the library's errors that no document can lead to, and why.
var unfound = map[string]string{
	"ErrDeprecated":                "of specs before 3",
	"ErrEngineConfiguration":       "of Ignition's engine",
	"ErrPartitionsMisaligned":      "not used by any spec 3",
	"ErrFilePermissionsUnset":      "obsolete",
	"ErrDirectoryPermissionsUnset": "obsolete",
	"ErrNoSystemdExt":              "of specs before 3",
	"ErrInvalidInstantiatedUnit":   "of specs before 3",
}

// TestSpecFaultsAreWhole: for each error of the library there is a document that it says it of.
func TestSpecFaultsAreWhole(t *testing.T) {
	said := map[string]bool{}
	for _, raw := range corpus(t, "faults/*.ign") {
		_, found, err := v3_5.ParseCompatibleVersion(raw)
		if err != nil {
			said[err.Error()] = true
		}
		for _, e := range found.Entries {
			said[e.Message] = true
		}
	}
	errors := libraryErrors(t)
	if len(errors) < 70 {
		t.Fatalf("the library has %d errors", len(errors))
	}
	for name, message := range errors {
		_, listed := unfound[name]
		if said[message] == listed {
			t.Errorf("%s (%s): said of a document: %v, listed as never said: %v", name, message, said[message], listed)
		}
		delete(unfound, name)
	}
	for name := range unfound {
		t.Errorf("the library has no %s", name)
	}
}

// libraryErrors reads the texts of the library's fixed errors from its source, since a
// package's variables cannot be listed otherwise.
func libraryErrors(t *testing.T) map[string]string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/coreos/ignition/v2/config/shared/errors").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "errors.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	errors := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if call, ok := v.Values[0].(*ast.CallExpr); ok && len(call.Args) == 1 {
				if text, ok := call.Args[0].(*ast.BasicLit); ok {
					if errors[v.Names[0].Name], err = strconv.Unquote(text.Value); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		return true
	})
	return errors
}

// FuzzAsTheLibrary: whatever the document, it is refused here where the library refuses it,
// and where neither does it is the same config.
func FuzzAsTheLibrary(f *testing.F) {
	for _, pattern := range []string{"testdata/spec/*/*.ign", "testdata/faulty/*.ign"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		want, found, err := library(raw)
		c, d := parse(raw, Options{})
		r := d.report()
		switch {
		case err != nil && !r.Fatal():
			t.Errorf("the library refuses it: %v\n%v", err, found)
		case err == nil && !r.Fatal() && !reflect.DeepEqual(c.Ignition, want):
			t.Errorf("got\n%+v\nwant\n%+v", c.Ignition, want)
		}
	})
}

// library is the library's reading; where that panics, it is an error of it.
func library(raw []byte) (c types.Config, r report.Report, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return v3_5.ParseCompatibleVersion(raw)
}
