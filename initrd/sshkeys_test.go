package initrd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const keyLines = "ssh-ed25519 AAAA a\nssh-rsa BBBB b\n"

// keysOf wishes the keys of the user old of accountsTree.
func keysOf(root string, l KeysLayout) AuthorizedKeys {
	return AuthorizedKeys{Root: root, User: "old", Keys: strings.Split(strings.TrimSpace(keyLines), "\n"), Layout: l}
}

// holdsKeys holds that the file is the user's, mode as wished, and so are the
// directories above it.
func holdsKeys(t *testing.T, home, file string, mode fs.FileMode) {
	t.Helper()
	if got := contentOf(t, filepath.Join(home, file)); got != keyLines {
		t.Errorf("%s holds %q", file, got)
	}
	for at := file; at != "."; at = filepath.Dir(at) {
		info, err := os.Lstat(filepath.Join(home, at))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		want := fs.FileMode(0o700)
		if at == file {
			want = mode
		}
		if info.Mode().Perm() != want || st.Uid != 1003 || st.Gid != 1003 {
			t.Errorf("%s: %v %d:%d", at, info.Mode(), st.Uid, st.Gid)
		}
	}
}

func TestKeysGoWhereTheyAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		tree   map[string]string
		layout KeysLayout
		file   string
	}{
		"the file":             {nil, LayoutFile, ".ssh/authorized_keys"},
		"the fragment":         {nil, LayoutFragment, ".ssh/authorized_keys.d/ignition"},
		"no sshd":              {nil, LayoutByLook, ".ssh/authorized_keys"},
		"an sshd of the usual": {map[string]string{"/etc/ssh/sshd_config": "#AuthorizedKeysFile .ssh/authorized_keys.d/ignition\n"}, LayoutByLook, ".ssh/authorized_keys"},
		"one that reads fragments": {map[string]string{"/etc/ssh/sshd_config": "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys.d/ignition\n"},
			LayoutByLook, ".ssh/authorized_keys.d/ignition"},
		"a program that does": {map[string]string{"/etc/ssh/sshd_config.d/40-ssh-key-dir.conf": "AuthorizedKeysCommand /usr/libexec/ssh-key-dir %u\n"},
			LayoutByLook, ".ssh/authorized_keys.d/ignition"},
		"not a drop-in": {map[string]string{"/usr/etc/ssh/sshd_config.d/40.rpmsave": "AuthorizedKeysFile .ssh/authorized_keys.d/ignition\n"},
			LayoutByLook, ".ssh/authorized_keys"},
		"configuration of the image": {map[string]string{"/usr/etc/ssh/sshd_config.d/40.conf": "AuthorizedKeysFile .ssh/authorized_keys.d/ignition\n"},
			LayoutByLook, ".ssh/authorized_keys.d/ignition"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := testMachine(t)
			root := accountsRoot(t, c.tree)
			settle(t, m, keysOf(root, c.layout))
			holdsKeys(t, filepath.Join(root, "home/old"), c.file, 0o600)
		})
	}
}

// TestKeysAreReplaced as Ignition replaces them: the file is the config's own, and a
// mode that somebody gave it stays.
func TestKeysAreReplaced(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, map[string]string{"/home/old/.ssh/authorized_keys": "ssh-rsa OLD\n"})
	home := filepath.Join(root, "home/old")
	for _, name := range []string{".ssh", ".ssh/authorized_keys"} {
		if err := os.Chown(filepath.Join(home, name), 1003, 1003); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(home, ".ssh"), 0o700), os.Chmod(filepath.Join(home, ".ssh/authorized_keys"), 0o640)); err != nil {
		t.Fatal(err)
	}
	settle(t, m, keysOf(root, LayoutFile))
	holdsKeys(t, home, ".ssh/authorized_keys", 0o640)
}

// TestKeysStayWhereTheyWerePut although a drop-in of the config, which comes after the
// users, makes sshd read fragments.
func TestKeysStayWhereTheyWerePut(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, nil)
	settle(t, m, keysOf(root, LayoutByLook))
	write(t, filepath.Join(root, "etc/ssh/sshd_config"), "AuthorizedKeysFile .ssh/authorized_keys.d/ignition\n")
	settle(t, m, keysOf(root, LayoutByLook))
	if _, err := os.Lstat(filepath.Join(root, "home/old/.ssh/authorized_keys.d")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there are fragments: %v", err)
	}
}

func TestKeysOfNobodyWait(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, nil)
	state, _, err := AuthorizedKeys{Root: root, User: "core", Keys: []string{"k"}}.Resolve(m.Look(t.Context()))
	if state != After || !errors.Is(err, ErrUnknownOwner) {
		t.Errorf("%v %v", state, err)
	}
}

// TestKeysAreNotWrittenThroughLinks: what a user, or who made the image, left in a home
// must not give this program's rights to it.
func TestKeysAreNotWrittenThroughLinks(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, root, home string)
		fault   string // "" for none: the keys are there then
	}{
		"a link to another place of the home": {func(t *testing.T, root, home string) {
			mkdir(t, home+"/real", 1003)
			link(t, "real", home+"/.ssh")
		}, ""},
		"a link instead of the file": {func(t *testing.T, root, home string) {
			mkdir(t, home+"/.ssh", 1003)
			link(t, "/etc/victim", home+"/.ssh/authorized_keys")
		}, ""},
		"a link out of the home": {func(t *testing.T, root, home string) {
			mkdir(t, root+"/home/other", 1003)
			link(t, "../other", home+"/.ssh")
		}, "leads out of the home"},
		"an absolute one": {func(t *testing.T, root, home string) { link(t, "/etc", home+"/.ssh") }, "leads out of the home"},
		"a directory that is root's": {func(t *testing.T, root, home string) {
			mkdir(t, home+"/.ssh", 0)
		}, "permission denied"},
		"a home that is root's": {func(t *testing.T, root, home string) {
			if err := os.Chown(home, 0, 0); err != nil {
				t.Fatal(err)
			}
		}, "is not the user's own"},
		"a file where a directory is wished": {func(t *testing.T, root, home string) { write(t, home+"/.ssh", "") }, "not a directory"},
		"no home at all": {func(t *testing.T, root, home string) {
			if err := os.RemoveAll(home); err != nil {
				t.Fatal(err)
			}
		}, "the home of old"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := testMachine(t)
			root := accountsRoot(t, map[string]string{"/etc/victim": "untouched"})
			home := filepath.Join(root, "home/old")
			c.prepare(t, root, home)
			was := shot(t, root+"/etc")
			if c.fault == "" {
				settle(t, m, keysOf(root, LayoutFile))
				if got := contentOf(t, home+"/.ssh/authorized_keys"); got != keyLines {
					t.Errorf("%q", got)
				}
			} else if _, err := apply(t, m, keysOf(root, LayoutFile)); err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%v, want %q", err, c.fault)
			}
			unchanged(t, name, root+"/etc", was)
		})
	}
}

func mkdir(t *testing.T, name string, uid int) {
	t.Helper()
	if err := errors.Join(os.Mkdir(name, 0o700), os.Chown(name, uid, uid)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}
