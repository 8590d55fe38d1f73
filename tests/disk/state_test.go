package disk_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// table is a partition table in sfdisk's words, without what is random.
func table(t *testing.T, node string) string {
	t.Helper()
	out, err := exec.Command("sfdisk", "--json", node).Output()
	if err != nil {
		t.Fatalf("sfdisk: %v", err)
	}
	var all struct {
		PartitionTable struct {
			Label      string
			FirstLBA   int `json:"firstlba"`
			LastLBA    int `json:"lastlba"`
			Partitions []struct {
				Node        string
				Start, Size int
				Type, Name  string
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s %d-%d\n", all.PartitionTable.Label, all.PartitionTable.FirstLBA, all.PartitionTable.LastLBA)
	for _, p := range all.PartitionTable.Partitions {
		text += fmt.Sprintf("%s start %d size %d type %s name %q\n", strings.TrimPrefix(p.Node, node), p.Start, p.Size, p.Type, p.Name)
	}
	return text
}

// tree is what a file system holds: of each path the type, mode, owner, content,
// attributes and what else has the same inode. What is random or tells the time is left out.
//
// It is mounted for one thread alone: whoever is started meanwhile would else keep a copy
// of the mount.
func tree(t *testing.T, node string) (shot map[string]string) {
	t.Helper()
	dir := t.TempDir()
	kind, err := exec.Command("blkid", "--probe", "--output", "value", "--match-tag", "TYPE", node).Output()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go onThread(func() {
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount(node, dir, strings.TrimSpace(string(kind)), unix.MS_RDONLY, "")
		}
		if err == nil {
			shot, err = walk(dir)
		}
		done <- errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	})
	if err := <-done; err != nil {
		t.Fatalf("%s: %v", node, err)
	}
	return shot
}

// onThread runs something on a thread that ends with it and all its mounts. The first thread
// of a process never does: what /proc/self says is said of that one.
func onThread(do func()) {
	runtime.LockOSThread() // and never unlocked, but for the first
	if unix.Gettid() != unix.Getpid() {
		do()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(do)
	}()
	<-done
	runtime.UnlockOSThread()
}

func walk(dir string) (map[string]string, error) {
	shot := map[string]string{}
	inodes := map[uint64][]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		path := "/" + strings.TrimPrefix(strings.TrimPrefix(name, dir), "/")
		attributes, err := attributes(name)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d%s", st.Mode, st.Uid, st.Gid, attributes)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if filepath.Base(name) != ".ignition-result.json" { // which tells the time
				text += fmt.Sprintf(" %d bytes %x", len(data), sha256.Sum256(data))
			}
			if st.Nlink > 1 {
				inodes[st.Ino] = append(inodes[st.Ino], path)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " to " + target
		}
		shot[path] = text
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, same := range inodes {
		slices.Sort(same)
		for _, path := range same {
			shot[path] += " = " + strings.Join(same, " ")
		}
	}
	return shot, nil
}

func attributes(name string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if err != nil {
		return "", err
	}
	var list []string
	for attr := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if attr == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(name, attr, value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", attr, err)
		}
		list = append(list, fmt.Sprintf(" %s=%q", attr, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, ""), nil
}
