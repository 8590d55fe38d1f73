package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"pilotlight/providers"
)

func TestDetectionIsShown(t *testing.T) {
	seen := []providers.Sight{{File: "class/dmi/id/sys_vendor", Value: "QEMU"}, {File: "class/dmi/id/product_name", Value: ""}}
	drive := providers.Drive{Node: "/dev/sr0", Type: "iso9660", Labels: []string{"cidata"}}
	known := providers.Detection{
		Platform: providers.Platform{Name: "nocloud", Docs: "https://docs.example/"}, Why: "the drive is there", Seen: seen,
		Fits: []string{"qemu"}, Looked: true, Drives: []providers.Drive{drive},
	}
	unknown := providers.Detection{Seen: seen}
	none := &providers.DetectError{Detection: unknown}
	blind := errors.New("platform: permission denied")
	for name, c := range map[string]struct {
		d         providers.Detection
		err       error
		json      bool
		out, said string
		want      error
	}{
		"known": {d: known, out: "nocloud\n", said: "because   the drive is there\n" +
			"looked at class/dmi/id/sys_vendor=\"QEMU\"\nlooked at class/dmi/id/product_name=\"\"\ndrive     /dev/sr0 (iso9660 \"cidata\")\nfits      qemu\n"},
		"unknown":          {d: unknown, err: none, want: none, said: "looked at class/dmi/id/sys_vendor=\"QEMU\"\nlooked at class/dmi/id/product_name=\"\"\n"},
		"could not look":   {err: blind, want: blind},
		"nothing, as JSON": {err: blind, want: blind, json: true},
		"known, as JSON": {d: known, json: true, out: `{"platform":"nocloud","docs":"https://docs.example/","why":"the drive is there",` +
			`"seen":[{"file":"class/dmi/id/sys_vendor","value":"QEMU"},{"file":"class/dmi/id/product_name","value":""}],"fits":["qemu"],` +
			`"drives":[{"node":"/dev/sr0","type":"iso9660","labels":["cidata"]}]}`},
		"unknown, as JSON": {d: unknown, err: blind, want: errShown, json: true, out: `{"platform":null,"error":"platform: permission denied",` +
			`"seen":[{"file":"class/dmi/id/sys_vendor","value":"QEMU"},{"file":"class/dmi/id/product_name","value":""}],"fits":[]}`},
	} {
		var out, said bytes.Buffer
		err := detected(show{out: &out, err: &said}, c.d, c.err, c.json)
		got := out.String()
		if c.json && c.out != "" {
			var compact bytes.Buffer
			if err := json.Compact(&compact, out.Bytes()); err != nil {
				t.Fatal(err)
			}
			got = compact.String()
		}
		if got != c.out || said.String() != c.said || err != c.want {
			t.Errorf("%s: %v\n%s\n%s", name, err, got, said.String())
		}
	}
}
