// Package matchbox serves a directory in the layout of the matchbox network boot
// service, for labs and tests that want one binary instead of two. It answers the
// read-only HTTP half of matchbox and nothing else: no gRPC, no TLS, no signatures,
// no DHCP or TFTP.
//
// # Directory
//
//	DIR/groups/*.json      which machine gets which profile: selector, profile, metadata
//	DIR/profiles/*.json    what a profile is: boot, ignition_id, generic_id, cloud_id
//	DIR/ignition/          Ignition configs (*.ign, *.ignition), named by ignition_id
//	DIR/generic/           text/template files, named by generic_id
//	DIR/cloud/             text/template files that give cloud-configs, named by cloud_id
//	DIR/assets/            kernels, initrds, anything: served as files
//
// Everything is read again for each request, so an edit acts at once. Nothing outside
// DIR is ever read: an id with "..", an absolute id, and a symbolic link that leaves
// DIR are refused.
//
// # Endpoints
//
//	/                              "matchbox\n"
//	/boot.ipxe, /boot.ipxe.0       iPXE script that chains to ipxe?uuid=...&mac=...
//	/ipxe, /grub                   boot script made from the profile's boot section
//	/ignition                      the profile's Ignition config
//	/generic, /cloud               the profile's template, rendered
//	/metadata                      the group's metadata as KEY=value lines, sorted
//	/assets/...                    files, with listings
//
// GET and HEAD are served, any other method gets 405. Whatever cannot be answered gets
// the same 404 that matchbox gives; only the log says why.
//
// # Selection
//
// Every query parameter is a label, of which the first value counts. A mac label is
// rewritten to lower-case colon form (from 52-54-00-AA-BB-CC or 5254.00aa.bbcc, say), and
// dropped where it does not parse. Keys and all other values are compared exactly. A group
// matches if each pair of its selector equals a label, and a group without selector matches
// always. Of the groups that match, the one with the most pairs wins; among equals the one
// whose sorted "key=value" text is the greatest, and among groups with the very same
// selector (matchbox leaves that to chance) the first by file name, with a warning.
//
// # Ignition
//
// matchbox parses an Ignition file as spec 3.4 and writes it out again. Keys that the spec
// does not know, such as a top-level "pilotlight", are lost on the way, and a file that
// does not parse (spec 3.5, a typing mistake) becomes an EMPTY config of version "", with
// status 200. This server does both too, so that a lab finds out before production does,
// and says so in its log. [Server.Raw] passes the bytes through as they are. Files of any
// other name are Butane templates to matchbox; Butane is not built in, so they get 404.
//
// # Templates
//
// Templates are in the language of text/template (package template below says what differs).
// They see the group's metadata, over it the selector (keys in lower case), and over
// both request.query.LABEL and request.raw_query. A key that is not there is an error, and
// so a 404. As in matchbox, numbers are float64 and print as Go prints them: 1000000 is
// 1e+06; write such a number as a string.
//
// A template, what it renders to, and any other file but an asset may have 16 MiB at most.
package matchbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is an [http.Handler] over one matchbox directory. The zero value with Dir set is
// ready to use; it may serve any number of requests at once and must not be copied or
// changed after the first. Timeouts are the business of the [http.Server] around it.
type Server struct {
	// Dir is the directory. It is opened anew for each request, so that it may be
	// replaced as a whole while serving.
	Dir string

	// Raw makes /ignition answer the bytes of an Ignition file untouched, instead of
	// parsing and rewriting them as matchbox does.
	Raw bool

	// Log, if not nil, is given one line for each request (method, path, status, the
	// group's and profile's file, the labels uuid, mac, serial, hostname, arch, os and
	// domain, and for a refusal the reason), preceded by lines that begin with
	// "warning: ". Lines hold no line break, no text of a file, and no value of any
	// other label. Log is never called twice at once.
	Log func(line string)

	mu sync.Mutex // held while one request's lines are logged, so that they stay together
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{URL: r.URL, raw: s.Raw}
	rec := &recorder{ResponseWriter: w}
	s.serve(rec, r, q)

	if s.Log == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, warning := range q.warnings {
		s.Log("warning: " + warning)
	}
	s.Log(q.line(r.Method, rec.status))
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, q *request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		q.why = errors.New("only GET and HEAD are served")
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
		return
	}
	// Firmware builds URLs by pasting, and "//ipxe" works with matchbox.
	if tidy := tidyPath(r.URL.Path); tidy != r.URL.Path {
		to := url.URL{Path: tidy, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
		return
	}

	q.labels = q.readLabels()
	if text, ok := fixed(r.URL.Path); ok {
		body{text: []byte(text)}.send(w, r)
		return
	}
	answer := endpoint(r.URL.Path)
	isAsset := strings.HasPrefix(r.URL.Path, "/assets/")
	if answer == nil && !isAsset {
		q.why = errors.New("no such endpoint")
		if ext := path.Ext(r.URL.Path); ext == ".sig" || ext == ".asc" {
			q.why = errors.New("this server signs nothing")
		}
		http.NotFound(w, r)
		return
	}

	dir, err := openStore(s.Dir)
	if err != nil {
		q.why = err
		http.NotFound(w, r)
		return
	}
	defer dir.Close()
	q.store = dir

	if isAsset {
		http.FileServerFS(assets{q}).ServeHTTP(w, r)
		return
	}
	page, err := answer(q)
	if err != nil {
		q.why = err
		http.NotFound(w, r)
		return
	}
	page.send(w, r)
}

