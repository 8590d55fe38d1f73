package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"pilotlight/providers"
)

func completionVerb() verb {
	return verb{
		name: "completion", usage: "bash|zsh|fish", short: "print what makes a shell complete verbs, flags and files",
		long: `zsh's is a file _pilotlight in a directory of $fpath, fish's is pilotlight.fish in
~/.config/fish/completions. All three can be sourced as well.

example: pilotlight completion bash > /usr/share/bash-completion/completions/pilotlight`,
		prepare: func(*flag.FlagSet) func(*call) error {
			return func(c *call) error {
				shell, err := c.one("shell")
				if err != nil {
					return err
				}
				list := spelledOut(verbs())
				switch shell {
				case "bash":
					return bytesTo(bashCompletion(list))(c.show.out)
				case "zsh":
					return bytesTo(zshCompletion(list))(c.show.out)
				case "fish":
					return bytesTo(fishCompletion(list))(c.show.out)
				}
				return misused("there is no completion for %q, only for bash, zsh and fish", shell)
			}
		},
	}
}

// A spelled is a verb with all that can follow it.
type spelled struct {
	verb
	words    []string // of its name, one or two
	flags    []spelledFlag
	argument placeholder // "" where it takes none
}

// A spelledFlag is a flag as help shows it.
type spelledFlag struct {
	name    string
	value   placeholder // "" where it takes none
	choices []string    // the values that there are, where they are few
	text    string
	repeats bool
}

// choices are the values of a flag that knows all of its values; nil for any other.
func choices(flag string) []string {
	switch flag {
	case "stage":
		return stageNames()
	case "platform":
		names := []string{"auto"}
		for _, p := range providers.All {
			names = append(names, p.Name)
		}
		return names
	}
	return nil
}

// spelledOut is every verb that people run.
func spelledOut(list []verb) []spelled {
	var out []spelled
	for _, v := range list {
		if v.hidden {
			continue
		}
		s := spelled{verb: v, words: strings.Fields(v.name)}
		set := flag.NewFlagSet(v.name, flag.ContinueOnError)
		set.SetOutput(io.Discard)
		v.prepare(set)
		set.VisitAll(func(f *flag.Flag) {
			value, text := flag.UnquoteUsage(f)
			s.flags = append(s.flags, spelledFlag{name: f.Name, value: placeholder(strings.ToUpper(value)), choices: choices(f.Name), text: text})
		})
		s.readUsage()
		out = append(out, s)
	}
	return out
}

// readUsage finds in a verb's usage what the flags do not say: the argument, and
// which flags repeat.
func (s *spelled) readUsage() {
	var at *spelledFlag // the flag whose value comes next
	for _, word := range strings.Fields(s.usage) {
		bare := strings.Trim(word, "[].")
		name, isFlag := strings.CutPrefix(bare, "--")
		i := slices.IndexFunc(s.flags, func(f spelledFlag) bool { return f.name == name })
		switch {
		case isFlag && i >= 0 && s.flags[i].value != "":
			at = &s.flags[i]
		case isFlag || bare == "|":
		case at != nil:
			at.repeats = strings.HasSuffix(strings.TrimRight(word, "]"), "...")
			at = nil
		default:
			s.argument = placeholder(bare)
		}
	}
}

// A placeholder is what stands for a value in usage and help, in capitals unless it
// lists words, as in bash|zsh|fish.
type placeholder string

func (p placeholder) directory() bool {
	return p == "DIRECTORY" || p == "DIR" || p == "TREE"
}

func (p placeholder) file() bool {
	return p == "FILE" || p == "INITRD" || p == "LOG"
}

// words are those of which the value is one.
func (p placeholder) words() []string {
	if !strings.Contains(string(p), "|") {
		return nil
	}
	return strings.Split(string(p), "|")
}

// option is the flag as it is given.
func (f spelledFlag) option() string { return "--" + f.name }

// options are all flags of a verb, as they are given.
func (s spelled) options() []string {
	var list []string
	for _, f := range s.flags {
		list = append(list, f.option())
	}
	return append(list, "--help")
}

// groups are the words that verbs begin with, in order, each with the verbs that do.
func groups(list []spelled) (first []string, of map[string][]spelled) {
	of = map[string][]spelled{}
	for _, s := range list {
		if of[s.words[0]] == nil {
			first = append(first, s.words[0])
		}
		of[s.words[0]] = append(of[s.words[0]], s)
	}
	return first, of
}

