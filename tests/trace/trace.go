// Package trace tells what a program could have changed, by its system calls.
//
// [Command] runs a program under strace(1) with every mount read-only but one directory, and
// [Log.Changes] lists the system calls that could change anything outside of that directory: whether
// they succeeded makes no difference. What is not known to be harmless is listed.
package trace

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// traced are the system calls that are written down, as strace names them: all that can change something, and those
// that start programs. A name after "?" need not exist on this machine.
const traced = "execve,execveat,open,openat,openat2,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,rmdir,mknod,mknodat," +
	"link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,?fchmodat2,chown,fchown,lchown,fchownat,truncate,ftruncate,fallocate," +
	"setxattr,lsetxattr,fsetxattr,?setxattrat,removexattr,lremovexattr,fremovexattr,utime,utimes,utimensat,futimesat," +
	"mount,umount2,move_mount,open_tree,fsopen,fspick,fsmount,fsconfig,mount_setattr,pivot_root,swapon,swapoff,ioctl," +
	"socket,connect,bind,listen,sendto,sendmsg,sendmmsg,sync,syncfs,fsync,fdatasync,reboot,kexec_load,kexec_file_load,sethostname,setdomainname," +
	"init_module,finit_module,delete_module,settimeofday,clock_settime,clock_adjtime,adjtimex,quotactl,acct,add_key,request_key,keyctl," +
	"bpf,perf_event_open,io_uring_setup,open_by_handle_at,userfaultfd,kill,tkill,tgkill,pidfd_send_signal,ptrace,process_vm_writev,iopl,ioperm,syslog,setns,unshare,chroot"

// A Log is what strace wrote, with what belongs to the traced program alone.
type Log struct {
	Lines []string
	// Own is the directory that may be written to.
	Own string
	// Servers are the addresses that may be connected to, as strace prints them: "htons(80)".
	Servers []string
	// Harmless are further calls that are known to change nothing, each a whole call or the beginning of one.
	Harmless []*regexp.Regexp
}

// Read reads what strace wrote with -f and -y, from the first execve of a program whose path ends with
// begin on. Calls that another process interrupted are put together.
func Read(in io.Reader, begin string) (Log, error) {
	var l Log
	started := begin == ""
	unfinished := map[string]string{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		pid, call, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return Log{}, fmt.Errorf("strace wrote %q", lines.Text())
		}
		call = strings.TrimSpace(call)
		switch {
		case strings.HasPrefix(call, "+++"), strings.HasPrefix(call, "---"), strings.HasPrefix(call, "???"):
			continue // a thread has ended
		case strings.HasSuffix(call, "<unfinished ...>"):
			unfinished[pid] = strings.TrimSuffix(call, "<unfinished ...>")
			continue
		case strings.HasPrefix(call, "<... "):
			_, rest, ok := strings.Cut(call, " resumed>")
			if !ok {
				return Log{}, fmt.Errorf("strace wrote %q", lines.Text())
			}
			call = unfinished[pid] + rest
			delete(unfinished, pid)
		}
		if !started {
			_, args := split(call)
			started = strings.HasPrefix(call, "execve(") && len(args) > 0 && strings.HasSuffix(unquote(args[0]), begin) && strings.HasSuffix(call, "= 0")
		}
		if started {
			l.Lines = append(l.Lines, call)
		}
	}
	// What was never finished was begun.
	for _, call := range unfinished {
		l.Lines = append(l.Lines, call+") = ?")
	}
	if len(l.Lines) == 0 {
		return Log{}, fmt.Errorf("no %q was started", begin)
	}
	return l, lines.Err()
}

