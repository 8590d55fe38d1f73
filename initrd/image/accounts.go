package image

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// account is a line of passwd(5) or group(5).
type account struct {
	name    string
	id, gid int // gid is a user's primary group
	comment string
	home    string
}

// accounts are the users and groups of a tree.
type accounts struct {
	users, groups map[string]account
}

// readAccounts takes what the tree's /etc has, so that what the initrd makes under /dev and /run belongs to the same
// numbers later on. A tree that is all /usr has none yet; there, its sysusers.d(5) is followed as systemd-sysusers
// would, numbers that are not fixed counting down from 999.
func readAccounts(t tree) (accounts, error) {
	a := accounts{users: map[string]account{}, groups: map[string]account{}}
	if err := a.readEtc(t, "etc/passwd", 7, a.users); err != nil {
		return accounts{}, err
	}
	if err := a.readEtc(t, "etc/group", 4, a.groups); err != nil {
		return accounts{}, err
	}
	if err := a.readSysusers(t); err != nil {
		return accounts{}, err
	}
	for _, name := range []string{"root", "nobody"} {
		if _, ok := a.users[name]; !ok {
			id := map[string]int{"root": 0, "nobody": 65534}[name]
			a.users[name] = account{name: name, id: id, gid: id}
		}
	}
	if _, ok := a.groups["root"]; !ok {
		a.groups["root"] = account{name: "root"}
	}
	return a, nil
}

func (a accounts) readEtc(t tree, name string, columns int, into map[string]account) error {
	data, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != columns {
			continue // NIS entries ("+::::::") and blanks
		}
		id, err := strconv.Atoi(f[2])
		if err != nil {
			return &PathError{Path: "/" + name, Reason: fmt.Sprintf("%s has no number", f[0])}
		}
		acc := account{name: f[0], id: id}
		if columns == 7 {
			if acc.gid, err = strconv.Atoi(f[3]); err != nil {
				return &PathError{Path: "/" + name, Reason: fmt.Sprintf("%s has no number for its group", f[0])}
			}
			acc.comment, acc.home = f[4], f[5]
		}
		into[acc.name] = acc
	}
	return nil
}

var sysusersField = once(`"[^"]*"|\S+`)

// once compiles an expression when it is first asked for: of the many runs of this
// program hardly one packs an initrd.
func once(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

func (a accounts) readSysusers(t tree) error {
	const dir = "usr/lib/sysusers.d"
	names, err := t.list(dir)
	if err != nil {
		return err
	}
	type wish struct {
		user     bool
		name, id string
		comment  string
		home     string
	}
	var fixed, free []wish
	for _, n := range names {
		if path.Ext(n) != ".conf" {
			continue
		}
		data, err := t.read(path.Join(dir, n))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			f := sysusersField().FindAllString(line, -1)
			if len(f) < 2 || strings.HasPrefix(f[0], "#") {
				continue
			}
			kind := strings.TrimSuffix(f[0], "!")
			if kind != "u" && kind != "g" {
				continue // memberships and ranges: nobody logs in here
			}
			f = append(f, "-", "-", "-")
			w := wish{user: kind == "u", name: f[1], id: f[2]}
			if w.user {
				w.comment, w.home = strings.Trim(f[3], `"`), f[4]
			}
			if w.id == "-" || strings.HasPrefix(w.id, "/") {
				free = append(free, w)
			} else {
				fixed = append(fixed, w)
			}
		}
	}
	used := make(map[int]bool)
	for _, m := range []map[string]account{a.users, a.groups} {
		for _, acc := range m {
			used[acc.id] = true
		}
	}
	put := func(w wish, id, gid int, ownGroup bool) {
		used[id] = true
		if w.user {
			if _, ok := a.users[w.name]; !ok {
				home := w.home
				if home == "-" {
					home = "/"
				}
				comment := w.comment
				if comment == "-" {
					comment = ""
				}
				a.users[w.name] = account{name: w.name, id: id, gid: gid, comment: comment, home: home}
			}
		}
		if _, ok := a.groups[w.name]; !ok && ownGroup {
			a.groups[w.name] = account{name: w.name, id: gid}
		}
	}
	for _, w := range fixed {
		idText, gidText, both := strings.Cut(w.id, ":")
		id, err := strconv.Atoi(idText)
		if err != nil {
			return &PathError{Path: "/" + dir, Reason: fmt.Sprintf("%s: %q is not a number", w.name, w.id)}
		}
		gid := id
		if both {
			if gid, err = strconv.Atoi(gidText); err != nil {
				g, ok := a.groups[gidText]
				if !ok {
					return &PathError{Path: "/" + dir, Reason: fmt.Sprintf("%s: no group %q", w.name, gidText)}
				}
				gid = g.id
			}
		}
		put(w, id, gid, !both)
	}
	next := 999
	for _, w := range free {
		if g, ok := a.groups[w.name]; ok {
			if w.user {
				put(w, g.id, g.id, false)
			}
			continue
		}
		if _, ok := a.users[w.name]; ok && w.user {
			continue
		}
		for used[next] {
			next--
		}
		if next < 1 {
			return &PathError{Path: "/" + dir, Reason: "no free system user is left below 1000"}
		}
		put(w, next, next, true)
	}
	return nil
}

