// Package providers knows where each platform keeps the user's config, and which
// platform a machine is.
//
// A platform is one small file with one literal, a [Platform]; its test is a tape
// of requests and answers. What a provider may reach out to is a [Reach], which is
// handed in: nothing here opens a device or brings a network up by itself.
//
// "There is none" and "it could not be asked" are different things everywhere:
// the first is [ErrNone], and a boot goes on without a config of the user's; the
// second is any other error, and it does not.
package providers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"pilotlight/config/resource"
)

// ErrNone says that the platform was asked, and that there is no config.
var ErrNone = errors.New("no config")

// A Platform is where a machine runs.
type Platform struct {
	Name   string   // as in pilotlight.platform=, ignition.platform.id=, --platform
	Docs   string   // where its own documentation is
	Match  []Marker // exact firmware markers, all of which must be there; none: by name alone
	Config []Source // asked in order; the first that has a config wins
}

// All are the platforms that this version knows.
var All = [...]Platform{file, metal, qemu}

// Named finds a platform by its name.
func Named(name string) (Platform, error) {
	var names []string
	for _, p := range All {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Platform{}, fmt.Errorf("platform %q is not known: this version knows %s, and auto", name, strings.Join(names, ", "))
}

// A Source is one place where a platform may keep a config.
type Source struct {
	What string // for people
	Ask  func(context.Context, Reach) (Answer, error)
}

// An Answer is a config as it came, and where from.
type Answer struct {
	Source string // for people, without secrets
	Bytes  []byte
}

// Reach is what a provider may ask.
type Reach interface {
	// Client fetches by http and https. The first request brings the network up.
	Client() *resource.Client
	// Sys is the kernel's /sys.
	Sys() fs.FS
	// Labels are what this machine calls itself towards a matchbox at host: uuid,
	// mac, serial, hostname, arch, as far as they are known.
	Labels(ctx context.Context, host string) (map[string]string, error)
	// File reads a file of the running system, for the platform of that name.
	File() (Answer, error)
}

// UserConfig asks the platform's sources in order. ErrNone when each of them has none.
func (p Platform) UserConfig(ctx context.Context, r Reach) (Answer, error) {
	for _, s := range p.Config {
		a, err := s.Ask(ctx, r)
		switch {
		case errors.Is(err, ErrNone):
			continue
		case err != nil:
			return Answer{}, fmt.Errorf("platform %s: %s: %w", p.Name, s.What, err)
		case len(a.Bytes) == 0:
			continue // an empty answer is how several platforms say "none"
		}
		return a, nil
	}
	return Answer{}, fmt.Errorf("platform %s: %w", p.Name, ErrNone)
}
