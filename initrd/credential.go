package initrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"pilotlight/config/resource"
)

// Credential wishes that a system credential waits for the services of the host,
// or of this initrd (systemd.exec(5), "System Credentials").
//
// For the host a plain one goes to /run/credentials/@initrd, from where PID 1
// takes it over after switch-root. An encrypted one goes to
// /run/credstore.encrypted, where services look by themselves. For the initrd it
// goes to the directory that sysusers and tmpfiles are given.
type Credential struct {
	Root      string // the target root; only a boot, whose root is BootRoot, hands anything to a host
	Name      string
	Contents  resource.Resource
	Encrypted bool
	Scope     string // "host" or "initrd"
}

func (c Credential) String() string { return fmt.Sprintf("credential %s for the %s", c.Name, c.Scope) }

// BootRoot is where a boot has the new root.
const BootRoot = "/sysroot"

// ErrNoBoot says that what is wished can only be done in a boot: below any other
// root than BootRoot, nothing of the running system is changed.
var ErrNoBoot = errors.New("credentials are handed to a host by its boot, and this is none")

// Touches is where it goes; for the initrd that is the directory which sysusers and
// tmpfiles are given.
func (c Credential) Touches() []string {
	if c.Scope == "initrd" {
		return []string{credentialDir}
	}
	return []string{filepath.Join(c.dir(""), c.Name)}
}

// credentialDir is the directory of credentials for this initrd, below Machine.Run.
const credentialDir = "credentials"

func (c Credential) dir(run string) string {
	switch {
	case c.Scope == "initrd":
		return filepath.Join(run, credentialDir)
	case c.Encrypted:
		return "/run/credstore.encrypted"
	}
	return "/run/credentials/@initrd"
}

// Lingers says that the contents come from a server.
func (c Credential) Lingers() bool { return c.Contents.Remote() }

func (c Credential) receipt() Receipt {
	id := c.Contents.Identity()
	return Receipt{Name: fmt.Sprintf("credential:%s:%s:%x", c.Scope, c.Name, id[:16])}
}

// Resolve looks for the receipt: the file is not where it was once PID 1 took it.
func (c Credential) Resolve(look Look) (State, Act, error) {
	if c.Scope != "initrd" && c.Root != BootRoot {
		return Moot, nil, ErrNoBoot
	}
	if look.Done(c.receipt()) {
		return So, nil, nil
	}
	return NotSo, credential{c}, nil
}

type credential struct{ Credential }

func (c credential) String() string { return "hand over credential " + c.Name }

// CredentialLimit is systemd's own bound for one credential, in bytes.
const CredentialLimit = 1 << 20

func (c credential) do(ctx context.Context, m *Machine) error {
	dir := c.dir(m.Run)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var data bytes.Buffer
	if _, err := m.Client.Copy(ctx, c.Contents, &data); err != nil {
		return err
	}
	if data.Len() > CredentialLimit {
		return fmt.Errorf("%d bytes are more than the %d that systemd allows", data.Len(), CredentialLimit)
	}
	contents := data.Bytes()
	if c.Encrypted && c.Scope == "initrd" {
		out, err := m.decrypt(ctx, c.Name, contents)
		if err != nil {
			return err
		}
		contents = out
	}
	if err := writeWhole(filepath.Join(dir, c.Name), contents, 0o400); err != nil {
		return err
	}
	m.leave(c.receipt())
	return nil
}

// decrypt opens a credential that systemd-creds encrypted for this machine.
func (m *Machine) decrypt(ctx context.Context, name string, sealed []byte) ([]byte, error) {
	out, _, err := m.run(ctx, Program{Argv: []string{"systemd-creds", "decrypt", "--name=" + name, "-", "-"}, Stdin: sealed})
	return out, err
}

// encrypt seals bytes to this machine: by its TPM where it has one, else by
// nothing at all, which systemd calls a null key.
func (m *Machine) encrypt(ctx context.Context, name string, plain []byte) ([]byte, error) {
	argv := []string{
		"systemd-creds", "encrypt", "--with-key=auto-initrd", "--name=" + name,
		// No PCR: what has to outlive an update of firmware or system must not
		// depend on what they measure. The default differs between releases.
		"--tpm2-pcrs=", "-", "-",
	}
	out, _, err := m.run(ctx, Program{Argv: argv, Stdin: plain})
	return out, err
}

// writeWhole puts a file in place in one step, and on the disk before it returns.
func writeWhole(name string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".pilotlight-*")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, bytes.NewReader(data))
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
