package remote_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/providers"
)

// newGCS starts a server that speaks as Google's cloud storage, with files by BUCKET/NAME.
func newGCS(t *testing.T, files map[string][]byte) *wire {
	t.Helper()
	const host = "storage.googleapis.com"
	a := newAuthority(t, host)
	data, port := t.TempDir(), freePort(t, "tcp")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(data, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := start(t, nil, tool(t, "github.com/fsouza/fake-gcs-server"), "-backend", "memory", "-data", data, "-scheme", "https",
		"-host", "127.0.0.1", "-port", port, "-public-host", host, "-cert-location", a.cert, "-private-key-location", a.key)
	server.until(t, "fake-gcs-server", listens("127.0.0.1:"+port))
	return newWire(t, a.roots, map[string]string{host + ":443": "127.0.0.1:" + port})
}

// tape is a metadata service that answers one path, and says how often.
func tape(t *testing.T, path, header, answer string, status int) (*wire, *int) {
	t.Helper()
	asked := new(int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, value, _ := strings.Cut(header, ": ")
		if r.URL.RequestURI() != path || r.Header.Get(name) != value {
			t.Errorf("the metadata service was asked for %s with %v", r.URL.RequestURI(), r.Header)
		}
		*asked++
		w.Header().Set("Metadata-Flavor", "Google")
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return newWire(t, nil, map[string]string{"169.254.169.254:80": s.Listener.Addr().String()}), asked
}

func TestGCS(t *testing.T) {
	t.Parallel()
	const tokenPath = "/computeMetadata/v1/instance/service-accounts/default/token"
	w := newGCS(t, map[string][]byte{"bucket/a": text, "bucket/dir/b ä+(c)": text})
	gce := func(answer string, status int) (*resource.Account, *int) {
		metadata, asked := tape(t, tokenPath, "Metadata-Flavor: Google", answer, status)
		return providers.Account("", machine{sys: dmi("product_name", "Google Compute Engine"), metadata: metadata}), asked
	}
	account, times := gce(`{"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"}`, http.StatusOK)
	none, _ := gce("", http.StatusNotFound)
	elsewhere := providers.Account("", machine{sys: dmi("sys_vendor", "Amazon EC2"), metadata: newWire(t, nil, nil)})
	for _, tt := range []struct {
		name, source string
		account      *resource.Account
		token        string
	}{
		{"as the service account", "gs://bucket/a", account, "Bearer ya29.token"},
		{"a name that must be encoded", "gs://bucket/dir/b%20%C3%A4+(c)", account, "Bearer ya29.token"},
		{"without a service account", "gs://bucket/a", none, ""},
		{"in another cloud", "gs://bucket/a", elsewhere, ""},
		{"as nobody", "gs://bucket/a", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.sent()
			got, err := get(t, w.client(tt.account), tt.source)
			if err != nil || string(got) != string(text) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if list := w.sent(); len(list) != 1 || list[0].Header.Get("Authorization") != tt.token {
				t.Errorf("%d requests with %v", len(list), list[0].Header)
			}
		})
	}
	if *times != 1 {
		t.Errorf("the metadata server was asked for a token %d times", *times)
	}
	for _, source := range []string{"gs://bucket/none", "gs://none/a"} {
		if _, err := get(t, w.client(account), source); !errors.Is(err, resource.ErrNotFound) {
			t.Errorf("%s: %v", source, err)
		}
	}
	broken, _ := gce("ya29.secret", http.StatusOK)
	if _, err := get(t, w.client(broken), "gs://bucket/a"); !errors.Is(err, resource.ErrUnreachable) || strings.Contains(err.Error(), "ya29") {
		t.Errorf("a metadata server that speaks something else: %v", err)
	}
}
