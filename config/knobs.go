package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"pilotlight/config/resource"
)

// DefaultDeadline is how long the engine may wait for a config, its children
// and the network that they need.
const DefaultDeadline = 5 * time.Minute

// Knobs are the settings that are needed before a config is known. They come
// from the kernel command line and, where it is silent, from the system
// credential of the same name; [Knobs.Or] fills in what a config says.
//
//	pilotlight=no                 do nothing at all in this boot
//	pilotlight.platform=ID|auto   else ignition.platform.id=
//	pilotlight.media=yes          a drive's label may say which platform this is; an argument only
//	pilotlight.config.url=URL     else ignition.config.url=
//	pilotlight.config             the config itself; a credential only
//	pilotlight.run=               a value of policy.run
//	pilotlight.onfailure=         a value of policy.onFailure
//	pilotlight.deadline=          30, 90s, 5min, 1h 30min: 1 s to 24 h
//	pilotlight.proxy=URL          for http and https
//	pilotlight.firstboot=yes      provision anew, whatever the record says
//	pilotlight.strict=yes         as Options.Strict
//	pilotlight.debug=yes
//
// The zero value of a field means that nobody said it.
type Knobs struct {
	// Off is pilotlight=no.
	Off bool
	// Platform is the platform's name; "" to detect it.
	Platform string
	// Media allows that a drive's label says which platform this is, where the firmware
	// does not. It is the image's word: an argument, or else a base fragment, see
	// OrMedia; nil if neither said it. No credential can say it, since whoever can plug
	// a drive into a machine of somebody else's image may well hand it credentials.
	Media *bool
	// ConfigURL is where the config is, instead of where the platform has it.
	ConfigURL resource.URL
	// Config is the config itself, nil if it was not given.
	Config *resource.Secret
	// Run and OnFailure overrule the policy of any config.
	Run       Run
	OnFailure OnFailure
	// Deadline is 0 or 1 s to 24 h.
	Deadline time.Duration
	// Proxy is asked for http and https alike, in place of a config's.
	Proxy resource.URL
	// FirstBoot overrules a record that is unreadable or of another disk.
	FirstBoot bool
	Strict    bool
	Debug     bool
}

// DeadlineOrDefault returns Deadline; not said, DefaultDeadline.
func (k Knobs) DeadlineOrDefault() time.Duration {
	if k.Deadline == 0 {
		return DefaultDeadline
	}
	return k.Deadline
}

// Or returns the knobs with Run and OnFailure from a config where nobody said
// them. Call it with the base fragments first, then with the record's config:
// the earlier one wins.
func (k Knobs) Or(c Config) Knobs {
	k.Run = orDefault(k.Run, c.Pilotlight.Policy.Run)
	k.OnFailure = orDefault(k.OnFailure, c.Pilotlight.Policy.OnFailure)
	return k
}

// OrMedia returns the knobs with Media as a base fragment of the image says it, where
// no argument did; nil says nothing.
func (k Knobs) OrMedia(base *bool) Knobs {
	if k.Media == nil {
		k.Media = base
	}
	return k
}

// MediaOrDefault returns Media; not said, false.
func (k Knobs) MediaOrDefault() bool { return k.Media != nil && *k.Media }

// Argument returns the value of the last argument of that name on a kernel command
// line; "" if there is none, or one without a value.
func Argument(cmdline, name string) string {
	value := ""
	for _, a := range arguments(cmdline) {
		if a.key == name {
			value = a.value
		}
	}
	return value
}

// KnobError is a kernel argument or a system credential that cannot be used.
// It does not hold its value.
type KnobError struct {
	Credential bool   // a system credential, else a kernel argument
	Name       string // as in pilotlight.deadline
	Err        error
}

