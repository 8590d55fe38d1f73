package resource

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/vincent-petithory/dataurl"
)

func TestParseURL(t *testing.T) {
	for _, tt := range []struct {
		text, scheme, shown string
		remote              bool
	}{
		{"", "", "", false},
		{"http://example.com", "http", "http://example.com", true},
		{"HTTP://Example.com/A", "http", "http://Example.com/A", true},
		{"https://user:pass@example.com:8443/a%20b/c?q=1&r=2#frag", "https", "https://example.com:8443/a%20b/c", true},
		{"http://[fe80::1]:80/x", "http", "http://[fe80::1]:80/x", true},
		{"http://example.com/a%2Fb", "http", "http://example.com/a%2Fb", true},
		{"http://example.com?token=x", "http", "http://example.com", true},
		{"tftp://u:p@h/dir/a%20b?q#f", "tftp", "tftp://h/dir/a%20b", true},
		{"tftp://[::1]:6969//x", "tftp", "tftp://[::1]:6969//x", true},
		{"s3://bucket/a/b%20c?versionId=v&x=y", "s3", "s3://bucket/a/b%20c", true},
		{"s3://My_old.Bucket//k", "s3", "s3://My_old.Bucket//k", true},
		{"arn:aws:s3:::bucket/a b/c:d?versionId=v", "arn", "arn:aws:s3:::bucket/a%20b/c:d", true},
		{"arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/name/object/a/b", "arn", "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/name/object/a/b", true},
		{"gs://my_bucket/a/b?generation=3", "gs", "gs://my_bucket/a/b", true},
		{"data:,hello", "data", "data:", false},
		{"data:text/plain;charset=utf-8;base64,aGVsbG8=", "data", "data:", false},
	} {
		u, err := ParseURL(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		js, err := json.Marshal(u)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
		}
		text, err := u.MarshalText()
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
		}
		if u.Scheme() != tt.scheme || u.Remote() != tt.remote || u.IsZero() != (tt.text == "") || u.Reveal() != tt.text {
			t.Errorf("%q: scheme %q, remote %v, zero %v, text %q", tt.text, u.Scheme(), u.Remote(), u.IsZero(), u.Reveal())
		}
		if u.String() != tt.shown || string(text) != tt.shown || string(js) != fmt.Sprintf("%q", tt.shown) || fmt.Sprintf("%d %q %v", u, u, u) != fmt.Sprintf("%s %q %s", tt.shown, tt.shown, tt.shown) {
			t.Errorf("%q prints as %s, JSON %s, text %s", tt.text, u, js, text)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for _, tt := range []struct {
		text string
		kind error
		says string
	}{
		{"tftp:///" + canary, ErrSyntax, "no host"},
		{"tftp://h", ErrSyntax, "no name of a file"},
		{"tftp://h/?" + canary, ErrSyntax, "no name of a file"},
		{"tftp://h/%00" + canary, ErrSyntax, "no name of a file"},
		{"tftp://h:0/" + canary, ErrSyntax, "port"},
		{"s3:///" + canary, ErrSyntax, "no name of a bucket"},
		{"s3://b:80/" + canary, ErrSyntax, "no name of a bucket"},
		{"s3://bucket", ErrSyntax, "no key"},
		{"s3://bucket//?" + canary, ErrSyntax, "no key"},
		{"s3://bucket/k?versionId=&x=" + canary, ErrSyntax, "empty versionId"},
		{"s3:bucket/" + canary, ErrSyntax, "no name of a bucket"},
		{"arn:aws:s3:::" + canary, ErrSyntax, "no key"},
		{"arn:aws:s3:::/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:ec2:::b/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:b/" + canary, ErrSyntax, "not of the form"},
		{"arn:AWS:s3:::b/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:::a:b/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:::b/k?versionId", ErrSyntax, "empty versionId"},
		{"arn:aws:s3::1:accesspoint/n/object/" + canary, ErrSyntax, "names no region"},
		{"arn:aws:s3:eu-west-1:1:accesspoint/n/obj/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:eu-west-1::accesspoint/n/object/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:eu.west:1:accesspoint/n/object/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:eu-west-1:1:accesspoint/a.b/object/" + canary, ErrSyntax, "not of the form"},
		{"arn:aws:s3:eu-west-1:1:accesspoint/n/object/", ErrSyntax, "no key"},
		{"gs:///" + canary, ErrSyntax, "no name of a bucket"},
		{"gs://b/", ErrSyntax, "no name of an object"},
		{"ftp://h/" + canary, ErrScheme, "not one of http, https, tftp, s3, arn, gs, data"},
		{canary + "://h/", ErrScheme, "not one of http, https, tftp, s3, arn, gs, data"},
		{"example.com/" + canary, ErrScheme, "there is none"},
		{"http:///" + canary, ErrSyntax, "no host"},
		{"http:" + canary, ErrSyntax, "no host"},
		{"http://:80/" + canary, ErrSyntax, "no host"},
		{"http://h:0/" + canary, ErrSyntax, "port"},
		{"http://h:65536/" + canary, ErrSyntax, "port"},
		{"http://user:" + canary, ErrSyntax, "no valid URL"},
		{"http://h/%zz" + canary, ErrSyntax, "hexadecimal"},
		{"http://h" + canary + " x/", ErrSyntax, "host name"},
		{"http://[::%25\xd5" + canary + "]/", ErrSyntax, "host name"},
		{"http://h/\x00" + canary, ErrSyntax, "no valid URL"},
		{"http://h/?a b" + canary, ErrSyntax, "%20"},
		{canary + ":://", ErrScheme, "not one of"},
		{"data:" + canary, ErrSyntax, "media type"},
		{"data:;" + canary + ",x", ErrSyntax, "media type"},
		{"DATA:," + canary, ErrSyntax, "media type"},
		{"data:;base64," + canary, ErrSyntax, "illegal base64 data at input byte"},
		{"data:,a b" + canary, ErrSyntax, "byte 1 "},
		{"data:,ab%zz" + canary, ErrSyntax, "hexadecimal"},
		{"data:,ab" + canary + "%4", ErrSyntax, "within a % escape"},
		{"data:,<" + canary, ErrSyntax, "byte 0 "},
	} {
		u, err := ParseURL(tt.text)
		if !errors.Is(err, tt.kind) {
			t.Errorf("%q: error %v, want %v", tt.text, err, tt.kind)
			continue
		}
		if !u.IsZero() {
			t.Errorf("%q: a URL besides the error", tt.text)
		}
		if !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %q does not say %q", tt.text, err, tt.says)
		}
		quietError(t, err)
	}
}

