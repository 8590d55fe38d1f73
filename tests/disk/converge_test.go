package disk_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/tests/lab"
)

// A run that is killed at any moment and started again ends in a machine that is equal to
// one that was never killed. Killed means the plug: the process, all that it had started,
// its mounts and its /run are gone at once; what it wrote to disks stays.
//
// What runs is the program under Ignition's name, a process for each stage, on two loop
// devices: an empty one, and one that has data which the config keeps.

const convergeConfig = `{"ignition":{"version":"3.4.0"},
"storage":{
 "disks":[
  {"device":"DISK0","wipeTable":true,"partitions":[
   {"number":1,"label":"root","sizeMiB":96},
   {"number":2,"label":"var","sizeMiB":160},
   {"number":3,"label":"swap","sizeMiB":16,"typeGuid":"0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"},
   {"label":"rest"}]},
  {"device":"DISK1","partitions":[
   {"number":1,"label":"keep"},
   {"number":2,"label":"added","sizeMiB":32}]}],
 "filesystems":[
  {"device":"DISK0p1","path":"/","format":"ext4","label":"root","wipeFilesystem":true},
  {"device":"DISK0p2","path":"/var","format":"btrfs","label":"var"},
  {"device":"DISK0p3","format":"swap","label":"swap"},
  {"device":"DISK1p1","path":"/var/keep","format":"ext4","label":"keep"},
  {"device":"DISK1p2","path":"/srv","format":"ext4","uuid":"a6bbd6a5-4e9f-4d5e-9f3a-0f6d7d1f9b10","options":["-E","root_owner=7:8"]}],
 "directories":[{"path":"/srv/web","mode":1517,"user":{"id":33},"group":{"id":33}}],
 "files":[
  {"path":"/etc/hostname","mode":420,"contents":{"source":"data:,converged"}},
   {"path":"/var/keep/new","append":[{"source":"data:,one%0A"},{"source":"data:,two%0A"}]},
  {"path":"/var/keep/old","append":[{"source":"data:,appended%0A"}]},
  {"path":"/var/large","mode":2532,"user":{"id":5},"contents":{"compression":"gzip","source":"data:;base64,LARGE"}},
  {"path":"/srv/web/index.html","user":{"name":"web"},"group":{"name":"ops"},"contents":{"source":"data:,hello"}}],
 "links":[
  {"path":"/etc/localtime","target":"../usr/share/zoneinfo/UTC"},
  {"path":"/var/hard","target":"/var/large","hard":true}]},
"passwd":{"groups":[{"name":"ops","gid":4000}],
 "users":[{"name":"web","uid":2000,"groups":["ops"],"shell":"/bin/sh","passwordHash":"$y$j9T$x$y","sshAuthorizedKeys":["ssh-ed25519 AAAA web"]}]},
"systemd":{"units":[
 {"name":"web.service","enabled":true,"contents":"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n","dropins":[{"name":"a.conf","contents":"[Service]\nNice=1\n"}]},
 {"name":"no.service","mask":true}]}}`

// stages is what a boot calls, a process each. It begins with an empty /run, as a boot does.
const convergeStages = `set -e
mount -t tmpfs tmpfs /run
for stage in fetch kargs disks mount files umount; do
	echo "stage $stage"
	ignition --platform=file --root="$ROOT" --stage=$stage --log-to-stdout
done
echo finished
`

// converging is a machine of this test.
type converging struct {
	*testing.T
	dir    string
	bin    string
	disks  []string
	config string
}

