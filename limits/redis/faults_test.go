package redis

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/limitstest"
)

// after calls f at a time of a run, unless the run ends before.
func after(ctx context.Context, d time.Duration, f func()) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		f()
	case <-ctx.Done():
	}
}

// during drives three nodes while trouble goes on, and fails when any limit was passed.
func during(t *testing.T, span time.Duration, ls []limits.Limiter, trouble func(ctx context.Context)) *limitstest.Record {
	ctx, cancel := context.WithTimeout(background, span)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { trouble(ctx) })
	r := limitstest.Drive(ctx, ls, limitstest.Mixed())
	wg.Wait()
	r.Check(t)
	return r
}

func TestRedisKilledMidway(t *testing.T) {
	server := servers.NewRedis(t)
	ls := cluster(t, func(int) string { return server.URL }, 3)
	began := time.Now()
	r := during(t, 6*time.Second, ls, func(ctx context.Context) {
		after(ctx, 1500*time.Millisecond, server.Kill)
	})
	for _, a := range limitstest.Mixed() {
		b := a.Bounds[len(a.Bounds)-1]
		used := r.Used(b.Key, began, began.Add(6*time.Second))
		t.Logf("%v: %.1f %%", b.Rate, 100*used)
		require.GreaterOrEqual(t, used, 0.6, "%v", b)
	}
	for _, l := range ls {
		require.False(t, l.(*Limiter).Stats().Shared)
	}
	server.Start()
	shared(t, ls)
}

func shared(t *testing.T, ls []limits.Limiter) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, l := range ls {
			if !l.(*Limiter).Stats().Shared {
				return false
			}
		}
		return true
	}, 10*time.Second, 10*time.Millisecond)
}

func TestRedisComesAndGoes(t *testing.T) {
	server := servers.NewRedis(t)
	ls := cluster(t, func(int) string { return server.URL }, 3)
	r := during(t, 9*time.Second, ls, func(ctx context.Context) {
		after(ctx, 700*time.Millisecond, server.Wipe)
		after(ctx, time.Second, server.Kill)
		after(ctx, 100*time.Millisecond, server.Start)
		after(ctx, time.Second, server.Stall)
		after(ctx, time.Second, server.Resume)
		after(ctx, time.Second, server.Kill)
		after(ctx, time.Second, server.Start)
		after(ctx, time.Second, server.Wipe)
	})
	for _, a := range limitstest.Mixed() {
		b := a.Bounds[len(a.Bounds)-1]
		t.Logf("%v: %v nodes", b.Rate, r.Nodes(b.Key))
	}
	shared(t, ls)
}

// One node is cut off from Redis while the others are not, hangs, and comes back.
func TestOneNodeIsCutOff(t *testing.T) {
	server := servers.NewRedis(t)
	link, url := servers.ProxyURL(t, server.URL)
	ls := cluster(t, func(node int) string {
		if node == 1 {
			return url
		}
		return server.URL
	}, 3)
	began := time.Now()
	r := during(t, 8*time.Second, ls, func(ctx context.Context) {
		after(ctx, 500*time.Millisecond, link.Cut)
		after(ctx, 2*time.Second, link.Heal)
		after(ctx, time.Second, func() { link.Hang() })
		after(ctx, 1500*time.Millisecond, link.Heal)
		after(ctx, 500*time.Millisecond, func() { link.Slow(200 * time.Millisecond) })
		after(ctx, time.Second, link.Heal)
	})
	for _, a := range limitstest.Mixed() {
		b := a.Bounds[len(a.Bounds)-1]
		used := r.Used(b.Key, began, began.Add(8*time.Second))
		t.Logf("%v: %.1f %%, %d nodes", b.Rate, 100*used, r.Nodes(b.Key))
		require.GreaterOrEqual(t, used, 0.5, "%v", b)
	}
	shared(t, ls)
}

var _ = delivery.SMS
