package initrd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// creds stands in for systemd-creds: what it encrypts is its key, the name and the
// text, and it decrypts nothing that is not of that key and name. What it was called
// with goes to the file that is given back.
func creds(t *testing.T, m *Machine, key string) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	program(t, m, "systemd-creds", fmt.Sprintf(`echo "$@" >> %s
for a in "$@"; do case $a in --name=*) name=${a#*=};; esac; done
case $1 in
encrypt) printf '%%s:%%s:' %[2]s "$name"; base64 -w0;;
decrypt) IFS=: read -r key is text
	[ "$key:$is" = "%[2]s:$name" ] || { echo "wrong key or name" >&2; exit 1; }
	printf %%s "$text" | base64 -d;;
esac`, log, key))
	return log
}

func TestWhereCredentialsGo(t *testing.T) {
	for _, c := range []struct {
		credential Credential
		want       string
	}{
		{Credential{Name: "a", Scope: "host"}, "/run/credentials/@initrd/a"},
		{Credential{Name: "a", Scope: "host", Encrypted: true}, "/run/credstore.encrypted/a"},
		{Credential{Name: "a", Scope: "initrd"}, "credentials"},
		{Credential{Name: "a", Scope: "initrd", Encrypted: true}, "credentials"},
	} {
		if got := c.credential.Touches(); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%+v goes to %q, want %s", c.credential, got, c.want)
		}
	}
}

// TestOnlyABootHandsCredentialsToAHost: a target below any other root than a boot's
// must not change the system that this runs on.
func TestOnlyABootHandsCredentialsToAHost(t *testing.T) {
	m, root := testMachine(t)
	for _, encrypted := range []bool{false, true} {
		c := Credential{Root: root, Name: "pilotlight-test", Contents: *inline("secret"), Scope: "host", Encrypted: encrypted}
		out, err := apply(t, m, c)
		if err != nil || out[0].State != Moot || !errors.Is(out[0].Why, ErrNoBoot) {
			t.Errorf("%+v %v", out[0], err)
		}
		if _, err := os.Lstat(c.Touches()[0]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", c.Touches()[0], err)
		}
		c.Root = BootRoot
		if state, act, err := c.Resolve(look{t.Context(), m}); state != NotSo || err != nil || act.String() != "hand over credential pilotlight-test" {
			t.Errorf("in a boot: %v %v %v", state, act, err)
		}
	}
}

func TestCredentialsOfTheInitrd(t *testing.T) {
	m, root := testMachine(t)
	log := creds(t, m, "k1")
	sealed, err := m.encrypt(t.Context(), "b", []byte("two\n"))
	if err != nil {
		t.Fatal(err)
	}
	a := Credential{Root: root, Name: "a", Contents: *inline("one"), Scope: "initrd"}
	b := Credential{Root: root, Name: "b", Contents: *inline(string(sealed)), Scope: "initrd", Encrypted: true}
	settle(t, m, a, b)
	dir := filepath.Join(m.Run, "credentials")
	if got := contentOf(t, filepath.Join(dir, "a")) + contentOf(t, filepath.Join(dir, "b")); got != "onetwo\n" {
		t.Errorf("%q", got)
	}
	for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "a": 0o400, "b": 0o400} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%q: %v %v", name, info.Mode(), err)
		}
	}
	if said := contentOf(t, log); strings.Contains(said, "one") || strings.Contains(said, "two") {
		t.Errorf("a secret is in an argument vector: %s", said)
	}

	// Another text of that name is another wish.
	a.Contents = *inline("changed")
	settle(t, m, a)
	if got := contentOf(t, filepath.Join(dir, "a")); got != "changed" {
		t.Errorf("%q", got)
	}
}

