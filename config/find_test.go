package config

import (
	"strings"
	"testing"
)

func TestFindTellsWhereAnEntryStands(t *testing.T) {
	image := Document{Name: "base/10-image.ign", Bytes: []byte(`{
  "storage": {"files": [{"path": "/etc/motd"}, {"path": "/etc/image"}]}
}`)}
	user := Document{Name: UserDocument, Bytes: []byte(`{
  "storage": {
    "files": [
      {"path": "/etc/first"},
      {"mode": 420, "path": "/etc/motd"},
      {"path": "/etc/a\u002fb \"c\""},
      {"path": 7}, {}, null, "text",
      {"path": "/etc/twice"}, {"path": "/etc/twice"}
    ],
    "links": {"path": "/etc/motd"}
  },
  "pilotlight": {
    "repart": [{"name": "system"}],
    "etc": {"credentials": [{"näme": "x", "name": "a"},{"name": "b"}]}
  }
}`)}
	child := Document{Name: "child-0001", Bytes: []byte(`{"storage": {"files": [{"path": "/etc/child"}, {"path": "/etc/first"}]}}`)}
	broken := Document{Name: "child-0002", Bytes: []byte(`{"storage": {"files": [{"path": "/etc/child"}`)}
	all := []Document{image, user, child, broken}
	for _, c := range []struct {
		documents  []Document
		list       string
		key, value string
		want       string // "" for nowhere
	}{
		{all, "storage files", "path", "/etc/image", `base/10-image.ign:2:48: $.storage.files.1`},
		{all, "storage files", "path", "/etc/motd", `user:5:7: $.storage.files.1`},
		{all, "storage files", "path", "/etc/first", `child-0001:1:48: $.storage.files.1`},
		{all, "storage files", "path", "/etc/child", `child-0001:1:24: $.storage.files.0`},
		{[]Document{child, user}, "storage files", "path", "/etc/first", `user:4:7: $.storage.files.0`},
		// A path is what the text says, not how it is written.
		{all, "storage files", "path", `/etc/a/b "c"`, `user:6:7: $.storage.files.2`},
		{all, "storage files", "path", "/etc/twice", `user:8:31: $.storage.files.8`},
		{all, "pilotlight repart", "name", "system", `user:13:16: $.pilotlight.repart.0`},
		// A column is a character, not a byte.
		{all, "pilotlight etc credentials", "name", "b", `user:14:56: $.pilotlight.etc.credentials.1`},
		{all, "storage files", "path", "/etc/nowhere", ""},
		{all, "storage files", "path", "7", ""},
		{all, "storage files", "mode", "420", ""},
		{all, "storage files", "path", "", ""},
		{all, "storage links", "path", "/etc/motd", ""}, // no list
		{all, "storage", "path", "/etc/motd", ""},
		{all, "nowhere files", "path", "/etc/motd", ""},
		{all, "storage files path", "path", "/etc/motd", ""},
		{[]Document{broken}, "storage files", "path", "/etc/child", ""},
		{nil, "storage files", "path", "/etc/motd", ""},
		{[]Document{{Name: "user", Bytes: []byte("[]")}, {Name: "empty"}}, "storage files", "path", "/etc/motd", ""},
	} {
		at, ok := Find(c.documents, strings.Fields(c.list), c.key, c.value)
		got := ""
		if ok {
			got = at.String()
		} else if at != (Position{}) {
			t.Errorf("%s: nowhere, and yet at %+v", c.value, at)
		}
		if got != c.want {
			t.Errorf("%s %s=%q is at %q, want %q", c.list, c.key, c.value, got, c.want)
		}
	}
}
