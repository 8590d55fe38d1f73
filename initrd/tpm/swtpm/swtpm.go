// Package swtpm runs a software TPM 2.0, swtpm(8), for the length of a test. It
// is for tests only: no program of the project imports it.
package swtpm

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startTimeout bounds the wait for the emulator's socket.
const startTimeout = 20 * time.Second

// Start runs a new TPM that has been started up with all its PCRs at their reset
// values and has no keys. It returns the Unix socket for commands; the control
// socket is beside it, with ".ctrl" after its name, where tpm2-tss's swtpm TCTI
// looks for it. The TPM ends with the test. It is fatal to the test if there is
// no swtpm, or if it does not come up within 20 seconds.
func Start(t testing.TB) string {
	t.Helper()
	// Not t.TempDir: the name of a Unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "tpm")
	cmd := exec.Command("swtpm", "socket", "--tpm2",
		"--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+socket+".ctrl",
		"--flags", "startup-clear,not-need-init")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("swtpm: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(startTimeout); ; {
		if listens(socket) && listens(socket+".ctrl") {
			return socket
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("swtpm ended: %v: %s", err, log.Bytes())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm does not listen after %v", startTimeout)
		}
	}
}

func listens(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	return c.Close() == nil
}
