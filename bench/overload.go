package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// crowd is how many connections an open loop has. One without a free connection holds a request back and counts it.
	crowd = 1000
	// overloaded is how many times the knee an overload offers.
	overloaded = 3
)

// tally is what an open loop came to.
type tally struct {
	offered, held    int // held back: there was no free connection when they were due
	accepted         int
	refused, broken  int // broken: an answer that is neither, or none
	unsaid           int // refusals that are not 429 or 503 with Retry-After
	took, refusedIn  []time.Duration
	wrong            string // the first of the broken
	goodput, offRate float64
}

// overload finds the knee of single accepts and offers three times as much: to clients that ask again at once, and to
// clients that wait as long as they are told.
func (b *bench) overload(ctx context.Context) (err error) {
	e, err := b.serve(ctx, nil, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.end()) }()
	list := make([][]byte, distinct)
	extra := inAnHour()
	for i := range list {
		list[i] = e.request("/v1/messages", "application/json", lines(channels()[0], "", i, 1, extra))
	}
	start := time.Now()
	took, err := pump(ctx, e.URL, singles, 202, during(b.time, list))
	if err != nil {
		return err
	}
	peak := float64(len(took)) / time.Since(start).Seconds()
	b.say("overload: closed loop of %d connections: %.0f/s, p99 %.1f ms", singles, peak, percentile(took, 99))
	accepted := len(took)
	for _, share := range []float64{0.6, 0.8, 0.9, 1, 1.2} {
		t, err := b.offer(ctx, e, list, share*peak, false)
		if err != nil {
			return err
		}
		accepted += t.accepted
		b.say("overload: open loop, offered %.0f/s: %s", t.offRate, t.text())
	}
	before, err := e.usage()
	if err != nil {
		return err
	}
	knee := peak
	var hard tally
	loaded := 0
	for _, patient := range []bool{true, false} {
		t, err := b.offer(ctx, e, list, overloaded*knee, patient)
		if err != nil {
			return err
		}
		accepted += t.accepted
		loaded += t.accepted
		who := "ask again at once"
		if patient {
			who = "wait as told"
		}
		b.say("overload: %d× the knee = %.0f/s, clients that %s: goodput %.0f %%, %s", overloaded, t.offRate, who,
			100*t.goodput/knee, t.text())
		if t.unsaid > 0 {
			b.wrong("overload: %d of %d refusals are not 429 or 503 with Retry-After", t.unsaid, t.refused)
		}
		if t.broken > 0 {
			b.wrong("overload: %d requests were broken: %s", t.broken, t.wrong)
		}
		hard = t
	}
	after, err := e.usage()
	if err != nil {
		return err
	}
	audit, err := e.client.Audit.Verify(ctx)
	if err != nil {
		return err
	}
	if !audit.OK || audit.Accepted != int64(accepted) {
		b.wrong("overload: %d messages were accepted, the books have %d: %+v", accepted, audit.Accepted, audit.Problems)
	}
	b.add(row{
		Name: "overload", Rate: hard.goodput, Limit: knee, P50: percentile(hard.took, 50), P99: percentile(hard.took, 99),
		CPU: (after.CPU - before.CPU) / float64(max(loaded, 1)) * 100_000, RSS: after.RSS, aim: aim{ratio: 0.9, rss: 150},
	})
	return nil
}

func (t tally) text() string {
	n := float64(max(t.offered, 1))
	return fmt.Sprintf("accepted %.0f/s (%.0f %%) p99 %.1f ms; refused %.0f %% p99 %.1f ms, %d of them unsaid; held back %.0f %%; broken %d",
		t.goodput, 100*float64(t.accepted)/n, percentile(t.took, 99), 100*float64(t.refused)/n, percentile(t.refusedIn, 99),
		t.unsaid, 100*float64(t.held)/n, t.broken)
}

// offer sends requests at a rate for b.time, whatever the engine does. Latency counts from when a request is written.
func (b *bench) offer(ctx context.Context, e *served, list [][]byte, rate float64, patient bool) (tally, error) {
	var all tally
	var mu sync.Mutex
	work := make(chan []byte)
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	var wg sync.WaitGroup
	for range crowd {
		wg.Go(func() {
			own := requests(ctx, e.URL, work, patient)
			mu.Lock()
			defer mu.Unlock()
			all.join(own)
		})
	}
	start := time.Now()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for ctx.Err() == nil {
		past := time.Since(start)
		if past >= b.time {
			break
		}
		for due := int(rate * past.Seconds()); all.offered < due; all.offered++ {
			select {
			case work <- list[all.offered%len(list)]:
			default:
				all.held++
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	close(work)
	if patient {
		cancel() // nobody waits for clients that only wait
	}
	wg.Wait()
	past := time.Since(start).Seconds()
	all.goodput, all.offRate = float64(all.accepted)/past, float64(all.offered)/past
	return all, outer.Err()
}

// requests is one connection of an open loop. A patient one does nothing until Retry-After is over.
func requests(ctx context.Context, url string, work <-chan []byte, patient bool) (t tally) {
	var w *wire
	defer func() {
		if w != nil {
			_ = w.nc.Close()
		}
	}()
	for request := range work {
		if w == nil {
			var err error
			if w, err = dial(context.WithoutCancel(ctx), url); err != nil {
				t.broke(err)
				continue
			}
		}
		begin := time.Now()
		a, err := w.ask(request)
		if err != nil || a.closing {
			_ = w.nc.Close()
			w = nil
		}
		switch {
		case err != nil:
			t.broke(err)
		case a.status == http.StatusAccepted:
			t.accepted++
			t.took = append(t.took, time.Since(begin))
		case a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable:
			t.refused++
			t.refusedIn = append(t.refusedIn, time.Since(begin))
			if a.retryAfter <= 0 {
				t.unsaid++
			}
			if patient {
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(a.retryAfter) * time.Second):
				}
			}
		default:
			t.broke(fmt.Errorf("answered %d", a.status))
		}
	}
	return t
}

func (t *tally) broke(err error) {
	t.broken++
	if t.wrong == "" {
		t.wrong = err.Error()
	}
}

// join adds what another connection did.
func (t *tally) join(o tally) {
	t.accepted += o.accepted
	t.refused += o.refused
	t.broken += o.broken
	t.unsaid += o.unsaid
	t.took = append(t.took, o.took...)
	t.refusedIn = append(t.refusedIn, o.refusedIn...)
	if t.wrong == "" {
		t.wrong = o.wrong
	}
}

// brief is what an open loop wants to know of an answer.
type brief struct {
	status, retryAfter int
	closing            bool
}

// ask sends a request and reads the answer, with as little work as that takes: the load shares the machine.
func (w *wire) ask(request []byte) (a brief, err error) {
	if err := w.nc.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return a, err
	}
	if _, err := w.nc.Write(request); err != nil {
		return a, err
	}
	length := 0
	for first := true; ; first = false {
		line, err := w.r.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < 12 {
				return a, fmt.Errorf("%q is no answer", line)
			}
			a.status, err = strconv.Atoi(string(line[9:12]))
			if err != nil {
				return a, err
			}
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Content-Length":
			length, err = strconv.Atoi(string(value))
		case "Retry-After":
			a.retryAfter, err = strconv.Atoi(string(value))
		case "Connection":
			a.closing = string(value) == "close"
		}
		if err != nil {
			return a, err
		}
	}
	_, err = w.r.Discard(length)
	return a, err
}
