package limitstest

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
)

func burst(b *bench) {
	for i, n := range []int{1, 2, 10, 1000} {
		if got := b.drain(bound(string(rune('a'+i)), 0.5, float64(n))); got != n {
			b.failf("burst %d granted %d", n, got)
		}
	}
}

func notBefore(b *bench) {
	for i, rate := range []float64{0.01, 1, 3, 7.5, 80, 999} {
		x := bound(string(rune('a'+i)), rate, 5)
		b.drain(x)
		for _, cost := range []float64{1, 3, 5} {
			d := b.reserve(cost, x)
			if d.Go {
				b.failf("rate %v: an empty bound granted %v", rate, cost)
			}
			want := b.now.Add(time.Duration(cost / rate * float64(time.Second)))
			if d.NotBefore.Sub(want).Abs() > 2*time.Millisecond {
				b.failf("rate %v, cost %v: NotBefore is %v, expected %v", rate, cost, d.NotBefore, want)
			}
			if early := d.NotBefore.Add(-2 * time.Millisecond); early.After(b.now) {
				b.now = early
				if b.reserve(cost, x).Go {
					b.failf("rate %v, cost %v: passed 2 ms before NotBefore", rate, cost)
				}
			}
			b.now = upToMilli(d.NotBefore)
			if d := b.reserve(cost, x); !d.Go {
				b.failf("rate %v, cost %v: refused at NotBefore, now until %v", rate, cost, d.NotBefore)
			}
			b.drain(x)
		}
	}
}

func window(b *bench) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		b.seen = map[limits.Key][]grant{}
		x := bound("t", 0.1+math.Floor(r.Float64()*1000)/10, float64(1+r.IntN(20)))
		y := bound("t", 0.1+math.Floor(r.Float64()*1000)/10, float64(1+r.IntN(20)))
		x.Key.Account, y.Key.Account = delivery.AccountID{1, byte(seed)}, delivery.AccountID{2, byte(seed)}
		for range 300 {
			ask := [][]limits.Bound{{x}, {y}, {x, y}, {y, x}}[r.IntN(4)]
			d := b.reserve([]float64{1, 1, 2, 0.5, 7, 25}[r.IntN(6)], ask...)
			switch {
			case d.Go || r.IntN(3) == 0:
				b.now = b.now.Add(time.Duration(r.IntN(50)) * time.Millisecond)
			default:
				b.now = upToMilli(d.NotBefore)
			}
		}
		b.checkWindows(x)
		b.checkWindows(y)
	}
}

func fullSpeed(b *bench) {
	wide, tight, other := bound("wide", 500, 50), bound("tight", 80, 8), bound("other", 200, 400)
	const seconds = 60
	end, got := b.now.Add(seconds*time.Second), 0.0
	for b.now.Before(end) {
		d := b.reserve(1, wide, tight, other)
		if d.Go {
			if got++; got > 2*tight.Rate.PerSecond*seconds { // a limiter that never refuses must not hang the kit
				b.failf("%v passed by %v", got, b.now)
			}
			continue
		}
		b.now = upToMilli(d.NotBefore)
	}
	if got < 0.95*tight.Rate.PerSecond*seconds {
		b.failf("%v passed in %d s at %v per second", got, seconds, tight.Rate.PerSecond)
	}
	b.checkWindows(tight)
}

func allOrNone(b *bench) {
	roomy, empty := bound("roomy", 0.001, 10), bound("empty", 0.001, 1)
	b.drain(empty)
	for range 50 {
		if b.reserve(1, roomy, empty).Go || b.reserve(1, empty, roomy).Go {
			b.failf("passed although one bound was empty")
		}
	}
	if got := b.drain(roomy); got != 10 {
		b.failf("the bound that was not empty had %d of 10 left", got)
	}
}

func blocking(b *bench) {
	slow, quick, free := bound("slow", 0.1, 1), bound("quick", 10, 1), bound("free", 10, 100)
	b.drain(slow)
	b.drain(quick)
	for i, ask := range [][]limits.Bound{{slow, quick, free}, {quick, slow, free}, {free, quick, slow}} {
		if d := b.reserve(1, ask...); d.Go || ask[d.Blocking].Key != slow.Key {
			b.failf("order %d: %+v", i, d)
		}
	}
}

