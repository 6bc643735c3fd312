package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestResolve(t *testing.T) {
	for _, c := range []struct{ wall, zone, want string }{
		{"2026-03-29T02:30:00", "Europe/Berlin", "2026-03-29T01:00:00Z"}, // in the gap: the first instant after it
		{"2026-03-29T01:59:59", "Europe/Berlin", "2026-03-29T00:59:59Z"},
		{"2026-03-29T03:00:00", "Europe/Berlin", "2026-03-29T01:00:00Z"},
		{"2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00Z"}, // twice: the first occurrence
		{"2026-10-25T03:00:00", "Europe/Berlin", "2026-10-25T02:00:00Z"},
		{"2026-03-08T02:30:00", "America/New_York", "2026-03-08T07:00:00Z"},
		{"2026-11-01T01:30:00", "America/New_York", "2026-11-01T05:30:00Z"},
		{"2026-10-04T02:15:00", "Australia/Lord_Howe", "2026-10-03T15:30:00Z"}, // a gap of half an hour
		{"2026-04-05T01:45:00", "Australia/Lord_Howe", "2026-04-04T14:45:00Z"},
		{"2026-03-02T09:00:00", "Asia/Kolkata", "2026-03-02T03:30:00Z"},
		{"2011-12-30T12:00:00", "Pacific/Apia", "2011-12-30T10:00:00Z"}, // a day that never was
		{"2026-03-02T09:00:00", "UTC", "2026-03-02T09:00:00Z"},
	} {
		loc, err := time.LoadLocation(c.zone)
		require.NoError(t, err)
		wall, err := time.Parse("2006-01-02T15:04:05", c.wall)
		require.NoError(t, err)
		require.Equal(t, c.want, resolve(wall, loc).Format(time.RFC3339), c.wall+" "+c.zone)
	}
}

// Every hour of a year in zones of all kinds: what resolve returns shows the wall time again, or lies at the end of a
// gap, and nothing earlier shows it.
func TestResolveEveryHour(t *testing.T) {
	for _, name := range []string{"Europe/London", "America/Santiago", "Africa/Casablanca", "Australia/Lord_Howe", "Asia/Kathmandu"} {
		loc, err := time.LoadLocation(name)
		require.NoError(t, err)
		for wall := time.Date(2026, 1, 1, 0, 15, 0, 0, time.UTC); wall.Year() == 2026; wall = wall.Add(30 * time.Minute) {
			got := resolve(wall, loc)
			shown := func(t time.Time) string { return t.In(loc).Format("2006-01-02T15:04") }
			if want := wall.Format("2006-01-02T15:04"); shown(got) != want {
				_, before := got.Add(-time.Second).In(loc).Zone()
				_, after := got.In(loc).Zone()
				require.Greater(t, after, before, "%s %s: no gap here", name, want)
				require.Greater(t, shown(got), want)
				require.Less(t, shown(got.Add(-time.Minute)), want)
			} else {
				require.NotEqual(t, want, shown(got.Add(-time.Hour)), "%s %s: not the first", name, want)
			}
		}
	}
}

// What a schedule becomes is shown in the answer.
func TestScheduledMessage(t *testing.T) {
	r := newRig(t)
	m := r.accept(r.acme, smsWith(`,"send_at":"2026-03-29T02:30:00","zone":"Europe/Berlin","ttl":"10m"`))
	require.EqualValues(t, "scheduled", m.Status)
	require.Equal(t, "2026-03-29T01:00:00Z", m.DueAt.Format(time.RFC3339))
	require.Equal(t, "2026-03-29T01:10:00Z", m.ExpiresAt.Format(time.RFC3339))
	m = r.accept(r.acme, smsWith(`,"send_at":"2026-03-01 18:00","zone":"Asia/Kolkata"`))
	require.Equal(t, "2026-03-01T12:30:00Z", m.DueAt.Format(time.RFC3339))
	m = r.accept(r.acme, smsWith(`,"send_at":"2026-03-01T11:56:00Z"`)) // late, but not too late
	require.EqualValues(t, "queued", m.Status)
	require.Equal(t, start.Add(defaultLife), *m.ExpiresAt)
}
