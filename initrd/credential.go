package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pilotlight/config/resource"
)

// Credential wishes that a system credential waits for the services of the host,
// or of this initrd (systemd.exec(5), "System Credentials").
//
// For the host a plain one goes to /run/credentials/@initrd, from where PID 1
// takes it over after switch-root; see handover for when it does not. An encrypted one
// goes to
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
	if c.Encrypted {
		return []string{filepath.Join(encryptedStore, c.Name)}
	}
	return []string{filepath.Join(credentialsDir, "@initrd", c.Name)}
}

// credentialDir is the directory of credentials for this initrd, below Machine.Run.
const credentialDir = "credentials"

const (
	credentialsDir = "/run/credentials" // where PID 1 has the system credentials
	encryptedStore = "/run/credstore.encrypted"
)

func (c Credential) dir(run string) (string, error) {
	switch {
	case c.Scope == "initrd":
		return filepath.Join(run, credentialDir), nil
	case c.Encrypted:
		return encryptedStore, nil
	}
	return handover(credentialsDir)
}

// handover is where plain credentials for the host go. PID 1 takes over what the initrd
// leaves in @initrd, unless it was itself given encrypted credentials alone, such as
// those of an ESP (systemd, src/core/import-creds.c). Then they go to the credential
// store, where services find them as well; PID 1 itself and generators do not look there.
func handover(system string) (string, error) {
	_, encrypted := os.Stat(filepath.Join(system, "@encrypted"))
	_, plain := os.Stat(filepath.Join(system, "@system"))
	for _, err := range []error{encrypted, plain} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	if encrypted == nil && plain != nil {
		return filepath.Join(filepath.Dir(system), "credstore"), nil
	}
	return filepath.Join(system, "@initrd"), nil
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
	dir, err := c.dir(m.Run)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	contents, err := m.Client.Bytes(ctx, c.Contents)
	if err != nil {
		return err
	}
	if len(contents) > CredentialLimit {
		return fmt.Errorf("%d bytes are more than the %d that systemd allows", len(contents), CredentialLimit)
	}
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
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	d, err := newDraft(int(dir.Fd()), filepath.Base(name))
	if err != nil {
		return err
	}
	defer d.discard()
	if _, err := d.Write(data); err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	if err := d.dress(os.Geteuid(), os.Getegid(), mode); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return &fs.PathError{Op: "sync", Path: name, Err: err}
	}
	if err := d.publish(anyFile); err != nil {
		return err
	}
	return dir.Sync()
}
