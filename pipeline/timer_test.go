package pipeline

import (
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
)

// turning is a clock that is turned just before a timer is set.
type turning struct {
	*clockwork.FakeClock
	by []time.Duration
}

func (c *turning) NewTimer(d time.Duration) clockwork.Timer {
	if len(c.by) > 0 {
		c.Advance(c.by[0])
		c.by = c.by[1:]
	}
	return c.FakeClock.NewTimer(d)
}

func TestATimerIsInTimeThoughTheClockIsTurned(t *testing.T) {
	for name, by := range map[string][]time.Duration{
		"not": nil, "once": {500 * time.Millisecond}, "twice": {100 * time.Millisecond, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			c := &turning{FakeClock: clockwork.NewFakeClock(), by: by}
			at := c.Now().Add(time.Second)
			timer, ok := timerAt(c, at)
			require.True(t, ok)
			c.Advance(at.Sub(c.Now()))
			require.Len(t, timer.Chan(), 1, "it is due now, not later")
		})
	}
	c := &turning{FakeClock: clockwork.NewFakeClock(), by: []time.Duration{2 * time.Second}}
	_, ok := timerAt(c, c.Now().Add(time.Second))
	require.False(t, ok, "its time has passed meanwhile")
}
