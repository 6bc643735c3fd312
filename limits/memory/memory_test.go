package memory_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/limitstest"
	"github.com/msgctl/msgctl/limits/memory"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestConformance(t *testing.T) {
	limitstest.Run(t, func(*testing.T) limits.Limiter { return memory.New() })
}

func key(i int) limits.Key { return limits.Key{Tenant: delivery.TenantID(strconv.Itoa(i))} }

// Unlike the kit this one moves in nanoseconds, changes nothing but the steps, and allows no rounding: with rates in whole
// messages per second, granted cost × 1e9 must not pass rate × nanoseconds + burst × 1e9, counted in integers.
func TestNoWindowIsEverPassed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, now := memory.New(), start
		rate := rapid.Int64Range(1, 5000).Draw(t, "rate")
		burst := rapid.Int64Range(1, 50).Draw(t, "burst")
		bound := []limits.Bound{{Key: key(1), Rate: limits.Rate{PerSecond: float64(rate), Burst: float64(burst)}}}
		type grant struct{ at, cost int64 }
		var grants []grant
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			cost := rapid.Int64Range(1, burst).Draw(t, "cost")
			d, err := l.Reserve(context.Background(), now, bound, float64(cost))
			require.NoError(t, err)
			if d.Go {
				grants = append(grants, grant{now.UnixNano(), cost})
			} else if rapid.Bool().Draw(t, "wait") {
				early, err := l.Reserve(context.Background(), d.NotBefore.Add(-time.Nanosecond), bound, float64(cost))
				require.NoError(t, err)
				require.False(t, early.Go, "passed before NotBefore")
				now = d.NotBefore
				d, err = l.Reserve(context.Background(), now, bound, float64(cost))
				require.NoError(t, err)
				require.True(t, d.Go, "refused at NotBefore")
				grants = append(grants, grant{now.UnixNano(), cost})
			}
			now = now.Add(time.Duration(rapid.Int64Range(-1000, 3e6).Draw(t, "step")))
		}
		for i := range grants {
			var sum int64
			earliest, latest := grants[i].at, grants[i].at
			for j := i; j < len(grants); j++ {
				sum += grants[j].cost
				earliest, latest = min(earliest, grants[j].at), max(latest, grants[j].at)
				require.LessOrEqual(t, (sum-burst)*1e9, rate*(latest-earliest))
			}
		}
	})
}

// A slow rate that is asked often must not lose its credit to rounding.
func TestAskingOftenDoesNotStarve(t *testing.T) {
	l, now, got := memory.New(), start, 0
	bound := []limits.Bound{{Key: key(1), Rate: limits.Rate{PerSecond: 0.001, Burst: 1}}}
	for range 2_000_000 {
		d, err := l.Reserve(context.Background(), now, bound, 1)
		require.NoError(t, err)
		if d.Go {
			got++
		}
		now = now.Add(time.Millisecond)
	}
	require.Equal(t, 2, got, "2,000 s at one per 1,000 s")
}

func TestExtremeRates(t *testing.T) {
	ctx := context.Background()
	for _, rate := range []limits.Rate{{PerSecond: 1e-300, Burst: 1}, {PerSecond: 1e300, Burst: 1e300}, {PerSecond: 1e-300, Burst: 1e300}} {
		l := memory.New()
		for i := range 5 {
			d, err := l.Reserve(ctx, start.Add(time.Duration(i)*24*365*time.Hour), []limits.Bound{{Key: key(1), Rate: rate}}, 1e9)
			require.NoError(t, err)
			require.True(t, d.Go || d.NotBefore.After(start))
		}
	}
	l := memory.New()
	one := []limits.Bound{{Key: key(1), Rate: limits.Rate{PerSecond: 1, Burst: 1}}}
	_, err := l.Reserve(ctx, time.Time{}, one, 1)
	require.Error(t, err)
	for _, year := range []int{1970, 2026, 9999} {
		d, err := l.Reserve(ctx, time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), one, 1)
		require.NoError(t, err)
		require.True(t, d.Go)
	}
}

func TestIdleKeysAreForgotten(t *testing.T) {
	l, now := memory.New(), start
	rate := limits.Rate{PerSecond: 100, Burst: 10}
	require.NoError(t, l.Pause(context.Background(), key(-1), now.Add(1000*time.Hour)))
	for i := range 100_000 {
		_, err := l.Reserve(context.Background(), now, []limits.Bound{{Key: key(i), Rate: rate}, {Key: key(-2), Rate: rate}}, 1)
		require.NoError(t, err)
		now = now.Add(time.Millisecond) // a key owes for 10 ms
	}
	require.Less(t, l.Keys(), 100)
	d, err := l.Reserve(context.Background(), now, []limits.Bound{{Key: key(-1), Rate: rate}}, 1)
	require.NoError(t, err)
	require.False(t, d.Go, "a paused key was forgotten")
}

// A key that still owes must be kept, or its owner gets a second burst.
func TestKeysInDebtAreKept(t *testing.T) {
	l, rate := memory.New(), limits.Rate{PerSecond: 0.001, Burst: 1}
	for round := range 2 {
		for i := range 2000 {
			d, err := l.Reserve(context.Background(), start, []limits.Bound{{Key: key(i), Rate: rate}}, 1)
			require.NoError(t, err)
			require.Equal(t, round == 0, d.Go, "key %d", i)
		}
	}
}

func TestReserveAllocatesNothing(t *testing.T) {
	l, now := memory.New(), start
	bounds := threeBounds()
	got := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Microsecond)
		_, _ = l.Reserve(context.Background(), now, bounds, 1)
	})
	require.Zero(t, got)
}

func threeBounds() []limits.Bound {
	rate := limits.Rate{PerSecond: 1000, Burst: 100}
	account := delivery.AccountID{1}
	return []limits.Bound{
		{Key: limits.Key{Tenant: "acme"}, Rate: rate},
		{Key: limits.Key{Tenant: "acme", Channel: delivery.SMS}, Rate: rate},
		{Key: limits.Key{Account: account}, Rate: rate},
	}
}

func BenchmarkReserveThreeBounds(b *testing.B) {
	l, now, bounds := memory.New(), start, threeBounds()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		_, _ = l.Reserve(context.Background(), now, bounds, 1)
	}
}

func BenchmarkReserveParallel(b *testing.B) {
	l, bounds := memory.New(), threeBounds()
	b.RunParallel(func(pb *testing.PB) {
		now := start
		for pb.Next() {
			now = now.Add(time.Microsecond)
			_, _ = l.Reserve(context.Background(), now, bounds, 1)
		}
	})
}
