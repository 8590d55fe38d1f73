package providers

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// fw is the device with files by their names, as the kernel shows it.
func fw(files map[string]string) fstest.MapFS {
	sys := fstest.MapFS{"firmware/qemu_fw_cfg/rev": {Data: []byte("3\n")}}
	for name, text := range files {
		sys["firmware/qemu_fw_cfg/by_name/"+name+"/raw"] = &fstest.MapFile{Data: []byte(text)}
	}
	return sys
}

func TestFirmwareConfiguration(t *testing.T) {
	const ours, theirs = "opt/org.pilotlight/config", "opt/com.coreos/config"
	for name, c := range map[string]struct {
		files        map[string]string
		want, source string
	}{
		"ours":           {map[string]string{ours: "{1}"}, "{1}", "fw_cfg:" + ours},
		"Ignition's":     {map[string]string{theirs: "{2}"}, "{2}", "fw_cfg:" + theirs},
		"both":           {map[string]string{ours: "{1}", theirs: "{2}"}, "{1}", "fw_cfg:" + ours},
		"ours is empty":  {map[string]string{ours: "", theirs: "{2}"}, "{2}", "fw_cfg:" + theirs},
		"none":           {nil, "", ""},
		"both are empty": {map[string]string{ours: "", theirs: ""}, "", ""},
		"others":         {map[string]string{"opt/org.pilotlight/config2": "x", "etc/boot-menu-wait": "x"}, "", ""},
	} {
		p, err := Named("qemu")
		if err != nil {
			t.Fatal(err)
		}
		a, err := p.UserConfig(t.Context(), reach{sys: fw(c.files)})
		if string(a.Bytes) != c.want || a.Source != c.source || errors.Is(err, ErrNone) != (c.want == "") || c.want != "" && err != nil {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
}

// TestFirmwareThatCannotBeAsked: the module is not loaded, or a file cannot be read.
func TestFirmwareThatCannotBeAsked(t *testing.T) {
	p, err := Named("qemu")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.UserConfig(t.Context(), reach{sys: fstest.MapFS{}})
	if err == nil || errors.Is(err, ErrNone) || !strings.HasPrefix(err.Error(), "platform qemu: fw_cfg: the kernel does not show the device (module qemu_fw_cfg)") {
		t.Errorf("error %v", err)
	}
	sys := fw(map[string]string{"opt/com.coreos/config": "{2}"})
	sys["firmware/qemu_fw_cfg/by_name/opt/org.pilotlight/config/raw"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	a, err := p.UserConfig(t.Context(), reach{sys: sys})
	var bad *fs.PathError
	if errors.Is(err, ErrNone) || !errors.As(err, &bad) || a.Bytes != nil {
		t.Errorf("%+v %v: the next source must not stand in for one that could not be read", a, err)
	}
}
