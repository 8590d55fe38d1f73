package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"pilotlight/initrd/tpm/swtpm"
)

func openDevice(t testing.TB, ctx context.Context, path string) *Device {
	t.Helper()
	d, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// response is a response without sessions.
func response(rc tpm2.TPMRC, parameters ...byte) []byte {
	r := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	r = binary.BigEndian.AppendUint32(r, uint32(headerSize+len(parameters)))
	r = binary.BigEndian.AppendUint32(r, uint32(rc))
	return append(r, parameters...)
}

func commandCode(command []byte) tpm2.TPMCC {
	return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
}

// banksResponse answers TPM2_GetCapability(TPM_CAP_PCRS) with banks of 24 PCRs.
func banksResponse(algs ...tpm2.TPMAlgID) []byte {
	p := []byte{0}
	p = binary.BigEndian.AppendUint32(p, uint32(tpm2.TPMCapPCRs))
	p = binary.BigEndian.AppendUint32(p, uint32(len(algs)))
	for _, alg := range algs {
		p = binary.BigEndian.AppendUint16(p, uint16(alg))
		p = append(p, 3, 0xff, 0xff, 0xff)
	}
	return response(tpm2.TPMRCSuccess, p...)
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		absent     bool
		want       string
	}{
		{"no node", filepath.Join(dir, "tpmrm0"), true, "open: no TPM device"},
		{"no directory", filepath.Join(dir, "dev", "tpmrm0"), true, "open: no TPM device"},
		{"regular file", file, false, "neither a character device nor a socket"},
		{"directory", dir, false, "neither a character device nor a socket"},
		{"below a file", filepath.Join(file, "tpmrm0"), false, "not a directory"},
	} {
		d, err := Open(t.Context(), c.path)
		if d != nil || err == nil {
			t.Errorf("%s: opened", c.name)
			continue
		}
		var e *DeviceError
		if !errors.As(err, &e) || e.Path != c.path || e.Op != "open" {
			t.Errorf("%s: %#v, want a DeviceError of open and the path", c.name, err)
		}
		if errors.Is(err, ErrAbsent) != c.absent {
			t.Errorf("%s: %v: absent is %v, want %v", c.name, err, !c.absent, c.absent)
		}
		if !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), c.path) != 1 {
			t.Errorf("%s: %q, want %q in it and the path once", c.name, err, c.want)
		}
	}
}

// A device node whose driver is not there, as a static /dev has it.
func TestOpenNodeWithoutDriver(t *testing.T) {
	node := filepath.Join(t.TempDir(), "tpmrm0")
	// Major 240 to 254 are for local use (admin-guide/devices.rst).
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(240, 200))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), node); !errors.Is(err, ErrAbsent) {
		t.Errorf("%v, want %v", err, ErrAbsent)
	}
}

func TestNothingListens(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	d := openDevice(t, t.Context(), socket)
	if _, err := d.Banks(); !errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, ErrAbsent) {
		t.Errorf("%v, want %v", err, unix.ECONNREFUSED)
	}
}

func TestBanksAndPCR(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	banks, err := d.Banks()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(banks, Banks()) {
		t.Errorf("banks %v, want %v", banks, Banks())
	}
	for pcr, fill := range map[int]byte{0: 0, 12: 0, 17: 0xff, 23: 0} {
		values, err := d.PCR(pcr)
		if err != nil {
			t.Fatal(err)
		}
		if len(values) != len(Banks()) {
			t.Errorf("PCR %d has %d banks, want %d", pcr, len(values), len(Banks()))
		}
		for b, value := range values {
			if !bytes.Equal(value, bytes.Repeat([]byte{fill}, b.Size())) {
				t.Errorf("PCR %d, bank %s: %x, want %d bytes of %#x", pcr, b, value, b.Size(), fill)
			}
		}
	}
	for _, pcr := range []int{-1, 24} {
		if _, err := d.PCR(pcr); err == nil || !strings.Contains(err.Error(), "not 0 to 23") {
			t.Errorf("PCR %d: %v", pcr, err)
		}
	}
}

func TestDeviceExtend(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Start(t))
	for _, word := range []string{"one", "two"} {
		if err := d.Extend(12, word); err != nil {
			t.Fatal(err)
		}
	}
	wantPCR(t, d, 12, Replay(nil, []string{"one", "two"}))
	wantPCR(t, d, 11, Replay(nil, nil))
	for _, c := range []struct {
		pcr        int
		word, want string
	}{
		{12, "", "the word to measure is empty"},
		{12, strings.Repeat("x", MaxWord+1), "1025 bytes, more than 1024"},
		{24, "x", "not 0 to 23"},
		{-1, "x", "not 0 to 23"},
	} {
		err := d.Extend(c.pcr, c.word)
		wantOutcome(t, err, NotExtended)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("PCR %d: %v, want %q", c.pcr, err, c.want)
		}
	}
	wantPCR(t, d, 12, Replay(nil, []string{"one", "two"}))
	// Locality 0 may not extend the PCRs of the dynamic root of trust.
	err := d.Extend(17, "x")
	wantOutcome(t, err, NotExtended)
	if !errors.Is(err, tpm2.TPMRCLocality) {
		t.Errorf("PCR 17: %v, want %v", err, tpm2.TPMRCLocality)
	}
}

