package initrd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Sysusers wishes that the target root has the users that its sysusers.d files
// name (systemd-sysusers(8)). It is opaque: a receipt says that it ran. The program can
// change nothing outside of the root.
type Sysusers struct{ Root string }

func (s Sysusers) String() string { return "system users by sysusers.d" }

// Touches is the target's /etc, where passwd and group are written, the directories
// that files are read from, and the credentials of the initrd.
func (s Sysusers) Touches() []string {
	at := func(dir string) string { return path.Join("/", s.Root, dir) }
	return []string{at("etc"), at("run/sysusers.d"), at("usr/lib/sysusers.d"), credentialDir}
}

func (s Sysusers) receipt() Receipt { return Receipt{Name: "sysusers:" + s.Root} }

// Resolve looks for the receipt.
func (s Sysusers) Resolve(look Look) (State, Act, error) {
	if look.Done(s.receipt()) {
		return So, nil, nil
	}
	return NotSo, sysusers{s}, nil
}

type sysusers struct{ Sysusers }

func (s sysusers) String() string { return "run systemd-sysusers" }

func (s sysusers) do(ctx context.Context, m *Machine) error {
	argv := []string{"systemd-sysusers", "--root=" + path.Join("/", s.Root)}
	if _, said, err := m.runBelow(ctx, s.Root, Program{Argv: argv, Env: m.credentialEnv(), Quiet: true}); err != nil {
		return err
	} else if said != "" {
		m.say("systemd-sysusers: %s", said)
	}
	m.leave(s.receipt())
	return nil
}

// credentialEnv is how systemd's tools find credentials (systemd.exec(5)).
func (m *Machine) credentialEnv() []string {
	dir := filepath.Join(m.Run, credentialDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return []string{"CREDENTIALS_DIRECTORY=" + dir}
}
