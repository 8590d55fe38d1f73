package initrd

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pilotlight/config/resource"
)

// advertisements are those of key servers, of which some do not answer.
func advertisements(t *testing.T, paths ...string) []resource.Resource {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good/adv" {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	var list []resource.Resource
	for _, p := range paths {
		u, err := resource.ParseURL(server.URL + p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, resource.Resource{Source: u})
	}
	return list
}

// clevisLook is a machine with one device, which may be unlocked.
type clevisLook struct {
	look
	*clevisHost
}

type clevisHost struct {
	*Machine
	state string
}

func (h *clevisHost) Look(ctx context.Context) Look { return clevisLook{look{ctx, h.Machine}, h} }

func (l clevisLook) Node(path string) (string, error) { return path, nil }

func (l clevisLook) Mapper(string) (Mapper, error) {
	if _, err := os.Stat(l.state); err != nil {
		return Mapper{}, err
	}
	return Mapper{UUID: "CRYPT-LUKS2-x-v", On: []string{"d"}}, nil
}

func (l clevisLook) Ask(Query) ([]byte, error) { return []byte("0 8 crypt aes-xts-plain64 x"), nil }

func TestClevisUnlocksWhereAServerAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		servers []string
		err     string
	}{
		"none needed": {nil, ""},
		"one of two":  {[]string{"/bad/adv", "/good/adv"}, ""},
		"none of two": {[]string{"/bad/adv", "/worse/adv"}, "advertisement of a key server"},
	} {
		m, dir := testMachine(t)
		h := &clevisHost{m, filepath.Join(dir, "unlocked")}
		program(t, m, "clevis", fmt.Sprintf(`{ echo "$*"; cat $CURL_HOME/.curlrc; echo x > $TMPDIR/backup; } > %s`, h.state))
		wish := ClevisUnlocked{Name: "v", Device: "/dev/d", Clevis: Clevis{Pin: "sss", Hosts: []string{"localhost:80", "name.invalid:80"}, Servers: advertisements(t, c.servers...)}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		out, err := Run(ctx, h, []Step{wish}, Apply, nil)
		cancel()
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if got := contentOf(t, h.state); !strings.HasPrefix(got, "luks unlock -d /dev/d -n v\nresolve = \"localhost:80:") || !strings.Contains(got, "127.0.0.1") || strings.Contains(got, "invalid") || !out[0].Changed {
			t.Errorf("%s: %q", name, got)
		}
		if left, err := filepath.Glob(filepath.Join(m.Run, "clevis-*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q %v", left, err)
		}
		if out, err := Run(t.Context(), h, []Step{wish}, Apply, nil); err != nil || out[0].Changed {
			t.Errorf("%s: again: %v %v", name, out, err)
		}
	}
}

// TestClevisBindsWhereAllServersAnswer, since all of them take part.
func TestClevisBindsWhereAllServersAnswer(t *testing.T) {
	m, _ := testMachine(t)
	if err := (Clevis{Servers: advertisements(t, "/good/adv", "/good/adv")}).ask(t.Context(), m, false); err != nil {
		t.Error(err)
	}
	if err := (Clevis{Servers: advertisements(t, "/good/adv", "/bad/adv")}).ask(t.Context(), m, false); err == nil {
		t.Error("one did not answer")
	}
}

func TestClevisSaysNothingOfItsConfig(t *testing.T) {
	m, _ := testMachine(t)
	program(t, m, "clevis", `echo "Unable to perform encryption with PIN '$8' and config '$9'" >&2; exit 1`)
	c := Clevis{Pin: "tang", Config: resource.NewSecret(`{"url":"http://canary@host"}`)}
	err := c.bind(t.Context(), m, "/dev/d", "K")
	if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "Unable to perform encryption") {
		t.Error(err)
	}
	if s := fmt.Sprintf("%v %+v", c, Volume{Clevis: &c}); strings.Contains(s, "canary") {
		t.Error(s)
	}
}

func TestVolumeNeedsByWhatIsAsked(t *testing.T) {
	for _, c := range []struct {
		v    Volume
		want string
		not  string
	}{
		{Volume{}, "", "clevis"},
		{Volume{Wipe: true}, "wipefs", "clevis"},
		{Volume{TPM2: &Enrolment{}}, "systemd-cryptenroll", "clevis"},
		{Volume{Clevis: &Clevis{Pin: "sss", TPM2: true}}, "tpm2_unseal", "curl"},
		{Volume{Clevis: &Clevis{Pin: "sss", Servers: make([]resource.Resource, 1)}}, "curl", "tpm2_unseal"},
	} {
		got, _ := c.v.Needs()
		if c.want != "" && !slices.Contains(got, c.want) || slices.Contains(got, c.not) {
			t.Errorf("%q", got)
		}
	}
	m := bare(t)
	err := m.Preflight([]Step{Volume{Clevis: &Clevis{Pin: "sss"}}, Array{Level: "raid1"}})
	if err == nil || !strings.Contains(err.Error(), "program clevis\n") || !strings.Contains(err.Error(), "program mdadm\n") {
		t.Error(err)
	}
}
