package vm_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// reporting is the last thing that pilotlight says of such a machine, which has no place
// for a record. It is out of the initrd's hands then.
var reporting = regexp.MustCompile(`pilotlight: report: warning: there is no ESP`)

// tools is where the module of the servers is that stand in for clouds.
const tools = "tests/tools"

// inCloud is a machine without a TPM and a root on a disk, which is quick to boot: what
// matters is where its config comes from.
func inCloud(t *testing.T) (lab.Guest, scene.Config) {
	t.Helper()
	g := guest(t)
	g.UEFI, g.TPM = false, false
	c := stage.UserConfig()
	delete(c.Section(), "repart")
	c.Section()["root"] = "tmpfs"
	return g, c
}

// provisioned holds a console against what a machine does whose config came from where.
func provisioned(t *testing.T, out lab.Outcome, where, platform string) {
	t.Helper()
	for _, want := range []string{
		fmt.Sprintf("pilotlight: fetch: config from %s (%s)", where, platform),
		"pilotlight: verity: open /dev/mapper/usr", "pilotlight: root: mount /dev/mapper/usr at /sysroot/usr", "pilotlight: etc: write /etc/demo/secret",
	} {
		if _, ok := out.Seen(regexp.MustCompile(regexp.QuoteMeta(want))); !ok {
			t.Errorf("nothing says %q\n%s", want, tail(out))
		}
	}
	for _, l := range out.Console {
		if strings.Contains(l.Text, scene.Secret) {
			t.Errorf("a secret is on the console: %q", l.Text)
		}
	}
}

// throughRelay boots a guest that finds a server of this machine where clouds have theirs.
func throughRelay(t *testing.T, g lab.Guest, server, what string) lab.Outcome {
	t.Helper()
	relay := filepath.Join(t.TempDir(), "relay")
	if err := lab.GoBuild(t.Context(), stage.Cache.Repository, "./tests/lab/relay", relay); err != nil {
		t.Fatal(err)
	}
	b := direct(lab.Boot{
		Network: true, Metadata: server, Relay: relay,
		Credentials: map[string][]byte{"pilotlight.onfailure": []byte("poweroff"), "pilotlight.deadline": []byte("3min")},
	})
	b.Until = reporting
	return boot(t, g, b, what)
}

// TestCloudEC2 knows EC2 by its firmware, and has the user data from Amazon's own mock of
// the metadata service, which takes no request without a token.
func TestCloudEC2(t *testing.T) {
	t.Parallel()
	g, c := inCloud(t)
	g.SMBIOS = map[int]map[string]string{0: {"vendor": "Amazon EC2"}, 1: {"manufacturer": "Amazon EC2", "product": "m7i.large"}}
	server, log := ec2Mock(t, c.JSON())
	out := throughRelay(t, g, server, "EC2, by its firmware")
	provisioned(t, out, "http://169.254.169.254/latest/user-data", "aws")
	said := log()
	if strings.Count(said, "GenerateToken Received request:") != 1 || strings.Count(said, "Received request to mock userdata: /latest/user-data\n") != 1 {
		t.Errorf("the metadata service was asked for something else, or more than once:\n%s", said)
	}
}

// ec2Mock starts the mock with this user data, and gives its address and what it says.
func ec2Mock(t *testing.T, data []byte) (address string, log func() string) {
	t.Helper()
	dir := t.TempDir()
	binary, file := filepath.Join(dir, "ec2-metadata-mock"), filepath.Join(dir, "mock.json")
	if err := lab.GoBuild(t.Context(), filepath.Join(stage.Cache.Repository, tools), "github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock", binary); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]any{"userdata": map[string]any{
		"paths": map[string]string{"userdata": "/latest/user-data"}, "values": map[string]string{"userdata": base64.StdEncoding.EncodeToString(data)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	// The mock cannot be told to choose a port, so one that is free now is chosen for it.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()

	var said lockedText
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	mock := exec.CommandContext(ctx, binary, "--imdsv2", "--config-file", file, "--hostname", "127.0.0.1", "--port", strconv.Itoa(port))
	mock.Env = []string{"HOME=" + dir}
	mock.Stdout, mock.Stderr = &said, &said
	if err := mock.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = mock.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	for {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
			return address, said.String
		}
		select {
		case <-ended:
			t.Fatalf("the mock ended: %s", said.String())
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lockedText is what a program says while others read it.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestCloudGCE knows Google's cloud by its firmware, and has the config in base64.
func TestCloudGCE(t *testing.T) {
	t.Parallel()
	g, c := inCloud(t)
	g.SMBIOS = map[int]map[string]string{0: {"vendor": "Google"}, 1: {"manufacturer": "Google", "product": "Google Compute Engine"}}
	attributes := map[string]string{"user-data": base64.StdEncoding.EncodeToString(c.JSON()), "user-data-encoding": "base64"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" {
			http.Error(w, "not with this header", http.StatusForbidden)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		name, _ := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/attributes/")
		text, ok := attributes[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	out := throughRelay(t, g, strings.TrimPrefix(server.URL, "http://"), "Google's cloud, by its firmware")
	provisioned(t, out, "http://169.254.169.254/computeMetadata/v1/instance/attributes/user-data", "gcp")
}

// TestCloudDrive is a plain QEMU with a drive of cloud-init's form. The kernel argument
// allows that it is looked at; what is cloud-init's on it is left to cloud-init.
func TestCloudDrive(t *testing.T) {
	t.Parallel()
	g, c := inCloud(t)
	dir := t.TempDir()
	drive := lab.FAT{File: filepath.Join(dir, "cidata.img")}
	if out, err := exec.CommandContext(t.Context(), "mkfs.vfat", "-C", "-n", "CIDATA", drive.File, "2048").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, text := range map[string]string{"meta-data": "instance-id: one\n", "user-data": "#cloud-config\nhostname: relit\n", "vendor-data": string(c.JSON())} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := drive.Write(t.Context(), name, file); err != nil {
			t.Fatal(err)
		}
	}
	g.Disks = append(g.Disks, lab.Disk{Serial: "cidata", Base: drive.File})
	b := direct(lab.Boot{Credentials: map[string][]byte{"pilotlight.onfailure": []byte("poweroff")}}, "pilotlight.media=yes")
	b.Until = reporting
	out := boot(t, g, b, "a drive that is labelled cidata")
	provisioned(t, out, "/dev/vdb:vendor-data", "nocloud")
	if _, ok := out.Seen(regexp.MustCompile("bringing the network up")); ok {
		t.Error("a drive needs no network")
	}
}
