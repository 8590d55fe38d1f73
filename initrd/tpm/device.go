package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

// DefaultDevice is the kernel's TPM 2.0 device with a resource manager, which
// several programs can use at once.
const DefaultDevice = "/dev/tpmrm0"

// CommandTimeout is how long a single TPM command may take, unless the context
// given to [Open] ends before. The PC Client profile lets a PCR extend take some
// tens of milliseconds; 30 s leave room for a TPM in its self-test.
const CommandTimeout = 30 * time.Second

// ErrAbsent means that there is no TPM device: nothing has the path, or the node
// is there and the kernel has no driver behind it. Any other error of [Open]
// means that it could not be found out or used.
var ErrAbsent = errors.New("no TPM device")

// DeviceError says what could not be asked of which device.
type DeviceError struct {
	Path string // as given to Open
	// Op is "open" or the name of the TPM command, for instance "TPM2_PCR_Extend".
	Op string
	// Err is the reason: [ErrAbsent], context.DeadlineExceeded when no answer
	// came in time, a tpm2.TPMRC when the TPM answered with an error, or
	// whatever the kernel said.
	Err error
}

func (e *DeviceError) Error() string { return "tpm " + e.Path + ": " + e.Op + ": " + e.Err.Error() }
func (e *DeviceError) Unwrap() error { return e.Err }

// BankError says that a bank is active in which this package cannot measure.
type BankError struct {
	Path string
	PCR  int
	Bank Bank
}

func (e *BankError) Error() string {
	return fmt.Sprintf("tpm %s: PCR %d is active in bank %s, which cannot be measured into", e.Path, e.PCR, e.Bank)
}

// Device is an open TPM 2.0. Its methods may be called from several goroutines;
// commands go one after the other.
type Device struct {
	ctx  context.Context
	path string

	mu         sync.Mutex // held for one command
	conn       conn
	allocation []allocation // asked once: it cannot change before the next reset of the TPM
}

// allocation is the set of PCRs that a bank has, as a TPMS_PCR_SELECTION.
type allocation struct {
	alg  tpm2.TPMAlgID
	pcrs []byte
}

func (a allocation) has(pcr int) bool {
	return pcr/8 < len(a.pcrs) && a.pcrs[pcr/8]&(1<<(pcr%8)) != 0
}

func (a allocation) bank() Bank { return bankOf(a.alg) }

// bankOf names the bank of a hash algorithm, TPM 2.0 Library Part 2, TPM_ALG_ID.
func bankOf(alg tpm2.TPMAlgID) Bank {
	switch alg {
	case tpm2.TPMAlgSHA1:
		return SHA1
	case tpm2.TPMAlgSHA256:
		return SHA256
	case tpm2.TPMAlgSHA384:
		return SHA384
	case tpm2.TPMAlgSHA512:
		return SHA512
	case tpm2.TPMAlgSM3256:
		return "sm3_256"
	case tpm2.TPMAlgSHA3256:
		return "sha3_256"
	case tpm2.TPMAlgSHA3384:
		return "sha3_384"
	case tpm2.TPMAlgSHA3512:
		return "sha3_512"
	}
	return Bank(fmt.Sprintf("0x%04x", uint16(alg)))
}

// Open opens a TPM 2.0: a character device of the kernel such as
// [DefaultDevice], or the Unix socket of an emulator such as swtpm(8). It sends
// no command. ctx bounds the whole life of the device: when it ends, every
// command that is under way or still to come fails with its error.
//
// The error is a *[DeviceError], and is [ErrAbsent] if there is no device.
func Open(ctx context.Context, path string) (*Device, error) {
	c, err := open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		err = ErrAbsent
	}
	if err != nil {
		return nil, &DeviceError{Path: path, Op: "open", Err: err}
	}
	return &Device{ctx: ctx, path: path, conn: c}, nil
}

func open(path string) (conn, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, reason(err)
	}
	switch mode := fi.Mode(); {
	case mode.Type() == fs.ModeSocket:
		return socketConn{path}, nil
	case mode.Type() == fs.ModeDevice|fs.ModeCharDevice:
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return &deviceConn{fd: fd}, nil
	default:
		return nil, fmt.Errorf("neither a character device nor a socket: %v", mode)
	}
}

