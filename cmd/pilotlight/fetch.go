package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
)

func fetchVerb() verb {
	return verb{
		name: "fetch", usage: "--platform ID --output FILE", short: "get this machine's config, as it is",
		long: `Exit 1 when there is none. What the config pulls in is not fetched.

example: pilotlight fetch --platform metal --url http://boot.example/ignition --output -`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			platform := f.String("platform", "auto", "`name` of the platform")
			output := f.String("output", "-", "`file` to write, - for standard output")
			from := f.String("url", "", "`address` of the config, as pilotlight.config.url= gives it")
			deadline := f.Duration("deadline", config.DefaultDeadline, "give up after this `time`")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				k := config.Knobs{Platform: *platform}
				var err error
				if k.ConfigURL, err = resource.ParseURL(*from); err != nil {
					return misused("--url: %v", err)
				}
				ctx, cancel := context.WithTimeoutCause(c.ctx, *deadline, fmt.Errorf("the deadline of %s is over", *deadline))
				defer cancel()
				_, a, err := userConfig(ctx, k, newOutward(&initrd.Network{}, k, c.show.tell))
				if err != nil {
					return err
				}
				// It may hold secrets.
				return c.writeTo(*output, 0o600, bytesTo(a.Bytes))
			}
		},
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