// quietError looks for the canary in all that can be had of an error.
func quietError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if _, ok := errors.AsType[*Error](err); !ok {
		t.Errorf("%T is no *Error: %v", err, err)
	}
	var walk func(error)
	walk = func(err error) {
		t.Helper()
		quiet(t, fmt.Sprintf("%v %+v %#v", err, err, err))
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() != nil {
				walk(e.Unwrap())
			}
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				walk(err)
			}
		}
	}
	walk(err)
}

func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"http://h/x", "http://H:80/y", true},
		{"https://h/x", "https://h:443/?q", true},
		{"https://u@h/x", "https://h/x", true},
		{"http://h/", "https://h/", false},
		{"http://h/", "http://h:8080/", false},
		{"http://h/", "http://sub.h/", false},
		{"http://[::1]/", "http://[::1]:80/", true},
	} {
		a, b := mustURL(t, tt.a), mustURL(t, tt.b)
		if same := origin(a.parsed.http) == origin(b.parsed.http); same != tt.same {
			t.Errorf("%s and %s: same origin %v", tt.a, tt.b, same)
		}
	}
}

func mustURL(t testing.TB, s string) URL {
	t.Helper()
	u, err := ParseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"", "http://h/p?q#f", "https://u:p@h:1/", "data:,x", "tftp://h/f", "arn:aws:s3:::b/k", "arn:aws:s3:eu-west-1:1:accesspoint/n/object/k?versionId=1", "s3://b/k?versionId=x", "gs://b/o", "http://[::1%25eth0]/", "http://%41/", "//h", "http://h/a%2fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrScheme) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if u.Reveal() != s || u.IsZero() != (s == "") {
			t.Fatalf("%q became %q", s, u.Reveal())
		}
		if !u.Remote() {
			return
		}
		// What is shown is a URL of the same place without its secrets.
		shown, err := url.Parse(u.String())
		if err != nil {
			t.Fatalf("%q is shown as %q: %v", s, u, err)
		}
		given, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if shown.User != nil || shown.RawQuery != "" || shown.Fragment != "" || origin(shown) != origin(given) || shown.Path != given.Path ||
			unescaped(t, shown.Opaque) != given.Opaque {
			t.Fatalf("%q is shown as %q", s, u)
		}
		for i := range len(u.String()) {
			if c := u.String()[i]; c < 0x20 || c >= 0x7f {
				t.Fatalf("%q is shown as %q", s, u)
			}
		}
	})
}