// reason takes the operation and the path off an error of the os and net
// packages: the errors here name the device already.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if n, ok := errors.AsType[*net.OpError](err); ok {
		return n.Err
	}
	return err
}

// Close gives the device back. A command that was left without an answer keeps
// it open until the kernel gives that command up, but Close does not wait for it.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.conn.Close(); err != nil {
		return &DeviceError{Path: d.path, Op: "close", Err: err}
	}
	return nil
}

// sender carries the commands of go-tpm: it is a transport.TPM.
type sender struct{ device *Device }

func (s sender) Send(command []byte) ([]byte, error) {
	d := s.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ctx.Err(); err != nil {
		return nil, &unsentError{err}
	}
	ctx, cancel := context.WithTimeout(d.ctx, CommandTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		response, err := d.conn.transmit(ctx, command)
		if err != nil {
			return nil, err
		}
		switch rc := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:10])); rc {
		case tpm2.TPMRCRetry, tpm2.TPMRCTesting, tpm2.TPMRCYielded:
			// Not executed, ask again. The kernel's driver does so by itself,
			// an emulator's socket does not.
			if pause(ctx, wait) != nil {
				return response, nil
			}
		default:
			return response, nil
		}
	}
}

// failure names the device and the command in an error of that command.
func (d *Device) failure(op string, err error) error {
	if u, ok := errors.AsType[*unsentError](err); ok {
		return &DeviceError{Path: d.path, Op: op, Err: &unsentError{reason(u.err)}}
	}
	return &DeviceError{Path: d.path, Op: op, Err: reason(err)}
}

// allocations asks which PCRs each bank has. Banks without any are left out.
func (d *Device) allocations() ([]allocation, error) {
	d.mu.Lock()
	known := d.allocation
	d.mu.Unlock()
	if known != nil {
		return known, nil
	}
	const op = "TPM2_GetCapability"
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(sender{d})
	if err != nil {
		return nil, d.failure(op, err)
	}
	if rsp.MoreData {
		return nil, d.failure(op, errors.New("the list of PCR banks is not complete"))
	}
	assigned, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, d.failure(op, err)
	}
	var found []allocation
	for _, s := range assigned.PCRSelections {
		if slices.ContainsFunc(s.PCRSelect, func(b byte) bool { return b != 0 }) {
			found = append(found, allocation{alg: s.Hash, pcrs: s.PCRSelect})
		}
	}
	if len(found) == 0 {
		return nil, d.failure(op, errors.New("no PCR bank is active"))
	}
	d.mu.Lock()
	d.allocation = found
	d.mu.Unlock()
	return found, nil
}

// banksOf are the banks in which the TPM has the PCR, in the TPM's order, which
// is the order of the digests in the event log.
func (d *Device) banksOf(pcr int) ([]allocation, error) {
	if err := checkPCR(pcr); err != nil {
		return nil, err
	}
	all, err := d.allocations()
	if err != nil {
		return nil, err
	}
	with := slices.DeleteFunc(slices.Clone(all), func(a allocation) bool { return !a.has(pcr) })
	if len(with) == 0 {
		return nil, fmt.Errorf("tpm %s: no bank has PCR %d", d.path, pcr)
	}
	return with, nil
}

func checkPCR(pcr int) error {
	if pcr < 0 || pcr >= PCRs {
		return fmt.Errorf("PCR %d: not 0 to %d", pcr, PCRs-1)
	}
	return nil
}

// Banks are the active PCR banks, those in which at least one PCR is allocated,
// in the TPM's order. None active is an error. The error is a *[DeviceError].
func (d *Device) Banks() ([]Bank, error) {
	all, err := d.allocations()
	if err != nil {
		return nil, err
	}
	banks := make([]Bank, len(all))
	for i, a := range all {
		banks[i] = a.bank()
	}
	return banks, nil
}

