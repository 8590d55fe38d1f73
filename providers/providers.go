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
	Match  []Marks  // firmware markers, one list of which must be there; none: by name alone
	Config []Source // asked in order; the first that has a config wins
}

// All are the platforms that this version knows.
var All = [...]Platform{aws, file, gcp, metal, nocloud, qemu}

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
	// Metadata fetches from an address that only the machine's own cloud has. It is as
	// Client, with a Transport of its own that uses no proxy: a proxy would ask another
	// machine's cloud, or its own.
	Metadata() *resource.Client
	// Argument is the value of the last kernel argument of that name, "" if there is none.
	Argument(name string) (string, error)
	// Drives are the labelled file systems of all disks and their partitions, when udev
	// is done with what it knows of by now.
	Drives(context.Context) ([]Drive, error)
	// Open mounts a drive for as long as use runs: read-only, where nobody else sees it.
	// No symbolic link is followed there, and only regular files can be opened.
	Open(d Drive, use func(root fs.FS) error) error
	// Sys is the kernel's /sys.
	Sys() fs.FS
	// Labels are what this machine calls itself towards a matchbox at host: uuid,
	// mac, serial, hostname, arch, as far as they are known.
	Labels(ctx context.Context, host string) (map[string]string, error)
	// File reads a file of the running system, for the platform of that name.
	File() (Answer, error)
}

// UserConfig asks the platform's sources in order. ErrNone when each of them has
// none, with what they say of it.
func (p Platform) UserConfig(ctx context.Context, r Reach) (Answer, error) {
	end := ErrNone
	for _, s := range p.Config {
		a, err := s.Ask(ctx, r)
		switch {
		case errors.Is(err, ErrNone):
			if why, ok := errors.AsType[none](err); ok {
				end = why
			}
			continue
		case err != nil:
			return Answer{}, fmt.Errorf("platform %s: %s: %w", p.Name, s.What, err)
		case len(a.Bytes) == 0:
			continue // an empty answer is how several platforms say "none"
		}
		return a, nil
	}
	return Answer{}, fmt.Errorf("platform %s: %w", p.Name, end)
}

// none is an ErrNone that says why.
type none string

func (n none) Error() string { return ErrNone.Error() + ": " + string(n) }
func (n none) Unwrap() error { return ErrNone }
