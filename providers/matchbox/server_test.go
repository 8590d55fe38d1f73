package matchbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// lab is a directory with one of everything, by file name.
func lab() map[string]string {
	return map[string]string{
		"groups/node1.json":    `{"id":"node1","name":"node 1","profile":"worker","selector":{"mac":"52-54-00-00-00-01","os":"installed"},"metadata":{"role":"worker","count":3,"on":true,"list":[1],"none":null,"nested":{"a":"b","deep":{"c":"d=e f"}}}}`,
		"groups/install.json":  `{"profile":"install","selector":{"mac":"52:54:00:00:00:01"}}`,
		"groups/gone.json":     `{"profile":"gone","selector":{"uuid":"gone"}}`,
		"groups/bare.json":     `{"profile":"bare","selector":{"uuid":"bare"}}`,
		"groups/idless.json":   `{"selector":{"uuid":"idless"}}`,
		"groups/butane.json":   `{"profile":"butane","selector":{"uuid":"butane"}}`,
		"groups/new.json":      `{"profile":"new","selector":{"uuid":"new"}}`,
		"groups/dropped.json":  `{"profile":"dropped","selector":{"uuid":"dropped"}}`,
		"groups/lacking.json":  `{"profile":"worker","selector":{"uuid":"lacking"}}`,
		"groups/notcloud.json": `{"profile":"notcloud","selector":{"uuid":"notcloud"}}`,

		"profiles/worker.json":   `{"id":"worker","name":"worker","ignition_id":"worker.ign","generic_id":"worker.txt","cloud_id":"worker.yaml","boot":{"kernel":"/assets/k","initrd":["--name main /assets/i","/assets/j"],"args":["initrd=main","url=http://mb.example:8080/ignition?uuid=${uuid}"]}}`,
		"profiles/install.json":  `{"id":"install","ignition_id":"old.ignition"}`,
		"profiles/bare.json":     `{"id":"bare","boot":{}}`,
		"profiles/butane.json":   `{"id":"butane","ignition_id":"worker.yaml"}`,
		"profiles/new.json":      `{"id":"new","ignition_id":"new.ign"}`,
		"profiles/dropped.json":  `{"id":"dropped","ignition_id":"dropped.ign"}`,
		"profiles/notcloud.json": `{"id":"notcloud","cloud_id":"not.yaml"}`,

		"ignition/worker.ign":   `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,w"}}]}}`,
		"ignition/old.ignition": `{"ignition":{"version":"3.0.0"},"passwd":{"users":[{"name":"core"}]}}`,
		"ignition/new.ign":      `{"ignition":{"version":"3.5.0"},"passwd":{"users":[{"name":"core","passwordHash":"sesame"}]}}`,
		"ignition/dropped.ign":  "{\"ignition\":{\"version\":\"3.3.0\"},\n\"pilotlight\":{\"version\":\"1\"},\"storage\":{\"files\":[{\"path\":\"/a\",\"moed\":420}]}}",
		"ignition/worker.yaml":  "variant: fcos\nversion: 1.5.0\n",
		"generic/worker.txt":    "{{.role}} {{.count}} {{.mac}} {{.nested.deep.c}} {{.request.query.os}} {{.request.raw_query}}\n",
		"cloud/worker.yaml":     "#cloud-config\nhostname: {{.role}}\n",
		"cloud/not.yaml":        "hostname: x\n",
		"assets/k":              "kernel bytes",
		"assets/sub/i":          "initrd bytes",
	}
}

// write lays files out in a new directory.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// reply is an answer with what was logged of it.
type reply struct {
	status int
	header http.Header
	body   string
	log    []string
}

func (r reply) last() string { return r.log[len(r.log)-1] }

func ask(t testing.TB, s *Server, method, target string) reply {
	t.Helper()
	var got reply
	s.Log = func(line string) { got.log = append(got.log, line) }
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	got.status, got.header, got.body = w.Code, w.Header(), w.Body.String()
	if len(got.log) == 0 {
		t.Fatalf("%s %s: nothing logged", method, target)
	}
	for _, line := range got.log {
		if strings.ContainsAny(line, "\n\r\x1b") {
			t.Errorf("log line with a control character: %q", line)
		}
	}
	return got
}

