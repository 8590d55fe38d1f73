package main

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
)

const canary = "CANARY7f3a"

// lines collects what is told, and fails where a secret is.
type lines struct {
	t    *testing.T
	mu   sync.Mutex
	list []string
}

func (l *lines) tell(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, line)
	if strings.Contains(line, canary) {
		l.t.Errorf("secret in %q", line)
	}
}

func addressOf(t *testing.T, s string) resource.URL {
	t.Helper()
	u, err := resource.ParseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// parsed is the config of a text in JSON, without what it pulls in.
func parsed(t *testing.T, text string) config.Config {
	t.Helper()
	got, err := config.Collect(t.Context(), []config.Document{{Name: config.UserDocument, Bytes: []byte(text)}}, nil, nil, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return got.Config
}

func TestWhichProxy(t *testing.T) {
	plain, secure := addressOf(t, "http://u:p@plain.example:3128"), addressOf(t, "http://secure.example:3129")
	none := resource.URL{}
	for _, c := range []struct {
		http, https resource.URL
		direct      string
		request     string
		want        string // host of the proxy, "" for none
	}{
		{plain, secure, "", "http://boot.example/", "plain.example:3128"},
		{plain, secure, "", "https://boot.example/", "secure.example:3129"},
		{plain, none, "", "https://boot.example/", ""},
		{none, secure, "", "http://boot.example/", ""},
		{plain, secure, "", "http://127.0.0.2/", ""},
		{plain, secure, "", "http://[::1]:8080/", ""},
		{plain, secure, "", "http://LOCALHOST/", ""},
		{plain, secure, "", "http://localhost.example/", "plain.example:3128"},
		{plain, secure, "boot.example", "http://boot.example/", ""},
		{plain, secure, "boot.example", "http://boot.example./", ""},
		{plain, secure, "boot.example", "http://a.boot.example:81/", ""},
		{plain, secure, ".boot.example", "http://boot.example/", "plain.example:3128"},
		{plain, secure, ".boot.example", "http://a.boot.example/", ""},
		{plain, secure, "*.boot.example", "http://a.boot.example/", ""},
		{plain, secure, "*.boot.example", "http://boot.example/", "plain.example:3128"},
		{plain, secure, "boot.example:8080", "http://boot.example:8080/", ""},
		{plain, secure, "boot.example:8080", "http://boot.example/", "plain.example:3128"},
		{plain, secure, "boot.example:443", "https://boot.example/", ""},
		{plain, secure, " boot.example ", "http://boot.example/", ""},
		{plain, secure, "2001:db8::1", "http://[2001:db8::1]/", ""},
		{plain, secure, "[2001:db8::1]", "http://[2001:db8:0::1]/", ""},
		{plain, secure, "[2001:db8::1]:80", "http://[2001:db8::1]/", ""},
		{plain, secure, "[2001:db8::1]:81", "http://[2001:db8::1]/", "plain.example:3128"},
		{plain, secure, "169.254.0.0/16", "http://169.254.169.254/", ""},
		{plain, secure, "254", "http://169.254.169.254/", "plain.example:3128"},
		{plain, secure, "*", "http://boot.example/", ""},
		{plain, secure, ".", "http://boot.example/", "plain.example:3128"},
	} {
		var direct []string
		if c.direct != "" {
			direct = []string{"other.example", c.direct}
		}
		u, err := url.Parse(c.request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := proxyFor(c.http, c.https, direct)(&http.Request{URL: u})
		host := ""
		if got != nil {
			host = got.Host
		}
		if host != c.want || err != nil {
			t.Errorf("%s, directly %q: %q %v, want %q", c.request, c.direct, host, err, c.want)
		}
	}
	if proxyFor(none, none, nil) != nil {
		t.Error("a proxy where there is none")
	}
}

// TestProxyFromTheFirstRequest: that of the argument asks for the config itself, and
// goes before that of the config.
func TestProxyFromTheFirstRequest(t *testing.T) {
	proxy := func(name string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s", name, r.URL.Host, r.Header.Get("Proxy-Authorization"))
		}))
		t.Cleanup(s.Close)
		return s
	}
	argument, document := proxy("argument"), proxy("document")
	withUser := strings.Replace(argument.URL, "://", "://u:"+canary+"@", 1)
	c := parsed(t, `{"ignition":{"version":"3.4.0","proxy":{"httpProxy":"`+document.URL+`","noProxy":["direct.example"]}}}`)
	list := []resource.Resource{{Source: addressOf(t, "http://boot.example/")}}

	knobs := config.Knobs{Proxy: addressOf(t, withUser), ConfigURL: addressOf(t, "http://boot.example/config")}
	o := newOutward(&initrd.Network{}, knobs, (&lines{t: t}).tell)
	basic := " Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+canary))
	if got, err := o.client.Bytes(t.Context(), list[0]); string(got) != "argument boot.example"+basic || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if err := o.follow(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, err := o.fetch(t.Context(), list); err != nil || string(got[0]) != "argument boot.example"+basic {
		t.Errorf("%q %v", got, err)
	}
	o = newOutward(&initrd.Network{}, config.Knobs{}, (&lines{t: t}).tell)
	if err := o.follow(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, err := o.fetch(t.Context(), list); err != nil || string(got[0]) != "document boot.example " {
		t.Errorf("%q %v", got, err)
	}
}

// TestAuthorities: those of a config are trusted besides the initrd's, fetched once,
// and kept for the units after.
func TestAuthorities(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secure") }))
	defer secure.Close()
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	var asked atomic.Int32
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1); r.URL.Path {
		case "/ca.pem":
			w.Write(bundle)
		case "/empty":
		default:
			w.WriteHeader(404)
		}
	}))
	defer plain.Close()
	of := func(source string) config.Config {
		return parsed(t, `{"ignition":{"version":"3.4.0","security":{"tls":{"certificateAuthorities":[{"source":"`+source+`"}]}}}}`)
	}
	list := []resource.Resource{{Source: addressOf(t, secure.URL+"/x")}}

	o := newOutward(&initrd.Network{}, config.Knobs{}, (&lines{t: t}).tell)
	if _, err := o.fetch(t.Context(), list); !errors.Is(err, resource.ErrUntrusted) {
		t.Errorf("nobody vouches for it: %v", err)
	}
	remote := of(plain.URL + "/ca.pem")
	for range 3 {
		if err := o.follow(t.Context(), remote); err != nil {
			t.Fatal(err)
		}
		if got, err := o.fetch(t.Context(), list); err != nil || string(got[0]) != "secure" {
			t.Errorf("%q %v", got, err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times for the authorities", asked.Load())
	}
	parts, err := o.keep(remote, nil)
	if err != nil || len(parts) != 1 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	later := newOutward(&initrd.Network{}, config.Knobs{}, (&lines{t: t}).tell)
	later.authorities = parts
	if err := later.follow(t.Context(), remote); err != nil || asked.Load() != 1 {
		t.Errorf("a later unit: %v, asked %d times", err, asked.Load())
	}
	if got, err := later.fetch(t.Context(), list); err != nil || string(got[0]) != "secure" {
		t.Errorf("a later unit: %q %v", got, err)
	}

	local := of("data:;base64," + base64.StdEncoding.EncodeToString(bundle))
	o = newOutward(&initrd.Network{}, config.Knobs{}, (&lines{t: t}).tell)
	if err := o.follow(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	if got, err := o.fetch(t.Context(), list); err != nil || string(got[0]) != "secure" {
		t.Errorf("%q %v", got, err)
	}
	if parts, err := o.keep(local, nil); len(parts) != 0 || err != nil {
		t.Errorf("what the config holds itself was kept: %v %v", parts, err)
	}

	for source, want := range map[string]string{
		"/missing?q=" + canary: plain.URL + "/missing: not found",
		"/empty":               plain.URL + "/empty: no certificate in it",
	} {
		o := newOutward(&initrd.Network{}, config.Knobs{}, (&lines{t: t}).tell)
		err := o.follow(t.Context(), of(plain.URL+source))
		if err == nil || !strings.Contains(err.Error(), "certificate authorities: "+want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%v", err)
		}
		if _, again := o.fetch(t.Context(), list); again == nil || again.Error() != err.Error() {
			t.Errorf("what is fetched by settings that do not hold: %v", again)
		}
	}
}

// TestClockThatCannotBe is told once, and only where a certificate is looked at.
func TestClockThatCannotBe(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secure") }))
	defer secure.Close()
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	c := parsed(t, `{"ignition":{"version":"3.4.0","security":{"tls":{"certificateAuthorities":[{"source":"data:;base64,`+base64.StdEncoding.EncodeToString(bundle)+`"}]}}}}`)
	list := []resource.Resource{{Source: addressOf(t, secure.URL+"/x")}}
	for name, tt := range map[string]struct {
		built time.Time
		told  int
		err   error
	}{
		"the clock is right":              {time.Time{}, 0, nil},
		"the clock is slow":               {time.Now().Add(100 * time.Hour), 1, nil},
		"no certificate is valid by then": {time.Now().AddDate(1000, 0, 0), 1, resource.ErrUnreachable},
	} {
		var err error
		told := &lines{t: t}
		o := newOutward(&initrd.Network{}, config.Knobs{Deadline: 500 * time.Millisecond}, told.tell)
		if o.clock, err = initrd.NewClock(tt.built); err != nil {
			t.Fatal(err)
		}
		if err := o.follow(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if len(told.list) != 0 {
			t.Errorf("%s: told %q before it matters", name, told.list)
		}
		for range 2 {
			if _, err = o.fetch(t.Context(), list); !errors.Is(err, tt.err) {
				t.Errorf("%s: %v", name, err)
			}
			o.client.Transport.(interface{ CloseIdleConnections() }).CloseIdleConnections()
		}
		if err != nil && !strings.Contains(err.Error(), "compare the machine's clock") {
			t.Errorf("%s: %v", name, err)
		}
		n := 0
		for _, line := range told.list {
			if strings.HasPrefix(line, "the clock says ") && strings.HasSuffix(line, tt.built.UTC().Format(time.DateTime)+", by the date of this program") {
				n++
			}
		}
		if n != tt.told {
			t.Errorf("%s: told %q", name, told.list)
		}
	}
}

// TestFirstInTheListIsTold, however long the others would go on.
func TestFirstInTheListIsTold(t *testing.T) {
	arrived := make(chan struct{}, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			arrived <- struct{}{}
			<-r.Context().Done()
		case "/missing":
			<-arrived
			w.WriteHeader(404)
		case "/denied":
			w.WriteHeader(403)
		default:
			fmt.Fprint(w, r.URL.Path)
		}
	}))
	defer s.Close()
	of := func(paths ...string) (list []resource.Resource) {
		for _, p := range paths {
			list = append(list, resource.Resource{Source: addressOf(t, strings.Replace(s.URL, "://", "://"+canary+"@", 1)+p+"?"+canary)})
		}
		return list
	}
	o := newOutward(&initrd.Network{}, config.Knobs{}, (&lines{t: t}).tell)
	begun := time.Now()
	_, err := o.fetch(t.Context(), of("/a", "/missing", "/silent"))
	if !errors.Is(err, resource.ErrNotFound) || strings.Contains(err.Error(), canary) || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	arrived <- struct{}{}
	if _, err = o.fetch(t.Context(), of("/missing", "/denied")); !errors.Is(err, resource.ErrNotFound) && !errors.Is(err, resource.ErrRefused) {
		t.Errorf("%v", err)
	}
	got, err := o.fetch(t.Context(), of("/a", "/b", "/c"))
	if err != nil || !slices.EqualFunc(got, []string{"/a", "/b", "/c"}, func(b []byte, s string) bool { return string(b) == s }) {
		t.Errorf("%q %v", got, err)
	}
}

