package remote_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"pilotlight/config/resource"
	"pilotlight/providers"
)

const (
	region   = "eu-west-1"
	endpoint = "s3.dualstack." + region + ".amazonaws.com"
	keyID    = "AKIAPILOTLIGHT"
	keyWord  = "the/secret+key"
)

// s3 is a gateway that speaks S3, in one region, behind the names of AWS.
type s3 struct {
	*wire
	put   *http.Client
	roots *x509.CertPool
}

func newS3(t *testing.T) s3 {
	t.Helper()
	a := newAuthority(t, "*."+endpoint, endpoint)
	root, versions, port := t.TempDir(), t.TempDir(), freePort(t, "tcp")
	gateway := start(t, []string{"ROOT_ACCESS_KEY=" + keyID, "ROOT_SECRET_KEY=" + keyWord},
		tool(t, "github.com/versity/versitygw/cmd/versitygw"), "--port", "127.0.0.1:"+port, "--region", region,
		"--cert", a.cert, "--key", a.key, "--virtual-domain", endpoint, "--disable-strict-bucket-names", "posix", "--versioning-dir", versions, root)
	gateway.until(t, "versitygw", listens("127.0.0.1:"+port))
	to := map[string]string{endpoint + ":443": "127.0.0.1:" + port}
	for _, bucket := range []string{"private", "public"} {
		to[bucket+"."+endpoint+":443"] = "127.0.0.1:" + port
	}
	w := newWire(t, a.roots, to)
	return s3{w, &http.Client{Transport: w.next}, a.roots}
}

// do makes a request that AWS's own library has signed, and gives the answer's headers.
func (s s3) do(t *testing.T, method, path string, body []byte) http.Header {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+endpoint+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Content-Sha256", hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(t.Context(), sdk.Credentials{AccessKeyID: keyID, SecretAccessKey: keyWord}, r, hash, "s3", region, time.Now()); err != nil {
		t.Fatal(err)
	}
	answer, err := s.put.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	said, _ := io.ReadAll(answer.Body)
	if answer.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s", method, path, answer.Status, said)
	}
	return answer.Header
}

