package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// tick is the schedule of the latency load.
const tick = 10 * time.Millisecond

// latency sends on a fixed schedule, whatever the engine does, and joins each message's scheduled moment with the
// moment at which the simulator had it. A request that starts late because the machine is busy counts from when it
// should have started.
func (b *bench) latency(ctx context.Context, c channel, sim simulated, rate float64) (p50, p99 float64, err error) {
	t, err := b.depart(ctx, c, sim, "")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, t.e.end()) }()
	ticks := max(int(b.time/tick), 1)
	perTick := rate * tick.Seconds()
	t.n = max(int(perTick*float64(ticks)), 1)
	t.first = b.next(t.n)
	requests := make([][]byte, ticks)
	due := make([]time.Duration, t.n) // of each message, from the start
	done := 0
	for i := range ticks {
		rows := min(int(perTick*float64(i+1)), t.n) - done
		if i == ticks-1 {
			rows = t.n - done
		}
		if rows > 0 {
			requests[i] = t.e.batch(lines(c, sim.URL, t.first+done, rows, ""))
		}
		for range rows {
			due[done] = time.Duration(i) * tick
			done++
		}
	}
	start, err := b.schedule(ctx, t.e.URL, requests)
	if err != nil {
		return 0, 0, err
	}
	stall := t.arrive(ctx)
	if stall != nil && !errors.Is(stall, errStalled) {
		return 0, 0, stall
	}
	s, err := t.books(ctx, stall)
	if err != nil {
		return 0, 0, err
	}
	at := make(map[string]int64, len(s.To))
	for i, k := range s.To {
		at[k] = s.At[i]
	}
	var took []time.Duration
	for i, d := range due {
		if arrived, ok := at[c.key(t.first+i)]; ok {
			took = append(took, max(time.UnixMicro(arrived).Sub(start.Add(d)), time.Microsecond))
		}
	}
	return percentile(took, 50), percentile(took, 99), nil
}

// schedule sends each request at its tick, on as many connections as that takes.
func (b *bench) schedule(ctx context.Context, url string, requests [][]byte) (start time.Time, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var idle sync.Pool
	var mu sync.Mutex
	var wires []*wire
	defer func() {
		for _, w := range wires {
			_ = w.nc.Close()
		}
	}()
	send := func(request []byte) error {
		w, _ := idle.Get().(*wire)
		if w == nil {
			var err error
			if w, err = dial(ctx, url); err != nil {
				return err
			}
			mu.Lock()
			wires = append(wires, w)
			mu.Unlock()
		}
		if err := w.do(request, 200); err != nil {
			return err
		}
		idle.Put(w)
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	start = time.Now()
	for i, request := range requests {
		if wait := time.Until(start.Add(time.Duration(i) * tick)); wait > 0 {
			select {
			case <-ctx.Done():
				return start, context.Cause(ctx)
			case <-time.After(wait):
			}
		}
		if request == nil {
			continue
		}
		wg.Go(func() {
			if err := send(request); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return start, context.Cause(ctx)
}
