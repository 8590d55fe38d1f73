package initrd

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Joint act is one of many small ones of which each would have to wait for the disk. A
// host that is [Assembling] does several with one such wait.
type Joint interface {
	Act
	// Weight is how many bytes the act has to write, and whether it can be done
	// together with others at all.
	Weight() (bytes int64, joint bool)
}

// An Assembling host does acts together.
type Assembling interface {
	// Assemble does acts of steps that touch nothing in common, in their order, and gives
	// an error for each. After the first that fails nothing is done any more: the errors of
	// those that come after it are errUnreached.
	Assemble(context.Context, []Joint) []error
}

// A crowd is what Run does together: steps that were looked at, one after the other, and
// whose deeds are all joint. Between them nothing else was done, so that the order of deeds
// is that of the list.
type crowd struct {
	ctx   context.Context
	host  Host
	ended func(int, Outcome)

	list  []member
	bytes int64
}

type member struct {
	at   int
	step Step
	o    Outcome
	act  Joint
}

// takes says whether a deed is done with the others, later.
func (c *crowd) takes(at int, step Step, o Outcome, act Act) bool {
	joint, ok := act.(Joint)
	if !ok {
		return false
	}
	if _, ok := c.host.(Assembling); !ok {
		return false
	}
	bytes, ok := joint.Weight()
	if !ok || bytes > heaviestTogether {
		return false
	}
	c.list = append(c.list, member{at, step, o, joint})
	if c.bytes += bytes; c.bytes > heaviestTogether || len(c.list) >= mostTogether {
		c.do()
	}
	return true
}

// has says whether a step is among those that are still to be done.
func (c *crowd) has(step int) bool {
	return len(c.list) > 0 && step >= c.list[0].at &&
		slices.ContainsFunc(c.list, func(m member) bool { return m.at == step })
}

// do does them, looks at each again, and tells.
func (c *crowd) do() {
	if len(c.list) == 0 {
		return
	}
	list := c.list
	c.list, c.bytes = nil, 0
	begin := time.Now()
	acts := make([]Joint, len(list))
	for i, m := range list {
		acts[i] = m.act
	}
	errs := c.host.(Assembling).Assemble(c.ctx, acts)
	share := time.Since(begin) / time.Duration(len(list))
	for i, m := range list {
		begin := time.Now()
		switch {
		case errs[i] == errUnreached:
			c.ended(m.at, Outcome{})
			continue
		case errs[i] != nil:
			m.o.Err = errs[i]
		default:
			m.o = judged(c.ctx, c.host, m.step, m.o)
		}
		m.o.Took += share + time.Since(begin)
		c.ended(m.at, m.o)
	}
}

// errUnreached says of an act that it was not begun, or was taken back, because an earlier
// one failed.
var errUnreached = errors.New("not reached")

// What is done together at most: each draft holds a descriptor, and what is written waits
// in memory.
const (
	mostTogether     = 256
	heaviestTogether = 8 << 20
)

// A writing is a file whose bytes are written, and which has no name yet.
type writing struct {
	of    writeFile
	draft *draft
	dev   uint64 // its file system
	may   over
}

// Assemble writes all files as drafts, waits once until they are on their disks, and gives
// them their names then. So a file has its name only when its bytes are safe, as with one
// file alone (see draft.publish), at a hundredth of the waiting.
func (m *Machine) Assemble(ctx context.Context, acts []Joint) []error {
	m.anew()
	defer m.anew()
	errs := make([]error, len(acts))
	for i := range errs {
		errs[i] = errUnreached
	}
	dirs := newParents(m)
	defer dirs.close()
	// A directory may have to be made, so they are resolved in order; the drafts in them
	// have no name, and are in nobody's way.
	var failed error
	for i, act := range acts {
		w := act.(writeFile)
		if _, _, failed = dirs.of(w.Root, w.Path); failed != nil {
			acts = acts[:i]
			break
		}
	}
	list, err := drafted(ctx, m, dirs, acts)
	defer func() {
		for _, w := range list {
			w.draft.discard()
		}
	}()
	if err != nil {
		failed = err
	}
	// What came before the one that failed is done.
	if err := arrived(list); err != nil {
		errs[0] = err
		return errs
	}
	for i, w := range list {
		if err := w.finish(m); err != nil {
			errs[i] = err
			return errs
		}
		errs[i] = nil
	}
	if failed != nil {
		errs[len(list)] = failed
	}
	return errs
}

// drafted writes drafts, on as many processors as there are, and gives those that come
// before the first that fails, with its error.
func drafted(ctx context.Context, m *Machine, dirs *parents, acts []Joint) ([]*writing, error) {
	list, errs := make([]*writing, len(acts)), make([]error, len(acts))
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(acts); i = int(next.Add(1)) - 1 {
			list[i], errs[i] = acts[i].(writeFile).begin(ctx, m, dirs)
		}
	}
	// To begin a goroutine takes about as long as to write a few files.
	const worthwhile = 16
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(acts)/worthwhile) - 1 {
		wait.Go(work)
	}
	work()
	wait.Wait()
	for i, err := range errs {
		if err == nil {
			continue
		}
		for _, w := range list[i:] {
			if w != nil {
				w.draft.discard()
			}
		}
		return list[:i], err
	}
	return list, nil
}

// arrived waits until the drafts are on their disks: one by itself, several with their whole
// file systems.
func arrived(list []*writing) error {
	if len(list) == 1 {
		return list[0].draft.sync()
	}
	synced := map[uint64]bool{}
	for _, w := range list {
		if synced[w.dev] {
			continue
		}
		synced[w.dev] = true
		// By the first of the drafts: what goes wrong with any byte that came after it is
		// an error of this call (syncfs(2)).
		if err := unix.Syncfs(int(w.draft.handle)); err != nil {
			return &fs.PathError{Op: "sync", Path: w.of.Path, Err: err}
		}
	}
	return nil
}

// parents are the directories that a deed, or several together, put something in. They are
// held open as long as that takes, and no longer.
type parents struct {
	m        *Machine
	uid, gid int // whom this process makes files for
	open     map[string]parent
}

type parent struct {
	fd  int
	dev uint64
	gid int // whom what is made in it may belong to instead
	// setgid says that it does so where the config says nothing.
	setgid bool
}

func newParents(m *Machine) *parents {
	return &parents{m: m, uid: unix.Geteuid(), gid: unix.Getegid(), open: map[string]parent{}}
}

// gives says whether a file that is made in a directory belongs to these by itself. With
// setgid on the directory, or on a file system that is mounted so (ext4(5), grpid), its
// group is that of the directory.
func (p *parents) gives(at parent, uid, gid int) bool {
	return p.uid == uid && p.gid == gid && at.gid == gid
}

// of gives the directory of a path and its last component. What is missing is made.
func (p *parents) of(root, name string) (dir parent, base string, err error) {
	where, base := path.Split(path.Clean("/" + name))
	key := root + "\x00" + where
	if at, ok := p.open[key]; ok && base != "" {
		return at, base, nil
	}
	t, err := p.m.tree(root)
	if err != nil {
		return parent{}, "", err
	}
	fd, base, err := t.parent(name, true)
	if err != nil {
		return parent{}, "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return parent{}, "", &fs.PathError{Op: "stat", Path: where, Err: err}
	}
	at := parent{fd, st.Dev, int(st.Gid), st.Mode&unix.S_ISGID != 0}
	p.open[key] = at
	return at, base, nil
}

func (p *parents) close() {
	for _, at := range p.open {
		unix.Close(at.fd)
	}
}
