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
	// ErrNotFound: status 404.
	ErrNotFound = errors.New("not found")
	// ErrRefused: a status that is none of 200, 204, 404, a redirect, or one
	// that is worth another try.
	ErrRefused = errors.New("refused")
	// ErrUnreachable: no whole answer before the deadline, or one that broke
	// off and could not be continued.
	ErrUnreachable = errors.New("not fetched")
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
	noHeaderInTime reason = "no answer in time"
	stalled        reason = "the body stopped arriving"
	brokenOff      reason = "connection closed before the answer was complete"
	timedOut       reason = "timed out"
	notHTTP        reason = "no valid HTTP answer"
)

// connectError is a failure of the functions in [TransportOptions].
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// proxyError is a proxy that does not connect to an https server.
type proxyError struct{ status int }

func (e *proxyError) Error() string { return "proxy: " + statusText(e.status) }

// publicCause returns what may be told of a transport's error. Errors of
// net/http quote what the server sent, and that may be a body.
func publicCause(err error) error {
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

// hintFor says what an operator can do about the cause of an unreachable
// source, or "".
func hintFor(cause error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](cause); ok {
		return "the machine does not know the authority that signed this certificate: add it to ignition.security.tls.certificateAuthorities or to the initrd"
	}
	if _, ok := errors.AsType[x509.SystemRootsError](cause); ok {
		return "the initrd has no certificate authorities: add a CA bundle to it"
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
type lateError struct{ last error }

func (e *lateError) Error() string   { return e.last.Error() + " until the deadline" }
func (e *lateError) Unwrap() []error { return []error{e.last, context.DeadlineExceeded} }