// Error returns what it is, its name, and what is wrong.
func (e *KnobError) Error() string {
	if e.Credential {
		return fmt.Sprintf("system credential %s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("kernel argument %s: %v", e.Name, e.Err)
}

// Unwrap returns what is wrong.
func (e *KnobError) Unwrap() error { return e.Err }

// Bounds of credentials: systemd itself takes a megabyte in all.
const (
	maxKnob   = 4 << 10
	maxConfig = MaxBytes
)

// knobPrefix begins the name of every knob but pilotlight=no itself.
const knobPrefix = "pilotlight."

// ReadKnobs reads the knobs from a kernel command line (/proc/cmdline) and the
// directory of system credentials (/run/credentials/@system), which may be nil
// if there is none. Of an argument that stands several times the last counts.
// An argument of Ignition's counts where ours is not on the command line, and
// before a credential. A
// line break at the end of a credential is dropped, except of the config.
//
// It fails with a joined list of *KnobError, one for each value that cannot be
// used, and for each kernel argument pilotlight.* that it does not know. With
// pilotlight=no it does not fail: the way out must not depend on the rest.
func ReadKnobs(cmdline string, credentials fs.FS) (Knobs, error) {
	r := knobReader{arguments: map[string]argument{}, credentials: credentials}
	for _, a := range arguments(cmdline) {
		r.arguments[a.key] = a
	}
	var k Knobs
	enabled := true
	r.flag("pilotlight", &enabled)
	k.Off = !enabled
	r.read("pilotlight.run", word(&k.Run, RunFirstBoot))
	r.read("pilotlight.onfailure", word(&k.OnFailure, OnFailureEmergency, OnFailureReboot, OnFailurePoweroff))
	r.read("pilotlight.deadline", func(s string) (err error) { k.Deadline, err = span(s); return err })
	r.read("pilotlight.proxy", func(s string) (err error) { k.Proxy, err = proxy(s); return err })
	r.flag("pilotlight.firstboot", &k.FirstBoot)
	r.flag("pilotlight.strict", &k.Strict)
	r.flag("pilotlight.debug", &k.Debug)
	r.read("pilotlight.platform", func(s string) (err error) { k.Platform, err = platformName(s); return err }, "ignition.platform.id")
	r.read("pilotlight.config.url", func(s string) (err error) { k.ConfigURL, err = configURL(s); return err }, "ignition.config.url")
	r.media(&k)
	r.config(&k)
	r.unknown(cmdline)
	if k.Off {
		return Knobs{Off: true}, nil
	}
	if err := errors.Join(r.faults...); err != nil {
		return Knobs{}, err
	}
	return k, nil
}

type knobReader struct {
	arguments   map[string]argument
	credentials fs.FS
	names       []string // of the knobs that were asked for
	faults      []error
}

// read looks for a knob on the command line, there also under other names, and
// then among the credentials.
func (r *knobReader) read(name string, use func(string) error, others ...string) {
	r.names = append(r.names, name)
	for _, n := range append([]string{name}, others...) {
		a, there := r.arguments[n]
		if !there {
			continue
		}
		err := errors.New("has no value")
		if a.hasValue {
			err = use(a.value)
		}
		if err != nil {
			r.fault(false, n, err)
		}
		return
	}
	if raw, there := r.credential(name, maxKnob); there {
		if err := use(strings.TrimRight(raw, "\r\n")); err != nil {
			r.fault(true, name, err)
		}
	}
}

// flag looks for a knob that is a boolean, and as an argument alone is true.
func (r *knobReader) flag(name string, to *bool) {
	if a, there := r.arguments[name]; there && !a.hasValue {
		r.names = append(r.names, name)
		*to = true
		return
	}
	r.read(name, func(s string) error { return truth(s, to) })
}

// credential returns a credential, and whether there is one. Not to be able to
// look is a fault.
func (r *knobReader) credential(name string, most int64) (string, bool) {
	if r.credentials == nil {
		return "", false
	}
	f, err := r.credentials.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	if err != nil {
		r.fault(true, name, err)
		return "", false
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("has more than %d bytes", most)
	}
	if err != nil {
		r.fault(true, name, err)
		return "", false
	}
	return string(raw), true
}

func (r *knobReader) config(k *Knobs) {
	const name = knobPrefix + "config"
	r.names = append(r.names, name)
	if _, there := r.arguments[name]; there {
		r.fault(false, name, errors.New("a config is given as a system credential, since every program can read the kernel's arguments (its address is pilotlight.config.url)"))
	}
	if raw, there := r.credential(name, maxConfig); there {
		s := resource.NewSecret(raw)
		k.Config = &s
	}
}

func (r *knobReader) media(k *Knobs) {
	const name = knobPrefix + "media"
	var yes bool
	r.flag("pilotlight.media", &yes)
	if _, there := r.arguments[name]; there {
		k.Media = &yes
		return
	}
	if r.credentials == nil {
		return
	}
	if _, err := fs.Stat(r.credentials, name); err == nil {
		r.fault(true, name, errors.New("is for the image to say: a kernel argument or a base fragment"))
	}
}

// unknown reports arguments of ours that nothing asked for: a misspelt one must
// not go unnoticed.
func (r *knobReader) unknown(cmdline string) {
	told := map[string]bool{}
	for _, name := range r.names {
		told[name] = true
	}
	for _, a := range arguments(cmdline) {
		if !strings.HasPrefix(a.key, knobPrefix) || told[a.key] {
			continue
		}
		told[a.key] = true
		err := errors.New("is not known")
		if name := nearest(a.key, r.names); strings.HasPrefix(name, knobPrefix) {
			err = fmt.Errorf("is not known (did you mean %s?)", name)
		}
		r.fault(false, quoted(a.key), err)
	}
}

func (r *knobReader) fault(credential bool, name string, err error) {
	r.faults = append(r.faults, &KnobError{Credential: credential, Name: name, Err: err})
}

// truth reads a boolean as systemd does.
func truth(s string, to *bool) error {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		*to = true
	case "0", "no", "n", "false", "f", "off":
		*to = false
	default:
		return errors.New(`is neither "yes" nor "no"`)
	}
	return nil
}

func word[T ~string](to *T, allowed ...T) func(string) error {
	return func(s string) error {
		words := make([]string, len(allowed))
		for i, a := range allowed {
			if T(s) == a {
				*to = a
				return nil
			}
			words[i] = string(a)
		}
		if T(s) == "every-boot" {
			return errors.New(`"every-boot" is not built in this version of pilotlight`)
		}
		return fmt.Errorf("is not one of %s", strings.Join(words, ", "))
	}
}

// platformName takes what can be a platform's name; whether there is such a
// platform is not known here. "auto" is detection, as is silence.
func platformName(s string) (string, error) {
	if s == "auto" {
		return "", nil
	}
	if !madeOf(s, "abcdefghijklmnopqrstuvwxyz"+digits+"-", 64) {
		return "", errors.New(`is not the name of a platform (lower-case letters, digits and "-"; "auto" to detect it)`)
	}
	return s, nil
}

func configURL(s string) (resource.URL, error) {
	u, err := resource.ParseURL(s)
	if err == nil && u.IsZero() {
		err = errors.New("has no value")
	}
	return u, err
}

func proxy(s string) (resource.URL, error) {
	u, err := configURL(s)
	if err == nil && !u.TakesHeaders() {
		return resource.URL{}, errors.New("is not the URL of a proxy (http://HOST:PORT)")
	}
	return u, err
}

// span reads a time span as systemd.time(7) has it, with the units that make
// sense here; a number alone is seconds.
func span(s string) (time.Duration, error) {
	bad := errors.New("is not a time span (as in 90s, 5min or 1h 30min; 1 s to 24 h)")
	units := map[string]time.Duration{
		"": time.Second, "s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
		"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
		"h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour,
	}
	const most = 24 * time.Hour
	var total time.Duration
	for s = strings.TrimSpace(s); s != ""; {
		number := s[:len(s)-len(strings.TrimLeft(s, digits))]
		s = strings.TrimLeft(s[len(number):], " ")
		name := s[:len(s)-len(strings.TrimLeft(s, letters))]
		s = strings.TrimLeft(s[len(name):], " ")
		n, err := strconv.ParseUint(number, 10, 32)
		unit, known := units[name]
		if err != nil || !known || time.Duration(n) > most/unit {
			return 0, bad
		}
		total += time.Duration(n) * unit
		if total > most {
			return 0, bad
		}
	}
	if total < time.Second {
		return 0, bad
	}
	return total, nil
}