// ec2 is a machine in EC2 with a role that has those keys.
func ec2(t *testing.T, id, word string) *resource.Account {
	t.Helper()
	port, dir := freePort(t, "tcp"), t.TempDir()
	settings, err := json.Marshal(map[string]any{"metadata": map[string]any{"values": map[string]any{
		"iam-security-credentials": map[string]string{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": word, "Token": ""},
		"placement-region":         region,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "mock.json")
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	mock := start(t, []string{"HOME=" + dir}, tool(t, "github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock"),
		"--imdsv2", "--config-file", file, "--hostname", "127.0.0.1", "--port", port)
	mock.until(t, "the metadata mock", listens("127.0.0.1:"+port))
	metadata := newWire(t, nil, map[string]string{"169.254.169.254:80": "127.0.0.1:" + port})
	return providers.Account("", machine{sys: dmi("sys_vendor", "Amazon EC2"), metadata: metadata})
}

func TestS3(t *testing.T) {
	t.Parallel()
	s := newS3(t)
	s.do(t, "PUT", "/private", nil)
	s.do(t, "PUT", "/Old.Bucket", nil)
	s.do(t, "PUT", "/public", nil)
	s.do(t, "PUT", "/public?policy=", []byte(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::public/*"]}]}`))
	s.do(t, "PUT", "/private?versioning=", []byte(`<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`))
	for _, path := range []string{"/private/a", "/private/dir/b%20%C3%A4%2B%28c%29~", "/private/p%25q", "/Old.Bucket/a", "/public/a"} {
		s.do(t, "PUT", path, text)
	}
	first := s.do(t, "PUT", "/private/changed", []byte("before")).Get("X-Amz-Version-Id")
	s.do(t, "PUT", "/private/changed", []byte("after"))
	if first == "" {
		t.Fatal("the gateway keeps no versions")
	}
	nobody := func() *resource.Account {
		// Firmware says nothing of a cloud: no metadata service may be asked.
		return providers.Account("", machine{sys: dmi("sys_vendor", "A Vendor"), metadata: newWire(t, nil, nil)})
	}
	role := ec2(t, keyID, keyWord)

	for _, tt := range []struct {
		name, source string
		account      *resource.Account
		want         string
		hosts        string // that were asked, in order
		signed       string // which of the requests were, as y and n
	}{
		{"as the role", "s3://private/a", role, string(text), "private." + endpoint, "y"},
		{"a key that must be encoded", "s3://private/dir/b%20%C3%A4+(c)~", role, string(text), "private." + endpoint, "y"},
		{"a key with an escape in it", "arn:aws:s3:::private/p%q", role, string(text), "private." + endpoint, "y"},
		{"by its ARN", "arn:aws:s3:::private/a", role, string(text), "private." + endpoint, "y"},
		{"a bucket that is no host name", "s3://Old.Bucket/a", role, string(text), endpoint, "y"},
		{"the newest version", "s3://private/changed", role, "after", "private." + endpoint, "y"},
		{"an older version", "s3://private/changed?versionId=" + first, role, "before", "private." + endpoint, "y"},
		{"an older version by ARN", "arn:aws:s3:::private/changed?versionId=" + first, role, "before", "private." + endpoint, "y"},
		{"public, as the role", "s3://public/a", role, string(text), "public." + endpoint, "y"},
		{"public, as a role that has no right to it", "s3://public/a", ec2(t, keyID, "another word"), string(text), "public." + endpoint + " public." + endpoint, "yn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.sent()
			u, err := resource.ParseURL(tt.source)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.client(tt.account).Bytes(t.Context(), resource.Resource{Source: u})
			if err != nil || string(got) != tt.want {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			asked(t, s.wire, tt.hosts, tt.signed)
		})
	}
	t.Run("refused", func(t *testing.T) {
		for _, tt := range []struct {
			source  string
			account *resource.Account
			kind    error
			says    string
		}{
			{"s3://private/none", role, resource.ErrNotFound, "as this machine"},
			{"s3://private/a", ec2(t, keyID, "another word"), resource.ErrRefused, "as this machine, and anonymously"},
			{"s3://private/changed?versionId=01ARZ3NDEKTSV4RRFFQ69G5FAV", role, resource.ErrNotFound, "as this machine"},
			{"arn:aws:s3:" + region + ":123456789012:accesspoint/name/object/a", nobody(), resource.ErrRefused, "no role"},
		} {
			got, err := get(t, s.client(tt.account), tt.source)
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) || got != nil {
				t.Errorf("%s: %d bytes, %v", tt.source, len(got), err)
			}
			if err != nil && (strings.Contains(err.Error(), keyWord) || strings.Contains(err.Error(), "versionId")) {
				t.Errorf("%s: the error tells too much: %v", tt.source, err)
			}
		}
	})
	t.Run("anonymously", func(t *testing.T) {
		// Outside EC2 a bucket is looked for in the partition aws, by its first region; the gateway stands
		// in for that one, and so does not know the host name.
		s.to["public.s3.dualstack.us-east-1.amazonaws.com:443"] = s.to[endpoint+":443"]
		s.sent()
		c := s.client(nobody())
		c.TotalTimeout = 2 * time.Second
		_, err := get(t, c, "s3://public/a")
		if !errors.Is(err, resource.ErrUntrusted) {
			t.Errorf("a server of another region's name: %v", err)
		}
		asked(t, s.wire, "public.s3.dualstack.us-east-1.amazonaws.com", "n")
	})
	t.Run("through a proxy", func(t *testing.T) {
		asked := []string{}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Method+" "+r.Host)
			there, err := net.Dial("tcp", s.to[r.Host])
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer there.Close()
			here, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer here.Close()
			_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
			go func() { _, _ = io.Copy(there, here) }()
			_, _ = io.Copy(here, there)
		}))
		defer proxy.Close()
		transport := resource.NewTransport(resource.TransportOptions{Roots: s.roots, Proxy: func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }})
		c := s.client(role)
		c.Transport = transport
		got, err := get(t, c, "s3://private/a")
		transport.CloseIdleConnections()
		if want := "CONNECT private." + endpoint + ":443"; err != nil || !bytes.Equal(got, text) || strings.Join(asked, " ") != want {
			t.Errorf("%d bytes, %v; the proxy was asked %q", len(got), err, asked)
		}
	})
	t.Run("broken off and continued", func(t *testing.T) {
		s.sent()
		c := s.client(role)
		cut := &cutting{next: s.wire, after: len(text) / 3}
		c.Transport = cut
		got, err := get(t, c, "s3://private/a")
		if err != nil || !bytes.Equal(got, text) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		list := s.sent()
		if len(list) != 2 || list[1].Header.Get("Range") == "" || list[1].Header.Get("Authorization") == "" {
			t.Errorf("%d requests, the last one with %v", len(list), list[len(list)-1].Header)
		}
	})
}

// asked compares the hosts that were asked, and which requests carried credentials.
func asked(t *testing.T, w *wire, hosts, signed string) {
	t.Helper()
	var got []string
	how := ""
	for _, r := range w.sent() {
		got = append(got, r.URL.Host)
		if r.Header.Get("Authorization") != "" {
			how += "y"
		} else {
			how += "n"
		}
	}
	if strings.Join(got, " ") != hosts || how != signed {
		t.Errorf("asked %q, signed %q; want %q, %q", got, how, hosts, signed)
	}
}

// cutting breaks the first answer off.
type cutting struct {
	next  http.RoundTripper
	after int
	done  bool
}

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.next.RoundTrip(r)
	if err != nil || c.done {
		return answer, err
	}
	c.done = true
	answer.Body = &short{answer.Body, c.after}
	return answer, nil
}

type short struct {
	io.ReadCloser
	left int
}

func (s *short) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := s.ReadCloser.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}