// fixed gives the answers that depend on nothing, not even on the directory.
func fixed(path string) (string, bool) {
	switch path {
	case "/":
		return "matchbox\n", true
	case "/boot.ipxe", "/boot.ipxe.0":
		return chainScript, true
	}
	return "", false
}

// endpoint gives what answers another path, nil for none. An error of it is a 404 and its
// reason.
func endpoint(path string) func(*request) (body, error) {
	switch path {
	case "/ipxe":
		return func(q *request) (body, error) { return q.bootScript(boot.ipxe) }
	case "/grub":
		return func(q *request) (body, error) { return q.bootScript(boot.grub) }
	case "/ignition":
		return (*request).ignition
	case "/generic":
		return (*request).generic
	case "/cloud":
		return (*request).cloud
	case "/metadata":
		return (*request).metadata
	}
	return nil
}

// body is an answer with status 200.
type body struct {
	mediaType string // found out from the text where it is empty
	text      []byte
}

// send answers with b, without the text for HEAD.
func (b body) send(w http.ResponseWriter, r *http.Request) {
	if b.mediaType != "" {
		w.Header().Set("Content-Type", b.mediaType)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.text))
}

// request is one request under way: what it asks, what was chosen for it, and what the
// operator is to be told of it.
type request struct {
	URL    *url.URL
	raw    bool
	store  store
	labels map[string]string

	group, profile string // the files that were chosen
	warnings       []string
	why            error // of a refusal
}

func (q *request) warn(format string, args ...any) {
	q.warnings = append(q.warnings, fmt.Sprintf(format, args...))
}

// line is the request's line in the log.
func (q *request) line(method string, status int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d", quote(method), quote(q.URL.Path), status)
	for _, chosen := range []struct{ what, file string }{{"group", q.group}, {"profile", q.profile}} {
		if chosen.file != "" {
			fmt.Fprintf(&b, " %s=%s", chosen.what, quote(chosen.file))
		}
	}
	shown := 0
	for _, key := range wellKnown {
		if value, ok := q.labels[key]; ok {
			shown++
			fmt.Fprintf(&b, " %s=%s", key, quote(value))
		}
	}
	if more := len(q.labels) - shown; more > 0 {
		fmt.Fprintf(&b, " (and %d other labels)", more)
	}
	if status >= 400 && q.why != nil {
		fmt.Fprintf(&b, ": %v", q.why)
	}
	return b.String()
}

// quote makes text from outside fit for a line of the log: as it is where it is one short
// printable word, else quoted and cut.
func quote(s string) string {
	const most = 200
	plain := len(s) <= most && s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r == ' ' || r == '"' || r == '\\' || !strconv.IsPrint(r)
	})
	switch {
	case plain:
		return s
	case len(s) > most:
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}

// tidyPath resolves "." and ".." and repeated slashes, keeps a slash at the end, and gives
// the folder of assets the one that it lacks.
func tidyPath(p string) string {
	tidy := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && tidy != "/" || tidy == "/assets" {
		tidy += "/"
	}
	return tidy
}

// assets is DIR for [http.FileServerFS], of which it shows the folder assets alone.
type assets struct{ q *request }

// Open opens a regular file or a directory. What lies outside DIR does not exist.
func (a assets) Open(name string) (fs.File, error) {
	if name != "assets" && !strings.HasPrefix(name, "assets/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	info, err := a.q.store.Stat(name)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		// Opening a FIFO would hang until somebody writes to it.
		err = errNotRegular
	}
	if err != nil {
		a.q.why = Problem{File: name, Err: bare(err)}
		if !errors.Is(err, fs.ErrPermission) {
			err = fs.ErrNotExist
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return a.q.store.Open(name)
}

// recorder remembers the status for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// ReadFrom keeps the way from file to socket without a copy, which matters for images.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return io.Copy(r.ResponseWriter, src)
}
