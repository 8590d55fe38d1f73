package stages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// volumesScene makes two volumes on files, by the real cryptsetup. What needs device-mapper is
// written down in a directory that is sysfs, and is what the scene compares.
func volumesScene() scene {
	dir := "" // one for all machines of a test: deeds name their devices
	return scene{stage: Disks, build: func(t *testing.T) *site {
		s := &site{run: t.TempDir(), log: filepath.Join(t.TempDir(), "log"), tree: t.TempDir()}
		if dir == "" {
			dir = t.TempDir()
		}
		for _, name := range []string{"a", "b"} {
			put(t, filepath.Join(dir, name), "")
			if err := os.Truncate(filepath.Join(dir, name), 4<<20); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"block", "dev/block/0:0"} {
			if err := os.MkdirAll(filepath.Join(s.tree, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		const options = `"options":["--pbkdf=pbkdf2","--pbkdf-force-iterations=1000","--luks2-metadata-size=16k","--luks2-keyslots-size=512k"]`
		s.in = first(t, storageOf(fmt.Sprintf(`"luks":[
			{"name":"va","device":"%[1]s/a",%[2]s,"keyFile":{"source":"data:,canary"}},
			{"name":"vb","device":"%[1]s/b",%[2]s,"label":"b"}]`, dir, options), ""))
		real, err := exec.LookPath("cryptsetup")
		if err != nil {
			t.Fatal(err)
		}
		dirs := programs(t, s.log, s.tree, map[string]string{
			"cryptsetup": `
echo "cryptsetup $1" >> $log
case $1 in
luksOpen)
	` + real + ` open --test-passphrase --key-file "$5" "$2"
	dm=$state/block/dm-$(basename $2 | tr ab 01)
	mkdir -p $dm/dm $dm/slaves/$(basename $2)
	echo "CRYPT-LUKS2-x-$3" > $dm/dm/uuid
	echo $3 > $dm/dm/name ;;
luksClose) rm -r $state/block/dm-$(echo $2 | tr ab 01 | tr -d v) ;;
*) exec ` + real + ` "$@" ;;
esac`,
			"dmsetup": `echo "0 8 crypt aes-xts-plain64 x 0 7:0 0"`,
		})
		s.set = func(m *initrd.Machine) {
			m.Programs = append(dirs, "/usr/sbin", "/sbin")
			m.Disks = disk.System{Sys: os.DirFS(s.tree), Run: fstest.MapFS{}, Dev: "/dev", Open: func(node string) (disk.ReaderAtCloser, error) { return os.Open(node) }}
		}
		return s
	}}
}
