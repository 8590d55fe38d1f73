package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/providers"
)

// The methods that begin with a capital make it a providers.Reach.

func (o *outward) Client() *resource.Client { return o.client }

func (o *outward) Metadata() *resource.Client {
	c := *o.client
	// No proxy, and nothing that a certificate is needed for.
	c.Transport = o.network.Transport(resource.TransportOptions{})
	return &c
}

func (o *outward) Argument(name string) (string, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	return config.Argument(string(cmdline), name), err
}

func (o *outward) Drives(ctx context.Context) ([]providers.Drive, error) {
	found, err := initrd.Drives(ctx)
	var list []providers.Drive
	for _, d := range found {
		list = append(list, providers.Drive(d))
	}
	return list, err
}

func (o *outward) Open(d providers.Drive, use func(fs.FS) error) error {
	return initrd.OpenDrive(initrd.Drive(d), use)
}

func (o *outward) Sys() fs.FS { return os.DirFS("/sys") }

func (o *outward) File() (providers.Answer, error) {
	name := os.Getenv("IGNITION_CONFIG_FILE")
	if name == "" {
		name = "config.ign"
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return providers.Answer{}, fmt.Errorf("%s: %w", name, providers.ErrNone)
	}
	return providers.Answer{Source: name, Bytes: data}, err
}

// placeholders are what firmware says when nobody gave it a value.
var placeholders = []string{"", "none", "not specified", "to be filled by o.e.m.", "default string", "system serial number", "0", "0123456789", "not applicable"}

func (o *outward) Labels(ctx context.Context, host string) (map[string]string, error) {
	labels := map[string]string{}
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64", "386": "i386"}[runtime.GOARCH]
	if arch != "" {
		labels["arch"] = arch
	}
	for label, name := range map[string]string{"uuid": "product_uuid", "serial": "product_serial"} {
		data, err := os.ReadFile(filepath.Join("/sys/class/dmi/id", name))
		if err != nil {
			continue // not every firmware has it, and a matchbox does without
		}
		value, _, _ := strings.Cut(string(data), "\n")
		value = strings.TrimSpace(value)
		if label == "uuid" {
			value = strings.ToLower(value)
			if strings.Trim(value, "0-") == "" || strings.Trim(value, "f-") == "" {
				continue
			}
		}
		if !slices.Contains(placeholders, strings.ToLower(value)) {
			labels[label] = value
		}
	}
	mac, err := o.mac(ctx, host)
	if err != nil {
		return nil, err
	}
	if mac != "" {
		labels["mac"] = mac
	}
	// The kernel's word for "no name yet".
	if name, err := os.Hostname(); err == nil && name != "" && name != "(none)" && name != "localhost" && name != "initrd" {
		labels["hostname"] = name
	}
	return labels, nil
}

// mac is the address of the interface that we were started from (BOOTIF=, as
// PXELINUX and iPXE write it), else of the one that reaches the server.
func (o *outward) mac(ctx context.Context, host string) (string, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(string(cmdline)) {
		if v, ok := strings.CutPrefix(word, "BOOTIF="); ok {
			// One byte of hardware type, then the address, with hyphens.
			if parts := strings.Split(v, "-"); len(parts) == 7 {
				return strings.ToLower(strings.Join(parts[1:], ":")), nil
			}
		}
	}
	return o.network.MACTowards(ctx, host)
}
