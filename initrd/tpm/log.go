package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultLog is where systemd keeps its event log of user space. /run is a
// tmpfs that outlives switch-root, so the log covers one boot.
const DefaultLog = "/run/log/systemd/tpm2-measure.log"

// LockTimeout is how long the lock on the log is waited for. Whoever holds it
// waits for one TPM command at most, and [CommandTimeout] bounds ours.
const LockTimeout = 2 * CommandTimeout

// MaxLog is the size in bytes up to which an event log is read. Those of a boot
// have some kilobytes, rarely more than a hundred.
const MaxLog = 16 << 20

// ErrDirtyLog means that the log is marked as incomplete, see the package
// comment. From [Log.Extend] it means that the PCR was extended as asked and that
// there is no record of it, which is what systemd does with such a log.
var ErrDirtyLog = errors.New("event log is marked incomplete")

// Outcome is what became of the PCR when an extension failed.
type Outcome int

const (
	NotExtended Outcome = iota // the PCR has its old value
	Extended                   // the PCR has its new value; what failed is the record
	Unknown                    // the TPM gave no answer to the command, or one that made no sense
)

func (o Outcome) String() string {
	switch o {
	case NotExtended:
		return "not extended"
	case Extended:
		return "extended, but not recorded"
	default:
		return "perhaps extended"
	}
}

// ExtendError is the error of every failed extension.
type ExtendError struct {
	PCR     int
	Outcome Outcome
	Err     error // among others [ErrDirtyLog], a *[LogError], a *[DeviceError], a *[BankError]
}

func (e *ExtendError) Error() string { return fmt.Sprintf("PCR %d %v: %v", e.PCR, e.Outcome, e.Err) }
func (e *ExtendError) Unwrap() error { return e.Err }

// LogError says what is wrong with an event log.
type LogError struct {
	Path   string // empty if the log came from a reader
	Record int    // from 1; 0 if it is not about a record
	Err    error  // among others [ErrTorn]
}

func (e *LogError) Error() string {
	s := "event log"
	if e.Path != "" {
		s += " " + e.Path
	}
	if e.Record != 0 {
		s += fmt.Sprintf(": record %d", e.Record)
	}
	return s + ": " + e.Err.Error()
}

func (e *LogError) Unwrap() error { return e.Err }

// Log is the event log of user space. The zero value is this boot's log.
type Log struct {
	// Path of the log, [DefaultLog] if empty.
	Path string
	// BootID for new records, 32 lower-case hex digits; if empty, the kernel's,
	// see [BootID].
	BootID string
	// Now is the time since boot for new records; if nil, CLOCK_BOOTTIME.
	Now func() time.Duration
}

func (l Log) path() string {
	if l.Path == "" {
		return DefaultLog
	}
	return l.Path
}

func (l Log) fail(err error) error {
	if err == nil {
		return nil
	}
	return &LogError{Path: l.path(), Err: reason(err)}
}

func (l Log) now() time.Duration {
	if l.Now != nil {
		return l.Now()
	}
	var ts unix.Timespec
	// Cannot fail: the clock exists since Linux 2.6.39 and ts is writable.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// BootID is the kernel's id of this boot as the event log has it: 32 lower-case
// hex digits.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	id := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	return id, checkBootID(id)
}

func checkBootID(id string) error {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("boot id %q: not 32 lower-case hex digits", id)
	}
	return nil
}

// Extend extends PCR pcr, 0 to 23, of d with the word in every active bank and
// appends the record of it to the log, which it makes, with the directories
// above it, if there is none. Other programs that keep to the protocol in the
// package comment may measure at the same time. The word has 1 to [MaxWord]
// bytes. The record has a boot id from the log, or the kernel's.
//
// The error is an *[ExtendError], which tells whether the PCR was extended. It
// is [ErrDirtyLog] if the log was marked incomplete before. If the log cannot be
// opened, is a symbolic link or no regular file, or stays locked for
// [LockTimeout], then nothing is extended.
func (l Log) Extend(d *Device, pcr int, word string) error {
	outcome, err := l.extend(d, pcr, word)
	if err != nil {
		return &ExtendError{PCR: pcr, Outcome: outcome, Err: err}
	}
	return nil
}

func (l Log) extend(d *Device, pcr int, word string) (Outcome, error) {
	digests, err := d.digests(pcr, word)
	if err != nil {
		return NotExtended, err
	}
	if l.BootID == "" {
		l.BootID, err = BootID()
	} else {
		err = checkBootID(l.BootID)
	}
	if err != nil {
		return NotExtended, err
	}
	f, dirty, err := l.open(d.ctx)
	if err != nil {
		return NotExtended, l.fail(err)
	}
	defer f.Close()
	if dirty {
		outcome, err := d.extend(pcr, digests)
		if err == nil {
			err = l.fail(ErrDirtyLog)
		}
		return outcome, err
	}

	if err := f.Chmod(0o600 | fs.ModeSticky); err != nil {
		return NotExtended, l.fail(err)
	}
	outcome, err := d.extend(pcr, digests)
	if err != nil {
		if outcome == NotExtended {
			err = errors.Join(err, l.fail(f.Chmod(0o600)))
		}
		return outcome, err
	}
	if err := l.append(f, newRecord(pcr, digests, word, l.BootID, l.now())); err != nil {
		return Extended, l.fail(err)
	}
	return Extended, nil
}

