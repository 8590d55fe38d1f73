package providers

import (
	"bytes"
	"fmt"

	"pilotlight/config/resource"
)

// unzipped undoes gzip (RFC 1952), by which user data is made to fit: what begins
// with its magic number cannot be a config. The result has at most
// resource.DefaultBytesLimit bytes.
func unzipped(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, nil
	}
	text := resource.NewSecret(string(data))
	plain, err := resource.Resource{Inline: &text, Compression: resource.Gzip}.Local()
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	return plain, nil
}