// PCR reads PCR n, 0 to 23, in every bank that has it. The values are of one
// moment: one command reads them all.
func (d *Device) PCR(n int) (map[Bank][]byte, error) {
	banks, err := d.banksOf(n)
	if err != nil {
		return nil, err
	}
	var cmd tpm2.PCRRead
	for _, b := range banks {
		cmd.PCRSelectionIn.PCRSelections = append(cmd.PCRSelectionIn.PCRSelections,
			tpm2.TPMSPCRSelection{Hash: b.alg, PCRSelect: tpm2.PCClientCompatible.PCRs(uint(n))})
	}
	const op = "TPM2_PCR_Read"
	rsp, err := cmd.Execute(sender{d})
	if err != nil {
		return nil, d.failure(op, err)
	}
	same := slices.EqualFunc(rsp.PCRSelectionOut.PCRSelections, cmd.PCRSelectionIn.PCRSelections,
		func(a, b tpm2.TPMSPCRSelection) bool {
			return a.Hash == b.Hash && bytes.Equal(a.PCRSelect, b.PCRSelect)
		})
	if !same || len(rsp.PCRValues.Digests) != len(banks) {
		return nil, d.failure(op, errors.New("the response has not the PCRs that were asked for"))
	}
	values := make(map[Bank][]byte, len(banks))
	for i, b := range banks {
		value := rsp.PCRValues.Digests[i].Buffer
		if size := b.bank().Size(); size != 0 && len(value) != size {
			return nil, d.failure(op, fmt.Errorf("bank %s: value of %d bytes, not %d", b.bank(), len(value), size))
		}
		values[b.bank()] = value
	}
	return values, nil
}

// bankDigest is what one bank is extended with.
type bankDigest struct {
	alg    tpm2.TPMAlgID
	bank   Bank
	digest []byte
}

// digests computes what PCR pcr is extended with for word, in every bank that
// has the PCR, or fails if there is one that cannot be computed.
func (d *Device) digests(pcr int, word string) ([]bankDigest, error) {
	if err := checkWord(word); err != nil {
		return nil, err
	}
	banks, err := d.banksOf(pcr)
	if err != nil {
		return nil, err
	}
	digests := make([]bankDigest, len(banks))
	for i, b := range banks {
		digest := Digest(b.bank(), word)
		if digest == nil {
			return nil, &BankError{Path: d.path, PCR: pcr, Bank: b.bank()}
		}
		digests[i] = bankDigest{alg: b.alg, bank: b.bank(), digest: digest}
	}
	return digests, nil
}

func checkWord(word string) error {
	switch {
	case word == "":
		return errors.New("the word to measure is empty")
	case len(word) > MaxWord:
		return fmt.Errorf("the word to measure has %d bytes, more than %d", len(word), MaxWord)
	}
	return nil
}

// extend executes TPM2_PCR_Extend and says what became of the PCR.
func (d *Device) extend(pcr int, digests []bankDigest) (Outcome, error) {
	cmd := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{
		Handle: tpm2.TPMHandle(pcr), // TPM_HT_PCR: the handle is the index
		Auth:   tpm2.PasswordAuth(nil),
	}}
	for _, b := range digests {
		cmd.Digests.Digests = append(cmd.Digests.Digests, tpm2.TPMTHA{HashAlg: b.alg, Digest: b.digest})
	}
	_, err := cmd.Execute(sender{d})
	if err == nil {
		return Extended, nil
	}
	outcome := Unknown
	_, refused := errors.AsType[tpm2.TPMRC](err)
	_, unsent := errors.AsType[*unsentError](err)
	if refused || unsent {
		outcome = NotExtended
	}
	return outcome, d.failure("TPM2_PCR_Extend", err)
}

// Extend extends PCR pcr, 0 to 23, with the word in every active bank, and
// writes no record of it: from then on the event log does not replay to the
// PCR's value. It is for [Log.Cap] and for a caller who prefers a PCR without a
// log to no PCR; everybody else wants [Log.Extend]. The error is an
// *[ExtendError].
func (d *Device) Extend(pcr int, word string) error {
	digests, err := d.digests(pcr, word)
	if err != nil {
		return &ExtendError{PCR: pcr, Outcome: NotExtended, Err: err}
	}
	if outcome, err := d.extend(pcr, digests); err != nil {
		return &ExtendError{PCR: pcr, Outcome: outcome, Err: err}
	}
	return nil
}
