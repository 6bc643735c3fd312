package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

const (
	// permits is the rate of the connectors, per second: more than the machine can do, so that every message takes a
	// permit and none waits for one.
	permits = 100_000
	// auditTimeout bounds the proof of the books: it recounts every message.
	auditTimeout = 3 * time.Minute
)

// fleet is a number of engines on one database, with one simulator.
type fleet struct {
	b     *bench
	on    *backing
	db    *servers.DB
	sim   simulated
	nodes []*served
	sent  int // messages accepted so far
}

// launch starts n engines on a database of their own and connects them to the simulator.
func (b *bench) launch(ctx context.Context, on *backing, sim simulated, n int) (_ *fleet, err error) {
	f := &fleet{b: b, on: on, sim: sim}
	if err := on.try(func() { on.redis.Wipe() }); err != nil {
		return nil, err
	}
	if f.db, err = on.database(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.end())
		}
	}()
	for i := range n {
		if err := f.join(ctx, i); err != nil {
			return nil, fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	return f, f.connect(ctx)
}

// join starts the engine of a node. The first one makes the master key; the others are given it.
func (f *fleet) join(ctx context.Context, i int) (err error) {
	f.b.engines++
	e := &served{dir: filepath.Join(f.b.work, "engine-"+strconv.Itoa(f.b.engines))}
	e.http.Transport = &http.Transport{}
	if i > 0 {
		const key = "master.key"
		secret, err := os.ReadFile(filepath.Join(f.nodes[0].dir, key))
		if err == nil {
			err = os.Mkdir(e.dir, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(e.dir, key), secret, 0o600)
		}
		if err != nil {
			return err
		}
	}
	args := []string{"-dir", e.dir, "-node", "n" + strconv.Itoa(i+1)}
	env := []string{envStore + "=" + f.db.App, envBroker + "=" + f.on.rabbit.URL, envLimits + "=" + f.on.redis.URL}
	if e.process, err = f.b.startWith(ctx, env, roleEngine, args...); err != nil {
		return err
	}
	f.nodes = append(f.nodes, e)
	return nil
}

// connect makes the tenant, its key and its connectors.
func (f *fleet) connect(ctx context.Context) error {
	first := f.nodes[0]
	operator, err := first.operator()
	if err != nil {
		return err
	}
	defer operator.Close()
	if _, err := operator.Tenants.Create(ctx, sdk.TenantRequest{ID: tenant, Name: tenant}); err != nil {
		return err
	}
	k, err := operator.Keys.Create(ctx, sdk.KeyRequest{Tenant: tenant, Name: "bench", Mode: "live"})
	if err != nil {
		return err
	}
	for _, e := range f.nodes {
		e.key = k.Secret
		e.client = sdk.New(sdk.WithURL(e.URL), sdk.WithKey(e.key), sdk.WithTryTimeout(auditTimeout))
	}
	sms := f.sim.smppTo("sim-sms")
	hook := sdk.ConnectorRequest{Kind: "webhook", Settings: map[string]string{"secret": sandbox.HookSecret}}
	for name, r := range map[string]sdk.ConnectorRequest{"sim-sms": sms, "sim-hook": hook} {
		r.Rate, r.Burst = permits, permits
		if _, err := first.client.Connectors.Put(ctx, name, r); err != nil {
			return fmt.Errorf("connector %s: %w", name, err)
		}
	}
	return nil
}

// end drains the engines. Safe twice.
func (f *fleet) end() error {
	errs := make([]error, len(f.nodes))
	var wg sync.WaitGroup
	for i, e := range f.nodes {
		wg.Go(func() { errs[i] = e.end() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// urls are those of the nodes.
func (f *fleet) urls() (list []string) {
	for _, e := range f.nodes {
		list = append(list, e.URL)
	}
	return list
}

// read reads what everybody has used so far.
func (f *fleet) read() (r reading, err error) {
	r = reading{part: map[string]float64{}}
	for _, e := range f.nodes {
		u, err := e.usage()
		if err != nil {
			return r, err
		}
		r.part["engines"] += u.CPU
	}
	sim, err := f.sim.usage()
	if err != nil {
		return r, err
	}
	r.part["load"] = sim.CPU + ownUsage().CPU
	for kind, tree := range trees(processes(), os.Getpid()) {
		for _, p := range tree {
			r.part[kind] += p.cpu
		}
	}
	r.at, r.busy = time.Now(), machineBusy()
	return r, nil
}

// rss is the most that was resident in any of the engines, in MiB.
func (f *fleet) rss() (most float64, err error) {
	for _, e := range f.nodes {
		u, err := e.usage()
		if err != nil {
			return 0, err
		}
		most = max(most, u.RSS)
	}
	return most, nil
}

// pump loads all nodes at once, over conns connections in all.
func (f *fleet) pump(ctx context.Context, conns, status int, next func() []byte) (took []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	times, errs := make([][]time.Duration, len(f.nodes)), make([]error, len(f.nodes))
	var wg sync.WaitGroup
	for i, e := range f.nodes {
		wg.Go(func() {
			if times[i], errs[i] = pump(ctx, e.URL, portion(conns, len(f.nodes), i), status, next); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return slices.Concat(times...), errors.Join(errs...)
}

// portion is what the i-th of so many has of a whole number, at least 1.
func portion(whole, of, i int) int {
	n := whole / of
	if i < whole%of {
		n++
	}
	return max(n, 1)
}

// settled is what the nodes have counted so far.
type settled struct{ outcomes, receipts int }

func (f *fleet) settled(ctx context.Context, c channel) (s settled, err error) {
	label := `channel="` + c.name + `"`
	for _, e := range f.nodes {
		n, err := e.metric(ctx, "msgctl_outcomes_total", label)
		if err != nil {
			return s, err
		}
		s.outcomes += n
		if n, err = e.metric(ctx, "msgctl_receipts_total", label, `status="delivered"`); err != nil {
			return s, err
		}
		s.receipts += n
	}
	return s, nil
}

// journey is a load whose every message is looked for afterwards.
type journey struct {
	*fleet
	c      channel
	first  int // recipient
	n      int
	before int // entries of the simulator's ledger
	counts settled
}

func (f *fleet) journey(ctx context.Context, c channel) (j *journey, err error) {
	j = &journey{fleet: f, c: c}
	if j.before, err = f.sim.count(); err != nil {
		return nil, err
	}
	j.counts, err = f.settled(ctx, c)
	return j, err
}

// arrive waits until the simulator has every message and the engines have stored what became of it.
func (j *journey) arrive(ctx context.Context) error {
	if err := await(ctx, "handed off", j.n, func() (int, error) {
		n, err := j.sim.count()
		return n - j.before, err
	}); err != nil {
		return err
	}
	if err := await(ctx, "settled", j.n, func() (int, error) {
		now, err := j.settled(ctx, j.c)
		return now.outcomes - j.counts.outcomes, err
	}); err != nil || !j.c.receipts {
		return err
	}
	return await(ctx, "with a receipt", j.n, func() (int, error) {
		now, err := j.settled(ctx, j.c)
		return now.receipts - j.counts.receipts, err
	})
}

// finish waits for the messages and reports those lost or doubled.
func (j *journey) finish(ctx context.Context) (s seen, err error) {
	stall := j.arrive(ctx)
	if stall != nil && !errors.Is(stall, errStalled) {
		return s, stall
	}
	j.sent += j.n
	if stall != nil {
		j.b.wrong("%s on %d nodes: %v", j.c.name, len(j.nodes), stall)
	}
	if s, err = j.sim.entries(j.before); err != nil {
		return s, err
	}
	for _, p := range compare(j.c, j.first, j.n, s.To) {
		j.b.wrong("%s on %d nodes: %s", j.c.name, len(j.nodes), p)
	}
	return s, nil
}

// flood pushes n messages as fast as the engines take them.
func (f *fleet) flood(ctx context.Context, c channel, n int) (rate float64, cost costs, err error) {
	j, err := f.journey(ctx, c)
	if err != nil {
		return 0, cost, err
	}
	j.n, j.first = n, f.b.next(n)
	requests := f.nodes[0].batches(c, f.sim.URL, j.first, n, "")
	before, err := f.read()
	if err != nil {
		return 0, cost, err
	}
	if _, err := f.pump(ctx, pushers, http.StatusOK, each(requests)); err != nil {
		return 0, cost, err
	}
	s, err := j.finish(ctx)
	if err != nil {
		return 0, cost, err
	}
	after, err := f.read()
	if err != nil {
		return 0, cost, err
	}
	end := after.at
	if !c.receipts && len(s.At) > 0 {
		end = time.UnixMicro(slices.Max(s.At))
	}
	return float64(n) / end.Sub(before.at).Seconds(), after.since(before, n, runtime.NumCPU()), nil
}

// steady sends at a rate for d and returns how long messages took until the simulator had them.
func (f *fleet) steady(ctx context.Context, c channel, rate float64, d time.Duration) ([]time.Duration, error) {
	j, err := f.journey(ctx, c)
	if err != nil {
		return nil, err
	}
	var due []time.Duration
	var requests [][]byte
	j.first, due, requests = f.b.timetable(f.nodes[0], c, f.sim, rate, d)
	j.n = len(due)
	start, err := f.b.schedule(ctx, f.urls(), requests)
	if err != nil {
		return nil, err
	}
	s, err := j.finish(ctx)
	return waits(c, j.first, start, due, s), err
}

// accept loads the nodes with requests of so many rows that are due in an hour, for d.
func (f *fleet) accept(
	ctx context.Context, conns, status, rows int, d time.Duration, list [][]byte,
) (rate float64, took []time.Duration, cost costs, err error) {
	before, err := f.read()
	if err != nil {
		return 0, nil, cost, err
	}
	if took, err = f.pump(ctx, conns, status, during(d, list)); err != nil {
		return 0, nil, cost, err
	}
	after, err := f.read()
	n := len(took) * rows
	f.sent += n
	return float64(n) / after.at.Sub(before.at).Seconds(), took, after.since(before, n, runtime.NumCPU()), err
}

// audit proves the books of everything that this fleet has done.
func (f *fleet) audit(ctx context.Context) error {
	audit, err := f.nodes[0].client.Audit.Verify(ctx)
	if err == nil && (!audit.OK || audit.Accepted != int64(f.sent)) {
		f.b.wrong("%d nodes: %d messages were accepted, the books have %d: %+v", len(f.nodes), f.sent, audit.Accepted,
			audit.Problems)
	}
	return err
}
