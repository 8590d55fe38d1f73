package initrd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Array wishes a RAID array (md(4)) of that name that runs upon those devices. It is
// Ignition's storage.raid.
//
// An array that is made gets a UUID that follows from the provision and the wish. So
// superblocks that a boot left which did not come to its end are known: on all devices,
// and the array is put together of them; on some, and it is made again.
type Array struct {
	Name      string // as mdadm takes it: "data" is /dev/md/data
	Level     string
	Devices   []string // as the config names them; the spares come last
	Spares    int
	Options   []string // of mdadm --create
	Provision string   // the provision id
	There     bool     // it was made by an earlier boot, and is only put together
}

func (a Array) String() string {
	return fmt.Sprintf("RAID array %s, level %s, on %s", a.Device(), a.Level, strings.Join(a.Devices, ", "))
}

// Device is the path of the array.
func (a Array) Device() string {
	if strings.HasPrefix(a.Name, "/dev") {
		return a.Name
	}
	return path.Join("/dev/md", a.Name)
}

// ArraysDir is what steps touch that make an array: a volume or a file system may be on any
// of them, by whatever path.
const ArraysDir = "/arrays"

// Touches is the array and what it is made upon.
func (a Array) Touches() []string {
	return append([]string{path.Join(ArraysDir, path.Base(a.Name)), a.Device()}, a.Devices...)
}

// Reads is what the devices may be on.
func (a Array) Reads() []string { return []string{"/partitions"} }

// Lingers says that devices may come late.
func (a Array) Lingers() bool { return true }

// personalities are the kernel's modules by the levels that Ignition knows.
var personalities = map[string]string{
	"linear": "linear",
	"raid0":  "raid0", "0": "raid0", "stripe": "raid0",
	"raid1": "raid1", "1": "raid1", "mirror": "raid1",
	"raid4": "raid456", "4": "raid456", "raid5": "raid456", "5": "raid456", "raid6": "raid456", "6": "raid456",
	"raid10": "raid10", "10": "raid10",
}

// Needs is the module of the level.
func (a Array) Needs() (programs, modules []string) {
	return []string{"mdadm"}, []string{"md_mod", personalities[a.Level]}
}

// level is the kernel's word for a level of the config, which has three for each.
func (a Array) level() string {
	switch l := a.Level; {
	case l == "stripe":
		return "raid0"
	case l == "mirror":
		return "raid1"
	case l != "" && strings.Trim(l, "0123456789") == "":
		return "raid" + l
	default:
		return l
	}
}

// uuid is that of an array of this wish, in mdadm's form. Options that say one win.
func (a Array) uuid() string {
	if u := option(a.Options, "--uuid"); u != "" {
		return mdUUID(u)
	}
	if u := option(a.Options, "-u"); u != "" {
		return mdUUID(u)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "pilotlight array %q %q %q %q %d %q", a.Provision, a.Name, a.Level, a.Devices, a.Spares, a.Options))
	return mdUUID(hex.EncodeToString(sum[:16]))
}

// mdUUID writes a UUID as mdadm prints it: four groups of eight digits.
func mdUUID(s string) string {
	digits := strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune(":-. ", r) {
			return -1
		}
		return r
	}, s))
	if len(digits) != 32 {
		return s
	}
	return digits[:8] + ":" + digits[8:16] + ":" + digits[16:24] + ":" + digits[24:]
}

// Resolve looks at the arrays that run, and then at the superblocks.
func (a Array) Resolve(look Look) (State, Act, error) {
	running, err := runningArrays(look)
	if err != nil {
		return unresolved, nil, err
	}
	if a.There {
		if runs, err := a.runs(look, running); runs || err != nil {
			return So, nil, err
		}
	}
	var nodes []string
	for _, d := range a.Devices {
		node, err := look.Node(d)
		if a.There && errors.Is(err, fs.ErrNotExist) {
			continue // what an array is for: a disk may be missing
		}
		if errors.Is(err, fs.ErrNotExist) {
			return After, nil, err
		}
		if err != nil {
			return unresolved, nil, err
		}
		if slices.Contains(nodes, node) {
			return unresolved, nil, fmt.Errorf("%s is %s, which is named twice", d, node)
		}
		nodes = append(nodes, node)
	}
	stop := ""
	for _, r := range running {
		if !slices.ContainsFunc(nodes, r.has) {
			continue
		}
		state, err := a.compare(look, r, nodes)
		switch {
		case err != nil || state == So:
			return state, nil, err
		case stop != "":
			return unresolved, nil, fmt.Errorf("%s and %s are both upon devices of it", stop, r.node())
		}
		stop = r.node()
	}
	return a.bySuperblocks(look, nodes, stop)
}

