package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Accel is how QEMU runs a guest's instructions.
type Accel string

const (
	TCG Accel = "tcg" // emulation: works everywhere, some sixteen times slower than the machine itself
	KVM Accel = "kvm"
)

func (a Accel) args() []string {
	if a == KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// Four levels of page tables instead of five: each is work for the emulator, and no guest has the memory for five.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,la57=off"}
}

// probeDeadline is how long a kernel under KVM may take to its first line; a working one needs less than a second.
const probeDeadline = 15 * time.Second

// Accel finds out what the machine can do. The variable PILOTLIGHT_ACCEL decides if it is set. Without /dev/kvm it is TCG. Where the device exists that
// proves nothing (a hypervisor above may not run stock kernels): the tree's kernel is booted until its first line, and
// the answer is remembered for this host kernel and QEMU.
func (c Cache) Accel(ctx context.Context, tree Tree) (Accel, error) {
	switch value := os.Getenv("PILOTLIGHT_ACCEL"); value {
	case "tcg", "kvm":
		return Accel(value), nil
	case "":
	default:
		return "", fmt.Errorf("PILOTLIGHT_ACCEL is %q, want kvm or tcg", value)
	}
	if _, err := os.Stat("/dev/kvm"); errors.Is(err, os.ErrNotExist) {
		return TCG, nil
	} else if err != nil {
		return "", err
	}
	host, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	version, err := output(exec.CommandContext(ctx, qemu, "--version"), qemu)
	if err != nil {
		return "", err
	}
	kernel, err := tree.Kernel()
	if err != nil {
		return "", err
	}
	dir, err := c.entry(ctx, "accel", []string{string(host), string(version), tree.key}, func(ctx context.Context, dir string) error {
		c.Log.Printf("trying whether a kernel boots under KVM")
		answer := TCG
		// The root that is not there makes the kernel panic, should it get past its first line before it is stopped.
		boot := Boot{Kernel: kernel, Append: "console=ttyS0 earlyprintk=ttyS0 panic=-1", Until: regexp.MustCompile(`Linux version `), Deadline: probeDeadline}
		guest := Guest{Dir: filepath.Join(dir, "guest"), Accel: KVM, MemoryMiB: 512, CPUs: 1}
		if _, err := guest.Boot(ctx, boot); err == nil {
			answer = KVM
		} else if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Log.Printf("guests run under %s", answer)
		return errors.Join(os.RemoveAll(guest.Dir), os.WriteFile(filepath.Join(dir, "answer"), []byte(answer), 0o644))
	})
	if err != nil {
		return "", err
	}
	answer, err := os.ReadFile(filepath.Join(dir, "answer"))
	return Accel(strings.TrimSpace(string(answer))), err
}
