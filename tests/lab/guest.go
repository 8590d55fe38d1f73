package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
)

const qemu = "qemu-system-x86_64"

// HostAddress is where a guest with a network finds the machine that it runs on: port N there is 127.0.0.1:N here.
const HostAddress = "10.0.2.2"

// Guest is a virtual machine's hardware and all that outlives a boot of it: what was written to its disks, its TPM's and its firmware's
// memory lie in Dir. Guests with different folders may run side by side; one guest boots once at a time.
type Guest struct {
	Dir       string // the guest's own folder, made by the first boot
	Accel     Accel  // zero is TCG
	UEFI      bool   // firmware from the first disk that has a boot loader; otherwise each boot brings a kernel
	TPM       bool   // a TPM 2.0 of its own
	Disks     []Disk
	MemoryMiB int    // zero is 2048
	CPUs      int    // zero is 2
	UUID      string // the system's UUID in SMBIOS; empty is QEMU's all zeros
	Serial    string // the system's serial number in SMBIOS
	MAC       string // of the network card; empty is QEMU's

	// SMBIOS are further strings of the firmware by structure type and QEMU's name for them: 0 "vendor" is bios_vendor in /sys/class/dmi/id, 1 "manufacturer"
	// sys_vendor, 1 "product" product_name, 3 "asset" chassis_asset_tag.
	SMBIOS map[int]map[string]string
}

// Disk is a virtio disk. Writes go to an overlay in the guest's folder, never to Base.
type Disk struct {
	Serial string // /dev/disk/by-id/virtio-SERIAL in the guest, at most 20 letters, digits and dashes; names the overlay too
	Base   string // a raw file; empty is an empty disk
	Size   int64  // bytes; zero is the size of Base
}

// Boot is one power-on to one power-off.
type Boot struct {
	Kernel, Initrd, Append string // booted directly, past the firmware, if Kernel is set

	FwCfg       map[string]string // fw_cfg name ("opt/com.coreos/config") to file
	Credentials map[string][]byte // system credentials, handed over in SMBIOS type 11 strings
	Network     bool              // a network card with DHCP, from which HostAddress can be reached; otherwise there is none
	Metadata    string            // "127.0.0.1:PORT" of a server here that the guest finds at 169.254.169.254:80; HostAddress is then not to be had
	Relay       string            // the program of tests/lab/relay, needed for Metadata
	Clock       time.Time         // what the real-time clock shows at power-on; zero is now

	// The boot ends well when the guest powers off or reboots. If Until is set it ends well only when that has been seen on the console: then the
	// guest is stopped, with all that it has written on its disks. Cut is like Until, but pulls the plug: QEMU is killed, and what the guest
	// had not flushed may be lost.
	Until, Cut *regexp.Regexp
	Deadline   time.Duration // zero is five minutes; passing it is an error

	OnLine func(Line) // called for each console line, in order, from another goroutine
}

// End is how a boot ended.
type End string

const (
	PoweredOff End = "powered off"
	Rebooted   End = "rebooted"      // as far as the reset: it does not start again
	Stopped    End = "stopped"       // Until was seen
	PulledPlug End = "plug pulled"   // Cut was seen
	Overdue    End = "took too long" // the deadline passed
	Panicked   End = "panicked"      // the guest's kernel did
	Died       End = "died"          // QEMU failed, or ended by itself for no reason that the guest gave
	Cancelled  End = "cancelled"     // the context ended
)

// Outcome is what was seen of a boot. It is filled as far as the boot got, also beside an error.
type Outcome struct {
	End         End
	Console     []Line // at most the first 50000
	ConsoleFile string // everything, as it came
	Witness     []byte // the JSON document that came over the second serial port
	Elapsed     time.Duration
}

// Facts are what the witness in the guest has told.
func (o Outcome) Facts() (Facts, error) {
	var facts Facts
	if len(o.Witness) == 0 {
		return facts, fmt.Errorf("the guest %s without a word from the witness", o.End)
	}
	if err := json.Unmarshal(o.Witness, &facts); err != nil {
		return facts, fmt.Errorf("the witness's JSON: %w", err)
	}
	return facts, nil
}

// document is the last line that looks like a JSON object: the firmware and the kernel's EFI stub write to both serial ports.
func document(raw []byte) []byte {
	var last []byte
	for line := range bytes.Lines(raw) {
		if line = bytes.TrimSpace(line); bytes.HasPrefix(line, []byte("{")) {
			last = line
		}
	}
	return last
}

// Seen gives the first console line that matches, with its time.
func (o Outcome) Seen(pattern *regexp.Regexp) (Line, bool) {
	for _, line := range o.Console {
		if pattern.MatchString(line.Text) {
			return line, true
		}
	}
	return Line{}, false
}

// BootError says that a boot did not end as it should have.
type BootError struct {
	End     End
	Want    string // the pattern that was waited for, if any
	Elapsed time.Duration
	Last    []Line // the last of the console
	Err     error  // QEMU's, the TPM emulator's or the context's, if any
}

