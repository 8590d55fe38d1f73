// Command run is `make run`: a virtual machine is provisioned before your eyes.
//
// It installs what it needs, builds a Debian tree, its verity /usr, an initrd, a
// UKI and a disk, starts a server for the config, boots, shows the boot as it goes,
// and then sets what the guest says of itself beside what was wanted. Exit 0 only
// if every line is right.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"pilotlight/initrd"
	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

func main() {
	broken := flag.String("break", "", "what to break: roothash, config or disk")
	suite := flag.String("suite", "trixie", "Debian suite of the guest")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), initrd.Endings()...)
	defer stop()
	elevated, code, err := lab.Elevate(ctx)
	if err == nil && !elevated {
		err = demonstrate(ctx, *broken, *suite)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		code = 1
	}
	os.Exit(code)
}

func demonstrate(ctx context.Context, broken, suite string) error {
	log := lab.NewLog(os.Stdout)
	if err := lab.Prepare(ctx, log); err != nil {
		return err
	}
	cache, err := lab.OpenCache(log)
	if err != nil {
		return err
	}
	s, err := scene.Build(ctx, cache, suite, filepath.Join(cache.Repository, ".cache", "run-"+suite))
	if err != nil {
		return err
	}
	config := s.UserConfig()
	if err := breakIt(config, broken); err != nil {
		return err
	}
	// A config that is broken cannot be wrapped; it is served as it is.
	server, err := s.Serve(ctx, "run", config, broken == "config")
	if err != nil {
		return err
	}
	defer server.Close()
	log.Printf("serving the config on %s, as matchbox does", server.Address)
	var prediction scene.Prediction
	if broken != "config" {
		if prediction, _, err = s.Predict(ctx, server); err != nil {
			return err
		}
		log.Printf("predicted PCR 12: %s", prediction.Values["sha256"])
	}

	guest := s.Guest("guest")
	if err := os.RemoveAll(guest.Dir); err != nil {
		return err
	}
	log.Printf("booting a new machine: UEFI, TPM 2.0, one disk (%s)", guest.Accel)
	watch := watcher{log: log}
	out, err := guest.Boot(ctx, lab.Boot{
		Network: true, Credentials: server.Credentials("pilotlight.onfailure", "poweroff"), Deadline: 10 * time.Minute, OnLine: watch.line,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(guest.Dir, "facts.json"), out.Witness, 0o600); err != nil {
		return err
	}
	facts, err := out.Facts()
	if err != nil || broken != "" {
		return explain(out, broken)
	}
	return summarize(facts, s.Expected(prediction), server, out)
}

// breakIt makes the config wrong in one of three ways.
func breakIt(c scene.Config, how string) error {
	first := func(list string) map[string]any { return c.Section()[list].([]any)[0].(map[string]any) }
	switch how {
	case "":
	case "roothash":
		v := first("verity")
		hash := []byte(v["rootHash"].(string))
		hash[0] = map[bool]byte{true: '1', false: '0'}[hash[0] == '0']
		v["rootHash"] = string(hash)
	case "config":
		r := first("repart")
		r["devices"] = r["device"]
		delete(r, "device")
	case "disk":
		r := first("repart")
		r["definitions"] = append(r["definitions"].([]any), map[string]any{
			"name": "70-srv.conf", "contents": map[string]any{"inline": "[Partition]\nType=srv\nLabel=srv\nFormat=ext4\nSizeMinBytes=64G\n"},
		})
	default:
		return fmt.Errorf("BREAK=%s: roothash, config and disk can be broken", how)
	}
	return nil
}

// watcher shows a boot as it goes: what pilotlight says, and the landmarks around it.
type watcher struct {
	log  *lab.Log
	seen map[string]bool
}

// landmarks are console lines that tell a person where a boot is.
var landmarks = [...]struct{ text, say string }{
	{"BdsDxe: starting", "firmware starts the UKI"},
	{"EFI stub:", "kernel"},
	{"Booting initrd of", "systemd in the initrd"},
	{"Switching root", "switch root"},
	{"Welcome to", "systemd of the host"},
	{"login:", "login prompt"},
}

var prefix = regexp.MustCompile(`^\[[ 0-9.]+\] (systemd\[1\]: |pilotlight\[[0-9]+\]: )?`)

func (w *watcher) line(l lab.Line) {
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	text := prefix.ReplaceAllString(strings.TrimSpace(l.Text), "")
	if said, ok := strings.CutPrefix(text, "pilotlight: "); ok {
		w.log.Printf("  %s", said)
		return
	}
	for _, m := range landmarks {
		if strings.Contains(text, m.text) && !w.seen[m.say] {
			w.seen[m.say] = true
			w.log.Printf("  ── %s", m.say)
		}
	}
}

// explain shows the three lines of a failure, from the guest's console.
func explain(out lab.Outcome, broken string) error {
	fmt.Println()
	n := 0
	for _, l := range out.Console {
		text := prefix.ReplaceAllString(l.Text, "")
		if strings.HasPrefix(text, "pilotlight: FAILED") && n > 0 {
			break // it is told again before the policy is carried out
		}
		if strings.HasPrefix(text, "pilotlight: FAILED") || n > 0 && strings.HasPrefix(text, "pilotlight:   ") {
			fmt.Println(text)
			n++
		}
	}
	switch {
	case n == 0:
		return fmt.Errorf("the guest did not say what failed (console: %s)", out.ConsoleFile)
	case broken == "":
		return fmt.Errorf("provisioning failed (console: %s)", out.ConsoleFile)
	}
	return errors.New("provisioning failed, as was asked for by BREAK=" + broken)
}

// summarize prints what came of it, checked.
func summarize(f lab.Facts, want lab.Expected, server *scene.Server, out lab.Outcome) error {
	var report initrd.Report
	if err := json.Unmarshal(f.Report, &report); err != nil {
		return fmt.Errorf("the guest's report: %w", err)
	}
	checks := lab.Compare(f, want)
	checks.Add("report", report.State, "complete")
	checks.Add("kind of boot", report.Boot, "first")
	checks.Add("requests for the config", len(server.Requests("/ignition")), 2) // ours, to predict, and the guest's

	fmt.Println()
	row := func(name, format string, args ...any) { fmt.Printf("  %-11s %s\n", name, fmt.Sprintf(format, args...)) }
	row("platform", "%s", report.Platform)
	row("config", "sha256 %s", report.Config)
	for _, d := range report.Documents {
		row("", "%-10s %s", d.Name, d.Source)
	}
	for _, b := range f.Blocks {
		if b.Type == "part" {
			row("partition", "%-11s %7.1f MiB  %s", b.PartLabel, float64(b.Size)/(1<<20), b.FSType)
		}
	}
	hash, verified := f.VerityRootHash("usr")
	state := map[bool]string{true: "verified", false: "CORRUPT"}[verified]
	row("verity", "usr %s, root hash %s", state, hash)
	row("PCR 12", "%s", f.PCR12["sha256"])
	row("predicted", "%s", want.PCR12["sha256"])
	row("/etc", "%d files, directories and links", len(f.Etc))
	row("record", "%s, provision %s", report.Record, report.Provision)
	total := 0.0
	for _, s := range report.Stages {
		row("stage", "%-7s %6.2f s", s.Name, s.Took)
		total += s.Took
	}
	row("total", "%.2f s in pilotlight, %.1f s from power-on to power-off", total, out.Elapsed.Seconds())
	fmt.Println()
	if _, err := checks.WriteTo(os.Stdout); err != nil {
		return err
	}
	if !checks.OK() {
		return fmt.Errorf("%d of %d checks are wrong (console: %s)", len(checks.Wrong()), len(checks), out.ConsoleFile)
	}
	fmt.Printf("\nall %d checks made inside the guest are right\n", len(checks))
	return nil
}
