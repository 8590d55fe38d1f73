package disk

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func fleet() []Disk {
	return []Disk{
		{Node: "/dev/nvme0n1", Transport: "nvme", Serial: "S64DNF0R123456", WWN: "eui.0025388B710116A1", Model: "Samsung SSD 970 EVO", Size: 500 << 30},
		{Node: "/dev/sda", Transport: "sas", Serial: "ZC1A0001", WWN: "0x5000c500a1b2c3d4", Model: "ST4000NM0025", Size: 4 << 40},
		{Node: "/dev/sdb", Transport: "sas", Serial: "ZC1A0002", WWN: "0x5000c500a1b2c3e5", Model: "ST4000NM0025", Size: 4 << 40},
		{Node: "/dev/vda", Transport: "virtio", Size: 8 << 30},
	}
}

func TestSelect(t *testing.T) {
	for _, test := range []struct {
		match Match
		want  string
	}{
		{Match{Serial: "ZC1A0002"}, "/dev/sdb"},
		{Match{WWN: "0x5000c500a1b2c3d4"}, "/dev/sda"},
		{Match{WWN: "naa.5000C500A1B2C3D4"}, "/dev/sda"},
		{Match{WWN: "wwn-0x5000c500a1b2c3d4"}, "/dev/sda"},
		{Match{WWN: "eui.0025388b710116a1"}, "/dev/nvme0n1"},
		{Match{Model: "Samsung_SSD_970_EVO"}, "/dev/nvme0n1"},
		{Match{Model: " Samsung  SSD 970 EVO "}, "/dev/nvme0n1"},
		{Match{Transport: "virtio"}, "/dev/vda"},
		{Match{SizeMax: 8 << 30}, "/dev/vda"},
		{Match{SizeMin: 8<<30 + 1, SizeMax: 500 << 30}, "/dev/nvme0n1"},
		{Match{SizeMin: 500 << 30, SizeMax: 500 << 30}, "/dev/nvme0n1"},
		{Match{Transport: "sas", Serial: "ZC1A0001", Model: "ST4000NM0025", SizeMin: 1 << 40}, "/dev/sda"},
	} {
		got, err := Select(fleet(), test.match)
		if err != nil || got.Node != test.want {
			t.Errorf("%s: %s, %v", test.match, got.Node, err)
		}
	}
}

func TestSelectError(t *testing.T) {
	for _, test := range []struct {
		name  string
		disks []Disk
		match Match
		nodes []string // of the candidates
		text  string
	}{
		{"none", fleet(), Match{Serial: "ZC1A9999"}, nil,
			`no disk matches serial "ZC1A9999": there are ` +
				`/dev/nvme0n1 (500 GiB, nvme, serial "S64DNF0R123456", wwn "eui.0025388B710116A1", model "Samsung SSD 970 EVO"), ` +
				`/dev/sda (4 TiB, sas, serial "ZC1A0001", wwn "0x5000c500a1b2c3d4", model "ST4000NM0025"), ` +
				`/dev/sdb (4 TiB, sas, serial "ZC1A0002", wwn "0x5000c500a1b2c3e5", model "ST4000NM0025"), ` +
				`/dev/vda (8 GiB, virtio)`},
		{"two", fleet(), Match{Model: "ST4000NM0025", SizeMin: 1 << 40}, []string{"/dev/sda", "/dev/sdb"},
			`2 disks match model "ST4000NM0025", sizeMin 1 TiB, and only one may: ` +
				`/dev/sda (4 TiB, sas, serial "ZC1A0001", wwn "0x5000c500a1b2c3d4", model "ST4000NM0025"), ` +
				`/dev/sdb (4 TiB, sas, serial "ZC1A0002", wwn "0x5000c500a1b2c3e5", model "ST4000NM0025")`},
		{"one of the properties is another's", fleet(), Match{Serial: "ZC1A0001", WWN: "0x5000c500a1b2c3e5"}, nil, "no disk matches serial"},
		{"case of a serial", fleet(), Match{Serial: "zc1a0002"}, nil, "no disk matches serial"},
		{"part of a model", fleet(), Match{Model: "Samsung SSD 970"}, nil, "no disk matches model"},
		{"a blank serial is no wish for a disk without one", fleet()[3:], Match{Serial: " "}, nil, "no disk matches serial"},
		{"no disk at all", nil, Match{Transport: "nvme", SizeMax: 1536}, nil,
			`no disk matches transport "nvme", sizeMax 1.5 KiB: there is no disk at all`},
		{"nothing asked for, one disk", fleet()[3:], Match{}, nil, "no property to choose a disk by"},
		{"escape sequences", []Disk{{Node: "/dev/sdc", Serial: "\x1b[2Jx", Size: 512}}, Match{Serial: "y"}, nil,
			`no disk matches serial "y": there are /dev/sdc (512 bytes, serial "\x1b[2Jx")`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Select(test.disks, test.match)
			var se *SelectError
			if !errors.As(err, &se) || !reflect.DeepEqual(got, Disk{}) {
				t.Fatalf("%s, %v", got, err)
			}
			var nodes []string
			for _, d := range se.Candidates {
				nodes = append(nodes, d.Node)
			}
			if !reflect.DeepEqual(nodes, test.nodes) || !strings.Contains(err.Error(), test.text) || len(se.Looked) != len(test.disks) {
				t.Errorf("candidates %v, looked at %d, error\n%v\nwant\n%v", nodes, len(se.Looked), err, test.text)
			}
		})
	}
}

func TestSelectErrorIsBounded(t *testing.T) {
	var disks []Disk
	for i := range 500 {
		disks = append(disks, Disk{Node: fmt.Sprintf("/dev/sd%d", i), Transport: "fc", Size: 1 << 30})
	}
	_, err := Select(disks, Match{Transport: "fc"})
	if err == nil || !strings.HasPrefix(err.Error(), "500 disks match ") || !strings.HasSuffix(err.Error(), "/dev/sd15 (1 GiB, fc), and 484 more") {
		t.Error(err)
	}
}
