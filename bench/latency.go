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
	var requests [][]byte
	var due []time.Duration
	t.first, due, requests = b.timetable(t.e, c, sim, rate, b.time)
	t.n = len(due)
	start, err := b.schedule(ctx, []string{t.e.URL}, requests)
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
	took := waits(c, t.first, start, due, s)
	return percentile(took, 50), percentile(took, 99), nil
}

// timetable spreads messages evenly over the ticks of d: the first recipient, when each message is due after the start,
// and the request of each tick, nil where it has none.
func (b *bench) timetable(
	e *served, c channel, sim simulated, rate float64, d time.Duration,
) (first int, due []time.Duration, requests [][]byte) {
	ticks := max(int(d/tick), 1)
	perTick := rate * tick.Seconds()
	n := max(int(perTick*float64(ticks)), 1)
	first = b.next(n)
	requests, due = make([][]byte, ticks), make([]time.Duration, 0, n)
	for i := range ticks {
		rows := min(int(perTick*float64(i+1)), n) - len(due)
		if i == ticks-1 {
			rows = n - len(due)
		}
		if rows > 0 {
			requests[i] = e.batch(lines(c, sim.URL, first+len(due), rows, ""))
		}
		for range rows {
			due = append(due, time.Duration(i)*tick)
		}
	}
	return first, due, requests
}

// waits are how long the messages of a schedule took that arrived.
func waits(c channel, first int, start time.Time, due []time.Duration, s seen) (took []time.Duration) {
	at := make(map[string]int64, len(s.To))
	for i, k := range s.To {
		at[k] = s.At[i]
	}
	for i, d := range due {
		if arrived, ok := at[c.key(first+i)]; ok {
			took = append(took, max(time.UnixMicro(arrived).Sub(start.Add(d)), time.Microsecond))
		}
	}
	return took
}

// schedule sends each request at its tick, on as many connections as that takes, to one engine after the other.
func (b *bench) schedule(ctx context.Context, urls []string, requests [][]byte) (start time.Time, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := make([]sync.Pool, len(urls))
	var mu sync.Mutex
	var wires []*wire
	defer func() {
		for _, w := range wires {
			_ = w.nc.Close()
		}
	}()
	send := func(to int, request []byte) error {
		w, _ := idle[to].Get().(*wire)
		if w == nil {
			var err error
			if w, err = dial(ctx, urls[to]); err != nil {
				return err
			}
			mu.Lock()
			wires = append(wires, w)
			mu.Unlock()
		}
		if err := w.do(request, 200); err != nil {
			return err
		}
		idle[to].Put(w)
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
			if err := send(i%len(urls), request); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return start, context.Cause(ctx)
}
