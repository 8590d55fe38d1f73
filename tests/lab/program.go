package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// NPM gives a folder with the packages of a package.json and a package-lock.json, which lie in the folder pinned, in its
// node_modules. Their own installation scripts are not run. Where this machine has no npm, Debian's is installed.
func (c Cache) NPM(ctx context.Context, pinned string) (string, error) {
	files := map[string][]byte{}
	recipe := []string{"1"}
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join(pinned, name))
		if err != nil {
			return "", err
		}
		files[name] = data
		recipe = append(recipe, string(data))
	}
	if _, err := exec.LookPath("npm"); err != nil {
		if err := installPackages(ctx, c.Log, []string{"npm"}); err != nil {
			return "", err
		}
	}
	return c.entry(ctx, "npm-"+filepath.Base(pinned), recipe, func(ctx context.Context, dir string) error {
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				return err
			}
		}
		c.Log.Printf("npm: installing %s", filepath.Base(pinned))
		cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = dir
		_, err := output(cmd, "npm ci")
		return err
	})
}

// Unpacked gives a folder with the files of a Debian package, which is not installed: so no server of it is started.
func (c Cache) Unpacked(ctx context.Context, pkg string) (string, error) {
	return c.entry(ctx, "deb-"+pkg, []string{"1"}, func(ctx context.Context, dir string) error {
		c.Log.Printf("unpacking %s", pkg)
		download := func() error {
			cmd := exec.CommandContext(ctx, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", pkg)
			cmd.Dir = dir
			_, err := output(cmd, "apt-get download")
			return err
		}
		if download() != nil {
			if err := run(ctx, "apt-get", "update", "-qq"); err != nil {
				return err
			}
			if err := download(); err != nil {
				return err
			}
		}
		debs, err := filepath.Glob(filepath.Join(dir, pkg+"_*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("%d packages came, not one", len(debs))
		}
		if err := run(ctx, "dpkg-deb", "--extract", debs[0], dir); err != nil {
			return err
		}
		return os.Remove(debs[0])
	})
}
