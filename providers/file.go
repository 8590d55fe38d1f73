package providers

import "context"

// file reads the config from a file of the running system: for tests, and for
// images that carry their config.
var file = Platform{
	Name: "file",
	Docs: "IGNITION_CONFIG_FILE names the file; without it, config.ign in the working directory",
	Config: []Source{{"file", func(_ context.Context, r Reach) (Answer, error) {
		return r.File()
	}}},
}
