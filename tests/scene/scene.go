// Package scene is the main job with everything that it needs: a Debian guest whose
// root, verity /usr and /etc come from a config that a server has.
//
//	matchbox layout ◀── pilotlight serve          on this machine, loopback
//	      │  /ignition?mac=…                         user config, wrapped
//	      │  /generic?mac=…                          a child of it
//	      ▼
//	 guest: UEFI, TPM, one disk with ESP (UKI), usr, usr-verity
//	      │  pilotlight in the UKI's initrd
//	      ▼
//	 root and var partitions, /usr by the root hash of the config, generated /etc
//
// `make run` shows it to a person; tests/vm holds it and breaks it.
package scene

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"pilotlight/tests/lab"
)

// Cmdline is what is baked into the UKI: nothing of root, /usr or verity. The rest
// is for a machine that is emulated.
const Cmdline = "console=ttyS0 quiet tsc=reliable no_timer_check random.trust_cpu=on systemd.firstboot=no"

// Stage is all that guests share.
type Stage struct {
	Cache  lab.Cache
	Accel  lab.Accel
	Tree   lab.Tree
	Image  lab.Image
	Binary string // pilotlight
	Initrd string
	UKI    string
	Kernel string
	Dir    string // a folder of this run
}

// Build makes what guests boot. dir is a folder for what belongs to this checkout's
// state; it may be used again.
func Build(ctx context.Context, cache lab.Cache, suite, dir string) (*Stage, error) {
	s := &Stage{
		Cache: cache, Dir: dir, Binary: filepath.Join(dir, "pilotlight"),
		Initrd: filepath.Join(dir, "initrd.img"), UKI: filepath.Join(dir, "linux.efi"),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if s.Tree, err = cache.Tree(ctx, suite); err != nil {
		return nil, err
	}
	if s.Accel, err = cache.Accel(ctx, s.Tree); err != nil {
		return nil, err
	}
	if err := lab.GoBuild(ctx, cache.Repository, "./cmd/pilotlight", s.Binary); err != nil {
		return nil, err
	}
	kernels, err := filepath.Glob(filepath.Join(s.Tree.Dir, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return nil, errors.Join(fmt.Errorf("%d kernels in the tree", len(kernels)), err)
	}
	s.Kernel = kernels[0]
	cache.Log.Printf("packing the initrd and the UKI")
	// Packed fast, not small: it is unpacked by an emulated processor anyway.
	if _, err := s.Pilotlight(ctx, "initrd", "build", "--quiet", "--level", "3", "--root", s.Tree.Dir, "--output", s.Initrd); err != nil {
		return nil, err
	}
	if _, err := s.Pilotlight(ctx, "initrd", "uki", "--root", s.Tree.Dir, "--kernel", s.Kernel, "--initrd", s.Initrd, "--cmdline", Cmdline, "--output", s.UKI); err != nil {
		return nil, err
	}
	usr, err := cache.Usr(ctx, s.Tree)
	if err != nil {
		return nil, err
	}
	s.Image, err = cache.Image(ctx, usr, s.UKI)
	return s, err
}

// Pilotlight runs the program on this machine and gives its standard output.
func (s *Stage) Pilotlight(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.Binary, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("pilotlight %s: %w\n%s%s", strings.Join(args, " "), err, out, said.Bytes())
	}
	return out, nil
}

// Hardware is a guest's identity, by which the server knows it.
const (
	MAC    = "52:54:00:12:34:56"
	UUID   = "9a2f0c1e-6f5d-4a55-8a43-3a1b5a7c9d10"
	Serial = "system"
)

// Guest gives hardware with the shared image on its disk, in a folder of its own.
func (s *Stage) Guest(name string) lab.Guest {
	return lab.Guest{
		Dir: filepath.Join(s.Dir, name), Accel: s.Accel, UEFI: true, TPM: true, MemoryMiB: 1536,
		UUID: UUID, MAC: MAC, Disks: []lab.Disk{{Serial: Serial, Base: s.Image.Path}},
	}
}

// Secret is a value that must be seen nowhere but where it belongs.
const Secret = "canary-7f3a9c"

// Config is the user's config in its plain form. Changes are made to it before it is
// written out.
type Config map[string]any

// UserConfig is the config of the scene: partitions, a verity /usr by its root hash,
// files, a unit, users, a credential.
func (s *Stage) UserConfig() Config {
	file := func(path, text string, mode int) map[string]any {
		return map[string]any{"path": path, "mode": mode, "overwrite": true, "contents": map[string]any{"source": dataURL(text)}}
	}
	drop := func(name, text string) map[string]any {
		return map[string]any{"name": name, "contents": map[string]any{"inline": text}}
	}
	return Config{
		"ignition": map[string]any{"version": "3.4.0"},
		"storage": map[string]any{
			"files": []any{
				file("/etc/hostname", "relit\n", 0o644),
				file("/etc/demo/secret", Secret+"\n", 0o600),
			},
			"directories": []any{map[string]any{"path": "/etc/demo/empty", "mode": 0o750}},
			"links":       []any{map[string]any{"path": "/etc/demo/link", "target": "secret"}},
		},
		"systemd": map[string]any{"units": []any{map[string]any{
			"name": "demo.service", "enabled": true,
			"contents": "[Unit]\nDescription=Proof that a unit of the config runs\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n[Install]\nWantedBy=multi-user.target\n",
		}}},
		"pilotlight": map[string]any{
			"version": "1",
			"repart": []any{map[string]any{
				"name": "system", "device": "boot", "tpm2PCRs": []int{7},
				"definitions": []any{
					// The image's own partitions are not named: systemd-repart leaves them alone.
					drop("50-root.conf", "[Partition]\nType=root\nLabel=root\nFormat=ext4\nSizeMinBytes=512M\nSizeMaxBytes=512M\n"),
					drop("60-var.conf", "[Partition]\nType=var\nLabel=var\nFormat=ext4\nMountPoint=/var\nEncrypt=tpm2\nSizeMinBytes=256M\nSizeMaxBytes=256M\n"),
				},
			}},
			"verity": []any{map[string]any{"name": "usr", "rootHash": s.Image.RootHash}},
			"etc": map[string]any{
				"sysusers":    []any{drop("demo.conf", "u demo - \"Of the config\" /var/lib/demo\n")},
				"tmpfiles":    []any{drop("demo.conf", "d /var/lib/demo 0750 demo demo -\nf+^ /etc/demo/from-credential 0600 root root - demo.cred\n")},
				"credentials": []any{map[string]any{"name": "demo.cred", "scope": "initrd", "contents": map[string]any{"inline": Secret}}, map[string]any{"name": "demo.host", "contents": map[string]any{"inline": "for the host"}}},
			},
		},
	}
}

// Child is what the user's config pulls in: one more file.
const Child = `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/demo/child","contents":{"source":"data:,child%0A"}}]}}
`

func dataURL(text string) string {
	return "data:;base64," + base64.StdEncoding.EncodeToString([]byte(text))
}

// JSON is the config as its author has it in a file, indented.
func (c Config) JSON() []byte {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return append(data, '\n')
}

// Section gives our part, to be changed.
func (c Config) Section() map[string]any { return c["pilotlight"].(map[string]any) }

// Define sets the text of a repart.d file of the config.
func (c Config) Define(name, text string) {
	for _, d := range c.Section()["repart"].([]any)[0].(map[string]any)["definitions"].([]any) {
		if d := d.(map[string]any); d["name"] == name {
			d["contents"] = map[string]any{"inline": text}
		}
	}
}

// A Server is a pilotlight serve of this run.
type Server struct {
	Address string // 127.0.0.1:PORT
	Dir     string
	cmd     *exec.Cmd
	lines   chan struct{}
	mu      sync.Mutex
	log     []string
}

// Serve starts the server on a directory in matchbox's layout, which is written
// first: the config for the guest of this scene, and its child.
func (s *Stage) Serve(ctx context.Context, name string, c Config, raw bool) (*Server, error) {
	v := &Server{Dir: filepath.Join(s.Dir, name+"-matchbox"), lines: make(chan struct{})}
	args := []string{"serve", "--listen", "127.0.0.1:0"}
	if raw {
		args = append(args, "--raw")
	}
	if err := v.layout(); err != nil {
		return nil, err
	}
	v.cmd = exec.Command(s.Binary, append(args, v.Dir)...)
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	said, err := v.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	first, err := bufio.NewReader(out).ReadString('\n')
	var ok bool
	if v.Address, ok = strings.CutPrefix(strings.TrimSpace(first), "listening on "); !ok {
		v.Close()
		return nil, errors.Join(fmt.Errorf("pilotlight serve said %q", first), err)
	}
	go v.listen(said)
	if err := v.Put(ctx, s, c, raw); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// layout writes groups and profiles.
func (v *Server) layout() error {
	files := map[string]string{
		"groups/guest.json":      `{"id":"guest","name":"the guest of the scene","profile":"guest","selector":{"mac":"` + MAC + `"},"metadata":{"greeting":"child"}}`,
		"profiles/guest.json":    `{"id":"guest","name":"guest","ignition_id":"guest.ign","generic_id":"child.ign.tmpl"}`,
		"generic/child.ign.tmpl": strings.ReplaceAll(Child, "child%0A", "{{.greeting}}%0A"),
		"assets/.keep":           "",
	}
	for name, text := range files {
		p := filepath.Join(v.Dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(v.Dir, "ignition"), 0o755)
}

// ChildURL is where a guest finds the child.
func (v *Server) ChildURL() string {
	_, port, _ := strings.Cut(v.Address, ":")
	return "http://" + lab.HostAddress + ":" + port + "/generic?mac=" + MAC
}

// ConfigURL is where a guest finds its config: a matchbox, by the machine's labels.
func (v *Server) ConfigURL() string {
	_, port, _ := strings.Cut(v.Address, ":")
	return "http://" + lab.HostAddress + ":" + port + "/ignition"
}

// Put writes the config to the server's directory: wrapped, unless it serves bytes as
// they are.
func (v *Server) Put(ctx context.Context, s *Stage, c Config, raw bool) error {
	c["ignition"].(map[string]any)["config"] = map[string]any{"merge": []any{map[string]any{"source": v.ChildURL()}}}
	plain := filepath.Join(s.Dir, filepath.Base(v.Dir)+".ign")
	if err := os.WriteFile(plain, c.JSON(), 0o600); err != nil {
		return err
	}
	served := c.JSON()
	if !raw {
		var err error
		if served, err = s.Pilotlight(ctx, "wrap", plain); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(v.Dir, "ignition", "guest.ign"), served, 0o600)
}

func (v *Server) listen(said io.Reader) {
	defer close(v.lines)
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		v.mu.Lock()
		v.log = append(v.log, lines.Text())
		v.mu.Unlock()
	}
}

// Requests are the lines of the server's log that speak of a path.
func (v *Server) Requests(path string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []string
	for _, l := range v.log {
		if strings.HasPrefix(l, "GET "+path+" ") {
			list = append(list, l)
		}
	}
	return list
}

// Log is all that the server said.
func (v *Server) Log() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.log, "\n")
}

