package initrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pilotlight/config/resource"
)

// Enrolment binds a volume to this machine's TPM (systemd-cryptenroll(1)), and gives it a
// recovery key for the day when that TPM does not unlock it.
type Enrolment struct {
	PCRs     []int           // nothing but these: the defaults differ between releases
	PIN      resource.Secret // asked for beside the TPM; empty for none
	Recovery Recovery
}

// Recovery says where a recovery key goes. The zero value is: there is none, and the
// config says so.
type Recovery struct {
	Credential string             // of the host, in the boot that made the volume
	Upload     *resource.Resource // is sent there by POST
}

func (r Recovery) String() string {
	switch {
	case r.Credential != "":
		return "credential " + r.Credential
	case r.Upload != nil:
		return "sent to " + r.Upload.String()
	}
	return "none"
}

func (r Recovery) wanted() bool { return r.Credential != "" || r.Upload != nil }

// tpmArgv binds to the TPM. What lies about of keys and policies is not used: the config
// alone says what a volume is bound to.
func (e Enrolment) tpmArgv(node, key string) []string {
	pin := "no"
	if !e.PIN.Empty() {
		pin = "yes"
	}
	return []string{
		"systemd-cryptenroll", "--unlock-key-file=" + key, "--tpm2-device=auto", "--tpm2-pcrs=" + pcrList(e.PCRs),
		"--tpm2-public-key-pcrs=", "--tpm2-pcrlock=", "--tpm2-with-pin=" + pin, node,
	}
}

func recoveryArgv(node, key string) []string {
	return []string{"systemd-cryptenroll", "--unlock-key-file=" + key, "--recovery-key", node}
}

func (e Enrolment) enrol(ctx context.Context, m *Machine, node, key string) error {
	absent, err := m.awaitTPM(ctx)
	if err = errors.Join(absent, err); err != nil {
		return err
	}
	p := Program{Argv: e.tpmArgv(node, key)}
	if !e.PIN.Empty() {
		p.Env = []string{"NEWPIN=" + e.PIN.Reveal()}
	}
	if _, _, err := m.run(ctx, p); err != nil {
		return err
	}
	if !e.Recovery.wanted() {
		return nil
	}
	// It says on standard error how to use the key, and the key itself on standard output.
	out, _, err := m.run(ctx, Program{Argv: recoveryArgv(node, key), Quiet: true})
	if err != nil {
		return err
	}
	recovery := strings.TrimSpace(string(out))
	if !recoveryKey(recovery) {
		return errors.New("systemd-cryptenroll: it gave no recovery key")
	}
	if err := e.Recovery.deliver(ctx, m, recovery); err != nil {
		return fmt.Errorf("recovery key: %w", err)
	}
	return nil
}

// recoveryKey says whether a text is a recovery key of systemd's: 256 bits as eight groups
// of eight letters of "modhex" (systemd's src/shared/recovery-key.h).
func recoveryKey(s string) bool {
	groups := strings.Split(s, "-")
	for _, g := range groups {
		if len(g) != 8 || strings.Trim(g, "cbdefghijklnrtuv") != "" {
			return false
		}
	}
	return len(groups) == 8
}

func (r Recovery) deliver(ctx context.Context, m *Machine, key string) error {
	if r.Upload != nil {
		return m.upload(ctx, *r.Upload, []byte(key+"\n"))
	}
	dir, err := handover(credentialsDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeWhole(filepath.Join(dir, r.Credential), []byte(key), 0o400)
}

const (
	uploadTime  = 5 * time.Minute // for all tries
	uploadPause = 2 * time.Second // between two
)

// upload sends a few bytes by POST, and tries again while the server does not answer or is
// not well. An answer of 2xx is a success; no other is followed.
func (m *Machine) upload(ctx context.Context, to resource.Resource, body []byte) error {
	ctx, cancel := context.WithTimeoutCause(ctx, uploadTime, fmt.Errorf("not taken in %s", uploadTime))
	defer cancel()
	transport := m.Client.Transport
	if transport == nil {
		transport = resource.NewTransport(resource.TransportOptions{})
	}
	for {
		again, err := post(ctx, transport, to, body)
		if err == nil || !again {
			return err
		}
		m.say("%s: %v", to, err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(uploadPause):
		}
	}
}

// post sends once. Its errors name no more of the address than may be shown.
func post(ctx context.Context, transport http.RoundTripper, to resource.Resource, body []byte) (again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Source.Reveal(), bytes.NewReader(body))
	if err != nil {
		return false, errors.New("not an address that can be sent to")
	}
	if u := request.URL.User; u != nil {
		password, _ := u.Password()
		request.SetBasicAuth(u.Username(), password)
	}
	request.Header.Set("Content-Type", "text/plain")
	for _, h := range to.Headers {
		request.Header.Set(h.Name, h.Value.Reveal())
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return true, fmt.Errorf("%s does not answer", to)
	}
	defer answer.Body.Close()
	switch code := answer.StatusCode; {
	case code/100 == 2:
		return false, nil
	case code/100 == 5 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return true, fmt.Errorf("%s answers %d", to, code)
	default:
		return false, fmt.Errorf("%s answers %d", to, code)
	}
}
