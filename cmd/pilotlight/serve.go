package main

import (
	"context"
	"flag"
	"net"
	"net/http"
	"time"

	"pilotlight/providers/matchbox"
)

func serveVerb() verb {
	return verb{
		name: "serve", usage: "[--listen ADDRESS] [--raw] DIR", short: "serve configs as matchbox does",
		long: `DIR has matchbox's layout: groups/, profiles/, ignition/, generic/, assets/. It is read at
each request. Like matchbox, /ignition rewrites what it serves as spec 3.4.0 and drops the
pilotlight section (pilotlight wrap carries it through); --raw serves the bytes as they are.
The first line printed says the address, also where the port was 0.

example: pilotlight serve --listen 127.0.0.1:8080 /var/lib/matchbox`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			listen := f.String("listen", "127.0.0.1:8080", "`address` to listen on")
			raw := f.Bool("raw", false, "serve /ignition byte for byte")
			return func(c *call) error {
				dir, err := c.one("DIR")
				if err != nil {
					return err
				}
				if err := isDirectory(dir); err != nil {
					return err
				}
				for _, p := range matchbox.Check(dir, *raw) {
					c.show.note("warning: %v", p.Error())
				}
				l, err := net.Listen("tcp", *listen)
				if err != nil {
					return err
				}
				c.show.line("listening on %s", l.Addr())
				s := &http.Server{
					Handler:           &matchbox.Server{Dir: dir, Raw: *raw, Log: func(line string) { c.show.note("%s", line) }},
					ReadHeaderTimeout: 10 * time.Second,
					IdleTimeout:       time.Minute,
				}
				ended := make(chan error, 1)
				go func() { ended <- s.Serve(l) }()
				select {
				case err := <-ended:
					return err
				case <-c.ctx.Done():
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				return s.Shutdown(ctx)
			}
		},
	}
}
