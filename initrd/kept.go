package initrd

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Kept says how the copy of the config in the file "kept" is protected.
type Kept struct {
	Form   string `json:"form"`             // "sealed", "plain", or "digest": no copy at all
	SHA256 string `json:"sha256,omitempty"` // of the file, hexadecimal
	Key    []byte `json:"key,omitempty"`    // of "sealed": the AES-256 key, as systemd-creds sealed it
}

// keptName binds the sealed key to its purpose.
const keptName = "pilotlight.kept"

// seal makes the kept copy. A credential is at most 1 MiB, a config may be more:
// so what systemd-creds seals is a key, and the copy is encrypted with that.
func (m *Machine) seal(ctx context.Context, form string, documents []byte) (*Kept, []byte, error) {
	kept := &Kept{Form: form}
	if form == "digest" {
		return kept, nil, nil
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(documents); err != nil {
		return nil, nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, nil, err
	}
	file := packed.Bytes()
	if form == "sealed" {
		key := make([]byte, 32)
		rand.Read(key)
		gcm, err := newGCM(key)
		if err != nil {
			return nil, nil, err
		}
		nonce := make([]byte, gcm.NonceSize())
		rand.Read(nonce)
		file = gcm.Seal(nonce, nonce, file, []byte(keptName))
		if kept.Key, err = m.encrypt(ctx, keptName, key); err != nil {
			return nil, nil, fmt.Errorf("seal the kept copy: %w", err)
		}
	}
	sum := sha256.Sum256(file)
	kept.SHA256 = hex.EncodeToString(sum[:])
	return kept, file, nil
}

// Unseal gives the documents of the kept copy, as Freeze packed them.
func (m *Machine) Unseal(ctx context.Context) ([]byte, error) {
	k := m.memory.Record.Kept
	if k == nil || k.Form == "digest" {
		return nil, fs.ErrNotExist
	}
	packed := m.memory.kept
	if k.Form == "sealed" {
		key, err := m.decrypt(ctx, keptName, k.Key)
		if err != nil {
			return nil, &RecordError{m.memory.Place, fmt.Errorf("unseal the kept copy: %w", err)}
		}
		gcm, err := newGCM(key)
		if err != nil || len(packed) < gcm.NonceSize() {
			return nil, &RecordError{m.memory.Place, fmt.Errorf("unseal the kept copy: %w", errors.Join(err, io.ErrUnexpectedEOF))}
		}
		packed, err = gcm.Open(nil, packed[:gcm.NonceSize()], packed[gcm.NonceSize():], []byte(keptName))
		if err != nil {
			return nil, &RecordError{m.memory.Place, fmt.Errorf("unseal the kept copy: %w", err)}
		}
	}
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, &RecordError{m.memory.Place, err}
	}
	documents, err := io.ReadAll(io.LimitReader(zip, frozenLimit+1))
	if err == nil && len(documents) > frozenLimit {
		err = fmt.Errorf("the kept copy is longer than %d bytes", frozenLimit)
	}
	if err != nil {
		return nil, &RecordError{m.memory.Place, err}
	}
	return documents, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
