package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

// busyBay is a station of 16 workers whose provider takes two seconds for each of 16 attempts under way.
func busyBay(t *testing.T) (*bay, []*passage) {
	t.Helper()
	b := newBay(16, nil)
	for range 20 { // so that it knows how long attempts take
		m := b.queue(1, "acme", delivery.Normal, nil)[0]
		require.Same(t, m, b.take())
		m.began, m.journal = b.clock.Now(), &segment{}
		b.clock.Advance(2 * time.Second)
		b.done(m)
	}
	b.queue(16, "acme", delivery.Normal, nil)
	var running []*passage
	for m := b.take(); m != nil; m = b.take() {
		m.began, m.journal = b.clock.Now(), &segment{}
		running = append(running, m)
	}
	require.Len(t, running, 16)
	return b, running
}

// held are those that were ended as held because the account is busy.
func held(ms []*passage) (out []*passage) {
	for _, m := range ms {
		if m.ended && m.outcome.Reason == ReasonConnectorBusy {
			out = append(out, m)
		}
	}
	return out
}

func TestASlowAccountKeepsFewAndHoldsTheRest(t *testing.T) {
	b, _ := busyBay(t)
	pinned := b.queue(500, "acme", delivery.Normal, func(m *passage) { m.alone = true })
	rest := held(pinned)
	require.Len(t, rest, 500-32, "twice the workers are kept")
	now := b.clock.Now()
	at := now
	for i, m := range rest {
		require.Same(t, pinned[32+i], m, "the first stay")
		require.False(t, m.outcome.Until.Before(at), "in their order")
		require.False(t, m.outcome.Until.After(now.Add(longestBusy+time.Millisecond)))
		at = m.outcome.Until
	}
	// 16 workers at two seconds end 8 a second: the first that is held comes after the 32 that are kept.
	require.WithinDuration(t, now.Add(4*time.Second), rest[0].outcome.Until, time.Second)
	require.WithinDuration(t, rest[0].outcome.Until.Add(10*time.Second), rest[80].outcome.Until, time.Second)

	more := b.queue(10, "acme", delivery.Normal, func(m *passage) { m.alone = true })
	require.Len(t, held(more), 10)
	require.False(t, more[0].outcome.Until.Before(rest[len(rest)-1].outcome.Until), "behind those that are held")
}

func TestWhatCanOnlyGoByOneAccountStays(t *testing.T) {
	b, _ := busyBay(t)
	require.Empty(t, held(b.queue(500, "acme", delivery.Normal, nil)), "the queue waits as a whole")
}

func TestAQuickAccountHoldsNothing(t *testing.T) {
	b := newBay(16, nil)
	pin := func(m *passage) { m.alone = true }
	require.Empty(t, held(b.queue(2000, "acme", delivery.Normal, pin)), "nobody knows yet how quick it is")
	for range 300 {
		m := b.take()
		m.began, m.journal = b.clock.Now(), &segment{}
		b.clock.Advance(time.Millisecond)
		b.done(m)
	}
	for b.take() != nil {
	}
	require.Empty(t, held(b.queue(2000, "acme", delivery.Normal, pin)), "it sends thousands a second")
}

func TestAnIdleAccountAsksForWhatIsHeld(t *testing.T) {
	b, running := busyBay(t)
	b.queue(500, "acme", delivery.Normal, func(m *passage) { m.alone = true })
	b.mu.Lock()
	require.False(t, b.idleAfterBusy(), "it has much to do")
	b.mu.Unlock()
	for _, m := range running {
		b.done(m)
	}
	for m := b.take(); m != nil; m = b.take() {
		b.mu.Lock()
		require.False(t, b.idleAfterBusy(), "it has something to do")
		b.mu.Unlock()
		m.outcome.Status = delivery.StatusSent
		b.mu.Lock()
		b.crowd.end(m.Queue.Lane, goodSign)
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	require.True(t, b.idleAfterBusy())
	require.False(t, b.idleAfterBusy(), "once")
}

func TestAPausedAccountKeepsFewOfWhatIsPinnedToIt(t *testing.T) {
	b := newBay(16, nil)
	b.p.slowDown(b.acct, b.clock.Now().Add(time.Second))
	pinned := b.queue(500, "acme", delivery.Normal, func(m *passage) { m.alone = true })
	others := b.queue(500, "acme", delivery.Normal, nil)
	require.Nil(t, b.take())
	kept := 0
	for _, m := range pinned {
		if !m.ended {
			kept++
			continue
		}
		require.Equal(t, ReasonRateLimited, m.outcome.Reason)
		require.Equal(t, delivery.StatusHeld, m.outcome.Status)
		require.WithinDuration(t, b.clock.Now().Add(time.Second), m.outcome.Until, time.Millisecond, "the end of the pause")
	}
	require.Equal(t, leastKept, kept)
	for _, m := range others {
		require.False(t, m.ended, "the queue as a whole waits for so short a pause")
	}
	b.clock.Advance(time.Second)
	require.Same(t, pinned[0], b.take())
}

// What waits too long for its own account says nothing about what the rest of its queue can use.
func TestALeaseThatRunsShortOfAPinnedMessageNarrowsNothing(t *testing.T) {
	for _, alone := range []bool{false, true} {
		b := newBay(1, nil)
		ms := b.queue(10, "acme", delivery.Normal, func(m *passage) { m.alone, m.until = alone, b.clock.Now() })
		b.giveBackShort(b.clock.Now())
		for _, m := range ms {
			require.True(t, m.ended)
		}
		b.p.planner.mu.Lock()
		window := b.p.planner.queue(smsQueue("acme", delivery.Normal)).window
		b.p.planner.mu.Unlock()
		require.Equal(t, alone, window == windowMax)
	}
}
