package remote_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/tests/lab"
)

// A tftpServer is one of Debian's, on an address of loopback.
type tftpServer struct {
	name string
	deb  string // that is unpacked for it; "": it is installed
	argv func(dir, root, host, port string) []string
	only string // the one port that it knows; "": any
	host string // where it listens; "": 127.0.0.1
}

func tftpServers() []tftpServer {
	atftpd := func(options ...string) func(dir, root, host, port string) []string {
		return func(dir, root, host, port string) []string {
			return append(append([]string{filepath.Join(dir, "usr/sbin/atftpd"), "--daemon", "--no-fork", "--user", "root.root", "--logfile", "-",
				"--bind-address", host, "--port", port}, options...), root)
		}
	}
	hpa := func(dir, root, host, port string) []string {
		return []string{filepath.Join(dir, "usr/sbin/in.tftpd"), "--foreground", "--user", "root", "--address", net.JoinHostPort(host, port), "--secure", root}
	}
	return []tftpServer{
		{name: "atftpd", deb: "atftpd", argv: atftpd()},
		{name: "atftpd without options", deb: "atftpd", argv: atftpd("--no-timeout", "--no-tsize", "--no-blksize", "--no-windowsize")},
		{name: "tftpd-hpa", deb: "tftpd-hpa", argv: hpa},
		{name: "tftpd-hpa by IPv6", deb: "tftpd-hpa", argv: hpa, host: "::1"},
		{name: "dnsmasq", only: "69", argv: func(_, root, host, _ string) []string {
			return []string{"dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--enable-tftp", "--tftp-root=" + root, "--listen-address=" + host, "--bind-interfaces"}
		}},
	}
}

// start serves a folder, and gives HOST:PORT.
func (s tftpServer) start(t *testing.T, root string) string {
	t.Helper()
	dir := ""
	if s.deb != "" {
		cache, err := lab.OpenCache(lab.NewLog(os.Stderr))
		if err != nil {
			t.Fatal(err)
		}
		if dir, err = cache.Unpacked(t.Context(), s.deb); err != nil {
			t.Fatal(err)
		}
	}
	host, port := cmp.Or(s.host, "127.0.0.1"), s.only
	if port == "" {
		port = freePort(t, "udp")
	} else {
		// Nobody else is on this one.
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(250), 1+rand.N(250))
	}
	if err := os.WriteFile(filepath.Join(root, "ready"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(host, port)
	start(t, nil, s.argv(dir, root, host, port)...).until(t, s.name, func() error {
		c := resource.Client{TotalTimeout: 2 * time.Second}
		_, err := get(t, &c, "tftp://"+address+"/ready")
		return err
	})
	return address
}

// random is some bytes, from a seed.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func TestTFTP(t *testing.T) {
	t.Parallel()
	for _, s := range tftpServers() {
		t.Run(s.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Chmod(root, 0o755); err != nil {
				t.Fatal(err)
			}
			sizes := []int{0, 1, 511, 512, 513, 1427, 1428, 1429, 2856, 32 * 1428, 33*1428 + 1, 1 << 20}
			if s.name != "atftpd without options" {
				sizes = append(sizes, 65_540*1428+5) // more blocks than there are numbers
			}
			for _, n := range sizes {
				if err := os.WriteFile(filepath.Join(root, fmt.Sprint(n)), random(n), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(root, "a b+%c"), text, 0o644); err != nil {
				t.Fatal(err)
			}
			address := s.start(t, root)
			source := "tftp://" + address + "/"
			if s.only == "69" {
				source = strings.Replace(source, ":69/", "/", 1) // the port that goes without saying
			}
			c := resource.Client{Patience: 20 * time.Second, Limit: 1 << 30}
			for _, n := range sizes {
				begin := time.Now()
				sum := sha256.Sum256(random(n))
				u, err := resource.ParseURL(source + fmt.Sprint(n))
				if err != nil {
					t.Fatal(err)
				}
				got, err := c.Bytes(t.Context(), resource.Resource{Source: u, Hash: resource.Hash{Algorithm: "sha256", Sum: sum[:]}})
				if err != nil || len(got) != n {
					t.Errorf("%d bytes: %d, %v", n, len(got), err)
				}
				if n > 1<<20 {
					t.Logf("%d bytes in %v", n, time.Since(begin))
				}
			}
			if got, err := get(t, &c, source+"a%20b+%25c"); err != nil || !bytes.Equal(got, text) {
				t.Errorf("a name that is encoded: %d bytes, %v", len(got), err)
			}
			begin := time.Now()
			if got, err := get(t, &c, source+"none"); !errors.Is(err, resource.ErrNotFound) || got != nil || time.Since(begin) > 5*time.Second {
				t.Errorf("a file that is not there: %v after %v", err, time.Since(begin))
			}
		})
	}
}

