// Init is the smallest guest: one static program as the whole initrd. It loads the modules in /modules, prints what it finds of the
// hardware that it was given as one line of JSON on the second serial port, and powers off.
//
// With the word stage2 on the kernel command line it powers nothing off, but makes a root in memory around the usr partition, without verity, and goes
// on to the systemd there: enough to try the witness without any engine.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// seen is read by the lab's tests under the same names.
type seen struct {
	CommandLine string
	TPM         bool
	PCRs        int
	FwCfg       map[string]string
	SMBIOS      []string
	Disks       map[string]string // name to serial
	Firmware    bool              // booted through UEFI
	Answer      string            // of the server at url=
	Year        int
	Problems    []string
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: not the first process")
		os.Exit(2)
	}
	fmt.Println("init: here")
	if err := boot(); err != nil {
		fmt.Println("init:", err)
	}
	fmt.Println("init: the end")
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
	} {
		if err := errors.Join(os.MkdirAll(m.target, 0o755), syscall.Mount(m.source, m.target, m.kind, 0, "")); err != nil {
			return fmt.Errorf("%s: %w", m.target, err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	var s seen
	s.CommandLine = strings.TrimSpace(string(cmdline))
	words := strings.Fields(s.CommandLine)
	problem := func(what string, err error) {
		if err != nil {
			s.Problems = append(s.Problems, what+": "+err.Error())
		}
	}
	modules, err := filepath.Glob("/modules/*")
	problem("modules", err)
	for _, m := range modules {
		problem(m, load(m))
	}
	if slices.Contains(words, "stage2") {
		return stage2()
	}
	if slices.Contains(words, "hang") {
		fmt.Print("init: hanging> ")
		for { // not select: with nobody left to wake it the runtime ends the process, and the kernel with it
			time.Sleep(time.Hour)
		}
	}
	if slices.Contains(words, "panic") {
		os.Exit(1) // the kernel cannot go on without its first process
	}
	if slices.Contains(words, "reboot") {
		return syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	}
	_, err = os.Stat("/sys/class/tpm/tpm0")
	s.TPM = err == nil
	pcrs, _ := filepath.Glob("/sys/class/tpm/tpm0/pcr-sha256/*")
	s.PCRs = len(pcrs)
	_, err = os.Stat("/sys/firmware/efi")
	s.Firmware = err == nil
	s.FwCfg = map[string]string{}
	files, _ := filepath.Glob("/sys/firmware/qemu_fw_cfg/by_name/opt/*/*/raw")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		problem("fw_cfg", err)
		s.FwCfg[strings.TrimSuffix(strings.TrimPrefix(file, "/sys/firmware/qemu_fw_cfg/by_name/"), "/raw")] = string(raw)
	}
	tables, _ := filepath.Glob("/sys/firmware/dmi/entries/11-*/raw")
	for _, table := range tables {
		raw, err := os.ReadFile(table)
		problem("SMBIOS", err)
		if len(raw) > 5 { // a five-byte header, then strings that end in NUL
			for text := range strings.SplitSeq(string(raw[5:]), "\x00") {
				if text != "" {
					s.SMBIOS = append(s.SMBIOS, text)
				}
			}
		}
	}
	s.Disks = map[string]string{}
	disks, _ := filepath.Glob("/sys/block/vd*")
	for _, disk := range disks {
		raw, err := os.ReadFile(disk + "/serial")
		problem("disk", err)
		s.Disks[filepath.Base(disk)] = string(raw)
	}
	s.Year = time.Now().UTC().Year()
	for _, word := range words {
		if url, ok := strings.CutPrefix(word, "url="); ok {
			s.Answer, err = get(url)
			problem("network", err)
		}
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tty, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	_, err = tty.Write(append(line, '\n'))
	return errors.Join(err, tty.Close())
}

// load hands a module as the distribution packs it to the kernel, which decompresses it.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const finitModule, compressed = 313, 4
	arguments := []byte{0}
	if _, _, errno := syscall.Syscall(finitModule, f.Fd(), uintptr(unsafe.Pointer(&arguments[0])), compressed); errno != 0 {
		return errno
	}
	return nil
}

// get brings the first wired card up with the address that QEMU's user network would lease, and asks.
func get(url string) (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	request := func(number uintptr, name string, fill func(data []byte)) error {
		var ifreq [40]byte
		copy(ifreq[:16], name)
		fill(ifreq[16:])
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), number, uintptr(unsafe.Pointer(&ifreq[0]))); errno != 0 {
			return errno
		}
		return nil
	}
	address := func(ip ...byte) func([]byte) {
		return func(data []byte) {
			data[0] = syscall.AF_INET
			copy(data[4:8], ip)
		}
	}
	const card = "eth0"
	err = errors.Join(
		request(syscall.SIOCSIFADDR, card, address(10, 0, 2, 15)),
		request(syscall.SIOCSIFNETMASK, card, address(255, 255, 255, 0)),
		request(syscall.SIOCSIFFLAGS, card, func(data []byte) { data[0] = syscall.IFF_UP | syscall.IFF_RUNNING }),
	)
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 20 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	return string(body), err
}

// stage2 makes a root in memory around the second partition of the first disk and becomes its systemd.
func stage2() error {
	const root = "/sysroot"
	// The kernel reads the partition table in its own time after the driver was loaded.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat("/dev/vda2"); err == nil {
			break
		} else if time.Now().After(deadline) {
			return err
		}
	}
	err := errors.Join(
		os.MkdirAll(root, 0o755),
		syscall.Mount("tmpfs", root, "tmpfs", 0, "mode=0755"),
		os.MkdirAll(root+"/usr", 0o755),
		syscall.Mount("/dev/vda2", root+"/usr", "erofs", syscall.MS_RDONLY, ""),
		os.MkdirAll(root+"/etc", 0o755),
		os.WriteFile(root+"/etc/machine-id", []byte("0123456789abcdef0123456789abcdef\n"), 0o444),
		os.Symlink("usr/bin", root+"/bin"),
		os.Symlink("usr/sbin", root+"/sbin"),
		os.Symlink("usr/lib", root+"/lib"),
		os.Symlink("usr/lib64", root+"/lib64"),
	)
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		err = errors.Join(err, os.MkdirAll(root+dir, 0o755), syscall.Mount(dir, root+dir, "", syscall.MS_MOVE, ""))
	}
	if err != nil {
		return err
	}
	return errors.Join(
		os.Chdir(root),
		syscall.Mount(".", "/", "", syscall.MS_MOVE, ""),
		syscall.Chroot("."),
		os.Chdir("/"),
		syscall.Exec("/usr/lib/systemd/systemd", []string{"/usr/lib/systemd/systemd"}, []string{"TERM=dumb"}),
	)
}
