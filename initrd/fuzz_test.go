package initrd

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Each parser of text that comes from elsewhere has a target here, or beside its own tests.

// FuzzMountinfo: a path comes back as it was, however it looks, and other text is an error or a list.
func FuzzMountinfo(f *testing.F) {
	f.Add("/a b\\c", "36 35 98:0 / /mnt\\040x rw,noatime shared:1 - ext4 /dev/root rw\n")
	f.Add("\\040\n\t", "1 2 x:y / / ro - a b c\n")
	f.Add("", "- - - - - - -\n")
	f.Fuzz(func(t *testing.T, path, text string) {
		if got := unescape(escape(path)); got != path {
			t.Errorf("%q becomes %q", path, got)
		}
		if mounts, options, err := parseMountinfo(strings.NewReader(text)); err == nil && len(mounts) != len(options) {
			t.Errorf("%d mounts with %d options", len(mounts), len(options))
		}
		if path == "" || strings.ContainsAny(path, "\v\f\r\u0085\u00a0") || strings.ContainsFunc(path, func(r rune) bool { return r > 0x7f }) {
			return
		}
		line := fmt.Sprintf("36 35 8:1 / /%s rw - ext4 %s rw\n", escape(path), escape(path))
		mounts, _, err := parseMountinfo(strings.NewReader(line))
		if err != nil || len(mounts) != 1 || mounts[0].Where != "/"+path || mounts[0].Source != path || mounts[0].Major != 8 || mounts[0].Minor != 1 {
			t.Errorf("%q: %+v, %v", line, mounts, err)
		}
	})
}

// FuzzOwner: a number is that of a line with the name, and never one that means something else to the kernel.
func FuzzOwner(f *testing.F) {
	f.Add("root:x:0:0::/:/bin/sh\nweb:x:80:80\n", "web")
	f.Add("web:x:4294967295\nweb:x:7\n", "web")
	f.Add("web:x:-1:\n:::\n", "")
	f.Fuzz(func(t *testing.T, data, name string) {
		id, err := idOf(data, name)
		if err != nil {
			return
		}
		if id < 0 || id == 1<<32-1 || id == 1<<16-1 || !strings.Contains(data, fmt.Sprint(id)) && !strings.Contains(data, "0") || !strings.Contains(data, name+":") {
			t.Errorf("%q in %q is %d", name, data, id)
		}
	})
}

// FuzzNameServer: what is read as a server can be asked.
func FuzzNameServer(f *testing.F) {
	for _, word := range []string{"192.0.2.1", "192.0.2.1:54#dns.example", "[2001:db8::1]:53", "fe80::1%eth0", "fe80::1", "[fe80::1%2]", "x", "%", "#", "[]", "1.2.3.4:0"} {
		f.Add(word, "2")
	}
	f.Fuzz(func(t *testing.T, word, link string) {
		if s, ok := parseNameServer(word, link); ok && (!s.IsValid() || s.Port() == 0) {
			t.Errorf("%q is %v", word, s)
		}
	})
}

// FuzzDefinition: the value of a key is a part of the text, without blanks around it.
func FuzzDefinition(f *testing.F) {
	f.Add("[Partition]\nType=var\nFormat = ext4 \n# Format=xfs\n[Other]\nFormat=vfat\n")
	f.Add("Format=x\n[Partition\n=\n[]\n")
	f.Fuzz(func(t *testing.T, text string) {
		v := Definition{Contents: []byte(text)}.Value("Partition", "Format")
		if v != strings.TrimSpace(v) || !strings.Contains(text, v) || strings.Contains(v, "\n") {
			t.Errorf("%q", v)
		}
	})
}

// FuzzUnpackFrozen: what can be unpacked, packed again and unpacked once more is the same.
func FuzzUnpackFrozen(f *testing.F) {
	whole := Frozen{Boot: "first", Platform: "metal", Provision: "p", Documents: []Document{{Name: "user", Bytes: []byte("{}")}}, Parts: map[string][]byte{"a": []byte("b"), "c": {}}}
	packed, err := whole.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(packed[:len(packed)-1])
	f.Add(append(packed, 'x'))
	f.Add([]byte(frozenMark + "{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		one, err := UnpackFrozen(bytes.Clone(data))
		if err != nil {
			return
		}
		again, err := one.Pack()
		if err != nil {
			t.Fatal(err)
		}
		two, err := UnpackFrozen(again)
		if err != nil || !reflect.DeepEqual(one, two) {
			t.Errorf("%v\n%+v\n%+v", err, one, two)
		}
	})
}

// FuzzUnquoted: nothing between quotation marks is told of what a program said.
func FuzzUnquoted(f *testing.F) {
	f.Add("line 3: ", "a secret", " is wrong")
	f.Add("it's ", "x", "")
	f.Fuzz(func(t *testing.T, before, secret, after string) {
		if strings.ContainsAny(before+after, `'"`) || strings.ContainsAny(secret, `"`) || secret == "" || strings.Contains(before+after+`"…"`, secret) {
			return
		}
		got := unquoted(before + `"` + secret + `"` + after)
		if strings.Contains(got, `"`+secret) || strings.Contains(got, secret+`"`) {
			t.Errorf("%q", got)
		}
	})
}

// FuzzAnswers are programs' answers, which may be anything.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`[{"type":"var","label":"var","uuid":"x","activity":"create"}]`))
	f.Add([]byte("Id=x.service\nInactiveExitTimestampMonotonic=5000000\nActiveEnterTimestampMonotonic=9000000\n\nId=y\nInactiveExitTimestampMonotonic=-1\n"))
	f.Add([]byte("md127 : active raid1 vdc[1] vdb[0]\nmd126 : inactive vdd[1](S)\nmd : [ [\n"))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if rows, err := parseRepart(answer); err != nil && rows != nil {
			t.Errorf("an error and %d rows", len(rows))
		}
		if line, err := parseTimeline(answer, answer); err == nil {
			for _, u := range line.Units {
				if u.Name == "" || u.Took < noticeable {
					t.Errorf("%+v", u)
				}
			}
		}
		for _, a := range parseMdstat(string(answer)) {
			if !strings.HasPrefix(a.name, "md") {
				t.Errorf("%+v", a)
			}
		}
	})
}

// FuzzAccounts: an entry of passwd(5) and the like has all its fields and a name; what is none is left alone, and a setting
// is of one line.
func FuzzAccounts(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/sh\n# comment\n+@nis::::::\nshort:x\n::::::\n", 7, 7)
	f.Add("root:*\nweb:!:19000:0:99999:7:::\n", 2, 9)
	f.Add("UID_MIN 1000 # no number\nENCRYPT_METHOD \"YESCRYPT\"\nHOME=/srv\npasswd: files altfiles # x\n", 1, 1)
	f.Fuzz(func(t *testing.T, text string, least, most int) {
		if least < 1 || most < least || most > 20 {
			return
		}
		table := &table{least: least, most: most}
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if fields := table.fields(line); fields != nil && (len(fields) != most || fields[0] == "" || !strings.HasPrefix(line, fields[0])) {
				t.Errorf("%q has the fields %q", line, fields)
			}
		}
		for _, s := range []settings{parseLoginDefs(text), parseUseradd(text)} {
			for k, v := range s {
				if strings.Contains(k+v, "\n") {
					t.Errorf("%q is %q", k, v)
				}
			}
		}
		altFiles(text, "passwd:")
	})
}
