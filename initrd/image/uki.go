package image

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// UKI is a unified kernel image that is to be made with ukify(1): a PE executable of systemd's stub, a kernel, an
// initrd and a command line, which firmware starts, and which can be signed as a whole.
type UKI struct {
	Kernel    string // path
	Initrd    string // path
	Output    string // path; appears only when it is whole
	Cmdline   string // may be empty: a command line that cannot be edited is then the firmware's or an add-on's
	OSRelease string // path; "" takes the tree's /usr/lib/os-release, without a tree what ukify takes
	Uname     string // kernel version; "" lets ukify search the kernel for it
	// Tree is an unpacked distribution with ukify, python3 and the stub, of the building machine's architecture. It
	// is only read: its interpreter is started with its own loader and libraries, where it lies. "" uses the ukify and
	// the stub that the building machine has.
	Tree string
	// Args are further arguments of ukify, such as --secureboot-private-key=. What makes ukify start programs of
	// its own (signing, measuring) uses the building machine's.
	Args []string
}

// UkifyError is a ukify that ended without an image.
type UkifyError struct {
	Said string // the end of what it said
	Err  error
}

func (e *UkifyError) Error() string {
	if e.Said == "" {
		return "ukify: " + e.Err.Error()
	}
	return "ukify: " + e.Err.Error() + ": " + e.Said
}

func (e *UkifyError) Unwrap() error { return e.Err }

// Write makes the image. It fails with a *[UkifyError] if ukify does, and with a *[TreeError] if the tree has none, or
// not what ukify needs. When ctx ends, ukify is killed.
func (u UKI) Write(ctx context.Context) error {
	if strings.HasPrefix(u.Cmdline, "@") {
		return fmt.Errorf("unified kernel image: command line starts with @, which ukify takes for a file's name")
	}
	cmd, err := u.command(ctx)
	if err != nil {
		return fmt.Errorf("unified kernel image: %w", err)
	}
	unfinished := u.Output + ".unfinished"
	defer os.Remove(unfinished) // gone by then if all went well
	cmd.Args = append(cmd.Args, "build", "--linux="+u.Kernel, "--initrd="+u.Initrd, "--output="+unfinished)
	if u.Cmdline != "" {
		cmd.Args = append(cmd.Args, "--cmdline="+u.Cmdline)
	}
	if u.Uname != "" {
		cmd.Args = append(cmd.Args, "--uname="+u.Uname)
	}
	if u.OSRelease != "" {
		cmd.Args = append(cmd.Args, "--os-release=@"+u.OSRelease)
	}
	cmd.Args = append(cmd.Args, u.Args...)
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("unified kernel image: %w", &UkifyError{Said: said.String(), Err: err})
	}
	if err := os.Rename(unfinished, u.Output); err != nil {
		return fmt.Errorf("unified kernel image: %w", err)
	}
	return nil
}

// stubArch is what UEFI calls an architecture in file names.
var stubArch = map[elf.Machine]string{
	elf.EM_X86_64: "x64", elf.EM_386: "ia32", elf.EM_AARCH64: "aa64", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
	elf.EM_LOONGARCH: "loongarch64",
}

// command is ukify with what it must be told to find its own parts.
func (u *UKI) command(ctx context.Context) (*exec.Cmd, error) {
	if u.Tree == "" {
		ukify, err := exec.LookPath("ukify")
		if errors.Is(err, exec.ErrNotFound) {
			ukify, err = exec.LookPath("/usr/lib/systemd/ukify")
		}
		if err != nil {
			return nil, err
		}
		return exec.CommandContext(ctx, ukify), nil
	}

	t, err := openTree(u.Tree)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(u.Tree)
	if err != nil {
		return nil, err
	}
	var missing []Missing
	at := func(name, why string) string {
		found, err := t.program(name)
		if err != nil || found == "" {
			missing = append(missing, Missing{KindProgram, name, why})
			return ""
		}
		real, _, err := t.resolve(found)
		if err != nil {
			missing = append(missing, Missing{KindProgram, name, why})
			return ""
		}
		return real
	}
	ukify := at("ukify", "joins the image")
	python := at("python3", "runs ukify")
	if len(missing) > 0 {
		return nil, &TreeError{Tree: u.Tree, Missing: missing}
	}
	linker, err := newLinker(t, python)
	if err != nil {
		return nil, err
	}
	_, o, err := linker.object(python)
	if err != nil {
		return nil, err
	}
	stub := "usr/lib/systemd/boot/efi/linux" + stubArch[o.machine] + ".efi.stub"
	if ok, err := t.isFile(stub); err != nil || !ok {
		return nil, errors.Join(err, &TreeError{Tree: u.Tree, Missing: []Missing{{KindFile, "/" + stub, "what the firmware starts"}}})
	}
	loader, _, err := t.resolve(o.loader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", python, err)
	}
	if u.OSRelease == "" {
		release, _, err := t.resolve("usr/lib/os-release")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			u.OSRelease = filepath.Join(root, release)
		}
	}
	var dirs []string
	for _, d := range linker.builtin {
		if real, _, err := t.resolve(d); err == nil {
			dirs = append(dirs, filepath.Join(root, real))
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, loader), "--library-path", strings.Join(dirs, ":"),
		filepath.Join(root, python), filepath.Join(root, ukify), "--stub="+filepath.Join(root, stub))
	cmd.Env = append(os.Environ(), "PYTHONHOME="+filepath.Join(root, "usr"), "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=")
	return cmd, nil
}

// tail keeps the end of what a program says.
type tail struct {
	buf bytes.Buffer
}

func (t *tail) Write(b []byte) (int, error) {
	const most = 4096
	t.buf.Write(b)
	if over := t.buf.Len() - most; over > 0 {
		t.buf.Next(over)
	}
	return len(b), nil
}

func (t *tail) String() string { return strings.TrimSpace(t.buf.String()) }
