package initrd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"pilotlight/initrd/tpm"
	"pilotlight/initrd/tpm/swtpm"
)

// withFirmwareTPM is a /sys whose firmware has a TPM.
func withFirmwareTPM() fs.FS { return fstest.MapFS{"firmware/acpi/tables/TPM2": {}} }

// measuring is a machine whose TPM is at a path, and which waits for devices a while.
func measuring(t *testing.T, path string, sys fs.FS, wait time.Duration) *Machine {
	t.Helper()
	m, _ := testMachine(t)
	m.TPM, m.Disks.Sys, m.Wait = path, sys, wait
	m.Log = tpm.Log{Path: filepath.Join(t.TempDir(), "tpm2-measure.log"), BootID: m.Log.BootID}
	return m
}

// says is a response that is nothing but its code (TPM 2.0 Library Part 1, "Response").
func says(rc tpm2.TPMRC) []byte {
	r := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	r = binary.BigEndian.AppendUint32(r, 10)
	return binary.BigEndian.AppendUint32(r, uint32(rc))
}

// relay answers as another TPM does, but for the commands of one code.
func relay(t *testing.T, socket string, code tpm2.TPMCC, answer []byte) func([]byte) []byte {
	return func(command []byte) []byte {
		if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == code {
			return answer
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer c.Close()
		response := make([]byte, 4096)
		if _, err := c.Write(command); err != nil {
			t.Error(err)
		}
		n, err := c.Read(response)
		if err != nil {
			t.Error(err)
		}
		return response[:n]
	}
}

func wantPCR12(t *testing.T, socket string, words ...string) {
	t.Helper()
	d, err := tpm.Open(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := d.PCR(12)
	if err != nil {
		t.Fatal(err)
	}
	for bank, value := range tpm.Replay(nil, words) {
		if !bytes.Equal(got[bank], value) {
			t.Errorf("PCR 12 in %s: %x, want %x after %q", bank, got[bank], value, words)
		}
	}
}

// TestTPMThatGivesNoAnswer: without one a boot goes on, warned, unless one is required;
// either way the reason is told.
func TestTPMThatGivesNoAnswer(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "tpmrm0")
	nobody := fstest.MapFS{}
	for name, c := range map[string]struct {
		path     string
		sys      fs.FS
		is       error
		optional string // what is said where none is required
		required string
	}{
		"none": {nowhere, nobody, ErrNoTPM,
			"this machine has no TPM", "this machine has no TPM, and measure.required asks for one: waited 0 s for the TPM: there is no " + nowhere},
		"one without a driver": {nowhere, withFirmwareTPM(), ErrNoTPM,
			"though its firmware has one (is its driver in this initrd?)", "though its firmware has one (is its driver in this initrd?)"},
		"one in failure mode": {swtpm.Wire(t, func([]byte) []byte { return says(tpm2.TPMRCFailure) }), withFirmwareTPM(), ErrSilentTPM,
			"TPM2_GetCapability: TPM_RC_FAILURE", "TPM2_GetCapability: TPM_RC_FAILURE"},
		"one that was not started": {swtpm.Wire(t, func([]byte) []byte { return says(tpm2.TPMRCInitialize) }), nobody, ErrSilentTPM,
			"TPM_RC_INITIALIZE", "TPM_RC_INITIALIZE"},
		"one that talks nonsense": {swtpm.Wire(t, func([]byte) []byte { return []byte("nonsense, and long enough") }), nobody, ErrSilentTPM,
			"response announces", "response announces"},
	} {
		steps := []Step{Extend{PCR: 12, Word: "one"}, Extend{PCR: 12, Word: "two"}}
		m := measuring(t, c.path, c.sys, 0)
		out, err := apply(t, m, steps...)
		if err != nil {
			t.Errorf("%s, optional: %v", name, err)
			continue
		}
		for i, o := range out {
			if o.State != Moot || !errors.Is(o.Why, c.is) || i == 0 && !strings.Contains(o.Why.Error(), c.optional) {
				t.Errorf("%s, optional: %v, %v, want %q", name, o.State, o.Why, c.optional)
			}
		}
		if _, err := os.Stat(m.Log.Path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a log was made: %v", name, err)
		}

		out, err = apply(t, measuring(t, c.path, c.sys, 0), Extend{PCR: 12, Word: "one", Required: true})
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.required) || out[0].State == Moot {
			t.Errorf("%s, required: %v, want %q", name, err, c.required)
		}
	}
}

