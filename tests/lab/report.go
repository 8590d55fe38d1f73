package lab

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Check is one thing that was looked at, beside what it should be.
type Check struct {
	Name, Got, Want string
}

// OK says whether it is as it should be.
func (c Check) OK() bool { return c.Got == c.Want }

// String is "ok    name: got" or "WRONG name: got, want".
func (c Check) String() string {
	if c.OK() {
		return fmt.Sprintf("ok    %s: %s", c.Name, quote(c.Got))
	}
	return fmt.Sprintf("WRONG %s: %s, want %s", c.Name, quote(c.Got), quote(c.Want))
}

// quote shows values that would mislead in a line of text.
func quote(value string) string {
	if value == "" {
		return "(nothing)"
	}
	if strings.ContainsAny(value, "\n\t\r") {
		return fmt.Sprintf("%q", value)
	}
	return value
}

// Report is a list of checks in the order in which a reader wants them.
type Report []Check

// Add appends one check. Both values are printed with %v.
func (r *Report) Add(name string, got, want any) {
	*r = append(*r, Check{Name: name, Got: fmt.Sprint(got), Want: fmt.Sprint(want)})
}

// OK says whether there are checks and all of them are as they should be: nothing looked at is nothing proven.
func (r Report) OK() bool { return len(r) > 0 && len(r.Wrong()) == 0 }

// Wrong are the checks that are not as they should be.
func (r Report) Wrong() Report {
	var wrong Report
	for _, c := range r {
		if !c.OK() {
			wrong = append(wrong, c)
		}
	}
	return wrong
}

// WriteTo prints one line a check.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var text strings.Builder
	for _, c := range r {
		fmt.Fprintln(&text, c)
	}
	n, err := io.WriteString(w, text.String())
	return int64(n), err
}

// Expected is what a guest that came up should look like. Zero fields are not looked at.
type Expected struct {
	State            string            // of the system, usually "running"
	RootHash         string            // of the verity device usr, which must be verified too
	PCR12            map[string]string // bank to value
	Partitions       []string          // GPT names, in the order of the disk
	Serial           string            // the disk that Partitions is about; empty is all disks
	Mounts           map[string]string // target to file system type
	EtcDigests       map[string]string // path to SHA-256
	Hostname         string
	MachineID        string
	Credentials      map[string]string // name to SHA-256
	NoNetwork        bool              // not one line of systemd-networkd from the initrd
	NoFailed         bool
	CommandLine      string
	ActiveUnits      []string
	NotOnCommandLine []string // substrings that the kernel command line must not hold
}

// Compare sets the facts beside what was expected. It is a pure function: two calls give equal reports, in a fixed order.
func Compare(f Facts, e Expected) Report {
	var r Report
	if e.State != "" {
		r.Add("system", f.State, e.State)
	}
	if e.NoFailed {
		r.Add("failed units", strings.Join(f.Failed(), " "), "")
	}
	if e.RootHash != "" {
		hash, verified := f.VerityRootHash("usr")
		r.Add("root hash of /usr", hash, e.RootHash)
		r.Add("verity of /usr holds", verified, true)
	}
	for _, bank := range sortedKeys(e.PCR12) {
		r.Add("PCR 12 "+bank, f.PCR12[bank], e.PCR12[bank])
	}
	if e.Partitions != nil {
		r.Add("partitions", strings.Join(f.partitions(e.Serial), " "), strings.Join(e.Partitions, " "))
	}
	for _, target := range sortedKeys(e.Mounts) {
		mount, _ := f.Mount(target)
		r.Add("file system on "+target, mount.Type, e.Mounts[target])
	}
	for _, path := range sortedKeys(e.EtcDigests) {
		file, _ := f.EtcFile(path)
		r.Add("contents of "+path, file.SHA256, e.EtcDigests[path])
	}
	if e.Hostname != "" {
		r.Add("hostname", f.Hostname, e.Hostname)
	}
	if e.MachineID != "" {
		r.Add("machine id", f.MachineID, e.MachineID)
	}
	for _, name := range sortedKeys(e.Credentials) {
		r.Add("credential "+name, f.Credentials[name], e.Credentials[name])
	}
	for _, name := range e.ActiveUnits {
		r.Add("unit "+name, f.Units[name].Active, "active")
	}
	if e.NoNetwork {
		r.Add("networkd's messages in the initrd", f.InitrdLines("systemd-networkd.service"), 0)
	}
	if e.CommandLine != "" {
		r.Add("command line", f.CommandLine, e.CommandLine)
	}
	for _, text := range e.NotOnCommandLine {
		r.Add(text+" on the command line", strings.Contains(f.CommandLine, text), false)
	}
	return r
}

// partitions are the GPT names of a disk's partitions by position.
func (f Facts) partitions(serial string) []string {
	disks := map[string]bool{}
	for _, b := range f.Blocks {
		if b.Type == "disk" && (serial == "" || b.Serial == serial) {
			disks[b.Name] = true
		}
	}
	var found []Block
	for _, b := range f.Blocks {
		if b.Type == "part" && disks[b.Parent] {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(a, b Block) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Start, b.Start))
	})
	var names []string
	for _, b := range found {
		names = append(names, b.PartLabel)
	}
	return names
}
