package resource

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sort"
	"strings"
	"time"
)

// signAWS signs a request that has no body, in version 4 of AWS's signatures
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
// What is signed are the address, the host and the headers that it adds: a proxy may
// change others. The path must be encoded as [escaped] does it, and so the query, in the
// order of its names.
func signAWS(r *http.Request, keys Keys, region, service string, now time.Time) {
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of no bytes
	at := now.UTC().Format(awsTime)
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", empty)
	names := []string{"host", "x-amz-content-sha256", "x-amz-date"}
	if !keys.Session.Empty() {
		r.Header.Set("X-Amz-Security-Token", keys.Session.Reveal())
		names = append(names, "x-amz-security-token")
	}
	sort.Strings(names)

	var canonical strings.Builder
	canonical.WriteString(r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n")
	for _, name := range names {
		value := r.Host
		if name != "host" {
			value = r.Header.Get(name)
		}
		canonical.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	signed := strings.Join(names, ";")
	canonical.WriteString("\n" + signed + "\n" + empty)

	scope := awsDay(now) + "/" + region + "/" + service + "/aws4_request"
	sum := sha256.Sum256([]byte(canonical.String()))
	key := []byte("AWS4" + keys.Secret.Reveal())
	for _, part := range []string{awsDay(now), region, service, "aws4_request"} {
		key = mac(key, part)
	}
	signature := mac(key, "AWS4-HMAC-SHA256\n"+at+"\n"+scope+"\n"+hex.EncodeToString(sum[:]))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+keys.ID+"/"+scope+", SignedHeaders="+signed+", Signature="+hex.EncodeToString(signature))
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