// summary says what a first word is good for.
func summary(group []spelled) string {
	if len(group[0].words) == 1 {
		return group[0].short
	}
	var second []string
	for _, s := range group {
		second = append(second, s.words[1])
	}
	return strings.Join(second, ", ")
}

// quoted is a word of a POSIX shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// bashCompletion uses bash's own means alone (bash(1), Programmable Completion), not
// the bash-completion package's.
func bashCompletion(list []spelled) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	first, of := groups(list)

	p(`# bash completion for pilotlight, as "pilotlight completion bash" prints it
_pilotlight() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local flags='' files='' directories='' others='' argument='' words='' values='' before='' what
	COMPREPLY=()
	# --flag=value is three words, since bash breaks words at "=".
	if [[ $cur == '=' ]]; then
		cur=''
	elif [[ $prev == '=' ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	if ((COMP_CWORD == 1)); then`)
	p("\t\twords=%s", quoted(strings.Join(append(slices.Clone(first), "--help", "--version"), " ")))
	p("\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n\t\treturn\n\tfi")
	for _, word := range first {
		if len(of[word][0].words) == 1 {
			continue
		}
		p("\tif ((COMP_CWORD == 2)) && [[ ${COMP_WORDS[1]} == %s ]]; then", word)
		p("\t\tmapfile -t COMPREPLY < <(compgen -W %s -- \"$cur\")\n\t\treturn\n\tfi", quoted(strings.ReplaceAll(summary(of[word]), ",", "")))
	}
	p("\tcase \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in")
	for _, s := range list {
		var files, directories, others []string
		var chosen []spelledFlag
		for _, f := range s.flags {
			switch {
			case f.value.directory():
				directories = append(directories, f.option())
			case f.value.file():
				files = append(files, f.option())
			case f.choices != nil:
				chosen = append(chosen, f)
			case f.value != "":
				others = append(others, f.option())
			}
		}
		pattern := quoted(s.name)
		if len(s.words) == 1 {
			pattern = quoted(s.name+" ") + "*"
		}
		p("\t%s)", pattern)
		for _, l := range []struct {
			name string
			list []string
		}{{"flags", s.options()}, {"files", files}, {"directories", directories}, {"others", others}, {"words", s.argument.words()}} {
			if len(l.list) > 0 {
				p("\t\t%s=%s", l.name, quoted(strings.Join(l.list, " ")))
			}
		}
		if len(chosen) > 0 {
			p("\t\tcase $prev in")
			for _, f := range chosen {
				p("\t\t%s) values=%s ;;", f.option(), quoted(strings.Join(f.choices, " ")))
			}
			p("\t\tesac")
		}
		switch {
		case s.argument.directory():
			p("\t\targument=directory")
		case s.argument.file():
			p("\t\targument=file")
		}
		p("\t\t;;")
	}
	p(`	esac
	if [[ -n $values ]]; then
		# Of a list with commas only the last is completed.
		[[ $cur == *,* ]] && before=${cur%%,*},
		mapfile -t COMPREPLY < <(compgen -P "$before" -W "$values" -- "${cur##*,}")
		return
	fi
	what=$argument
	if [[ " $others " == *" $prev "* ]]; then
		return
	elif [[ " $files " == *" $prev "* ]]; then
		what=file
	elif [[ " $directories " == *" $prev "* ]]; then
		what=directory
	elif [[ $cur == -* || -z $argument$words ]]; then
		what=''
		words=$flags
	fi
	case $what in
	file)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	directory)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		;;
	*)
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		;;
	esac
}
complete -F _pilotlight pilotlight`)
	return b.Bytes()
}

