package initrd

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Kept says how the copy of the config is protected.
type Kept struct {
	Form   string `json:"form"`             // "sealed", "plain", or "digest": no copy at all
	SHA256 string `json:"sha256,omitempty"` // of the file, hexadecimal
	Key    []byte `json:"key,omitempty"`    // of "sealed": the AES-256 key, as systemd-creds sealed it
}

// keptLimit bounds the file of a kept copy in bytes. It is packed, so that a frozen
// config of any size that is read back fits.
const keptLimit = frozenLimit + 1<<20

// valid says whether there could be such a kept copy.
func (k *Kept) valid() bool {
	switch k.Form {
	case "digest":
		return true
	case "sealed", "plain":
		sum, err := hex.DecodeString(k.SHA256)
		return err == nil && len(sum) == sha256.Size
	}
	return false
}

// file is the name of the copy, "" for a digest alone. Each copy has its own, so that
// writing one leaves the one before it as it is.
func (k *Kept) file() string {
	if k.Form == "digest" {
		return ""
	}
	return keptPrefix + k.SHA256[:16]
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
		if kept.Key, err = m.sealKey(ctx, key); err != nil {
			return nil, nil, fmt.Errorf("seal the kept copy: %w", err)
		}
	}
	sum := sha256.Sum256(file)
	kept.SHA256 = hex.EncodeToString(sum[:])
	return kept, file, nil
}

// credsTime bounds a run of systemd-creds, which may wait for a TPM that says nothing.
const credsTime = 3 * time.Minute

func credsContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, credsTime, fmt.Errorf("no answer in %s: does the TPM work?", credsTime))
}

// awaitTPM waits for a TPM that must come; absent says that, and why, there is none.
func (m *Machine) awaitTPM(ctx context.Context) (absent, err error) {
	d, err := m.openTPM(ctx, false)
	if errors.Is(err, ErrNoTPM) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, d.Close()
}

// sealKey seals the key of a kept copy: to the TPM where there is one, and else to
// nothing at all, which is told. A TPM that is there and cannot do it is an error:
// what was to be secret is not left open because of a fault.
//
// systemd-creds leaves a TPM aside, ends well and uses its null key, where the
// firmware does not know that TPM (257, without EFI) and, in some releases, where
// sealing fails. So it is asked a second time, for the TPM and nothing else.
func (m *Machine) sealKey(ctx context.Context, key []byte) ([]byte, error) {
	ctx, cancel := credsContext(ctx)
	defer cancel()
	absent, err := m.awaitTPM(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := m.encrypt(ctx, keptName, key)
	if err != nil || !nullKey(sealed) {
		return sealed, err
	}
	if absent == nil {
		sealed, _, err = m.run(ctx, Program{
			Argv:  []string{"systemd-creds", "encrypt", "--with-key=tpm2", "--name=" + keptName, "--tpm2-pcrs=", "-", "-"},
			Stdin: key,
		})
		if err == nil && nullKey(sealed) {
			err = errors.New("systemd-creds was asked to seal to the TPM, and did not")
		}
		return sealed, err
	}
	warning := fmt.Sprintf("the kept copy of the config is not secret: %v", absent)
	m.say("%s", warning)
	return sealed, m.Amend(func(r *Report) { r.Warnings = append(r.Warnings, warning) })
}

// nullKeyID begins what systemd-creds sealed to nothing: CRED_AES256_GCM_BY_NULL of
// systemd's src/shared/creds-util.h.
const nullKeyID = "\x05\x84\x69\xda\xf6\xf5\x43\x24\x80\x05\x49\xda\x0f\x8e\xa2\xfb"

// nullKey says whether anybody can open what systemd-creds sealed. It is in Base64.
func nullKey(sealed []byte) bool {
	begin, err := base64.StdEncoding.DecodeString(string(sealed[:min(24, len(sealed))]))
	return err == nil && strings.HasPrefix(string(begin), nullKeyID)
}

// unsealKey undoes sealKey.
func (m *Machine) unsealKey(ctx context.Context, sealed []byte) ([]byte, error) {
	ctx, cancel := credsContext(ctx)
	defer cancel()
	if nullKey(sealed) {
		return m.decrypt(ctx, keptName, sealed)
	}
	absent, err := m.awaitTPM(ctx)
	if err != nil {
		return nil, err
	}
	key, err := m.decrypt(ctx, keptName, sealed)
	switch {
	case err == nil:
		return key, nil
	case absent != nil:
		return nil, fmt.Errorf("it is sealed to a TPM, and %w (is it switched off in the firmware's setup?): %w", absent, err)
	}
	return nil, fmt.Errorf("it is sealed to a TPM (to another one, or was this one cleared?): %w", err)
}

// Unseal gives the documents of the kept copy, as Freeze packed them. The error is
// fs.ErrNotExist where none was kept, and a *RecordError where the one that was cannot
// be opened. That it opens does not prove who made it: a copy that is not sealed can
// be written by anybody who has the disk. What it says is measured before it is read.
func (m *Machine) Unseal(ctx context.Context) ([]byte, error) {
	k := m.memory.Record.Kept
	if k == nil || k.Form == "digest" {
		return nil, fs.ErrNotExist
	}
	packed := m.memory.kept
	if k.Form == "sealed" {
		key, err := m.unsealKey(ctx, k.Key)
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
