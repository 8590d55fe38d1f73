package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// row is one line: ours beside a floor, and the peer where it does the same. Unit is of
// all three.
type row struct {
	What   string  `json:"what"`
	Beside string  `json:"beside"`
	Unit   string  `json:"unit"`
	Ours   float64 `json:"ours"`
	Floor  float64 `json:"floor"`
	Ratio  float64 `json:"ratio"`            // ours by floor
	Aim    float64 `json:"aim,omitempty"`    // that the ratio is not to pass; none is 0
	Spread float64 `json:"spread,omitempty"` // of ours, by ours
	Runs   int     `json:"runs"`             // 1 for what does not vary

	Peer       float64 `json:"peer,omitempty"`
	PeerRatio  float64 `json:"peer_ratio,omitempty"` // the peer by the floor
	Memory     float64 `json:"memory,omitempty"`     // resident at most, in MiB; of ours
	PeerMemory float64 `json:"peer_memory,omitempty"`
}

// verdict is "ok", "over", or nothing where no aim is.
func (r row) verdict() string {
	switch {
	case r.Aim == 0:
		return ""
	case r.Ratio > r.Aim:
		return "over"
	}
	return "ok"
}

type table []row

// timed is the row of two samples of seconds.
func timed(what, beside string, ours, floor samples, aim float64) row {
	return row{
		What: what, Beside: beside, Unit: "ms", Ours: 1000 * ours.median(), Floor: 1000 * floor.median(),
		Ratio: ours.median() / floor.median(), Aim: aim, Spread: ours.spread(), Runs: len(ours),
	}
}

// sized is the row of two numbers of bytes.
func sized(what, beside string, ours, floor int64, aim float64) row {
	const mb = 1e6
	return row{
		What: what, Beside: beside, Unit: "MB", Ours: float64(ours) / mb, Floor: float64(floor) / mb,
		Ratio: float64(ours) / float64(floor), Aim: aim, Runs: 1,
	}
}

func (t table) print(w io.Writer, asJSON bool) error {
	if asJSON {
		type judged struct {
			row
			Verdict string `json:"verdict,omitempty"`
		}
		rows := make([]judged, len(t))
		for i, r := range t {
			rows[i] = judged{r, r.verdict()}
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(rows)
	}
	fmt.Fprintf(w, "%-36s %13s %6s   %-34s %13s %13s %7s %7s %13s %7s %6s\n",
		"", "ours", "±", "beside", "floor", "the peer", "ratio", "MiB", "the peer MiB", "ratio", "aim")
	for _, r := range t {
		aim := "-"
		if r.Aim > 0 {
			aim = fmt.Sprintf("%.2f", r.Aim)
		}
		spread := ""
		if r.Runs > 1 {
			spread = fmt.Sprintf("%.0f %%", 100*r.Spread)
		}
		peer := [4]string{}
		for i, v := range []float64{r.Peer, r.PeerRatio, r.Memory, r.PeerMemory} {
			if v > 0 {
				peer[i] = fmt.Sprintf("%.2f", v)
			}
		}
		if peer[0] != "" {
			peer[0] += " " + r.Unit
		}
		if _, err := fmt.Fprintf(w, "%-36s %10.2f %s %6s   %-34s %10.2f %s %13s %7s %7s %13s %7.2f %6s  %s\n",
			r.What, r.Ours, r.Unit, spread, r.Beside, r.Floor, r.Unit, peer[0], peer[1], peer[2], peer[3], r.Ratio, aim, r.verdict()); err != nil {
			return err
		}
	}
	return nil
}
