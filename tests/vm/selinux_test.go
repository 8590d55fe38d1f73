package vm_test

import (
	"regexp"
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// contextsUnit runs in the guest when it is up: what the policy would change of what was written, and then
// the context of each, are lines on the console.
const contextsUnit = `[Unit]
Description=Contexts of what was written
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'echo "mode: $(getenforce)"; restorecon -nvR /etc /srv /var/lib/made /usr/local | sed "s/^/wrong: /"; \
stat -c "context: %%n %%C" /etc/motd /etc/made /etc/made/deep /etc/made/deep/file /etc/made/link /etc/systemd/system/contexts.service \
/etc/systemd/system/demo.service.d /etc/systemd/system/demo.service.d/10.conf /etc/systemd/system/multi-user.target.wants/contexts.service /srv/web /var/lib/made/x /usr/local/bin/tool; \
echo "denied: $(journalctl -b -q -o cat _TRANSPORT=audit | grep -c "avc:  denied.*unlabeled_t")"; echo contexts: end'
ExecStart=/bin/systemctl --no-block poweroff
`

// TestSELinux is an installed system with Debian's policy, provisioned by our initrd: what was written has the
// contexts that the policy gives, by the target's own setfiles. Its policy enforces.
func TestSELinux(t *testing.T) {
	t.Parallel()
	tree, err := stage.Cache.SELinux(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`(context|wrong|denied): (.*[^\s])`)
	const mode = "enforcing"
	image, err := stage.Cache.SELinuxImage(t.Context(), tree, mode)
	if err != nil {
		t.Fatal(err)
	}
	g := guest(t)
	g.UEFI, g.TPM = false, false
	g.Disks = []lab.Disk{{Serial: scene.Serial, Base: image.Path}}
	c := scene.Config{
		"ignition": map[string]any{"version": "3.5.0"},
		"storage": map[string]any{
			"files": []any{
				map[string]any{"path": "/etc/motd", "overwrite": true, "contents": map[string]any{"source": "data:,hello%0A"}},
				map[string]any{"path": "/etc/made/deep/file", "contents": map[string]any{"source": "data:,x"}},
				map[string]any{"path": "/var/lib/made/x", "contents": map[string]any{"source": "data:,x"}},
				map[string]any{"path": "/usr/local/bin/tool", "mode": 0o755, "contents": map[string]any{"source": "data:,x"}},
			},
			"directories": []any{map[string]any{"path": "/srv/web"}},
			"links": []any{
				map[string]any{"path": "/etc/made/link", "target": "deep/file"},
				map[string]any{"path": "/etc/systemd/system/multi-user.target.wants/contexts.service", "target": "../contexts.service"},
			},
		},
		"systemd": map[string]any{"units": []any{
			map[string]any{"name": "contexts.service", "contents": contextsUnit},
			// A getty hangs up whoever writes to the console.
			map[string]any{"name": "serial-getty@ttyS0.service", "mask": true},
			map[string]any{"name": "demo.service", "dropins": []any{map[string]any{"name": "10.conf", "contents": "[Unit]\n"}}},
		}},
	}
	b := direct(local(t, c, "pilotlight.onfailure", "poweroff"), "root=LABEL=root", "rw", "security=selinux", "selinux=1")
	out := boot(t, g, b, "SELinux "+mode)
	if _, ok := out.Seen(regexp.MustCompile(`pilotlight: etc: run setfiles for [0-9]+ paths by the policy default`)); !ok {
		t.Errorf("%s: nothing was labelled\n%s", mode, tail(out))
	}
	contexts := map[string]string{}
	// A line may begin with what somebody else wrote.
	for _, l := range out.Console {
		if f := said.FindStringSubmatch(l.Text); f == nil {
			continue
		} else if what, text := f[1], f[2]; what == "wrong" || what == "denied" && text != "0" {
			t.Errorf("%s: %s: %s", mode, what, text)
		} else if name, context, ok := strings.Cut(text, " "); what == "context" && ok {
			contexts[name] = context
		}
	}
	for name, want := range map[string]string{
		"/etc/motd": "etc_t", "/etc/made": "etc_t", "/etc/made/deep": "etc_t", "/etc/made/deep/file": "etc_t", "/etc/made/link": "etc_t",
		"/etc/systemd/system/contexts.service": "systemd_unit_t", "/etc/systemd/system/demo.service.d": "systemd_unit_t",
		"/etc/systemd/system/demo.service.d/10.conf": "systemd_unit_t", "/etc/systemd/system/multi-user.target.wants/contexts.service": "systemd_unit_t", "/var/lib/made/x": "var_lib_t", "/usr/local/bin/tool": "bin_t", "/srv/web": "var_t",
	} {
		if got := contexts[name]; got != "system_u:object_r:"+want+":s0" {
			t.Errorf("%s: %s has the context %q, want %s", mode, name, got, want)
		}
	}
	for _, want := range []string{`mode: ` + strings.ToUpper(mode[:1]) + mode[1:], `contexts: end`} {
		if _, ok := out.Seen(regexp.MustCompile(want)); !ok {
			t.Errorf("%s: nothing on the console is %s\n%s", mode, want, tail(out))
		}
	}
}
