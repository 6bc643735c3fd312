package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	faultTime   = time.Minute
	faultBefore = 15 * time.Second
	faultAfter  = 30 * time.Second
	faultEvery  = 2 // ticks: 50 messages a second for each account
	faultSeed   = 1
	// faultPatience is how long what was held may take to arrive: what has waited comes back slowly.
	faultPatience = 5 * time.Minute
	slowBy        = 2 * time.Second
	faultAim      = 1.1
	// faultCommit is about what one commit of the store takes, in ms: what the other accounts' messages wait for now and
	// then. Less than that is no effect of a fault.
	faultCommit = 1.0
)

// providers are the accounts of the experiment; the first three fail.
var providers = []string{"down", "throttling", "slow", "calm-1", "calm-2"}

// faults lets one provider be down, one throttle and one be slow for a while, and measures what two others feel of it,
// and how those come back.
func (b *bench) faults(ctx context.Context) (err error) {
	d, before, after := faultTime, faultBefore, faultAfter
	if b.given["time"] {
		d, before, after = b.time, b.time/4, b.time/2
	}
	p, err := b.start(ctx, roleSim)
	if err != nil {
		return err
	}
	sim := simulated{p}
	defer func() { err = errors.Join(err, sim.stop()) }()
	e, err := b.serve(ctx, nil, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.end()) }()
	for _, name := range providers {
		if _, err := e.client.Connectors.Put(ctx, name, sim.smppTo(name)); err != nil {
			return err
		}
	}
	via := func(i int) string { return `,"connector":"` + providers[i] + `"` }
	send := func(d time.Duration) (beat, error) {
		return b.randomly(ctx, e, d, faultEvery, len(providers), faultSeed, via)
	}
	if _, err := send(min(d, time.Second)); err != nil { // so that connections are there
		return err
	}
	calm, err := send(before + d)
	if err != nil {
		return err
	}
	trouble := make(chan error, 1)
	begin := time.Now()
	go func() {
		trouble <- sim.troubled(ctx, begin.Add(before), begin.Add(before+d))
	}()
	load, err := send(before + d + after)
	if err := errors.Join(err, <-trouble); err != nil {
		return err
	}
	if err := e.emptied(ctx, faultPatience); err != nil {
		b.wrong("faults: %v", err)
	}
	s, err := sim.entries(0)
	if err != nil {
		return err
	}
	b.check("faults without", calm, s)
	b.check("faults", load, s)
	b.tables = append(b.tables, neighbours(calm, load, s, before, d), load.returns(s, before, d))
	return nil
}

// troubled sets the faults at from and takes them away at to.
func (s simulated) troubled(ctx context.Context, from, to time.Time) error {
	var client http.Client
	defer client.CloseIdleConnections()
	tell := func(what string, args url.Values) error {
		at := s.URL + "/sim/accounts/" + what + "?" + args.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("simulator: %s: %s", what, resp.Status)
		}
		return nil
	}
	wait := func(until time.Time) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(until)):
			return nil
		}
	}
	if err := wait(from); err != nil {
		return err
	}
	err := errors.Join(
		tell("down/fail", url.Values{"fault": {"down"}}),
		tell("throttling/fail", url.Values{"fault": {"throttled"}}),
		tell("slow/slow", url.Values{"by": {slowBy.String()}}),
	)
	if err != nil {
		return err
	}
	if err := wait(to); err != nil {
		return err
	}
	for _, name := range providers[:3] {
		err = errors.Join(err, tell(name+"/heal", nil))
	}
	return err
}

