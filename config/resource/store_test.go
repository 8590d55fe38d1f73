package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// scripted answers requests from a list, and keeps them.
type scripted struct {
	t       *testing.T
	answers []func(*http.Request) *http.Response
	mu      sync.Mutex
	got     []*http.Request
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, r)
	if len(s.got) > len(s.answers) {
		s.t.Errorf("one request too many: %s", r.URL)
		return nil, errors.New("end of script")
	}
	return s.answers[len(s.got)-1](r), nil
}

func (s *scripted) line() string {
	var b strings.Builder
	for _, r := range s.got {
		fmt.Fprintf(&b, "%s %s %v\n", r.Method, r.URL, r.Header.Get("Authorization") != "")
	}
	return b.String()
}

func say(status int, body string, headers ...string) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		h := http.Header{}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: readCloser{strings.NewReader(body)}, ContentLength: int64(len(body)), Request: r}
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func role(id string) func(context.Context) (Keys, error) {
	return func(context.Context) (Keys, error) {
		return Keys{ID: id, Secret: NewSecret(canary), Session: NewSecret(canary)}, nil
	}
}

func in(region string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return region, nil }
}

func bearer(token string) func(context.Context) (Secret, error) {
	return func(context.Context) (Secret, error) { return NewSecret(token), nil }
}

