package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// packages are the Debian packages that the lab and the tests use on the machine itself; sfdisk, sgdisk and curl are judges there. Everything that concerns a guest's disk (systemd-repart,
// mkfs.erofs, ukify, veritysetup) is run from the guest's own tree instead: its version is the one that matters.
var packages = []string{"qemu-system-x86", "qemu-utils", "ovmf", "swtpm", "mmdebstrap", "mtools", "dosfstools", "fdisk", "gdisk", "strace", "curl", "dnsmasq-base", "libwrap0", "btrfs-progs", "xfsprogs", "f2fs-tools", "exfatprogs", "squashfs-tools", "erofs-utils", "genisoimage", "udftools", "ntfs-3g", "cryptsetup-bin"}

// MissingError says which packages are to be installed by hand, on a machine where Prepare cannot do it.
type MissingError struct {
	Packages []string
	Reason   string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s; install by hand: %s", e.Reason, strings.Join(e.Packages, " "))
}

// Prepare installs the Debian packages that the lab needs and that are missing, through apt-get, and nothing else. It needs root for that; see
// [Elevate]. On a machine without dpkg and apt-get the error is a *MissingError.
func Prepare(ctx context.Context, log *Log) error {
	for _, tool := range []string{"dpkg-query", "apt-get"} {
		if _, err := exec.LookPath(tool); err != nil {
			return &MissingError{Packages: packages, Reason: "this is not a Debian system (" + tool + " is missing)"}
		}
	}
	// dpkg-query exits 1 when it does not know one of the names, and still tells of the others.
	out, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"-W", "-f=${db:Status-Status} ${Package}\n"}, packages...)...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return fmt.Errorf("dpkg-query: %w", err)
	}
	missing := missingPackages(packages, string(out))
	if len(missing) == 0 {
		return nil
	}
	return installPackages(ctx, log, missing)
}

// installPackages installs Debian packages through apt-get.
func installPackages(ctx context.Context, log *Log, missing []string) error {
	if os.Geteuid() != 0 {
		return &MissingError{Packages: missing, Reason: "not root"}
	}
	log.Printf("installing %s", strings.Join(missing, " "))
	install := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "--yes", "--no-install-recommends", "-qq", "-o", "DPkg::Lock::Timeout=600"}, missing...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		_, err := output(cmd, "apt-get install")
		return err
	}
	if install() == nil {
		return nil
	}
	// A new machine has no package lists, an old one has outdated ones: both show in the same way.
	if err := run(ctx, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	return install()
}

// missingPackages gives those of want that are not installed according to lines of "status name".
func missingPackages(want []string, status string) []string {
	var missing []string
	lines := strings.Split(status, "\n")
	for _, name := range want {
		if !slices.Contains(lines, "installed "+name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// kept are the variables that a command run through sudo must see as its caller does.
var kept = []string{"PATH", "HOME", "TMPDIR", "LANG", "TERM", "GOPATH", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOTOOLCHAIN", "http_proxy", "https_proxy", "no_proxy", "PILOTLIGHT_ACCEL"}

// Elevate makes sure that the program runs as root. Where it does already, done is false. Else the program is run once more through
// sudo, with the same arguments, working directory and terminal; then done is true and code is what it exited with, which the caller exits with too.
// extra names environment variables to hand on beside those that the lab itself needs. The error says why there was no second run.
func Elevate(ctx context.Context, extra ...string) (done bool, code int, err error) {
	if os.Geteuid() == 0 {
		return false, 0, nil
	}
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return false, 0, fmt.Errorf("the lab needs root: neither root nor sudo: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return false, 0, err
	}
	cmd := exec.CommandContext(ctx, sudo, sudoArgs(os.LookupEnv, extra, self, os.Args[1:])...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return true, exit.ExitCode(), nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("sudo: %w", err)
	}
	return true, 0, nil
}

// sudoArgs is what sudo is asked to run: env sets the variables again that sudo removes.
func sudoArgs(lookup func(string) (string, bool), extra []string, program string, arguments []string) []string {
	args := []string{"env"}
	for _, name := range slices.Concat(kept, extra) {
		if value, ok := lookup(name); ok {
			args = append(args, name+"="+value)
		}
	}
	return append(append(args, program), arguments...)
}
