package admission

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

// through lets d pass with a look every 10 ms.
func through(g *Gate, now *time.Time, d time.Duration) {
	for end := now.Add(d); now.Before(end); *now = now.Add(10 * ms) {
		g.Standing(*now)
	}
}

func TestOrderOfShedding(t *testing.T) {
	for _, c := range []struct {
		standing time.Duration
		falls    []Class
	}{
		{0, nil}, {50 * ms, nil}, {60 * ms, []Class{Polls, Reads}}, {130 * ms, []Class{Polls, Reads, Bulk}},
		{1010 * ms, []Class{Polls, Reads, Bulk, Accepts}},
		{2010 * ms, []Class{Polls, Reads, Bulk, Accepts, Receipts}},
	} {
		delay := time.Duration(0)
		g, now := New(&Options{Pressure: func() time.Duration { return delay }}), start
		through(g, &now, time.Second)
		before := map[Class]Load{}
		for _, class := range Classes() {
			before[class] = g.Load(class)
		}
		delay = c.standing
		through(g, &now, 20*time.Second)
		var fallen []Class
		for _, class := range Classes() {
			limit := g.Load(class).Limit
			if limit < before[class].Limit {
				fallen = append(fallen, class)
				floor := max(int(bounds[class].least*float64(before[class].Limit)), 1)
				require.Equal(t, floor, limit, "%s keeps its floor", class)
			}
		}
		require.Equal(t, c.falls, fallen, "at %s", c.standing)
		require.Equal(t, c.standing > 125*ms, g.Yields(now))
		require.Equal(t, c.standing, g.Standing(now))

		delay = 0
		through(g, &now, 3*time.Second)
		for _, class := range Classes() {
			require.Equal(t, before[class], g.Load(class), "%s comes back within 3 s", class)
		}
	}
}

func TestWhoIsRefusedWhileTheStoreIsSlow(t *testing.T) {
	g, now := New(&Options{Pressure: func() time.Duration { return 1300 * ms }}), start
	_, r := fill(t, g, now, Ask{Class: Accepts, Owner: "a"})
	require.Equal(t, Full, r.Reason)
	through(g, &now, 5*time.Second)
	_, r = fill(t, g, now, Ask{Class: Bulk, Owner: "a"})
	require.Equal(t, Delay, r.Reason)
	require.False(t, r.Reason.Own())
}

func TestABurstIsNotAStandingQueue(t *testing.T) {
	n := 0
	g, now := New(&Options{Pressure: func() time.Duration {
		if n++; n%9 == 0 { // at least once in a window of 100 ms
			return 0
		}
		return 5 * time.Second
	}}), start
	through(g, &now, 5*time.Second)
	require.Equal(t, Load{0, 640}, g.Load(Accepts))
	require.Equal(t, Load{0, 80}, g.Load(Reads))
}

func TestAcceptsTellTheDelayOfAStoreThatCannot(t *testing.T) {
	g, now := New(nil), start
	for range 100 {
		now = now.Add(10 * ms)
		g.Observe(now, 1300*ms)
	}
	require.Equal(t, Load{0, 320}, g.Load(Accepts))
	require.Equal(t, Load{0, 5}, g.Load(Reads))
	for range 100 {
		now = now.Add(10 * ms)
		g.Observe(now, 1300*ms)
		g.Observe(now, 3*ms)
	}
	require.Equal(t, 3*ms, g.Standing(now))
	require.Equal(t, Load{0, 640}, g.Load(Accepts))
	require.Greater(t, g.Load(Reads).Limit, 8, "it is on its way up")
}

func TestWhatWasSeenLongAgoSaysNothing(t *testing.T) {
	g, now := New(nil), start
	g.Observe(now, time.Minute)
	g.Observe(now, time.Minute)
	now = now.Add(time.Hour)
	require.Zero(t, g.Standing(now))
	require.Equal(t, Load{0, 640}, g.Load(Accepts))
	now = now.Add(-2 * time.Hour) // and a clock that is set back does not stop the windows
	for range 30 {
		now = now.Add(10 * ms)
		g.Observe(now, time.Minute)
	}
	require.Equal(t, time.Minute, g.Standing(now))
}

func TestRefusalsThatAreTooMany(t *testing.T) {
	g, now := New(&Options{Requests: 1}), start
	require.Nil(t, g.Enter(now, Ask{Class: Accepts, Owner: "a"}, &Pass{}))
	flood := func(perSecond int, d time.Duration) (last *Refusal) {
		for n := int(float64(perSecond) * d.Seconds()); n > 0; n-- {
			now = now.Add(time.Second / time.Duration(perSecond))
			last = g.Enter(now, Ask{Class: Accepts, Owner: "a"}, &Pass{})
		}
		return last
	}
	require.Zero(t, flood(1500, 5*time.Second).Rest, "these cost next to nothing")
	require.GreaterOrEqual(t, flood(10_000, 2*time.Second).Rest, 300*ms)
	require.Equal(t, longestRest, flood(10_000, 3*time.Second).Rest)
	require.Zero(t, flood(100, 2*time.Second).Rest, "the flood is over")
}

// TestOverload runs the gate in front of a store that commits groups, at three times what the store can do: goodput
// must stay and nobody who was let in may wait long.
func TestOverload(t *testing.T) {
	for name, commit := range map[string]time.Duration{
		"fast disk": 4 * ms, "slow disk": 60 * ms, "very slow disk": 250 * ms,
	} {
		t.Run(name, func(t *testing.T) {
			const group = 256 // at most as many requests in one commit
			type request struct {
				pass *Pass
				came time.Time
			}
			var waiting, running []request
			now := start
			g := New(&Options{Pressure: func() time.Duration {
				if len(waiting) == 0 {
					return 0
				}
				return now.Sub(waiting[0].came)
			}})
			peak := group / commit.Seconds()
			var done, refused int
			var longest time.Duration
			due, ends := 0.0, now
			for tick := range 10_000 { // 10 s
				now = now.Add(ms)
				if !now.Before(ends) {
					for _, r := range running {
						took := now.Sub(r.came)
						r.pass.Leave()
						g.Observe(now, took)
						if tick > 5000 {
							done++
							longest = max(longest, took)
						}
					}
					n := min(len(waiting), group)
					running = append(running[:0], waiting[:n]...)
					waiting = append(waiting[:0], waiting[n:]...)
					ends = now.Add(commit)
				}
				for due += 3 * peak * 0.001; due >= 1; due-- {
					p := &Pass{}
					if g.Enter(now, Ask{Class: Accepts, Owner: "alone"}, p) != nil {
						refused++
						continue
					}
					waiting = append(waiting, request{p, now})
				}
			}
			goodput := float64(done) / 5
			t.Logf("goodput %.0f/s of %.0f/s, longest %s, %d refused", goodput, peak, longest, refused)
			require.Greater(t, goodput, 0.9*peak)
			require.LessOrEqual(t, longest, 4*commit)
			require.Positive(t, refused)
		})
	}
}
