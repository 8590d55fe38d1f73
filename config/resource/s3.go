package resource

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// An awsPartition is a part of AWS with names of its own
// (https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html).
type awsPartition struct {
	name    string
	prefix  string // of its regions' names
	region  string // that knows of all buckets; where nothing better is known, the first to be asked
	domain  string
	address string // in front of the region, in host names: with dual stack where there is that
}

// awsPartitions are the partitions, the one whose regions have no common prefix last.
func awsPartitions() []awsPartition {
	return []awsPartition{
		{"aws-cn", "cn-", "cn-north-1", "amazonaws.com.cn", "dualstack."},
		{"aws-us-gov", "us-gov-", "us-gov-west-1", "amazonaws.com", "dualstack."},
		{"aws-iso", "us-iso-", "us-iso-east-1", "c2s.ic.gov", ""},
		{"aws-iso-b", "us-isob-", "us-isob-east-1", "sc2s.sgov.gov", ""},
		{"aws-iso-e", "eu-isoe-", "eu-isoe-west-1", "cloud.adc-e.uk", ""},
		{"aws-iso-f", "us-isof-", "us-isof-south-1", "csp.hci.ic.gov", ""},
		{"aws-eusc", "eusc-", "eusc-de-east-1", "amazonaws.eu", "dualstack."},
		{"aws", "", "us-east-1", "amazonaws.com", "dualstack."},
	}
}

func partitionOfRegion(region string) awsPartition {
	var p awsPartition
	for _, p = range awsPartitions() {
		if strings.HasPrefix(region, p.prefix) {
			break
		}
	}
	return p
}

// s3Store asks for one object. It asks where the bucket most likely is; if it is
// elsewhere, the answer says where.
type s3Store struct {
	object  object
	account *Account

	region    string
	moved     int  // how often the region was another one
	set       bool // the time was taken from an answer
	signed    bool // in some request
	anonymous bool // from now on
}

// mostMoves bounds how often one download follows a bucket to another region.
const mostMoves = 3

func (s *s3Store) access(ctx context.Context) (access, error) {
	if s.region == "" {
		region, err := s.likely(ctx)
		if err != nil {
			return access{}, err
		}
		s.region = region
	}
	at := s.url()
	if s.anonymous {
		return access{at: at}, nil
	}
	keys, err := s.account.aws.get(ctx, s.account.AWS)
	switch {
	case errors.Is(err, ErrNobody) && s.object.account != "":
		return access{}, &Error{Err: ErrRefused, Cause: reason("an access point gives nothing to those who do not say who they are, and this machine has no role of AWS"),
			Hint: "give the instance a role, or name the bucket itself if it is public"}
	case errors.Is(err, ErrNobody):
		s.anonymous = true
		return access{at: at}, nil
	case err != nil:
		return access{}, err
	}
	s.signed = true
	region, now := s.region, s.account.clock()
	return access{at: at, sign: func(r *http.Request) { signAWS(r, keys, region, "s3", now) }}, nil
}

// likely is the region to be asked first.
func (s *s3Store) likely(ctx context.Context) (string, error) {
	if s.object.region != "" {
		return s.object.region, nil
	}
	if found := s.account.regionOf(s.object.bucket); found != "" {
		return found, nil
	}
	// The machine's own, if it lies in the partition that is meant.
	own, err := s.account.region.get(ctx, s.account.Region)
	if err != nil && !errors.Is(err, ErrNobody) {
		return "", err
	}
	if label(own) && (s.object.partition == "" || partitionOfRegion(own).name == s.object.partition) {
		return own, nil
	}
	var last awsPartition
	for _, last = range awsPartitions() {
		if last.name == s.object.partition {
			break
		}
	}
	return last.region, nil
}

// url is where the object is, as
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html says.
func (s *s3Store) url() *url.URL {
	p := partitionOfRegion(s.region)
	host := p.address + s.region + "." + p.domain
	var u *url.URL
	switch {
	case s.object.account != "":
		u = storeURL(s.object.bucket+"-"+s.object.account+".s3-accesspoint."+host, "", s.object.key)
	case hostable(s.object.bucket):
		u = storeURL(s.object.bucket+".s3."+host, "", s.object.key)
	default:
		u = storeURL("s3."+host, s.object.bucket, s.object.key)
	}
	if s.object.version != "" {
		u.RawQuery = "versionId=" + strings.ReplaceAll(escaped(s.object.version), "/", "%2F")
	}
	return u
}

func (s *s3Store) refused(status int, h http.Header, body string) bool {
	region := h.Get("X-Amz-Bucket-Region")
	if region == "" {
		region = between(body, "<Region>", "</Region>")
	}
	if region != s.region && label(region) && s.object.account == "" && s.moved < mostMoves {
		s.moved++
		s.region = region
		s.account.foundIn(s.object.bucket, region)
		return true
	}
	if !identityRefused(status) || s.anonymous {
		return false
	}
	// The clock of a machine that has just started may be off.
	if there, err := http.ParseTime(h.Get("Date")); err == nil && !s.set && strings.Contains(body, "<Code>RequestTimeTooSkewed</Code>") {
		s.account.set(there)
		s.set = true
		return true
	}
	// What is public may be closed to a role.
	if s.object.account != "" {
		return false
	}
	s.anonymous = true
	return true
}

func (s *s3Store) as() string { return asWhom(s.signed, s.anonymous) + ", in the region " + s.region }

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, there := strings.Cut(s, after)
	if !there {
		return ""
	}
	return s
}

// awsTime is the form of times in signatures: ISO 8601's basic one.
const awsTime = "20060102T150405Z"

func awsDay(t time.Time) string { return t.UTC().Format(awsTime)[:8] }