func keys(b *bench) {
	ks := []limits.Key{
		{}, {Tenant: "a"}, {Tenant: "b"}, {Channel: delivery.SMS}, {Tenant: "a", Channel: delivery.SMS},
		{Tenant: "a", Channel: delivery.Email}, {Account: delivery.AccountID{1}}, {Account: delivery.AccountID{15: 1}},
		{Tenant: "a", Account: delivery.AccountID{1}}, {Tenant: "a", Channel: delivery.SMS, Account: delivery.AccountID{1}},
	}
	for _, k := range ks {
		if got := b.drain(limits.Bound{Key: k, Rate: limits.Rate{PerSecond: 0.001, Burst: 3}}); got != 3 {
			b.failf("%+v granted %d of 3", k, got)
		}
	}
}

func aboveBurst(b *bench) {
	x := bound("t", 10, 5)
	if !b.reserve(20, x).Go {
		b.failf("cost 20 was refused by a full bound of burst 5")
	}
	d := b.reserve(1, x)
	if want := b.now.Add(1600 * time.Millisecond); d.Go || d.NotBefore.Sub(want).Abs() > 2*time.Millisecond {
		b.failf("after cost 20 at 10 per second: %+v, expected %v", d, want)
	}
	b.now = upToMilli(d.NotBefore)
	if !b.reserve(1, x).Go {
		b.failf("refused after the debt was paid")
	}
	d = b.reserve(20, x)
	if d.Go {
		b.failf("cost 20 passed although the bound was not full")
	}
	b.now = upToMilli(d.NotBefore)
	if !b.reserve(20, x).Go {
		b.failf("cost 20 was refused at NotBefore")
	}
}

func rateChange(b *bench) {
	x := bound("t", 1.0/3600, 5)
	b.drain(x)
	x.Rate.PerSecond = 100
	d := b.reserve(1, x)
	if d.Go || d.NotBefore.Sub(b.now) > 15*time.Millisecond {
		b.failf("a raised rate: %+v at %v", d, b.now)
	}
	b.now = upToMilli(d.NotBefore)
	if !b.reserve(1, x).Go {
		b.failf("a raised rate: refused at NotBefore")
	}
	b.drain(x)
	b.seen = map[limits.Key][]grant{}
	x.Rate.PerSecond = 2
	if d := b.reserve(1, x); d.Go || d.NotBefore.Sub(b.now) < 400*time.Millisecond {
		b.failf("a lowered rate: %+v at %v", d, b.now)
	}
	for range 200 {
		b.now = b.now.Add(50 * time.Millisecond)
		b.reserve(1, x)
	}
	b.checkWindows(x)
	if got := len(b.seen[x.Key]); got < 19 || got > 21 {
		b.failf("a lowered rate: %d passed in 10 s at 2 per second", got)
	}
}

func burstChange(b *bench) {
	x := bound("t", 1, 10)
	if got := b.drain(x); got != 10 {
		b.failf("granted %d of 10", got)
	}
	x.Rate.Burst = 15
	if got := b.drain(x); got != 5 {
		b.failf("a burst raised from 10 to 15 granted %d more", got)
	}
	x.Rate.Burst = 3
	if d := b.reserve(1, x); d.Go || d.NotBefore.Sub(b.now) < 12*time.Second {
		b.failf("a burst lowered from 15 to 3 with 15 spent: %+v", d)
	}
}

func clockBack(b *bench) {
	x := bound("t", 1, 10)
	b.now = b.now.Add(time.Hour)
	b.drain(x)
	b.now = b.now.Add(-30 * time.Minute)
	if got := b.drain(x); got != 0 {
		b.failf("granted %d after a step back", got)
	}
	b.now = b.now.Add(30 * time.Minute)
	if got := b.drain(x); got != 0 {
		b.failf("granted %d when the clock was back at its old time", got)
	}
	b.now = b.now.Add(5 * time.Second)
	if got := b.drain(x); got != 5 {
		b.failf("granted %d, 5 s later at 1 per second", got)
	}
}

