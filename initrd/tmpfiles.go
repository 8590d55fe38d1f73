package initrd

import (
	"context"
	"path"
)

// Tmpfiles wishes that the target root is as its tmpfiles.d files say
// (systemd-tmpfiles(8), --create without --boot). It is opaque: a receipt says
// that it ran.
//
// The program can change nothing outside of the root. Inside it has its own care for
// links that an unprivileged user could have made (tmpfiles.d(5)); but a line that
// adjusts or writes to a file, such as z or w, does so for all names of that file.
type Tmpfiles struct{ Root string }

func (t Tmpfiles) String() string { return "files by tmpfiles.d" }

// Touches is the whole target, since the lines may name any path, and the
// credentials of the initrd.
func (t Tmpfiles) Touches() []string { return []string{path.Join("/", t.Root), credentialDir} }

func (t Tmpfiles) receipt() Receipt { return Receipt{Name: "tmpfiles:" + t.Root} }

// Resolve looks for the receipt.
func (t Tmpfiles) Resolve(look Look) (State, Act, error) {
	if look.Done(t.receipt()) {
		return So, nil, nil
	}
	return NotSo, tmpfiles{t}, nil
}

type tmpfiles struct{ Tmpfiles }

func (t tmpfiles) String() string { return "run systemd-tmpfiles" }

func (t tmpfiles) do(ctx context.Context, m *Machine) error {
	p := Program{
		Argv: []string{"systemd-tmpfiles", "--root=" + path.Join("/", t.Root), "-E", "--create"},
		Env:  m.credentialEnv(),
		// A line of the distribution that names a user which is not there fails
		// that line alone (65, 73); systemd's own unit takes both for success.
		OK:    []int{65, 73},
		Quiet: true,
	}
	if _, said, err := m.runBelow(ctx, t.Root, p); err != nil {
		return err
	} else if said != "" {
		m.say("systemd-tmpfiles: %s", said)
	}
	m.leave(t.receipt())
	return nil
}
