package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// ReplayLog is the value that a PCR has, in each bank, after every event of an
// event log, starting from the reset of the machine. What others measure into
// the PCR without that log (IMA into PCR 10) is not in it. Two formats are told
// apart by their first bytes:
//
//   - systemd's JSON text sequence, [DefaultLog]. What the firmware and the boot
//     loader measured is not in it; where they used the PCR too, start from
//     their log and go on with [ReplayEvents]. A bank is in the result if an
//     event of the PCR has it.
//   - the crypto-agile binary log of the firmware, the boot loader and the stub,
//     /sys/kernel/security/tpm0/binary_bios_measurements: TCG PC Client Platform
//     Firmware Profile, section "Event Logging". Each bank of the log that this
//     package can compute is in the result, and at least one must be.
//
// pcr is 0 to 16 or 23: the others do not start at zeros. The log has at most
// [MaxLog] bytes. An empty log, a torn one, one of another format (also the
// SHA-1 log of TPM 1.2) is an error, a *[LogError].
func ReplayLog(r io.Reader, pcr int) (map[Bank][]byte, error) {
	if err := checkReplayed(pcr); err != nil {
		return nil, &LogError{Err: err}
	}
	data, err := readLog(r)
	if err != nil {
		return nil, &LogError{Err: err}
	}
	switch {
	case len(data) == 0:
		return nil, &LogError{Err: errors.New("empty")}
	case data[0] == recordSeparator:
		events, err := parseRecords(data)
		if err != nil {
			return nil, err
		}
		return ReplayEvents(nil, events, pcr)
	default:
		return replayTCG(data, pcr)
	}
}

// Start is the value that a PCR has, in each bank, before the first config is
// measured into it: by the logs of a boot, each of which goes on where the one
// before it ends. On a machine that was started by a UKI that is the firmware's
// log, with what boot loader and stub measured, and then systemd's, with what was
// measured in user space. Of systemd's log, what comes after the first config in
// this PCR does not count; so it may be that of a machine which was provisioned.
//
// The firmware's log begins with the machine: anywhere but in the first place it
// is an error. Otherwise formats, bounds and errors are those of [ReplayLog].
func Start(pcr int, logs ...io.Reader) (map[Bank][]byte, error) {
	if err := checkReplayed(pcr); err != nil {
		return nil, &LogError{Err: err}
	}
	values := make(map[Bank][]byte)
	for i, r := range logs {
		data, err := readLog(r)
		if err != nil {
			return nil, &LogError{Err: err}
		}
		switch {
		case len(data) == 0:
			return nil, &LogError{Err: errors.New("empty")}
		case data[0] != recordSeparator && i > 0:
			return nil, &LogError{Err: errors.New("a firmware's log begins with the machine: it comes before all others")}
		case data[0] != recordSeparator:
			if values, err = replayTCG(data, pcr); err != nil {
				return nil, err
			}
		default:
			events, err := parseRecords(data)
			if err != nil {
				return nil, err
			}
			ours := slices.IndexFunc(events, func(e Event) bool { return e.PCR == pcr && e.config() })
			if ours >= 0 {
				events = events[:ours]
			}
			if values, err = ReplayEvents(values, events, pcr); err != nil || ours >= 0 {
				return values, err
			}
		}
	}
	return values, nil
}

// Userspace says whether a log is systemd's of user space, by its first bytes.
func Userspace(log []byte) bool { return len(log) > 0 && log[0] == recordSeparator }

// ReplayEvents is the value that a PCR has, in each bank, after those of the
// events that are about it have been extended into a PCR that held initial. A
// bank that initial does not have starts at zeros, and is in the result if an
// event has it. Of a bank that this package cannot compute there is nothing in
// the result. pcr is as in [ReplayLog]. initial is not changed.
func ReplayEvents(initial map[Bank][]byte, events []Event, pcr int) (map[Bank][]byte, error) {
	if err := checkReplayed(pcr); err != nil {
		return nil, &LogError{Err: err}
	}
	values := make(map[Bank][]byte)
	for b, value := range initial {
		if b.Size() == 0 {
			continue
		}
		if len(value) != b.Size() {
			return nil, &LogError{Err: fmt.Errorf("initial value of bank %s has %d bytes, not %d", b, len(value), b.Size())}
		}
		values[b] = bytes.Clone(value)
	}
	for _, e := range events {
		if e.PCR != pcr {
			continue
		}
		for b, digest := range e.Digests {
			if b.Size() == 0 {
				continue
			}
			value, ok := values[b]
			if !ok {
				value = make([]byte, b.Size())
			}
			values[b] = b.sum(value, digest)
		}
	}
	return values, nil
}

// checkReplayed refuses the PCRs of the dynamic root of trust: they are all ones
// until a dynamic launch, PC Client Platform TPM Profile section "PCR Attributes".
func checkReplayed(pcr int) error {
	if err := checkPCR(pcr); err != nil {
		return err
	}
	if 17 <= pcr && pcr <= 22 {
		return fmt.Errorf("PCR %d: does not start at zeros, so a log alone does not give its value", pcr)
	}
	return nil
}

// Event types and bounds of the binary log.
const (
	evNoAction      = 3  // EV_NO_ACTION: logged, never extended
	sha1HeaderSize  = 32 // of a TCG_PCR_EVENT: index, type, SHA-1 digest, size of the event
	maxAlgorithms   = 16 // many more than a TPM has banks
	specIDEvent     = "Spec ID Event03\x00"
	startupLocality = "StartupLocality\x00"
)

