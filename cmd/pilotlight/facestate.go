package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"pilotlight/initrd"
)

// What one stage tells the next lies in these files, all of which only root can read:
//
//	CACHE            the whole config as Ignition's spec has it. That it is there says that
//	                 the config was fetched; distributions look into it too.
//	CACHE.frozen     what our stages read: the documents of the config as they came
//	STATE            which documents those were, and what is to be unmounted
//	STATE.d/         receipts of what was done in this boot
//
// CACHE is --config-cache, and STATE is --state-file.

// faceState is the state file.
type faceState struct {
	Version int            `json:"version"` // 1
	Fetched []faceDocument `json:"fetchedConfigs"`
	Idle    []string       `json:"idle,omitempty"`    // stages for which the config has nothing
	Mounted []string       `json:"mounted,omitempty"` // where the stage mount has mounted, in its order
}

// faceDocument is one document of the config, without its bytes.
type faceDocument struct {
	Kind       string `json:"kind"`   // "base" or "user"
	Source     string `json:"source"` // for people, without secrets
	Referenced bool   `json:"referenced"`
}

// readFaceState reads the state; a file that is not there yet is an empty state.
func readFaceState(name string) (faceState, error) {
	s := faceState{Version: 1}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s is no state of an earlier stage: it is not JSON of that form", name)
	}
	if s.Version != 1 {
		return s, fmt.Errorf("%s is of another version of this program", name)
	}
	return s, nil
}

func (s faceState) write(name string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writePrivate(name, append(data, '\n'))
}

// faceRunDir is where the machine keeps what belongs to this boot.
func faceRunDir(state string) string { return state + ".d" }

// frozenFile is where our stages find the config.
func frozenFile(cache string) string { return cache + ".frozen" }

// makePrivate makes a directory that only root can look into.
func makePrivate(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// writePrivate writes a file in one step. Directories above it are made, for root alone.
func writePrivate(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return (&call{}).writeTo(name, 0o600, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// freeze keeps the config for the stages that come, and last of all the file that says
// so.
func (i *ignition) freeze(f initrd.Frozen, whole any) error {
	data, err := f.Pack()
	if err != nil {
		return err
	}
	rendered, err := json.Marshal(whole)
	if err != nil {
		return err
	}
	if err := writePrivate(frozenFile(i.cache), data); err != nil {
		return err
	}
	return writePrivate(i.cache, append(rendered, '\n'))
}
