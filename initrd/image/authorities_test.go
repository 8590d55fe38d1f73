package image

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority makes a certificate in PEM.
func authority(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestAuthorities(t *testing.T) {
	one, two := authority(t, "one"), authority(t, "two")
	dir := files{
		"one.pem": "one:\n" + one, "both.pem": one + "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n" + two,
		"key.pem":               "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
		"broken.pem":            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"tree/etc/ssl/cert.pem": "-> certs/bundle.pem", "tree/etc/ssl/certs/bundle.pem": two, "bare/etc/os-release": "",
	}.write(t, t.TempDir())
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name  string
		tree  string
		list  []string
		want  string
		wrong string // part of the error
	}{
		{"one", "", []string{at("one.pem")}, one, ""},
		{"each once, and no key", "", []string{at("both.pem"), at("one.pem")}, one + two, ""},
		{"with the tree's", at("tree"), []string{at("one.pem"), "system"}, one + two, ""},
		{"a key", "", []string{at("key.pem")}, "", at("key.pem") + ": no certificate in PEM"},
		{"no certificate inside", "", []string{at("broken.pem")}, "", at("broken.pem") + ": x509: "},
		{"none", "", []string{at("none.pem")}, "", "no such file"},
		{"the system's and no tree", "", []string{"system"}, "", "no tree to take them from"},
		{"a tree that trusts nobody", at("bare"), []string{"system"}, "", at("bare") + ": no bundle of certificate authorities (package ca-certificates)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := authorities(c.tree, c.list)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %v, want %q", err, c.wrong)
				}
				return
			}
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
}

// TestAuthoritiesAreFound by the library that reads them in the initrd, in either place.
func TestAuthoritiesAreFound(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(authority(t, "one")), 0o644); err != nil {
		t.Fatal(err)
	}
	var addon bytes.Buffer
	if err := Addon(&addon, contents(t), ca); err != nil {
		t.Fatal(err)
	}
	added := records(t, addon.Bytes())
	initrd, _ := build(t, Build{Tree: distribution(t).write(t, t.TempDir()), Contents: contents(t), CA: []string{ca}})
	for name, r := range map[string]string{addedPath: content(t, added[addedPath[1:]]), bundlePath: content(t, unpack(t, initrd)[bundlePath[1:]])} {
		if !x509.NewCertPool().AppendCertsFromPEM([]byte(r)) {
			t.Errorf("%s: no certificate in %q", name, r)
		}
		if filepath.Dir(name) != "/etc/ssl/certs" {
			t.Errorf("%s is not where crypto/x509 looks", name)
		}
	}
}
