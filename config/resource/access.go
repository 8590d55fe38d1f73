package resource

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// access is where a resource is asked for, and as whom.
type access struct {
	at   *url.URL
	sign func(*http.Request) // adds what proves who asks; nil: nobody in particular
}

// A store says how to ask for what it keeps. Each download has one of its own.
type store interface {
	// access may have to ask the machine's cloud for an identity.
	access(ctx context.Context) (access, error)
	// refused looks at an answer that gives no content, and the beginning of its body,
	// and says whether the next access will be another one.
	refused(status int, h http.Header, body string) bool
	// as says as whom was asked, for people.
	as() string
}

// storeOf returns the store that a URL leads to, or nil where it leads to a plain server.
func storeOf(u URL, headers []Header, account *Account) store {
	if account == nil {
		account = &Account{}
	}
	switch p := u.parsed; {
	case p.object != nil && p.scheme == "gs":
		return &bearerStore{at: googleURL(p.object), ask: account.Google, token: &account.google}
	case p.object != nil:
		return &s3Store{object: *p.object, account: account}
	case azureBlob(p.http) && !bringsItsOwn(p.http, headers):
		return &bearerStore{at: p.http, ask: account.Azure, token: &account.azure, version: azureVersion}
	}
	return nil
}

// googleURL is where an object is in the XML interface of Google's cloud storage
// (https://cloud.google.com/storage/docs/xml-api/get-object-download).
func googleURL(o *object) *url.URL {
	u := storeURL("storage.googleapis.com", o.bucket, o.key)
	if o.version != "" {
		u.RawQuery = url.Values{"generation": {o.version}}.Encode()
	}
	return u
}

// azureVersion is the oldest version of the blob service's interface that knows OAuth
// tokens (https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory).
const azureVersion = "2017-11-09"

// azureBlob reports whether a URL is one of Azure's blob storage, to which a token
// may go. As in Ignition that is the public cloud's, without a port; and never http.
func azureBlob(u *url.URL) bool {
	account, is := strings.CutSuffix(strings.ToLower(u.Host), ".blob.core.windows.net")
	return is && u.Scheme == "https" && label(account)
}

// bringsItsOwn reports whether a resource itself says as whom it is asked for: by a
// header, by user info, or by a shared access signature in the query.
func bringsItsOwn(u *url.URL, headers []Header) bool {
	for _, h := range headers {
		if http.CanonicalHeaderKey(h.Name) == "Authorization" {
			return true
		}
	}
	return u.User != nil || u.Query().Has("sig")
}

// bearerStore is a store that takes an OAuth token (RFC 6750), or nobody's request for
// what is public.
type bearerStore struct {
	at      *url.URL
	ask     func(context.Context) (Secret, error)
	token   *remembered[Secret]
	version string // of the interface, to be sent with a token; "": none

	anonymous bool // from now on
	tokened   bool // a token was sent
}

func (s *bearerStore) access(ctx context.Context) (access, error) {
	if s.anonymous {
		return access{at: s.at}, nil
	}
	token, err := s.token.get(ctx, s.ask)
	if errors.Is(err, ErrNobody) {
		s.anonymous = true
		return access{at: s.at}, nil
	}
	if err != nil {
		return access{}, err
	}
	s.tokened = true
	return access{at: s.at, sign: func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+token.Reveal())
		if s.version != "" {
			r.Header.Set("X-Ms-Version", s.version)
		}
	}}, nil
}

// refused: what is public may be closed to a machine that says who it is.
func (s *bearerStore) refused(status int, _ http.Header, _ string) bool {
	if s.anonymous || !identityRefused(status) {
		return false
	}
	s.anonymous = true
	return true
}

func (s *bearerStore) as() string { return asWhom(s.tokened, s.anonymous) }

func identityRefused(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

func asWhom(identity, anonymous bool) string {
	switch {
	case identity && anonymous:
		return "as this machine, and anonymously"
	case identity:
		return "as this machine"
	}
	return "anonymously"
}

// words reads the beginning of an answer that is an error, in which a store says more.
func words(a *answer) string {
	b, _ := io.ReadAll(io.LimitReader(a, 16<<10)) // what is not there says nothing
	return string(b)
}
