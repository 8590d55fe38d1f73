package config

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pilotlight/config/resource"
)

// paths is a network in which what comes depends on what is followed.
type paths struct {
	mu       sync.Mutex
	settings Settings
	under    int // calls of fetch
	asked    []string
	answer   func(ctx context.Context, url, proxy string, cas int) ([]byte, error)
	broken   string // what must never happen, and did
}

func (p *paths) follow(s Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.under > 0 {
		p.broken = "other settings while a fetch is under way"
	}
	p.settings = s
}

func (p *paths) fetch(ctx context.Context, list []resource.Resource) ([][]byte, error) {
	p.mu.Lock()
	url, proxy, cas := list[0].Source.Reveal(), p.settings.HTTPProxy.Reveal(), len(p.settings.CertificateAuthorities)
	p.under++
	p.asked = append(p.asked, strings.TrimPrefix(url, "http://h/")+" "+strings.TrimPrefix(proxy, "http://"))
	p.mu.Unlock()
	body, err := p.answer(ctx, url, proxy, cas)
	p.mu.Lock()
	p.under--
	p.mu.Unlock()
	return [][]byte{body}, err
}

// says is a document with something about fetching in it, and a file of its name.
func says(name, more string) []byte {
	return fmt.Appendf(nil, `{"ignition": {"version": "3.5.0"%s}, "storage": {"files": [{"path": "/%s", "contents": {"source": "data:,%[2]s"}}]}}`, more, name)
}

const (
	byProxy     = `, "proxy": {"httpProxy": "http://p"}`
	byTimeout   = `, "timeouts": {"httpTotal": 7}`
	byAuthority = `, "security": {"tls": {"certificateAuthorities": [{"source": "data:,ca"}]}}`
)

// level collects a user's config that merges 1, 2, 3 and 4, and gives what was measured.
func (p *paths) level(t *testing.T) (Collected, []string, error) {
	t.Helper()
	var merge []string
	for i := range 4 {
		merge = append(merge, fmt.Sprintf(`{"source": "http://h/%d"}`, i+1))
	}
	user := fmt.Sprintf(`{"ignition": {"version": "3.5.0", "config": {"merge": [%s]}}}`, strings.Join(merge, ","))
	var measured []string
	measure := func(list []Document) error {
		for _, d := range list {
			measured = append(measured, d.Name)
		}
		return nil
	}
	got, err := Collect(t.Context(), []Document{{Name: UserDocument, Bytes: []byte(user)}}, p.fetch, measure, Options{Settings: p.follow})
	if p.broken != "" {
		t.Error(p.broken)
	}
	if p.under != 0 {
		t.Errorf("%d fetches were left behind", p.under)
	}
	slices.Sort(p.asked)
	return got, measured, err
}

// files are the files of a config by what is in them, which says who wrote them.
func files(c Config) string {
	var list []string
	for _, f := range c.Ignition.Storage.Files {
		list = append(list, strings.TrimPrefix(*f.Contents.Source, "data:,"))
	}
	return strings.Join(list, ",")
}

var inOrder = []string{UserDocument, "child-0001", "child-0002", "child-0003", "child-0004"}

