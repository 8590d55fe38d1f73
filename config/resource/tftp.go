package resource

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"time"
)

// tftpProto is what answers of a TFTP server say of themselves.
const tftpProto = "TFTP"

// tftpRoundTripper fetches a tftp URL (RFC 3617) as if it were http, so that bounds,
// tries and deadlines are those of every other download: the answer has status 200 and
// the file as its body. What the server says instead becomes the status that means
// the same; see [tftpError.status].
type tftpRoundTripper struct {
	// dial resolves a name and brings the network up, as [TransportOptions.Dial].
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (t tftpRoundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	x, err := t.connect(r)
	if err != nil {
		return nil, err
	}
	trace := httptrace.ContextClientTrace(r.Context())
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	if trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	answer := &http.Response{StatusCode: http.StatusOK, Proto: tftpProto, Header: http.Header{}, Body: x, Request: r}
	err = x.begin(r.URL.Path)
	if said, ok := errors.AsType[tftpError](err); ok {
		x.Close()
		answer.StatusCode, answer.Body = said.status(), http.NoBody
		return answer, nil
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	answer.ContentLength = x.total
	return answer, nil
}

// connect finds the server, and opens a socket to which any of its ports can answer:
// each transfer has a port of its own there.
func (t tftpRoundTripper) connect(r *http.Request) (*tftpTransfer, error) {
	port := r.URL.Port()
	if port == "" {
		port = "69"
	}
	// Nothing is sent by this: the kernel chooses the way, and so our address.
	way, err := t.dial(r.Context(), "udp", net.JoinHostPort(r.URL.Hostname(), port))
	if err != nil {
		return nil, err
	}
	defer way.Close()
	server, err := netip.ParseAddrPort(way.RemoteAddr().String())
	own, ok := way.LocalAddr().(*net.UDPAddr)
	if err != nil || !ok {
		return nil, notTFTP
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: own.IP, Zone: own.Zone})
	if err != nil {
		return nil, err
	}
	x := &tftpTransfer{ctx: r.Context(), conn: conn, server: server, in: make([]byte, tftpPacketMost)}
	// Reading ends with the context.
	x.forget = context.AfterFunc(r.Context(), func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	return x, nil
}

// tftpTold says in our words what a TFTP server's status means.
func tftpTold(status int) reason {
	switch status {
	case http.StatusNotFound:
		return "the TFTP server has no such file"
	case http.StatusForbidden:
		return "the TFTP server does not give it"
	}
	return "the TFTP server cannot give it now"
}
