package swtpm

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// maxCommand is more than any command of a test has, in bytes.
const maxCommand = 4096

// Wire is a TPM that is nothing but its answers: answer gets each command, and returns
// the response, or nil to say nothing at all and not to hang up either. It takes one
// command at a time, and ends with the test. It returns the Unix socket.
func Wire(t testing.TB, answer func(command []byte) []byte) (socket string) {
	t.Helper()
	// Not t.TempDir: the name of a Unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "wire")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "tpm")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			command := make([]byte, maxCommand)
			n, err := c.Read(command)
			if err != nil {
				continue
			}
			if response := answer(command[:n]); response != nil {
				_, _ = c.Write(response)
				_ = c.Close()
			}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
		_ = os.RemoveAll(dir)
	})
	return socket
}
