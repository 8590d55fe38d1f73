package image

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// SystemAuthorities stands in a list of authorities for those that the tree trusts.
const SystemAuthorities = "system"

// Where authorities go: crypto/x509 reads the first bundle of its list that is there, and every file in
// /etc/ssl/certs beside it. What is added to an initrd can so leave the bundle alone that it finds there.
const (
	bundlePath = "/etc/ssl/certs/ca-certificates.crt"
	addedPath  = "/etc/ssl/certs/pilotlight.crt"
)

// systemBundles are where distributions have the bundle of what they trust.
var systemBundles = []string{"etc/ssl/certs/ca-certificates.crt", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem", "etc/ssl/cert.pem"}

// authorities reads certificates from PEM files on the building machine, and from the bundle of the tree in dir for
// [SystemAuthorities]. Only certificates are taken, each once: what else is in such a file is nobody's business.
func authorities(dir string, names []string) ([]byte, error) {
	var out bytes.Buffer
	seen := make(map[string]bool)
	for _, name := range names {
		data, label, err := readAuthorities(dir, name)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities: %w", err)
		}
		found := false
		for {
			var block *pem.Block
			if block, data = pem.Decode(data); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				continue
			}
			found = true
			// A distribution's bundle may hold what this library is too strict for: it will be passed over again later.
			if _, err := x509.ParseCertificate(block.Bytes); err != nil && name != SystemAuthorities {
				return nil, fmt.Errorf("certificate authorities: %s: %w", label, err)
			}
			if !seen[string(block.Bytes)] {
				seen[string(block.Bytes)] = true
				out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
			}
		}
		if !found {
			return nil, fmt.Errorf("certificate authorities: %w", &PathError{Path: label, Reason: "no certificate in PEM"})
		}
	}
	return out.Bytes(), nil
}

// readAuthorities reads one of the list. label is what it is called in an error.
func readAuthorities(dir, name string) (data []byte, label string, err error) {
	if name != SystemAuthorities {
		data, err = os.ReadFile(name)
		return data, name, err
	}
	if dir == "" {
		return nil, "", errors.New("those of the system are asked for, and there is no tree to take them from")
	}
	t, err := openTree(dir)
	if err != nil {
		return nil, "", err
	}
	for _, bundle := range systemBundles {
		data, err := t.read(bundle)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return data, path.Join(dir, bundle), err
	}
	return nil, "", &PathError{Path: dir, Reason: "no bundle of certificate authorities (package ca-certificates): " + strings.Join(systemBundles, ", ")}
}