// cursor takes little-endian fields off a binary log. After the first field
// that is not there, err is set and everything is zero.
type cursor struct {
	data []byte
	err  error
}

func (c *cursor) bytes(n uint32) []byte {
	if c.err != nil {
		return nil
	}
	if uint64(n) > uint64(len(c.data)) {
		c.err = fmt.Errorf("%w: it needs %d bytes more, and %d are left", ErrTorn, n, len(c.data))
		c.data = nil
		return nil
	}
	field := c.data[:n:n]
	c.data = c.data[n:]
	return field
}

func (c *cursor) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint8() uint8 {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// replayTCG replays a crypto-agile log: one event in the old format that says
// which algorithms and digest sizes the rest has, then TCG_PCR_EVENT2 records.
func replayTCG(data []byte, pcr int) (map[Bank][]byte, error) {
	c := &cursor{data: data}
	sizes, err := readSpecID(c)
	if err != nil {
		return nil, &LogError{Record: 1, Err: err}
	}
	values := make(map[Bank][]byte)
	for alg, size := range sizes {
		b := bankOf(alg)
		if b.Size() == 0 {
			continue
		}
		if int(size) != b.Size() {
			return nil, &LogError{Record: 1, Err: fmt.Errorf("bank %s has digests of %d bytes, not %d", b, size, b.Size())}
		}
		values[b] = make([]byte, b.Size())
	}
	if len(values) == 0 {
		return nil, &LogError{Record: 1, Err: errors.New("no bank that can be computed")}
	}
	started := false // PCR pcr has been extended
	for n := 2; len(c.data) > 0; n++ {
		e, err := readEvent(c, sizes)
		if err != nil {
			return nil, &LogError{Record: n, Err: err}
		}
		if e.pcr != uint32(pcr) {
			continue
		}
		if e.kind == evNoAction {
			// TCG_EfiStartupLocalityEvent: TPM2_Startup came from another
			// locality, whose number PCR 0 starts with. 4 is an H-CRTM's.
			if pcr == 0 && len(e.content) == len(startupLocality)+1 && bytes.HasPrefix(e.content, []byte(startupLocality)) {
				if started {
					return nil, &LogError{Record: n, Err: errors.New("startup locality after the first event of PCR 0")}
				}
				for _, value := range values {
					value[len(value)-1] = e.content[len(startupLocality)]
				}
			}
			continue
		}
		started = true
		for b := range values {
			digest, ok := e.digests[b]
			if !ok {
				return nil, &LogError{Record: n, Err: fmt.Errorf("no digest for bank %s", b)}
			}
			values[b] = b.sum(values[b], digest)
		}
	}
	return values, nil
}

// readSpecID reads the first event, TCG_EfiSpecIDEvent, and returns the size of
// the digests of each algorithm.
func readSpecID(c *cursor) (map[tpm2.TPMAlgID]uint16, error) {
	index, kind := c.uint32(), c.uint32()
	c.bytes(sha1HeaderSize - 12)
	content := &cursor{data: c.bytes(c.uint32())}
	signature := content.bytes(uint32(len(specIDEvent)))
	if c.err != nil || index != 0 || kind != evNoAction || string(signature) != specIDEvent {
		return nil, errors.New("neither a JSON text sequence nor a crypto-agile TCG log")
	}
	content.bytes(8) // platformClass, specVersionMinor, specVersionMajor, specErrata, uintnSize
	count := content.uint32()
	if count > maxAlgorithms {
		return nil, fmt.Errorf("%d algorithms, more than %d", count, maxAlgorithms)
	}
	sizes := make(map[tpm2.TPMAlgID]uint16)
	for range count {
		alg, size := tpm2.TPMAlgID(content.uint16()), content.uint16()
		if _, twice := sizes[alg]; twice && content.err == nil {
			return nil, fmt.Errorf("algorithm 0x%04x: twice", uint16(alg))
		}
		sizes[alg] = size
	}
	content.bytes(uint32(content.uint8())) // vendorInfo
	return sizes, content.err
}

// tcgEvent is a TCG_PCR_EVENT2.
type tcgEvent struct {
	pcr, kind uint32
	digests   map[Bank][]byte
	content   []byte
}

func readEvent(c *cursor, sizes map[tpm2.TPMAlgID]uint16) (tcgEvent, error) {
	e := tcgEvent{pcr: c.uint32(), kind: c.uint32(), digests: make(map[Bank][]byte)}
	count := c.uint32()
	if c.err == nil && count > uint32(len(sizes)) {
		return e, fmt.Errorf("%d digests, more than the %d algorithms of the log", count, len(sizes))
	}
	for range count {
		alg := tpm2.TPMAlgID(c.uint16())
		size, known := sizes[alg]
		if c.err == nil && !known {
			return e, fmt.Errorf("digest of algorithm 0x%04x, which the log does not announce", uint16(alg))
		}
		digest := c.bytes(uint32(size))
		if _, twice := e.digests[bankOf(alg)]; twice && c.err == nil {
			return e, fmt.Errorf("digest of algorithm 0x%04x: twice", uint16(alg))
		}
		e.digests[bankOf(alg)] = digest
	}
	e.content = c.bytes(c.uint32())
	return e, c.err
}
