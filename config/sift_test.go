package config

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	unitparse "github.com/coreos/ignition/v2/config/shared/parse"
	"github.com/coreos/ignition/v2/config/v3_5"
)

// writer makes documents out of what could stand in one, and of what could not.
type writer struct{ *rand.Rand }

func (w writer) one(of ...string) string { return of[w.IntN(len(of))] }

// often is the first of a list mostly, and else any of them.
func (w writer) often(of ...string) string {
	if w.IntN(12) > 0 {
		return of[0]
	}
	return w.one(of...)
}

func (w writer) object(members ...string) string {
	w.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	var some []string
	for _, m := range members {
		if m != "" {
			some = append(some, m)
		}
	}
	return "{" + strings.Join(some, w.one(",", ", ", "\n,")) + "}"
}

func (w writer) list(most int, item func() string) string {
	var items []string
	for range w.IntN(most + 1) {
		items = append(items, item())
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func (w writer) path() string {
	return w.often(fmt.Sprintf(`"/p/%d"`, w.IntN(60)), `"/p"`, `"/l/x"`, `"/l"`, `"/p/1/2/3"`, `""`, `"p"`, `"/p/../q"`, `"/p//1"`, `"/"`, `"/etc/systemd/system/a.service"`,
		`"/etc/systemd/system/a.service.d/x.conf"`, `"/\u0070"`, `null`, `7`, "\"/\xff\"")
}

func (w writer) owner(key string) string {
	return w.often("", fmt.Sprintf(`%q: {"id": %d}`, key, w.IntN(3)), fmt.Sprintf(`%q: {"name": "core"}`, key), fmt.Sprintf(`%q: {"id": 1, "name": "core"}`, key),
		fmt.Sprintf(`%q: {"id": 1, "name": ""}`, key), fmt.Sprintf(`%q: {"id": 1.5}`, key), fmt.Sprintf(`%q: {"id": null}`, key), fmt.Sprintf(`%q: {}`, key), fmt.Sprintf(`%q: null`, key), fmt.Sprintf(`%q: {"uid": 1}`, key))
}

func (w writer) contents(key string) string {
	source := w.often(fmt.Sprintf(`"source": "data:,x%d"`, w.IntN(9)), `"source": "data:;base64,eHg="`, `"source": "data:;base64,eHg"`, `"source": "data:,%zz"`, `"source": "data:,a b"`, `"source": "http://h/p?q"`,
		`"source": "https:///p"`, `"source": "ftp://h/p"`, `"source": "gs://b/o"`, `"source": ""`, `"source": null`, `"source": 4`, `"source": "data:,1", "source": "data:,2"`, `"Source": "data:,x"`, `"source": "data:,\u0041"`, "", `"inline": "x"`)
	return fmt.Sprintf("%q: %s", key, w.object(source,
		w.often("", `"compression": ""`, `"compression": "gzip"`, `"compression": "xz"`, `"compression": null`),
		w.often("", `"verification": {}`, `"verification": {"hash": "sha512-`+strings.Repeat("0f", 64)+`"}`, `"verification": {"hash": "sha256-`+strings.Repeat("0f", 32)+`"}`, `"verification": {"hash": "sha512-00"}`, `"verification": {"hash": null}`, `"verification": {"hash": ""}`, `"verification": []`),
		w.often("", `"httpHeaders": [{"name": "A", "value": "b"}]`, `"httpHeaders": []`)))
}

func (w writer) file() string {
	return w.object(w.often(`"path": `+w.path(), "", `"Path": `+w.path(), `"path": "/twice", "path": `+w.path()),
		w.often("", `"mode": 420`, `"mode": 2541`, `"mode": -1`, `"mode": 99999`, `"mode": "0644"`, `"mode": 4.2e2`, `"mode": null`),
		w.often("", `"overwrite": true`, `"overwrite": false`, `"overwrite": null`, `"overwrite": "yes"`),
		w.owner("user"), w.owner("group"), w.often(w.contents("contents"), "", `"contents": null`, `"contents": []`),
		w.often("", `"append": [{"source": "data:,x"}]`, `"append": []`, `"append": [{}]`, `"filesystem": "root"`, `"unknown": 1`))
}

func (w writer) unitText() string {
	return w.often(`"[Unit]\nDescription=x\n\n[Install]\nWantedBy=y\n"`, `"[Service]\nExecStart=/bin/a \\\n  b\n"`, `"[Service]\nExecStart=/bin/a \\\n\n# c\nX=1\n[Install]\n"`, `"# c\n[Install]\nAlias=z"`, `"no section"`, `"[Unit\nA=b"`,
		`"[Unit] x\n"`, `"[Unit]\nA"`, `"[Unit]\nA\n"`, `"[Unit]\n=b\n"`, `"; c \\\n[Unit]\nA=b"`, `"[Unit]\nA=b\\"`, `"[Unit]\r\nA=b\r\n"`, `""`, `null`, `5`, `"[A]b]\n"`, `"[Unit]\nA=`+strings.Repeat("x", 3000)+`\nB=c"`, `"x [Unit]\nA=b"`, `"[Unit]\n A = b\n\u00a0C=d\n"`)
}

func (w writer) unit() string {
	name := w.often(fmt.Sprintf(`"name": "u%d.service"`, w.IntN(40)), `"name": "a.service"`, `"name": "i@x.service"`, `"name": "i@.service"`, `"name": "x.conf"`, `"name": ""`, `"name": null`, "", `"Name": "b.socket"`)
	dropin := func() string {
		return w.object(w.often(fmt.Sprintf(`"name": "%d.conf"`, w.IntN(5)), `"name": "x.txt"`, `"name": "x.conf"`, "", `"name": null`), w.often(`"contents": `+w.unitText(), ""))
	}
	return w.object(name, w.often("", `"enabled": true`, `"enabled": false`, `"enabled": null`), w.often("", `"mask": true`, `"mask": 0`), w.often(`"contents": `+w.unitText(), ""),
		w.often("", `"dropins": `+w.list(3, dropin), `"dropins": null`, `"dropins": {}`))
}

func (w writer) document() string {
	link := func() string {
		return w.object(`"path": `+w.often(`"/l"`, w.path()), w.often(`"target": "/t"`, "", `"target": ""`), w.often("", `"hard": true`))
	}
	directory := func() string { return w.object(`"path": ` + w.often(`"/d"`, w.path())) }
	storage := w.object(w.often(`"files": `+w.list(8, w.file), "", `"Files": `+w.list(2, w.file), `"files": null`, `"files": {}`, `"files": [], "files": `+w.list(2, w.file)),
		w.often("", `"links": `+w.list(2, link), `"links": null`, `"links": 3`, `"Links": `+w.list(2, link)), w.often("", `"directories": `+w.list(2, directory), `"directories": null`, `"directories": [3]`))
	units := w.list(5, w.unit)
	return w.object(fmt.Sprintf(`"ignition": {"version": "3.%d.0"}`, w.IntN(6)), w.often(`"storage": `+storage, `"storage": null`, "", `"Storage": `+storage, `"storage": {}, "storage": `+storage),
		w.often(`"systemd": {"units": `+units+`}`, "", `"systemd": {}`, `"systemd": {"units": null}`, `"SystemD": {"units": `+units+`}`), w.often("", `"pilotlight": {"version": "1"}`, `"x": 1`))
}

// TestSiftingChangesNothing: what is not shown to the library would have made no difference.
func TestSiftingChangesNothing(t *testing.T) {
	w := writer{rand.New(rand.NewPCG(1, 2))}
	faultless, sifted := 0, 0
	// What seldom comes about by chance: a file in the place of a unit, or of a drop-in.
	rare := []string{
		`{"ignition": {"version": "3.5.0"}, "storage": {"files": [{"path": "/etc/systemd/system/a.service", "contents": {"source": "data:,x"}}]}, "systemd": {"units": [{"name": "a.service", "contents": "[Unit]\nA=b\n"}]}}`,
		`{"ignition": {"version": "3.0.0"}, "storage": {"files": [{"path": "/x"}, {"path": "/etc/systemd/system/a.service.d/b.conf"}]}, "systemd": {"units": [{"name": "a.service", "dropins": [{"name": "b.conf", "contents": "[Unit]\nA=b\n"}]}]}}`,
	}
	for i := range 1500 {
		text := w.document()
		if i < len(rare) {
			text = rare[i]
		}
		got, d := parse([]byte(text), Options{})
		want, whole := parse([]byte(text), Options{unsifted: true})
		if r, all := d.report(), whole.report(); !reflect.DeepEqual(r, all) {
			t.Fatalf("%s\nis reported as\n%v\nand in one piece\n%v", text, r, all)
		} else if !r.Fatal() {
			faultless++
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s\nis\n%+v\nand in one piece\n%+v", text, got.Ignition, want.Ignition)
			}
		}
		if len(d.sifted.files.plain) > len(d.sifted.files.left) && len(d.sifted.units.plain) > len(d.sifted.units.left) {
			sifted++
		}
		if len(whole.sifted.files.plain)+len(whole.sifted.units.plain) > 0 {
			t.Fatal("in one piece, and yet sifted")
		}
	}
	if faultless < 150 || sifted < 250 {
		t.Errorf("of the documents %d have no fault, and %d were sifted", faultless, sifted)
	}
}

// TestMergingIsTheLibrarys: files that are not shown to it would have been merged so.
func TestMergingIsTheLibrarys(t *testing.T) {
	w := writer{rand.New(rand.NewPCG(3, 4))}
	var configs []Config
	for len(configs) < 150 {
		if c, d := parse([]byte(w.document()), Options{}); !d.report().Fatal() {
			configs = append(configs, c)
		}
	}
	both := 0
	for range 1000 {
		p, c := configs[w.IntN(len(configs))].Ignition, configs[w.IntN(len(configs))].Ignition
		got, want := mergeIgnition(p, c), v3_5.Merge(p, c)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v\nover\n%+v\nis\n%+v\nand there\n%+v", c, p, got.Storage, want.Storage)
		}
		if n := len(want.Storage.Files); n > 0 && n < len(p.Storage.Files)+len(c.Storage.Files) {
			both++
		}
	}
	if both < 20 {
		t.Errorf("only %d of the merged configs name a file twice", both)
	}
}

// FuzzWellFormed holds our reading of units against the library's: where ours takes one,
// so does the library, with the same word on its section [Install].
func FuzzWellFormed(f *testing.F) {
	for _, s := range []string{"", "[Unit]\nA=b\n", "[Install]\nA=b", "[Install]\n", "# c\\\n[Install]\nA=b\n", "[Service]\nE=a \\\n[Install]\nA=b\n", "[S]\nE=\\\n\n[Install]\nA=b\n", "[S]\n E = \\ \n[Install]\n=b\n", "[a]\n[b]\n[Install] \nA=b\\", "\n\n;\n[U]\n\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		install, ok := wellFormed(text)
		if !ok {
			return
		}
		options, err := unitparse.ParseUnitContents(&text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		theirs := false
		for _, o := range options {
			theirs = theirs || o.Section == "Install"
		}
		if install != theirs {
			t.Fatalf("%q: [Install] here %t, there %t", text, install, theirs)
		}
	})
}
