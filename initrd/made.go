package initrd

// MadeAnew wishes for another step only where the target's /etc does not outlive
// a boot: what lies on a persistent /etc was made on the first boot and is the
// machine's own since.
type MadeAnew struct {
	Root string
	Step Step
}

func (w MadeAnew) String() string { return w.Step.String() }

// Touches is what the inner step touches.
func (w MadeAnew) Touches() []string { return w.Step.Touches() }

// Reads is what the inner step reads.
func (w MadeAnew) Reads() []string {
	if r, ok := w.Step.(Reading); ok {
		return r.Reads()
	}
	return nil
}

// Resolve looks where /etc lies first.
func (w MadeAnew) Resolve(look Look) (State, Act, error) {
	volatile, err := look.Volatile(w.Root, "/etc")
	switch {
	case err != nil:
		return unresolved, nil, err
	case !volatile:
		return So, nil, nil
	}
	return w.Step.Resolve(look)
}

// Lingers says what the inner step says.
func (w MadeAnew) Lingers() bool {
	l, ok := w.Step.(Lingering)
	return ok && l.Lingers()
}
