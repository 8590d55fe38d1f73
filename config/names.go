package config

import (
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
	// headerExtra with letters and digits is a token of RFC 9110, section 5.6.2.
	headerExtra = "!#$%&'*+-.^_`|~"
)

// madeOf tells whether a word has 1 to most bytes, each out of alphabet.
func madeOf(s, alphabet string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, alphabet) == ""
}

// entryName tells whether a word can name an entry: it becomes part of file
// names, names of units and of log lines.
func entryName(s string) bool {
	return madeOf(s, letters+digits+"_.-", 64) && strings.ContainsAny(s[:1], letters+digits)
}

// mapperName tells whether a word can name a device under /dev/mapper, where
// device-mapper has a file of its own.
func mapperName(s string) bool {
	return madeOf(s, letters+digits+"_.+-", 127) && strings.ContainsAny(s[:1], letters+digits) && s != "control"
}

func isUUID(s string) bool {
	groups := strings.Split(s, "-")
	if len(groups) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if _, err := hex.DecodeString(groups[i]); err != nil || len(groups[i]) != n {
			return false
		}
	}
	return true
}

// fileName tells whether a word can name a drop-in: systemd skips hidden files.
func fileName(s string) bool {
	return !strings.HasPrefix(s, ".") && len(s) <= 255 && !strings.ContainsFunc(s, func(c rune) bool {
		return c < ' ' || c == 0x7f || c == '/'
	})
}

// credentialName follows systemd, which takes what is both a file name and a
// name of a file descriptor.
func credentialName(s string) bool {
	return s != "." && s != ".." && len(s) <= 255 && !strings.ContainsFunc(s, func(c rune) bool {
		return c < ' ' || c >= 0x7f || c == '/' || c == ':'
	})
}

// refusedPCR says why a register must not be extended with a config, or "". The
// assignments are those of the TCG PC Client Platform Firmware Profile and of
// the UAPI group's Linux TPM PCR Registry.
func refusedPCR(pcr int) string {
	switch {
	case pcr < 0 || pcr > 23:
		return "there are the PCRs 0 to 23"
	case pcr <= 7:
		return fmt.Sprintf("PCR %d belongs to the firmware", pcr)
	case pcr == 9:
		return "PCR 9 belongs to the kernel, which measures the initrd into it"
	case pcr == 10:
		return "PCR 10 belongs to the kernel's integrity measurement (IMA)"
	case pcr == 11:
		return "PCR 11 holds the unified kernel image and the phases of the boot: another value in it breaks every signed policy of systemd"
	case pcr == 15:
		return "PCR 15 holds the identity of the system: another value in it breaks the policies of systemd that bind to it"
	case pcr == 16:
		return "PCR 16 is for debugging and can be reset by anybody"
	case pcr >= 17 && pcr <= 22:
		return fmt.Sprintf("PCR %d belongs to the dynamic root of trust", pcr)
	}
	return ""
}
