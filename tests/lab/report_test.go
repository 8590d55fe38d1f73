package lab

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	facts := Facts{
		State:     "degraded",
		Units:     map[string]Unit{"a.service": {Active: "failed"}, "b.service": {Active: "active"}, "c.service": {Active: "failed"}},
		PCR12:     map[string]string{"sha256": "aa"},
		MachineID: "id",
		Mapper:    map[string]Mapping{"usr": {Table: "0 100 verity 1 253:2 253:3 4096 4096 10 1 sha256 c0ffee salt", Status: "0 100 verity C"}},
		Blocks: []Block{
			{Name: "vda", Type: "disk", Serial: "system"}, {Name: "vdb", Type: "disk", Serial: "other"},
			{Name: "vda2", Parent: "vda", Type: "part", PartLabel: "usr", Start: 10}, {Name: "vda1", Parent: "vda", Type: "part", PartLabel: "esp", Start: 2},
			{Name: "vdb1", Parent: "vdb", Type: "part", PartLabel: "data", Start: 1},
		},
		Mounts:      []Mount{{Target: "/usr", Type: "tmpfs"}, {Target: "/usr", Type: "erofs"}},
		Etc:         []File{{Path: "/etc/hostname", SHA256: "bb"}},
		CommandLine: "quiet usrhash=1",
		Journal: []Entry{{Unit: "systemd-networkd.service", Initrd: true}, {Unit: "systemd-networkd.service", Initrd: false},
			{Unit: "other.service", Initrd: true}},
	}
	tests := []struct {
		name     string
		expected Expected
		want     []string
	}{
		{"nothing expected", Expected{}, nil},
		{"state", Expected{State: "degraded"}, []string{"ok    system: degraded"}},
		{"failed units", Expected{NoFailed: true}, []string{"WRONG failed units: a.service c.service, want (nothing)"}},
		{"corrupt verity", Expected{RootHash: "c0ffee"}, []string{"ok    root hash of /usr: c0ffee", "WRONG verity of /usr holds: false, want true"}},
		{"PCR of a bank that is not there", Expected{PCR12: map[string]string{"sha256": "aa", "sha384": "cc"}},
			[]string{"ok    PCR 12 sha256: aa", "WRONG PCR 12 sha384: (nothing), want cc"}},
		{"partitions of a disk, by position", Expected{Serial: "system", Partitions: []string{"esp", "usr"}}, []string{"ok    partitions: esp usr"}},
		{"partitions of all disks", Expected{Partitions: []string{"esp", "usr"}}, []string{"WRONG partitions: esp usr data, want esp usr"}},
		{"a disk without partitions", Expected{Serial: "none", Partitions: []string{}}, []string{"ok    partitions: (nothing)"}},
		{"topmost mount", Expected{Mounts: map[string]string{"/usr": "erofs", "/var": "ext4"}},
			[]string{"ok    file system on /usr: erofs", "WRONG file system on /var: (nothing), want ext4"}},
		{"file", Expected{EtcDigests: map[string]string{"/etc/hostname": "bb", "/etc/motd": "dd"}},
			[]string{"ok    contents of /etc/hostname: bb", "WRONG contents of /etc/motd: (nothing), want dd"}},
		{"units", Expected{ActiveUnits: []string{"b.service", "d.service"}}, []string{"ok    unit b.service: active", "WRONG unit d.service: (nothing), want active"}},
		{"network", Expected{NoNetwork: true}, []string{"WRONG networkd's messages in the initrd: 1, want 0"}},
		{"command line", Expected{NotOnCommandLine: []string{"usrhash", "roothash"}},
			[]string{"WRONG usrhash on the command line: true, want false", "ok    roothash on the command line: false"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := Compare(facts, test.expected)
			var text strings.Builder
			if _, err := r.WriteTo(&text); err != nil {
				t.Fatal(err)
			}
			want := strings.Join(test.want, "\n")
			if got := strings.TrimSuffix(text.String(), "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got, want := r.OK(), len(test.want) > 0 && !strings.Contains(want, "WRONG"); got != want {
				t.Errorf("OK is %v, want %v", got, want)
			}
		})
	}
}

func TestVerityRootHash(t *testing.T) {
	const table = "0 100 verity 1 253:2 253:3 4096 4096 10 1 sha256 c0ffee salt"
	tests := []struct {
		name, table, status string
		hash                string
		verified            bool
	}{
		{"verified", table, "0 100 verity V", "c0ffee", true},
		{"corrupt", table, "0 100 verity C", "c0ffee", false},
		{"not verity", "0 100 linear 253:2 0 0 0 0 0 0 0 0 0", "0 100 linear V", "", false},
		{"no status", table, "", "", false},
		{"no device", "", "", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hash, verified := Facts{Mapper: map[string]Mapping{"usr": {Table: test.table, Status: test.status}}}.VerityRootHash("usr")
			if hash != test.hash || verified != test.verified {
				t.Errorf("got %q %v, want %q %v", hash, verified, test.hash, test.verified)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{"": "(nothing)", "a b": "a b", "a\nb": `"a\nb"`} {
		if got := quote(value); got != want {
			t.Errorf("quote(%q) is %s, want %s", value, got, want)
		}
	}
}
