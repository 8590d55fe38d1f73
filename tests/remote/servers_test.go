// Package remote_test fetches with the client of config/resource from real servers, each
// started here on loopback: S3's of versitygw, Google's of fake-gcs-server, Azure's of
// azurite, and the TFTP servers that Debian has.
package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pilotlight/tests/lab"
)

const repository = "../.."

func TestMain(m *testing.M) {
	if done, code, err := lab.Elevate(context.Background(), "npm_config_registry", "NPM_CONFIG_REGISTRY"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else if done {
		os.Exit(code)
	}
	if err := lab.Prepare(context.Background(), lab.NewLog(os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// tool gives the path of a program of the module tests/tools, built if need be.
func tool(t *testing.T, pkg string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", pkg)
	cmd.Dir = filepath.Join(repository, "tests", "tools")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go tool -n %s: %v\n%s", pkg, err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// freePort gives a port of loopback that is free now: these servers cannot be told
// to choose one.
func freePort(t *testing.T, network string) string {
	t.Helper()
	var address net.Addr
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		address = c.LocalAddr()
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		address = l.Addr()
	}
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A process is a server under test.
type process struct {
	said  said
	ended chan struct{}
}

// said is what a process says, while it says it.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// start runs a server until the test is over.
func start(t *testing.T, env []string, argv ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-p.ended
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(argv[0]), p.said.String())
		}
	})
	return p
}

// until waits for a condition that a server brings about when it is ready.
func (p *process) until(t *testing.T, what string, ready func() error) {
	t.Helper()
	last := errors.New("not asked")
	for begin := time.Now(); time.Since(begin) < 60*time.Second; {
		if last = ready(); last == nil {
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("%s: it ended: %s", what, p.said.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("%s: %v\n%s", what, last, p.said.String())
}

// listens says whether somebody takes connections there.
func listens(address string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