// TestTFTPOverTheInitrdsNetwork: a name is looked up, and the network brought up first,
// as for every other source.
func TestTFTPOverTheInitrdsNetwork(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := errors.Join(os.Chmod(root, 0o755), os.WriteFile(filepath.Join(root, "f"), text, 0o644)); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(tftpServers()[2].start(t, root))
	if err != nil {
		t.Fatal(err)
	}
	risen := 0
	network := &initrd.Network{Up: func(context.Context) error { risen++; return nil }}
	c := resource.Client{Transport: network.Transport(resource.TransportOptions{}), TotalTimeout: 20 * time.Second}
	if got, err := get(t, &c, "tftp://localhost:"+port+"/f"); err != nil || !bytes.Equal(got, text) || risen != 1 {
		t.Errorf("%d bytes, %v, the network was brought up %d times", len(got), err, risen)
	}
}

func TestTFTPErrors(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := errors.Join(os.Chmod(root, 0o755), os.WriteFile(filepath.Join(root, "closed"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := resource.Client{TotalTimeout: 10 * time.Second}
	address := tftpServers()[2].start(t, root)
	_, err := get(t, &c, "tftp://"+address+"/closed")
	if e, ok := errors.AsType[*resource.Error](err); !errors.Is(err, resource.ErrRefused) || !ok || e.Status != 0 {
		t.Errorf("a file that not everybody may read: %v", err)
	}
	// There is nobody.
	c.TotalTimeout = 1500 * time.Millisecond
	begin := time.Now()
	_, err = get(t, &c, "tftp://127.0.0.1:"+freePort(t, "udp")+"/x")
	if took := time.Since(begin); !errors.Is(err, resource.ErrUnreachable) || took > 4*time.Second {
		t.Errorf("nobody: %v after %v", err, took)
	}
	// The caller gives up.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	u, err := resource.ParseURL("tftp://127.0.0.1:" + freePort(t, "udp") + "/x")
	if err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	if _, err = new(resource.Client).Bytes(ctx, resource.Resource{Source: u}); !errors.Is(err, context.Canceled) || time.Since(begin) > 2*time.Second {
		t.Errorf("given up: %v after %v", err, time.Since(begin))
	}
	// A proxy of the config's is not for TFTP, nor do headers go along.
	if _, err := c.Bytes(t.Context(), resource.Resource{Source: u, Headers: []resource.Header{{Name: "A", Value: resource.NewSecret("b")}}}); !errors.Is(err, resource.ErrSyntax) {
		t.Errorf("headers: %v", err)
	}
}

// TestTFTPBadLine fetches over a line that loses, repeats and reorders packets.
func TestTFTPBadLine(t *testing.T) {
	t.Parallel()
	for _, s := range tftpServers()[:3] {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			want := random(40_000)
			if err := errors.Join(os.Chmod(root, 0o755), os.WriteFile(filepath.Join(root, "f"), want, 0o644)); err != nil {
				t.Fatal(err)
			}
			line := newBadLine(t, s.start(t, root))
			c := resource.Client{TotalTimeout: 100 * time.Second}
			got, err := get(t, &c, "tftp://"+line.front.LocalAddr().String()+"/f")
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			line.close()
			if line.lost == 0 || line.twice == 0 || line.late == 0 {
				t.Errorf("the line was too good: %d lost, %d twice, %d late", line.lost, line.twice, line.late)
			}
			t.Logf("%d lost, %d twice, %d late", line.lost, line.twice, line.late)
		})
	}
}
