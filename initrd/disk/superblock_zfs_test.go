package disk

import (
	"bytes"
	"compress/bzip2"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/tests/fixtures"
)

// TestProbeOfZFS probes the images that Ignition's tests have: one of ZFS, and one of ext4
// that was made over it, which libblkid calls ambivalent and Ignition uses all the same.
func TestProbeOfZFS(t *testing.T) {
	unpack := func(text string) []byte {
		data, err := io.ReadAll(bzip2.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text))))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	image := unpack(fixtures.ZFS)
	got, err := Probe(bytes.NewReader(image), int64(len(image)))
	if err != nil || got != (Superblock{Type: "zfs_member"}) {
		t.Errorf("%#v %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if blkid := byBlkid(t, file); blkid != got {
		t.Errorf("%#v\nblkid: %#v", got, blkid)
	}
	image = unpack(fixtures.Ext4ZFS)
	var several *AmbivalentError
	_, err = Probe(bytes.NewReader(image), int64(len(image)))
	if !errors.As(err, &several) || len(several.Found) != 2 || several.Found[0] != (Superblock{Type: "ext4", Label: "some-label", UUID: "f63bf118-f6d7-40a3-b64c-a92b05a7f9ee"}) || several.Found[1].Type != "zfs_member" {
		t.Errorf("%v", err)
	}
}
