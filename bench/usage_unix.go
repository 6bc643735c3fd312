//go:build unix

package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// ownUsage reads what this process has used so far.
func ownUsage() usage {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return usage{}
	}
	u := usage{RSS: float64(r.Maxrss) / (1 << 20)}
	u.CPU = float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
	// Linux counts the parent's memory at exec into ru_maxrss, and in KiB; VmHWM is the process's own.
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
		if f := bytes.Fields(after); len(f) > 0 {
			if kib, err := strconv.ParseFloat(string(f[0]), 64); err == nil {
				u.RSS = kib / 1024
			}
		}
	}
	return u
}
