package providers

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/config/resource"
)

const (
	ec2V4 = "169.254.169.254:80"
	ec2V6 = "[fd00:ec2::254]:80"
)

// give is the answer of the token, with its header, and needs is how it is used.
var (
	giveToken = exchange{
		request: "PUT /latest/api/token", headers: []string{"Content-Length: 0", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 300"},
		status: 200, answer: []string{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 300"}, body: "canary-token",
	}
	useToken = []string{"X-Aws-Ec2-Metadata-Token: canary-token"}
)

func token(status int, body string) exchange {
	return exchange{request: giveToken.request, headers: giveToken.headers, status: status, body: body}
}

func userData(status int, body string) exchange {
	return exchange{request: "GET /latest/user-data", headers: useToken, status: status, body: body}
}

func zip(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func ask(t *testing.T, platform string, r reach) (Answer, error) {
	t.Helper()
	p, err := Named(platform)
	if err != nil {
		t.Fatal(err)
	}
	return p.UserConfig(t.Context(), r)
}

func TestEC2(t *testing.T) {
	const refused = "platform aws: user data: http://169.254.169.254/latest"
	for name, c := range map[string]struct {
		tape []exchange
		want string
		none bool
		says string
	}{
		"happy":      {tape: []exchange{giveToken, userData(200, "\xff as it is")}, want: "\xff as it is"},
		"base64":     {tape: []exchange{giveToken, userData(200, "e30K")}, want: "e30K"}, // the service has undone it once; what is left is the user's
		"gzipped":    {tape: []exchange{giveToken, userData(200, zip(t, "{}"))}, want: "{}"},
		"none":       {tape: []exchange{giveToken, userData(404, "canary")}, none: true},
		"empty":      {tape: []exchange{giveToken, userData(200, "")}, none: true},
		"turned off": {tape: []exchange{token(403, "canary")}, says: refused + "/api/token: status 403 Forbidden (the instance metadata service is turned off"},
		"refused":    {tape: []exchange{giveToken, userData(403, "canary")}, says: refused + "/user-data: status 403 Forbidden (the instance metadata service is turned off"},
		"forgotten":  {tape: []exchange{giveToken, userData(401, "canary")}, says: refused + "/user-data: status 401 Unauthorized ("},
		"bad":        {tape: []exchange{token(400, "canary")}, says: refused + "/api/token: status 400 Bad Request (the instance metadata service does not take the request)"},
		"500, then good": {
			tape: []exchange{token(500, "canary"), giveToken, userData(503, "canary"), userData(429, ""), userData(200, "{}")}, want: "{}",
		},
		"no tokens": {tape: []exchange{token(404, "canary"), {request: "GET /latest/user-data", status: 200, body: "{}"}}, want: "{}"},
		"no tokens, none": {
			tape: []exchange{token(404, "canary"), {request: "GET /latest/user-data", status: 404, body: "canary"}}, none: true,
		},
		"no tokens, refused": {
			tape: []exchange{token(404, "canary"), {request: "GET /latest/user-data", status: 403, body: "canary"}},
			says: "platform aws: user data: http://169.254.169.254/latest/user-data: refused: status 403 Forbidden",
		},
		// A web server that is something else.
		"token of another kind": {
			tape: []exchange{token(200, "<html>canary")}, says: "platform aws: user data: http://169.254.169.254: what answers does not speak as the instance metadata service does",
		},
		"token that cannot be sent": {
			tape: []exchange{{request: giveToken.request, headers: giveToken.headers, status: 200, answer: giveToken.answer, body: "canary\n\x00"}},
			says: "platform aws: user data: http://169.254.169.254/latest/user-data: malformed: the value of header ",
		},
		"gzip that is none": {tape: []exchange{giveToken, userData(200, "\x1f\x8bcanary")}, says: "platform aws: user data: gzip: inline: cannot decompress"},
		"gzip that is cut":  {tape: []exchange{giveToken, userData(200, zip(t, "{}")[:20])}, says: "platform aws: user data: gzip: inline: cannot decompress: truncated"},
		"gzip and more":     {tape: []exchange{giveToken, userData(200, zip(t, "{}")+"canary canary")}, says: "platform aws: user data: gzip: inline: cannot decompress: followed by something else"},
		"a bomb": {
			tape: []exchange{giveToken, userData(200, zip(t, strings.Repeat("\x00", resource.DefaultBytesLimit+1)))},
			says: "platform aws: user data: gzip: inline: too large: more than 16.0 MiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := reach{at: map[string]*tape{ec2V4: play(t, c.tape...)}}
			if c.says != "" {
				// Both families say so, and neither is waited for.
				r.at[ec2V6] = play(t, c.tape...)
			}
			a, err := ask(t, "aws", r)
			if string(a.Bytes) != c.want || errors.Is(err, ErrNone) != c.none || (c.want != "") != (err == nil) {
				t.Fatalf("%q %v", a.Bytes, err)
			}
			if c.want != "" && a.Source != "http://169.254.169.254/latest/user-data" {
				t.Errorf("source %q", a.Source)
			}
			if err != nil && (!strings.HasPrefix(strings.Replace(err.Error(), "[fd00:ec2::254]", "169.254.169.254", 1), c.says) || strings.Contains(err.Error(), "canary")) {
				t.Errorf("%v, want %s", err, c.says)
			}
		})
	}
}

// TestEitherFamily: what one family of addresses does costs the other nothing.
func TestEitherFamily(t *testing.T) {
	for _, here := range []string{ec2V4, ec2V6} {
		there := map[string]string{ec2V4: ec2V6, ec2V6: ec2V4}[here]
		for name, other := range map[string][]exchange{
			"has no route": nil, "never connects": {}, "refuses": {token(403, "canary")}, "is something else": {token(200, "canary")},
		} {
			t.Run(here+" beside one that "+name, func(t *testing.T) {
				t.Parallel()
				good := []exchange{giveToken, userData(200, "{}")}
				r := reach{at: map[string]*tape{}}
				switch {
				case len(other) > 0:
					// The refusal comes first, and does not count.
					good = append([]exchange{token(503, ""), token(503, "")}, good...)
					r.at[there] = play(t, other...)
				case other != nil:
					r.at[there] = nil
				}
				r.at[here] = play(t, good...)
				begin := time.Now()
				a, err := ask(t, "aws", r)
				if err != nil || string(a.Bytes) != "{}" || a.Source != "http://"+strings.TrimSuffix(here, ":80")+"/latest/user-data" {
					t.Errorf("%+v %v", a, err)
				}
				if took := time.Since(begin); took > grace-time.Second {
					t.Errorf("took %s", took)
				}
			})
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p, err := Named("aws")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.UserConfig(ctx, reach{})
	if !errors.Is(err, resource.ErrUnreachable) || errors.Is(err, ErrNone) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	// In the order of the addresses, whoever ended first.
	last := 0
	for _, part := range []string{
		"platform aws: user data: http://169.254.169.254/latest/api/token: not fetched: network is unreachable until the deadline",
		"; http://[fd00:ec2::254]/latest/api/token: not fetched: network is unreachable until the deadline",
	} {
		at := strings.Index(err.Error(), part)
		if at < last {
			t.Errorf("%v lacks %q, or not in this order", err, part)
		}
		last = at
	}
}

// TestPatienceEndsBothFamilies without a deadline of the caller's.
func TestPatienceEndsBothFamilies(t *testing.T) {
	t.Parallel()
	_, err := ask(t, "aws", reach{patience: 50 * time.Millisecond, at: map[string]*tape{ec2V4: nil}})
	if !errors.Is(err, resource.ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

func TestSlowAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	slow := token(200, "")
	slow.slow = true
	a, err := ask(t, "aws", reach{header: 100 * time.Millisecond, at: map[string]*tape{ec2V4: play(t, slow, giveToken, userData(200, "{}"))}})
	if err != nil || string(a.Bytes) != "{}" {
		t.Errorf("%q %v", a.Bytes, err)
	}
}

// TestLinesOfTheFamilyThatIsNotThere: a machine that has an answer says nothing of the
// other family; one that has none says it of both.
func TestLinesOfTheFamilyThatIsNotThere(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var lines []string
	tell := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	}
	if _, err := ask(t, "aws", reach{tell: tell, at: map[string]*tape{ec2V4: play(t, giveToken, userData(200, "{}"))}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(hush + 200*time.Millisecond) // a line that was only late would be there by now
	mu.Lock()
	if len(lines) > 0 {
		t.Errorf("%q", lines)
	}
	mu.Unlock()

	if _, err := ask(t, "aws", reach{tell: tell, patience: hush + 5*time.Second}); err == nil {
		t.Fatal("an answer from nobody")
	}
	mu.Lock()
	defer mu.Unlock()
	for _, address := range []string{"http://169.254.169.254/", "http://[fd00:ec2::254]/"} {
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, address+"latest/api/token: try 1: network is unreachable; next try after ")
		}) {
			t.Errorf("%q: nothing of %s", lines, address)
		}
	}
}

// TestRefusalIsNotWaitedForLong where the other family never answers.
func TestRefusalIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	_, err := ask(t, "aws", reach{at: map[string]*tape{ec2V4: play(t, token(403, "")), ec2V6: nil}})
	var refused *ServiceError
	if took := time.Since(begin); !errors.As(err, &refused) || refused.Status != 403 || took > grace+5*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
}

func TestServiceErrorIsOneLine(t *testing.T) {
	for want, e := range map[string]*ServiceError{
		"http://a: w": {Address: "http://a", What: "w"},
		"http://a/b: status 418 I'm a teapot (w)": {Address: "http://a/b", Status: 418, What: "w"},
	} {
		if got := fmt.Sprint(e); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
