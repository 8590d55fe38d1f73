package initrd

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// settings are words by their keys.
type settings map[string]string

// readSettings reads login.defs(5) and the defaults of useradd(8) of a root.
// Distributions that keep /etc for the administrator have the former in /usr/etc.
func readSettings(look Look, root string) (login, useradd settings, err error) {
	defs, err := followed(look, root, "/etc/login.defs")
	if err == nil && !defs.there {
		defs, err = followed(look, root, "/usr/etc/login.defs")
	}
	if err != nil {
		return nil, nil, err
	}
	more, err := followed(look, root, "/etc/default/useradd")
	if err == nil && !more.there {
		more, err = followed(look, root, "/usr/etc/default/useradd")
	}
	return parseLoginDefs(defs.text), parseUseradd(more.text), err
}

// parseLoginDefs reads keys and values that are separated by blanks. A value may be
// quoted. Only a whole line can be a comment: where one follows a number, the number
// is none, and the default counts.
func parseLoginDefs(text string) settings {
	s := settings{}
	for line := range strings.Lines(text) {
		line = strings.Trim(line, " \t\r\n")
		i := strings.IndexAny(line, " \t")
		if i <= 0 || line[0] == '#' {
			continue
		}
		value := strings.TrimLeft(line[i:], " \t\"")
		if end := strings.IndexByte(value, '"'); end >= 0 {
			value = value[:end]
		}
		s[line[:i]] = strings.TrimRight(value, " \t")
	}
	return s
}

// parseUseradd reads lines of KEY=VALUE. What is not exactly that is not read.
func parseUseradd(text string) settings {
	s := settings{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			s[k] = v
		}
	}
	return s
}

// or gives the word of a key, and another where there is none. An empty one is a word.
func (s settings) or(key, other string) string {
	if v, ok := s[key]; ok {
		return v
	}
	return other
}

// yes says whether a key says so; it does not where it is missing.
func (s settings) yes(key string) bool { return strings.EqualFold(s[key], "yes") }

// number gives that of a key, in C's notation, and another where there is none that
// can be read.
func (s settings) number(key string, other int64) int64 {
	if n, err := strconv.ParseInt(s[key], 0, 64); err == nil {
		return n
	}
	return other
}

// span are the ids of automatic choice, both ends included.
type span struct{ least, most uint32 }

// ids gives those of UID or GID, of a system account or another.
func (s settings) ids(word string, system bool) (span, error) {
	low, high := s.number(word+"_MIN", 1000), s.number(word+"_MAX", 60000)
	if system {
		high = s.number("SYS_"+word+"_MAX", low-1)
		low = max(s.number("SYS_"+word+"_MIN", 101), 1)
	}
	if low < 0 || high < low || high >= 1<<32-1 {
		return span{}, fmt.Errorf("login.defs: there is no %s between %d and %d", word, low, high)
	}
	return span{uint32(low), uint32(high)}, nil
}

// expires gives the day of useradd's EXPIRE as shadow(5) has it, "" for none.
func (s settings) expires() (string, error) {
	text := s["EXPIRE"]
	if text == "" || text == "-1" {
		return "", nil
	}
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return strconv.FormatUint(n, 10), nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return "", fmt.Errorf("/etc/default/useradd: EXPIRE is no date: %w", err)
	}
	return strconv.FormatInt(day.Unix()/86400, 10), nil
}

// age gives a number of days as shadow(5) has it, where a negative one is none.
func age(days int64) string {
	if days < 0 {
		return ""
	}
	return strconv.FormatInt(days, 10)
}

// today is the day of a change of password in shadow(5): days since 1970. A clock that
// has none would ask the user for another password at once, so there is none then.
func today() (string, error) {
	clock, err := NewClock(time.Time{})
	if err != nil {
		return "", err
	}
	now, _ := clock.Time()
	if day := now.Unix() / 86400; day > 0 {
		return strconv.FormatInt(day, 10), nil
	}
	return "", nil
}