// Close ends the server.
func (v *Server) Close() {
	if v.cmd.Process == nil {
		return
	}
	_ = v.cmd.Process.Signal(os.Interrupt)
	done := make(chan struct{})
	go func() {
		_ = v.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = v.cmd.Process.Kill()
		<-done
	}
}

// Prediction is what pilotlight predict says: the values by bank.
type Prediction struct {
	PCR    int               `json:"pcr"`
	Values map[string]string `json:"values"`
	Events []string          `json:"events"`
}

// Predict fetches the config as a machine would, and predicts the PCR. The child is
// rendered by the same server, from this machine. more are further flags.
func (s *Stage) Predict(ctx context.Context, v *Server, more ...string) (Prediction, []byte, error) {
	served, err := s.Pilotlight(ctx, "fetch", "--platform", "metal", "--output", "-", "--url", "http://"+v.Address+"/ignition?mac="+MAC)
	if err != nil {
		return Prediction{}, nil, err
	}
	child, err := s.Pilotlight(ctx, "fetch", "--platform", "metal", "--output", "-", "--url", "http://"+v.Address+"/generic?mac="+MAC)
	if err != nil {
		return Prediction{}, nil, err
	}
	childFile := filepath.Join(s.Dir, "child.ign")
	if err := os.WriteFile(childFile, child, 0o600); err != nil {
		return Prediction{}, nil, err
	}
	p, err := s.PredictBytes(ctx, served, append(more, "--with", v.ChildURL()+"="+childFile)...)
	return p, served, err
}

