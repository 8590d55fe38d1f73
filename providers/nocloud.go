package providers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"pilotlight/config/resource"
)

// nocloud is cloud-init's name for a config on a drive (vfat or ISO 9660) that is
// labelled cidata or CIDATA, or at a seed: a URL that the kernel argument
// ds=nocloud;s=URL names, or a serial number of the machine of that form. A seed that
// is named counts, and no drive beside it. At either place the config is user-data,
// or vendor-data where user-data is for cloud-init itself.
var nocloud = Platform{
	Name:   "nocloud",
	Docs:   "https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html",
	Config: []Source{{"seed or drive", nocloudConfig}},
}

// driveWait is how long a drive may take to come, where the platform was named.
const driveWait = 30 * time.Second

// drivePoll is how often drives are looked at meanwhile.
const drivePoll = 500 * time.Millisecond

// A Drive is a file system with a label, of the kinds that removable media have.
type Drive struct {
	Node   string   `json:"node"`   // /dev/sr0
	Type   string   `json:"type"`   // vfat or iso9660
	Labels []string `json:"labels"` // vfat may have two
}

func (d Drive) String() string {
	var labels []string
	for _, l := range d.Labels {
		labels = append(labels, fmt.Sprintf("%q", l))
	}
	return d.Node + " (" + d.Type + " " + strings.Join(labels, ", ") + ")"
}

// A DriveError says that there is not exactly one drive with nocloud's label.
type DriveError struct {
	Fit    []Drive       // two or more, or none
	Seen   []Drive       // other drives, where none fits
	Waited time.Duration // for one to come
}

func (e *DriveError) Error() string {
	if len(e.Fit) == 0 {
		return fmt.Sprintf("no drive is labelled cidata or CIDATA after %s: %s", e.Waited, drivesSeen(e.Seen))
	}
	return fmt.Sprintf("%d drives are labelled cidata, and only one may be: %s", len(e.Fit), driveList(e.Fit))
}

func drivesSeen(list []Drive) string {
	if len(list) == 0 {
		return "no vfat or iso9660 has a label"
	}
	return "there is " + driveList(list)
}

func driveList(list []Drive) string {
	var names []string
	for _, d := range list {
		names = append(names, d.String())
	}
	return strings.Join(names, ", ")
}

// cidata are the drives with nocloud's label.
func cidata(list []Drive) []Drive {
	return slices.DeleteFunc(slices.Clone(list), func(d Drive) bool {
		return !slices.Contains(d.Labels, "cidata") && !slices.Contains(d.Labels, "CIDATA")
	})
}

func nocloudConfig(ctx context.Context, r Reach) (Answer, error) {
	seed, err := nocloudSeed(r)
	if err != nil {
		return Answer{}, err
	}
	if !seed.IsZero() {
		return seeded(seed.String(), func(name string) ([]byte, error) {
			u, err := resource.ParseURL(seed.Reveal() + name)
			if err != nil {
				return nil, err
			}
			data, err := r.Client().Bytes(ctx, resource.Resource{Source: u})
			if errors.Is(err, resource.ErrNotFound) {
				err = fs.ErrNotExist
			}
			return data, err
		})
	}
	drive, err := awaitDrive(ctx, r)
	if err != nil {
		return Answer{}, err
	}
	var answer Answer
	err = r.Open(drive, func(root fs.FS) error {
		var err error
		answer, err = seeded(drive.Node+":", func(name string) ([]byte, error) { return boundedFile(root, name) })
		return err
	})
	return answer, err
}

// nocloudSeed is the URL that a kernel argument, or else the firmware, names; zero if
// none. Unlike most of what the firmware says of a machine it may hold a password.
func nocloudSeed(r Reach) (resource.URL, error) {
	word, err := r.Argument("ds")
	if err != nil {
		return resource.URL{}, err
	}
	from := "kernel argument ds"
	if !strings.HasPrefix(word, "nocloud") {
		data, err := fs.ReadFile(r.Sys(), "class/dmi/id/product_serial")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return resource.URL{}, err
		}
		word, from = "", "serial number of the machine"
		line, _, _ := strings.Cut(string(data), "\n")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "ds="); ok {
			word = rest
		}
	}
	kind, rest, _ := strings.Cut(word, ";")
	if kind != "nocloud" && kind != "nocloud-net" {
		return resource.URL{}, nil
	}
	for field := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(field, "=")
		if key != "s" && key != "seedfrom" {
			continue
		}
		u, err := resource.ParseURL(value)
		if err == nil && !u.Remote() {
			err = errors.New("the seed is neither an http nor an https URL")
		}
		if err != nil {
			return resource.URL{}, fmt.Errorf("%s: %w", from, err)
		}
		return u, nil
	}
	return resource.URL{}, nil
}

// seeded chooses between the two files of a seed. read fails with fs.ErrNotExist for
// one that is not there.
func seeded(where string, read func(name string) ([]byte, error)) (Answer, error) {
	var why []string
	missing := 0
	for _, name := range []string{"user-data", "vendor-data"} {
		data, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			why = append(why, name+" is not there")
			missing++
			continue
		}
		if err == nil {
			data, err = unzipped(data)
		}
		if err != nil {
			return Answer{}, fmt.Errorf("%s: %w", name, err)
		}
		if kind := cloudInits(data); kind != "" {
			why = append(why, name+" is "+kind)
			continue
		}
		return Answer{Source: where + name, Bytes: data}, nil
	}
	text := strings.TrimSuffix(where, ":") + ": " + strings.Join(why, ", ")
	if missing == 2 {
		return Answer{}, errors.New(text)
	}
	return Answer{}, none(text)
}

// cloudInits says what data is, if it is for cloud-init and cannot be a config of
// ours; else "". The forms are those of
// https://docs.cloud-init.io/en/latest/explanation/format/index.html.
func cloudInits(data []byte) string {
	data = bytes.TrimSpace(data)
	lower := bytes.ToLower(data[:min(len(data), 64)])
	switch {
	case len(data) == 0:
		return "empty"
	case bytes.HasPrefix(data, []byte("#cloud-config")):
		return "a cloud-config"
	case bytes.HasPrefix(data, []byte("#!")):
		return "a script"
	case data[0] == '#', bytes.HasPrefix(lower, []byte("content-type:")), bytes.HasPrefix(lower, []byte("mime-version:")):
		return "for cloud-init"
	}
	return ""
}

// boundedFile reads a file of a drive.
func boundedFile(root fs.FS, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, resource.DefaultBytesLimit+1))
	if err == nil && len(data) > resource.DefaultBytesLimit {
		err = fmt.Errorf("more than %d bytes", resource.DefaultBytesLimit)
	}
	return data, err
}

// awaitDrive waits for the drive. That none comes is an error: whoever named this
// platform said that there is one.
func awaitDrive(ctx context.Context, r Reach) (Drive, error) {
	ctx, cancel := context.WithTimeout(ctx, driveWait)
	defer cancel()
	begin := time.Now()
	for {
		drives, err := r.Drives(ctx)
		if err != nil && ctx.Err() == nil {
			return Drive{}, err
		}
		switch fit := cidata(drives); {
		case len(fit) == 1:
			return fit[0], nil
		case len(fit) > 1:
			return Drive{}, &DriveError{Fit: fit}
		}
		select {
		case <-time.After(drivePoll):
		case <-ctx.Done():
			return Drive{}, &DriveError{Seen: drives, Waited: time.Since(begin).Round(time.Second)}
		}
	}
}
