package config

import (
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pilotlight/config/resource"
)

func TestArguments(t *testing.T) {
	for cmdline, want := range map[string][]argument{
		"":                         nil,
		"  quiet\n":                {{"quiet", "", false}},
		`a=b c= =d`:                {{"a", "b", true}, {"c", "", true}, {"", "d", true}},
		`a="b c" "d=e f" g'h i'=j`: {{"a", "b c", true}, {"d", "e f", true}, {"gh i", "j", true}},
		`a="b 'c' d" e='"'`:        {{"a", "b 'c' d", true}, {"e", `"`, true}},
		`a=b=c a\ b`:               {{"a", "b=c", true}, {`a\`, "", false}, {"b", "", false}},
		`a="open b`:                {{"a", "open b", true}},
		`"" x`:                     {{"", "", false}, {"x", "", false}},
	} {
		if got := arguments(cmdline); !slices.Equal(got, want) {
			t.Errorf("%q: got %v", cmdline, got)
		}
	}
}

func TestReadKnobs(t *testing.T) {
	u := func(s string) resource.URL {
		u, err := resource.ParseURL(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	config := resource.NewSecret("{}\n")
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for _, c := range []struct {
		name, cmdline string
		credentials   fs.FS
		want          Knobs
	}{
		{"nothing", "root=/dev/vda1 quiet", nil, Knobs{}},
		{"all", `pilotlight.platform=metal pilotlight.config.url="http://h/c?a=b" pilotlight.run=first-boot pilotlight.onfailure=poweroff ` +
			`pilotlight.deadline=90 pilotlight.proxy=http://p:3128 pilotlight.firstboot=yes pilotlight.strict pilotlight.debug=1`, fstest.MapFS{},
			Knobs{Platform: "metal", ConfigURL: u("http://h/c?a=b"), Run: RunFirstBoot, OnFailure: OnFailurePoweroff,
				Deadline: 90 * time.Second, Proxy: u("http://p:3128"), FirstBoot: true, Strict: true, Debug: true}},
		{"off, whatever else is wrong", "pilotlight=no pilotlight.deadline=x pilotlight.strict", nil, Knobs{Off: true}},
		{"on", "pilotlight=no pilotlight=yes pilotlight.strict=off", nil, Knobs{}},
		{"the last one counts", "pilotlight.onfailure=reboot pilotlight.onfailure=emergency", nil, Knobs{OnFailure: OnFailureEmergency}},
		{"Ignition's", "ignition.platform.id=qemu ignition.config.url=http://h/i", nil, Knobs{Platform: "qemu", ConfigURL: u("http://h/i")}},
		{"ours before Ignition's", "pilotlight.platform=auto ignition.platform.id=qemu ignition.config.url=http://h/i pilotlight.config.url=http://h/p", nil,
			Knobs{ConfigURL: u("http://h/p")}},
		{"credentials", "", fstest.MapFS{"pilotlight.platform": file("metal\n"), "pilotlight.strict": file("yes"), "pilotlight.config": file("{}\n"),
			"pilotlight.config.url": file("data:,x"), "pilotlight.deadline": file("1h 30min"), "other": file("?")},
			Knobs{Platform: "metal", Strict: true, Config: &config, ConfigURL: u("data:,x"), Deadline: 90 * time.Minute}},
		{"arguments before credentials", "pilotlight.onfailure=reboot ignition.platform.id=qemu pilotlight.strict=no",
			fstest.MapFS{"pilotlight.onfailure": file("poweroff"), "pilotlight.platform": file("metal"), "pilotlight.strict": file("yes")},
			Knobs{OnFailure: OnFailureReboot, Platform: "qemu"}},
		{"media", "pilotlight.media pilotlight.media=yes", nil, Knobs{Media: new(true)}},
		{"no media, whatever a credential says", "pilotlight.media=no", fstest.MapFS{"pilotlight.media": file("yes")}, Knobs{Media: new(false)}},
		{"off by credential", "", fstest.MapFS{"pilotlight": file("no\n")}, Knobs{Off: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadKnobs(c.cmdline, c.credentials)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

type closedFS struct{}

func (closedFS) Open(string) (fs.File, error) { return nil, fs.ErrPermission }

func TestReadKnobsFails(t *testing.T) {
	for _, c := range []struct {
		cmdline     string
		credentials fs.FS
		want        []string
	}{
		{"pilotlight=maybe", nil, []string{`kernel argument pilotlight: is neither "yes" nor "no"`}},
		{"pilotlight.strict=hunter2 pilotlight.debug=", nil, []string{`kernel argument pilotlight.strict: is neither "yes" nor "no"`, `kernel argument pilotlight.debug: is neither "yes" nor "no"`}},
		{"pilotlight.platform pilotlight.deadline pilotlight.run", nil, []string{"kernel argument pilotlight.run: has no value",
			"kernel argument pilotlight.deadline: has no value", "kernel argument pilotlight.platform: has no value"}},
		{"pilotlight.run=every-boot", nil, []string{`kernel argument pilotlight.run: "every-boot" is not built in this version of pilotlight`}},
		{"pilotlight.onfailure=halt", nil, []string{"kernel argument pilotlight.onfailure: is not one of emergency, reboot, poweroff"}},
		{"ignition.platform.id=A/B", nil, []string{`kernel argument ignition.platform.id: is not the name of a platform (lower-case letters, digits and "-"; "auto" to detect it)`}},
		{"pilotlight.config.url=http://user:hunter2@[h/", nil, []string{"kernel argument pilotlight.config.url: url: malformed: no valid URL"}},
		{"pilotlight.config.url=", nil, []string{"kernel argument pilotlight.config.url: has no value"}},
		{"pilotlight.proxy=data:,hunter2", nil, []string{"kernel argument pilotlight.proxy: is not the URL of a proxy (http://HOST:PORT)"}},
		{"pilotlight.onfaliure=reboot pilotlight.x=1 pilotlight.onfaliure=reboot", nil, []string{
			`kernel argument "pilotlight.onfaliure": is not known (did you mean pilotlight.onfailure?)`, `kernel argument "pilotlight.x": is not known`}},
		{"pilotlight.config={}", nil, []string{"kernel argument pilotlight.config: a config is given as a system credential, since every program can read the kernel's arguments (its address is pilotlight.config.url)"}},
		{"pilotlight.media=hunter2", nil, []string{`kernel argument pilotlight.media: is neither "yes" nor "no"`}},
		{"", fstest.MapFS{"pilotlight.media": {Data: []byte("yes")}}, []string{"system credential pilotlight.media: is for the image to say: a kernel argument or a base fragment"}},
		{"", fstest.MapFS{"pilotlight.deadline": {Data: []byte("hunter2")}}, []string{"system credential pilotlight.deadline: is not a time span (as in 90s, 5min or 1h 30min; 1 s to 24 h)"}},
		{"", fstest.MapFS{"pilotlight.platform": {Data: []byte(strings.Repeat("a", maxKnob+1))}}, []string{"system credential pilotlight.platform: has more than 4096 bytes"}},
		{"pilotlight pilotlight.run=first-boot pilotlight.onfailure=reboot pilotlight.deadline=1 pilotlight.proxy=http://p pilotlight.firstboot pilotlight.strict pilotlight.debug pilotlight.media pilotlight.platform=a pilotlight.config.url=http://h",
			closedFS{}, []string{"system credential pilotlight.config: permission denied"}},
	} {
		got, err := ReadKnobs(c.cmdline, c.credentials)
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Errorf("%q: got %v", c.cmdline, err)
			continue
		}
		var faults []string
		for _, e := range joined.Unwrap() {
			if _, ok := errors.AsType[*KnobError](e); !ok {
				t.Errorf("%q: %T", c.cmdline, e)
			}
			faults = append(faults, e.Error())
		}
		if !slices.Equal(faults, c.want) {
			t.Errorf("%q: got\n%s\nwant\n%s", c.cmdline, strings.Join(faults, "\n"), strings.Join(c.want, "\n"))
		}
		if !reflect.DeepEqual(got, Knobs{}) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %+v, %v", c.cmdline, got, err)
		}
	}
}

func TestSpan(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1": time.Second, "90s": 90 * time.Second, "5min": 5 * time.Minute, "1h 30min": 90 * time.Minute, "2h3m4s": 2*time.Hour + 3*time.Minute + 4*time.Second,
		" 10 sec ": 10 * time.Second, "24h": 24 * time.Hour,
	} {
		if got, err := span(s); err != nil || got != want {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "s", "-1", "1.5h", "5x", "25h", "24h 1s", "99999999999999999999", "4294967295h", "infinity"} {
		if got, err := span(s); err == nil || !strings.HasPrefix(err.Error(), "is not a time span") {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
}

func TestKnobsOr(t *testing.T) {
	base := section(t, `"policy": {"onFailure": "reboot"}`)
	record := section(t, `"policy": {"run": "first-boot", "onFailure": "poweroff"}`)
	if got := (Knobs{}).Or(base).Or(record); got.OnFailure != OnFailureReboot || got.Run != RunFirstBoot {
		t.Errorf("got %+v", got)
	}
	if got := (Knobs{OnFailure: OnFailureEmergency}).Or(base); got.OnFailure != OnFailureEmergency {
		t.Errorf("got %+v", got)
	}
	if got := (Knobs{}).DeadlineOrDefault(); got != 5*time.Minute {
		t.Errorf("got %v", got)
	}
}

// TestMediaIsTheImagesWord: an argument, else a base fragment, else no.
func TestMediaIsTheImagesWord(t *testing.T) {
	for _, c := range []struct {
		argument, base *bool
		want           bool
	}{
		{nil, nil, false}, {nil, new(false), false}, {nil, new(true), true},
		{new(true), nil, true}, {new(true), new(false), true}, {new(false), new(true), false},
	} {
		if got := (Knobs{Media: c.argument}).OrMedia(c.base).MediaOrDefault(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestArgument(t *testing.T) {
	for cmdline, want := range map[string]string{
		"": "", "ds=a": "a", "ds": "", "ads=a ds2=b": "", "ds=a ds=b": "b", "x ds='nocloud;s=http://h/ x' y": "nocloud;s=http://h/ x", "DS=a": "",
	} {
		if got := Argument(cmdline, "ds"); got != want {
			t.Errorf("%q: %q", cmdline, got)
		}
	}
}

// FuzzReadKnobs checks that no command line makes the reader panic or lead to
// knobs that are out of bounds.
func FuzzReadKnobs(f *testing.F) {
	f.Add(`pilotlight.deadline="1h 30min" pilotlight.config.url='http://h/' pilotlight.run=first-boot`)
	f.Fuzz(func(t *testing.T, cmdline string) {
		k, err := ReadKnobs(cmdline, nil)
		if err == nil && k.Deadline != 0 && (k.Deadline < time.Second || k.Deadline > 24*time.Hour) {
			t.Fatalf("deadline %v", k.Deadline)
		}
	})
}