func wantPCR(t testing.TB, d *Device, pcr int, want map[Bank][]byte) {
	t.Helper()
	got, err := d.PCR(pcr)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("PCR %d has %d banks, want %d", pcr, len(got), len(want))
	}
	for b, value := range want {
		if !bytes.Equal(got[b], value) {
			t.Errorf("PCR %d, bank %s: %x, want %x", pcr, b, got[b], value)
		}
	}
}

func wantOutcome(t testing.TB, err error, want Outcome) {
	t.Helper()
	var e *ExtendError
	if !errors.As(err, &e) {
		t.Fatalf("%v, want an ExtendError", err)
	}
	if e.Outcome != want {
		t.Fatalf("%v: outcome %v, want %v", err, e.Outcome, want)
	}
}

func TestSilentTPM(t *testing.T) {
	socket := swtpm.Wire(t, func([]byte) []byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	d := openDevice(t, ctx, socket)
	began := time.Now()
	_, err := d.Banks()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	var e *DeviceError
	if !errors.As(err, &e) || e.Op != "TPM2_GetCapability" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want TPM2_GetCapability and %v", err, context.DeadlineExceeded)
	}
	// A boot that is over sends no more commands.
	if _, err := d.PCR(12); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
}

func TestCancelledWhileTPMIsSilent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	socket := swtpm.Wire(t, func([]byte) []byte { cancel(); return nil })
	d := openDevice(t, ctx, socket)
	if _, err := d.Banks(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

func TestTPMErrors(t *testing.T) {
	for _, c := range []struct {
		name     string
		response []byte
		is       error
		want     string
	}{
		{"failure mode", response(tpm2.TPMRCFailure), tpm2.TPMRCFailure, "TPM_RC_FAILURE"},
		{"not started", response(tpm2.TPMRCInitialize), tpm2.TPMRCInitialize, "TPM_RC_INITIALIZE"},
		{"hangs up", []byte{}, io.EOF, "response header"},
		{"half a header", []byte{0x80, 1, 0}, io.ErrUnexpectedEOF, "response header"},
		{"shorter than it says", response(0, 1, 2, 3)[:11], io.ErrUnexpectedEOF, "response of 13 bytes"},
		{"too small", []byte{0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0}, nil, "announces 9 bytes"},
		{"too large", []byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, nil, "announces 4294967295 bytes"},
		{"no parameters", response(0), nil, "TPM2_GetCapability"},
		{"endless list", response(0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff), nil, "TPM2_GetCapability"},
		{"another capability", response(0, 0, 0, 0, 0, 1, 0, 0, 0, 0), nil, "TPM2_GetCapability"},
		{"no bank", banksResponse(), nil, "no PCR bank is active"},
		{"part of the banks", append(response(0, append([]byte{1}, banksResponse(tpm2.TPMAlgSHA256)[11:]...)...), nil...), nil, "not complete"},
	} {
		d := openDevice(t, t.Context(), swtpm.Wire(t, func([]byte) []byte { return c.response }))
		_, err := d.Banks()
		var e *DeviceError
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, want a DeviceError", c.name, err)
			continue
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", c.name, err, c.is)
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestBusyTPMIsAskedAgain(t *testing.T) {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCTesting, tpm2.TPMRCYielded} {
		asked := 0
		d := openDevice(t, t.Context(), swtpm.Wire(t, func([]byte) []byte {
			asked++
			if asked < 3 {
				return response(rc)
			}
			return banksResponse(tpm2.TPMAlgSHA256)
		}))
		banks, err := d.Banks()
		if err != nil || !slices.Equal(banks, []Bank{SHA256}) {
			t.Errorf("%v: banks %v, %v", rc, banks, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	d := openDevice(t, ctx, swtpm.Wire(t, func([]byte) []byte { return response(tpm2.TPMRCRetry) }))
	// Time is up while it waits to ask again, or while it asks.
	if _, err := d.Banks(); !errors.Is(err, tpm2.TPMRCRetry) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v or %v", err, tpm2.TPMRCRetry, context.DeadlineExceeded)
	}
}

func TestBankThatCannotBeComputed(t *testing.T) {
	d := openDevice(t, t.Context(), swtpm.Wire(t, func(command []byte) []byte {
		if commandCode(command) != tpm2.TPMCCGetCapability {
			return response(tpm2.TPMRCFailure)
		}
		return banksResponse(tpm2.TPMAlgSHA256, tpm2.TPMAlgSM3256, tpm2.TPMAlgSHA3384, 0xabcd)
	}))
	banks, err := d.Banks()
	if want := []Bank{SHA256, "sm3_256", "sha3_384", "0xabcd"}; err != nil || !slices.Equal(banks, want) {
		t.Fatalf("banks %v, %v, want %v", banks, err, want)
	}
	log := Log{Path: filepath.Join(t.TempDir(), "log")}
	for _, err := range []error{d.Extend(12, "x"), log.Extend(d, 12, "x")} {
		wantOutcome(t, err, NotExtended)
		var e *BankError
		if !errors.As(err, &e) || e.Bank != "sm3_256" || e.PCR != 12 {
			t.Errorf("%v, want a BankError of sm3_256", err)
		}
	}
	if _, err := os.Stat(log.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log was made: %v", err)
	}
}

func TestPCRResponses(t *testing.T) {
	selection := []byte{0, 0, 0, 1, 0, 0xb, 3, 0, 0x10, 0}
	for _, c := range []struct {
		name       string
		parameters []byte
		want       string
	}{
		{"no value", slices.Concat([]byte{0, 0, 0, 1}, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0}), "not the PCRs"},
		{"another PCR", slices.Concat([]byte{0, 0, 0, 1}, []byte{0, 0, 0, 1, 0, 0xb, 3, 1, 0, 0}, []byte{0, 0, 0, 1, 0, 32}, make([]byte, 32)), "not the PCRs"},
		{"short value", slices.Concat([]byte{0, 0, 0, 1}, selection, []byte{0, 0, 0, 1, 0, 20}, make([]byte, 20)), "20 bytes, not 32"},
		{"two values", slices.Concat([]byte{0, 0, 0, 1}, selection, []byte{0, 0, 0, 2, 0, 1, 0, 0, 1, 0}), "not the PCRs"},
	} {
		d := openDevice(t, t.Context(), swtpm.Wire(t, func(command []byte) []byte {
			if commandCode(command) == tpm2.TPMCCGetCapability {
				return banksResponse(tpm2.TPMAlgSHA256)
			}
			return response(0, c.parameters...)
		}))
		if _, err := d.PCR(12); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// kernelDevice is a Device whose file is one end of a socket pair that keeps
// messages apart, as the kernel's TPM device does.
func kernelDevice(t testing.TB, ctx context.Context) (d *Device, peer int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	d = &Device{ctx: ctx, path: "/dev/tpmrm0", conn: &deviceConn{fd: fds[0]}}
	t.Cleanup(func() {
		_ = d.Close()
		_ = unix.Close(fds[1])
	})
	return d, fds[1]
}

func TestDeviceFile(t *testing.T) {
	emulator := socketConn{swtpm.Start(t)}
	d, peer := kernelDevice(t, t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		command := make([]byte, maxResponse)
		for {
			n, err := unix.Read(peer, command)
			if err != nil || n == 0 {
				return
			}
			response, err := emulator.transmit(context.Background(), command[:n])
			if err != nil {
				return
			}
			_, _ = unix.Write(peer, response)
		}
	}()
	if err := d.Extend(12, "word"); err != nil {
		t.Fatal(err)
	}
	wantPCR(t, d, 12, Replay(nil, []string{"word"}))
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if err := d.Extend(12, "word"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v, want %v", err, net.ErrClosed)
	} else {
		wantOutcome(t, err, NotExtended)
	}
}

func TestDeviceFileSilent(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	d, _ := kernelDevice(t, ctx)
	if _, err := d.Banks(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
	// The answer may still come, and must not be taken for that of another command.
	d.ctx = t.Context()
	if _, err := d.Banks(); !errors.Is(err, errUnanswered) {
		t.Errorf("%v, want %v", err, errUnanswered)
	}
}

func TestDeviceFileOddAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer []byte
		want   string
	}{
		{"short", []byte{0x80, 1}, "has no header"},
		{"announces more", []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 0}, "response of 11 bytes announces 12"},
		{"announces less", append(response(0), 1, 2), "response of 12 bytes announces 10"},
	} {
		d, peer := kernelDevice(t, t.Context())
		if _, err := unix.Write(peer, c.answer); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Banks(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// The null device takes every command and reads as empty, as a TPM does that is
// not finished.
func TestDeviceThatReadsAsEmpty(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	d := openDevice(t, ctx, "/dev/null")
	if _, err := d.Banks(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
}

func FuzzResponses(f *testing.F) {
	f.Add(banksResponse(tpm2.TPMAlgSHA256)[headerSize:], []byte{0, 0, 0, 1})
	f.Add(banksResponse()[headerSize:], []byte{})
	f.Add([]byte{0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 255}, []byte{0})
	f.Fuzz(func(t *testing.T, banks, pcr []byte) {
		d := &Device{ctx: t.Context(), path: "fuzz", conn: replies{banks, pcr}}
		values, err := d.PCR(12)
		if (err == nil) == (len(values) == 0) {
			t.Fatalf("%d values and %v", len(values), err)
		}
		_ = d.Extend(12, "word")
	})
}

// replies answers each command with its response's parameters.
type replies struct{ banks, other []byte }

func (r replies) transmit(_ context.Context, command []byte) ([]byte, error) {
	p := r.other
	if commandCode(command) == tpm2.TPMCCGetCapability {
		p = r.banks
	}
	return response(tpm2.TPMRCSuccess, p[:min(len(p), maxResponse-headerSize)]...), nil
}

func (replies) Close() error { return nil }
