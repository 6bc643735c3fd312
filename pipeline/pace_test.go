package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAPaceFallsByAPartAndRisesByAStep(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var p pace
	require.Zero(t, p.at(now))
	for range 3 { // it takes 100 a second
		for range 100 {
			p.took(1, now)
			now = now.Add(10 * time.Millisecond)
		}
	}
	p.slowDown(now)
	require.InDelta(t, 70, p.at(now), 1)
	p.slowDown(now)
	require.InDelta(t, 49, p.at(now), 1)
	require.InDelta(t, 49, p.at(now.Add(999*time.Millisecond)), 1)
	last := p.at(now)
	for i := range 30 {
		now = now.Add(time.Second)
		at := p.at(now)
		require.InDelta(t, last+5, at, 0.2, "second %d", i)
		last = at
		p.wait(now)
	}
	require.InDelta(t, last+50, p.at(now.Add(paceUnmet)), 1)
	require.Zero(t, p.at(now.Add(paceUnmet+1)), "nothing waits for it any more")

	p = pace{}
	p.slowDown(now)
	for range 20 {
		p.slowDown(now)
	}
	require.InDelta(t, paceLeast, p.at(now), 0, "there is a least")
	require.Zero(t, p.at(now.Add(time.Hour)))
}

func TestThePaceOfAnAccountThatHasJustBegun(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var p pace
	for range 40 { // within a few milliseconds
		p.took(1, now)
	}
	p.slowDown(now.Add(5 * time.Millisecond))
	require.InDelta(t, 28, p.at(now), 0.1)
	p = pace{}
	for range 50 {
		p.took(2, now)
	}
	later := now.Add(20 * time.Second)
	p.slowDown(later)
	require.InDelta(t, 3.5, p.at(later), 0.1, "what was taken long ago counts by its rate")
}

func TestThePaceAfterARest(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var p pace
	for range 4000 { // it takes 200 a second
		p.took(1, now)
		now = now.Add(5 * time.Millisecond)
	}
	p.rest(now)
	now = now.Add(time.Hour)
	p.recover(now)
	for i := range 10 {
		p.wait(now)
		require.InDelta(t, 200+20*i, p.at(now), 3, "second %d", i)
		now = now.Add(time.Second)
	}
	for name, c := range map[string]struct {
		took, want float64
		ago        time.Duration
	}{
		"a slow one": {took: 3, want: recoverLeast}, "nothing": {want: 0},
		"much, a minute ago":      {took: 5000, ago: time.Minute, want: 5000 * 0.3},
		"much, but long ago":      {took: 5000, ago: 10 * time.Minute, want: 0},
		"much, half a minute":     {took: 5000, ago: 34 * time.Second, want: 2500},
		"in the very same second": {took: 800, want: 800},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			now := now
			if c.took > 0 {
				p.took(c.took, now)
			}
			if c.ago > 0 {
				p.took(0, now.Add(time.Second))
				now = now.Add(c.ago)
			}
			p.rest(now)
			now = now.Add(time.Hour)
			p.recover(now)
			require.InEpsilon(t, c.want+1, p.at(now)+1, 0.05)
		})
	}
}

// A burst is forgotten though the account goes on with a little.
func TestABurstIsForgotten(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var p pace
	p.took(5000, now)
	for range 600 {
		now = now.Add(time.Second)
		p.took(2, now)
	}
	require.InDelta(t, 2, p.best, 0.1)
}

// Turns that are foreseen while the rate rises are those that it will give.
func TestTurnsAtARisingRate(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := pace{perSecond: 10, step: 5, raised: now, met: now}
	at, n := now, 0
	for second := range 20 {
		p.wait(at)
		end := now.Add(time.Duration(second+1) * time.Second)
		perSecond, here := p.at(end.Add(-time.Nanosecond)), 0
		for at.Before(end) {
			at = nextTurn(at, 1, 10, 5, now)
			here++
			n++
		}
		require.InDelta(t, perSecond, here, 5, "second %d", second)
	}
	require.InDelta(t, 20*10+5*20*20/2, n, 25)
	require.Equal(t, now, nextTurn(now, 1, 0, 0, now), "nobody knows")
	require.Equal(t, now.Add(time.Second/2), nextTurn(now, 5, 10, 0, now))
}
