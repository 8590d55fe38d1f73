package matchbox

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/quick"
)

func TestParseLabels(t *testing.T) {
	for _, test := range []struct {
		query   string
		want    map[string]string
		dropped []string
	}{
		{"", map[string]string{}, nil},
		{"a=1&a=2&b=", map[string]string{"a": "1", "b": ""}, nil},
		{"mac=52-54-00-AA-BB-CC", map[string]string{"mac": "52:54:00:aa:bb:cc"}, nil},
		{"mac=52%3A54%3A00%3AAA%3Abb%3Acc", map[string]string{"mac": "52:54:00:aa:bb:cc"}, nil},
		{"mac=5254.00aa.bbcc", map[string]string{"mac": "52:54:00:aa:bb:cc"}, nil},
		{"MAC=52-54-00-aa-bb-cc&Mac=x", map[string]string{"MAC": "52:54:00:aa:bb:cc"}, []string{"Mac"}},
		{"mac=525400aabbcc", map[string]string{}, []string{"mac"}},
		{"mac=", map[string]string{}, []string{"mac"}},
		{"mac=x&mac=52-54-00-aa-bb-cc", map[string]string{}, []string{"mac"}},
		{"uuid=AB&serial=+s", map[string]string{"uuid": "AB", "serial": " s"}, nil},
	} {
		query, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		got, dropped := parseLabels(query)
		if !maps.Equal(got, test.want) || !slices.Equal(dropped, test.dropped) {
			t.Errorf("%s: %v, dropped %v; want %v, dropped %v", test.query, got, dropped, test.want, test.dropped)
		}
	}
}

// TestMACForms writes any address in every form and case, and wants one label.
func TestMACForms(t *testing.T) {
	same := func(mac [6]byte) bool {
		want := net.HardwareAddr(mac[:]).String()
		for _, form := range []string{
			want,
			strings.ReplaceAll(want, ":", "-"),
			fmt.Sprintf("%x.%x.%x", mac[:2], mac[2:4], mac[4:]),
		} {
			for _, value := range []string{form, strings.ToUpper(form)} {
				labels, dropped := parseLabels(url.Values{"mac": {value}})
				if labels["mac"] != want || len(dropped) != 0 {
					return false
				}
			}
		}
		return true
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
}

func FuzzParseLabels(f *testing.F) {
	f.Add(node1)
	f.Add("MAC=5254.00aa.bbcc&mac=&a=%zz;b=1")
	f.Fuzz(func(t *testing.T, raw string) {
		query := (&url.URL{RawQuery: raw}).Query()
		labels, dropped := parseLabels(query)
		if len(labels)+len(dropped) != len(query) {
			t.Fatalf("%d keys, %d labels, %d dropped", len(query), len(labels), len(dropped))
		}
		for key, value := range labels {
			if !strings.EqualFold(key, "mac") {
				if value != query.Get(key) {
					t.Fatalf("%q became %q", query.Get(key), value)
				}
				continue
			}
			again, _ := parseLabels(url.Values{key: {value}})
			if again[key] != value || strings.ToLower(value) != value {
				t.Fatalf("%q is not the one form of %q", value, query.Get(key))
			}
		}
	})
}