// TestToolsAreGivenTheCredentials by a machine that did not write them itself: the
// process that did is another one where a stage is run again.
func TestToolsAreGivenTheCredentials(t *testing.T) {
	for _, tool := range []struct {
		name string
		step func(root string) Step
	}{
		{"systemd-sysusers", func(r string) Step { return Sysusers{Root: r} }},
		{"systemd-tmpfiles", func(r string) Step { return Tmpfiles{Root: r} }},
	} {
		for _, there := range []bool{false, true} {
			m, root := testMachine(t)
			log := filepath.Join(root, "log") // it can write nowhere else
			program(t, m, tool.name, fmt.Sprintf(`echo "${CREDENTIALS_DIRECTORY-none}" "$@" > %s`, log))
			want := "none"
			if there {
				want = filepath.Join(m.Run, "credentials")
				write(t, filepath.Join(want, "a"), "one")
			}
			settle(t, m, tool.step(root))
			if got := contentOf(t, log); !strings.HasPrefix(got, want+" --root="+root) {
				t.Errorf("%s with credentials there %v: %q", tool.name, there, got)
			}
			// They wait for each credential that is wished before.
			wish := Credential{Name: "a", Scope: "initrd"}
			if waits := conflicts([]Step{wish, tool.step(root)}); !slices.Equal(waits[1], []int{0}) {
				t.Errorf("%s waits for %v", tool.name, waits[1])
			}
		}
	}
}

func TestCredentialThatCannotBeHadLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		credential Credential
		want       string
	}{
		"too large":            {Credential{Name: "a", Contents: *inline(strings.Repeat("x", CredentialLimit+1)), Scope: "initrd"}, "1048577 bytes are more than the 1048576"},
		"of another machine":   {Credential{Name: "a", Contents: *inline("k2:a:eA=="), Scope: "initrd", Encrypted: true}, "systemd-creds: exit 1: wrong key or name"},
		"under another's name": {Credential{Name: "a", Contents: *inline("k1:b:eA=="), Scope: "initrd", Encrypted: true}, "systemd-creds: exit 1: wrong key or name"},
	} {
		m, _ := testMachine(t)
		creds(t, m, "k1")
		_, err := apply(t, m, c.credential)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(filepath.Join(m.Run, "credentials")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v %v", name, left, err)
		}
		if m.Look(t.Context()).Done(c.credential.receipt()) {
			t.Errorf("%s: there is a receipt", name)
		}
	}
	m, _ := testMachine(t)
	if _, err := apply(t, m, Credential{Name: "a", Contents: *inline(strings.Repeat("x", CredentialLimit)), Scope: "initrd"}); err != nil {
		t.Errorf("exactly as large as allowed: %v", err)
	}
}

func TestCredentialsSayNoSecrets(t *testing.T) {
	c := Credential{Root: BootRoot, Name: "a", Contents: *inline("canary"), Scope: "host"}
	for _, text := range []string{c.String(), fmt.Sprintf("%v %+v %#v", c, c, c), c.receipt().Name, strings.Join(c.Touches(), " ")} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s", text)
		}
	}
	if c.String() != "credential a for the host" {
		t.Errorf("%q", c.String())
	}
}

// TestWherePlainCredentialsGo: where PID 1 would not take them over, services find
// them in the credential store.
func TestWherePlainCredentialsGo(t *testing.T) {
	for name, c := range map[string]struct {
		given []string
		want  string
	}{
		"none given":           {nil, "credentials/@initrd"},
		"plain ones given":     {[]string{"@system"}, "credentials/@initrd"},
		"both given":           {[]string{"@system", "@encrypted"}, "credentials/@initrd"},
		"encrypted ones alone": {[]string{"@encrypted"}, "credstore"},
	} {
		run := t.TempDir()
		for _, d := range c.given {
			if err := os.MkdirAll(filepath.Join(run, "credentials", d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		got, err := handover(filepath.Join(run, "credentials"))
		if err != nil || got != filepath.Join(run, c.want) {
			t.Errorf("%s: %s %v, want %s", name, got, err, c.want)
		}
	}
}