// unescaped decodes the name in an arn URL as it is shown; as it is given, it is not encoded.
func unescaped(t *testing.T, s string) string {
	t.Helper()
	u, err := url.PathUnescape(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var dataSeeds = []string{
	"data:,", "data:,hello%20w%C3%A9", "data:;base64,", "data:;base64,aGk=", "data:;base64,aGk", "data:;base64,aG=k", "data:;base64,aGk=aGk=",
	"data:text/plain,x", "data:text/,x", "data:/plain,x", "data:x-a/b,x", "data:x-/b,x", "data:xa/b,x", "data:X-a/b;c=d,x", "data:tex/b,x", "data:textual/b,x",
	"data:text/plain;a=b;base64,aGk=", "data:text/plain;base64;a=b,aGk=", "data:;a=b%41,x", "data:;a=b%4,x", "data:;a=b%zz,x", "data:;a,x", "data:;a=,x", "data:;=b,x", "data:;,x",
	`data:;a="b,c",x`, `data:;a="b\"c",x`, `data:;a="b\qc",x`, `data:;a="";b=%zz,x`, `data:;a="";b="\q",x`, `data:;a="";b=c;d=%zz,x`, `data:;a="b"c,x`, `data:;a="b`, `data:;a="b\`,
	"data:;a=\"\xe9\",x", "data:;a=\"\\\xe9\",x", "data:,\xe9", "data:,a b", "data:,a#b", "data:,a?b", "data:,<", "data:,%", "data:,%4", "data:,%4g", "data:;base64,a b", "data:;base64,____",
	"data:text/pl%zzain,x", "data:text/plain;a%zz=b,x", "data:base64,x", "data:;BASE64,aGk=", "data:;base64,aGl=",
	"data:,\n", "data:;base64,aG\nk=", "data:;a=\"\t\",x", "data", "DATA:,x", "",
}

// likeIgnition decodes as Ignition does: net/url first, then the library.
func likeIgnition(s string) ([]byte, bool) {
	if _, err := url.Parse(s); err != nil {
		return nil, false
	}
	d, err := dataurl.DecodeString(s)
	if err != nil {
		return nil, false
	}
	return d.Data, true
}

func compareData(t *testing.T, s string) {
	t.Helper()
	want, ok := likeIgnition(s)
	u, err := ParseURL(s)
	if ok != (err == nil) {
		t.Fatalf("%q: Ignition takes it: %v; here: %v", s, ok, err)
	}
	if err != nil {
		return
	}
	got, err := decodeData(u.Reveal())
	if err != nil || string(got) != string(want) {
		t.Fatalf("%q: %q, %v, want %q", s, got, err, want)
	}
}

func TestDataURLsAreIgnitions(t *testing.T) {
	for _, s := range dataSeeds {
		if s != "" {
			compareData(t, s)
		}
	}
	// Each byte in each kind of place.
	for c := range 256 {
		for _, form := range []string{"data:%s,x", "data:text%s/b,x", "data:text/b%s,x", "data:x%s/b,x", "data:;a%s=b,x", "data:;a=b%s,x", `data:;a="b%s",x`, `data:;a="b\%s",x`, "data:,b%s", "data:,%%%s0", "data:,%%0%s", "data:;base64,aGk%s", "data:;base64,aG%sk", "data:;base64%s,aGk="} {
			compareData(t, fmt.Sprintf(form, string([]byte{byte(c)})))
		}
	}
	large := slices.Repeat([]byte("0123456789abcdef\xff\x00"), 1<<16)
	compareData(t, "data:;base64,"+base64.StdEncoding.EncodeToString(large))
	compareData(t, "data:,"+dataurl.Escape(large))
}

func FuzzDataURL(f *testing.F) {
	for _, s := range dataSeeds {
		f.Add(strings.TrimPrefix(s, "data:"))
	}
	f.Fuzz(func(t *testing.T, rest string) {
		compareData(t, "data:"+rest)
	})
}

func BenchmarkDataURL(b *testing.B) {
	s := "data:;base64," + base64.StdEncoding.EncodeToString(make([]byte, 4<<20))
	for name, decode := range map[string]func(string) error{
		"here":    func(s string) error { _, err := decodeData(s); return err },
		"library": func(s string) error { _, err := dataurl.DecodeString(s); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				if err := decode(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