func TestTimeouts(t *testing.T) {
	zero, five := 0, 5
	for _, c := range []struct {
		n          *int
		none, want time.Duration
	}{{nil, unlimited, 0}, {&zero, unlimited, unlimited}, {&zero, 0, 0}, {&five, unlimited, 5 * time.Second}} {
		if got := seconds(c.n, c.none); got != c.want {
			t.Errorf("%v: %v, want %v", c.n, got, c.want)
		}
	}
}

// TestNoServerEndsWithTheDeadline: a port that nobody listens on, and one that
// accepts and says nothing.
func TestNoServerEndsWithTheDeadline(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for host, want := range map[string]string{
		silent.Addr().String(): "no answer until the deadline, 1 try in 1s",
		dead.Addr().String():   "connection refused until the deadline, ",
	} {
		told := &lines{t: t}
		o := newOutward(&initrd.Network{}, config.Knobs{Deadline: time.Second}, told.tell)
		begun := time.Now()
		_, err := o.fetch(t.Context(), []resource.Resource{{Source: addressOf(t, "http://u:"+canary+"@"+host+"/config?token="+canary)}})
		if took := time.Since(begun); took > 1500*time.Millisecond {
			t.Errorf("%s: took %v", host, took)
		}
		if !errors.Is(err, resource.ErrUnreachable) || strings.Contains(err.Error(), canary) || !strings.HasPrefix(err.Error(), "http://"+host+"/config: not fetched: ") {
			t.Errorf("%v", err)
		}
		if err != nil && !strings.Contains(err.Error(), want) || host == dead.Addr().String() && len(told.list) == 0 {
			t.Errorf("%v, told %q", err, told.list)
		}
	}
}