// open opens the log for writing and locks it. dirty is whether it was marked
// incomplete by an earlier holder of the lock.
func (l Log) open(ctx context.Context) (f *os.File, dirty bool, err error) {
	if err := os.MkdirAll(filepath.Dir(l.path()), 0o755); err != nil {
		return nil, false, err
	}
	// No O_APPEND, as systemd has it: the end is looked for under the lock.
	return openLocked(ctx, l.path(), os.O_WRONLY|os.O_CREATE, unix.LOCK_EX)
}

// openLocked never follows a symbolic link, and never waits at a FIFO, which a
// regular file in its place could become.
func openLocked(ctx context.Context, path string, flags, lock int) (f *os.File, dirty bool, err error) {
	f, err = os.OpenFile(path, flags|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	// Before the lock: a device is locked by others for their own reasons.
	fi, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !fi.Mode().IsRegular() {
		return nil, false, fmt.Errorf("not a regular file: %v", fi.Mode())
	}
	if err := flock(ctx, f, lock); err != nil {
		return nil, false, err
	}
	// And again under it, where the mark holds still.
	if fi, err = f.Stat(); err != nil {
		return nil, false, err
	}
	return f, fi.Mode()&fs.ModeSticky != 0, nil
}

// flock waits for a BSD lock by asking again and again: a flock(2) that waits
// cannot be given a time limit.
func flock(ctx context.Context, f *os.File, how int) error {
	ctx, cancel := context.WithTimeout(ctx, LockTimeout)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch err {
		case nil:
			return nil
		case unix.EWOULDBLOCK, unix.EINTR:
		default:
			return fmt.Errorf("lock: %w", err)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("locked by another program: %w", err)
		}
	}
}

// append writes the record at the end of the log and takes the mark off. If the
// record cannot be written whole, what was written of it is cut off again, so
// that the log, though marked incomplete for good, can still be read.
func (l Log) append(f *os.File, record []byte) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.Write(record); err != nil {
		return errors.Join(err, f.Truncate(end))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// systemd does so too, for a log that is not on a tmpfs.
	dir, err := os.Open(filepath.Dir(l.path()))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Cap extends [FailedWord] into PCR pcr of d whatever state the log is in: with
// a record if the log can take one, without one otherwise. nil means that the
// PCR has been extended; an error means that it has not, or perhaps not, and is
// an *[ExtendError].
//
// To extend the word twice does no harm: any value but that of a good boot will do.
func (l Log) Cap(d *Device, pcr int) error {
	err := l.Extend(d, pcr, FailedWord)
	if e, ok := errors.AsType[*ExtendError](err); ok && e.Outcome == Extended {
		return nil
	}
	if err == nil {
		return nil
	}
	return d.Extend(pcr, FailedWord)
}

// Events are the records of the log, oldest first. A log that does not exist has
// none. The log is locked for reading, so that a record that is being written
// right now is waited for, at most [LockTimeout].
//
// The error is a *[LogError]; it is [ErrTorn] if a record was not written to its
// end. With an error about a record come the events before it. In a log that is
// marked incomplete a torn record is no error: whoever tore it said so by the mark.
func (l Log) Events() ([]Event, error) {
	data, dirty, err := l.read(context.Background())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, l.fail(err)
	}
	events, err := parseRecords(data)
	if dirty && errors.Is(err, ErrTorn) {
		return events, nil
	}
	if e, ok := errors.AsType[*LogError](err); ok {
		e.Path = l.path()
	}
	return events, err
}

// Dirty is whether the log is marked incomplete: then there may have been
// extensions that [Log.Events] does not have. A log that does not exist is not.
// The error is a *[LogError].
func (l Log) Dirty() (bool, error) {
	f, dirty, err := openLocked(context.Background(), l.path(), os.O_RDONLY, unix.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, l.fail(err)
	}
	return dirty, l.fail(f.Close())
}

func (l Log) read(ctx context.Context) (data []byte, dirty bool, err error) {
	f, dirty, err := openLocked(ctx, l.path(), os.O_RDONLY, unix.LOCK_SH)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	data, err = readLog(f)
	return data, dirty, err
}

func readLog(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxLog+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxLog {
		return nil, fmt.Errorf("more than %d bytes", MaxLog)
	}
	return data, nil
}
