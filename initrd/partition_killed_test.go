package initrd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pilotlight/initrd/disk"
)

// The child of these tests lays out one disk, and is killed by strace(1) at each of the
// system calls by which it locks, writes, tells the kernel and leaves receipts.
const (
	childDisk      = "PILOTLIGHT_TEST_DISK"
	childPlace     = "PILOTLIGHT_TEST_PLACE"
	childProvision = "PILOTLIGHT_TEST_PROVISION"
	childWish      = "PILOTLIGHT_TEST_WISH"
)

// killedCalls are what a layout does to the world: it locks, tells the kernel, and writes
// tables and receipts.
func killedCalls() []string {
	return []string{"flock", "ioctl", "pwrite64", "fsync", "renameat"}
}

func pointer[T any](v T) *T { return &v }

// killedLayouts are wishes that are carried out once.
func killedLayouts() map[string]Layout {
	return map[string]Layout{
		"wiped": {WipeTable: true, Partitions: []disk.Wanted{
			{Number: 2, Label: pointer("two"), SizeMiB: pointer(4)}, {Label: pointer("first")}, {Label: pointer("none"), SizeMiB: pointer(0)}}},
		"changed": {Partitions: []disk.Wanted{
			{Number: 1, Label: pointer("keep")},
			{Number: 2, Label: pointer("new"), StartMiB: pointer(9), SizeMiB: pointer(6), WipeEntry: true},
			{Number: 3, SizeMiB: pointer(6), Resize: true},
			{Label: pointer("a"), SizeMiB: pointer(2)}}},
		"gone": {WipeTable: true},
	}
}

