package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one line of the report. Of accepts, P50 and P99 are those of a request.
type row struct {
	Name  string  `json:"name"`
	Rate  float64 `json:"messages_per_s"`
	Limit float64 `json:"limit_per_s"`
	Ratio float64 `json:"ratio"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	CPU   float64 `json:"cpu_s_per_100k"` // of the engine's process
	RSS   float64 `json:"rss_mb"`         // the most that was resident, in MiB

	aim aim
}

// aim is what a row should reach; 0 = nothing is asked.
type aim struct{ rate, cpu, ratio, p99, rss float64 }

func (b *bench) add(r row) {
	r.Ratio = r.Rate / r.Limit
	b.rows = append(b.rows, r)
}

// verdict is ok, or what is below the aim.
func (r row) verdict() string {
	var below []string
	for _, q := range []struct {
		name string
		bad  bool
	}{
		{"rate", r.Rate < r.aim.rate},
		{"CPU", r.aim.cpu > 0 && r.CPU > r.aim.cpu},
		{"ratio", r.Ratio < r.aim.ratio},
		{"p99", r.aim.p99 > 0 && r.P99 > r.aim.p99},
		{"memory", r.aim.rss > 0 && r.RSS > r.aim.rss},
	} {
		if q.bad {
			below = append(below, q.name)
		}
	}
	if below == nil {
		return "ok"
	}
	return "below: " + strings.Join(below, ", ")
}

func (a aim) String() string {
	var parts []string
	for _, p := range []struct {
		v      float64
		format string
	}{{a.rate, "≥%g/s"}, {a.cpu, "≤%g CPU-s"}, {a.ratio, "ratio ≥%g"}, {a.p99, "p99 ≤%g ms"}, {a.rss, "≤%g MiB"}} {
		if p.v > 0 {
			parts = append(parts, fmt.Sprintf(p.format, p.v))
		}
	}
	return strings.Join(parts, ", ")
}

func printTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\tmessages/s\tlimit/s\tratio\tp50 ms\tp99 ms\tCPU-s/100k\tMiB\taim\tverdict")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t%.1f\t%.1f\t%.1f\t%.0f\t%s\t%s\n",
			r.Name, r.Rate, r.Limit, r.Ratio, r.P50, r.P99, r.CPU, r.RSS, r.aim, r.verdict())
	}
	_ = t.Flush()
}

func writeRows(file string, rows []row) error {
	if rows == nil {
		rows = []row{}
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// median of an even number is the mean of the two in the middle.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// percentile is the smallest value that p per cent do not exceed, in milliseconds.
func percentile(v []time.Duration, p int) float64 {
	v = slices.SortedFunc(slices.Values(v), cmp.Compare[time.Duration])
	if len(v) == 0 {
		return 0
	}
	return float64(v[max((len(v)*p+99)/100, 1)-1].Microseconds()) / 1000
}
