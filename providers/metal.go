package providers

import (
	"context"
	"net/url"

	"pilotlight/config/resource"
)

// metal is a machine of somebody's own. Nothing on it says where the config is:
// an argument or a credential does (pilotlight.config.url, ignition.config.url,
// pilotlight.config), and those are asked on any platform before the platform is.
var metal = Platform{
	Name: "metal",
	Docs: "pilotlight.config.url= on the kernel command line, or a system credential of that name",
}

// Direct is a config that an argument or a credential names, by URL. On platform
// metal the address of a matchbox is completed by what the machine calls itself.
func Direct(ctx context.Context, platform, from string, r Reach) (Answer, error) {
	u, err := resource.ParseURL(from)
	if err != nil {
		return Answer{}, err
	}
	if platform == metal.Name {
		if u, err = labelled(ctx, u, r); err != nil {
			return Answer{}, err
		}
	}
	data, err := r.Client().Bytes(ctx, resource.Resource{Source: u})
	return Answer{Source: u.String(), Bytes: data}, err
}

// labelled adds the machine's labels where the path is exactly /ignition and there
// is no query: that is a matchbox, and a boot loader that expands nothing. Nothing
// is sent to any other URL.
func labelled(ctx context.Context, u resource.URL, r Reach) (resource.URL, error) {
	parsed, err := url.Parse(u.Reveal())
	if err != nil || parsed.Path != "/ignition" || parsed.RawQuery != "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return u, nil // ParseURL judged it; what is no matchbox is left alone
	}
	labels, err := r.Labels(ctx, parsed.Host)
	if err != nil {
		return u, err
	}
	query := url.Values{}
	for k, v := range labels {
		query.Set(k, v)
	}
	parsed.RawQuery = query.Encode()
	return resource.ParseURL(parsed.String())
}