// runs says whether an array of that name runs, upon whatever its owner has given it since.
func (a Array) runs(look Look, running []mdArray) (bool, error) {
	for _, r := range running {
		if !r.active {
			continue
		}
		out, err := look.Ask(Query{Program: "mdadm", Args: []string{"--detail", "--export", r.node()}})
		if err != nil {
			return false, err
		}
		if a.named(exported(out)) {
			_, err := look.Node(a.Device())
			return true, err
		}
	}
	return false, nil
}

// compare holds a running array that has one of the devices against the wish: So, or NotSo
// where it is ours and half put together.
func (a Array) compare(look Look, r mdArray, nodes []string) (State, error) {
	out, err := look.Ask(Query{Program: "mdadm", Args: []string{"--detail", "--export", r.node()}})
	if err != nil {
		return unresolved, err
	}
	detail := exported(out)
	all := len(r.members) == len(nodes) && !slices.ContainsFunc(nodes, func(n string) bool { return !r.has(n) })
	foreign := slices.ContainsFunc(r.members, func(m string) bool {
		return !slices.ContainsFunc(nodes, func(n string) bool { return path.Base(n) == m })
	})
	switch {
	case foreign || !a.named(detail):
		return unresolved, fmt.Errorf("%s has devices of it: the array %q on %s", r.node(), bareName(detail["MD_NAME"]), strings.Join(r.members, ", "))
	case r.active && all && detail["MD_LEVEL"] == a.level() && detail["MD_DEVICES"] == strconv.Itoa(len(nodes)-a.Spares):
		// It may have its own name in /dev a moment later.
		if _, err := look.Node(a.Device()); err != nil {
			return unresolved, err
		}
		return So, nil
	case detail["MD_UUID"] == a.uuid():
		return NotSo, nil
	case r.active:
		return unresolved, fmt.Errorf("%s runs by that name and is another: level %s, %s devices, %s", r.node(), detail["MD_LEVEL"], detail["MD_DEVICES"], strings.Join(r.members, ", "))
	}
	return NotSo, nil
}

// bySuperblocks decides between putting together and making.
func (a Array) bySuperblocks(look Look, nodes []string, stop string) (State, Act, error) {
	var ours, lost []string
	uuid := a.uuid()
	for i, n := range nodes {
		there, err := contentOn(look, n)
		if err != nil {
			return unresolved, nil, err
		}
		if there == "" {
			continue
		}
		out, err := look.Ask(Query{Program: "mdadm", Args: []string{"--examine", "--export", n}})
		var p *ProgramError
		if err != nil && !(errors.As(err, &p) && p.Code == 1) { // 1: no superblock
			return unresolved, nil, err
		}
		told := exported(out)
		if a.There && len(ours) == 0 && a.named(told) {
			uuid = told["MD_UUID"] // it was somebody else's, and used as it was
		}
		if told["MD_UUID"] == uuid {
			ours = append(ours, n)
			continue
		}
		lost = append(lost, there+" on "+a.Devices[i])
	}
	switch {
	case a.There && len(ours) > 0 || len(ours) == len(a.Devices):
		return NotSo, assemble{a, ours, uuid, stop}, nil
	case a.There:
		return unresolved, nil, errors.New("none of its devices has its superblock")
	}
	return NotSo, makeArray{a, nodes, stop, lost}, nil
}

// named says whether what mdadm tells of an array, or of a superblock, is about this one. Not
// every format of superblocks has names, and options may give another.
func (a Array) named(told map[string]string) bool {
	return bareName(told["MD_NAME"]) == path.Base(a.Name) || told["MD_UUID"] == a.uuid()
}