// neighbours says what the accounts that do not fail feel of the others: calm is the same load without any fault. The
// range is that of the thirds of calm: what p99 moves by itself.
func neighbours(calm, load beat, s seen, before, d time.Duration) table {
	t := table{
		title: "faults: accounts beside one that is down, one that throttles and one that is slow by " + slowBy.String(),
		notes: []string{
			"ms from the moment at which a message was to be accepted to the provider's having it;",
			fmt.Sprintf("the aim is that p99 moves by less than a tenth, or than one commit of the store (%g ms)", faultCommit),
		},
	}
	t.add("account", "p50 without", "p99 without", "by itself", "p50 beside", "p99 beside", "ratio p99", "verdict")
	for who := 3; who < len(providers); who++ {
		t.notes = append(t.notes, providers[who]+", the worst of each second: "+load.worst(s, who))
		phase := func(l beat, from, to time.Duration) (p50, p99 float64) {
			took := l.took(s, func(i int) bool {
				at := l.due(i).Sub(l.start)
				return l.who(i) == who && at >= from && at < to
			})
			return percentile(took, 50), percentile(took, 99)
		}
		half, slow := phase(calm, before, before+d)
		var thirds []float64
		for i := range time.Duration(3) {
			_, p99 := phase(calm, before+i*d/3, before+(i+1)*d/3)
			thirds = append(thirds, p99)
		}
		half2, slow2 := phase(load, before, before+d)
		verdict := "ok"
		if slow2 > slow*faultAim && slow2 > slow+faultCommit {
			verdict = "moved"
		}
		t.add(providers[who], half, slow, fmt.Sprintf("%.1f–%.1f", slices.Min(thirds), slices.Max(thirds)), half2, slow2,
			slow2/slow, verdict)
	}
	return t
}

// worst is the longest that a message of an account had to wait, in ms, by the second in which it was accepted.
func (l beat) worst(s seen, who int) string {
	most := make([]int, int(l.of/time.Second)+1)
	at := s.times()
	for i := range l.n {
		if l.who(i) != who {
			continue
		}
		if us, ok := at[channels()[0].key(l.first+i)]; ok {
			n := &most[int(l.due(i).Sub(l.start)/time.Second)]
			*n = max(*n, int(time.UnixMicro(us).Sub(l.due(i)).Milliseconds()))
		}
	}
	return strings.Trim(fmt.Sprint(most), "[]")
}

// returns says how fast the messages of the accounts that failed arrive once they work again.
func (l beat) returns(s seen, before, d time.Duration) table {
	t := table{title: "faults: messages a second at the provider, after it works again"}
	t.add("account", "steady", "most", "second by second, from the first that arrives")
	arrived := s.times()
	steady := float64(time.Second) / float64(time.Duration(l.every)*tick)
	for who := range 3 {
		var at []time.Time
		for i := range l.n {
			if us, ok := arrived[channels()[0].key(l.first+i)]; ok && l.who(i) == who && time.UnixMicro(us).After(l.start.Add(before+d)) {
				at = append(at, time.UnixMicro(us))
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		t.add(providers[who], steady, most(at, time.Second), perSecond(at, 40))
		if len(at) > 0 {
			t.notes = append(t.notes, fmt.Sprintf("%s: the first arrives %.1f s after the end of the fault",
				providers[who], at[0].Sub(l.start.Add(before+d)).Seconds()))
		}
	}
	return t
}

// most is the largest number of times within any window. The times are sorted.
func most(at []time.Time, window time.Duration) (n int) {
	from := 0
	for i, t := range at {
		for t.Sub(at[from]) >= window {
			from++
		}
		n = max(n, i-from+1)
	}
	return n
}

// perSecond counts the times of each second from the first on, at most of a number of seconds. The times are sorted.
func perSecond(at []time.Time, seconds int) string {
	var list []string
	for start := at; len(at) > 0 && len(list) < seconds; {
		end := start[0].Add(time.Duration(len(list)+1) * time.Second)
		n := slices.IndexFunc(at, func(t time.Time) bool { return !t.Before(end) })
		if n < 0 {
			n = len(at)
		}
		list = append(list, strconv.Itoa(n))
		at = at[n:]
	}
	if len(at) > 0 {
		list = append(list, "…")
	}
	return strings.Join(list, " ")
}
