package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// loaderPartition is where systemd-boot and systemd-stub say which partition they were
// loaded from (Boot Loader Interface, https://systemd.io/BOOT_LOADER_INTERFACE).
const loaderPartition = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// maxVariable bounds what is read of a firmware variable that holds 36 characters.
const maxVariable = 4096

var (
	// ErrNotSet: the firmware does not say which partition we came from, because this
	// machine has no EFI, was booted from the network, or by another boot loader.
	ErrNotSet = errors.New("no boot partition is known to the firmware")
	// ErrNoVariables: the machine has EFI, but efivarfs is not mounted.
	ErrNoVariables = errors.New("no EFI variables: efivarfs is not mounted")
)

// BootPartition gives the UUID of the partition that we were booted from, an ESP or
// XBOOTLDR. efivars is /sys/firmware/efi/efivars. ErrNotSet if there is none, and if the
// directory is not there, as on a machine without EFI; ErrNoVariables if it is empty.
func BootPartition(efivars fs.FS) (GUID, error) {
	f, err := efivars.Open(loaderPartition)
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := fs.ReadDir(efivars, ".")
		if err == nil && len(entries) == 0 {
			return GUID{}, ErrNoVariables
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return GUID{}, ErrNotSet
		}
		return GUID{}, lookError("EFI variables", err)
	}
	if err != nil {
		return GUID{}, lookError("EFI variable "+loaderPartition, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxVariable))
	if err != nil {
		return GUID{}, lookError("EFI variable "+loaderPartition, err)
	}
	g, err := partitionVariable(data)
	if err != nil {
		return GUID{}, &LookError{"EFI variable " + loaderPartition, err}
	}
	return g, nil
}

// partitionVariable reads a file of efivarfs: four bytes of attributes, then the value,
// here text in UTF-16LE with a NUL at its end.
func partitionVariable(data []byte) (GUID, error) {
	const attributes = 4
	if len(data) < attributes || len(data)%2 != 0 {
		return GUID{}, fmt.Errorf("%d bytes are no text", len(data))
	}
	g, err := ParseGUID(text16(data[attributes:]))
	if err == nil && g.IsZero() {
		err = errors.New("GUID is zero")
	}
	return g, err
}

// BootDisk gives the partition that we were booted from and the disk that it is on: the
// disk that a config calls "boot". ErrNotSet and ErrNoVariables as BootPartition; a
// *CountError if the partition is on no disk or on several. A damaged table on another
// disk does not matter, but any disk that cannot be read is a *ScanError.
func (s System) BootDisk() (Found, error) {
	efivars, err := fs.Sub(s.Sys, "firmware/efi/efivars")
	if err != nil {
		return Found{}, lookError("EFI variables", err)
	}
	g, err := BootPartition(efivars)
	if err != nil {
		return Found{}, err
	}
	found, err := s.PartitionByUUID(g)
	var scan *ScanError
	if err != nil && (!errors.As(err, &scan) || len(found) == 0 || !scan.DamagedOnly()) {
		return Found{}, err
	}
	return Only("boot partition "+g.String(), found)
}