// exported reads KEY=VALUE lines, as mdadm --export prints them.
func exported(out []byte) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[key] = value
		}
	}
	return m
}

// bareName is the name of an array without the host that it belongs to.
func bareName(s string) string { return s[strings.LastIndexByte(s, ':')+1:] }

// mdArray is one array of /proc/mdstat.
type mdArray struct {
	name    string // md127
	active  bool
	members []string // by the kernel's names
}

func (m mdArray) node() string { return "/dev/" + m.name }

func (m mdArray) has(node string) bool { return slices.Contains(m.members, path.Base(node)) }

// mdstatLimit bounds /proc/mdstat, in bytes.
const mdstatLimit = 1 << 20

// runningArrays reads /proc/mdstat. There is none before the kernel's module is loaded.
func runningArrays(look Look) ([]mdArray, error) {
	data, err := readFile(look, "/", "/proc/mdstat", mdstatLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseMdstat(string(data)), nil
}

// parseMdstat reads the lines that name an array (kernel, drivers/md/md.c, md_seq_show):
//
//	md127 : active raid1 vdc[1] vdb[0]
//	md126 : inactive vdd[1](S)
func parseMdstat(text string) []mdArray {
	var list []mdArray
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != ":" || !strings.HasPrefix(f[0], "md") {
			continue
		}
		a := mdArray{name: f[0], active: f[2] == "active"}
		for _, word := range f[3:] {
			if member, _, ok := strings.Cut(word, "["); ok {
				a.members = append(a.members, member)
			}
		}
		list = append(list, a)
	}
	return list
}

// makeArray is Ignition's run of mdadm.
type makeArray struct {
	Array
	nodes []string
	stop  string // what is half put together
	lost  []string
}

func (m makeArray) String() string {
	return fmt.Sprintf("make the RAID array %s on %s", m.Device(), strings.Join(m.nodes, ", "))
}

// Effect is what the devices hold: mdadm is not asked to spare it.
func (m makeArray) Effect() (Effect, []string) {
	if len(m.lost) > 0 {
		return Destroys, m.lost
	}
	return Makes, nil
}

func (m makeArray) argv() []string {
	argv := []string{
		"mdadm", "--create", m.Name, "--force", "--run", "--homehost", "any",
		"--level", m.Level, "--raid-devices", strconv.Itoa(len(m.nodes) - m.Spares),
	}
	if m.Spares > 0 {
		argv = append(argv, "--spare-devices", strconv.Itoa(m.Spares))
	}
	argv = append(argv, m.Options...)
	if option(m.Options, "--uuid") == "" && option(m.Options, "-u") == "" {
		argv = append(argv, "--uuid", m.uuid())
	}
	return append(argv, m.nodes...)
}

func (m makeArray) do(ctx context.Context, host *Machine) error {
	if err := host.stopArray(ctx, m.stop); err != nil {
		return err
	}
	return host.mdadm(ctx, m.argv())
}

// assemble puts an array together.
type assemble struct {
	Array
	nodes []string
	uuid  string
	stop  string
}

func (m assemble) String() string {
	return fmt.Sprintf("put the RAID array %s together of %s", m.Device(), strings.Join(m.nodes, ", "))
}

// Effect: its superblocks count how often it was put together.
func (m assemble) Effect() (Effect, []string) { return Changes, nil }

func (m assemble) argv() []string {
	return append([]string{"mdadm", "--assemble", m.Device(), "--run", "--uuid", m.uuid}, m.nodes...)
}

func (m assemble) do(ctx context.Context, host *Machine) error {
	if err := host.stopArray(ctx, m.stop); err != nil {
		return err
	}
	return host.mdadm(ctx, m.argv())
}

func (m *Machine) stopArray(ctx context.Context, node string) error {
	if node == "" {
		return nil
	}
	return m.mdadm(ctx, []string{"mdadm", "--stop", node})
}

// mdadm makes the links in /dev/md itself: udev of an initrd does not always have rules for them,
// and then mdadm would wait for it and go without.
func (m *Machine) mdadm(ctx context.Context, argv []string) error {
	_, _, err := m.run(ctx, Program{Argv: argv, Env: []string{"MDADM_NO_UDEV=1"}})
	return err
}
