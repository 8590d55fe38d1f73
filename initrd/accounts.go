package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
)

// accounts are the users and groups of a root: the files that shadow's programs
// write, passwd(5), shadow(5), group(5), gshadow(5), subuid(5) and subgid(5), and
// what these programs go by.
//
// What a wish makes of them is worked out on a copy in memory: the wish is fulfilled
// where nothing comes out changed. So there is one description of what a user is, and
// looking and doing cannot differ.
type accounts struct {
	passwd, shadow, group, gshadow, subuid, subgid *table

	// moreUsers and moreGroups are those of nss-altfiles, /usr/lib/passwd and
	// /usr/lib/group, where nsswitch.conf(5) of the root names it: they exist, and
	// their numbers are taken, but nothing can be changed about them.
	moreUsers, moreGroups *table

	login   settings // /etc/login.defs
	useradd settings // /etc/default/useradd
}

// accountsLimit bounds what is read of one file.
const accountsLimit = 16 << 20

// Where the fields of an entry are.
const (
	passwdHash, passwdUID, passwdGID, passwdGecos, passwdHome, passwdShell = 1, 2, 3, 4, 5, 6
	groupHash, groupGID, groupMembers                                      = 1, 2, 3
	gshadowHash, gshadowAdmins, gshadowMembers                             = 1, 2, 3
	shadowHash, shadowChanged, shadowMin, shadowMax, shadowWarn            = 1, 2, 3, 4, 5
	shadowInactive, shadowExpire                                           = 6, 7
)

// shadowed stands in passwd and group for a hash that is in shadow and gshadow.
const shadowed = "x"

// readAccounts reads all of it. Where a root has neither passwd nor shadow, both are
// begun: a hash shall not come to lie where everybody can read it. Where it has
// passwd alone it does without the other, as shadow's programs have it.
func readAccounts(look Look, root string) (*accounts, error) {
	a := &accounts{}
	var err error
	for _, f := range []struct {
		into        **table
		name        string
		least, most int
		mode        fs.FileMode
	}{
		{&a.passwd, "/etc/passwd", 7, 7, 0o644}, {&a.shadow, "/etc/shadow", 2, 9, 0o600},
		{&a.group, "/etc/group", 4, 4, 0o644}, {&a.gshadow, "/etc/gshadow", 2, 4, 0o600},
		{&a.subuid, "/etc/subuid", 3, 3, 0o644}, {&a.subgid, "/etc/subgid", 3, 3, 0o644},
	} {
		if *f.into, err = readTable(look, root, f.name, f.least, f.most); err != nil {
			return nil, err
		}
		(*f.into).mode = f.mode
	}
	a.shadow.there = a.shadow.there || !a.passwd.there
	a.gshadow.there = a.gshadow.there || !a.group.there
	a.passwd.there, a.group.there = true, true

	a.moreUsers, a.moreGroups = &table{}, &table{}
	nss, err := followed(look, root, "/etc/nsswitch.conf")
	if err != nil {
		return nil, err
	}
	if altFiles(nss.text, "passwd:") {
		if a.moreUsers, err = readTable(look, root, "/usr/lib/passwd", 7, 7); err != nil {
			return nil, err
		}
	}
	if altFiles(nss.text, "group:") {
		if a.moreGroups, err = readTable(look, root, "/usr/lib/group", 4, 4); err != nil {
			return nil, err
		}
	}
	a.login, a.useradd, err = readSettings(look, root)
	return a, err
}

// elsewhere finds the number of a name that is not in passwd or group, as file says, where
// the root has others. ErrUnknownOwner where it has none.
func (t *tree) elsewhere(file, name string) (int, error) {
	read := func(name string) (string, error) {
		data, err := t.readAll(name, accountsLimit)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return string(data), err
	}
	nss, err := read("/etc/nsswitch.conf")
	if err != nil {
		return 0, err
	}
	text := ""
	if altFiles(nss, path.Base(file)+":") {
		if text, err = read(path.Join("/usr/lib", path.Base(file))); err != nil {
			return 0, err
		}
	}
	return idOf(text, name)
}

// altFiles says whether a database of nsswitch.conf is looked up in /usr/lib too.
func altFiles(text, database string) bool {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 && f[0] == database {
			return slices.Contains(f, "altfiles")
		}
	}
	return false
}

// A table is a file of entries, a line each, whose fields are separated by colons and
// whose first field is the name. Lines that are no entries are kept as they are.
type table struct {
	path        string // in the root, symbolic links followed
	text        string // as it was read
	there       bool   // or to be begun
	mode        fs.FileMode
	least, most int // fields
	lines       []string
}

func readTable(look Look, root, name string, least, most int) (*table, error) {
	f, err := followed(look, root, name)
	if err != nil {
		return nil, err
	}
	t := &table{path: f.path, text: f.text, there: f.there, least: least, most: most}
	for line := range strings.Lines(f.text) {
		t.lines = append(t.lines, strings.TrimSuffix(line, "\n"))
	}
	return t, nil
}