func TestLevelIsFetchedByWhatItSays(t *testing.T) {
	refused := &resource.Error{What: "url", Err: resource.ErrRefused}
	for _, test := range []struct {
		name, second string
		answer       func(ctx context.Context, url, proxy string, cas int) ([]byte, error)
		files, asked string
		err          error
	}{
		{name: "nothing is said", files: "1,2,3,4", asked: "1 ,2 ,3 ,4 "},
		{name: "a proxy", second: byProxy, files: "1,2,3-by-p,4-by-p", asked: "1 ,2 ,3 ,3 p,4 ,4 p",
			answer: func(_ context.Context, url, proxy string, _ int) ([]byte, error) {
				if name := url[len("http://h/"):]; proxy != "" {
					return says(name+"-by-p", ""), nil
				} else if name != "2" {
					return says(name, ""), nil
				}
				return says("2", byProxy), nil
			}},
		{name: "a proxy, and the server answers once", second: byProxy, files: "1,2,3,4", asked: "1 ,2 ,3 ,3 p,4 ,4 p",
			answer: func(_ context.Context, url, proxy string, _ int) ([]byte, error) {
				if proxy != "" {
					return nil, refused
				}
				return nil, nil
			}},
		{name: "timeouts", second: byTimeout, files: "1,2,3,4", asked: "1 ,2 ,3 ,4 "},
		{name: "an authority that the third is known by", second: byAuthority, files: "1,2,3,4", asked: "1 ,2 ,3 ,3 ,4 ",
			answer: func(ctx context.Context, url, _ string, cas int) ([]byte, error) {
				if url == "http://h/3" && cas == 0 {
					<-ctx.Done() // it is tried again and again
					return nil, ctx.Err()
				}
				return nil, nil
			}},
		{name: "an authority of the fourth is none of the third's", err: refused,
			answer: func(_ context.Context, url, _ string, cas int) ([]byte, error) {
				if url == "http://h/3" {
					return nil, refused
				}
				return nil, nil
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var others sync.WaitGroup // the second comes when all others have, but for those that wait
			others.Add(2)
			p := &paths{}
			p.answer = func(ctx context.Context, url, proxy string, cas int) ([]byte, error) {
				name := url[len("http://h/"):]
				if proxy == "" && cas == 0 && (name == "1" || name == "4") {
					defer others.Done()
				}
				if name == "2" {
					others.Wait()
				}
				if test.answer != nil {
					if body, err := test.answer(ctx, url, proxy, cas); body != nil || err != nil {
						return body, err
					}
				}
				more := map[string]string{"2": test.second}[name]
				if strings.HasPrefix(test.name, "an authority of the fourth") && name == "4" {
					more = byAuthority
				}
				return says(name, more), nil
			}
			got, measured, err := p.level(t)
			if !errors.Is(err, test.err) || (err != nil) != (test.err != nil) {
				t.Fatalf("error: %v", err)
			}
			if err != nil {
				return
			}
			if list := files(got.Config); list != test.files {
				t.Errorf("got %s, want %s", list, test.files)
			}
			if asked := strings.Join(p.asked, ","); asked != test.asked {
				t.Errorf("asked for %s, want %s", asked, test.asked)
			}
			if !slices.Equal(measured, inOrder) {
				t.Errorf("measured %v", measured)
			}
			for i, d := range got.Documents {
				if d.Name != inOrder[i] {
					t.Errorf("document %d is %s", i, d.Name)
				}
			}
			// The same documents, frozen, are the same config, and nobody is asked twice.
			rest := got.Documents[1:]
			again := func(_ context.Context, list []resource.Resource) (bodies [][]byte, _ error) {
				for _, d := range rest[:len(list)] {
					bodies = append(bodies, d.Bytes)
				}
				rest = rest[len(list):]
				return bodies, nil
			}
			frozen, err := Collect(t.Context(), got.Documents[:1], again, nil, Options{})
			if err != nil || len(rest) != 0 || files(frozen.Config) != files(got.Config) {
				t.Errorf("%v, %d left: %v", files(frozen.Config), len(rest), err)
			}
		})
	}
}

func TestMayDirect(t *testing.T) {
	for text, want := range map[string]bool{
		`{"ignition": {"version": "3.5.0"}, "storage": {"files": [{"path": "/a"}]}}`: false,
		`{"ignition": {"Proxy": {}}}`:            true,
		`{"ignition": {"tim\u0065outs": {}}}`:    true,
		"{\"ignition\": {\"\u017fecurity\": 1}}": true,
	} {
		if mayDirect([]byte(text)) != want {
			t.Errorf("%s: %t", text, !want)
		}
	}
}
