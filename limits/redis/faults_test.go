package redis

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	t.Parallel()
	server := servers.NewRedis(t)
	ls := cluster(t, func(int) string { return server.URL }, 3)
	began := time.Now()
	r := during(t, 5*time.Second, ls, func(ctx context.Context) {
		after(ctx, 1200*time.Millisecond, server.Kill)
	})
	for _, a := range limitstest.Mixed() {
		b := a.Bounds[len(a.Bounds)-1]
		used := r.Used(b.Key, began, began.Add(5*time.Second))
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
	}, time.Minute, 10*time.Millisecond)
}

func TestRedisComesAndGoes(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	ls := cluster(t, func(int) string { return server.URL }, 3)
	r := during(t, 6*time.Second, ls, func(ctx context.Context) {
		after(ctx, 500*time.Millisecond, server.Wipe)
		after(ctx, 500*time.Millisecond, server.Kill)
		after(ctx, 100*time.Millisecond, server.Start)
		after(ctx, 800*time.Millisecond, server.Stall)
		after(ctx, 800*time.Millisecond, server.Resume)
		after(ctx, 600*time.Millisecond, server.Kill)
		after(ctx, 900*time.Millisecond, server.Start)
		after(ctx, 800*time.Millisecond, server.Wipe)
	})
	for _, a := range limitstest.Mixed() {
		b := a.Bounds[len(a.Bounds)-1]
		t.Logf("%v: %v nodes", b.Rate, r.Nodes(b.Key))
	}
	shared(t, ls)
}

// One node is cut off from Redis while the others are not, hangs, and comes back.
func TestOneNodeIsCutOff(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	link, url := servers.ProxyURL(t, server.URL)
	ls := cluster(t, func(node int) string {
		if node == 1 {
			return url
		}
		return server.URL
	}, 3)
	began := time.Now()
	r := during(t, 6*time.Second, ls, func(ctx context.Context) {
		after(ctx, 400*time.Millisecond, link.Cut)
		after(ctx, 1500*time.Millisecond, link.Heal)
		after(ctx, 800*time.Millisecond, func() { link.Hang() })
		after(ctx, 1200*time.Millisecond, link.Heal)
		after(ctx, 400*time.Millisecond, func() { link.Slow(200 * time.Millisecond) })
		after(ctx, 600*time.Millisecond, link.Heal)
	})
	for _, a := range limitstest.Mixed() {
		b := a.Bounds[len(a.Bounds)-1]
		used := r.Used(b.Key, began, began.Add(6*time.Second))
		t.Logf("%v: %.1f %%, %d nodes", b.Rate, 100*used, r.Nodes(b.Key))
		require.GreaterOrEqual(t, used, 0.5, "%v", b)
	}
	shared(t, ls)
}

var kills = flag.Int("kills", 0, "how often the long test kills, empties or stalls Redis")

// The long form of the tests above: go test -run TestManyKills -kills 200 -timeout 20m
func TestManyKills(t *testing.T) {
	if *kills == 0 {
		return
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	server := servers.NewRedis(t)
	ls := cluster(t, func(int) string { return server.URL }, 3)
	for done := 0; done < *kills; done += 10 {
		began := time.Now()
		ctx, stop := context.WithCancel(background)
		var rec *limitstest.Record
		var wg sync.WaitGroup
		wg.Go(func() { rec = limitstest.Drive(ctx, ls, limitstest.Mixed()) })
		for range min(10, *kills-done) {
			switch r.IntN(5) {
			case 0, 1:
				server.Kill()
				after(ctx, time.Duration(r.Int64N(1e9)), server.Start)
			case 2, 3:
				server.Wipe()
			case 4:
				server.Stall()
				after(ctx, time.Duration(r.Int64N(1e9)), server.Resume)
			}
			after(ctx, time.Duration(r.Int64N(2e9)), func() {})
		}
		stop()
		wg.Wait()
		rec.Check(t)
		for _, a := range limitstest.Mixed() {
			b := a.Bounds[len(a.Bounds)-1]
			t.Logf("%3d: %v: %.0f %% used", done, b.Rate, 100*rec.Used(b.Key, began, time.Now()))
		}
		if t.Failed() {
			return
		}
	}
}
