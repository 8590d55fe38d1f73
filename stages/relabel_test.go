package stages

import (
	"slices"
	"testing"

	"pilotlight/initrd"
)

// etcTexts are the wishes of the stage etc, but for the last: contexts, which it always wants.
func etcTexts(t *testing.T, steps []initrd.Step) []string {
	t.Helper()
	list := texts(steps)
	if n := len(list) - 1; n >= 0 && list[n] == (initrd.Relabel{}).String() {
		return list[:n]
	}
	t.Errorf("the last wish is not that for contexts: %q", list)
	return list
}

// relabels gives the wish for contexts.
func relabels(t *testing.T, steps []initrd.Step) initrd.Relabel {
	t.Helper()
	r, ok := bared(steps[len(steps)-1]).(initrd.Relabel)
	if !ok {
		t.Fatalf("the last wish is not that for contexts: %q", texts(steps))
	}
	return r
}

// TestRelabelNamesWhatIsWritten: files, links, directories, units, what is mounted, the files
// that others write beside; and not what lies outside of the root.
func TestRelabelNamesWhatIsWritten(t *testing.T) {
	in := first(t, ignition(`"storage":{
		"directories":[{"path":"/srv/d"}],
		"files":[{"path":"/etc/f","contents":{"source":"data:,x"}},{"path":"/opt/named","user":{"name":"web"},"contents":{"source":"data:,x"}}],
		"links":[{"path":"/etc/l","target":"/run/x"},{"path":"/etc/h","target":"/usr/lib/h","hard":true}]},
		"systemd":{"units":[{"name":"a.service","enabled":true,"mask":true,"dropins":[{"name":"1.conf","contents":"[Unit]\n"}]}]}`))
	r := relabels(t, want(t, Etc, in))
	for _, p := range []string{
		"/srv/d", "/etc/f", "/opt/named", "/etc/l", "/etc/h", "/usr/lib/h", "/etc/systemd/system/a.service", "/etc/systemd/system/a.service.d/1.conf", PresetFile, "/",
	} {
		if !slices.Contains(r.Paths, p) {
			t.Errorf("%s is not among %q", p, r.Paths)
		}
	}
	if slices.Contains(r.Paths, "/run/x") || !slices.IsSorted(r.Paths) || r.Root != initrd.BootRoot || len(r.Swept) > 0 || len(r.Except) > 0 {
		t.Errorf("%+v", r)
	}
	for name, members := range map[string]string{
		"an /etc that is generated": `"etc":{"credentials":[{"name":"c","contents":{"inline":"x"}}]}`,
		"changes on /var": `"etc":{"upper":"var"},"repart":[{"name":"r","device":"boot","definitions":[
			{"name":"1.conf","contents":{"inline":"[Partition]\nType=var\nMountPoint=/var\n"}}]}]`,
	} {
		in := first(t, section(members))
		for _, in.Facts.Boot = range []Boot{First, Later} {
			r := relabels(t, want(t, Etc, in))
			if !slices.Equal(r.Swept, []string{"/etc"}) || slices.Contains(r.Paths, "/run") {
				t.Errorf("%s: %+v", name, r)
			}
			if upper := name == "changes on /var"; upper != slices.Equal(r.Except, []string{"/var/lib/pilotlight/etc"}) || upper != slices.Contains(r.Paths, "/var/lib/pilotlight/etc") {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	// Below another root nothing is labelled.
	in.Facts.Root = "/mnt/target"
	if steps := want(t, Etc, in); at(steps, relabelText) >= 0 {
		t.Errorf("%q", texts(steps))
	}
}

const relabelText = "SELinux contexts of what was written"
