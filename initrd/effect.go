package initrd

// An Effect is what a deed does to what is there already.
type Effect int

// The effects, from the harmless one on.
const (
	Makes    Effect = iota // what was not there
	Changes                // what is there: a file gets other contents, a table another entry
	Destroys               // what is there, and is more than the thing that is changed
)

func (e Effect) String() string {
	switch e {
	case Makes:
		return "makes"
	case Changes:
		return "changes"
	case Destroys:
		return "destroys"
	}
	return "unknown"
}

// An Affecting act says what it does to what is there. One that does not say so
// makes something new.
type Affecting interface {
	// Effect is the gravest of the act's effects; with Destroys, lost names what
	// is lost, in words for people.
	Effect() (effect Effect, lost []string)
}

// before is what has the name that an act is about.
type before struct {
	there bool
	dir   bool
}

func was(e Entry) before { return before{there: true, dir: e.Mode.IsDir()} }

// replaced is the effect of putting something else in its place.
func (b before) replaced(name string) (Effect, []string) {
	switch {
	case b.dir:
		return Destroys, []string{"the directory " + name + " with all that is in it"}
	case b.there:
		return Changes, nil
	}
	return Makes, nil
}