// recalling is a machine whose record is at a place.
func recalling(t *testing.T, place, provision string) *Machine {
	t.Helper()
	m, _ := testMachine(t)
	m.Wait = 5 * time.Second
	if _, err := m.recall(Place{Node: place, Kind: "state partition", Disk: Identify{GPT: "d1"}}); err != nil {
		t.Fatal(err)
	}
	if m.memory.Record.Provision != provision {
		if err := m.remember(Record{State: Started, Provision: provision}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestLayoutChild is the child; without its environment it has nothing to do. It stays on
// one thread, whose system calls are counted.
func TestLayoutChild(t *testing.T) {
	node := os.Getenv(childDisk)
	if node == "" {
		return
	}
	runtime.LockOSThread()
	l := killedLayouts()[os.Getenv(childWish)]
	l.Device, l.Provision = node, os.Getenv(childProvision)
	m := recalling(t, os.Getenv(childPlace), l.Provision)
	state, act, err := l.Resolve(m.Look(t.Context()))
	if err != nil || state != NotSo {
		t.Fatalf("%v %v", state, err)
	}
	if err := act.do(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// setOut gives a disk the table and the kernel the partitions that each run begins with.
func setOut(t *testing.T, node string, size int64) {
	t.Helper()
	table, err := disk.NewTable(size, 512, disk.GUID{1})
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"keep", "old", "short", "away"} {
		first := uint64(n*8+1) * 2048
		table.Partitions = append(table.Partitions, disk.Partition{Number: n + 1, Name: name, Type: disk.GUID{2}, UUID: disk.GUID{3, byte(n)}, First: first, Last: first + 4*2048 - 1})
	}
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = disk.WipeTable(disk.Device{RW: f, Size: size, SectorSize: 512, Sync: f.Sync}, table)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	forgetAll(t, node)
	f, err = os.Open(node)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range table.Partitions {
		if err := tellKernel(f, 1, p, 512); err != nil {
			t.Fatal(err)
		}
	}
}

// forgetAll has the kernel forget all partitions of a loop device. Another test of this
// machine may have it open for a moment, as one that looks at all disks.
func forgetAll(t *testing.T, node string) {
	t.Helper()
	for begin := time.Now(); len(kernelOf(t, node)) > 0; time.Sleep(time.Millisecond) {
		out, err := exec.Command("partx", "--delete", node).CombinedOutput()
		if err != nil && time.Since(begin) > 20*time.Second {
			t.Fatalf("partx: %v: %s", err, out)
		}
	}
}

// kernelOf is what the kernel has of a disk, in 512 bytes.
func kernelOf(t *testing.T, node string) map[int]string {
	t.Helper()
	s := disk.Machine()
	d, err := s.Resolve(node)
	if err != nil {
		t.Fatal(err)
	}
	known, err := s.Known(d)
	if err != nil {
		t.Fatal(err)
	}
	list := map[int]string{}
	for _, k := range known {
		list[k.Number] = fmt.Sprintf("%d+%d", k.Start, k.Length)
	}
	return list
}

// tableOf is a table as sfdisk sees it, without what is random, and how many of the
// UUIDs that it began with are left.
func tableOf(t *testing.T, node string) (text string, kept int) {
	t.Helper()
	out, err := exec.Command("sfdisk", "--json", node).Output()
	if err != nil {
		return "none", 0
	}
	var all struct {
		PartitionTable struct {
			Partitions []struct {
				Node, Type, Name, UUID string
				Start, Size            int
			}
		}
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	for _, p := range all.PartitionTable.Partitions {
		text += fmt.Sprintf("%s %d+%d %s %q; ", filepath.Base(p.Node), p.Start, p.Size, p.Type, p.Name)
		if strings.HasPrefix(p.UUID, "0300") || strings.HasPrefix(p.UUID, "0301") || strings.HasPrefix(p.UUID, "0302") || strings.HasPrefix(p.UUID, "0303") {
			kept++
		}
	}
	return text, kept
}

// killedAt runs the child and kills it at the nth of a system call. It says whether the
// child was at its end before.
func killedAt(t *testing.T, wish Layout, name, place, call string, n int) bool {
	t.Helper()
	// A mount namespace of its own takes its mounts along.
	cmd := exec.Command("unshare", "--mount", "strace", "--follow-forks", "--output=/dev/null", "--trace="+call,
		fmt.Sprintf("--inject=%s:signal=KILL:when=%d", call, n), os.Args[0], "-test.run=^TestLayoutChild$")
	cmd.Env = append(os.Environ(), childDisk+"="+wish.Device, childPlace+"="+place, childProvision+"="+wish.Provision, childWish+"="+name)
	out, err := cmd.CombinedOutput()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && (!failed || !exit.Sys().(syscall.WaitStatus).Signaled() && exit.ExitCode() != 128+int(syscall.SIGKILL)) {
		t.Fatalf("killed at %s %d: %v: %s", call, n, err, out)
	}
	return err == nil
}

// TestLayoutKilled kills a run at each of its system calls. The next run ends in what a
// run makes that was never killed, and a third one has nothing to do.
func TestLayoutKilled(t *testing.T) {
	const size = 64 << 20
	for name := range killedLayouts() {
		t.Run(name, func(t *testing.T) {
			node, _ := loopDevice(t, size>>20)
			t.Cleanup(func() { forgetAll(t, node) })
			place := newPlace(t).Node
			wish := killedLayouts()[name]
			wish.Device = node

			setOut(t, node, size)
			wish.Provision = "whole"
			settle(t, recalling(t, place, wish.Provision), wish)
			want, keeps := tableOf(t, node)
			nodes := fmt.Sprint(kernelOf(t, node))

			killed := 0
			states := map[string]int{}
			for _, call := range killedCalls() {
				for n := 1; ; n++ {
					setOut(t, node, size)
					before, _ := tableOf(t, node)
					wish.Provision = call + strconv.Itoa(n)
					done := killedAt(t, wish, name, place, call, n)
					if !done {
						killed++
					}
					half, _ := tableOf(t, node)
					states[half]++
					if half != before && half != want && !strings.Contains(half, " ee ") { // a protective MBR that protects nothing
						t.Errorf("killed at %s %d: the table is neither the old nor the new one: %s", call, n, half)
					}
					if _, err := apply(t, recalling(t, place, wish.Provision), wish); err != nil {
						t.Fatalf("after it was killed at %s %d: %v", call, n, err)
					}
					if got, kept := tableOf(t, node); got != want || kept != keeps {
						t.Fatalf("after it was killed at %s %d: %s, %d kept\nwant %s, %d", call, n, got, kept, want, keeps)
					}
					if got := fmt.Sprint(kernelOf(t, node)); got != nodes {
						t.Fatalf("after it was killed at %s %d the kernel has %s, want %s", call, n, got, nodes)
					}
					// Another process, which knows by the record alone that it was done.
					again, err := apply(t, recalling(t, place, wish.Provision), wish)
					if err != nil || again[0].State != So {
						t.Fatalf("a third run, after it was killed at %s %d: %+v %v", call, n, again[0], err)
					}
					if done {
						break
					}
				}
			}
			t.Logf("killed %d times; tables between: %d", killed, len(states))
			if killed < 12 || len(states) < 2 {
				t.Errorf("killed %d times, with %d different tables in between", killed, len(states))
			}
		})
	}
}

// TestTheRecordIsNotWiped: without it the next boot would be a first one.
func TestTheRecordIsNotWiped(t *testing.T) {
	const size = 64 << 20
	node, _ := loopDevice(t, size>>20)
	t.Cleanup(func() { forgetAll(t, node) })
	setOut(t, node, size)
	before, _ := tableOf(t, node)
	for _, c := range []struct {
		name string
		wish Layout
		want string
	}{
		{"the table", Layout{WipeTable: true}, "the partition table of " + node + " cannot be wiped: the record of this machine is on it"},
		{"its partition", Layout{Partitions: []disk.Wanted{{Number: 1, Label: pointer("new"), WipeEntry: true, StartMiB: pointer(1), SizeMiB: pointer(4)}}},
			"partition 1 of " + node + " cannot be changed: the record of this machine is on it"},
	} {
		m, _ := testMachine(t)
		m.memory = Memory{Place: Place{Node: node + "p1"}, Record: Record{Disks: []Identify{{GPT: disk.GUID{1}.String()}}}}
		c.wish.Device = node
		if _, err := apply(t, m, c.wish); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if after, _ := tableOf(t, node); after != before || len(kernelOf(t, node)) != 4 {
			t.Errorf("%s: %s %v", c.name, after, kernelOf(t, node))
		}
	}
}
