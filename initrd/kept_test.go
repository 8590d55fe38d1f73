package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pilotlight/initrd/tpm/swtpm"
)

// The first bytes of what systemd-creds 257 seals, in octal: to nothing, and to a TPM.
const (
	sealedToNothing = `\005\204\151\332\366\365\103\044\200\005\111\332\017\216\242\373`
	sealedToTPM     = `\014\174\300\173\021\166\105\221\234\113\013\352\010\274\040\376`
)

// sealer stands in for systemd-creds: auto and tpm2 are what it does for those keys,
// "nothing", "tpm" or "fail". It opens what is sealed to a TPM as long as there is a
// file "opens" in the directory that is given back, and logs its arguments to "log".
func sealer(t *testing.T, m *Machine, auto, tpm2 string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	program(t, m, "systemd-creds", fmt.Sprintf(`echo "$@" >> %[1]s/log
seal() { case $1 in
	nothing) (printf '%[4]s'; cat) | base64 -w0;;
	tpm) (printf '%[5]s'; cat) | base64 -w0;;
	fail) echo "Failed to seal to TPM2: State not recoverable" >&2; exit 1;;
	esac; }
case "$*" in
*--with-key=auto-initrd*) seal %[2]s;;
*--with-key=tpm2*) seal %[3]s;;
decrypt*) base64 -d > %[1]s/blob
	if [ "$(head -c 16 %[1]s/blob | base64)" != "$(printf '%[4]s' | base64)" ] && [ ! -e %[1]s/opens ]; then
		echo "Failed to unseal secret using TPM2: State not recoverable" >&2; exit 1
	fi
	tail -c +17 %[1]s/blob;;
esac`, dir, auto, tpm2, sealedToNothing, sealedToTPM))
	write(t, filepath.Join(dir, "opens"), "")
	return dir
}

// remembering makes m a machine that has read back what it sealed.
func remembering(m *Machine, kept *Kept, file []byte) {
	m.memory = Memory{Record: Record{Kept: kept}, kept: file, Place: Place{Node: "/dev/x", Kind: "ESP"}}
}

