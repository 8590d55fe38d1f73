// Package tpm measures: it extends a PCR of a TPM 2.0 and writes the record of
// it to the event log that systemd keeps in user space, so that what pilotlight
// measured can be told apart, checked and predicted with the same tools as what
// systemd measured.
//
// # Words
//
// What is measured is a word, a short text that says what it stands for:
//
//	pilotlight:config:v1:NAME:sha256:HEX    a document that came from outside, by its digest
//	pilotlight:failed                       this boot failed, see [FailedWord]
//
// Every bank is extended with that bank's hash of the bytes of the word, without
// a NUL, which is what systemd-pcrextend(8) does:
//
//	PCR_new = H_bank(PCR_old || H_bank(word))
//
// so the value that a PCR will have follows from the words alone: [Replay].
//
// # Banks
//
// Every active bank is extended, that is, every one in which the TPM has
// allocated the PCR. systemd leaves out a bank in which the PCR is still zero
// when it is not zero in another one; here none is left out, since a policy that
// is bound to the bank left out would hold whatever was measured. A bank whose
// hash this package cannot compute (SM3, SHA-3) makes [Log.Extend] fail before
// anything is extended, for the same reason; such a bank can be switched off in
// the firmware's setup.
//
// # The event log
//
// [DefaultLog] is a sequence of JSON texts (RFC 7464), one a measurement, each a
// record of the TCG's Canonical Event Log without its number. One line, here
// folded:
//
//	RS {"pcr":12,"digests":[{"hashAlg":"sha1","digest":"…"},{"hashAlg":"sha256","digest":"…"}],
//	    "content_type":"systemd",
//	    "content":{"string":"WORD","bootId":"32 hex digits","timestamp":MICROSECONDS}} LF
//
// "string" is the word with C escapes (one backslash before a quote or a
// backslash, three octal digits for what is not printable ASCII), and JSON's
// escapes on top. "timestamp" is CLOCK_BOOTTIME. A record that was made by
// systemd-pcrextend(8) from the command line also has "eventType":"phase"; one
// made over its Varlink interface, as third parties do, has no "eventType", and
// neither has ours.
//
// The log and the PCR are kept in step by a lock and a mark:
//
//	open → flock(LOCK_EX) → chmod 01600 → TPM2_PCR_Extend → write → fsync → chmod 0600 → fsync
//
// The sticky bit means "there may be an extension that has no record". Whoever
// finds it set extends and writes no record: a log that has lost one record does
// not replay to the PCR's value any more. [Log.Extend] takes the bit off again
// when the TPM answered that it did not extend, or when it was never asked; it
// leaves the bit on when the TPM did extend and the record could not be written,
// and when no answer came, because then nobody knows.
//
// # Time
//
// A TPM that does not answer does not hang the boot: each command has
// [CommandTimeout], or less if the context given to [Open] ends before, and the
// lock on the log is waited for at most [LockTimeout].
package tpm

import (
	"crypto/fips140"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Bank names a PCR bank by its hash algorithm, as the event log and
// systemd-pcrextend(8) spell it. A bank of a TPM that is none of the four below
// appears under its algorithm's name in the TCG registry in the same spelling
// ("sm3_256", "sha3_256"), or as "0x" and four hex digits.
type Bank string

// The banks whose values this package can compute.
const (
	SHA1   Bank = "sha1"
	SHA256 Bank = "sha256"
	SHA384 Bank = "sha384"
	SHA512 Bank = "sha512"
)

// Size is the number of bytes of a PCR in this bank, and 0 for a bank whose
// hash this package does not have.
func (b Bank) Size() int {
	switch b {
	case SHA1:
		return sha1.Size
	case SHA256:
		return sha256.Size
	case SHA384:
		return sha512.Size384
	case SHA512:
		return sha512.Size
	}
	return 0
}

// sum is the bank's hash of the parts joined, nil for an unknown bank.
func (b Bank) sum(parts ...[]byte) (digest []byte) {
	// The TPM decides which hash a bank has. SHA-1 there is a format, not a
	// choice, and a program in FIPS 140 only mode must still fill that bank.
	fips140.WithoutEnforcement(func() {
		var h hash.Hash
		switch b {
		case SHA1:
			h = sha1.New()
		case SHA256:
			h = sha256.New()
		case SHA384:
			h = sha512.New384()
		case SHA512:
			h = sha512.New()
		default:
			return
		}
		for _, p := range parts {
			h.Write(p)
		}
		digest = h.Sum(nil)
	})
	return digest
}

// Banks are all the banks whose values this package can compute.
func Banks() []Bank { return []Bank{SHA1, SHA256, SHA384, SHA512} }

// PCRs is the number of PCRs that this package addresses: 0 to 23, those that
// the TCG PC Client Platform TPM Profile requires.
const PCRs = 24

// FailedWord is extended into the PCR of the configs when a boot has failed and
// somebody is about to be given a shell: from then on nothing unseals that was
// sealed to a good boot. See [Log.Cap].
const FailedWord = "pilotlight:failed"

// MaxWord is the longest word in bytes that is measured. systemd cuts the text
// of a longer one in its record, which then no longer says what was measured.
const MaxWord = 1024

const configPrefix = "pilotlight:config:v1:"

// Word is the word that stands for a document that came from outside:
//
//	pilotlight:config:v1:NAME:sha256:HEX
//
// HEX is the SHA-256 of contents, in lower case. NAME is name with every byte
// that is not an ASCII letter, a digit, '.', '_' or '-' written as '%' and two
// upper-case hex digits, so that no name can contain a ':' or a line end and two
// different names never give the same word. A name of up to 255 bytes, the
// longest that a file can have, gives a word shorter than [MaxWord].
func Word(name string, contents []byte) string {
	var w strings.Builder
	w.WriteString(configPrefix)
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
			w.WriteByte(c)
		default:
			fmt.Fprintf(&w, "%%%02X", c)
		}
	}
	w.WriteString(":sha256:")
	w.WriteString(hex.EncodeToString(SHA256.sum(contents)))
	return w.String()
}

// Digest is what a PCR of the bank is extended with for a word: the bank's hash
// of the bytes of the word. It is nil for a bank that this package cannot
// compute ([Bank.Size] is 0).
func Digest(b Bank, word string) []byte { return b.sum([]byte(word)) }

// Replay is the value of a PCR in each of [Banks] after the words have been
// extended, in order, into a PCR that held initial. A bank that initial does not
// have starts at zeros, as PCRs 0 to 16 and 23 do when the machine is switched
// on. A value in initial must have the bank's [Bank.Size]; banks of other names
// are not in the result. initial is not changed.
func Replay(initial map[Bank][]byte, words []string) map[Bank][]byte {
	final := make(map[Bank][]byte, len(Banks()))
	for _, b := range Banks() {
		value, ok := initial[b]
		if !ok {
			value = make([]byte, b.Size())
		}
		value = append([]byte(nil), value...)
		for _, word := range words {
			value = b.sum(value, Digest(b, word))
		}
		final[b] = value
	}
	return final
}
