package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"pilotlight/config/resource"
)

// Clevis binds a volume to key servers, to the TPM or to both, by the program of that
// name (clevis-luks-bind(1)).
type Clevis struct {
	Pin    string
	Config resource.Secret // of the pin, JSON
	// Servers are the advertisements of the key servers that the config does not bring. They
	// are asked for first, with the patience that clevis does not have; that also brings
	// the network up.
	Servers []resource.Resource
	Hosts   []string // of all key servers that have a name: "tang.example:80"
	TPM2    bool
	Test    bool // unlocking can be tried at once
}

// programs are those of clevis, which is a set of scripts, and those that they call.
func (c Clevis) programs() []string {
	list := []string{"bash", "clevis", "clevis-luks-bind", "clevis-luks-unlock", "clevis-encrypt-" + c.Pin, "clevis-decrypt", "clevis-decrypt-" + c.Pin, "jose"}
	if c.TPM2 {
		list = append(list, "clevis-encrypt-tpm2", "clevis-decrypt-tpm2", "tpm2_createprimary", "tpm2_create", "tpm2_load", "tpm2_unseal", "tpm2_flushcontext")
	}
	if len(c.Servers) > 0 {
		list = append(list, "clevis-encrypt-tang", "clevis-decrypt-tang", "curl")
	}
	return list
}

// bindArgv is Ignition's run of clevis.
func (c Clevis) bindArgv(node, key string) []string {
	return []string{"clevis", "luks", "bind", "-f", "-k", key, "-d", node, c.Pin, c.Config.Reveal()}
}

func clevisUnlock(node, name string) []string {
	return []string{"clevis", "luks", "unlock", "-d", node, "-n", name}
}

// run gives clevis a directory of its own for temporary files: a copy of the header is among
// them. Its curl is told the addresses of names, since an initrd has no resolver. What it
// says on a failure may repeat its config.
func (c Clevis) run(ctx context.Context, m *Machine, argv []string) error {
	dir, err := os.MkdirTemp(m.Run, "clevis-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fill(dir, map[string][]byte{".curlrc": []byte(c.curlrc(ctx))}); err != nil {
		return err
	}
	_, _, err = m.run(ctx, Program{Argv: argv, Env: []string{"TMPDIR=" + dir, "CURL_HOME=" + dir}, Quiet: true})
	return err
}

// curlrc is a configuration of curl(1). A name that is not found is left to curl, which will
// say so.
func (c Clevis) curlrc(ctx context.Context) string {
	var b strings.Builder
	for _, h := range c.Hosts {
		host, _, err := net.SplitHostPort(h)
		if err != nil {
			continue
		}
		addrs, err := names{"/etc/resolv.conf", "/run/systemd/netif"}.lookup(ctx, host)
		if err != nil {
			continue
		}
		var list []string
		for _, a := range addrs {
			list = append(list, a.Unmap().String())
		}
		fmt.Fprintf(&b, "resolve = \"%s:%s\"\n", h, strings.Join(list, ","))
	}
	return b.String()
}

func (c Clevis) bind(ctx context.Context, m *Machine, node, key string) error {
	return c.run(ctx, m, c.bindArgv(node, key))
}

func (c Clevis) unlock(ctx context.Context, m *Machine, node, name string) error {
	return c.run(ctx, m, clevisUnlock(node, name))
}

// ask waits for the key servers: for all of them, or for any one. Which of them are enough
// to unlock a volume clevis knows.
func (c Clevis) ask(ctx context.Context, m *Machine, any bool) error {
	if len(c.Servers) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(c.Servers))
	for _, s := range c.Servers {
		go func() {
			_, err := m.Client.Bytes(ctx, s)
			if err != nil {
				err = fmt.Errorf("advertisement of a key server: %w", err)
			}
			answers <- err
		}()
	}
	var errs []error
	for range c.Servers {
		err := <-answers
		if any && err == nil || !any && err != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ClevisUnlocked wishes, at a later boot, that a volume which is bound by clevis is
// unlocked.
type ClevisUnlocked struct {
	Name   string
	Device string // as the config names it
	Clevis Clevis
}

func (c ClevisUnlocked) String() string {
	return fmt.Sprintf("/dev/mapper/%s unlocked by clevis, on %s", c.Name, c.Device)
}

// Touches is the mapper device, the device below, and the TPM if it is needed.
func (c ClevisUnlocked) Touches() []string {
	names := []string{VolumesDir + "/" + c.Name, "/dev/mapper/" + c.Name, c.Device}
	if c.Clevis.TPM2 {
		names = append(names, "tpm")
	}
	return names
}

// Reads is whatever the device may be on, under another name.
func (c ClevisUnlocked) Reads() []string { return []string{"/partitions", ArraysDir} }

// Lingers says that a server or a TPM takes its time.
func (c ClevisUnlocked) Lingers() bool { return true }

// Needs are clevis and what it calls.
func (c ClevisUnlocked) Needs() (programs, modules []string) { return c.Clevis.programs(), nil }

// Resolve looks at the mapper device.
func (c ClevisUnlocked) Resolve(look Look) (State, Act, error) {
	node, err := look.Node(c.Device)
	if errors.Is(err, fs.ErrNotExist) {
		return After, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	have, err := look.Mapper(c.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, clevisUnlocked{c, node}, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	if err := encrypts(look, c.Name, node, have); err != nil {
		return unresolved, nil, err
	}
	return So, nil, nil
}

type clevisUnlocked struct {
	ClevisUnlocked
	node string
}

func (c clevisUnlocked) String() string {
	return fmt.Sprintf("unlock %s as /dev/mapper/%s by clevis", c.node, c.Name)
}

// clevisTime bounds a run of clevis at a later boot. Its tools know no end of waiting.
const clevisTime = 5 * time.Minute

func (c clevisUnlocked) do(ctx context.Context, m *Machine) error {
	ctx, cancel := context.WithTimeoutCause(ctx, clevisTime, fmt.Errorf("not unlocked in %s", clevisTime))
	defer cancel()
	if err := c.Clevis.ask(ctx, m, true); err != nil {
		return err
	}
	return c.Clevis.unlock(ctx, m, c.node, c.Name)
}
