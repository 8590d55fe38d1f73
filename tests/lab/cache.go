package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// Cache is a folder of things that are slow to make. Several processes may use one at once.
type Cache struct {
	Dir        string // absolute
	Repository string // the checkout whose witness goes into the images, absolute
	Log        *Log   // nil is silent
}

// OpenCache gives the cache of the checkout that the working directory lies in: its folder .cache/lab, made if need be.
func OpenCache(log *Log) (Cache, error) {
	repository, err := FindRepository()
	if err != nil {
		return Cache{}, err
	}
	dir := filepath.Join(repository, ".cache", "lab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Cache{}, err
	}
	return Cache{Dir: dir, Repository: repository, Log: log}, nil
}

// keep is how many entries of a kind stay. An entry in use is the newest of its kind, or one of the last few in a test that compares versions.
const keep = 4

// entry gives the folder of the thing of this kind whose recipe is given, and makes it by calling build with an empty folder
// if it is not there. The folder appears whole or not at all. Only one process at a time builds a kind; others wait.
func (c Cache) entry(ctx context.Context, kind string, recipe []string, build func(ctx context.Context, dir string) error) (string, error) {
	name := kind + "-" + key(recipe)
	dir := filepath.Join(c.Dir, name)
	unlock, err := lockedfile.MutexAt(filepath.Join(c.Dir, kind+".lock")).Lock()
	if err != nil {
		return "", fmt.Errorf("lock the cache: %w", err)
	}
	defer unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now)
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	// What a builder that was killed has left; the lock says that no builder is alive.
	if err := removeMatches(filepath.Join(c.Dir, kind+".new-*")); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(c.Dir, kind+".new-")
	if err != nil {
		return "", err
	}
	if err := build(ctx, temp); err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", kind, err), os.RemoveAll(temp))
	}
	if err := errors.Join(os.Chmod(temp, 0o755), os.Rename(temp, dir)); err != nil {
		return "", err
	}
	return dir, c.prune(kind)
}

// prune removes all but the newest few entries of a kind.
func (c Cache) prune(kind string) error {
	dirs, err := filepath.Glob(filepath.Join(c.Dir, kind+"-*"))
	if err != nil {
		return err
	}
	age := map[string]time.Time{}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		age[dir] = info.ModTime()
	}
	sort.Slice(dirs, func(i, j int) bool { return age[dirs[i]].After(age[dirs[j]]) })
	for _, dir := range dirs[min(keep, len(dirs)):] {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func removeMatches(pattern string) error {
	matches, err := filepath.Glob(pattern)
	for _, match := range matches {
		err = errors.Join(err, os.RemoveAll(match))
	}
	return err
}

// key names a recipe: equal recipes have equal keys.
func key(recipe []string) string {
	sum := sha256.New()
	for _, part := range recipe {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// fileDigest is the SHA-256 of a file's contents in hex.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// copyFile copies contents and permissions; the destination must not exist.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// ownedTemp makes a folder with a short name, for sockets: their paths may not be longer than 107 bytes.
func ownedTemp(prefix string) (dir string, remove func() error, err error) {
	dir, err = os.MkdirTemp("", strings.TrimSuffix(prefix, "-")+"-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// copyRange writes size bytes of a file, from offset on, to a new file.
func copyRange(from string, offset, size int64, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.NewSectionReader(in, offset, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, out.Close())
}

// sortedKeys are a map's keys, in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
