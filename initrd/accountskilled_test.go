package initrd

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// childAccounts names the root of a child of these tests.
const childAccounts = "PILOTLIGHT_TEST_ACCOUNTS"

// accountsWishes are of every sort: made, changed, moved, removed.
func accountsWishes(root string) []Step {
	return append(ofRoot(root, []Step{
		Group{Name: "grp", PasswordHash: hash("$6$g")},
		Group{Name: "staff", Gone: true},
		User{Name: "core", PasswordHash: hash("$6$c"), Groups: []string{"wheel", "grp"}},
		User{Name: "later", Gecos: "Later", UID: id(3001), Home: "/home/moved"},
		User{Name: "old", UID: id(3000), PrimaryGroup: "grp", Home: "/srv/old", PasswordHash: hash("$6$n")},
		User{Name: "gone", Gone: true},
	}),
		AuthorizedKeys{Root: root, User: "core", Keys: []string{"ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"}, Layout: LayoutFragment},
		AuthorizedKeys{Root: root, User: "old", Keys: []string{"ssh-ed25519 AAAA a"}, Layout: LayoutFile})
}

func accountsKilledRoot(t *testing.T) string {
	t.Helper()
	passwd := accountsTree["/etc/passwd"] + "gone:x:1009:1009::/home/gone:/bin/sh\n"
	root := accountsRoot(t, map[string]string{
		"/etc/passwd": passwd, "/home/gone/a": "a", "/home/gone/b/c": "c", "/home/later/x": "x", "/srv/here": "",
	})
	for name, id := range map[string]int{"/home/gone": 1009, "/home/later": 1001, "/home/later/x": 1001} {
		if err := os.Chown(root+name, id, id); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestAccountsKilledChild is the child; without its environment it has nothing to do.
func TestAccountsKilledChild(t *testing.T) {
	root := os.Getenv(childAccounts)
	if root == "" {
		return
	}
	runtime.LockOSThread() // calls are counted for each thread
	m, _ := testMachine(t)
	if _, err := apply(t, m, accountsWishes(root)...); err != nil {
		t.Fatal(err)
	}
}

// TestAccountsKilledAnywhere kills a run at each call that changes a name or an owner,
// and holds that the next run ends in the same tree as one that was never killed.
func TestAccountsKilledAnywhere(t *testing.T) {
	whole := accountsKilledRoot(t)
	m, _ := testMachine(t)
	day, err := today()
	if err != nil {
		t.Fatal(err)
	}
	settle(t, m, accountsWishes(whole)...)
	want := accountsSeen(t, whole)

	const calls = "linkat,renameat,renameat2,unlinkat,mkdirat,symlinkat,fchown,fchownat,fchmod"
	killed := 0
	for n := 1; ; n += 1 + n/40 { // the first ones each, then in growing steps
		root := accountsKilledRoot(t)
		cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+calls,
			"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n), os.Args[0], "-test.run=^TestAccountsKilledChild$")
		// A child that is killed leaves its own directories: they go with this test.
		cmd.Env = append(os.Environ(), childAccounts+"="+root, "TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || strings.Contains(string(out), "FAIL") {
			t.Fatalf("call %d: %v %s", n, err, out)
		}
		killed++
		next, _ := testMachine(t)
		settle(t, next, accountsWishes(root)...)
		got := accountsSeen(t, root)
		if after, err := today(); err != nil {
			t.Fatal(err)
		} else if after != day {
			got["/etc/shadow"] = strings.ReplaceAll(got["/etc/shadow"], after, day)
		}
		if !maps.Equal(got, want) {
			t.Errorf("killed at call %d", n)
			sameTree(t, got, want)
			return
		}
	}
	if killed < 20 {
		t.Errorf("the run was killed %d times only", killed)
	}
	t.Logf("killed %d times", killed)
}
