package initrd

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd/tpm/swtpm"
)

const aRecoveryKey = "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv"

// enroller is a stand-in for systemd-cryptenroll, whose recovery key is as given.
func enroller(t *testing.T, m *Machine, log, key string) {
	t.Helper()
	program(t, m, "systemd-cryptenroll", fmt.Sprintf(`
echo "$* PIN=$NEWPIN" >> %s
case "$*" in *--recovery-key*) echo "A secret recovery key has been generated: beware" >&2; echo "%s";; esac`, log, key))
}

func TestEnrolmentSendsTheRecoveryKey(t *testing.T) {
	var taken []string
	refusals := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/keys" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if refusals > 0 {
			refusals--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		taken = append(taken, fmt.Sprintf("%s %s %s %s", r.Method, r.URL, r.Header.Get("X-Token"), body))
	}))
	defer server.Close()
	m, _ := testMachine(t)
	m.TPM = swtpm.Start(t)
	var said []string
	m.Tell = func(line string) { said = append(said, line) }
	log := filepath.Join(t.TempDir(), "log")
	enroller(t, m, log, aRecoveryKey)
	u, err := resource.ParseURL(server.URL + "/keys?canary=1")
	if err != nil {
		t.Fatal(err)
	}
	to := &resource.Resource{Source: u, Headers: []resource.Header{{Name: "X-Token", Value: resource.NewSecret("canary")}}}
	e := Enrolment{PCRs: []int{7}, PIN: resource.NewSecret("canary"), Recovery: Recovery{Upload: to}}
	if err := e.enrol(t.Context(), m, "/dev/d", "K"); err != nil {
		t.Fatal(err)
	}
	if want := "POST /keys?canary=1 canary " + aRecoveryKey + "\n"; len(taken) != 1 || taken[0] != want {
		t.Errorf("%q, want %q", taken, want)
	}
	lines := strings.Split(strings.TrimSpace(contentOf(t, log)), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " PIN=canary") || !strings.HasSuffix(lines[1], "--recovery-key /dev/d PIN=") {
		t.Errorf("%q", lines)
	}
	for _, s := range append(said, fmt.Sprint(e, e.Recovery)) {
		if strings.Contains(s, "canary") || strings.Contains(s, aRecoveryKey) {
			t.Errorf("a secret is told: %s", s)
		}
	}
	if len(said) != 1 {
		t.Errorf("%q", said)
	}

	// What is refused is not tried again, and fails.
	to.Source, err = resource.ParseURL(server.URL + "/others?canary=1")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.enrol(t.Context(), m, "/dev/d", "K"); err == nil || !strings.Contains(err.Error(), "answers 403") || strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
}

func TestEnrolmentWithoutAKeyThatIsOne(t *testing.T) {
	for key, err := range map[string]string{aRecoveryKey: "", "": "no recovery key", "not-one": "no recovery key", strings.ToUpper(aRecoveryKey): "no recovery key"} {
		m, _ := testMachine(t)
		m.TPM = swtpm.Start(t)
		enroller(t, m, filepath.Join(t.TempDir(), "log"), key)
		err2 := Enrolment{Recovery: Recovery{}}.enrol(t.Context(), m, "/dev/d", "K")
		if err2 != nil {
			t.Errorf("none wanted: %v", err2)
		}
		u, parsed := resource.ParseURL("http://127.0.0.1:1/")
		if parsed != nil {
			t.Fatal(parsed)
		}
		if err == "" {
			continue
		}
		got := Enrolment{Recovery: Recovery{Upload: &resource.Resource{Source: u}}}.enrol(t.Context(), m, "/dev/d", "K")
		if got == nil || !strings.Contains(got.Error(), err) || key != "" && strings.Contains(got.Error(), key) {
			t.Errorf("%q: %v", key, got)
		}
	}
}

func TestEnrolmentNeedsATPM(t *testing.T) {
	m, dir := testMachine(t)
	m.TPM, m.Wait = filepath.Join(dir, "none"), 0
	log := filepath.Join(t.TempDir(), "log")
	enroller(t, m, log, aRecoveryKey)
	if err := (Enrolment{}).enrol(t.Context(), m, "/dev/d", "K"); !errors.Is(err, ErrNoTPM) {
		t.Error(err)
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("it was enrolled")
	}
}

func TestUnlockHandsOverThePIN(t *testing.T) {
	m, _ := testMachine(t)
	log := filepath.Join(t.TempDir(), "log")
	program(t, m, "systemd-cryptsetup", fmt.Sprintf(`echo "$* with $PIN" > %s`, log))
	if err := (unlock{Luks{Name: "v", TPM2: true, PIN: resource.NewSecret("canary")}, "/dev/d"}).do(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(t, log); got != "attach v /dev/d none luks,headless=yes,tpm2-device=auto with canary\n" {
		t.Errorf("%q", got)
	}
}
