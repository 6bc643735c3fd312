package api

import (
	"strings"
	"time"
)

// The bounds of a schedule.
const (
	latePast    = 5 * time.Minute      // how far in the past a send_at may lie; it counts as now
	farAhead    = 365 * 24 * time.Hour // how far ahead
	maxLife     = 7 * 24 * time.Hour   // from send_at to expires_at
	defaultLife = 24 * time.Hour
)

// schedule reads when a message goes and until when it may.
func (k *checker) schedule(in *messageIn, f *faults) (due, expires time.Time) {
	due = k.now
	if in.SendAt != "" {
		t, ok := k.sendAt(in, f)
		if !ok {
			return due, due
		}
		due = t
	} else if in.Zone != "" {
		f.add("/zone", "field_not_allowed", "zone belongs to a send_at without offset")
	}
	switch {
	case in.ExpiresAt != "" && in.TTL != "":
		f.add("/ttl", "invalid_time", "give expires_at or ttl, not both")
		return due, due
	case in.ExpiresAt != "":
		t, err := time.Parse(time.RFC3339, in.ExpiresAt)
		if err != nil {
			f.add("/expires_at", "invalid_time", "use RFC 3339 with a zone, as in 2026-03-01T18:00:00Z")
			return due, due
		}
		expires = t.UTC()
	case in.TTL != "":
		d, err := time.ParseDuration(in.TTL)
		if err != nil || d < time.Second || d > maxLife {
			f.add("/ttl", "invalid_time", "use a duration from 1s to 168h, as in 10m")
			return due, due
		}
		expires = due.Add(d)
	default:
		return due, due.Add(defaultLife)
	}
	switch {
	case !expires.After(due):
		f.add(expiryPointer(in), "expires_before_send", "the message would expire at %s and be sent at %s",
			expires.Format(time.RFC3339), due.UTC().Format(time.RFC3339))
	case expires.Sub(due) > maxLife:
		f.add(expiryPointer(in), "invalid_time", "a message expires at most 7 days after its send_at")
	}
	return due, expires
}

func expiryPointer(in *messageIn) string {
	if in.TTL != "" {
		return "/ttl"
	}
	return "/expires_at"
}

// sendAt reads an instant, or a local time with its zone.
func (k *checker) sendAt(in *messageIn, f *faults) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, in.SendAt)
	if err != nil {
		wall, lerr := time.Parse("2006-01-02T15:04:05", strings.Replace(in.SendAt, " ", "T", 1))
		if lerr != nil {
			wall, lerr = time.Parse("2006-01-02T15:04", strings.Replace(in.SendAt, " ", "T", 1))
		}
		switch {
		case lerr != nil:
			f.add("/send_at", "invalid_time", "this is no date and time: use RFC 3339, as in 2026-03-01T18:00:00+05:30")
			return t, false
		case in.Zone == "":
			f.add("/send_at", "invalid_time",
				"the zone is missing: end with Z or an offset such as +05:30, or add the field zone")
			return t, false
		}
		loc, ok := k.a.zone(in.Zone)
		if !ok {
			f.add("/zone", "unknown_timezone", "there is no time zone %s: use an IANA name such as Asia/Kolkata",
				quoted(in.Zone))
			return t, false
		}
		t = resolve(wall, loc)
	} else if in.Zone != "" {
		f.add("/zone", "invalid_time", "send_at has an offset already: leave zone out")
		return t, false
	}
	switch {
	case t.Before(k.now.Add(-latePast)):
		f.add("/send_at", "invalid_time", "send_at lies more than 5 minutes in the past")
	case t.After(k.now.Add(farAhead)):
		f.add("/send_at", "invalid_time", "send_at lies more than one year ahead")
	case t.Before(k.now):
		return k.now, true
	default:
		return t.UTC(), true
	}
	return t, false
}

// zone returns a time zone of the IANA database.
func (a *api) zone(name string) (*time.Location, bool) {
	if loc, ok := a.zones.Load(name); ok {
		return loc.(*time.Location), true
	}
	// Local is the engine's own zone: a message must not depend on where the engine runs.
	if name == "" || name == "Local" || len(name) > 64 || strings.ContainsAny(name, "\\ \t") {
		return nil, false
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, false
	}
	a.zones.Store(name, loc)
	return loc, true
}

// resolve finds the instant at which clocks in loc show a wall time. A time that clocks show twice means its first
// occurrence; a time that they skip means the first instant after the gap.
func resolve(wall time.Time, loc *time.Location) time.Time {
	offset := func(t time.Time) time.Duration {
		_, seconds := t.In(loc).Zone()
		return time.Duration(seconds) * time.Second
	}
	// Offsets change at most once within a day of any moment, so the ones a day before and after are all there are.
	before, after := offset(wall.Add(-24*time.Hour)), offset(wall.Add(24*time.Hour))
	for _, o := range []time.Duration{max(before, after), min(before, after)} { // the larger offset comes first in time
		if t := wall.Add(-o); offset(t) == o {
			return t.UTC()
		}
	}
	_, end := wall.Add(-after).In(loc).ZoneBounds()
	if end.IsZero() {
		return wall.Add(-before).UTC()
	}
	return end.UTC()
}