// zshCompletion uses _arguments and _describe (zshcompsys(1)).
func zshCompletion(list []spelled) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	// In what both functions take, a colon ends a part, and a bracket an explanation.
	plain := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `[`, `\[`, `]`, `\]`).Replace
	choices := func(indent string, words, texts []string) {
		p("%slocal -a choices=(", indent)
		for i := range words {
			p("%s\t%s", indent, quoted(words[i]+":"+strings.ReplaceAll(texts[i], ":", `\:`)))
		}
		p("%s)\n%s_describe verb choices\n%sreturn", indent, indent, indent)
	}
	action := func(v placeholder) string {
		switch {
		case v.words() != nil:
			return "(" + strings.Join(v.words(), " ") + ")"
		case v.directory():
			return "_files -/"
		case v.file():
			return "_files"
		}
		return " "
	}
	first, of := groups(list)

	p("#compdef pilotlight\n# zsh completion for pilotlight, as \"pilotlight completion zsh\" prints it\n_pilotlight() {\n\tif (( CURRENT == 2 )); then")
	var texts []string
	for _, word := range first {
		texts = append(texts, summary(of[word]))
	}
	choices("\t\t", first, texts)
	p("\tfi")
	for _, word := range first {
		if len(of[word][0].words) == 1 {
			continue
		}
		p("\tif (( CURRENT == 3 )) && [[ $words[2] == %s ]]; then", word)
		var words, texts []string
		for _, s := range of[word] {
			words, texts = append(words, s.words[1]), append(texts, s.short)
		}
		choices("\t\t", words, texts)
		p("\tfi")
	}
	p("\tcase \"$words[2] $words[3]\" in")
	for _, s := range list {
		pattern := quoted(s.name)
		if len(s.words) == 1 {
			pattern = quoted(s.name+" ") + "*"
		}
		// _arguments is to see the verb where the program is.
		p("\t%s)\n\t\tshift %d words\n\t\t(( CURRENT -= %d ))", pattern, len(s.words), len(s.words))
		line := "\t\t_arguments"
		for _, f := range s.flags {
			spec := f.option()
			if f.repeats {
				spec = "*" + spec
			}
			if f.value != "" {
				spec += "="
			}
			spec += "[" + plain(f.text) + "]"
			switch {
			case f.choices != nil:
				// _sequence completes a list with commas, whose last may be the only one.
				spec += ":" + plain(string(f.value)) + ":_sequence compadd - " + strings.Join(f.choices, " ")
			case f.value != "":
				spec += ":" + plain(string(f.value)) + ":" + action(f.value)
			}
			line += " \\\n\t\t\t" + quoted(spec)
		}
		line += " \\\n\t\t\t" + quoted("--help[say more, with an example]")
		if s.argument != "" {
			line += " \\\n\t\t\t" + quoted("1:"+plain(string(s.argument))+":"+action(s.argument))
		}
		p("%s\n\t\t;;", line)
	}
	p(`	esac
}
# Loaded from $fpath, this file is the function; sourced, it has to be made known.
if [[ $funcstack[1] == _pilotlight ]]; then
	_pilotlight "$@"
else
	compdef _pilotlight pilotlight
fi`)
	return b.Bytes()
}

// fishCompletion uses complete (complete(1) of fish).
func fishCompletion(list []spelled) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	// fish's single quotes know these two escapes.
	quoted := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	action := func(v placeholder) string {
		switch {
		case v.words() != nil:
			return " -a " + quoted(strings.Join(v.words(), " "))
		case v.directory():
			return " -a '(__fish_complete_directories (commandline -ct))'"
		case v.file():
			return " -F"
		}
		return ""
	}
	first, of := groups(list)

	p(`# fish completion for pilotlight, as "pilotlight completion fish" prints it
function __pilotlight_in -d 'are these the first words after the program'
	set -l words (commandline -opc)
	set -l last (math (count $argv) + 1)
	test (count $words) -ge $last; or return
	test $last -eq 1; and return
	test "$words[2..$last]" = "$argv"
end
function __pilotlight_at -d 'are these the only words after the program'
	test (count (commandline -opc)) -eq (math (count $argv) + 1); and __pilotlight_in $argv
end
complete -c pilotlight -f
complete -c pilotlight -n __pilotlight_at -l help -d 'say which verbs there are'
complete -c pilotlight -n __pilotlight_at -l version -d 'say which version this is'`)
	for _, word := range first {
		p("complete -c pilotlight -n __pilotlight_at -a %s -d %s", quoted(word), quoted(summary(of[word])))
	}
	for _, s := range list {
		if len(s.words) == 2 {
			p("complete -c pilotlight -n %s -a %s -d %s", quoted("__pilotlight_at "+s.words[0]), quoted(s.words[1]), quoted(s.short))
		}
	}
	for _, s := range list {
		in := "complete -c pilotlight -n " + quoted("__pilotlight_in "+s.name)
		for _, f := range s.flags {
			line := in + " -l " + quoted(f.name)
			switch {
			case f.choices != nil:
				line += " -r -f -a " + quoted(strings.Join(f.choices, " "))
			case f.value != "":
				line += " -r" + action(f.value)
			}
			p("%s -d %s", line, quoted(f.text))
		}
		p("%s -l help -d 'say more, with an example'", in)
		if s.argument != "" {
			p("%s%s", in, action(s.argument))
		}
	}
	return b.Bytes()
}
