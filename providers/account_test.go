package providers

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"pilotlight/config/resource"
)

const azureRequest = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F"

// marks is the firmware of a machine in a cloud.
func marks(cloud string) fstest.MapFS {
	for _, p := range clouds() {
		if p.Name == cloud {
			sys := fstest.MapFS{}
			for _, m := range p.Match[0] {
				sys[m.File] = &fstest.MapFile{Data: []byte(m.Value + "\n")}
			}
			return sys
		}
	}
	return fstest.MapFS{}
}

// identities asks an account for all that it may have, and says what it has.
func identities(t *testing.T, a *resource.Account) (string, error) {
	t.Helper()
	keys, err := a.AWS(t.Context())
	region, regionErr := a.Region(t.Context())
	google, googleErr := a.Google(t.Context())
	azure, azureErr := a.Azure(t.Context())
	var errs []error
	for _, err := range []error{err, regionErr, googleErr, azureErr} {
		if err != nil && !errors.Is(err, resource.ErrNobody) {
			errs = append(errs, err)
		}
	}
	return fmt.Sprintf("%s %s %s|%s|%s|%s", keys.ID, keys.Secret.Reveal(), keys.Session.Reveal(), region, google.Reveal(), azure.Reveal()), errors.Join(errs...)
}

func TestAccount(t *testing.T) {
	const nobody = "  |||"
	token := exchange{request: "PUT /latest/api/token", headers: []string{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 300", "Content-Length: 0"}, status: 200, answer: []string{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 300"}, body: "session"}
	item := func(path string, status int, body string) exchange {
		return exchange{request: "GET /latest/meta-data/" + path, headers: []string{"X-Aws-Ec2-Metadata-Token: session"}, status: status, body: body}
	}
	gce := func(status int, body string) exchange {
		return exchange{request: "GET /computeMetadata/v1/instance/service-accounts/default/token", headers: []string{"Metadata-Flavor: Google"}, status: status, answer: []string{"Metadata-Flavor: Google"}, body: body}
	}
	azure := func(status int, body string) exchange {
		return exchange{request: azureRequest, headers: []string{"Metadata: true"}, status: status, body: body}
	}
	const keys = `{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIA", "SecretAccessKey": "word", "Token": "session token", "Expiration": "2026-11-24T18:00:00Z"}`
	for _, tt := range []struct {
		name, platform, cloud string // the platform's name, and the cloud by the firmware
		tape                  []exchange
		want                  string
		says                  string // of the error, "" if there is none
	}{
		{"a machine of somebody's own", "metal", "", nil, nobody, ""},
		{"a platform that is no cloud with identities", "qemu", "", nil, nobody, ""},
		{"EC2 by its firmware", "", "aws", []exchange{token, item("iam/security-credentials/", 200, "role\n"), item("iam/security-credentials/role", 200, keys), token, item("placement/region", 200, "eu-west-1")},
			"ASIA word session token|eu-west-1||", ""},
		{"EC2, its config by address", "metal", "aws", []exchange{token, item("iam/security-credentials/", 404, ""), token, item("placement/region", 404, "")}, nobody, ""},
		{"EC2 by name", "aws", "", []exchange{token, item("iam/security-credentials/", 404, ""), token, item("placement/region", 200, "us-east-2")}, "  |us-east-2||", ""},
		{"named otherwise than the firmware says", "gcp", "aws", []exchange{gce(404, "")}, nobody, ""},
		{"EC2 with its metadata turned off", "", "aws", []exchange{{request: token.request, headers: token.headers, status: 403}, {request: token.request, headers: token.headers, status: 403}}, nobody, ""},
		{"EC2 before tokens", "", "aws", []exchange{
			{request: token.request, headers: token.headers, status: 404}, {request: "GET /latest/meta-data/iam/security-credentials/", status: 404},
			{request: token.request, headers: token.headers, status: 404}, {request: "GET /latest/meta-data/placement/region", status: 200, body: "sa-east-1"}}, "  |sa-east-1||", ""},
		{"EC2 before tokens, with a role", "", "aws", []exchange{
			{request: token.request, headers: token.headers, status: 404}, {request: "GET /latest/meta-data/iam/security-credentials/", status: 200, body: "role"},
			{request: token.request, headers: token.headers, status: 404}, {request: "GET /latest/meta-data/iam/security-credentials/role", status: 200, body: keys},
			{request: token.request, headers: token.headers, status: 404}, {request: "GET /latest/meta-data/placement/region", status: 404}}, "ASIA word session token|||", ""},
		{"EC2, a role that is not ready", "", "aws", []exchange{token, item("iam/security-credentials/", 200, "role"), item("iam/security-credentials/role", 200, `{"Code": "AssumeRoleUnauthorizedAccess", "Message": "hunter2"}`), token, item("placement/region", 200, "x")},
			"  |x||", "keys of this instance's role"},
		{"Google's", "auto", "gcp", []exchange{gce(200, `{"access_token": "ya29", "expires_in": 3000}`)}, "  ||ya29|", ""},
		{"Google's, no service account", "gcp", "", []exchange{gce(404, "")}, nobody, ""},
		{"Google's, something else answers", "gcp", "", []exchange{gce(200, "hunter2")}, nobody, "no token of this machine's identity"},
		{"Azure's", "", "azure", []exchange{azure(200, `{"access_token": "eyJ", "expires_in": "86399"}`)}, "  |||eyJ", ""},
		{"Azure's, no identity", "azure", "", []exchange{azure(400, `{"error": "invalid_request"}`)}, nobody, ""},
		{"Azure's, a token that is no header's value", "azure", "", []exchange{azure(200, `{"access_token": "hunter2\r\nHost: x"}`)}, nobody, "no token of this machine's identity"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := reach{sys: marks(tt.cloud), at: map[string]*tape{}}
			if tt.tape != nil {
				r.at["169.254.169.254:80"] = play(t, tt.tape...)
			}
			got, err := identities(t, Account(tt.platform, r))
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if (err != nil) != (tt.says != "") || err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("error %v, want one with %q", err, tt.says)
			}
		})
	}
}

func TestFirmwareOfTwoCloudsIsNobody(t *testing.T) {
	sys := marks("aws")
	for file, content := range marks("gcp") {
		sys[file] = content
	}
	_, err := Account("", reach{sys: sys}).AWS(t.Context())
	if _, ok := errors.AsType[*DetectError](err); !ok {
		t.Errorf("error %v", err)
	}
}

// FuzzBearer reads answers of identity services.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{`{"access_token": "a.b-c_d"}`, `{"access_token": ""}`, `{"access_token": "a b"}`, `[]`, ``, `{"access_token": "a\n"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := bearer(data)
		if (err == nil) == s.Empty() {
			t.Fatalf("%q: a token %v, %v", data, !s.Empty(), err)
		}
		// What is sent must be a header's value.
		r := http.Header{"Authorization": {"Bearer " + s.Reveal()}}
		if err == nil && strings.ContainsAny(r.Get("Authorization"), "\r\n\x00") {
			t.Fatalf("%q gives a token that is no header", data)
		}
	})
}
