package cluster

import (
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// However long the trips to the store take and however unequal their halves are, the estimate is never off by more than
// half of the quickest trip, and the corrected clock by no more than that and what is left alone.
func TestSkewIsNeverOffByMoreThanATrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := clockwork.NewFakeClock()
		c := NewClock(clock)
		ahead := time.Duration(rapid.Int64Range(-int64(time.Minute), int64(time.Minute)).Draw(t, "ahead"))
		var s skew
		quickest := time.Hour
		for range rapid.IntRange(1, samples).Draw(t, "readings") {
			there := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "there"))
			back := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "back"))
			before := clock.Now()
			clock.Advance(there)
			now := clock.Now().Add(-ahead)
			clock.Advance(back)
			quickest = min(quickest, (there+back)/2)
			best := s.add(read(before, now, clock.Now()))
			c.set(best)
			require.LessOrEqual(t, (best.ahead - ahead).Abs(), best.slack+1)
			require.LessOrEqual(t, best.slack, quickest+1)
			off := c.Now().Sub(clock.Now().Add(-ahead)).Abs()
			require.LessOrEqual(t, off, fine+2*best.slack+2)
		}
	})
}

func TestAClockThatIsSet(t *testing.T) {
	var s skew
	for range samples {
		s.add(reading{ahead: 0, slack: time.Millisecond})
	}
	best := s.add(reading{ahead: 10 * time.Second, slack: 20 * time.Millisecond})
	require.Equal(t, 10*time.Second, best.ahead, "what was measured before counts no more")
	best = s.add(reading{ahead: 10*time.Second + 50*time.Millisecond, slack: 300 * time.Millisecond})
	require.Equal(t, 10*time.Second, best.ahead, "the most exact one counts")
}

func TestClock(t *testing.T) {
	own := clockwork.NewFakeClock()
	c := NewClock(own)
	require.Equal(t, own.Now(), c.Now())
	c.set(reading{ahead: fine})
	require.Equal(t, own.Now(), c.Now(), "clocks that are kept are never touched")
	c.set(reading{ahead: 5 * time.Second})
	require.Equal(t, own.Now().Add(-5*time.Second), c.Now())
	require.Equal(t, time.Minute, c.Since(c.Now().Add(-time.Minute)))
	require.Equal(t, time.Minute, c.Until(c.Now().Add(time.Minute)))
}
