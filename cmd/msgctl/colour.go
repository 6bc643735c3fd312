package main

// The few SGR sequences that are used.
const (
	bold   = "\x1b[1m"
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// paint colours a text, on a terminal that wants colour (no-color.org).
func (a *app) paint(code, s string) string {
	if !a.outTTY || a.env("NO_COLOR") != "" || a.env("TERM") == "dumb" {
		return s
	}
	return code + s + reset
}

// tint colours the words that say how things are.
func (a *app) tint(s string) string {
	switch s {
	case "delivered", "read", "ready", "completed":
		return a.paint(green, s)
	case "failed", "undelivered", "expired", "unknown", "ambiguous":
		return a.paint(red, s)
	case "held", "deferred", "suppressed", "paused", "canceled", "stopped":
		return a.paint(yellow, s)
	}
	return s
}
