// Package resource turns "a URL with its headers, hash and compression" into
// verified bytes.
//
// A [Resource] is a wish, and a value: where some content is (a URL of http, https, tftp,
// of a cloud's store, or data; or text that stands in the config itself), how it is
// compressed, and which hash its decompressed bytes have. It has the shape and
// the meaning of Ignition's resource objects
// (https://coreos.github.io/ignition/specs/), plus inline text and zstd. A
// [Client] fetches it:
//
//	source --redirects, retries, resume--> raw bytes --decompress--> bytes --bound--> --hash--> destination
//
// All of that streams: memory does not grow with the size of a body.
//
// # Verified or not
//
// [Client.Copy] writes to its destination while the hash is still being
// computed, so what stands there is unverified until Copy has returned nil.
// Write to a temporary name, and rename it afterwards. [Client.Bytes] gives
// bytes that are verified.
//
// # Compression
//
// It is that of the stored file, named by the resource and never guessed. A
// Content-Encoding that a server adds although it was asked for none is not
// undone, and told. What is truncated or followed by anything else does not
// decompress, and a small file that unpacks to a huge one ends at the bound of
// the client.
//
// # What is tried again
//
// Status 200 is the content, 204 is empty content. Whatever may pass by itself
// is tried again until the deadline: no connection, a certificate that is not
// valid yet or any more (the clock may yet be set), no answer within
// [Client.ResponseHeaderTimeout], 408, 429, 500 and above, a body
// that breaks off, a body that delivers nothing for 30 s. The pause starts at
// 200 ms and doubles to 5 s, with jitter; a Retry-After that asks for more is
// obeyed, up to a day. A pause that would outlast the deadline is not begun: the
// fetch fails at once with [ErrUnreachable], and says how many tries there were
// in which time. Everything else is an answer that another try would not change
// and is returned at once: [ErrNotFound], [ErrRefused], [ErrUntrusted],
// [ErrRedirect], [ErrTooLarge], [ErrCompression], [ErrHash].
//
// A body that broke off is continued with a Range request if its server gave a
// strong ETag (RFC 9110, section 8.8.3), so that a large file over a bad link
// arrives in the end. A part that is not of the same version, by its ETag or by
// its length, is thrown away with what was there. Otherwise the fetch starts over,
// for which the destination must be able to forget what it has got; see
// [Client.Copy].
//
// # Redirects
//
// At most 10 are followed, to http and https only, and never from https to
// http; one that leads back to where it came from ends there. The headers of a
// resource go along with no request that a redirect leads to, as in Ignition; its user
// info only as long as the redirects stay at the origin (scheme, host, port) of its own
// URL. There is no Referer header.
//
// # Stores
//
// What an s3, arn or gs URL names, and what is in Azure's blob storage, is asked for as
// the identity that the machine has in that cloud ([Client.Account]), over https. Where
// there is none, or the store refuses it, it is asked for anonymously. The credentials go
// to the store's own origin alone. S3 is asked in the region where the bucket most
// likely is, and then where it says that the bucket is.
//
// # TFTP
//
// TFTP (RFC 1350) has blocks of 1428 bytes and a window of 32 where the server
// agrees (RFC 2348, RFC 7440). It has neither headers, redirects nor proxies, nothing that broke
// off can be continued, and nothing vouches for the server: that is for a hash to do.
//
// # Secrets
//
// Contents, header values, and a URL's user info, query and fragment are
// secret. They are held in types that do not print them, and no error and no
// progress line of this package contains them. Text that a server sent, such as a
// reason phrase or a line that is no HTTP, is not repeated either.
package resource

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Compression says how the bytes at a source are compressed.
type Compression string

// The compressions. None is the zero value. Gzip is RFC 1952, also of several
// members; it is the only one that Ignition's spec has. Zstd is RFC 8878, also
// of several frames, with a window of at most 128 MiB (zstd --long=27).
const (
	None Compression = ""
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Header is one header of a request. Its name is plain, its value is secret.
type Header struct {
	Name  string
	Value Secret
}

// Resource is some content that a config asks for. At most one of Source and
// Inline may be set; with neither, the content is empty.
type Resource struct {
	Source      URL
	Inline      *Secret
	Headers     []Header // only with an http or https Source
	Compression Compression
	Hash        Hash // of the decompressed bytes; zero: not verified
}

// Remote reports whether fetching r needs a network.
func (r Resource) Remote() bool { return r.Source.Remote() }

// IsZero reports whether r has neither a source nor inline text: its content
// is empty.
func (r Resource) IsZero() bool { return r.Source.IsZero() && r.Inline == nil }

// String names r for people, without its secrets: the URL as [URL.String]
// gives it, "inline", or "(empty)".
func (r Resource) String() string {
	switch {
	case !r.Source.IsZero():
		return r.Source.String()
	case r.Inline != nil:
		return "inline"
	}
	return "(empty)"
}

// Identity is the SHA-256 of everything that r says: source with its query,
// inline text, headers in their order, compression and hash. Two resources
// have the same identity only if they say the same. It tells nothing of the
// content that a remote source has.
//
// It covers secrets. Who can read it can test guesses of a secret that has
// little entropy, so it belongs where only root reads.
func (r Resource) Identity() [32]byte {
	// Every field is preceded by its length, and every list by its count, so
	// that no two resources are encoded alike.
	var b []byte
	field := func(s string) {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	field("pilotlight resource 1")
	field(r.Source.Reveal())
	if r.Inline == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		field(r.Inline.Reveal())
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(r.Headers)))
	for _, h := range r.Headers {
		field(h.Name)
		field(h.Value.Reveal())
	}
	field(string(r.Compression))
	field(r.Hash.Algorithm)
	field(string(r.Hash.Sum))
	return sha256.Sum256(b)
}

// check finds what makes r impossible to fetch, whatever a server may say.
func (r Resource) check() error {
	fault := func(kind error, cause error) error {
		return &Error{What: r.String(), Err: kind, Cause: cause}
	}
	if !r.Source.IsZero() && r.Inline != nil {
		return fault(ErrSyntax, reason("both a source and inline text"))
	}
	if !slices.Contains([]Compression{None, Gzip, Zstd}, r.Compression) {
		return fault(ErrCompression, reason("the compression is neither gzip nor zstd"))
	}
	if !r.Hash.IsZero() {
		if err := r.Hash.check(); err != nil {
			return fault(ErrSyntax, err)
		}
	}
	if len(r.Headers) > 0 && !r.Source.TakesHeaders() {
		return fault(ErrSyntax, reason("headers without an http or https source"))
	}
	for i, h := range r.Headers {
		if err := h.check(i); err != nil {
			return fault(ErrSyntax, err)
		}
	}
	return nil
}
