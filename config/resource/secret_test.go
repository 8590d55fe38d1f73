package resource

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// canary stands in every secret place of the tests, and so must be in no output.
const canary = "CANARY7f3a"

// quiet fails if s holds the canary, plain, in hexadecimal, or as a list of bytes.
func quiet(t *testing.T, s string) {
	t.Helper()
	list := strings.Trim(fmt.Sprint([]byte(canary)), "[]")
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), list} {
		if strings.Contains(s, form) {
			t.Errorf("secret in %q", s)
		}
	}
}

// private has what package fmt prints without asking methods.
type private struct {
	secret  Secret
	url     URL
	header  Header
	pointer *Secret
}

func secretURL(t *testing.T) URL {
	t.Helper()
	u, err := ParseURL("https://" + canary + ":" + canary + "@example.com/path?q=" + canary + "#" + canary)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestSecretsDoNotPrint(t *testing.T) {
	secret := NewSecret(canary)
	u := secretURL(t)
	data, err := ParseURL("data:," + canary)
	if err != nil {
		t.Fatal(err)
	}
	r := Resource{Source: u, Inline: &secret, Headers: []Header{{"X-Token", secret}}}
	values := []any{
		secret, &secret, []Secret{secret}, map[string]Secret{"k": secret}, struct{ S Secret }{secret},
		u, &u, []URL{u}, data, Header{"X-Token", secret}, r, &r, Resource{Inline: &secret}, Resource{Source: data},
		private{secret, u, Header{"X-Token", secret}, &secret}, &private{secret: secret},
	}
	for _, v := range values {
		for _, verb := range "vsqxXdboOcUeEfFgGtTp" {
			for _, flags := range []string{"", "+", "#", "-20", " ", "020.3"} {
				quiet(t, fmt.Sprintf("%"+flags+string(verb), v))
			}
		}
		quiet(t, fmt.Sprint(v)+fmt.Sprintln(v))
		b, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		quiet(t, string(b))
		b, _ = xml.Marshal(v) // refuses maps
		quiet(t, string(b))
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "v", v)
		quiet(t, log.String())
	}
}

func TestSecret(t *testing.T) {
	s := NewSecret(canary)
	if s.Reveal() != canary || s.Empty() {
		t.Error("the text is not what was put in")
	}
	if !(Secret{}).Empty() || !NewSecret("").Empty() || (Secret{}).Reveal() != "" {
		t.Error("an empty secret is not empty")
	}
	for _, s := range []Secret{s, {}} {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		js, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{s.String(), s.GoString(), string(text), fmt.Sprintf("%d", s), fmt.Sprintf("%#v", s), strings.Trim(string(js), `"`)}
		for _, g := range got {
			if g != "[secret]" {
				t.Errorf("got %q", g)
			}
		}
	}
	if !reflect.DeepEqual(NewSecret("a"), NewSecret("a")) || reflect.DeepEqual(NewSecret("a"), NewSecret("b")) {
		t.Error("secrets do not compare by their text")
	}
}