func newConverging(t *testing.T, bin string) *converging {
	c := &converging{T: t, dir: t.TempDir(), bin: bin}
	for i, size := range []int64{400 << 20, 128 << 20} {
		c.disks = append(c.disks, loop(t, filepath.Join(c.dir, fmt.Sprintf("disk%d", i)), size))
	}
	c.must("sh", "-c", `printf 'label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nsize=48M, name=keep, uuid=99999999-8888-7777-6666-555555555555\n' | sfdisk --quiet --no-reread --no-tell-kernel "$0"`, c.disks[1])
	c.must("partx", "--add", c.disks[1])
	c.must("mkfs.ext4", "-q", "-L", "keep", c.disks[1]+"p1")
	c.must("unshare", "--mount", "sh", "-ec", `mount "$0" /mnt; echo data > /mnt/data; echo old > /mnt/old`, c.disks[1]+"p1")
	if err := os.Mkdir(filepath.Join(c.dir, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	large := c.must("sh", "-c", "seq 400000 | gzip -9n | base64 -w0")
	text := strings.NewReplacer("DISK0", c.disks[0], "DISK1", c.disks[1], "LARGE", strings.TrimSpace(large)).Replace(convergeConfig)
	c.config = filepath.Join(c.dir, "config.ign")
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// loop makes a loop device over a sparse file.
func loop(t *testing.T, file string, size int64) string {
	t.Helper()
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		exec.Command("partx", "--delete", node).Run() // there may be none
		if err := exec.Command("losetup", "--detach", node).Run(); err != nil {
			t.Errorf("detach %s: %v", node, err)
		}
	})
	return node
}

func (c *converging) must(name string, args ...string) string {
	c.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		c.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// boot runs all stages. kill hears of each line, with its number; when it says so, or
// when the time is over, the plug is pulled. It returns what was said.
func (c *converging) boot(after time.Duration, kill func(line int) bool) (said string, finished bool) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "sh", "-c", convergeStages)
	cmd.Env = append(os.Environ(), "PATH="+c.bin+":"+os.Getenv("PATH"), "IGNITION_CONFIG_FILE="+c.config, "ROOT="+filepath.Join(c.dir, "root"))
	r, w, err := os.Pipe()
	if err != nil {
		c.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	w.Close()
	if after > 0 {
		timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	var all bytes.Buffer
	lines := bufio.NewScanner(r) // ends when the last process that has the pipe is gone
	for n := 1; lines.Scan(); n++ {
		all.WriteString(lines.Text() + "\n")
		if kill != nil && kill(n) {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	c.free()
	if err == nil {
		return all.String(), true
	}
	if kill == nil && after == 0 {
		c.Fatalf("%v\n%s", err, all.String())
	}
	return all.String(), false
}

// free waits until nobody has a partition mounted: the kernel gives the mounts of a killed
// namespace back after the last of its processes is gone.
func (c *converging) free() {
	c.Helper()
	for _, d := range c.disks {
		for part := 1; part <= 4; part++ {
			node := d + "p" + strconv.Itoa(part)
			for wait := time.Millisecond; ; wait *= 2 {
				fd, err := unix.Open(node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
				if err == nil {
					unix.Close(fd)
				}
				if err != unix.EBUSY {
					break
				}
				if wait > 8*time.Second {
					c.Fatalf("%s is still in use", node)
				}
				time.Sleep(wait)
			}
		}
	}
}

// state is all that is equal on machines that are equal.
func (c *converging) state() map[string]string {
	c.Helper()
	shot := map[string]string{}
	for i, d := range c.disks {
		name := fmt.Sprintf("disk %d", i)
		shot[name+" table"] = table(c.T, d)
		for part := 1; part <= 4; part++ {
			node := d + "p" + strconv.Itoa(part)
			if _, err := os.Stat(node); err != nil {
				continue
			}
			what := c.must("sh", "-c", `blkid --probe --output export "$0" | grep -e ^TYPE= -e ^LABEL= || true`, node)
			if part == 2 && i == 1 {
				what += c.must("blkid", "--probe", "--output", "value", "--match-tag", "UUID", node)
			}
			if strings.Contains(what, "ext4") {
				what += c.must("sh", "-c", `e2fsck -fn "$0" >/dev/null 2>&1 && echo clean`, node)
			}
			shot[fmt.Sprintf("%s partition %d", name, part)] = what
			if strings.Contains(what, "TYPE=ext4") || strings.Contains(what, "TYPE=btrfs") {
				for path, text := range tree(c.T, node) {
					shot[fmt.Sprintf("%s partition %d %s", name, part, path)] = text
				}
			}
		}
	}
	return shot
}

func differ(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s is %q, want %q", what, name, got[name], text)
		}
	}
	for name, text := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is there: %s", what, name, text)
		}
	}
}

func TestKilledAndStartedAgain(t *testing.T) {
	bin := t.TempDir()
	repository, err := lab.FindRepository()
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.GoBuild(t.Context(), repository, "./cmd/pilotlight", filepath.Join(bin, "ignition")); err != nil {
		t.Fatal(err)
	}
	whole := newConverging(t, bin)
	begin := time.Now()
	said, _ := whole.boot(0, nil)
	took := time.Since(begin)
	want := whole.state()
	lines := strings.Count(said, "\n")
	for _, path := range []string{"/data", "/new", "/old"} {
		if name := "disk 1 partition 1 " + path; want[name] == "" {
			t.Errorf("%s is not there", name)
		}
	}
	if lines < 20 || len(want) < 40 {
		t.Fatalf("%d lines, %d facts:\n%s", lines, len(want), said)
	}

	var killed atomic.Int64
	again := func(t *testing.T, name string, after time.Duration, kill func(int) bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newConverging(t, bin)
			said, finished := c.boot(after, kill)
			if !finished {
				killed.Add(1)
			}
			c.boot(0, nil)
			differ(t, "killed after "+last(said), c.state(), want)
		})
	}
	const moments = 24
	t.Run("killed", func(t *testing.T) {
		for n := 1; n <= lines; n++ {
			again(t, fmt.Sprintf("line %d", n), 0, func(line int) bool { return line == n })
		}
		for n := 1; n < moments; n++ {
			again(t, fmt.Sprintf("moment %d", n), took*time.Duration(n)/moments, nil)
		}
	})
	if n := int(killed.Load()); n < lines*3/4 {
		t.Errorf("only %d of the runs were killed", n)
	}

	// What has come to its end and is run once more changes nothing that it may keep.
	t.Run("run twice", func(t *testing.T) {
		c := newConverging(t, bin)
		c.boot(0, nil)
		c.boot(0, nil)
		differ(t, "run twice", c.state(), want)
	})
}

func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
