package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// maxUdev bounds one entry of udev's database; the longest ones are some kilobytes.
const maxUdev = 1 << 20

// udev gives the properties that udev's database has of a block device: none if udev
// does not know it.
func (s System) udev(major, minor int) (map[string]string, error) {
	file := fmt.Sprintf("udev/data/b%d:%d", major, minor)
	f, err := s.Run.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, lookError("/run/"+file, err)
	}
	defer f.Close()
	props, err := parseUdev(f)
	if err != nil {
		return nil, lookError("/run/"+file, err)
	}
	return props, nil
}

// parseUdev reads an entry of udev's database: lines of a letter, a colon and a value,
// of which E:KEY=VALUE are properties. The format is systemd's own (device_read_db_internal
// in sd-device); it gains letters, so that unknown ones are passed over.
func parseUdev(r io.Reader) (map[string]string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxUdev+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxUdev {
		return nil, fmt.Errorf("more than %d bytes", maxUdev)
	}
	props := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		property, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "E:")
		if !ok {
			continue
		}
		key, value, ok := strings.Cut(property, "=")
		if !ok || key == "" {
			return nil, errors.New("a property without a name or a value")
		}
		props[key] = value
	}
	return props, nil
}

// udevModel gives the model with its spaces, which ID_MODEL has as underscores and
// ID_MODEL_ENC as \x20.
func udevModel(props map[string]string) string {
	encoded := props["ID_MODEL_ENC"]
	if encoded == "" {
		return props["ID_MODEL"]
	}
	return trim([]byte(unescape(encoded)))
}

// unescape reads what udev writes for bytes that a name of a link cannot have: \x20.
func unescape(encoded string) string {
	var b strings.Builder
	for encoded != "" {
		if len(encoded) >= 4 && encoded[:2] == `\x` {
			if c, err := strconv.ParseUint(encoded[2:4], 16, 8); err == nil {
				b.WriteByte(byte(c))
				encoded = encoded[4:]
				continue
			}
		}
		b.WriteByte(encoded[0])
		encoded = encoded[1:]
	}
	return b.String()
}
