package resource

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// What went wrong. Every error of this package is an [*Error] that wraps one of
// these, or [context.Canceled] where the caller ended the fetch, or only the
// destination's own error where writing failed.
var (
	// ErrHash: the decompressed bytes do not have the hash that was asked for.
	ErrHash = errors.New("hash mismatch")
	// ErrTooLarge: more bytes than [Client.Limit].
	ErrTooLarge = errors.New("too large")
	// ErrCompression: the bytes are not wholly what the compression says:
	// truncated, corrupt, followed by something else, or of an unknown kind.
	ErrCompression = errors.New("cannot decompress")
	// ErrNotFound: status 404, or a TFTP server's word for it.
	ErrNotFound = errors.New("not found")
	// ErrRefused: a status that is none of 200, 204, 404, a redirect, or one
	// that is worth another try; the server's own, or a proxy's that does not
	// connect to the server.
	ErrRefused = errors.New("refused")
	// ErrUnreachable: no whole answer before the deadline, or one that broke
	// off and could not be continued.
	ErrUnreachable = errors.New("not fetched")
	// ErrUntrusted: no authority that this machine trusts vouches for an https
	// server under this name, or the machine trusts none at all, which is said
	// before anything is sent. A certificate whose dates do not fit the clock is
	// none of these: the clock may yet be set.
	ErrUntrusted = errors.New("not trusted")
	// ErrScheme: the scheme of a URL is not one that is fetched.
	ErrScheme = errors.New("scheme not supported")
	// ErrRedirect: a redirect that leads nowhere, too far, or from https to http.
	ErrRedirect = errors.New("redirect refused")
	// ErrSyntax: a URL, a hash or a header that is malformed, or a resource
	// that contradicts itself.
	ErrSyntax = errors.New("malformed")
)

// Error is why a resource could not be had. No field holds a secret.
type Error struct {
	What   string // the resource, as Resource.String gives it
	Status int    // the last HTTP status, 0 if there was none
	Err    error  // one of the sentinels, or context.Canceled; nil if writing failed
	Cause  error  // more about it, may be nil
	Hint   string // what to do about it, may be empty
}

// Error reads outside in: what, which kind, why, and a hint in parentheses.
func (e *Error) Error() string {
	parts := []string{e.What}
	for _, err := range []error{e.Err, e.Cause} {
		if err != nil {
			parts = append(parts, err.Error())
		}
	}
	text := strings.Join(parts, ": ")
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the sentinel and the cause, as far as there are any.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Err, e.Cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// reason is a cause that is only text.
type reason string

func (r reason) Error() string { return string(r) }

// Why a try failed, as far as this package itself ended it or looked away.
const (
	noConnectionInTime reason = "no connection in time"
	noHeaderInTime     reason = "no answer in time"
	stalled            reason = "the body stopped arriving"
	brokenOff          reason = "connection closed before the answer was complete"
	timedOut           reason = "timed out"
	notHTTP            reason = "no valid HTTP answer"
)

// connectError is a failure of the functions in [TransportOptions].
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// proxyError is a proxy that does not connect to an https server.
type proxyError struct {
	host       string // the proxy's, with its port
	status     int
	retryAfter time.Duration
}

func (e *proxyError) Error() string { return "proxy " + e.host + ": " + statusText(e.status) }

// noRootsError is a request for https where there is nobody to trust.
type noRootsError struct{ err error }

func (e *noRootsError) Error() string {
	if e.err != nil {
		return "the certificate authorities of this machine: " + e.err.Error()
	}
	return "there is no certificate authority on this machine to trust"
}

func (e *noRootsError) Unwrap() error { return e.err }

// untrusted reports whether a cause is one of ErrUntrusted.
func untrusted(cause error) bool {
	if _, ok := errors.AsType[*noRootsError](cause); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](cause); !ok {
		return false
	}
	e, ok := errors.AsType[x509.CertificateInvalidError](cause)
	return !ok || e.Reason != x509.Expired
}

// publicCause returns what may be told of a transport's error. Errors of
// net/http quote what the server sent, and that may be a body.
func publicCause(err error) error {
	if e, ok := errors.AsType[*noRootsError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*proxyError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*connectError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if string(e.RecordHeader[:]) == "HTTP/" {
			return http.ErrSchemeMismatch
		}
		return reason(e.Error())
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return brokenOff
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return timedOut
	}
	if e, ok := errors.AsType[reason](err); ok {
		return e
	}
	return notHTTP
}

// refusalHint says what an operator can do about the status of a resource, or "".
func (d *download) refusalHint(code int) string {
	switch {
	case d.store != nil && identityRefused(code):
		return "let the machine's identity read it, or everybody"
	case d.resource.Source.Scheme() == "tftp":
		return ""
	}
	return refusalHint(code)
}

// refusalHint says what an operator can do about a status, or "".
func refusalHint(code int) string {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "credentials go into httpHeaders; what a redirect leads to does not get them"
	case http.StatusProxyAuthRequired:
		return "the proxy wants to know who asks: pilotlight.proxy=http://USER:PASSWORD@HOST:PORT, or ignition.proxy alike"
	}
	return ""
}

// hintFor says what an operator can do about the cause of an unreachable
// source, or "".
func hintFor(cause error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](cause); ok {
		return "the machine does not know the authority that signed this certificate: add it to ignition.security.tls.certificateAuthorities or to the initrd"
	}
	_, unsaid := errors.AsType[x509.SystemRootsError](cause)
	if _, ok := errors.AsType[*noRootsError](cause); ok || unsaid {
		return "give an initrd its CA bundle with initrd build --ca FILE, or the config ignition.security.tls.certificateAuthorities"
	}
	if _, ok := errors.AsType[x509.HostnameError](cause); ok {
		return "the URL must name the server as its certificate does"
	}
	if e, ok := errors.AsType[*proxyError](cause); ok {
		if e.status == http.StatusForbidden {
			return "the proxy lets nobody connect there; what is reached without it goes into ignition.proxy.noProxy"
		}
		return refusalHint(e.status)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](cause); ok && e.Reason == x509.Expired {
		return "compare the machine's clock with the certificate's dates"
	}
	if e, ok := errors.AsType[*net.DNSError](cause); ok && e.IsNotFound {
		return "check the name, and the name servers that the initrd has"
	}
	if errors.Is(cause, http.ErrSchemeMismatch) {
		return "this port speaks http, the URL says https"
	}
	return ""
}

// statusText names a status in our words: the phrase on the wire is the
// server's to choose.
func statusText(code int) string {
	if t := http.StatusText(code); t != "" {
		return fmt.Sprintf("status %d %s", code, t)
	}
	return fmt.Sprintf("status %d", code)
}

// lateError is what went wrong last when the deadline came.
type lateError struct {
	last  error
	tries int
	after time.Duration
}

func (e *lateError) Error() string {
	text := e.last.Error() + " until the deadline"
	if e.tries > 0 {
		times := fmt.Sprintf("%d tries", e.tries)
		if e.tries == 1 {
			times = "1 try"
		}
		text += fmt.Sprintf(", %s in %s", times, e.after.Round(100*time.Millisecond))
	}
	return text
}

func (e *lateError) Unwrap() []error { return []error{e.last, context.DeadlineExceeded} }