var (
	ruleOwner = once(`\b(OWNER|GROUP)="([a-z_][a-z0-9_-]*)"`)
	unitOwner = once(`(?m)^(User|Group|SupplementaryGroups|SocketUser|SocketGroup)=([a-z_][a-z0-9_ -]*)$`)
	aclOwner  = once(`\b(user|group):([a-z_][a-z0-9_-]*):`)
)

// addAccounts puts passwd and group with root, nobody, and whomever the rules, units and tmpfiles in the payload name.
// A name that the tree does not know is left out: udev and tmpfiles then say so, as they do on the tree itself.
func (p *payload) addAccounts(a accounts) (names []string, err error) {
	users := map[string]bool{"root": true, "nobody": true}
	groups := map[string]bool{"root": true}
	for name, e := range p.entries {
		if !e.mode.IsRegular() {
			continue
		}
		switch {
		case strings.HasPrefix(name, "usr/lib/udev/rules.d/"):
			for _, m := range ruleOwner().FindAllSubmatch(e.data, -1) {
				if string(m[1]) == "OWNER" {
					users[string(m[2])] = true
				} else {
					groups[string(m[2])] = true
				}
			}
		case strings.HasPrefix(name, "usr/lib/systemd/system/"):
			for _, m := range unitOwner().FindAllSubmatch(e.data, -1) {
				for _, owner := range strings.Fields(string(m[2])) {
					if bytes.HasSuffix(m[1], []byte("User")) {
						users[owner] = true
					} else {
						groups[owner] = true
					}
				}
			}
		case strings.HasPrefix(name, "usr/lib/tmpfiles.d/"):
			for line := range strings.Lines(string(e.data)) {
				if f := strings.Fields(line); len(f) >= 5 && !strings.HasPrefix(f[0], "#") {
					users[strings.TrimLeft(f[3], ":")] = true
					groups[strings.TrimLeft(f[4], ":")] = true
				}
			}
			for _, m := range aclOwner().FindAllSubmatch(e.data, -1) {
				if string(m[1]) == "user" {
					users[string(m[2])] = true
				} else {
					groups[string(m[2])] = true
				}
			}
		}
	}

	byID := func(x, y account) int { return cmp.Or(cmp.Compare(x.id, y.id), cmp.Compare(x.name, y.name)) }
	var us, gs []account
	for _, u := range a.users {
		if !users[u.name] {
			continue
		}
		us = append(us, u)
		for _, g := range a.groups {
			if g.id == u.gid {
				groups[g.name] = true
			}
		}
	}
	for _, g := range a.groups {
		if groups[g.name] {
			gs = append(gs, g)
		}
	}
	slices.SortFunc(us, byID)
	slices.SortFunc(gs, byID)

	var passwd, group bytes.Buffer
	for _, u := range us {
		// Locked, and in passwd itself: there is no shadow file. sulogin(8) says so and lets nobody in.
		fmt.Fprintf(&passwd, "%s:!*:%d:%d:%s:%s:/usr/sbin/nologin\n", u.name, u.id, u.gid, u.comment, cmp.Or(u.home, "/"))
		names = append(names, u.name)
	}
	for _, g := range gs {
		fmt.Fprintf(&group, "%s:!*:%d:\n", g.name, g.id)
	}
	if err := p.put("etc/passwd", entry{mode: 0o644, data: passwd.Bytes()}); err != nil {
		return nil, err
	}
	return names, p.put("etc/group", entry{mode: 0o644, data: group.Bytes()})
}
