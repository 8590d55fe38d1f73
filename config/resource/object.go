package resource

import (
	"net/url"
	"strings"
)

// An object is something in a store of a cloud: what an s3, arn or gs URL names.
type object struct {
	partition string // of AWS; "" where the URL does not say
	region    string // of AWS; "" where the store has to be asked for it
	account   string // of AWS, whose access point is named; "" for a bucket
	bucket    string // or the access point
	key       string
	version   string // "" for the newest
}

// s3Object reads s3://BUCKET/KEY?versionId=VERSION. As in Ignition, slashes in front
// of the key are no part of it.
func s3Object(u *url.URL) (object, reason) {
	o := object{bucket: u.Host, key: strings.TrimLeft(u.Path, "/")}
	if !bucketName(o.bucket) {
		return o, "no name of a bucket after s3://"
	}
	return o.ofVersion(u)
}

// arnObject reads an Amazon resource name of an object
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-arn-format.html), in a
// bucket or behind an access point, with ?versionId=VERSION behind it:
//
//	arn:PARTITION:s3:::BUCKET/KEY
//	arn:PARTITION:s3:REGION:ACCOUNT:accesspoint/NAME/object/KEY
//
// Nothing in it is percent-encoded. Access points of several regions have no region,
// and are not supported.
func arnObject(u *url.URL) (object, reason) {
	const form = "not of the form arn:PARTITION:s3:::BUCKET/KEY or arn:PARTITION:s3:REGION:ACCOUNT:accesspoint/NAME/object/KEY"
	part := strings.SplitN(u.Opaque, ":", 5)
	if len(part) != 5 || part[1] != "s3" {
		return object{}, form
	}
	o := object{partition: part[0]}
	rest, behind := strings.CutPrefix(part[4], "accesspoint/")
	o.bucket, o.key, _ = strings.Cut(rest, "/")
	if !label(o.partition) || !bucketName(o.bucket) {
		return o, form
	}
	if behind {
		var word string
		word, o.key, _ = strings.Cut(o.key, "/")
		if o.region, o.account = part[2], part[3]; o.region == "" {
			return o, "it names no region: access points of several regions are not supported"
		}
		if word != "object" || !label(o.region) || !label(o.account) || !label(o.bucket) {
			return o, form
		}
	}
	return o.ofVersion(u)
}

func (o object) ofVersion(u *url.URL) (object, reason) {
	if o.key == "" {
		return o, "no key of an object"
	}
	if v, there := u.Query()["versionId"]; there {
		if o.version = v[0]; o.version == "" {
			return o, "an empty versionId"
		}
	}
	return o, ""
}

// gsObject reads gs://BUCKET/OBJECT. The query may name a version, as generation=N.
func gsObject(u *url.URL) (object, reason) {
	o := object{bucket: u.Host, key: strings.TrimLeft(u.Path, "/"), version: u.Query().Get("generation")}
	switch {
	case !bucketName(o.bucket):
		return o, "no name of a bucket after gs://"
	case o.key == "":
		return o, "no name of an object"
	}
	return o, ""
}

// bucketName reports whether s can be the name of a bucket. Older buckets have capitals
// and underscores. What comes from it is a host name or a part of a path.
func bucketName(s string) bool {
	return madeOf(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", 255) && strings.Trim(s, ".") != ""
}

// hostable reports whether a bucket can stand in front of its store's host name. One
// with a point in it would not fit the store's certificate.
func hostable(bucket string) bool { return len(bucket) >= 3 && label(bucket) }

// label reports whether s is a label of a host name (RFC 1123) in lower case.
func label(s string) bool {
	return madeOf(s, "abcdefghijklmnopqrstuvwxyz0123456789-", 63) && s[0] != '-' && s[len(s)-1] != '-'
}

func madeOf(s, of string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, of) == ""
}

// escaped encodes a key for the path of a request: all but unreserved characters
// (RFC 3986, section 2.3) and slashes, as signatures of AWS want it.
func escaped(key string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// storeURL is the address of a key on a host, below a bucket where that is not "".
func storeURL(host, bucket, key string) *url.URL {
	path := "/" + key
	if bucket != "" {
		path = "/" + bucket + path
	}
	return &url.URL{Scheme: "https", Host: host, Path: path, RawPath: escaped(path)}
}
