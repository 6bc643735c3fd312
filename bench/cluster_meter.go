package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tickSeconds is the unit of CPU times in /proc: USER_HZ is 100 for every program on Linux (proc(5)).
const tickSeconds = 0.01

// kinds are the servers as the system calls their processes.
var kinds = map[string]string{"postgres": "PostgreSQL", "beam.smp": "RabbitMQ", "redis-server": "Redis"}

// proc is a process of the system.
type proc struct {
	pid, parent int
	name        string
	cpu         float64 // seconds, with that of children that have ended
}

// parseStat reads /proc/PID/stat: "pid (name) state parent …", where the name may hold blanks and brackets.
func parseStat(b []byte) (p proc, ok bool) {
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return p, false
	}
	p.name = string(b[from+1 : to])
	fields := strings.Fields(string(b[to+1:]))
	if len(fields) < 15 {
		return p, false
	}
	var err1, err2 error
	p.pid, err1 = strconv.Atoi(strings.TrimSpace(string(b[:from])))
	p.parent, err2 = strconv.Atoi(fields[1])
	for _, f := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return p, false
		}
		p.cpu += float64(n) * tickSeconds
	}
	return p, err1 == nil && err2 == nil
}

// processes lists those of the system; none where there is no /proc.
func processes() (list []proc) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // else it has just ended
			if p, ok := parseStat(b); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// trees are the processes of each kind of server that the process parent has started, with their descendants.
func trees(list []proc, parent int) map[string][]proc {
	found := map[string][]proc{}
	for _, p := range list {
		kind, ok := kinds[p.name]
		if !ok || p.parent != parent {
			continue
		}
		tree := []proc{p}
		for i := 0; i < len(tree); i++ {
			for _, q := range list {
				if q.parent == tree[i].pid {
					tree = append(tree, q)
				}
			}
		}
		found[kind] = append(found[kind], tree...)
	}
	return found
}

// memory is what a tree of processes holds, in MiB: all that is each one's own, and once what they share.
func memory(tree []proc) float64 {
	own, shared := 0, 0
	for _, p := range tree {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
		if err != nil {
			continue
		}
		own += kibibytes(b, "RssAnon")
		shared = max(shared, kibibytes(b, "RssShmem"))
	}
	return float64(own+shared) / 1024
}

func kibibytes(status []byte, key string) int {
	_, after, _ := bytes.Cut(status, []byte(key+":"))
	if f := bytes.Fields(after); len(f) > 0 {
		n, _ := strconv.Atoi(string(f[0]))
		return n
	}
	return 0
}

// machineBusy is the CPU time that the whole machine has used so far, in seconds, time that a hypervisor took included.
func machineBusy() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return parseBusy(b)
}

// parseBusy reads the first line of /proc/stat: "cpu user nice system idle iowait irq softirq steal …".
func parseBusy(b []byte) (busy float64) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	for i, f := range strings.Fields(string(line)) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, iowait, guests that user counts already
			continue
		}
		n, _ := strconv.ParseInt(f, 10, 64)
		busy += float64(n) * tickSeconds
	}
	return busy
}

// loadAverage is the machine's, as the system prints it.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// parts are who uses CPU, in the order of the tables.
var parts = []string{"engines", "PostgreSQL", "RabbitMQ", "Redis"}

// reading is the CPU time that everybody has used at a moment, in seconds.
type reading struct {
	at   time.Time
	part map[string]float64 // by parts, and "load": this program and the simulator
	busy float64            // of the whole machine
}

// costs are what a load has cost.
type costs struct {
	per    []float64 // CPU-s per 100,000 messages, by parts
	others float64   // share of the machine that others used meanwhile, 0–1
}

// since compares two readings. A server that was started anew in between counts from 0.
func (r reading) since(before reading, messages, cpus int) (c costs) {
	c.per = make([]float64, len(parts))
	ours := 0.0
	for name, v := range r.part {
		used := v - before.part[name]
		if used < 0 {
			used = v
		}
		ours += used
		if i := slices.Index(parts, name); i >= 0 && messages > 0 {
			c.per[i] = used / float64(messages) * 100_000
		}
	}
	if whole := r.at.Sub(before.at).Seconds() * float64(cpus); whole > 0 && r.busy > before.busy {
		c.others = min(max((r.busy-before.busy-ours)/whole, 0), 1)
	}
	return c
}