// TestSilentTPMIsAskedOnce: its time is not taken again for each document.
func TestSilentTPMIsAskedOnce(t *testing.T) {
	asked := 0
	m := measuring(t, swtpm.Wire(t, func([]byte) []byte { asked++; return says(tpm2.TPMRCFailure) }), fstest.MapFS{}, 0)
	if _, err := apply(t, m, Extend{PCR: 12, Word: "one"}, Extend{PCR: 12, Word: "two"}, Extend{PCR: 12, Word: "three"}); err != nil {
		t.Fatal(err)
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	// And one that was optional until the config was read is not there when it turns
	// out to be required.
	if _, err := apply(t, m, Extend{PCR: 12, Word: "one", Required: true}); !errors.Is(err, ErrSilentTPM) || asked != 1 {
		t.Errorf("%v after %d questions", err, asked)
	}
}

// TestHangingTPMEndsWithTheBootsTime: a command without an answer does not outlast
// what the caller allows, and that is the caller's error, not a machine without a TPM.
func TestHangingTPMEndsWithTheBootsTime(t *testing.T) {
	m := measuring(t, swtpm.Wire(t, func([]byte) []byte { return nil }), fstest.MapFS{}, time.Minute)
	over := errors.New("the deadline is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, over)
	defer cancel()
	begin := time.Now()
	out, err := Run(ctx, m, []Step{Extend{PCR: 12, Word: "one"}}, Apply, nil)
	if !errors.Is(err, over) || out[0].State == Moot {
		t.Errorf("%v, %v", out[0].State, err)
	}
	if err := m.Cap(ctx, 12, false); err == nil {
		t.Error("a TPM that does not answer was capped")
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestTPMThatRefuses: it answers, and what it has been asked to measure is not
// measured, or nobody knows.
func TestTPMThatRefuses(t *testing.T) {
	for _, required := range []bool{false, true} {
		for name, c := range map[string]struct {
			answer []byte
			want   string
		}{
			"refuses":  {says(tpm2.TPMRCFailure), "PCR 12 not extended: tpm "},
			"hangs up": {[]byte{}, "PCR 12 perhaps extended: tpm "},
		} {
			real := swtpm.Start(t)
			m := measuring(t, swtpm.Wire(t, relay(t, real, tpm2.TPMCCPCRExtend, c.answer)), fstest.MapFS{}, 0)
			_, err := apply(t, m, Extend{PCR: 12, Word: "one", Required: required})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "TPM2_PCR_Extend") {
				t.Errorf("%s, required %v: %v, want %q", name, required, err, c.want)
			}
			if m.Look(t.Context()).Done(measured(12, "one")) {
				t.Errorf("%s: there is a receipt", name)
			}
			if err := m.Cap(t.Context(), 12, required); err == nil {
				t.Errorf("%s: capped", name)
			}
			wantPCR12(t, real)
		}
	}
}

// TestLateTPM is there a while after it was looked for.
func TestLateTPM(t *testing.T) {
	for name, c := range map[string]struct {
		sys      fs.FS
		required bool
	}{
		"the firmware has it": {withFirmwareTPM(), false},
		"an event log":        {fstest.MapFS{"kernel/security/tpm0/binary_bios_measurements": {}}, false},
		"it is required":      {fstest.MapFS{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			real := swtpm.Start(t)
			late := filepath.Join(t.TempDir(), "tpmrm0")
			m := measuring(t, late, c.sys, time.Minute)
			time.AfterFunc(50*time.Millisecond, func() { _ = os.Symlink(real, late) })
			settle(t, m, Extend{PCR: 12, Word: "one", Required: c.required})
			wantPCR12(t, real, "one")
			if err := os.Remove(late); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(50*time.Millisecond, func() { _ = os.Symlink(real, late) })
			if err := m.Cap(t.Context(), 12, c.required); err != nil {
				t.Fatal(err)
			}
			wantPCR12(t, real, "one", tpm.FailedWord)
		})
	}
}

// TestTPMThatNobodySpeaksOfIsNotWaitedFor: most machines without one say so by silence.
func TestTPMThatNobodySpeaksOfIsNotWaitedFor(t *testing.T) {
	m := measuring(t, filepath.Join(t.TempDir(), "tpmrm0"), fstest.MapFS{}, time.Hour)
	if _, err := apply(t, m, Extend{PCR: 12, Word: "one"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Cap(t.Context(), 12, false); err != nil {
		t.Fatal(err)
	}
}

// TestCapWithoutTheTPMThatMustBeThere: its driver may be loaded from the shell.
func TestCapWithoutTheTPMThatMustBeThere(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "tpmrm0")
	if err := measuring(t, nowhere, withFirmwareTPM(), 0).Cap(t.Context(), 12, false); !errors.Is(err, ErrNoTPM) {
		t.Errorf("the firmware has one: %v", err)
	}
	if err := measuring(t, nowhere, fstest.MapFS{}, 0).Cap(t.Context(), 12, true); !errors.Is(err, ErrNoTPM) {
		t.Errorf("the config requires one: %v", err)
	}
}

// TestFirmwareThatCannotBeLookedAt is not one without a TPM.
func TestFirmwareThatCannotBeLookedAt(t *testing.T) {
	m := measuring(t, filepath.Join(t.TempDir(), "tpmrm0"), blindFS{}, 0)
	_, err := apply(t, m, Extend{PCR: 12, Word: "one"})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
	if err := m.Cap(t.Context(), 12, false); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
}

type blindFS struct{}

func (blindFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// TestLockedOutTPMMeasures: the dictionary attack lockout is about keys, not PCRs.
func TestLockedOutTPMMeasures(t *testing.T) {
	socket := swtpm.Start(t)
	// TPM2_DictionaryAttackParameters, TPM 2.0 Library Part 3: no try is allowed.
	command := []byte{
		0x80, 0x02, 0, 0, 0, 39, 0, 0, 0x01, 0x3a, // with a session, 39 bytes, the command
		0x40, 0, 0, 0x0a, // TPM_RH_LOCKOUT
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0, // its password, which is empty
		0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x10, 0, // newMaxTries, newRecoveryTime, lockoutRecovery
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rsp := make([]byte, 4096)
	if _, err := c.Write(command); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(rsp); err != nil || n < 10 || binary.BigEndian.Uint32(rsp[6:]) != 0 {
		t.Fatalf("%x %v", rsp[:n], err)
	}
	const permanent, inLockout = 0x200, 1 << 9 // TPM_PT_PERMANENT, TPMA_PERMANENT
	state, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: permanent, PropertyCount: 1}.Execute(transport.FromReadWriter(c))
	if err != nil {
		t.Fatal(err)
	}
	properties, err := state.CapabilityData.Data.TPMProperties()
	if err != nil || len(properties.TPMProperty) != 1 || properties.TPMProperty[0].Value&inLockout == 0 {
		t.Fatalf("not in lockout: %+v %v", properties, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	m := measuring(t, socket, withFirmwareTPM(), 0)
	settle(t, m, Extend{PCR: 12, Word: "one", Required: true})
	if err := m.Cap(t.Context(), 12, true); err != nil {
		t.Fatal(err)
	}
	wantPCR12(t, socket, "one", tpm.FailedWord)
}

// TestDirtyLogIsToldAndNotMeasuredTwice: another program left the event log unfinished,
// once between two records and once in the midst of one.
func TestDirtyLogIsToldAndNotMeasuredTwice(t *testing.T) {
	for name, torn := range map[string]string{"between records": "", "in a record": "\x1e{\"pcr\":12,"} {
		t.Run(name, func(t *testing.T) {
			socket := swtpm.Start(t)
			m := measuring(t, socket, withFirmwareTPM(), 0)
			settle(t, m, Extend{PCR: 12, Word: "before"})
			f, err := os.OpenFile(m.Log.Path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteString(torn)
			if err := errors.Join(err, f.Chmod(0o600|fs.ModeSticky), f.Close()); err != nil {
				t.Fatal(err)
			}
			var told []string
			m.Tell = func(line string) { told = append(told, line) }

			word := tpm.Word("user", []byte("{}"))
			settle(t, m, Extend{PCR: 12, Word: word, Required: true})
			wantPCR12(t, socket, "before", word)
			const want = " is measured, but not logged: PCR 12 extended, but not recorded: event log "
			report, err := m.Report()
			if err != nil || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], word+want) {
				t.Errorf("report: %q %v", report.Warnings, err)
			}
			if len(told) != 1 || !strings.Contains(told[0], word+want) {
				t.Errorf("told: %q", told)
			}

			// Another unit of the same boot.
			next, err := NewMachine(m.Run, m.Client)
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			next.TPM, next.Log, next.Disks = m.TPM, m.Log, m.Disks
			for _, w := range []string{"before", word} {
				state, _, err := Extend{PCR: 12, Word: w, Required: true}.Resolve(next.Look(t.Context()))
				if state != So || err != nil {
					t.Errorf("%s: %v %v", w, state, err)
				}
			}
			wantPCR12(t, socket, "before", word)
			if err := next.Cap(t.Context(), 12, true); err != nil {
				t.Fatal(err)
			}
			wantPCR12(t, socket, "before", word, tpm.FailedWord)
		})
	}
}
