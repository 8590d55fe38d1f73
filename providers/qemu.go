package providers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// qemu hands the config over in a firmware device that the guest reads by itself:
//
//	qemu-system-x86_64 -fw_cfg name=opt/org.pilotlight/config,file=config.ign
//
// The name that Ignition uses, opt/com.coreos/config, is read too.
var qemu = Platform{
	Name:  "qemu",
	Docs:  "https://www.qemu.org/docs/master/specs/fw_cfg.html",
	Match: []Marks{{{"class/dmi/id/sys_vendor", "QEMU"}}},
	Config: []Source{
		{"fw_cfg", fwcfg("opt/org.pilotlight/config")},
		{"fw_cfg", fwcfg("opt/com.coreos/config")},
	},
}

const fwcfgDir = "firmware/qemu_fw_cfg"

// fwcfg reads one file of the firmware configuration device, as the kernel's
// qemu_fw_cfg module shows it.
func fwcfg(name string) func(context.Context, Reach) (Answer, error) {
	return func(_ context.Context, r Reach) (Answer, error) {
		sys := r.Sys()
		// Without the module there is nothing to be seen, which is not the same as
		// a device that has no such file.
		if _, err := fs.Stat(sys, fwcfgDir); err != nil {
			return Answer{}, fmt.Errorf("the kernel does not show the device (module qemu_fw_cfg): %w", err)
		}
		data, err := fs.ReadFile(sys, path.Join(fwcfgDir, "by_name", name, "raw"))
		if errors.Is(err, fs.ErrNotExist) {
			return Answer{}, ErrNone
		}
		return Answer{Source: "fw_cfg:" + name, Bytes: data}, err
	}
}
