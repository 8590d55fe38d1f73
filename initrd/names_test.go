package initrd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNameServersOfNetworkd reads state files as sd_network(3)'s writer leaves them.
func TestNameServersOfNetworkd(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"the state of all links": {
			map[string]string{"state": "OPER_STATE=routable\nDNS=10.0.2.3 fec0::3\nNTP=10.0.2.9\n", "links/2": "DNS=192.0.2.1\n"},
			[]string{"10.0.2.3:53", "[fec0::3]:53"},
		},
		"links, where all together say nothing": {
			map[string]string{"state": "OPER_STATE=routable\nDNS=\n", "links/1": "ADMIN_STATE=unmanaged\n", "links/2": "ADMIN_STATE=configured\nDNS=192.0.2.1\n"},
			[]string{"192.0.2.1:53"},
		},
		"no state, several links": {
			map[string]string{"links/2": "DNS=192.0.2.2\n", "links/3": "DNS=192.0.2.3 192.0.2.2\n"},
			[]string{"192.0.2.2:53", "192.0.2.3:53"},
		},
		"a name for DNS over TLS": {
			map[string]string{"state": "DNS=9.9.9.9#dns.quad9.net 2620:fe::fe#dns.quad9.net\n"},
			[]string{"9.9.9.9:53", "[2620:fe::fe]:53"},
		},
		"ports": {
			map[string]string{"state": "DNS=192.0.2.1:5353 [2001:db8::1]:5300 [2001:db8::2] 192.0.2.2:54#name\n"},
			[]string{"192.0.2.1:5353", "[2001:db8::1]:5300", "[2001:db8::2]:53", "192.0.2.2:54"},
		},
		"zones": {
			map[string]string{"state": "DNS=fe80::1%2 fe80::2%eth0#name [fe80::3]:54%2 2001:db8::1%2\n"},
			[]string{"[fe80::1%2]:53", "[fe80::2%eth0]:53", "[fe80::3%2]:54", "[2001:db8::1]:53"},
		},
		"the zone of the link that says it": {
			map[string]string{"links/3": "DNS=fe80::1 fe80::2%7\n"},
			[]string{"[fe80::1%3]:53", "[fe80::2%7]:53"},
		},
		"what is no address": {
			map[string]string{"state": "DNS=dns.example 192.0.2.4 192.0.2.5:0 192.0.2.6:x 192.0.2.7:99999 [::1 %2 #x\nXDNS=192.0.2.5\n"},
			[]string{"192.0.2.4:53"},
		},
		"more than anybody asks": {
			map[string]string{"state": "DNS=" + strings.Join(strings.Split("abcdefghijk", ""), "::1 ") + "::1\n"},
			[]string{"[a::1]:53", "[b::1]:53", "[c::1]:53", "[d::1]:53", "[e::1]:53", "[f::1]:53"},
		},
		"nothing at all": {nil, nil},
		"no server":      {map[string]string{"state": "DNS=\n", "links/2": "DNS=\n"}, nil},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			write(t, filepath.Join(dir, file), text)
		}
		list, err := names{netif: dir}.linkServers()
		var got []string
		for _, s := range list {
			got = append(got, s.String())
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "state/is-a-directory"), "")
	if _, err := (names{netif: dir}).linkServers(); err == nil {
		t.Error("a file that cannot be read is as if there were none")
	}
}

