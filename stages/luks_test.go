package stages

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pilotlight/initrd"
)

// encrypted is a config with one definition that encrypts, as its author wrote it, and
// with more in its entry.
func encrypted(entry, lines string) string {
	return repartOf(onBoot(entry, definition("60-var.conf", "[Partition]\nType=var\nLabel=var\nMountPoint=/var\n"+lines)))
}

// TestWhatCouldNotBeUnlockedIsRefused: by the stage that would make it, and by all
// others that read the definitions.
func TestWhatCouldNotBeUnlockedIsRefused(t *testing.T) {
	const key = `,"keyFile":{"inline":"k"}`
	for _, c := range []struct{ entry, lines, refused string }{
		{"", "", ""},
		{"", "Encrypt=off\n", ""},
		{"", "Encrypt=no\n", ""},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\n", ""},
		{`,"tpm2PCRs":[]`, "Encrypt=tpm2\n", ""},
		{key, "Encrypt=key-file\n", ""},
		{`,"tpm2PCRs":[7]` + key, "Encrypt=key-file+tpm2\n", ""},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nTPM2PCRs=7+14\n", ""},
		{"", "Encrypt=tpm2\n", "with Encrypt=tpm2 say tpm2PCRs"},
		{key, "Encrypt=key-file+tpm2\n", "with Encrypt=key-file+tpm2 say tpm2PCRs"},
		{"", "Encrypt=key-file\n", "with Encrypt=key-file say keyFile"},
		{`,"tpm2PCRs":[7]`, "Encrypt=key-file+tpm2\n", "with Encrypt=key-file+tpm2 say keyFile"},
		{"", "Encrypt=yes\n", "Encrypt=yes is not known"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nTPM2PCRs=7+12\n", "TPM2PCRs= holds PCR 12"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nTPM2PCRs=12:sha256\n", "TPM2PCRs= holds PCR 12"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nTPM2PCRs=kernel-config\n", "TPM2PCRs= holds PCR 12"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nLabel=\n", "needs a name"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nEncryptedVolume=a/b\n", "needs a name"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nEncryptedVolume=a:/etc/key\n", "key file of the host"},
	} {
		in := first(t, section(encrypted(c.entry, c.lines)))
		for name, stage := range map[string]func(Input) ([]initrd.Step, error){"repart": Repart, "luks": Luks, "root": Root, "etc": Etc} {
			_, err := stage(in)
			var fault *Error
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("%s, %q%q: %v", name, c.entry, c.lines, err)
			case c.refused == "" || name == "repart" && strings.Contains(c.refused, "needs a name") || name == "repart" && strings.Contains(c.refused, "of the host"):
			case !errors.As(err, &fault) || fault.List != "repart" || fault.Name != "system" || !strings.Contains(err.Error(), "definition 60-var.conf: ") || !strings.Contains(err.Error(), c.refused):
				t.Errorf("%s, %q%q: %v", name, c.entry, c.lines, err)
			}
		}
	}
}

// TestUnlockedIsWhatIsMounted, under the name that the definition gives.
func TestUnlockedIsWhatIsMounted(t *testing.T) {
	for _, c := range []struct{ entry, lines, mapper, options string }{
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\n", "var", "[]"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nEncryptedVolume=state\n", "state", "[]"},
		{`,"tpm2PCRs":[7]`, "Encrypt=tpm2\nEncryptedVolume=state:none:discard,tpm2-measure-pcr=yes\n", "state", "[discard tpm2-measure-pcr=yes]"},
		{`,"keyFile":{"inline":"k"}`, "Encrypt=key-file\nEncryptedVolume=:-:discard\n", "var", "[discard]"},
	} {
		in := first(t, section(encrypted(c.entry, c.lines)))
		for _, boot := range []Boot{First, Later} {
			in.Facts.Boot = boot
			steps := want(t, Luks, in)
			if len(steps) != 1 {
				t.Fatalf("%s: %q", c.lines, texts(steps))
			}
			l := steps[0].(initrd.Luks)
			if l.Mapper() != "/dev/mapper/"+c.mapper || fmt.Sprint(l.Options) != c.options || l.TPM2 != strings.Contains(c.lines, "tpm2\n") || l.Of != "system" {
				t.Errorf("%s: %+v", c.lines, l)
			}
			if key := l.Key.Reveal(); l.TPM2 && key != "" || !l.TPM2 && key != "k" {
				t.Errorf("%s: key %q", c.lines, key)
			}
			if at(want(t, Root, in), l.Mapper()+" mounted at /sysroot/var") < 0 {
				t.Errorf("%s: %q", c.lines, texts(want(t, Root, in)))
			}
		}
		in.Facts.Boot = First
		if fstab := want(t, Etc, in)[0]; !strings.Contains(fstab.String(), "/var") {
			t.Errorf("%s: %s", c.lines, fstab)
		}
	}
	// Two that would be one device.
	in := first(t, section(`"repart":[`+onBoot(`,"tpm2PCRs":[7]`, definition("1.conf", "[Partition]\nType=var\nLabel=v\nEncrypt=tpm2\n"), definition("2.conf", "[Partition]\nType=srv\nLabel=s\nEncrypt=tpm2\nEncryptedVolume=v\n"))+`]`))
	if _, err := Luks(in); err == nil || !strings.Contains(err.Error(), "two encrypted partitions would be /dev/mapper/v") {
		t.Errorf("%v", err)
	}
}

// TestPCRsAndKeyReachRepart as the config has them.
func TestPCRsAndKeyReachRepart(t *testing.T) {
	in := first(t, section(encrypted(`,"tpm2PCRs":[7,14],"keyFile":{"inline":"k"}`, "Encrypt=key-file+tpm2\n")))
	steps := want(t, Repart, in)
	r := steps[len(steps)-1].(initrd.Repart)
	if fmt.Sprint(r.PCRs) != "[7 14]" || r.Key == nil || r.Key.Reveal() != "k" {
		t.Errorf("%v %v", r.PCRs, r.Key)
	}
	if text := fmt.Sprintf("%v %+v", r, r); strings.Contains(text, `"k"`) {
		t.Errorf("the key is printed: %s", text)
	}
}
