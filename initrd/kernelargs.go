package initrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// KernelArguments wishes that this boot's kernel has arguments, and lacks others. It is
// Ignition's kernelArguments (spec 3.3). How a machine keeps its kernel arguments is its
// distribution's to know: where they differ, its helper changes them, and boots anew
// where need be.
type KernelArguments struct {
	ShouldExist    []string
	ShouldNotExist []string
	Cmdline        string // the file that they are compared with; "" for /proc/cmdline
}

// KernelArgumentsHelper is the program that a distribution has for it. It takes
// --should-exist ARGUMENT and --should-not-exist ARGUMENT, each as often as need be and
// in two words: there are helpers that know no other form
// (https://coreos.github.io/ignition/distributor-notes/).
const KernelArgumentsHelper = "ignition-kargs-helper"

func (k KernelArguments) String() string {
	var parts []string
	for _, a := range k.ShouldExist {
		parts = append(parts, "with "+a)
	}
	for _, a := range k.ShouldNotExist {
		parts = append(parts, "without "+a)
	}
	return "kernel arguments " + strings.Join(parts, ", ")
}

// Touches is all that a boot is made of: nothing may begin before the helper has
// decided whether this boot goes on.
func (k KernelArguments) Touches() []string { return []string{"/", "disks", "tpm"} }

// cmdlineLimit bounds a kernel command line, in bytes. The kernel's own bounds are
// below that everywhere.
const cmdlineLimit = 64 << 10

// Resolve compares with the arguments that the kernel has. A receipt says that the
// helper was asked in this boot and did not boot anew: then that is its last word.
func (k KernelArguments) Resolve(look Look) (State, Act, error) {
	file := k.Cmdline
	if file == "" {
		file = "/proc/cmdline"
	}
	data, err := readFile(look, "/", file, cmdlineLimit)
	if err != nil {
		return unresolved, nil, err
	}
	have := strings.Fields(string(data))
	if k.so(have) || look.Done(k.receipt()) {
		return So, nil, nil
	}
	return NotSo, changeArguments{k}, nil
}

// so says whether the kernel's arguments are as wished. One that holds blanks is a run
// of words, as the helpers write it.
func (k KernelArguments) so(have []string) bool {
	there := func(argument string) bool {
		words := strings.Fields(argument)
		for i := 0; i+len(words) <= len(have); i++ {
			if slices.Equal(have[i:i+len(words)], words) {
				return true
			}
		}
		return false
	}
	return !slices.ContainsFunc(k.ShouldExist, func(a string) bool { return !there(a) }) &&
		!slices.ContainsFunc(k.ShouldNotExist, there)
}

func (k KernelArguments) receipt() Receipt {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", k.ShouldExist, k.ShouldNotExist))
	return Receipt{Name: "kernelarguments:" + hex.EncodeToString(sum[:16])}
}

type changeArguments struct{ KernelArguments }

func (c changeArguments) String() string {
	return "have " + KernelArgumentsHelper + " change the kernel arguments, and boot anew where need be"
}

// Effect is a change of what the boot loader is told.
func (c changeArguments) Effect() (Effect, []string) { return Changes, nil }

func (c changeArguments) argv() []string {
	argv := []string{KernelArgumentsHelper}
	for _, a := range c.ShouldExist {
		argv = append(argv, "--should-exist", a)
	}
	for _, a := range c.ShouldNotExist {
		argv = append(argv, "--should-not-exist", a)
	}
	return argv
}

func (c changeArguments) do(ctx context.Context, m *Machine) error {
	_, _, err := m.run(ctx, Program{Argv: c.argv()})
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("this distribution has no way to change kernel arguments: %w", err)
	case err != nil:
		return err
	}
	m.leave(c.receipt())
	return nil
}
