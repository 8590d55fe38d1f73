package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5/types"
	"github.com/coreos/vcontext/path"

	"pilotlight/config/resource"
)

// TestSchemesOfEachSpec: which sources a spec knows. None may be refused that it knows,
// nor taken that it does not.
func TestSchemesOfEachSpec(t *testing.T) {
	versions := []string{"3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", newest}
	for source, since := range map[string]string{
		"http://h/f": "3.0.0", "https://name.blob.core.windows.net/c/b": "3.0.0", "data:,x": "3.0.0", "tftp://h:6969/f": "3.0.0",
		"s3://bucket/k": "3.0.0", "s3://bucket/k?versionId=v": "3.0.0", "gs://b/o": "3.2.0",
		"arn:aws:s3:::b/k?versionId=v": "3.4.0", "arn:aws-cn:s3:cn-north-1:1:accesspoint/n/object/k": "3.4.0",
		"ftp://h/f": "never",
	} {
		for _, version := range versions {
			for _, place := range []string{
				`"storage": {"files": [{"path": "/f", "contents": {"source": %q}}]}`,
				`"storage": {"files": [{"path": "/f", "append": [{"source": %q}]}]}`,
				`"ignition": {"version": "` + version + `", "config": {"merge": [{"source": %q}]}}`,
				`"ignition": {"version": "` + version + `", "config": {"replace": {"source": %q}}}`,
				`"ignition": {"version": "` + version + `", "security": {"tls": {"certificateAuthorities": [{"source": %q}]}}}`,
			} {
				text := "{" + fmt.Sprintf(place, source) + "}"
				if !strings.Contains(text, `"version"`) {
					text = `{"ignition": {"version": "` + version + `"}, ` + text[1:]
				}
				_, report := Parse([]byte(text), Options{})
				refused := false
				for _, f := range report {
					refused = refused || f.Severity == Error
				}
				if want := since > version; refused != want {
					t.Errorf("%s: refused %v, want %v: %v", text, refused, want, report)
				}
			}
		}
	}
}

// FuzzSourceAsTheLibrary: what can be fetched is what Ignition takes for a source, too. The
// other way round it takes more: what no store has, such as an object without a key.
func FuzzSourceAsTheLibrary(f *testing.F) {
	for _, s := range []string{"tftp://h/f", "s3://b/k?versionId=v", "s3://b/k?versionId=", "gs://b/o", "arn:aws:s3:::b/k", "arn:aws:s3:::b/k?versionId", "arn:aws:s3:r:1:accesspoint/n/object/k",
		"arn:aws:s3:r:1:accesspoint/n/object/a%2fb", "arn:aws:s3:::b/a:b", "arn:aws:s3:::b", "arn:aws:sns:::b/k", "ARN:aws:s3:::b/k", "S3://b/k", "https://u:p@h/?q#f", "data:,x", "http://h:1/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := resource.ParseURL(s); err != nil || u.IsZero() {
			return
		}
		r := (types.Resource{Source: &s}).Validate(path.New("json"))
		if r.IsFatal() {
			t.Errorf("%q: %v", s, r)
		}
	})
}
