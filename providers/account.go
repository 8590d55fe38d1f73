package providers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"cloud.google.com/go/compute/metadata"
	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"pilotlight/config/resource"
)

// Account is as whom a machine may ask the stores of its own cloud. Which cloud that
// is, if any, the platform's name says; where that is the name of no cloud that has
// identities, as metal, or "" or auto, the firmware's markers do. So nobody asks for
// an identity on a machine of which nothing says that it is in that cloud, and on all
// others stores are asked anonymously. Nothing is asked before it is needed.
func Account(platform string, r Reach) *resource.Account {
	in := func(cloud string) (bool, error) {
		all := clouds()
		if slices.ContainsFunc(all, func(p Platform) bool { return p.Name == platform }) {
			return cloud == platform, nil
		}
		found, err := marked(all, r.Sys())
		return found.Platform.Name == cloud, err
	}
	return &resource.Account{
		AWS:    identity(in, "aws", func(ctx context.Context) (resource.Keys, error) { return ec2Keys(ctx, r.Metadata()) }),
		Region: identity(in, "aws", func(ctx context.Context) (string, error) { return ec2Region(ctx, r.Metadata()) }),
		Google: identity(in, "gcp", func(ctx context.Context) (resource.Secret, error) { return gceToken(ctx, r.Metadata()) }),
		Azure:  identity(in, "azure", func(ctx context.Context) (resource.Secret, error) { return azureToken(ctx, r.Metadata()) }),
	}
}

// clouds are those that have identities for their machines.
func clouds() []Platform {
	return []Platform{aws, gcp,
		// All virtual machines of Azure have this asset tag, and no others.
		{Name: "azure", Match: []Marks{{{"class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"}}}},
	}
}

// identity asks only where the machine is in that cloud.
func identity[T any](in func(cloud string) (bool, error), cloud string, ask func(context.Context) (T, error)) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) {
		var none T
		there, err := in(cloud)
		if err == nil && !there {
			err = resource.ErrNobody
		}
		if err != nil {
			return none, err
		}
		return ask(ctx)
	}
}

// nobody is ErrNone where an identity was asked for.
func nobody(err error) error {
	if errors.Is(err, ErrNone) {
		return resource.ErrNobody
	}
	return err
}

// ec2Keys are those of the role that is given to this instance
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html).
func ec2Keys(ctx context.Context, client *resource.Client) (resource.Keys, error) {
	a, err := first(ctx, client, ec2Addresses(), func(ctx context.Context, client *resource.Client, address string) (Answer, error) {
		const list = "iam/security-credentials/"
		m := newEC2Metadata(client, address)
		roles, err := m.item(ctx, list)
		if err != nil {
			return Answer{}, err
		}
		role, _, _ := strings.Cut(strings.TrimSpace(string(roles)), "\n")
		if role == "" {
			return Answer{}, ErrNone
		}
		keys, err := m.item(ctx, list+role)
		return Answer{Bytes: keys}, err
	})
	if err != nil {
		return resource.Keys{}, nobody(err)
	}
	var said struct{ Code, AccessKeyId, SecretAccessKey, Token string }
	if err := json.Unmarshal(a.Bytes, &said); err != nil || said.Code != "Success" || said.AccessKeyId == "" || said.SecretAccessKey == "" {
		// Its own words may hold what must not be told.
		return resource.Keys{}, &ServiceError{Address: linkLocal, What: "the keys of this instance's role are not what the instance metadata service gives out"}
	}
	return resource.Keys{ID: said.AccessKeyId, Secret: resource.NewSecret(said.SecretAccessKey), Session: resource.NewSecret(said.Token)}, nil
}

// ec2Region is the region in which this instance runs.
func ec2Region(ctx context.Context, client *resource.Client) (string, error) {
	a, err := first(ctx, client, ec2Addresses(), func(ctx context.Context, client *resource.Client, address string) (Answer, error) {
		region, err := newEC2Metadata(client, address).item(ctx, "placement/region")
		return Answer{Bytes: bytes.TrimSpace(region)}, err
	})
	return string(a.Bytes), nobody(err)
}

// ec2Metadata is one address of the instance metadata service, with one token for all
// that it is asked for.
type ec2Metadata struct {
	service *service
	imds    *imds.Client
}

func newEC2Metadata(client *resource.Client, address string) ec2Metadata {
	s := &service{client: client, address: address, headers: ec2Headers()}
	return ec2Metadata{s, imds.New(imds.Options{
		Endpoint: address, HTTPClient: &http.Client{Transport: s},
		ClientEnableState: imds.ClientEnabled, EnableFallback: sdk.FalseTernary,
		Retryer: sdk.NopRetryer{}, DisableDefaultTimeout: true, DisableDefaultMaxBackoff: true,
	})}
}

// item asks as ec2UserData does. ErrNone where the service does not have it, or is turned off.
func (m ec2Metadata) item(ctx context.Context, path string) ([]byte, error) {
	s := m.service
	out, err := m.imds.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	switch {
	case err == nil:
		return io.ReadAll(out.Content)
	case s.path == ec2Token && s.status == http.StatusNotFound:
		source, err := resource.ParseURL(s.address + "/latest/meta-data/" + path)
		if err != nil {
			return nil, err
		}
		data, err := s.client.Bytes(ctx, resource.Resource{Source: source})
		if errors.Is(err, resource.ErrNotFound) {
			return nil, ErrNone
		}
		return data, err
	case s.status == http.StatusNotFound, s.status == http.StatusUnauthorized, s.status == http.StatusForbidden:
		return nil, ErrNone
	}
	return nil, s.fault("the instance metadata service does not take the request")
}

// gceToken is one of the service account that is given to this machine
// (https://cloud.google.com/compute/docs/access/authenticate-workloads).
func gceToken(ctx context.Context, client *resource.Client) (resource.Secret, error) {
	a, err := first(ctx, client, gceAddresses(), func(ctx context.Context, client *resource.Client, address string) (Answer, error) {
		s := gceService(client, address)
		text, err := metadata.NewClient(&http.Client{Transport: s}).GetWithContext(ctx, "instance/service-accounts/default/token")
		switch {
		case errors.As(err, new(metadata.NotDefinedError)), s.status == http.StatusForbidden:
			return Answer{}, ErrNone
		case err != nil:
			return Answer{}, s.fault("the metadata server refuses this machine")
		}
		return Answer{Bytes: []byte(text)}, nil
	})
	if err != nil {
		return resource.Secret{}, nobody(err)
	}
	return bearer(a.Bytes)
}

// azureToken is one of the managed identity that is given to this machine, for
// storage (https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
func azureToken(ctx context.Context, client *resource.Client) (resource.Secret, error) {
	source, err := resource.ParseURL(linkLocal + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F")
	if err != nil {
		return resource.Secret{}, err
	}
	data, err := client.Bytes(ctx, resource.Resource{Source: source, Headers: []resource.Header{{Name: "Metadata", Value: resource.NewSecret("true")}}})
	switch {
	// 400 is what it says of a machine without an identity.
	case errors.Is(err, resource.ErrRefused), errors.Is(err, resource.ErrNotFound):
		return resource.Secret{}, resource.ErrNobody
	case err != nil:
		return resource.Secret{}, err
	}
	return bearer(data)
}

// bearer reads the answer of RFC 6749, section 5.1.
func bearer(data []byte) (resource.Secret, error) {
	var said struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(data, &said); err != nil || said.Token == "" || strings.ContainsFunc(said.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return resource.Secret{}, &ServiceError{Address: linkLocal, What: "what answers gives no token of this machine's identity"}
	}
	return resource.NewSecret(said.Token), nil
}
