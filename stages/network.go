package stages

import (
	"io/fs"
	"path"

	"pilotlight/initrd"
)

// Network wishes that networkd of this initrd has the files of the config. Nothing
// brings the network up: the first connection does that.
func Network(in Input) ([]initrd.Step, error) {
	files := in.Config.Pilotlight.Network
	if len(files) == 0 {
		return nil, nil
	}
	mode := fs.FileMode(0o644)
	var steps []initrd.Step
	var names []string
	for _, d := range files {
		steps = append(steps, initrd.File{
			Root: "/", Path: path.Join(initrd.NetworkDir, d.Name),
			Contents: &d.Contents, Overwrite: true, Mode: &mode,
		})
		names = append(names, d.Name)
	}
	return append(steps, initrd.Networkd{Files: names}), nil
}
