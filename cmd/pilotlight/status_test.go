package main

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"

	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// booted is a first boot that came to its end.
func booted() initrd.Report {
	mode := fs.FileMode(0o644)
	step := func(s initrd.Step, deed string, lost ...string) initrd.ReportedStep {
		return initrd.ReportedStep{Wish: s.String(), State: "not so", Deed: deed, Changed: true, Lost: lost}
	}
	system := initrd.Selector{Device: "boot"}
	return initrd.Report{
		State: "complete", Boot: "first", Platform: "metal", Config: "c0ffee", Record: "ESP /dev/vda1", Provision: "7376",
		Documents: []initrd.ReportedInput{{Name: "user", Source: "http://boot.example/ignition", SHA256: "0123456789abcdef0123"}},
		PCR:       &initrd.ReportedPCR{Index: 12, Banks: map[string]string{"sha256": "829f", "sha1": "01"}},
		Warnings:  []string{"user:3:4: $.x: unused"},
		Stages: []initrd.ReportedStage{
			{Name: "fetch", At: 50, Took: 5.72, Steps: []initrd.ReportedStep{{Wish: "measure x", State: "moot", Why: "this machine has no TPM"}}},
			{Name: "repart", At: 56, Took: 2.5, Steps: []initrd.ReportedStep{
				step(initrd.Spread{On: system}, "move the end of the partition table to the end of /dev/vda"),
				step(initrd.Repart{Name: "system", On: system}, "repartition /dev/vda: create root", "everything on /dev/vda"),
			}},
			{Name: "root", At: 60, Took: 3, Steps: []initrd.ReportedStep{
				{Wish: initrd.Verity{Name: "usr", RootHash: "1ee9"}.String(), State: "so"},
				step(initrd.Luks{Name: "var", What: initrd.Source{Path: "/dev/vda5"}}, "unlock"),
				step(initrd.Mount{What: initrd.Source{Disk: system, Type: disk.GUID{}, Name: "root"}, Where: "/sysroot"}, "mount /dev/vda4 at /sysroot"),
			}},
			{Name: "etc", At: 63, Took: 4, Steps: []initrd.ReportedStep{
				step(initrd.Directory{Path: "/srv"}, ""), step(initrd.Link{Path: "/a", Target: "b"}, ""), step(initrd.Link{Path: "/c", Target: "/a", Hard: true}, ""),
				step(initrd.File{Path: "/etc/motd", Mode: &mode}, ""), step(initrd.File{Path: "/etc/systemd/system/web.service"}, ""),
				{Wish: "file /etc/none", State: "after"},
			}},
		},
	}
}

func statusOf(r initrd.Report) string {
	var out bytes.Buffer
	show{out: &out, err: &out}.status(r)
	return out.String()
}

func TestStatusOfABoot(t *testing.T) {
	want := `complete, first boot, 15.2 s in pilotlight, until 67.0 s after the kernel started
platform  metal
config    sha256 c0ffee
          user       0123456789abcdef…  http://boot.example/ignition
measured  PCR 12, sha256 829f
record    ESP /dev/vda1
          provision 7376
disk      move the end of the partition table to the end of /dev/vda
          repartition /dev/vda: create root
DESTROYED everything on /dev/vda
verity    /dev/mapper/usr open with root hash 1ee9
luks      /dev/mapper/var unlocked, on /dev/vda5
mount     partition "root" of boot mounted at /sysroot
etc       2 files (1 of units), 1 directories, 2 links

fetch        5.72 s  from  50.00 s  0 of 1 steps changed something
repart       2.50 s  from  56.00 s  2 of 2 steps changed something
root         3.00 s  from  60.00 s  2 of 3 steps changed something
etc          4.00 s  from  63.00 s  5 of 6 steps changed something
warning   user:3:4: $.x: unused
warning   this machine has no TPM; so not: measure x
`
	if got := statusOf(booted()); got != want {
		t.Errorf("%s", got)
	}
}

func TestStatusOfAFailureBeginsWithIt(t *testing.T) {
	r := booted()
	r.State, r.Failure = "failed", &initrd.Failure{Stage: "etc", What: "x", Where: "user:1:2: $", Next: "y"}
	r.Stages[3].Steps[0].Changed, r.Stages[3].Steps[0].Error, r.Stages[3].Steps[0].Lost = false, "x", []string{"what /srv was"}
	got := statusOf(r)
	if !strings.HasPrefix(got, `failed in etc, first boot, 15.2 s in pilotlight, until 67.0 s after the kernel started
pilotlight: FAILED: etc: x
pilotlight:   config: user:1:2: $
pilotlight:   next: y
platform  metal
`) || !strings.Contains(got, "DESTROYED perhaps, since the step failed: what /srv was\n") {
		t.Errorf("%s", got)
	}
}

func TestStatusBeforeAnything(t *testing.T) {
	if got := statusOf(initrd.Report{State: "running"}); got != "nothing was provisioned in this boot\n" {
		t.Errorf("%q", got)
	}
	got := statusOf(initrd.Report{State: "failed", Failure: &initrd.Failure{Stage: "fetch", What: "x", Next: "y"}})
	if got != "failed in fetch\npilotlight: FAILED: fetch: x\npilotlight:   next: y\n" {
		t.Errorf("%q", got)
	}
}
