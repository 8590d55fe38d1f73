package vm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// host is the name of the server, which only the test's own name server knows.
const host = "boot.example"

// TestPrivateHTTPS is a machine whose clock says 2000 and whose initrd has no resolver. It has its config by https, from a
// name that networkd's name server knows, under a certificate of somebody's own authority. Before, that server is dead.
func TestPrivateHTTPS(t *testing.T) {
	t.Parallel()
	c := stage.UserConfig()
	section := c.Section()
	delete(section, "repart")
	section["root"] = "tmpfs"
	roots, certificate := authority(t)
	server := serveTLS(t, certificate, c.JSON())
	dead := unused(t)

	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, roots, 0o644); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd.img")
	if _, err := stage.Pilotlight(t.Context(), "initrd", "build", "--quiet", "--level", "3", "--root", stage.Tree.Dir, "--ca", ca, "--output", initrd); err != nil {
		t.Fatal(err)
	}
	addNetwork(t, initrd, nameServer(t))

	g := guest(t)
	g.UEFI, g.TPM = false, false
	at := func(port string, credentials ...string) lab.Boot {
		b := direct(local(t, c, append(credentials, "pilotlight.onfailure", "poweroff",
			"pilotlight.config.url", "https://"+host+":"+port+"/config?token="+scene.Secret)...))
		b.FwCfg, b.Initrd, b.Network = nil, initrd, true
		b.Clock = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		return b
	}
	out := boot(t, g, at(dead, "pilotlight.deadline", "20s"), "dead server")
	lines := failure(t, out)
	if !strings.Contains(lines[0], "fetch: ") || !strings.Contains(lines[0], host) || !strings.Contains(lines[0], "deadline") {
		t.Errorf("%q", lines)
	}
	silent(t, out)

	b := at(server)
	b.Until = regexp.MustCompile(`pilotlight: etc: write /etc/demo/secret`)
	out = boot(t, g, b, "https by a private authority in the year 2000")
	for _, want := range []string{`fetch: config from https://boot\.example:[0-9]+/config \(metal\)`, `certificates are compared with 20[2-9][0-9]-`} {
		if _, ok := out.Seen(regexp.MustCompile(want)); !ok {
			t.Errorf("nothing says %q\n%s", want, tail(out))
		}
	}
	silent(t, out)
}

// silent holds that no secret is on a console.
func silent(t *testing.T, out lab.Outcome) {
	t.Helper()
	for _, l := range out.Console {
		if strings.Contains(l.Text, scene.Secret) {
			t.Errorf("a secret is on the console: %q", l.Text)
		}
	}
}

// authority makes a certificate authority of its own, in PEM, and what it has signed for host.
func authority(t *testing.T) ([]byte, tls.Certificate) {
	t.Helper()
	begin, end := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	sign := func(c, by *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "somebody's own"}, NotBefore: begin, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: begin, NotAfter: end}
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sign(root, root, keys[0], keys[0])})
	return roots, tls.Certificate{Certificate: [][]byte{sign(leaf, root, keys[1], keys[0])}, PrivateKey: keys[1]}
}

// serveTLS serves one body on the path /config, and gives the port.
func serveTLS(t *testing.T, certificate tls.Certificate, body []byte) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != scene.Secret {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Write(body)
	})
	s := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// unused gives a port that nobody listens on.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// nameServer answers questions for the IPv4 address of host (RFC 1035, section 4), and gives its port. Of what it does not
// know it says that there is no such record.
func nameServer(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	name := []byte("\x04boot\x07example\x00")
	go func() {
		question := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return // closed
			}
			if n < 12+len(name)+4 {
				continue
			}
			q := question[12 : 12+len(name)+4]
			known := bytes.EqualFold(q[:len(name)], name) && bytes.Equal(q[len(name):], []byte{0, 1, 0, 1})
			answer := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q...)
			if known {
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
				answer = append(answer, net.ParseIP(lab.HostAddress).To4()...)
			}
			conn.WriteTo(answer, from)
		}
	}()
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	return port
}

// addNetwork appends to an initrd what networkd is told there: its name server has a port of its own.
func addNetwork(t *testing.T, initrd, port string) {
	t.Helper()
	text := fmt.Sprintf("[Match]\nType=ether\n[Link]\nRequiredForOnline=routable\n[Network]\nDHCP=ipv4\nDNS=%s:%s\nKeepConfiguration=no\n[DHCPv4]\nUseDNS=no\n", lab.HostAddress, port)
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	if err := cpio.WriteRecords(w, []cpio.Record{cpio.StaticFile("usr/lib/systemd/network/10-lab.network", text, 0o644)}); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(initrd, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel looks for the next archive on a multiple of four bytes.
	if _, err := f.Write(append(make([]byte, -info.Size()&3), archive.Bytes()...)); err != nil {
		t.Fatal(err)
	}
}