func (e *BootError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "guest %s after %.1f s", e.End, e.Elapsed.Seconds())
	if e.Want != "" {
		fmt.Fprintf(&text, " without %q on its console", e.Want)
	}
	if e.Err != nil {
		fmt.Fprintf(&text, ": %v", e.Err)
	}
	for _, line := range e.Last {
		fmt.Fprintf(&text, "\n\t%7.1f %s", line.At.Seconds(), line.Text)
	}
	return text.String()
}

func (e *BootError) Unwrap() error { return e.Err }

// lastLines is how much of the console a BootError shows.
const lastLines = 15

// Boot runs the guest from power-on until it ends, and leaves no process behind. The error is a *BootError if the guest ran at all.
//
// A boot that ends early by a known fault of the emulator begins again, at most twice.
func (g Guest) Boot(ctx context.Context, b Boot) (Outcome, error) {
	dir, err := filepath.Abs(g.Dir)
	if err != nil {
		return Outcome{}, err
	}
	g.Dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Outcome{}, err
	}
	unlock, err := lockedfile.MutexAt(filepath.Join(dir, "lock")).Lock()
	if err != nil {
		return Outcome{}, fmt.Errorf("lock guest: %w", err)
	}
	defer unlock()
	if err := g.assemble(ctx); err != nil {
		return Outcome{}, fmt.Errorf("assemble guest: %w", err)
	}
	if b.Deadline == 0 {
		b.Deadline = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.Deadline, errOverdue)
	defer cancel()
	for try := 1; ; try++ {
		out, err := g.once(ctx, b)
		if try == 3 || out.End != Panicked || !emulatorsFault(out.Console) {
			return out, err
		}
	}
}

// emulatorsFault says whether a kernel that panicked met a breakpoint of its own making that was gone already: with several processors emulated side by side,
// one may still see the code that another has patched. What happens before our program says a word has changed nothing.
func emulatorsFault(console []Line) bool {
	breakpoint := false
	for _, line := range console {
		if strings.Contains(line.Text, "pilotlight") {
			return false
		}
		breakpoint = breakpoint || strings.Contains(line.Text, "Oops: int3")
	}
	return breakpoint
}

// once is one try of a boot.
func (g Guest) once(ctx context.Context, b Boot) (Outcome, error) {
	run, remove, err := ownedTemp("lab-")
	if err != nil {
		return Outcome{}, err
	}
	defer remove()
	if g.TPM {
		stop, err := startTPM(ctx, filepath.Join(g.Dir, "tpm"), filepath.Join(run, "tpm.sock"))
		if err != nil {
			return Outcome{}, err
		}
		defer stop()
	}
	args, err := g.args(b, run)
	if err != nil {
		return Outcome{}, err
	}
	return g.power(ctx, b, args, run)
}

var errOverdue = errors.New("deadline passed")

// power starts QEMU and sees it through.
func (g Guest) power(ctx context.Context, b Boot, args []string, run string) (Outcome, error) {
	out := Outcome{ConsoleFile: filepath.Join(g.Dir, "console.log")}
	file, err := os.Create(out.ConsoleFile)
	if err != nil {
		return out, err
	}
	defer file.Close()

	// setpriv: should we be killed, so is QEMU.
	cmd := exec.Command("setpriv", append([]string{"--pdeathsig", "KILL", qemu}, args...)...)
	stderr := &tail{limit: tailLimit}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return out, err
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return out, &ProgramError{Program: qemu, Err: err}
	}

	var once sync.Once
	end := End("") // why we ended it; empty if it ended by itself
	seen := make(chan End, 1)
	check := func(text string) {
		switch {
		case b.Cut != nil && b.Cut.MatchString(text):
			once.Do(func() { seen <- PulledPlug })
		case b.Until != nil && b.Until.MatchString(text):
			once.Do(func() { seen <- Stopped })
		case strings.Contains(text, "end Kernel panic"):
			once.Do(func() { seen <- Panicked })
		}
	}
	lines := &console{
		now: func() time.Duration { return time.Since(started) },
		line: func(line Line) {
			if len(out.Console) < maxLines {
				out.Console = append(out.Console, line)
			}
			if b.OnLine != nil {
				b.OnLine(line)
			}
			check(line.Text)
		},
		partial: check,
	}
	read := make(chan error, 1)
	go func() { read <- lines.copy(io.TeeReader(stdout, file)) }()
	events := make(chan qmpEnd, 1)
	qmp, stopQMP := context.WithCancel(ctx)
	defer stopQMP()
	go func() { events <- readQMP(qmp, filepath.Join(run, "qmp.sock")) }()

	// The console's pipe ends when QEMU has: only then may Wait close it.
	var readErr error
	ended := false
	for !ended {
		select {
		case readErr = <-read:
			ended = true
		case end = <-seen:
			if end == PulledPlug || end == Panicked {
				cmd.Process.Kill()
			} else {
				cmd.Process.Signal(os.Interrupt)
			}
		case <-ctx.Done():
			end = Cancelled
			if context.Cause(ctx) == errOverdue {
				end = Overdue
			}
			cmd.Process.Kill()
			readErr, ended = <-read, true
		}
	}
	waitErr := cmd.Wait()
	out.Elapsed = time.Since(started)
	// Its last words are in the socket by now. A QEMU that never made one has none.
	time.AfterFunc(time.Second, stopQMP)
	event := <-events
	raw, err := os.ReadFile(filepath.Join(run, "witness"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil // QEMU failed before it made it
	}
	out.Witness = document(raw)
	// A pattern in the last words of a guest that then ended by itself has been seen all the same.
	if end == "" {
		select {
		case end = <-seen:
		default:
		}
	}

	failed := &BootError{Elapsed: out.Elapsed, Last: out.Console[max(0, len(out.Console)-lastLines):], Err: errors.Join(readErr, err)}
	if p := firstPattern(b.Cut, b.Until); p != nil && end != Stopped && end != PulledPlug {
		failed.Want = p.String()
	}
	out.End = end
	switch {
	case end == Stopped || end == PulledPlug:
		if failed.Err == nil {
			return out, nil
		}
	case end == Overdue, end == Panicked:
	case end == Cancelled:
		failed.Err = errors.Join(context.Cause(ctx), failed.Err)
	case waitErr != nil:
		out.End = Died
		failed.Err = errors.Join(&ProgramError{Program: qemu, Err: waitErr, Stderr: stderr.String()}, failed.Err)
	case event.reason == "guest-shutdown":
		out.End = PoweredOff
	case event.reason == "guest-reset":
		out.End = Rebooted
	default:
		out.End = Died
		failed.Err = errors.Join(fmt.Errorf("QEMU ended for %q", event.reason), event.err, failed.Err)
	}
	if failed.Want == "" && failed.Err == nil && (out.End == PoweredOff || out.End == Rebooted) {
		return out, nil
	}
	failed.End = out.End
	return out, failed
}