// TestSealedWhereThereIsATPM: the kept copy is sealed to the TPM or to nothing, and
// never to nothing because a TPM had a fault.
func TestSealedWhereThereIsATPM(t *testing.T) {
	socket := swtpm.Start(t)
	nowhere := filepath.Join(t.TempDir(), "tpmrm0")
	for name, c := range map[string]struct {
		tpm        string
		auto, tpm2 string
		secret     bool
		runs       int
		want       string // the error, or what is told
	}{
		"sealed":                      {socket, "tpm", "fail", true, 1, ""},
		"one that its firmware hides": {socket, "nothing", "tpm", true, 2, ""},
		"it does not work":            {socket, "nothing", "fail", false, 2, "seal the kept copy: systemd-creds: exit 1: Failed to seal to TPM2"},
		"it does not work at all":     {socket, "fail", "fail", false, 1, "seal the kept copy: systemd-creds: exit 1: Failed to seal to TPM2"},
		"it is left aside":            {socket, "nothing", "nothing", false, 2, "was asked to seal to the TPM, and did not"},
		"none":                        {nowhere, "nothing", "fail", false, 1, "the kept copy of the config is not secret: this machine has no TPM"},
	} {
		m := measuring(t, c.tpm, fstest.MapFS{}, 0)
		dir := sealer(t, m, c.auto, c.tpm2)
		var told []string
		m.Tell = func(line string) { told = append(told, line) }
		kept, file, err := m.seal(t.Context(), "sealed", []byte("documents"))
		if log := contentOf(t, filepath.Join(dir, "log")); strings.Count(log, "\n") != c.runs {
			t.Errorf("%s: %q, want %d runs", name, log, c.runs)
		}
		if c.tpm == socket && !c.secret {
			if err == nil || !strings.Contains(err.Error(), c.want) || kept != nil || file != nil {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		report, err := m.Report()
		if err != nil {
			t.Fatal(err)
		}
		warned := len(report.Warnings) == 1 && report.Warnings[0] == c.want && len(told) == 1 && told[0] == c.want
		if c.secret == nullKey(kept.Key) || warned != !c.secret {
			t.Errorf("%s: sealed to nothing: %v, told %q, report %q", name, nullKey(kept.Key), told, report.Warnings)
		}
		remembering(m, kept, file)
		if got, err := m.Unseal(t.Context()); string(got) != "documents" || err != nil {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

// TestUnsealSaysWhatIsWrongWithTheTPM that the kept copy was sealed to.
func TestUnsealSaysWhatIsWrongWithTheTPM(t *testing.T) {
	socket := swtpm.Start(t)
	nowhere := filepath.Join(t.TempDir(), "tpmrm0")
	m := measuring(t, socket, fstest.MapFS{}, 0)
	dir := sealer(t, m, "tpm", "fail")
	kept, file, err := m.seal(t.Context(), "sealed", []byte("documents"))
	if err != nil {
		t.Fatal(err)
	}
	remembering(m, kept, file)
	if err := os.Remove(filepath.Join(dir, "opens")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tpm  string
		sys  fs.FS
		is   error
		want string
	}{
		"gone": {nowhere, fstest.MapFS{}, ErrNoTPM,
			"it is sealed to a TPM, and this machine has no TPM (is it switched off in the firmware's setup?): systemd-creds: exit 1: "},
		"without a driver": {nowhere, withFirmwareTPM(), ErrNoTPM, "is its driver in this initrd?"},
		"another one": {socket, fstest.MapFS{}, nil,
			"it is sealed to a TPM (to another one, or was this one cleared?): systemd-creds: exit 1: Failed to unseal secret using TPM2"},
		"unknown": {nowhere, blindFS{}, fs.ErrPermission, "permission denied"},
	} {
		m.TPM, m.Disks.Sys = c.tpm, c.sys
		got, err := m.Unseal(t.Context())
		var record *RecordError
		if got != nil || !errors.As(err, &record) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}
}

// TestUnsealWaitsForALateTPM as measuring does.
func TestUnsealWaitsForALateTPM(t *testing.T) {
	real, late := swtpm.Start(t), filepath.Join(t.TempDir(), "tpmrm0")
	m := measuring(t, real, withFirmwareTPM(), time.Minute)
	dir := sealer(t, m, "tpm", "fail")
	kept, file, err := m.seal(t.Context(), "sealed", []byte("documents"))
	if err != nil {
		t.Fatal(err)
	}
	remembering(m, kept, file)
	m.TPM = late
	opens := filepath.Join(dir, "opens")
	if err := os.Remove(opens); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		_ = os.WriteFile(opens, nil, 0o600)
		_ = os.Symlink(real, late)
	})
	if got, err := m.Unseal(t.Context()); string(got) != "documents" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

// TestKeyAndCopyBelongTogether: neither may be another machine's, or an older one.
func TestKeyAndCopyBelongTogether(t *testing.T) {
	m := measuring(t, filepath.Join(t.TempDir(), "no-tpm"), fstest.MapFS{}, 0)
	sealer(t, m, "nothing", "fail")
	one, fileOne, err := m.seal(t.Context(), "sealed", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	two, fileTwo, err := m.seal(t.Context(), "sealed", []byte("two"))
	if err != nil {
		t.Fatal(err)
	}
	swapped := *one
	swapped.Key = two.Key
	for name, c := range map[string]struct {
		kept *Kept
		file []byte
		want string
	}{
		"one":               {one, fileOne, ""},
		"a swapped key":     {&swapped, fileOne, "message authentication failed"},
		"a swapped copy":    {one, fileTwo, "message authentication failed"},
		"called plain":      {&Kept{Form: "plain"}, fileOne, "gzip: invalid header"},
		"sealed, not plain": {&Kept{Form: "sealed", Key: one.Key}, []byte("\x1f\x8b plain, and long enough"), "message authentication failed"},
	} {
		remembering(m, c.kept, c.file)
		got, err := m.Unseal(t.Context())
		var record *RecordError
		switch {
		case c.want == "" && (string(got) != "one" || err != nil):
			t.Errorf("%s: %q %v", name, got, err)
		case c.want != "" && (got != nil || !errors.As(err, &record) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}
}

// TestNullKeyIsKnownByItsFirstBytes alone, however short what is there.
func TestNullKeyIsKnownByItsFirstBytes(t *testing.T) {
	for text, want := range map[string]bool{
		"BYRp2vb1QySABUnaD46i+yAAAAABAAAADAAAABAAAAAJJ2TXoq9EvT6tmX4A": true,  // of systemd 257, no TPM
		"DHzAexF2RZGcSwvqCLwg/iAAAAABAAAADAAAABAAAADT/L3H2HiWpiJsJ60A": false, // of systemd 257, with a TPM
		"1AYt+3GtTIaAS0DvEYDx/CAAAAABAAAADAAAABAAAAA":                  false, // of systemd 262, with a TPM
		"": false, "BYRp": false, "not base64 at all, but long": false,
	} {
		if nullKey([]byte(text)) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}