func clockJitter(b *bench) {
	x, got := bound("t", 10, 10), 0
	for i := range 2000 {
		b.now = start.Add(time.Duration(i%2) * 20 * time.Millisecond)
		got += b.drain(x)
	}
	if got > 10 {
		b.failf("%d passed within 20 ms, with a burst of 10 at 10 per second", got)
	}
}

func pause(b *bench) {
	x, y := bound("x", 100, 100), bound("y", 100, 100)
	until := b.now.Add(30 * time.Second)
	b.pause(x.Key, until)
	for _, ask := range [][]limits.Bound{{x}, {x, y}, {y, x}} {
		if d := b.reserve(1, ask...); d.Go || d.Blocking != -1 || !d.NotBefore.Equal(until) {
			b.failf("paused until %v: %+v", until, d)
		}
	}
	if !b.reserve(1, y).Go {
		b.failf("a pause of one key stopped another one")
	}
	b.now = until.Add(-time.Millisecond)
	if b.reserve(1, x).Go {
		b.failf("passed 1 ms before the end of the pause")
	}
	b.now = until
	if !b.reserve(1, x).Go {
		b.failf("refused at the end of the pause")
	}
}

func pauseLongest(b *bench) {
	x := bound("x", 100, 100)
	until := b.now.Add(time.Minute)
	b.pause(x.Key, until)
	b.pause(x.Key, b.now.Add(time.Second))
	b.pause(x.Key, b.now.Add(-time.Hour))
	if d := b.reserve(1, x); d.Go || !d.NotBefore.Equal(until) {
		b.failf("%+v, expected a pause until %v", d, until)
	}
	until = until.Add(time.Minute)
	b.pause(x.Key, until)
	if d := b.reserve(1, x); d.Go || !d.NotBefore.Equal(until) {
		b.failf("a longer pause: %+v, expected %v", d, until)
	}
}

func pauseSpendsNothing(b *bench) {
	x, y := bound("x", 0.001, 10), bound("y", 0.001, 10)
	b.pause(x.Key, b.now.Add(time.Second))
	for range 20 {
		b.reserve(1, x, y)
	}
	b.now = b.now.Add(time.Second)
	if gx, gy := b.drain(x), b.drain(y); gx != 10 || gy != 10 {
		b.failf("%d and %d of 10 were left", gx, gy)
	}
}

func noBounds(b *bench) {
	if !b.reserve(1).Go {
		b.failf("refused")
	}
}

func badInput(b *bench) {
	nan, inf := math.NaN(), math.Inf(1)
	good := bound("t", 1, 1)
	for _, cost := range []float64{0, -1, nan, inf} {
		if d, err := b.l.Reserve(context.Background(), b.now, []limits.Bound{good}, cost); err == nil || d.Go {
			b.failf("cost %v: %+v, %v", cost, d, err)
		}
	}
	for _, r := range [][2]float64{{0, 1}, {-1, 1}, {nan, 1}, {inf, 1}, {1, 0}, {1, 0.5}, {1, nan}, {1, inf}} {
		d, err := b.l.Reserve(context.Background(), b.now, []limits.Bound{bound("t", r[0], r[1])}, 1)
		if err == nil || d.Go {
			b.failf("rate %+v: %+v, %v", r, d, err)
		}
	}
	if d, err := b.l.Reserve(context.Background(), b.now, []limits.Bound{good, good}, 1); err == nil || d.Go {
		b.failf("the same key twice: %+v, %v", d, err)
	}
	if got := b.drain(good); got != 1 {
		b.failf("bad requests spent: %d of 1 left", got)
	}
}

func concurrent(b *bench) {
	x, y := bound("x", 0.001, 1000), bound("y", 0.001, 700)
	var wg sync.WaitGroup
	var granted atomic.Int64
	for g := range 8 {
		ask := []limits.Bound{x, y}
		if g%2 == 1 {
			ask = []limits.Bound{y, x}
		}
		wg.Go(func() {
			for range 200 {
				d, err := b.l.Reserve(context.Background(), b.now, ask, 1)
				if err != nil {
					b.t.Errorf("Reserve: %v", err)
				}
				if d.Go {
					granted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if granted.Load() != 700 {
		b.failf("%d passed of 700", granted.Load())
	}
	if got := b.drain(x); got != 300 {
		b.failf("the wider bound had %d of 300 left", got)
	}
}
