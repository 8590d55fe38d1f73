package remote_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pilotlight/config/resource"
	"pilotlight/providers"
	"pilotlight/tests/lab"
)

const blobHost = "pilotlight.blob.core.windows.net"

// azurite installs the emulator of Azure's storage, of exactly the version that is pinned in
// tests/tools/azurite, and gives its blob server's path.
func azurite(t *testing.T) string {
	t.Helper()
	cache, err := lab.OpenCache(lab.NewLog(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cache.NPM(t.Context(), filepath.Join(repository, "tests", "tools", "azurite"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "node_modules", ".bin", "azurite-blob")
}

// jwt is a token as the identity service gives it out; the emulator looks at all but its signature.
func jwt(t *testing.T, audience string) string {
	t.Helper()
	now := time.Now().Unix()
	var parts []string
	for _, part := range []map[string]any{
		{"typ": "JWT", "alg": "RS256"},
		{"aud": audience, "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/", "iat": now - 60, "nbf": now - 60, "exp": now + 3600},
	} {
		b, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(b))
	}
	return strings.Join(append(parts, base64.RawURLEncoding.EncodeToString([]byte("unlooked at"))), ".")
}

func TestAzure(t *testing.T) {
	t.Parallel()
	const tokenPath = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F"
	a, port := newAuthority(t, blobHost), freePort(t, "tcp")
	program := azurite(t)
	server := start(t, []string{"AZURITE_ACCOUNTS=pilotlight:" + base64.StdEncoding.EncodeToString([]byte("a key"))},
		program, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--oauth", "basic", "--cert", a.cert, "--key", a.key, "--blobHost", "127.0.0.1", "--blobPort", port)
	server.until(t, "azurite", listens("127.0.0.1:"+port))
	w := newWire(t, a.roots, map[string]string{blobHost + ":443": "127.0.0.1:" + port})
	put := func(path string, header map[string]string, body []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "PUT", "https://"+blobHost+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+jwt(t, "https://storage.azure.com"))
		r.Header.Set("X-Ms-Version", "2021-08-06")
		r.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat))
		for name, value := range header {
			r.Header.Set(name, value)
		}
		answer, err := (&http.Client{Transport: w.next}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if said, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %s: %s", path, answer.Status, said)
		}
	}
	put("/private?restype=container", nil, nil)
	put("/public?restype=container", map[string]string{"X-Ms-Blob-Public-Access": "blob"}, nil)
	for _, path := range []string{"/private/a", "/public/a", "/private/dir/b%20c"} {
		put(path, map[string]string{"X-Ms-Blob-Type": "BlockBlob"}, text)
	}

	azure := func(answer string, status int) *resource.Account {
		metadata, _ := tape(t, tokenPath, "Metadata: true", answer, status)
		return providers.Account("", machine{sys: dmi("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"), metadata: metadata})
	}
	token := func(audience string) string {
		return `{"access_token": "` + jwt(t, audience) + `", "expires_in": "86399", "token_type": "Bearer"}`
	}
	identity := azure(token("https://storage.azure.com"), http.StatusOK)
	wrong := azure(token("https://vault.azure.net"), http.StatusOK)
	none := azure(`{"error": "invalid_request", "error_description": "Identity not found"}`, http.StatusBadRequest)
	elsewhere := providers.Account("", machine{sys: dmi("product_name", "Google Compute Engine"), metadata: newWire(t, nil, nil)})
	for _, tt := range []struct {
		name, path string
		account    *resource.Account
		signed     string
	}{
		{"as the managed identity", "/private/a", identity, "y"},
		{"a blob in a folder", "/private/dir/b%20c", identity, "y"},
		{"public, as the managed identity", "/public/a", identity, "y"},
		{"public, without an identity", "/public/a", none, "n"},
		{"public, in another cloud", "/public/a", elsewhere, "n"},
		{"public, as nobody", "/public/a", nil, "n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.sent()
			got, err := get(t, w.client(tt.account), "https://"+blobHost+tt.path)
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			asked(t, w, strings.TrimSpace(strings.Repeat(blobHost+" ", len(tt.signed))), tt.signed)
		})
	}
	for _, tt := range []struct {
		path    string
		account *resource.Account
		kind    error
		says    string
	}{
		{"/private/none", identity, resource.ErrNotFound, "as this machine"},
		{"/private/a", wrong, resource.ErrRefused, "as this machine, and anonymously"},
		{"/private/a", none, resource.ErrRefused, "asked anonymously"},
	} {
		if _, err := get(t, w.client(tt.account), "https://"+blobHost+tt.path); !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
}