// dns is a name server that knows config.example, or answers nobody.
func dns(t *testing.T, answer string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer == "" {
				continue
			}
			// RFC 1035, section 4: header, question, and answers that point to the question's name.
			q := buf[12:n]
			end := slices.Index(q, 0) + 5
			reply := append(slices.Clone(buf[:12]), q[:end]...)
			reply[2], reply[3] = 0x84|buf[2]&1, 0x80
			for i := 6; i < 12; i++ {
				reply[i] = 0
			}
			known := strings.HasPrefix(string(q), "\x06config\x07example\x00")
			switch kind := binary.BigEndian.Uint16(q[end-4:]); {
			case !known || answer == "unknown":
				reply[3] |= 3
			case kind == 1:
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
				reply = append(reply, netip.MustParseAddr(answer).AsSlice()...)
			}
			conn.WriteTo(reply, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestLookup(t *testing.T) {
	dead, ignorant, good := dns(t, ""), dns(t, "unknown"), dns(t, "192.0.2.80")
	for name, c := range map[string]struct {
		resolv string // "" for none
		state  string
		host   string
		want   string
		says   string
	}{
		"a name":                               {"", good, "config.example", "[192.0.2.80]", ""},
		"a name that ends":                     {"", good, "config.example.", "[192.0.2.80]", ""},
		"the first is dead":                    {"", dead + " " + good, "config.example", "[192.0.2.80]", ""},
		"the first does not know":              {"", ignorant + " " + good, "config.example", "[192.0.2.80]", ""},
		"nobody knows":                         {"", ignorant + " " + good, "other.example.", "", "lookup other.example. on " + ignorant + ": no such host"},
		"an address":                           {"", "", "192.0.2.9", "[192.0.2.9]", ""},
		"an address with its zone":             {"", "", "fe80::1%2", "[fe80::1%2]", ""},
		"a resolv.conf that says nothing":      {"search example\n# nameserver 192.0.2.1\n", good, "config.example", "[192.0.2.80]", ""},
		"no server":                            {"", "", "config.example", "", "no name server: RESOLV names none, and networkd knows none (NETIF)"},
		"no server, and a resolv.conf of none": {"search example\n", "", "config.example", "", "no name server: RESOLV names none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := names{filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "netif")}
			if c.resolv != "" {
				write(t, n.resolv, c.resolv)
			}
			write(t, filepath.Join(n.netif, "state"), "DNS="+c.state+"\n")
			begun := time.Now()
			got, err := n.lookup(t.Context(), c.host)
			text := ""
			if err != nil {
				text = strings.NewReplacer(n.resolv, "RESOLV", n.netif, "NETIF").Replace(err.Error())
			}
			if c.says != "" && !strings.Contains(text, c.says) || c.says == "" && (err != nil || !equalAddrs(got, c.want)) {
				t.Errorf("%v, %q", got, text)
			}
			if strings.Contains(text, "\n") {
				t.Errorf("more than a line: %q", text)
			}
			// A dead server costs its head start, and not the resolver's 5 s.
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	if addrs, err := (names{"/dev/null", t.TempDir()}).lookup(t.Context(), "localhost"); err != nil || len(addrs) == 0 || !addrs[0].IsLoopback() {
		t.Errorf("what /etc/hosts knows: %v %v", addrs, err)
	}
	dir := t.TempDir()
	if _, err := (names{dir, dir}).lookup(t.Context(), "config.example"); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a resolv.conf that cannot be read is as if there were none: %v", err)
	}
}

func equalAddrs(list []netip.Addr, want string) bool {
	var texts []string
	for _, a := range list {
		texts = append(texts, a.Unmap().String())
	}
	return "["+strings.Join(texts, " ")+"]" == want
}

func TestResolvConf(t *testing.T) {
	for text, want := range map[string]bool{
		"nameserver 192.0.2.1\n": true, "search x\n\tnameserver  ::1": true,
		"": false, "nameserver\n": false, "#nameserver 192.0.2.1\n": false, "options nameserver x\n": false,
	} {
		n := names{resolv: filepath.Join(t.TempDir(), "resolv.conf")}
		write(t, n.resolv, text)
		if got, err := n.resolvConf(); got != want || err != nil {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	n := names{resolv: filepath.Join(t.TempDir(), "resolv.conf")}
	if err := os.Symlink("../run/nowhere/stub-resolv.conf", n.resolv); err != nil {
		t.Fatal(err)
	}
	if got, err := n.resolvConf(); got || err != nil {
		t.Errorf("a link to nothing: %v %v", got, err)
	}
}

// TestFirstAddressDead dials for real: an address that drops everything, then one
// that answers.
func TestFirstAddressDead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "here")
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	addr := netip.MustParseAddr
	silent := addr("127.0.0.9")
	drop(t, silent, port)
	for name, list := range map[string][]netip.Addr{
		"refused":      {addr("127.0.0.2"), addr("127.0.0.3"), addr("127.0.0.1")},
		"dropped":      {silent, addr("127.0.0.1")},
		"the only one": {addr("127.0.0.1")},
		"mapped":       {addr("::ffff:127.0.0.1")},
	} {
		begun := time.Now()
		c, err := dialFirst(t.Context(), "tcp", port, list)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, err := io.ReadAll(c); string(b) != "here" || err != nil {
			t.Errorf("%s: %q %v", name, b, err)
		}
		c.Close()
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	_, err = dialFirst(t.Context(), "tcp", port, []netip.Addr{addr("127.0.0.2"), addr("127.0.0.3")})
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" || !strings.Contains(err.Error(), "127.0.0.2") || !strings.Contains(err.Error(), "; dial tcp 127.0.0.3") {
		t.Errorf("error %v", err)
	}
}

// drop has a port whose queue is full: the kernel drops who knocks.
func drop(t *testing.T, a netip.Addr, port string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4(), Port: n}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(a.String(), port), 300*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
}

func TestFamiliesTakeTurns(t *testing.T) {
	for in, want := range map[string]string{
		"::1 ::2 ::3 1.1.1.1 1.1.1.2":                     "[::1 1.1.1.1 ::2 1.1.1.2 ::3]",
		"1.1.1.1 ::1 ::2":                                 "[1.1.1.1 ::1 ::2]",
		"1.1.1.1 ::ffff:1.1.1.2 ::1":                      "[1.1.1.1 ::1 1.1.1.2]",
		"::1 ::2 ::3 ::4 ::5 ::6 ::7 ::8 ::9 ::a 1.1.1.1": "[::1 1.1.1.1 ::2 ::3 ::4 ::5 ::6 ::7]",
	} {
		var list []netip.Addr
		for _, s := range strings.Fields(in) {
			list = append(list, netip.MustParseAddr(s))
		}
		if got := alternate(list); !equalAddrs(got, want) {
			t.Errorf("%s: %v, want %s", in, got, want)
		}
	}
}
