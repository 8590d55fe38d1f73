package providers

import (
	"context"
	"errors"
	"io"
	"net/http"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"pilotlight/config/resource"
)

// aws keeps the config as the user data of an EC2 instance, as it is or gzipped.
//
// The UUIDs by which old Xen instances are often known begin with three certain
// digits, as does one of 4096 random ones: they are not looked at. Xen of Amazon
// gives its version a certain end.
var aws = Platform{
	Name: "aws",
	Docs: "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html",
	Match: []Marks{
		{{"class/dmi/id/sys_vendor", "Amazon EC2"}},
		{{"class/dmi/id/bios_vendor", "Amazon EC2"}},
		{{"class/dmi/id/sys_vendor", "Xen"}, {"class/dmi/id/product_version", "*.amazon"}},
	},
	Config: []Source{{"user data", func(ctx context.Context, r Reach) (Answer, error) {
		return first(ctx, r.Metadata(), ec2Addresses(), ec2UserData)
	}}},
}

const (
	ec2Token = "/latest/api/token"
	ec2Data  = "/latest/user-data"
)

// ec2Addresses are where the instance metadata service is, in each family of addresses.
func ec2Addresses() []string { return []string{linkLocal, "http://[fd00:ec2::254]"} }

// ec2Headers are those that it understands.
func ec2Headers() []string {
	return []string{"X-Aws-Ec2-Metadata-Token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"}
}

// ec2UserData asks one address of the instance metadata service, with a token
// (IMDSv2). Only a service that says it has no tokens, as those of other clouds that
// speak like EC2, is asked without.
func ec2UserData(ctx context.Context, client *resource.Client, address string) (Answer, error) {
	s := &service{client: client, address: address, headers: ec2Headers()}
	c := imds.New(imds.Options{
		Endpoint: address, HTTPClient: &http.Client{Transport: s},
		ClientEnableState: imds.ClientEnabled, EnableFallback: sdk.FalseTernary,
		// Ours are the only tries, and the only bounds.
		Retryer: sdk.NopRetryer{}, DisableDefaultTimeout: true, DisableDefaultMaxBackoff: true,
	})
	var data []byte
	out, err := c.GetUserData(ctx, nil)
	switch {
	case err == nil:
		if data, err = io.ReadAll(out.Content); err != nil {
			return Answer{}, err
		}
	case s.path == ec2Token && s.status == http.StatusNotFound:
		if client.Tell != nil {
			client.Tell(address + " gives no tokens (IMDSv2): asking without")
		}
		source, err := resource.ParseURL(address + ec2Data)
		if err != nil {
			return Answer{}, err
		}
		data, err = client.Bytes(ctx, resource.Resource{Source: source})
		if errors.Is(err, resource.ErrNotFound) {
			return Answer{}, ErrNone
		}
		if err != nil {
			return Answer{}, err
		}
	case s.path == ec2Data && s.status == http.StatusNotFound:
		return Answer{}, ErrNone
	case s.status == http.StatusUnauthorized, s.status == http.StatusForbidden:
		return Answer{}, s.fault("the instance metadata service is turned off for this instance, or refuses it: look at its metadata options")
	case s.status == http.StatusOK:
		return Answer{}, s.fault("what answers does not speak as the instance metadata service does")
	default:
		return Answer{}, s.fault("the instance metadata service does not take the request")
	}
	data, err = unzipped(data)
	return Answer{Source: address + ec2Data, Bytes: data}, err
}
