package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Mapper looks up an active device-mapper device by its name, as in /dev/mapper/NAME.
// It gives its node (/dev/dm-0), its UUID (CRYPT-VERITY-… for one that
// systemd-veritysetup opened; "" if it was given none) and the kernel's names of the
// devices that it is made upon (vda2). A *LookError wraps fs.ErrNotExist if there is no
// such device.
func Mapper(sys fs.FS, name string) (node, uuid string, slaves []string, err error) {
	s := System{Sys: sys, Dev: "/dev"}
	device, err := dmName(sys, name)
	if err != nil {
		return "", "", nil, &LookError{"/dev/mapper/" + name, err}
	}
	data, err := s.raw("block/" + device + "/dm/uuid")
	if err != nil {
		return "", "", nil, err
	}
	slaves, err = s.list("block/" + device + "/slaves")
	if err != nil {
		return "", "", nil, err
	}
	return s.node(device), strings.TrimSuffix(string(data), "\n"), slaves, nil
}

// dmName gives the kernel's name, such as dm-0, of a device-mapper device.
func dmName(sys fs.FS, name string) (string, error) {
	s := System{Sys: sys}
	devices, err := s.list("block")
	if err != nil {
		return "", err
	}
	for _, device := range devices {
		if !numbered(device, "dm-") {
			continue
		}
		data, err := s.raw("block/" + device + "/dm/name")
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken down since it was listed
		}
		if err != nil {
			return "", err
		}
		if strings.TrimSuffix(string(data), "\n") == name {
			return device, nil
		}
	}
	return "", fmt.Errorf("no device-mapper device of that name: %w", fs.ErrNotExist)
}