func TestStores(t *testing.T) {
	ok := say(200, "content")
	wrongRegion := say(400, "<Error><Code>AuthorizationHeaderMalformed</Code><Region>ap-south-2</Region></Error>")
	const dual = ".s3.dualstack."
	for _, tt := range []struct {
		name, source string
		account      *Account
		answers      []func(*http.Request) *http.Response
		want         string // requests: method, address, with credentials or not
		kind         error
		says         string
	}{
		{"the instance's region first", "s3://bucket/k", &Account{AWS: role("A"), Region: in("eu-west-1")}, []func(*http.Request) *http.Response{ok},
			"GET https://bucket" + dual + "eu-west-1.amazonaws.com/k true\n", nil, ""},
		{"the partition of the instance", "s3://bucket/k", &Account{Region: in("cn-northwest-1")}, []func(*http.Request) *http.Response{ok},
			"GET https://bucket" + dual + "cn-northwest-1.amazonaws.com.cn/k false\n", nil, ""},
		{"another partition than the instance's", "arn:aws-cn:s3:::bucket/k", &Account{Region: in("eu-west-1")}, []func(*http.Request) *http.Response{ok},
			"GET https://bucket" + dual + "cn-north-1.amazonaws.com.cn/k false\n", nil, ""},
		{"the government's", "arn:aws-us-gov:s3:::bucket/k", nil, []func(*http.Request) *http.Response{ok},
			"GET https://bucket" + dual + "us-gov-west-1.amazonaws.com/k false\n", nil, ""},
		{"a partition without dual stack", "s3://bucket/k", &Account{Region: in("us-iso-west-1")}, []func(*http.Request) *http.Response{ok},
			"GET https://bucket.s3.us-iso-west-1.c2s.ic.gov/k false\n", nil, ""},
		{"no host name", "s3://a.bucket/k?versionId=a/b c", nil, []func(*http.Request) *http.Response{ok},
			"GET https://s3.dualstack.us-east-1.amazonaws.com/a.bucket/k?versionId=a%2Fb%20c false\n", nil, ""},
		{"an access point", "arn:aws:s3:eu-west-1:123456789012:accesspoint/name/object/a/b", &Account{AWS: role("A"), Region: in("us-east-2")}, []func(*http.Request) *http.Response{ok},
			"GET https://name-123456789012.s3-accesspoint.dualstack.eu-west-1.amazonaws.com/a/b true\n", nil, ""},
		{"an access point that refuses", "arn:aws:s3:eu-west-1:123456789012:accesspoint/name/object/a", &Account{AWS: role("A")}, []func(*http.Request) *http.Response{say(403, "", "X-Amz-Bucket-Region", "us-west-2")},
			"GET https://name-123456789012.s3-accesspoint.dualstack.eu-west-1.amazonaws.com/a true\n", ErrRefused, "asked as this machine, in the region eu-west-1"},
		{"an access point, as nobody", "arn:aws:s3:eu-west-1:123456789012:accesspoint/name/object/a", nil, nil, "", ErrRefused, "no role"},
		{"moved, by the header", "s3://bucket/k", &Account{AWS: role("A")}, []func(*http.Request) *http.Response{say(301, "", "X-Amz-Bucket-Region", "eu-north-1"), ok},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k true\nGET https://bucket" + dual + "eu-north-1.amazonaws.com/k true\n", nil, ""},
		{"moved, by the body", "s3://bucket/k", nil, []func(*http.Request) *http.Response{wrongRegion, ok},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k false\nGET https://bucket" + dual + "ap-south-2.amazonaws.com/k false\n", nil, ""},
		{"moved to no region", "s3://bucket/k", nil, []func(*http.Request) *http.Response{say(301, "", "X-Amz-Bucket-Region", canary+".example.com")},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k false\n", ErrRedirect, "no valid location"},
		{"moved round and round", "s3://bucket/k", nil, []func(*http.Request) *http.Response{say(400, "", "X-Amz-Bucket-Region", "a-1"), say(400, "", "X-Amz-Bucket-Region", "b-1"), say(400, "", "X-Amz-Bucket-Region", "a-1"), say(400, "", "X-Amz-Bucket-Region", "b-1")},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k false\nGET https://bucket" + dual + "a-1.amazonaws.com/k false\nGET https://bucket" + dual + "b-1.amazonaws.com/k false\nGET https://bucket" + dual + "a-1.amazonaws.com/k false\n", ErrRefused, "400"},
		{"redirected to a stranger", "s3://bucket/k", &Account{AWS: role("A")}, []func(*http.Request) *http.Response{say(307, "", "Location", "https://stranger.example.com/k"), ok},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k true\nGET https://stranger.example.com/k false\n", nil, ""},
		{"redirected to http", "s3://bucket/k", &Account{AWS: role("A")}, []func(*http.Request) *http.Response{say(307, "", "Location", "http://bucket"+dual+"us-east-1.amazonaws.com/k")},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k true\n", ErrRedirect, "from https to http"},
		{"public, but not for the role", "s3://bucket/k", &Account{AWS: role("A")}, []func(*http.Request) *http.Response{say(403, "<Error><Code>AccessDenied</Code></Error>"), ok},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k true\nGET https://bucket" + dual + "us-east-1.amazonaws.com/k false\n", nil, ""},
		{"for nobody", "s3://bucket/k", &Account{AWS: role("A")}, []func(*http.Request) *http.Response{say(403, canary), say(403, canary)},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k true\nGET https://bucket" + dual + "us-east-1.amazonaws.com/k false\n", ErrRefused, "asked as this machine, and anonymously, in the region us-east-1 (let the machine's identity read it"},
		{"not there", "s3://bucket/k", nil, []func(*http.Request) *http.Response{say(404, canary)},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k false\n", ErrNotFound, "asked anonymously"},
		{"for the moment not", "s3://bucket/k", nil, []func(*http.Request) *http.Response{say(503, "<Error><Code>SlowDown</Code></Error>"), ok},
			"GET https://bucket" + dual + "us-east-1.amazonaws.com/k false\nGET https://bucket" + dual + "us-east-1.amazonaws.com/k false\n", nil, ""},
		{"Google's, with a version", "gs://bucket/a b?generation=7", &Account{Google: bearer(canary)}, []func(*http.Request) *http.Response{ok},
			"GET https://storage.googleapis.com/bucket/a%20b?generation=7 true\n", nil, ""},
		{"Google's, not for the account", "gs://bucket/a", &Account{Google: bearer(canary)}, []func(*http.Request) *http.Response{say(403, ""), ok},
			"GET https://storage.googleapis.com/bucket/a true\nGET https://storage.googleapis.com/bucket/a false\n", nil, ""},
		{"Azure's", "https://name.blob.core.windows.net/c/d/b?snapshot=1", &Account{Azure: bearer(canary)}, []func(*http.Request) *http.Response{ok},
			"GET https://name.blob.core.windows.net/c/d/b?snapshot=1 true\n", nil, ""},
		{"Azure's, in a tenant that is not its own", "https://name.blob.core.windows.net/c/b", &Account{Azure: bearer(canary)}, []func(*http.Request) *http.Response{say(401, ""), ok},
			"GET https://name.blob.core.windows.net/c/b true\nGET https://name.blob.core.windows.net/c/b false\n", nil, ""},
		{"Azure's, without TLS", "http://name.blob.core.windows.net/c/b", &Account{Azure: bearer(canary)}, []func(*http.Request) *http.Response{ok},
			"GET http://name.blob.core.windows.net/c/b false\n", nil, ""},
		{"Azure's, signed by the config", "https://name.blob.core.windows.net/c/b?sig=" + canary, &Account{Azure: bearer(canary)}, []func(*http.Request) *http.Response{ok},
			"GET https://name.blob.core.windows.net/c/b?sig=" + canary + " false\n", nil, ""},
		{"another's, that looks like Azure's", "https://blob.core.windows.net.example.com/c/b", &Account{Azure: bearer(canary)}, []func(*http.Request) *http.Response{ok},
			"GET https://blob.core.windows.net.example.com/c/b false\n", nil, ""},
		{"no account of Azure's", "https://a.b.blob.core.windows.net/c/b", &Account{Azure: bearer(canary)}, []func(*http.Request) *http.Response{ok},
			"GET https://a.b.blob.core.windows.net/c/b false\n", nil, ""},
		{"an identity that cannot be asked for", "gs://bucket/a", &Account{Google: func(context.Context) (Secret, error) { return Secret{}, errors.New("the metadata server is silent") }}, nil,
			"", ErrUnreachable, "who this machine is: the metadata server is silent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &scripted{t: t, answers: tt.answers}
			c := impatient()
			c.Transport, c.Account = s, tt.account
			got, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, tt.source)})
			if !errors.Is(err, tt.kind) || tt.kind == nil && string(got) != "content" {
				t.Errorf("%q, %v", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			quietError(t, err)
			if s.line() != tt.want {
				t.Errorf("asked\n%swant\n%s", s.line(), tt.want)
			}
		})
	}
}

func TestBucketsRegionIsFoundOnce(t *testing.T) {
	s := &scripted{t: t, answers: []func(*http.Request) *http.Response{say(301, "", "X-Amz-Bucket-Region", "eu-north-1"), say(200, "a"), say(200, "b")}}
	c := impatient()
	c.Transport, c.Account = s, &Account{AWS: role("A")}
	for _, key := range []string{"a", "b"} {
		if got, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "s3://bucket/"+key)}); err != nil || string(got) != key {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// A machine that has just started may believe that it is 1970.
func TestSignatureFollowsTheServersClock(t *testing.T) {
	there := time.Now().Add(50 * 365 * 24 * time.Hour)
	skewed := say(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", "Date", there.UTC().Format(http.TimeFormat))
	s := &scripted{t: t, answers: []func(*http.Request) *http.Response{skewed, say(200, "a"), say(200, "b")}}
	c := impatient()
	c.Transport, c.Account = s, &Account{AWS: role("A")}
	for _, key := range []string{"a", "b"} {
		if got, err := c.Bytes(t.Context(), Resource{Source: mustURL(t, "s3://bucket/"+key)}); err != nil || string(got) != key {
			t.Fatalf("%q, %v", got, err)
		}
	}
	for _, r := range s.got[1:] {
		at, err := time.Parse(awsTime, r.Header.Get("X-Amz-Date"))
		if err != nil || at.Sub(there).Abs() > time.Minute {
			t.Errorf("signed at %v, %v; there it is %v", at, err, there)
		}
	}
}

// compareSignature signs as AWS's own library does.
func compareSignature(t *testing.T, key, version, session string, virtual bool, at time.Time) {
	t.Helper()
	s := &s3Store{object: object{bucket: "bucket", key: key, version: version}, region: "eu-west-1"}
	if !virtual {
		s.object.bucket = "a.bucket"
	}
	u := s.url()
	keys := Keys{ID: "AKIA", Secret: NewSecret("secret/word"), Session: NewSecret(session)}
	request := func() *http.Request {
		return &http.Request{Method: "GET", URL: u, Host: u.Host, Header: http.Header{"Accept-Encoding": {"identity"}}}
	}
	ours, theirs := request(), request()
	signAWS(ours, keys, "eu-west-1", "s3", at)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	// What the library would sign beside: an Accept-Encoding, which proxies change.
	theirs.Header = http.Header{"X-Amz-Content-Sha256": {empty}}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(t.Context(), sdk.Credentials{AccessKeyID: keys.ID, SecretAccessKey: "secret/word", SessionToken: session}, theirs, empty, "s3", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256"} {
		if !slices.Equal(ours.Header.Values(name), theirs.Header.Values(name)) {
			t.Errorf("%q, version %q: %s\n%q, want\n%q", key, version, name, ours.Header.Values(name), theirs.Header.Values(name))
		}
	}
}

func FuzzSignature(f *testing.F) {
	f.Add("k", "", "", true, int64(0))
	f.Add("a b/ä+(c)~*'%2f//.././", "v/1 +=&", "session", false, int64(1<<31))
	f.Fuzz(func(t *testing.T, key, version, session string, virtual bool, at int64) {
		if key == "" || strings.ContainsFunc(session, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || at < 0 || at > 1<<33 {
			return
		}
		compareSignature(t, key, version, session, virtual, time.Unix(at, 0))
	})
}

func TestAccountIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r remembered[string]
		asked := 0
		answer := error(nil)
		ask := func(context.Context) (string, error) {
			asked++
			time.Sleep(time.Second)
			return fmt.Sprint(asked), answer
		}
		want := func(text string, kind error, times int) {
			t.Helper()
			if got, err := r.get(t.Context(), ask); got != text || !errors.Is(err, kind) || asked != times {
				t.Errorf("%q, %v after %d times; want %q, %v after %d", got, err, asked, text, kind, times)
			}
		}
		var many sync.WaitGroup
		for range 5 {
			many.Go(func() { want("1", nil, 1) })
		}
		many.Wait()
		time.Sleep(lasting - 2*time.Second)
		want("1", nil, 1)
		// Who waits may give up, while another one asks.
		time.Sleep(2 * time.Second)
		many.Go(func() { want("2", nil, 2) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.get(ctx, ask); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gave up with %v", err)
		}
		many.Wait()
		// That there is nobody is remembered, a failure is not.
		time.Sleep(lasting)
		answer = ErrNobody
		want("3", ErrNobody, 3)
		want("3", ErrNobody, 3)
		time.Sleep(lasting)
		answer = errNotThere
		want("", errNotThere, 4)
		answer = nil
		want("5", nil, 5)
		if _, err := new(remembered[string]).get(t.Context(), nil); !errors.Is(err, ErrNobody) {
			t.Errorf("no function: %v", err)
		}
	})
}

var errNotThere = errors.New("not there")
