package matchbox_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"pilotlight/providers/matchbox"
)

// A machine with a known MAC address boots: firmware is told to introduce itself, gets its
// boot script, and the initrd fetches the config that the script names.
func Example() {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"groups/node1.json":    `{"profile": "worker", "selector": {"mac": "52:54:00:00:00:01"}}`,
		"profiles/worker.json": `{"id": "worker", "ignition_id": "worker.ign", "boot": {"kernel": "/assets/vmlinuz", "initrd": ["/assets/initrd"], "args": ["ignition.config.url=http://lab.example/ignition?mac=${mac:hexhyp}"]}}`,
		"ignition/worker.ign":  `{"ignition": {"version": "3.4.0"}, "pilotlight": {"version": "1"}}`,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	for _, problem := range matchbox.Check(dir, true) {
		fmt.Println("problem:", problem)
	}

	server := httptest.NewServer(&matchbox.Server{
		Dir: dir,
		Raw: true,
		Log: func(line string) { fmt.Println("log:", line) },
	})
	defer server.Close()
	for _, path := range []string{
		"/boot.ipxe",
		"/ipxe?mac=52-54-00-00-00-01",
		"/ignition?mac=52-54-00-00-00-01",
		"/ignition?mac=52-54-00-00-00-02",
	} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", text)
	}

	// Output:
	// problem: profiles/worker.json: boot: /assets/vmlinuz is not there
	// problem: profiles/worker.json: boot: /assets/initrd is not there
	// log: GET /boot.ipxe 200
	// #!ipxe
	// chain ipxe?uuid=${uuid}&mac=${mac:hexhyp}&domain=${domain}&hostname=${hostname}&serial=${serial}&arch=${buildarch:uristring}
	//
	// log: GET /ipxe 200 group=groups/node1.json profile=profiles/worker.json mac=52:54:00:00:00:01
	// #!ipxe
	// kernel /assets/vmlinuz ignition.config.url=http://lab.example/ignition?mac=${mac:hexhyp}
	// initrd /assets/initrd
	// boot
	//
	// log: GET /ignition 200 group=groups/node1.json profile=profiles/worker.json mac=52:54:00:00:00:01
	// {"ignition": {"version": "3.4.0"}, "pilotlight": {"version": "1"}}
	// log: GET /ignition 404 mac=52:54:00:00:00:02: no group matches these labels
	// 404 page not found
}
