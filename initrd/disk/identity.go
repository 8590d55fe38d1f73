package disk

import (
	"encoding/binary"
	"path"
	"slices"
	"strings"
)

// identify fills in what a disk says of itself. Where its bus has the answer in sysfs
// that is taken, since it is there as soon as the disk is; udev's answer may come later.
func (s System) identify(d *Disk) error {
	dir := "block/" + d.Name
	place, err := s.canonical(dir)
	if err != nil {
		return err
	}
	props, err := s.udev(d.Major, d.Minor)
	if err != nil {
		return err
	}
	if d.Transport, err = s.transport(d.Name, place); err != nil {
		return err
	}
	if d.WWN, err = s.wwn(dir, props); err != nil {
		return err
	}
	ata, err := s.ataIdentity(dir)
	if err != nil {
		return err
	}
	if d.Serial, err = s.serial(d, dir, place, ata, props); err != nil {
		return err
	}
	d.Model, err = s.model(dir, ata, props)
	return err
}

// serial asks, in this order: the attributes of virtio, NVMe and MMC; for USB, udev,
// which prefers the serial of the disk in an enclosure to that of the enclosure; the
// unit serial number of SCSI; the ATA identity; udev; the USB device.
func (s System) serial(d *Disk, dir, place string, ata ataIdentity, props map[string]string) (string, error) {
	for _, file := range [...]string{"/serial", "/device/serial"} {
		if serial, err := s.text(dir + file); err != nil || serial != "" {
			return serial, err
		}
	}
	usb := d.Transport == "usb"
	if usb && props["ID_SERIAL_SHORT"] != "" {
		return props["ID_SERIAL_SHORT"], nil
	}
	page, err := s.optional(dir + "/device/vpd_pg80")
	if err != nil {
		return "", err
	}
	if serial := trim(vpdBody(page, 0x80)); serial != "" {
		return serial, nil
	}
	for _, serial := range [...]string{ata.serial, props["ID_SCSI_SERIAL"], props["ID_SERIAL_SHORT"]} {
		if serial != "" {
			return serial, nil
		}
	}
	if !usb {
		return "", nil
	}
	for up := path.Dir(place); up != "."; up = path.Dir(up) {
		if s.exists(up + "/idVendor") {
			return s.text(up + "/serial")
		}
	}
	return "", nil
}

// wwn gives the world wide name in udev's form. The kernel's wwid may also be a string
// made of vendor, model and serial (t10.…, nvme.…), which names nothing world wide.
func (s System) wwn(dir string, props map[string]string) (string, error) {
	for _, file := range [...]string{"/wwid", "/device/wwid"} {
		id, err := s.text(dir + file)
		if err != nil {
			return "", err
		}
		if hex, ok := strings.CutPrefix(id, "naa."); ok {
			return "0x" + hex, nil
		}
		if strings.HasPrefix(id, "eui.") || strings.HasPrefix(id, "uuid.") {
			return id, nil
		}
	}
	if id := props["ID_WWN_WITH_EXTENSION"]; id != "" {
		return id, nil
	}
	return props["ID_WWN"], nil
}

// model prefers what has the whole name: SCSI cuts it after 16 bytes.
func (s System) model(dir string, ata ataIdentity, props map[string]string) (string, error) {
	if ata.model != "" {
		return ata.model, nil
	}
	for _, file := range [...]string{"/device/model", "/device/name"} {
		model, err := s.text(dir + file)
		if err != nil {
			return "", err
		}
		if model != "" {
			if full := udevModel(props); strings.HasPrefix(plain(full), plain(model)) {
				return full, nil
			}
			return model, nil
		}
	}
	return udevModel(props), nil
}

// transport follows lsblk(8): first the kind of SCSI host, then the bus.
func (s System) transport(name, place string) (string, error) {
	steps := strings.Split(place, "/")
	on := func(prefix string) string {
		i := slices.IndexFunc(steps, func(step string) bool { return numbered(step, prefix) })
		if i < 0 {
			return ""
		}
		return steps[i]
	}
	host := on("host")
	if host != "" {
		for _, kind := range [...]string{"spi", "sas", "fc", "iscsi"} {
			if s.exists("class/" + kind + "_host/" + host) {
				return kind, nil
			}
		}
	}
	switch {
	case numbered(name, "nvme"):
		return "nvme", nil
	case numbered(name, "mmcblk"):
		return "mmc", nil
	case numbered(name, "loop"):
		return "loop", nil
	case on("usb") != "":
		return "usb", nil
	case host != "":
		driver, err := s.text("class/scsi_host/" + host + "/proc_name")
		switch {
		case err != nil:
			return "", err
		case driver == "ahci" || strings.Contains(driver, "sata"):
			return "sata", nil
		case on("ata") != "":
			return "ata", nil
		case on("virtio") != "":
			return "virtio", nil
		}
		return "scsi", nil
	case on("virtio") != "":
		return "virtio", nil
	case on("vbd-") != "":
		return "xen", nil
	}
	return "", nil
}

// vpdBody gives what follows the four bytes of header of a page of vital product data
// (SPC-4, section 7.8), as far as it is there.
func vpdBody(page []byte, code byte) []byte {
	if len(page) < 4 || page[1] != code {
		return nil
	}
	body := page[4:]
	return body[:min(len(body), int(binary.BigEndian.Uint16(page[2:])))]
}

// ataIdentity is what an ATA disk says in answer to IDENTIFY DEVICE.
type ataIdentity struct{ serial, model string }

// ataIdentity reads the ATA information page, which the kernel's libata and most
// bridges have: IDENTIFY data from byte 60 on (SAT-3, section 12.4.2), serial in words
// 10 to 19, model in words 27 to 46, the bytes of each word swapped (ACS-3, 7.12.7).
func (s System) ataIdentity(dir string) (ataIdentity, error) {
	page, err := s.optional(dir + "/device/vpd_pg89")
	if err != nil {
		return ataIdentity{}, err
	}
	const header = 4
	body := vpdBody(page, 0x89)
	if len(body) < 60-header+512 {
		return ataIdentity{}, nil
	}
	words := body[60-header:]
	return ataIdentity{serial: swapped(words[20:40]), model: swapped(words[54:94])}, nil
}

func swapped(words []byte) string {
	text := make([]byte, len(words))
	for i := 0; i+1 < len(words); i += 2 {
		text[i], text[i+1] = words[i+1], words[i]
	}
	return trim(text)
}
