package disk

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

func TestParseGUID(t *testing.T) {
	want := GUID{0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	for _, s := range []string{
		"c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
		"C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
		"c12a7328f81f11d2ba4b00a0c93ec93b",
	} {
		got, err := ParseGUID(s)
		if err != nil || got != want || got.String() != "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "c12a7328", "{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}", "c12a7328-f81f-11d2-ba4b-00a0c93ec93", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b ",
		"c12a7328-f81f-11d2-ba4b-00a0c93ec93g", "c12a7328f-81f-11d2-ba4b-00a0c93ec93b", "c12a7328-f81f-11d2-ba4b--0a0c93ec93b",
		"c12a7328_f81f_11d2_ba4b_00a0c93ec93b", "c12a7328f81f11d2ba4b00a0c93ec93b0000",
	} {
		if got, err := ParseGUID(s); err == nil || !got.IsZero() || !strings.Contains(err.Error(), "GUID ") {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	}
}

func TestGUIDText(t *testing.T) {
	in := struct{ ID GUID }{TypeESP()}
	data, err := json.Marshal(in)
	if err != nil || string(data) != `{"ID":"c12a7328-f81f-11d2-ba4b-00a0c93ec93b"}` {
		t.Fatalf("%s, %v", data, err)
	}
	var out struct{ ID GUID }
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("%+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"ID":"c12a"}`), &out); err == nil || out != in {
		t.Errorf("a bad GUID: %+v, %v", out, err)
	}
}

func FuzzParseGUID(f *testing.F) {
	f.Add("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	f.Add("c12a7328f81f11d2ba4b00a0c93ec93b")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGUID(s)
		if err != nil {
			return
		}
		if strings.ReplaceAll(g.String(), "-", "") != strings.ReplaceAll(strings.ToLower(s), "-", "") {
			t.Errorf("%q became %s", s, g)
		}
	})
}

func TestTypeByName(t *testing.T) {
	for _, test := range []struct{ name, goarch, want string }{
		{"esp", "amd64", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"},
		{"xbootldr", "amd64", "bc13c2ff-59e6-4262-a352-b275fd6f7172"},
		{"swap", "amd64", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"},
		{"home", "amd64", "933ac7e1-2eb4-4f13-b844-0e14e2aef915"},
		{"srv", "amd64", "3b8f8425-20e0-4f3b-907f-1a25a76f98e8"},
		{"var", "amd64", "4d21b016-b534-45c2-a9fb-5c16e091fd2d"},
		{"tmp", "amd64", "7ec6f557-3bc5-4aca-b293-16ef5df639d1"},
		{"user-home", "amd64", "773f91ef-66d4-49b5-bd83-d683bf40ad16"},
		{"linux-generic", "amd64", "0fc63daf-8483-4772-8e79-3d69d8477de4"},
		{"root", "amd64", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"},
		{"root", "arm64", "b921b045-1df0-41c3-af44-4c6f280d3fae"},
		{"root-verity", "amd64", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"},
		{"root-verity-sig", "arm64", "6db69de6-29f4-4758-a7a5-962190f00ce3"},
		{"usr", "amd64", "8484680c-9521-48c6-9c11-b0720656f69e"},
		{"usr-verity", "arm64", "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e"},
		{"usr-verity-sig", "amd64", "e7bb33fb-06cf-4e81-8273-e543b413e2e2"},
		{"root-secondary", "amd64", "44479540-f297-41b2-9af7-d131d5f0458a"},
		{"usr-secondary-verity", "arm64", "c215d751-7bcd-4649-be90-6627490a4c05"},
		{"root-x86-64", "arm64", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"},
		{"usr-ppc64-le-verity-sig", "amd64", "c8bfbd1e-268e-4521-8bba-bf314c399557"},
		{"root", "ppc64le", "c31c45e6-3f39-412e-80fb-4809c4980599"},
		{"root", "loong64", "77055800-792c-4f94-b39a-98c91b762bb6"},
		{"12345678-9ABC-DEF0-1234-56789ABCDEF0", "amd64", "12345678-9abc-def0-1234-56789abcdef0"},
	} {
		if got, err := typeByName(test.name, test.goarch); err != nil || got.String() != test.want {
			t.Errorf("%s on %s: %s, %v", test.name, test.goarch, got, err)
		}
	}
	for _, test := range []struct{ name, goarch string }{
		{"", "amd64"}, {"ESP", "amd64"}, {"root-", "amd64"}, {"rootfs", "amd64"}, {"root-sig", "amd64"}, {"root-vax", "amd64"},
		{"verity", "amd64"}, {"root-secondary", "riscv64"}, {"root", "wasm"}, {"pilotlight-state", "amd64"}, {"esp\n", "amd64"},
	} {
		if got, err := typeByName(test.name, test.goarch); err == nil || !strings.Contains(err.Error(), "neither a name of repart.d(5) nor a GUID") {
			t.Errorf("%q on %s: %s, %v", test.name, test.goarch, got, err)
		}
	}
	native, err := TypeByName("usr-verity")
	if name := TypeName(native); err != nil || !strings.HasPrefix(name, "usr-") || !strings.HasSuffix(name, "-verity") || name == "usr-verity" {
		t.Errorf("usr-verity here: %s, %v", name, err)
	}
	for goarch, want := range map[string]string{"386": "root-x86", "mipsle": "root-mips-le", "mips64le": "root-mips64-le", "s390x": "root-s390x", "riscv64": "root-riscv64"} {
		if got, err := typeByName("root", goarch); err != nil || TypeName(got) != want {
			t.Errorf("root on %s: %s, %v", goarch, TypeName(got), err)
		}
	}
	if got := TypeState().String(); got != "7b3d8c52-0d2b-4b1e-9a57-7c1a5f0b6e11" {
		t.Errorf("state: %s", got)
	}
}

func TestTypeName(t *testing.T) {
	for want, g := range map[string]GUID{
		"esp": TypeESP(), "xbootldr": TypeXBOOTLDR(), "pilotlight-state": TypeState(),
		"12345678-9abc-def0-1234-56789abcdef0": mustGUID(t, "12345678-9abc-def0-1234-56789abcdef0"),
	} {
		if got := TypeName(g); got != want {
			t.Errorf("%s: %s, want %s", g, got, want)
		}
	}
}

// Every line of the table is well formed, has a name and a GUID of its own, and is what
// it should be for the names that util-linux knows the type by.
func TestTypeTable(t *testing.T) {
	out, err := exec.Command("sfdisk", "--label", "gpt", "--list-types").Output()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		if guid, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			known[strings.ToLower(guid)] = name
		}
	}
	words := strings.NewReplacer("Linux ", "", "/usr", "usr", "verity sign.", "verity-sig", " (", "-", ")", "")
	arches := strings.NewReplacer("-ARM-64", "-arm64", "-IA-64", "-ia64", "-LoongArch-64", "-loongarch64", "-MIPS-32 LE", "-mips-le",
		"-MIPS-64 LE", "-mips64-le", "-PPC64LE", "-ppc64-le", "-RISC-V-", "-riscv", "-TILE-Gx", "-tilegx")
	seen := make(map[string]bool)
	compared := 0
	for line := range strings.Lines(typeTable) {
		guid, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if g, err := ParseGUID(guid); err != nil || g.String() != guid || name == "" || seen[guid] || seen[name] {
			t.Errorf("line %q: %v", line, err)
		}
		seen[guid], seen[name] = true, true
		// "Linux root verity (ARM-64)" becomes "root verity-arm64", then root-arm64-verity.
		theirs := strings.ToLower(arches.Replace(words.Replace(known[guid])))
		if part, arch, ok := strings.Cut(theirs, "-"); ok && strings.HasPrefix(part, "root") || strings.HasPrefix(part, "usr") {
			if rest, ok := strings.CutPrefix(theirs, part[:len(strings.Fields(part)[0])]+" verity-sig-"); ok {
				theirs = strings.Fields(part)[0] + "-" + rest + "-verity-sig"
			} else if first, verity, _ := strings.Cut(part, " "); verity == "verity" {
				theirs = first + "-" + arch + "-verity"
			}
			if theirs != name {
				t.Errorf("%s is %q to sfdisk (%s), %s to us", guid, known[guid], theirs, name)
			}
			compared++
		}
	}
	if compared < 100 {
		t.Errorf("sfdisk knows only %d of our types by an architecture", compared)
	}
}
