package tpm

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// The environment that makes the test program a second process that measures.
const (
	childSocket = "PILOTLIGHT_TPM_TEST_SOCKET"
	childLog    = "PILOTLIGHT_TPM_TEST_LOG"
	childName   = "PILOTLIGHT_TPM_TEST_NAME"
)

const childExtends = 10

func TestMain(m *testing.M) {
	if socket := os.Getenv(childSocket); socket != "" {
		if err := measureAsChild(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func measureAsChild(socket string) error {
	d, err := Open(context.Background(), socket)
	if err != nil {
		return err
	}
	defer d.Close()
	l := Log{Path: os.Getenv(childLog)}
	for i := range childExtends {
		if err := l.Extend(d, 12, fmt.Sprintf("%s %d", os.Getenv(childName), i)); err != nil {
			return err
		}
	}
	return nil
}
