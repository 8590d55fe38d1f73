package providers

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"cloud.google.com/go/compute/metadata"
	"pilotlight/config/resource"
)

// gcp keeps the config in the attribute user-data of an instance, as it is or
// gzipped; in base64 where the attribute user-data-encoding says so.
//
// Serial numbers there begin with GoogleCloud-, which is not looked at: only root
// may read them, and a serial number is not for the log.
var gcp = Platform{
	Name:  "gcp",
	Docs:  "https://cloud.google.com/compute/docs/metadata/overview",
	Match: []Marks{{{"class/dmi/id/product_name", "Google Compute Engine"}}},
	Config: []Source{{"user-data", func(ctx context.Context, r Reach) (Answer, error) {
		return first(ctx, r.Metadata(), gceAddresses(), gceUserData)
	}}},
}

// gceAddresses are where the metadata server is, in each family of addresses.
func gceAddresses() []string { return []string{linkLocal, "http://[fd20:ce::254]"} }

// gceService is one address of the metadata server, which says in each answer that it is one.
func gceService(client *resource.Client, address string) *service {
	return &service{client: client, address: address, headers: []string{"Metadata-Flavor"}, judge: func(h http.Header) *ServiceError {
		if h.Get("Metadata-Flavor") == "Google" {
			return nil
		}
		return &ServiceError{What: "what answers is not the metadata server: its answer has no header Metadata-Flavor: Google"}
	}}
}

// gceUserData asks one address of the metadata server.
func gceUserData(ctx context.Context, client *resource.Client, address string) (Answer, error) {
	s := gceService(client, address)
	c := metadata.NewClient(&http.Client{Transport: s})
	attribute := func(name string) (string, error) {
		value, err := c.InstanceAttributeValueWithContext(ctx, name)
		if errors.As(err, new(metadata.NotDefinedError)) {
			return "", ErrNone
		}
		if err != nil {
			return "", s.fault("the metadata server refuses this machine")
		}
		return value, nil
	}
	text, err := attribute("user-data")
	if err != nil || text == "" {
		return Answer{}, err
	}
	data, source := []byte(text), address+s.path
	encoding, err := attribute("user-data-encoding")
	switch encoding = strings.TrimSpace(encoding); {
	case err != nil && !errors.Is(err, ErrNone):
		return Answer{}, err
	case encoding == "":
	case encoding == "base64":
		if data, err = base64.StdEncoding.DecodeString(string(bytes.TrimSpace(data))); err != nil {
			// Its own words would say at which byte, and that is all that they say.
			return Answer{}, errors.New("the attribute user-data is not the base64 that user-data-encoding says it is")
		}
	default:
		return Answer{}, errors.New("the attribute user-data-encoding is not base64, and no other encoding is known")
	}
	data, err = unzipped(data)
	return Answer{Source: source, Bytes: data}, err
}
