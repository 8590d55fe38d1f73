package lab

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// args is QEMU's argument vector. Credentials are written to files below run, since arguments can be read by everybody on the machine.
func (g Guest) args(b Boot, run string) ([]string, error) {
	memory, cpus := g.MemoryMiB, g.CPUs
	if memory == 0 {
		memory = 2048
	}
	if cpus == 0 {
		cpus = 2
	}
	args := append(g.Accel.args(),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// What is switched off would have udev load drivers that no guest here uses.
		"-machine", "q35,sata=off,smbus=off", "-m", strconv.Itoa(memory), "-smp", strconv.Itoa(cpus),
		// The order of -serial is the guest's ttyS0, ttyS1.
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "file,id=witness,path="+comma(filepath.Join(run, "witness")), "-serial", "chardev:witness",
		// wait=on: no event is lost, since nothing runs before there is a reader.
		"-chardev", "socket,id=qmp,server=on,wait=on,path="+comma(filepath.Join(run, "qmp.sock")), "-mon", "chardev=qmp,mode=control",
	)
	clock := "utc"
	if !b.Clock.IsZero() {
		clock = b.Clock.UTC().Format("2006-01-02T15:04:05")
	}
	args = append(args, "-rtc", "base="+clock)
	if g.UEFI {
		code, _, err := firmware()
		if err != nil {
			return nil, err
		}
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code,
			"-drive", "if=pflash,unit=1,format=raw,cache=unsafe,file="+comma(filepath.Join(g.Dir, "vars.fd")))
	}
	if g.TPM {
		args = append(args, "-chardev", "socket,id=tpm,path="+comma(filepath.Join(run, "tpm.sock")),
			"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0")
	}
	cache := "unsafe"
	if b.Cut != nil {
		cache = "writeback" // what the guest has flushed must be there after the plug was pulled
	}
	for i, disk := range g.Disks {
		file, format, err := g.disk(disk.Serial)
		if err != nil {
			return nil, err
		}
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=%s,cache=%s,discard=unmap,file=%s", i, format, cache, comma(file)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s,bootindex=%d", i, disk.Serial, i+1))
	}
	if b.Network {
		card := "virtio-net-pci,netdev=net0,romfile="
		if g.MAC != "" {
			card += ",mac=" + g.MAC
		}
		netdev := "user,id=net0"
		if b.Metadata != "" {
			netdev += ",net=169.254.169.0/24,dhcpstart=169.254.169.10,guestfwd=tcp:169.254.169.254:80-cmd:" + comma(b.Relay+" "+b.Metadata)
		}
		args = append(args, "-netdev", netdev, "-device", card)
	} else {
		args = append(args, "-nic", "none")
	}
	if b.Kernel != "" {
		args = append(args, "-kernel", b.Kernel, "-append", b.Append)
		if b.Initrd != "" {
			args = append(args, "-initrd", b.Initrd)
		}
	}
	for _, name := range sortedKeys(b.FwCfg) {
		args = append(args, "-fw_cfg", "name="+comma(name)+",file="+comma(b.FwCfg[name]))
	}
	args = append(args, g.smbios()...)
	for i, name := range sortedKeys(b.Credentials) {
		file := filepath.Join(run, fmt.Sprintf("credential-%d", i))
		text := "io.systemd.credential.binary:" + name + "=" + base64.StdEncoding.EncodeToString(b.Credentials[name])
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "-smbios", "type=11,path="+comma(file))
	}
	return args, nil
}

// smbios are the strings of the firmware. QEMU takes one option for each type.
func (g Guest) smbios() []string {
	types := map[int]map[string]string{1: {}}
	for kind, strings := range g.SMBIOS {
		types[kind] = maps.Clone(strings)
	}
	if g.UUID != "" {
		types[1]["uuid"] = g.UUID
	}
	if g.Serial != "" {
		types[1]["serial"] = g.Serial
	}
	var args []string
	for _, kind := range slices.Sorted(maps.Keys(types)) {
		option := fmt.Sprintf("type=%d", kind)
		for _, name := range sortedKeys(types[kind]) {
			option += "," + name + "=" + comma(types[kind][name])
		}
		if len(types[kind]) > 0 {
			args = append(args, "-smbios", option)
		}
	}
	return args
}

// comma doubles commas: QEMU's option syntax ends a value at a single one.
func comma(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// firmware are Debian's OVMF files without Secure Boot: the code, and the variables to be copied.
func firmware() (code, vars string, err error) {
	const dir = "/usr/share/OVMF/"
	for _, suffix := range []string{"_4M.fd", ".fd"} {
		code, vars = dir+"OVMF_CODE"+suffix, dir+"OVMF_VARS"+suffix
		if _, err = os.Stat(code); err == nil {
			_, err = os.Stat(vars)
		}
		if err == nil {
			return code, vars, nil
		}
	}
	return "", "", fmt.Errorf("OVMF: %w", err)
}