// Started are the paths of all programs that were started, each once, in order.
func (l Log) Started() []string {
	var list []string
	for _, call := range l.Lines {
		if name, args := split(call); name == "execve" && strings.HasSuffix(call, " = 0") {
			if p := unquote(args[0]); !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	return list
}

// Changes are the calls that could have changed something.
func (l Log) Changes() []string {
	var list []string
	for _, call := range l.Lines {
		if !l.harmless(call) {
			list = append(list, call)
		}
	}
	return list
}

func (l Log) harmless(call string) bool {
	name, args := split(call)
	for _, h := range l.Harmless {
		if h.MatchString(call) {
			return true
		}
	}
	switch name {
	case "execve", "execveat":
		return true // what it does then is written down too
	case "open":
		return l.opens(args, 0)
	case "openat", "openat2":
		return l.opens(args, 1)
	case "ioctl":
		return len(args) > 1 && slices.Contains(asking, firstWord(args[1]))
	case "socket":
		return true // until it is connected
	case "connect":
		return l.connects(args)
	case "bind":
		return len(args) > 1 && strings.Contains(args[1], "AF_NETLINK")
	case "sendto", "sendmsg", "sendmmsg":
		// By a socket that was connected, or by netlink, whose questions are named so.
		return len(args) > 1 && (!strings.Contains(call, "sa_family=AF_") || strings.Contains(call, "nlmsg_type=RTM_GET"))
	case "kill", "pidfd_send_signal":
		return len(args) > 1 && args[1] == "0" // whether there is such a process
	case "tgkill":
		return true // the Go runtime interrupts its own threads with SIGURG
	}
	for _, i := range pathsOf[name] {
		if len(args) <= i || !l.own(args, i) {
			return false
		}
	}
	return len(pathsOf[name]) > 0
}

// pathsOf says which arguments are the paths, or the descriptors, that a call changes.
var pathsOf = map[string][]int{
	"creat": {0}, "unlink": {0}, "unlinkat": {1}, "rename": {0, 1}, "renameat": {1, 3}, "renameat2": {1, 3},
	"mkdir": {0}, "mkdirat": {1}, "rmdir": {0}, "mknod": {0}, "mknodat": {1}, "link": {1}, "linkat": {3}, "symlink": {1}, "symlinkat": {2},
	"chmod": {0}, "fchmod": {0}, "fchmodat": {1}, "chown": {0}, "fchown": {0}, "lchown": {0}, "fchownat": {1},
	"truncate": {0}, "ftruncate": {0}, "fallocate": {0}, "fsync": {0}, "fdatasync": {0}, "utimensat": {1},
}

// asking are the requests of ioctl(2) that only ask (ioctl_list(2)): the size of a terminal, and what a block device is.
var asking = []string{
	"TCGETS", "TCGETS2", "TIOCGWINSZ", "TIOCGPGRP", "FIONREAD", "FIONBIO", "FIOCLEX",
	"BLKGETSIZE64", "BLKGETSIZE", "BLKSSZGET", "BLKPBSZGET", "BLKROGET", "BLKIOMIN", "BLKIOOPT", "BLKALIGNOFF", "BLKDISCARDZEROES", "BLKGETZONESZ", "BLKGETDISKSEQ", "BLKBSZGET",
	"FS_IOC_GETFLAGS", "FS_IOC_GETVERSION", "LOOP_GET_STATUS", "LOOP_GET_STATUS64", "CDROM_GET_CAPABILITY", "CDROM_LAST_WRITTEN", "FDGETFDCSTAT", "HDIO_GETGEO", "SIOCGIFINDEX", "SIOCGIFNAME",
	"DM_VERSION", "DM_TABLE_STATUS", "DM_DEV_STATUS", "DM_LIST_DEVICES", "DM_LIST_VERSIONS", "RAID_VERSION", "GET_ARRAY_INFO", "GET_DISK_INFO", "NS_GET_USERNS", "NS_GET_PARENT",
}

// opens says whether an open is for reading, or below the own directory.
func (l Log) opens(args []string, path int) bool {
	if len(args) <= path+1 {
		return false
	}
	flags := strings.Join(args[path+1:], ",")
	writes := strings.Contains(flags, "O_WRONLY") || strings.Contains(flags, "O_RDWR") || strings.Contains(flags, "O_CREAT") || strings.Contains(flags, "O_TRUNC")
	p := unquote(args[path])
	return !writes || slices.Contains([]string{"/dev/null", "/dev/tty"}, p) || l.own(args, path)
}

// own says whether a path, or what a descriptor is of, lies in the own directory. A path that is relative
// belongs to the descriptor before it.
func (l Log) own(args []string, i int) bool {
	p := unquote(args[i])
	if !strings.HasPrefix(args[i], `"`) {
		p = annotation(args[i])
	} else if !filepath.IsAbs(p) && i > 0 {
		p = filepath.Join(annotation(args[i-1]), p)
	}
	p = filepath.Clean(p)
	return l.Own != "" && filepath.IsAbs(p) && (p == l.Own || strings.HasPrefix(p, l.Own+"/"))
}

// connects says whether an address is one of the servers, or asks the kernel.
func (l Log) connects(args []string) bool {
	if len(args) < 2 {
		return false
	}
	address := strings.Join(args[1:], ",")
	return strings.Contains(address, "AF_NETLINK") || strings.Contains(address, "AF_UNSPEC") ||
		strings.Contains(address, `"127.0.0.1"`) && slices.ContainsFunc(l.Servers, func(s string) bool { return strings.Contains(address, s) })
}

// split takes a call apart: its name, and its arguments at the commas that are in no brackets, quotes
// or comments.
func split(call string) (name string, args []string) {
	name, rest, ok := strings.Cut(call, "(")
	if !ok {
		return call, nil
	}
	depth, from, quoted := 0, 0, false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.IndexByte("([{<", c) >= 0:
			depth++
		case c == '>' && i > 0 && rest[i-1] == '-': // of a descriptor that is a link: 3<a->b>
		case strings.IndexByte(")]}>", c) >= 0 && depth > 0:
			depth--
		case (c == ',' || c == ')') && depth == 0:
			args = append(args, strings.TrimSpace(rest[from:i]))
			from = i + 1
			if c == ')' {
				return name, args
			}
		}
	}
	return name, args
}

// unquote is a string as strace prints it, "" for what is none.
func unquote(arg string) string {
	text, ok := strings.CutPrefix(arg, `"`)
	if !ok {
		return ""
	}
	text, _, _ = strings.Cut(text, `"`)
	return text
}

// annotation is what -y says of a descriptor: 3</path>.
func annotation(arg string) string {
	_, p, ok := strings.Cut(arg, "<")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(strings.TrimSuffix(p, ">"), " (deleted)")
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}
