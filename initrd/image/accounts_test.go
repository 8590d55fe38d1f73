package image

import (
	"errors"
	"strings"
	"testing"
)

// TestAccountsOfAnUsrOnlyTree is the case without /etc: numbers as systemd-sysusers would give them.
func TestAccountsOfAnUsrOnlyTree(t *testing.T) {
	f := files{
		"usr/lib/sysusers.d/10-basic.conf": "# fixed\ng root 0 -\nu root 0 - /root\ng disk 6 -\ng nogroup 65534 -\nu nobody 65534:65534 -\nm nobody disk\n",
		"usr/lib/sysusers.d/20-free.conf":  "g taken 999\ng input -\nu! systemd-network - \"systemd Network Management\"\ng kvm -\n",
		"usr/lib/sysusers.d/readme":        "u wrong 1\n",
	}
	tr, err := openTree(f.write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAccounts(tr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPayload()
	p.entries["usr/lib/udev/rules.d/50.rules"] = entry{data: []byte(`GROUP="disk"` + "\n" + `GROUP="input", OWNER="unknown"`)}
	p.entries["usr/lib/systemd/system/x.service"] = entry{data: []byte("[Service]\nUser=systemd-network\n")}
	p.entries["usr/lib/tmpfiles.d/x.conf"] = entry{data: []byte("# d /x 0755 root kvm\nd /run/x 0755 :nobody :root -\na+ /run/log - - - - d:group:taken:r-x\n")}
	names, err := p.addAccounts(a)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names, " "); got != "root systemd-network nobody" {
		t.Errorf("users %s", got)
	}
	for name, want := range map[string]string{
		"etc/passwd": "root:!*:0:0::/root:/usr/sbin/nologin\nsystemd-network:!*:997:997:systemd Network Management:/:/usr/sbin/nologin\nnobody:!*:65534:65534::/:/usr/sbin/nologin\n",
		"etc/group":  "root:!*:0:\ndisk:!*:6:\nsystemd-network:!*:997:\ninput:!*:998:\ntaken:!*:999:\nnogroup:!*:65534:\n",
	} {
		if got := string(p.entries[name].data); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}

func TestAccountsErrors(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"etc/passwd", "root:x:zero:0::/root:/bin/sh\n", "root has no number"},
		{"etc/passwd", "root:x:0:none::/root:/bin/sh\n", "root has no number for its group"},
		{"usr/lib/sysusers.d/a.conf", "u a many\n", `a: "many" is not a number`},
		{"usr/lib/sysusers.d/a.conf", "u a 5:nogroup\n", `a: no group "nogroup"`},
	} {
		tr, err := openTree(files{c.file: c.text}.write(t, t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		var bad *PathError
		if _, err := readAccounts(tr); !errors.As(err, &bad) || bad.Reason != c.want {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
}