// fields gives those of a line, nil if it is no entry. Short ones are filled up, as
// their readers do.
func (t *table) fields(line string) []string {
	if line == "" || strings.ContainsRune("+-#", rune(line[0])) {
		return nil // of NIS, or a comment
	}
	f := strings.Split(line, ":")
	if len(f) < t.least || len(f) > t.most || f[0] == "" {
		return nil
	}
	for len(f) < t.most {
		f = append(f, "")
	}
	return f
}

// rows gives the entries with the number of their line.
func (t *table) rows() iter.Seq2[int, []string] {
	return func(yield func(int, []string) bool) {
		for i, line := range t.lines {
			if f := t.fields(line); f != nil && !yield(i, f) {
				return
			}
		}
	}
}

// at finds the first entry of a name.
func (t *table) at(name string) (fields []string, ok bool) {
	for _, f := range t.rows() {
		if f[0] == name {
			return f, true
		}
	}
	return nil, false
}

// id finds the first entry whose field, a number, has that value.
func (t *table) id(field int, id uint32) (fields []string, ok bool) {
	for _, f := range t.rows() {
		if n, err := strconv.ParseUint(f[field], 10, 32); err == nil && uint32(n) == id {
			return f, true
		}
	}
	return nil, false
}

// put replaces the entry of that name, or adds one: before the entries of NIS, which
// stand at the end.
func (t *table) put(fields []string) {
	line := strings.Join(fields, ":")
	for i, f := range t.rows() {
		if f[0] == fields[0] {
			t.lines[i] = line
			return
		}
	}
	end := slices.IndexFunc(t.lines, func(l string) bool { return strings.HasPrefix(l, "+") || strings.HasPrefix(l, "-") })
	if end < 0 {
		end = len(t.lines)
	}
	t.lines = slices.Insert(t.lines, end, line)
}

// drop removes all entries of a name.
func (t *table) drop(name string) {
	t.lines = slices.DeleteFunc(t.lines, func(l string) bool {
		f := t.fields(l)
		return f != nil && f[0] == name
	})
}

func (t *table) String() string { return t.path }

// content is the file that has these lines.
func (t *table) content() string {
	if len(t.lines) == 0 {
		return ""
	}
	return strings.Join(t.lines, "\n") + "\n"
}

// changed says whether the lines differ from the file. An empty file is not begun for
// nothing.
func (t *table) changed() bool {
	same := t.content()
	return same != t.text && same != t.text+"\n"
}

// single fails where a name has two entries: to change one of them would be a guess.
func (a *accounts) single(name string, in ...*table) error {
	for _, t := range in {
		n := 0
		for _, f := range t.rows() {
			if f[0] == name {
				n++
			}
		}
		if n > 1 {
			return fmt.Errorf("%s has %d entries for %q; pwck(8) and grpck(8) say how that is put right", t, n, name)
		}
	}
	return nil
}

// user and groupOf find what exists for the system, by whatever file.
func (a *accounts) user(name string) ([]string, bool) {
	if f, ok := a.passwd.at(name); ok {
		return f, true
	}
	return a.moreUsers.at(name)
}

func (a *accounts) uidTaken(uid uint32) bool {
	_, here := a.passwd.id(passwdUID, uid)
	_, more := a.moreUsers.id(passwdUID, uid)
	return here || more
}

func (a *accounts) gidTaken(gid uint32) bool {
	_, here := a.group.id(groupGID, gid)
	_, more := a.moreGroups.id(groupGID, gid)
	return here || more
}

// groupOf finds a group by its name, or, by a word that is a number, by that. local
// says that it is in /etc/group, where it can be changed.
func (a *accounts) groupOf(word string) (fields []string, local, ok bool) {
	find := func(t *table) ([]string, bool) {
		if n, err := strconv.ParseUint(word, 10, 32); err == nil {
			return t.id(groupGID, uint32(n))
		}
		return t.at(word)
	}
	if f, ok := find(a.group); ok {
		return f, true, true
	}
	f, ok := find(a.moreGroups)
	return f, false, ok
}

// joined are the members of a list that is separated by commas.
func joined(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func with(list, name string) string {
	if l := joined(list); !slices.Contains(l, name) {
		return strings.Join(append(l, name), ",")
	}
	return list
}

func without(list, name string) string {
	l := joined(list)
	if !slices.Contains(l, name) {
		return list
	}
	return strings.Join(slices.DeleteFunc(l, func(m string) bool { return m == name }), ",")
}

// A followedFile is a small file of a root that may be a symbolic link there.
type followedFile struct {
	path, text string
	there      bool
}

// followed reads a file, and says where it really lies: what replaces it must have
// that name, and not the link's.
func followed(look Look, root, name string) (followedFile, error) {
	for range 16 {
		e, err := look.Stat(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			return followedFile{path: name}, nil
		}
		if err != nil {
			return followedFile{}, err
		}
		if e.Mode&fs.ModeSymlink == 0 {
			text, err := readFile(look, root, name, accountsLimit)
			return followedFile{name, string(text), true}, err
		}
		if name = path.Join(path.Dir(name), e.Target); path.IsAbs(e.Target) {
			name = path.Clean(e.Target)
		}
	}
	return followedFile{}, fmt.Errorf("%s: links lead in a circle", name)
}