func firstPattern(patterns ...*regexp.Regexp) *regexp.Regexp {
	for _, p := range patterns {
		if p != nil {
			return p
		}
	}
	return nil
}

// Make makes the guest's folder and what is in it, as its first boot would.
func (g Guest) Make(ctx context.Context) error {
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		return err
	}
	return g.assemble(ctx)
}

// assemble makes what the guest's folder does not have yet.
func (g Guest) assemble(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(g.Dir, "tpm"), 0o700); err != nil {
		return err
	}
	if g.UEFI {
		_, vars, err := firmware()
		if err != nil {
			return err
		}
		if err := copyFile(vars, filepath.Join(g.Dir, "vars.fd")); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, disk := range g.Disks {
		if !serialNumber.MatchString(disk.Serial) {
			return fmt.Errorf("disk serial %q: want 1 to 20 letters, digits or dashes", disk.Serial)
		}
		if _, _, err := g.disk(disk.Serial); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		args := []string{"create", "-q", "-f", "qcow2"}
		if disk.Base != "" {
			base, err := filepath.Abs(disk.Base)
			if err != nil {
				return err
			}
			args = append(args, "-b", base, "-F", "raw")
		}
		args = append(args, filepath.Join(g.Dir, disk.Serial+".qcow2"))
		if disk.Size != 0 {
			args = append(args, strconv.FormatInt(disk.Size, 10))
		}
		if err := run(ctx, "qemu-img", args...); err != nil {
			return err
		}
	}
	return nil
}

var serialNumber = regexp.MustCompile(`^[0-9A-Za-z-]{1,20}$`)

// disk gives the file that holds a disk's present contents, and its format.
func (g Guest) disk(serial string) (file, format string, err error) {
	for _, format := range []string{"raw", "qcow2"} {
		file := filepath.Join(g.Dir, serial+"."+format)
		if _, err := os.Stat(file); err == nil {
			return file, format, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", "", err
		}
	}
	return "", "", fmt.Errorf("disk %s: %w", serial, os.ErrNotExist)
}

// Raw gives the present contents of one of the guest's disks as a raw file, to be read and changed between boots, by [FAT] or anything else.
// From then on the guest uses that file.
func (g Guest) Raw(ctx context.Context, serial string) (string, error) {
	file, format, err := g.disk(serial)
	if err != nil || format == "raw" {
		return file, err
	}
	raw := filepath.Join(g.Dir, serial+".raw")
	if err := run(ctx, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, raw+".new"); err != nil {
		return "", err
	}
	return raw, errors.Join(os.Rename(raw+".new", raw), os.Remove(file))
}

// Clone gives a guest with the same hardware and the same memory, whose folder is dir: from here on their ways part. Between boots only.
func (g Guest) Clone(ctx context.Context, dir string) (Guest, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Guest{}, err
	}
	if err := run(ctx, "cp", "--archive", "--sparse=always", "--reflink=auto", g.Dir+"/.", dir); err != nil {
		return Guest{}, err
	}
	g.Dir = dir
	return g, nil
}
