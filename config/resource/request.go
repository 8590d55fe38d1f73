package resource

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// elsewhere says that a store has learned from an answer how to ask otherwise.
const elsewhere reason = "asked for in another way"

// try makes one request, or as many as it takes to learn from a store how it wants
// to be asked.
func (d *download) try() (*answer, error) {
	for {
		how := access{at: d.resource.Source.parsed.http}
		if d.store != nil {
			var err error
			if how, err = d.store.access(d.ctx); err != nil {
				return nil, d.unnamed(err)
			}
		}
		// A store learns only so often.
		if a, err := d.follow(how); err != elsewhere {
			return a, err
		}
	}
}

// unnamed is the error of a store that does not know as whom to ask.
func (d *download) unnamed(err error) error {
	if d.ctx.Err() != nil {
		return d.over()
	}
	if e, ok := errors.AsType[*Error](err); ok && e.What == "" {
		return d.fault(e.Err, e.Cause, e.Hint)
	}
	return d.fault(ErrUnreachable, fmt.Errorf("who this machine is: %w", err), "")
}

// follow makes one request and follows its redirects.
func (d *download) follow(how access) (*answer, error) {
	own := origin(how.at)
	at := how.at
	trusted, headers := true, d.resource.Headers
	// The same request, with or without the credentials and headers, has the same answer.
	type visit struct {
		url             string
		trusted, headed bool
	}
	visited := map[visit]bool{}
	for range maxRedirects + 1 {
		visited[visit{at.String(), trusted, len(headers) > 0}] = true
		a, err := d.roundTrip(d.request(how, at, trusted, headers))
		if err != nil {
			return nil, err
		}
		if d.store != nil && trusted && a.StatusCode >= 300 && a.StatusCode < 500 && d.store.refused(a.StatusCode, a.Header, words(a)) {
			d.status = a.StatusCode
			a.close()
			return nil, elsewhere
		}
		switch a.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return a, nil
		}
		d.status = a.StatusCode
		a.close()
		to, err := at.Parse(a.Header.Get("Location"))
		switch {
		case err != nil || a.Header.Get("Location") == "" || to.Hostname() == "":
			return nil, d.fault(ErrRedirect, reason("it names no valid location"), "")
		case to.Scheme != "http" && to.Scheme != "https":
			return nil, d.fault(ErrRedirect, reason("it leads to something other than http and https"), "")
		case at.Scheme == "https" && to.Scheme == "http":
			return nil, d.fault(ErrRedirect, reason("it leads from https to http"), "")
		}
		at = to
		trusted, headers = trusted && origin(at) == own, nil
		if visited[visit{at.String(), trusted, false}] {
			return nil, d.fault(ErrRedirect, reason("it leads back to "+shown(at)+", round and round"), "")
		}
	}
	return nil, d.fault(ErrRedirect, reason(fmt.Sprintf("more than %d in a row", maxRedirects)), "")
}

// request asks for the body from offset on, with these headers of the resource. Only a
// trusted origin gets its user info, and is told who the machine is.
func (d *download) request(how access, at *url.URL, trusted bool, headers []Header) *http.Request {
	target := *at
	target.User, target.Fragment, target.RawFragment = nil, "", ""
	req := &http.Request{Method: http.MethodGet, URL: &target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: d.client.Header.Clone()}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Accept-Encoding", "identity")
	for _, h := range headers {
		req.Header.Del(h.Name)
	}
	for _, h := range headers {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value.Reveal()
			continue
		}
		req.Header.Add(h.Name, h.Value.Reveal())
	}
	user := at.User
	if trusted && user == nil {
		user = how.at.User
	}
	if user != nil && req.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if d.offset > 0 && d.etag != "" {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.offset))
		req.Header.Set("If-Range", d.etag)
	}
	if trusted && how.sign != nil {
		how.sign(req)
	}
	return req
}

// roundTrip makes one request, and returns its answer when the header is here.
func (d *download) roundTrip(req *http.Request) (*answer, error) {
	ctx, cancel := context.WithCancelCause(d.ctx)
	timeout := d.client.ResponseHeaderTimeout
	if timeout <= 0 {
		timeout = DefaultResponseHeaderTimeout
	}
	// The time for the answer counts from when the request is sent. A timer that
	// is set too late, for an answer that came early, must not end its body.
	var settled, connected atomic.Bool
	timer := time.AfterFunc(connectTimeout+timeout, func() {
		if settled.CompareAndSwap(false, true) {
			cancel(noHeaderInTime)
		}
	})
	defer timer.Stop()
	trace := &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { timer.Reset(timeout) },
	}

	resp, err := d.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	inTime := settled.CompareAndSwap(false, true)
	d.connected = d.connected || connected.Load()
	if err == nil && !inTime {
		resp.Body.Close()
		err = noHeaderInTime
	} else if !inTime {
		if err = noHeaderInTime; !connected.Load() {
			err = noConnectionInTime
		}
	}
	if err != nil {
		cancel(nil)
		return nil, d.judge(err)
	}
	a := &answer{Response: resp, at: req.URL, ctx: ctx, cancel: cancel}
	a.stall = time.AfterFunc(stallTimeout, func() { cancel(stalled) })
	a.stall.Stop()
	return a, nil
}

// judge tells whether another try may get further than one that ended without
// an answer.
func (d *download) judge(err error) error {
	cause := publicCause(err)
	if untrusted(cause) {
		return d.fault(ErrUntrusted, cause, hintFor(cause))
	}
	p, ok := errors.AsType[*proxyError](cause)
	switch {
	case !ok:
		return &transient{cause: cause}
	case worthAnotherTry(p.status):
		return &transient{cause: cause, retryAfter: p.retryAfter}
	}
	d.status = p.status
	return d.fault(ErrRefused, cause, hintFor(cause))
}

// answer is a response whose body ends when it stalls.
type answer struct {
	*http.Response
	at     *url.URL
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  *time.Timer
}

func (a *answer) Read(b []byte) (int, error) {
	a.stall.Reset(stallTimeout)
	n, err := a.Body.Read(b)
	a.stall.Stop()
	if err != nil && err != io.EOF {
		if context.Cause(a.ctx) == stalled {
			err = stalled
		}
		err = publicCause(err)
	}
	return n, err
}

func (a *answer) close() {
	a.stall.Stop()
	// Before Close, which otherwise may wait for the rest of the body.
	a.cancel(nil)
	a.Body.Close()
}

// told is what the answer's status says, and who said it if that is not the
// resource's own URL.
func (d *download) told(a *answer) error {
	if a.Proto == tftpProto {
		return tftpTold(a.StatusCode)
	}
	text := statusText(a.StatusCode)
	if at := shown(a.at); at != d.resource.String() {
		text += " from " + at
	}
	if d.store != nil {
		text += ", asked " + d.store.as()
	}
	return reason(text)
}
