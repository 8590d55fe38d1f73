package stages

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd"
)

const passwdText = `"passwd":{
	"users":[
		{"name":"core","passwordHash":"$6$canary","sshAuthorizedKeys":["ssh-ed25519 AAAA a"],"groups":["ops","wheel"]},
		{"name":"all","uid":1500,"gecos":"All of it","homeDir":"/srv/all/","noCreateHome":true,"primaryGroup":"ops","noUserGroup":true,"noLogInit":true,"shell":"/bin/zsh","system":true,"passwordHash":""},
		{"name":"former","shouldExist":false,"sshAuthorizedKeys":["ssh-ed25519 AAAA a"]},
		{"name":"stays","shouldExist":true}],
	"groups":[{"name":"ops","gid":900,"passwordHash":"$6$canary","system":true},{"name":"gone","shouldExist":false}]}`

// TestAccountsKeepTheWordsOfTheConfig: groups first, and each user with his keys.
func TestAccountsKeepTheWordsOfTheConfig(t *testing.T) {
	in := first(t, ignition(passwdText+`,"storage":{"filesystems":[]}`))
	in.Facts.AuthorizedKeys = "fragment"
	uid, gid := uint32(1500), uint32(900)
	hash, none := resource.NewSecret("$6$canary"), resource.NewSecret("")
	root := in.Facts.Root
	want := []initrd.Step{
		initrd.Group{Root: root, Name: "ops", GID: &gid, PasswordHash: &hash, System: true},
		initrd.Group{Root: root, Name: "gone", Gone: true},
		initrd.User{Root: root, Name: "core", PasswordHash: &hash, Groups: []string{"ops", "wheel"}},
		initrd.AuthorizedKeys{Root: root, User: "core", Keys: []string{"ssh-ed25519 AAAA a"}, Layout: initrd.LayoutFragment},
		initrd.User{Root: root, Name: "all", UID: &uid, PasswordHash: &none, Gecos: "All of it", Home: "/srv/all/", PrimaryGroup: "ops", Shell: "/bin/zsh",
			NoCreateHome: true, NoUserGroup: true, System: true},
		initrd.User{Root: root, Name: "former", Gone: true},
		initrd.User{Root: root, Name: "stays"},
	}
	got := accounts(in)
	if len(got) != len(want) {
		t.Fatalf("%q", texts(got))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("%#v, want %#v", got[i], want[i])
		}
		if strings.Contains(fmt.Sprintf("%s %v %+v", got[i], got[i], got[i]), "canary") {
			t.Errorf("%s tells a hash", got[i])
		}
	}
}

// TestUsersComeBeforeWhatIsTheirs, and after those of the image where /etc is generated.
func TestUsersComeBeforeWhatIsTheirs(t *testing.T) {
	storage := `,"storage":{
		"directories":[{"path":"/home/core/bin","mode":493,"user":{"id":1000}},{"path":"/srv/all/x"}],
		"files":[{"path":"/etc/conf","contents":{"source":"data:,x"}},{"path":"/home/core/bin/tool","user":{"name":"core"},"contents":{"source":"data:,x"}}],
		"links":[{"path":"/usr/local/tool","target":"/home/core/bin/tool","hard":true}]}`
	for _, c := range []struct {
		section string
		want    []string
	}{
		{"", []string{
			"group ops", "no group gone", "user core", "1 SSH keys of user core", "user all", "no user former", "user stays",
			"file /etc/conf", "directory /home/core/bin", "directory /srv/all/x", "file /home/core/bin/tool", "hard link /usr/local/tool to /home/core/bin/tool",
		}},
		{`,"pilotlight":{"version":"1"}`, []string{
			"file /etc/conf", "system users by sysusers.d",
			"group ops", "no group gone", "user core", "1 SSH keys of user core", "user all", "no user former", "user stays",
			"directory /home/core/bin", "directory /srv/all/x", "file /home/core/bin/tool", "hard link /usr/local/tool to /home/core/bin/tool",
		}},
	} {
		got := texts(want(t, Etc, first(t, ignition(passwdText+storage+c.section))))
		if !slices.Equal(got[:min(len(got), len(c.want))], c.want) {
			t.Errorf("%q\nwant %q", got, c.want)
		}
	}
}

// TestWhatIsBelowAWaitingDirectoryWaitsToo: it may replace what is there.
func TestWhatIsBelowAWaitingDirectoryWaitsToo(t *testing.T) {
	got := texts(want(t, Etc, first(t, ignition(`"storage":{
		"directories":[{"path":"/srv/web","overwrite":true,"user":{"name":"web"}}],
		"files":[{"path":"/srv/web/deep/f","contents":{"source":"data:,x"}},{"path":"/srv/website","contents":{"source":"data:,x"}}]},
		"pilotlight":{"version":"1"}`))))
	want := []string{"file /srv/website", "system users by sysusers.d", "directory /srv/web", "file /srv/web/deep/f"}
	if !slices.Equal(got[:min(len(got), len(want))], want) {
		t.Errorf("%q", got)
	}
}

// TestAccountsAreMade carries out a whole config with users on a tree.
func TestAccountsAreMade(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nformer:x:1004:100::/home/former:/bin/sh\n")
	put(t, filepath.Join(root, "etc/group"), "root:x:0:\nwheel:x:10:\nusers:x:100:\ngone:x:77:\n")
	put(t, filepath.Join(root, "etc/login.defs"), "USERGROUPS_ENAB yes\nHOME_MODE 0750\n")
	put(t, filepath.Join(root, "etc/skel/.profile"), "# profile\n")
	in := first(t, ignition(passwdText+`,"storage":{
		"directories":[{"path":"/home/core","mode":448},{"path":"/home/core/bin","user":{"name":"core"},"group":{"name":"ops"}}],
		"files":[{"path":"/home/core/bin/tool","user":{"name":"core"},"contents":{"source":"data:,x"}}]}`))
	in.Facts.Root = root
	m, err := initrd.NewMachine(t.TempDir(), &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	steps := want(t, Etc, in)
	for range 2 {
		if _, err := initrd.Run(t.Context(), m, steps, initrd.Apply, nil); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if want := "root:x:0:0::/root:/bin/sh\ncore:$6$canary:1005:1005::/home/core:/bin/bash\nall:*:1500:900:All of it:/srv/all/:/bin/zsh\nstays:*:1501:1501::/home/stays:/bin/bash\n"; err != nil || string(text) != want {
		// Without shadow(5), as the tree has it, hashes are in passwd.
		t.Errorf("%q %v, want %q", text, err, want)
	}
	for name, want := range map[string]string{
		"home/core": "drwx------ 1005:1005", "home/core/.profile": "-rw-r--r-- 1005:1005", "home/core/bin": "drwxr-xr-x 1005:900",
		"home/core/bin/tool": "-rw-r--r-- 1005:0", "home/core/.ssh/authorized_keys": "-rw------- 1005:1005", "home/stays": "drwxr-x--- 1501:1501",
	} {
		if got := owned(t, filepath.Join(root, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// owned is the mode and the owner of something.
func owned(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
}
