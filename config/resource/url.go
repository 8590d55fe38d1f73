package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// URL is where content is: an http or https URL (RFC 3986); a tftp URL (RFC 3617); an
// object in S3 (s3, or an Amazon resource name) or in Google's cloud storage (gs); or
// a data URL that holds the content itself (RFC 2397). The zero value is none. It
// prints without its secrets; see [URL.String].
type URL struct {
	parsed *parsedURL
}

type parsedURL struct {
	scheme string
	text   Secret   // as it was given
	shown  string   // without secrets
	http   *url.URL // as it was given, with a host; nil for data and objects
	object *object  // nil for what is no object in a store
}

// ParseURL reads an absolute URL. The empty string gives the zero URL, as an
// empty source has no content in Ignition's spec. The payload of a data URL is
// checked on the way, so that it cannot fail later.
//
// It fails with [ErrScheme] for other schemes than these, and with [ErrSyntax] for
// everything that is no such URL. The error repeats no part of s beyond the
// name of a known scheme.
func ParseURL(s string) (URL, error) {
	if s == "" {
		return URL{}, nil
	}
	fault := func(kind error, cause, hint string) (URL, error) {
		return URL{}, &Error{What: "url", Err: kind, Cause: reason(cause), Hint: hint}
	}
	if usualData(s) {
		return URL{&parsedURL{scheme: "data", text: NewSecret(s), shown: "data:"}}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return fault(ErrSyntax, urlFault(err), "")
	}
	switch u.Scheme {
	case "http", "https", "tftp":
		if u.Hostname() == "" {
			return fault(ErrSyntax, "no host", "a source looks like https://host/path")
		}
		if p := u.Port(); p != "" {
			if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
				return fault(ErrSyntax, "the port is not in 1 to 65535", "")
			}
		}
		if strings.Contains(u.RawQuery, " ") {
			// net/http would send it as it is, and so break the request line.
			return fault(ErrSyntax, "a blank in the query, which must be %20", "")
		}
		if u.Scheme == "tftp" && (strings.Trim(u.Path, "/") == "" || strings.Contains(u.Path, "\x00")) {
			return fault(ErrSyntax, "no name of a file after the host", "")
		}
		plain := shown(u)
		if _, err := url.Parse(plain); err != nil {
			// net/url takes zones of IPv6 addresses that it cannot write.
			return fault(ErrSyntax, urlFault(url.InvalidHostError("")), "")
		}
		return URL{&parsedURL{scheme: u.Scheme, text: NewSecret(s), shown: plain, http: u}}, nil
	case "data":
		if _, err := decodeData(s); err != nil {
			return fault(ErrSyntax, err.Error(), "")
		}
		return URL{&parsedURL{scheme: "data", text: NewSecret(s), shown: "data:"}}, nil
	case "s3", "arn", "gs":
		o, wrong := map[string]func(*url.URL) (object, reason){"s3": s3Object, "arn": arnObject, "gs": gsObject}[u.Scheme](u)
		if wrong != "" {
			return fault(ErrSyntax, string(wrong), "")
		}
		plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
		if u.Scheme == "arn" {
			plain.Opaque = strings.ReplaceAll(escaped(u.Opaque), "%3A", ":")
		}
		return URL{&parsedURL{scheme: u.Scheme, text: NewSecret(s), shown: plain.String(), object: &o}}, nil
	case "":
		return fault(ErrScheme, "there is none", "a source looks like https://host/path, or data:,text")
	}
	return fault(ErrScheme, "not one of http, https, tftp, s3, arn, gs, data", "")
}

// urlFault says what net/url found wrong. Its own words quote the URL.
func urlFault(err error) string {
	if _, ok := errors.AsType[url.EscapeError](err); ok {
		return "a % that two hexadecimal digits do not follow, or that stands where none may"
	}
	if _, ok := errors.AsType[url.InvalidHostError](err); ok {
		return "a character that a host name cannot have"
	}
	return "no valid URL"
}

// Scheme returns "http", "https", "tftp", "s3", "arn", "gs", "data", or "" for the zero URL.
func (u URL) Scheme() string {
	if u.parsed == nil {
		return ""
	}
	return u.parsed.scheme
}

// TakesHeaders reports whether headers can go along with a request for u, as in
// Ignition's spec: that is so for http and https alone.
func (u URL) TakesHeaders() bool { return u.Scheme() == "http" || u.Scheme() == "https" }

// IsZero reports whether u is none.
func (u URL) IsZero() bool { return u.parsed == nil }

// Remote reports whether reading from u needs a network.
func (u URL) Remote() bool { return u.parsed != nil && u.parsed.scheme != "data" }

// Reveal returns the URL as it was given to [ParseURL], secrets included.
func (u URL) Reveal() string {
	if u.parsed == nil {
		return ""
	}
	return u.parsed.text.Reveal()
}

// String returns scheme://host/path, or arn:NAME, without user info, query and
// fragment; "data:" for a data URL; "" for the zero URL.
func (u URL) String() string {
	if u.parsed == nil {
		return ""
	}
	return u.parsed.shown
}

// Format formats what [URL.String] returns. It is here because without it the
// verbs that are not for strings would print the whole URL.
func (u URL) Format(f fmt.State, verb rune) {
	switch verb {
	case 's', 'q', 'v', 'x', 'X':
		fmt.Fprintf(f, fmt.FormatString(f, verb), u.String())
	default:
		_, _ = io.WriteString(f, u.String())
	}
}

// MarshalJSON returns what [URL.String] returns as a JSON string.
func (u URL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }

// MarshalText returns what [URL.String] returns.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// shown is u without its secrets.
func shown(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return plain.String()
}

// origin is what may share credentials: scheme, host and port (RFC 6454).
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