// PredictBytes predicts for a config at hand.
func (s *Stage) PredictBytes(ctx context.Context, config []byte, more ...string) (Prediction, error) {
	f, err := os.CreateTemp(s.Dir, "predict-")
	if err != nil {
		return Prediction{}, err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(config); err != nil {
		return Prediction{}, err
	}
	if err := f.Close(); err != nil {
		return Prediction{}, err
	}
	out, err := s.Pilotlight(ctx, slices.Concat([]string{"predict", "--json", "--config", f.Name()}, s.before(), more)...)
	if err != nil {
		return Prediction{}, err
	}
	var p Prediction
	return p, json.Unmarshal(out, &p)
}

// before says what the PCR is before ours: systemd 261 and newer extend a word of
// their own early in the initrd of a UKI, systemd-pcrosseparator.service(8).
func (s *Stage) before() []string {
	if _, err := os.Stat(filepath.Join(s.Tree.Dir, "usr/lib/systemd/system/systemd-pcrosseparator.service")); err != nil {
		return nil
	}
	return []string{"--os-separator"}
}

// Credentials point a guest at a server, in the way that a signed command line
// leaves open.
func (v *Server) Credentials(more ...string) map[string][]byte {
	c := map[string][]byte{
		"pilotlight.platform":   []byte("metal"),
		"pilotlight.config.url": []byte(v.ConfigURL()),
	}
	for i := 0; i+1 < len(more); i += 2 {
		c[more[i]] = []byte(more[i+1])
	}
	return c
}

// Expected is what a guest looks like whose boot went well.
func (s *Stage) Expected(p Prediction) lab.Expected {
	return lab.Expected{
		State: "running", NoFailed: true, RootHash: s.Image.RootHash,
		PCR12:      map[string]string{"sha256": p.Values["sha256"]},
		Partitions: []string{"esp", "usr", "usr-verity", "root", "var"}, Serial: Serial,
		Mounts:   map[string]string{"/": "ext4", "/usr": "erofs", "/var": "ext4"},
		Hostname: "relit",
		EtcDigests: map[string]string{
			"/etc/demo/secret":          Sum(Secret + "\n"),
			"/etc/demo/child":           Sum("child\n"),
			"/etc/demo/from-credential": Sum(Secret),
		},
		Credentials:      map[string]string{"demo.host": Sum("for the host")},
		ActiveUnits:      []string{"demo.service"},
		NotOnCommandLine: []string{"root=", "usrhash=", "verity"},
	}
}

// Sum is the SHA-256 of a text, hexadecimal.
func Sum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
