package initrd

import (
	"slices"
	"strings"
	"testing"

	"pilotlight/config/resource"
)

// TestExtrasAreWhatStepsNeed, so that what is packed by name is what Preflight asks for.
func TestExtrasAreWhatStepsNeed(t *testing.T) {
	for name, steps := range map[string][]Needing{
		"raid": {Array{Level: "0"}, Array{Level: "raid1"}, Array{Level: "10"}, Array{Level: "5"}},
		"clevis": {
			Volume{Clevis: &Clevis{Pin: "sss", TPM2: true, Servers: make([]resource.Resource, 1)}}, Volume{Clevis: &Clevis{Pin: "tang"}},
			ClevisUnlocked{Clevis: Clevis{Pin: "tpm2", TPM2: true}},
		},
	} {
		programs, modules, err := Extra(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			p, m := s.Needs()
			for _, want := range p {
				if !slices.Contains(programs, want) {
					t.Errorf("%s: %T needs program %s", name, s, want)
				}
			}
			for _, want := range m {
				if !slices.Contains(modules, want) {
					t.Errorf("%s: %T needs module %s", name, s, want)
				}
			}
		}
	}
	if _, _, err := Extra("luks"); err == nil || !strings.Contains(err.Error(), "clevis, raid") {
		t.Error(err)
	}
}
