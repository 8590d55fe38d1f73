package matchbox

import (
	"errors"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// wellKnown are the labels whose meaning and values are no secret, in the order of the log.
var wellKnown = []string{"uuid", "mac", "serial", "hostname", "arch", "os", "domain"}

// parseLabels turns a query into labels. The first value of a key counts. A key that is
// "mac" in any case has its value rewritten to lower-case colon form; such keys whose value
// does not parse are left out and returned, sorted.
func parseLabels(query url.Values) (labels map[string]string, dropped []string) {
	labels = make(map[string]string, len(query))
	for _, key := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(key)
		if strings.EqualFold(key, "mac") {
			mac, err := parseMAC(value)
			if err != nil {
				dropped = append(dropped, key)
				continue
			}
			value = mac.String()
		}
		labels[key] = value
	}
	return labels, dropped
}

// parseMAC reads the forms 52:54:00:aa:bb:cc, 52-54-00-aa-bb-cc and 5254.00aa.bbcc, and the
// same of 8 and 20 bytes.
func parseMAC(s string) (net.HardwareAddr, error) {
	// Newer Go takes the form without separators too. A matchbox built with an older one
	// does not, and what works in a lab must work there.
	if !strings.ContainsAny(s, ":-.") {
		return nil, errors.New("no separators")
	}
	return net.ParseMAC(s)
}

// readLabels reads the labels of the request, and warns of those that will not do what
// their sender expects.
func (q *request) readLabels() map[string]string {
	query := q.URL.Query()
	labels, dropped := parseLabels(query)
	for _, key := range dropped {
		q.warn("label %s=%s is not a MAC address and is left out", key, quote(query.Get(key)))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if lower := strings.ToLower(key); lower != key && slices.Contains(wellKnown, lower) {
			q.warn("label %s does not match selector %s: keys are case-sensitive", key, lower)
		}
	}
	return labels
}
