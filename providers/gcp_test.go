package providers

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const (
	gceV4 = "169.254.169.254:80"
	gceV6 = "[fd20:ce::254]:80"
)

// attribute is one exchange with the metadata server.
func attribute(name string, status int, body string) exchange {
	return exchange{
		request: "GET /computeMetadata/v1/instance/attributes/" + name, headers: []string{"Metadata-Flavor: Google"},
		status: status, answer: []string{"Metadata-Flavor: Google"}, body: body,
	}
}

func TestGCE(t *testing.T) {
	plain := attribute("user-data-encoding", 404, "canary")
	coded := attribute("user-data-encoding", 200, "base64\n")
	// Another server has no such header.
	bare := func(e exchange) exchange { e.answer = nil; return e }
	const notIt = "platform gcp: user-data: http://169.254.169.254: what answers is not the metadata server"
	slow := attribute("user-data", 200, "")
	slow.slow = true
	for name, c := range map[string]struct {
		tape []exchange
		want string
		none bool
		says string
	}{
		"happy":           {tape: []exchange{attribute("user-data", 200, "\xff as it is "), plain}, want: "\xff as it is "},
		"base64":          {tape: []exchange{attribute("user-data", 200, " e30K\n"), coded}, want: "{}\n"},
		"base64, gzipped": {tape: []exchange{attribute("user-data", 200, "H4sIAAAAAAAAA6uuBQBDv6ajAgAAAA=="), coded}, want: "{}"},
		"gzipped":         {tape: []exchange{attribute("user-data", 200, zip(t, "{}")), plain}, want: "{}"},
		"none":            {tape: []exchange{attribute("user-data", 404, "canary")}, none: true},
		"empty":           {tape: []exchange{attribute("user-data", 200, "")}, none: true},
		"403":             {tape: []exchange{attribute("user-data", 403, "canary")}, says: "platform gcp: user-data: http://169.254.169.254/computeMetadata/v1/instance/attributes/user-data: status 403 Forbidden (the metadata server refuses this machine)"},
		"403 for its encoding": {
			tape: []exchange{attribute("user-data", 200, "{}"), attribute("user-data-encoding", 403, "canary")},
			says: "platform gcp: user-data: http://169.254.169.254/computeMetadata/v1/instance/attributes/user-data-encoding: status 403",
		},
		"500, then good": {
			tape: []exchange{bare(attribute("user-data", 503, "canary")), attribute("user-data", 429, ""), attribute("user-data", 200, "{}"), attribute("user-data-encoding", 500, ""), plain},
			want: "{}",
		},
		"slow":                               {tape: []exchange{slow, attribute("user-data", 200, "{}"), plain}, want: "{}"},
		"somebody else, who has it":          {tape: []exchange{bare(attribute("user-data", 200, "canary"))}, says: notIt},
		"somebody else, who has it not":      {tape: []exchange{bare(attribute("user-data", 404, "canary"))}, says: notIt},
		"somebody else, who sends elsewhere": {tape: []exchange{{request: attribute("user-data", 0, "").request, headers: []string{"Metadata-Flavor: Google"}, status: 302, answer: []string{"Location: SERVER/"}}}, says: notIt},
		"no base64": {
			tape: []exchange{attribute("user-data", 200, "{canary}"), coded}, says: "platform gcp: user-data: the attribute user-data is not the base64 that user-data-encoding says it is",
		},
		"another encoding": {
			tape: []exchange{attribute("user-data", 200, "{}"), attribute("user-data-encoding", 200, "canary")}, says: "platform gcp: user-data: the attribute user-data-encoding is not base64",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := reach{header: 200 * time.Millisecond, at: map[string]*tape{gceV4: play(t, c.tape...)}}
			if c.says != "" {
				// Both families say so, and neither is waited for.
				r.at[gceV6] = play(t, c.tape...)
			}
			a, err := ask(t, "gcp", r)
			if string(a.Bytes) != c.want || errors.Is(err, ErrNone) != c.none || (c.want != "") != (err == nil) {
				t.Fatalf("%q %v", a.Bytes, err)
			}
			if c.want != "" && a.Source != "http://169.254.169.254/computeMetadata/v1/instance/attributes/user-data" {
				t.Errorf("source %q", a.Source)
			}
			if err != nil && (!strings.HasPrefix(strings.Replace(err.Error(), "[fd20:ce::254]", "169.254.169.254", 1), c.says) || strings.Contains(err.Error(), "canary")) {
				t.Errorf("%v, want %s", err, c.says)
			}
		})
	}
}

// TestGCEWithoutIPv4 by the address that machines of IPv6 alone have, and not by what
// the environment says.
func TestGCEWithoutIPv4(t *testing.T) {
	t.Setenv("GCE_METADATA_HOST", "192.0.2.1")
	a, err := ask(t, "gcp", reach{at: map[string]*tape{gceV6: play(t, attribute("user-data", 200, "{}"), attribute("user-data-encoding", 404, ""))}})
	if err != nil || string(a.Bytes) != "{}" || a.Source != "http://[fd20:ce::254]/computeMetadata/v1/instance/attributes/user-data" {
		t.Errorf("%+v %v", a, err)
	}
}