const node1 = "mac=52-54-00-00-00-01&os=installed"

// emptyIgnition is what the Ignition library makes of a config that is all zero.
const emptyIgnition = `{"ignition":{"config":{"replace":{"verification":{}}},"proxy":{},"security":{"tls":{}},"timeouts":{},"version":""},"kernelArguments":{},"passwd":{},"storage":{},"systemd":{}}`

func TestEndpoints(t *testing.T) {
	const plain = "text/plain; charset=utf-8"
	worker := "group=groups/node1.json profile=profiles/worker.json mac=52:54:00:00:00:01 os=installed"
	for _, test := range []struct {
		target, mediaType, body, log string
	}{
		{"/", plain, "matchbox\n", "GET / 200"},
		{"/boot.ipxe", plain, "#!ipxe\nchain ipxe?uuid=${uuid}&mac=${mac:hexhyp}&domain=${domain}&hostname=${hostname}&serial=${serial}&arch=${buildarch:uristring}\n", "GET /boot.ipxe 200"},
		{"/boot.ipxe.0", plain, chainScript, "GET /boot.ipxe.0 200"},
		{"/ipxe?" + node1, plain, "#!ipxe\n" +
			"kernel /assets/k initrd=main url=http://mb.example:8080/ignition?uuid=${uuid}\n" +
			"initrd --name main /assets/i\ninitrd /assets/j\nboot\n", "GET /ipxe 200 " + worker},
		{"/grub?" + node1, plain, `default=0
fallback=1
timeout=1
menuentry "CoreOS (EFI)" {
echo "Loading kernel"
linuxefi "/assets/k" initrd=main url=http://mb.example:8080/ignition?uuid=${uuid}
echo "Loading initrd"
initrdefi "--name main /assets/i" "/assets/j"
}
menuentry "CoreOS (BIOS)" {
echo "Loading kernel"
linux "/assets/k" initrd=main url=http://mb.example:8080/ignition?uuid=${uuid}
echo "Loading initrd"
initrd "--name main /assets/i" "/assets/j"
}
`, "GET /grub 200 " + worker},
		{"/ignition?" + node1, "application/json", `{"ignition":{"config":{"replace":{"verification":{}}},"proxy":{},"security":{"tls":{}},"timeouts":{},"version":"3.4.0"},"kernelArguments":{},"passwd":{},"storage":{"files":[{"group":{},"path":"/etc/hostname","user":{},"contents":{"source":"data:,w","verification":{}}}]},"systemd":{}}`,
			"GET /ignition 200 " + worker},
		{"/ignition?mac=5254.0000.0001", "application/json", `{"ignition":{"config":{"replace":{"verification":{}}},"proxy":{},"security":{"tls":{}},"timeouts":{},"version":"3.4.0"},"kernelArguments":{},"passwd":{"users":[{"name":"core"}]},"storage":{},"systemd":{}}`,
			"GET /ignition 200 group=groups/install.json profile=profiles/install.json mac=52:54:00:00:00:01"},
		{"/generic?" + node1, plain, "worker 3 52:54:00:00:00:01 d=e f installed " + node1 + "\n", "GET /generic 200 " + worker},
		{"/cloud?" + node1, plain, "#cloud-config\nhostname: worker\n", "GET /cloud 200 " + worker},
		{"/metadata?" + node1, "plain/text", `COUNT=3
MAC=52:54:00:00:00:01
NESTED_A=b
NESTED_DEEP_C=d=e f
ON=true
OS=installed
REQUEST_QUERY_MAC=52:54:00:00:00:01
REQUEST_QUERY_OS=installed
REQUEST_RAW_QUERY=mac=52-54-00-00-00-01&os=installed
ROLE=worker
`, "GET /metadata 200 group=groups/node1.json mac=52:54:00:00:00:01 os=installed"},
		{"/assets/k", plain, "kernel bytes", "GET /assets/k 200"},
		{"/assets/sub/", "text/html; charset=utf-8", "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n<a href=\"i\">i</a>\n</pre>\n", "GET /assets/sub/ 200"},
	} {
		t.Run(test.target, func(t *testing.T) {
			s := &Server{Dir: write(t, lab())}
			get := ask(t, s, "GET", test.target)
			if get.status != 200 || get.body != test.body {
				t.Errorf("status %d, body\n%s\nwant\n%s", get.status, get.body, test.body)
			}
			if got := get.header.Get("Content-Type"); got != test.mediaType {
				t.Errorf("Content-Type %q, want %q", got, test.mediaType)
			}
			if len(get.log) != 1 || get.last() != test.log {
				t.Errorf("log %q, want %q", get.log, test.log)
			}

			head := ask(t, s, "HEAD", test.target)
			// The recorder keeps the listing that a real connection swallows.
			listing := strings.HasSuffix(test.target, "/sub/")
			if head.status != 200 || head.body != "" && !listing || head.header.Get("Content-Type") != test.mediaType {
				t.Errorf("HEAD: status %d, type %q, body %q", head.status, head.header.Get("Content-Type"), head.body)
			}
			if got, want := head.header.Get("Content-Length"), get.header.Get("Content-Length"); got != want {
				t.Errorf("HEAD: Content-Length %q, GET had %q", got, want)
			}

			post := ask(t, s, "POST", test.target)
			if post.status != 405 || post.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("POST: status %d, Allow %q", post.status, post.header.Get("Allow"))
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	files := lab()
	files["groups/bad.json"] = "{\n\"selector\":{\"mac\":5}}"
	files["groups/badmac.json"] = `{"selector":{"mac":"sesame"}}`
	files["groups/notes.txt"] = "not a group"
	broken := []string{
		"warning: groups/bad.json: line 2: selector: wants string, has number: this group is left out",
		"warning: groups/badmac.json: selector mac: not a MAC address: this group is left out",
	}
	for _, test := range []struct{ target, log string }{
		{"/ipxe", "GET /ipxe 404: no group matches these labels"},
		{"/ignition?uuid=other&token=sesame", "GET /ignition 404 uuid=other (and 1 other labels): no group matches these labels"},
		{"/ipxe?uuid=gone", "GET /ipxe 404 group=groups/gone.json uuid=gone: profiles/gone.json: no such file or directory"},
		{"/ipxe?uuid=idless", "GET /ipxe 404 group=groups/idless.json uuid=idless: groups/idless.json: profile: required"},
		{"/grub?mac=525400000001", "GET /grub 404: no group matches these labels"},
		{"/grub?mac=52-54-00-00-00-01", "GET /grub 404 group=groups/install.json profile=profiles/install.json mac=52:54:00:00:00:01: profiles/install.json: boot: not there"},
		{"/ignition?uuid=bare", "GET /ignition 404 group=groups/bare.json profile=profiles/bare.json uuid=bare: profiles/bare.json: ignition_id: not there"},
		{"/ignition?uuid=butane", "GET /ignition 404 group=groups/butane.json profile=profiles/butane.json uuid=butane: ignition/worker.yaml: a Butane template to matchbox, and Butane is not built in (run butane and name the result in ignition_id, ending in .ign)"},
		{"/generic?uuid=lacking", "GET /generic 404 group=groups/lacking.json profile=profiles/worker.json uuid=lacking: generic/worker.txt: line 1: no variable role"},
		{"/cloud?uuid=notcloud", "GET /cloud 404 group=groups/notcloud.json profile=profiles/notcloud.json uuid=notcloud: cloud/not.yaml: has neither #cloud-config nor #! in its first line"},
		{"/metadata?uuid=other", "GET /metadata 404 uuid=other: no group matches these labels"},
	} {
		t.Run(test.target, func(t *testing.T) {
			got := ask(t, &Server{Dir: write(t, files)}, "GET", test.target)
			if got.status != 404 || got.body != "404 page not found\n" {
				t.Errorf("status %d, body %q", got.status, got.body)
			}
			if got.last() != test.log {
				t.Errorf("log\n%q, want\n%q", got.last(), test.log)
			}
			for _, want := range broken {
				if !strings.Contains(strings.Join(got.log, "\n"), want) {
					t.Errorf("log %q lacks %q", got.log, want)
				}
			}
		})
	}

	for _, test := range []struct{ target, log string }{
		{"/healthz", "GET /healthz 404: no such endpoint"},
		{"/ignition/", "GET /ignition/ 404: no such endpoint"},
		{"/ignition.sig?" + node1, "GET /ignition.sig 404 mac=52:54:00:00:00:01 os=installed: this server signs nothing"},
		{"/assets/none", "GET /assets/none 404: assets/none: no such file or directory"},
	} {
		if got := ask(t, &Server{Dir: write(t, files)}, "GET", test.target); got.status != 404 || got.last() != test.log {
			t.Errorf("%s: status %d, log %q, want %q", test.target, got.status, got.last(), test.log)
		}
	}
}

func TestNoDirectory(t *testing.T) {
	dir := t.TempDir()
	s := &Server{Dir: filepath.Join(dir, "none")}
	if got := ask(t, s, "GET", "/metadata"); got.status != 404 || !strings.HasSuffix(got.last(), "/none: no such file or directory") {
		t.Errorf("no DIR: status %d, log %q", got.status, got.last())
	}
	if got := ask(t, s, "GET", "/"); got.status != 200 || got.body != "matchbox\n" {
		t.Errorf("no DIR: status %d, body %q", got.status, got.body)
	}
	s = &Server{Dir: dir}
	if got := ask(t, s, "GET", "/metadata"); got.status != 404 || got.last() != "GET /metadata 404: groups: no such file or directory" {
		t.Errorf("no groups: status %d, log %q", got.status, got.last())
	}
	if got := ask(t, s, "GET", "/assets/"); got.status != 404 || got.last() != "GET /assets/ 404: assets: no such file or directory" {
		t.Errorf("no assets: status %d, log %q", got.status, got.last())
	}
	// A server without a log serves too.
	w := httptest.NewRecorder()
	(&Server{Dir: dir}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 200 {
		t.Errorf("no log: status %d", w.Code)
	}
}

func TestPaths(t *testing.T) {
	s := &Server{Dir: write(t, lab())}
	for target, want := range map[string]string{
		"//ipxe?mac=a&b=c":          "/ipxe?mac=a&b=c",
		"/x/../ignition":            "/ignition",
		"/assets":                   "/assets/",
		"/assets/../groups/":        "/groups/",
		"/assets/%2e%2e/etc/passwd": "/etc/passwd",
		"/assets/..%2fgroups":       "/groups",
		"//evil.example/%2e%2e":     "/",
		"/assets/sub":               "sub/",
	} {
		got := ask(t, s, "GET", target)
		if got.status != 301 || got.header.Get("Location") != want {
			t.Errorf("%s: status %d to %q, want 301 to %q", target, got.status, got.header.Get("Location"), want)
		}
	}
	if got := ask(t, s, "GET", "/%61ssets/k"); got.status != 200 || got.body != "kernel bytes" {
		t.Errorf("escaped letter: status %d, body %q", got.status, got.body)
	}
}

// TestContainment has a secret outside DIR and every way to it that a file inside may try.
func TestContainment(t *testing.T) {
	const secret = "sesame"
	outside := write(t, map[string]string{
		"p.json":   `{"id":"p","name":"sesame","ignition_id":"x.ign","boot":{"kernel":"sesame"}}`,
		"g.json":   `{"profile":"worker","metadata":{"x":"sesame"}}`,
		"x.ign":    `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"sesame"}]}}`,
		"x.txt":    secret,
		"d/inside": secret,
	})
	for _, id := range []string{
		"../../OUT/x.ign", outside + "/x.ign", "a/../../../OUT/x.ign", "link.ign", "dir/x.ign",
		"..", ".", "/", "../ignition", "worker.ign/../../../OUT/x.ign", "nul\x00.ign", "%2e%2e/x.ign",
	} {
		id := strings.ReplaceAll(id, "OUT", filepath.Base(outside))
		t.Run(id, func(t *testing.T) {
			files := lab()
			files["groups/h.json"] = fmt.Sprintf(`{"profile":%q,"selector":{"uuid":"profile"}}`, strings.TrimSuffix(id, ".ign"))
			files["groups/i.json"] = `{"profile":"h","selector":{"uuid":"ids"}}`
			files["profiles/h.json"] = fmt.Sprintf(`{"id":"h","ignition_id":%[1]q,"generic_id":%[1]q,"cloud_id":%[1]q}`, id)
			files["profiles/h.json"] = strings.ReplaceAll(files["profiles/h.json"], `\x00`, `\u0000`)
			files["groups/h.json"] = strings.ReplaceAll(files["groups/h.json"], `\x00`, `\u0000`)
			dir := write(t, files)
			for _, link := range [][2]string{
				{"x.ign", "ignition/link.ign"}, {"x.txt", "generic/link.ign"}, {"x.txt", "cloud/link.ign"},
				{"p.json", "profiles/link.json"}, {"g.json", "groups/zz.json"}, {"x.txt", "assets/link"},
				{"d", "assets/dir"}, {"", "ignition/dir"}, {"", "generic/dir"}, {"", "profiles/dir"},
			} {
				if err := os.Symlink(filepath.Join(outside, link[0]), filepath.Join(dir, link[1])); err != nil {
					t.Fatal(err)
				}
			}
			for _, target := range []string{
				"/ipxe?uuid=profile", "/grub?uuid=profile", "/ignition?uuid=profile", "/generic?uuid=profile",
				"/ignition?uuid=ids", "/generic?uuid=ids", "/cloud?uuid=ids", "/metadata?uuid=zz",
				"/assets/link", "/assets/dir/inside", "/assets/dir/", "/assets/nul%00",
			} {
				for _, raw := range []bool{false, true} {
					got := ask(t, &Server{Dir: dir, Raw: raw}, "GET", target)
					if got.status != 404 || strings.Contains(got.body, secret) {
						t.Errorf("%s: status %d, body %q", target, got.status, got.body)
					}
					if log := strings.Join(got.log, "\n"); strings.Contains(log, secret) || !strings.Contains(got.last(), " 404") {
						t.Errorf("%s: log %q", target, log)
					}
				}
			}
		})
	}
}

func TestContainmentReasons(t *testing.T) {
	dir := write(t, map[string]string{
		"groups/a.json":   `{"profile":"../groups/a","selector":{"uuid":"a"}}`,
		"groups/b.json":   `{"profile":"b","selector":{"uuid":"b"}}`,
		"profiles/b.json": `{"id":"b","ignition_id":"../profiles/b.json"}`,
	})
	if err := os.Symlink("/etc", filepath.Join(dir, "assets")); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"/ipxe?uuid=a":     "profiles: ../groups/a.json: name leaves its folder",
		"/ignition?uuid=b": "profiles/b.json: ignition_id: ignition: ../profiles/b.json: name leaves its folder",
		"/assets/passwd":   "assets/passwd: path escapes from parent",
	} {
		if got := ask(t, &Server{Dir: dir}, "GET", target); !strings.HasSuffix(got.last(), ": "+want) {
			t.Errorf("%s: log %q, want the end %q", target, got.last(), want)
		}
	}

	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.read("groups", "../profiles/b.json"); !errors.Is(err, errOutside) {
		t.Errorf("read: %v, want %v", err, errOutside)
	}
	if _, err := s.read("groups", "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := s.read("groups", "."); !errors.Is(err, errNotRegular) {
		t.Errorf("read: %v, want %v", err, errNotRegular)
	}
}

// TestLinkInside is the other side: a link that stays in DIR is followed.
func TestLinkInside(t *testing.T) {
	dir := write(t, lab())
	if err := os.Symlink("sub/i", filepath.Join(dir, "assets/latest")); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, &Server{Dir: dir}, "GET", "/assets/latest"); got.status != 200 || got.body != "initrd bytes" {
		t.Errorf("status %d, body %q", got.status, got.body)
	}
}

// TestSocket has a file that is none where files are expected.
func TestSocket(t *testing.T) {
	dir := write(t, lab())
	t.Chdir(dir) // the path of a socket must be short
	for _, name := range []string{"assets/socket", "groups/socket.json"} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	s := &Server{Dir: dir}
	if got := ask(t, s, "GET", "/assets/socket"); got.status != 404 || got.last() != "GET /assets/socket 404: assets/socket: not a regular file" {
		t.Errorf("status %d, log %q", got.status, got.last())
	}
	got := ask(t, s, "GET", "/metadata?"+node1)
	if want := "warning: groups/socket.json: not a regular file: this group is left out"; got.status != 200 || got.log[0] != want {
		t.Errorf("status %d, log %q, want %q", got.status, got.log, want)
	}
}

func TestSize(t *testing.T) {
	files := lab()
	files["generic/worker.txt"] = "{{range 100000000}}0123456789{{end}}"
	files["ignition/worker.ign"] = strings.Repeat(" ", maxFile+1)
	s := &Server{Dir: write(t, files)}
	for target, want := range map[string]string{
		"/generic?" + node1:  "generic/worker.txt: renders to more than 16 MiB",
		"/ignition?" + node1: "ignition/worker.ign: larger than 16 MiB",
	} {
		if got := ask(t, s, "GET", target); got.status != 404 || !strings.HasSuffix(got.last(), ": "+want) {
			t.Errorf("%s: status %d, log %q, want the end %q", target, got.status, got.last(), want)
		}
	}
}

// TestLogSecrets asks with secrets in every place where one may be, and looks for them in
// the log.
func TestLogSecrets(t *testing.T) {
	const secret = "sesame"
	files := map[string]string{
		"groups/a.json":    `{"profile":"a","selector":{"token":"sesame"},"metadata":{"password":"sesame","n":{"x":"sesame"}}}`,
		"groups/b.json":    `{"profile":"a","selector":{"mac":"sesame"}}`,
		"groups/c.json":    `{"profile":"a","selector":{"x":sesame}}`,
		"groups/d.json":    `{"profile":["sesame"]}`,
		"profiles/a.json":  `{"id":"a","ignition_id":"a.ign","generic_id":"a","cloud_id":"a","boot":{"kernel":"","args":["sesame"]}}`,
		"ignition/a.ign":   `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/a","contents":{"source":"data:;base64,%%sesame"}}]}}`,
		"generic/a":        "sesame {{ \"sesame\" \"sesame\" }}",
		"cloud/a":          "sesame {{ index .password \"sesame\" }}",
		"profiles/x.json":  `{"id":"x"}`,
		"assets/file-name": secret,
	}
	for _, ignition := range []string{
		files["ignition/a.ign"],
		`{"ignition":{"version":"3.4.0"},"systemd":{"units":[{"name":"a.service","contents":"[sesame\nsesame"}]}}`,
		`{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"a","passwordHash":["sesame"]}]}}`,
		`{"ignition":{"version":"3.4.0"},"pilotlight":"sesame","x":{"y":"sesame"}}`,
		`"sesame"`, `sesame`,
	} {
		files["ignition/a.ign"] = ignition
		s := &Server{Dir: write(t, files)}
		for _, p := range Check(s.Dir, false) {
			if strings.Contains(p.Error(), secret) {
				t.Errorf("check: %v", p)
			}
		}
		for _, path := range []string{"/", "/ipxe", "/grub", "/ignition", "/generic", "/cloud", "/metadata", "/assets/", "/assets/file-name", "/none"} {
			for _, query := range []string{"?token=sesame", "?token=sesame&sesame=1", "?sesame", "?token=sesame&OS=sesame"} {
				got := ask(t, s, "GET", path+query)
				if log := strings.Join(got.log, "\n"); strings.Contains(log, secret) {
					t.Errorf("GET %s%s: log %q", path, query, log)
				}
			}
		}
	}
}

// TestLogForgery sends text that would start a line of its own; ask fails on a line break.
func TestLogForgery(t *testing.T) {
	s := &Server{Dir: write(t, lab())}
	forged := "%0AGET%20/ignition%20200%1b[2J"
	got := ask(t, s, "GET", "/"+forged+"?hostname="+forged+"&mac="+forged)
	if want := `GET "/\nGET /ignition 200\x1b[2J" 404 hostname="\nGET /ignition 200\x1b[2J": no such endpoint`; got.last() != want {
		t.Errorf("log %q, want %q", got.last(), want)
	}
	if want := `warning: label mac="\nGET /ignition 200\x1b[2J" is not a MAC address and is left out`; got.log[0] != want {
		t.Errorf("log %q, want %q", got.log[0], want)
	}
	if got := ask(t, s, "GET", "/?uuid="+strings.Repeat("a", 100_000)); len(got.last()) > 300 {
		t.Errorf("log line of %d bytes", len(got.last()))
	}
}

func TestWarnings(t *testing.T) {
	files := lab()
	files["groups/default-b.json"] = `{"profile":"worker"}`
	files["groups/default-a.json"] = `{"profile":"bare"}`
	s := &Server{Dir: write(t, files)}
	for _, test := range []struct{ target, warning string }{
		{"/ipxe", "groups/default-b.json: has no selector, and neither has groups/default-a.json (matchbox chooses between them by chance): groups/default-a.json is chosen by file name"},
		{"/ipxe", "profiles/bare.json: boot.kernel: empty, the boot script will fail"},
		{"/ipxe?MAC=52-54-00-00-00-01", "label MAC does not match selector mac: keys are case-sensitive"},
		{"/ipxe?mac=zz", "label mac=zz is not a MAC address and is left out"},
	} {
		got := ask(t, s, "GET", test.target)
		if log := strings.Join(got.log, "\n"); got.status != 200 || !strings.Contains(log, "warning: "+test.warning) {
			t.Errorf("%s: status %d, log\n%s\nwants\n%s", test.target, got.status, log, test.warning)
		}
	}
}

// TestTransport asks over a socket, where lengths and ranges are the real ones.
func TestTransport(t *testing.T) {
	server := httptest.NewServer(&Server{Dir: write(t, lab())})
	defer server.Close()
	do := func(method, path, ranged string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranged != "" {
			req.Header.Set("Range", ranged)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	if resp, text := do("GET", "/assets/k", "bytes=7-"); resp.StatusCode != 206 || text != "bytes" {
		t.Errorf("range: status %d, body %q", resp.StatusCode, text)
	}
	if resp, text := do("HEAD", "/assets/k", ""); resp.StatusCode != 200 || resp.ContentLength != 12 || text != "" {
		t.Errorf("HEAD: status %d, length %d, body %q", resp.StatusCode, resp.ContentLength, text)
	}
	if resp, text := do("GET", "//generic?"+node1, ""); resp.StatusCode != 200 || !strings.HasPrefix(text, "worker ") {
		t.Errorf("redirect: status %d, body %q", resp.StatusCode, text)
	}
}

// TestConcurrent asks from many sides while groups are rewritten. Run with -race.
func TestConcurrent(t *testing.T) {
	dir := write(t, lab())
	var inLog atomic.Int32
	var lines int
	s := &Server{Dir: dir, Log: func(string) {
		if inLog.Add(1) != 1 {
			t.Error("Log is called twice at once")
		}
		lines++
		inLog.Add(-1)
	}}
	want := ask(t, &Server{Dir: dir}, "GET", "/metadata?"+node1).body

	const askers, rounds = 8, 25
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for range rounds {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest("GET", "/metadata?"+node1, nil))
				if w.Code != 200 || w.Body.String() != want {
					t.Errorf("status %d, body %q", w.Code, w.Body)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range rounds {
			// The way in which an editor saves: a reader sees the old file or the new one.
			name := filepath.Join(dir, "groups", "edited.json")
			text := fmt.Sprintf(`{"profile":"worker","selector":{"uuid":"%d"}}`, i)
			if err := os.WriteFile(name+".new", []byte(text), 0o644); err != nil {
				t.Error(err)
			}
			if err := os.Rename(name+".new", name); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if lines != askers*rounds {
		t.Errorf("%d lines for %d requests", lines, askers*rounds)
	}
}

// TestEdit holds that an edit acts on the next request.
func TestEdit(t *testing.T) {
	dir := write(t, map[string]string{
		"groups/a.json":   `{"profile":"a","metadata":{"v":"1"}}`,
		"profiles/a.json": `{"id":"a","generic_id":"a"}`,
		"generic/a":       "{{.v}}",
	})
	s := &Server{Dir: dir}
	if got := ask(t, s, "GET", "/generic"); got.body != "1" {
		t.Fatalf("body %q", got.body)
	}
	if err := os.WriteFile(filepath.Join(dir, "groups/a.json"), []byte(`{"profile":"a","metadata":{"v":"2"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, s, "GET", "/generic"); got.body != "2" {
		t.Errorf("body %q after the edit", got.body)
	}
}
