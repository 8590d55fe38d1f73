package providers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"pilotlight/config/resource"
)

// machine has labels, among them one that must be escaped, and counts who asks.
type machine struct{ hosts []string }

func (m *machine) reach() reach {
	return reach{labels: func(host string) (map[string]string, error) {
		m.hosts = append(m.hosts, host)
		return map[string]string{
			"uuid": "9a2f0c1e-6f5d-4a55-8a43-3a1b5a7c9d10", "mac": "52:54:00:12:34:56", "serial": "A&B 1", "arch": "x86_64",
		}, nil
	}}
}

const labelled1 = "/ignition?arch=x86_64&mac=52%3A54%3A00%3A12%3A34%3A56&serial=A%26B+1&uuid=9a2f0c1e-6f5d-4a55-8a43-3a1b5a7c9d10"

func TestMatchboxIsToldTheLabels(t *testing.T) {
	m := &machine{}
	p := play(t, exchange{request: "GET " + labelled1, status: 200, body: "{}"})
	a, err := Direct(t.Context(), "metal", p.server.URL+"/ignition", m.reach())
	if err != nil || string(a.Bytes) != "{}" {
		t.Fatalf("%q %v", a.Bytes, err)
	}
	// What a machine calls itself is not for the log.
	if a.Source != p.server.URL+"/ignition" {
		t.Errorf("source %q", a.Source)
	}
	if host := strings.TrimPrefix(p.server.URL, "http://"); len(m.hosts) != 1 || m.hosts[0] != host {
		t.Errorf("labels for %q, want %s", m.hosts, host)
	}
}

// TestNothingIsSentToAnyOtherAddress: only the exact path of a matchbox without a
// query, and only on metal.
func TestNothingIsSentToAnyOtherAddress(t *testing.T) {
	for _, path := range []string{
		"/ignition?mac=52:54:00:12:34:56", "/ignition?a=", "/ignition/", "/ignition.ign", "/Ignition", "/boot/ignition",
		"/generic", "/generic?mac=52:54:00:12:34:56", "/", "//ignition", "/ignition;x",
	} {
		m := &machine{}
		p := play(t, exchange{request: "GET " + path, status: 200, body: "{}"})
		if _, err := Direct(t.Context(), "metal", p.server.URL+path, m.reach()); err != nil || len(m.hosts) > 0 {
			t.Errorf("%s: %v, labels for %q", path, err, m.hosts)
		}
	}
	m := &machine{}
	p := play(t, exchange{request: "GET /ignition", status: 200, body: "{}"})
	if _, err := Direct(t.Context(), "qemu", p.server.URL+"/ignition", m.reach()); err != nil || len(m.hosts) > 0 {
		t.Errorf("on qemu: %v, labels for %q", err, m.hosts)
	}
	a, err := Direct(t.Context(), "metal", "data:,%7B%7D", m.reach())
	if err != nil || string(a.Bytes) != "{}" || len(m.hosts) > 0 {
		t.Errorf("data: %q %v, labels for %q", a.Bytes, err, m.hosts)
	}
}

func TestLabelsThatCannotBeHadAreAnError(t *testing.T) {
	blind := errors.New("no network")
	r := reach{labels: func(string) (map[string]string, error) { return nil, blind }}
	p := play(t)
	if a, err := Direct(t.Context(), "metal", p.server.URL+"/ignition", r); !errors.Is(err, blind) || a.Bytes != nil {
		t.Errorf("%q %v", a.Bytes, err)
	}
}

func TestAnswersOfAServer(t *testing.T) {
	for name, c := range map[string]struct {
		tape []exchange
		want string
		err  error
	}{
		"as it is": {
			[]exchange{{request: "GET /c", status: 200, answer: []string{"Content-Type: text/html"}, body: "\xff not parsed here"}},
			"\xff not parsed here", nil,
		},
		"not found": {[]exchange{{request: "GET /c", status: 404, body: "no canary"}}, "", resource.ErrNotFound},
		"forbidden": {[]exchange{{request: "GET /c", status: 403, body: "no canary"}}, "", resource.ErrRefused},
		"an error, and then good": {
			[]exchange{{request: "GET /c", status: 500, body: "canary"}, {request: "GET /c", status: 503}, {request: "GET /c", status: 200, body: "{}"}},
			"{}", nil,
		},
		"empty":   {[]exchange{{request: "GET /c", status: 200}}, "", nil},
		"nothing": {[]exchange{{request: "GET /c", status: 204}}, "", nil},
		"elsewhere": {
			[]exchange{
				{request: "GET /c", status: 302, answer: []string{"Location: SERVER/d?x=1"}},
				{request: "GET /d?x=1", status: 307, answer: []string{"Location: /e"}},
				{request: "GET /e", status: 200, body: "{}"},
			}, "{}", nil,
		},
		"elsewhere, but not a web server": {
			[]exchange{{request: "GET /c", status: 302, answer: []string{"Location: file:///etc/shadow"}}}, "", resource.ErrRedirect,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := play(t, c.tape...)
			a, err := Direct(t.Context(), "metal", p.server.URL+"/c", (&machine{}).reach())
			if string(a.Bytes) != c.want || !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Errorf("%q %v", a.Bytes, err)
			}
			// Somebody said where the config is: that it is not there is never "there is none".
			if errors.Is(err, ErrNone) {
				t.Errorf("taken for no config: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("what the server sent is repeated: %v", err)
			}
		})
	}
}

func TestServerThatStaysBrokenEndsWithTheDeadline(t *testing.T) {
	p := play(t, exchange{request: "GET /c", status: 500})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Direct(ctx, "metal", p.server.URL+"/c", (&machine{}).reach())
	if !errors.Is(err, resource.ErrUnreachable) || errors.Is(err, ErrNone) {
		t.Errorf("error %v", err)
	}
}

func TestAddressThatIsNoneIsNotAsked(t *testing.T) {
	for address, want := range map[string]error{
		"ftp://boot.example/c": resource.ErrScheme, "http://": resource.ErrSyntax, "boot.example/c": resource.ErrScheme,
	} {
		if _, err := Direct(t.Context(), "metal", address, (&machine{}).reach()); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
	_, err := Direct(t.Context(), "metal", "http://user:canary@boot.example:port/", (&machine{}).reach())
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

func TestMetalItselfHasNoConfig(t *testing.T) {
	p, err := Named("metal")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UserConfig(t.Context(), reach{}); !errors.Is(err, ErrNone) || err.Error() != "platform metal: no config" {
		t.Errorf("error %v", err)
	}
}
