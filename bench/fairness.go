package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// experiments are what runs only when it is asked for by name.
func experiments() []string { return []string{"noisy", "faults", "cluster"} }

func (b *bench) experiments() iter.Seq2[string, func(context.Context) error] {
	return func(yield func(string, func(context.Context) error) bool) {
		_ = yield("noisy", b.noisy) && yield("faults", b.faults) && yield("cluster", b.cluster)
	}
}

// table is what an experiment prints.
type table struct {
	title string
	rows  [][]string // the first is the head
	notes []string
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if v, ok := c.(float64); ok {
			row[i] = fmt.Sprintf("%.1f", v)
		} else {
			row[i] = fmt.Sprint(c)
		}
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(w io.Writer) {
	fmt.Fprintln(w, t.title)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range t.rows {
		fmt.Fprintln(tab, "  "+strings.Join(r, "\t"))
	}
	_ = tab.Flush()
	for _, n := range t.notes {
		fmt.Fprintln(w, "  "+n)
	}
}

// operator returns a client with the operator's key.
func (e *served) operator() (*sdk.Client, error) {
	key, err := os.ReadFile(filepath.Join(e.dir, engine.OperatorKeyFile))
	if err != nil {
		return nil, err
	}
	return sdk.New(sdk.WithURL(e.URL), sdk.WithKey(strings.TrimSpace(string(key)))), nil
}

// join makes a tenant with a key of its own, and returns the engine as that tenant sees it.
func (e *served) join(ctx context.Context, operator *sdk.Client, id string) (*served, error) {
	if _, err := operator.Tenants.Create(ctx, sdk.TenantRequest{ID: id, Name: id}); err != nil {
		return nil, err
	}
	k, err := operator.Keys.Create(ctx, sdk.KeyRequest{Tenant: id, Name: "bench", Mode: "live"})
	if err != nil {
		return nil, err
	}
	return &served{process: e.process, key: k.Secret, client: sdk.New(sdk.WithURL(e.URL), sdk.WithKey(k.Secret))}, nil
}

// smppTo is a connector to an account of the simulator.
func (s simulated) smppTo(account string) sdk.ConnectorRequest {
	return sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
		"addr": s.SMPP, "system_id": account, "password": sandbox.Password, "from": "msgctl",
	}}
}

// beat is a steady load: one request every so many ticks.
type beat struct {
	start time.Time
	first int // recipient
	n     int
	every int           // ticks
	rows  int           // of a request
	of    time.Duration // the whole load
	draws []draw        // of a random load: one for each recipient; else nil
}

// draw is when a random load writes to a recipient, and which of its writers does.
type draw struct{ at, who int }

// due is when the recipient first+i was to be accepted.
func (l beat) due(i int) time.Time {
	if l.draws != nil {
		return l.start.Add(time.Duration(l.draws[i].at) * tick)
	}
	return l.start.Add(time.Duration(i/l.rows*l.every) * tick)
}

// who is the writer to the recipient first+i: the row of a request of a steady load.
func (l beat) who(i int) int {
	if l.draws != nil {
		return l.draws[i].who
	}
	return i % l.rows
}

// steadily sends a request of rows every so many ticks until d has passed. Extra is what row i of each request has
// besides.
func (b *bench) steadily(
	ctx context.Context, e *served, d time.Duration, every, rows int, extra func(i int) string,
) (beat, error) {
	l := beat{every: every, rows: rows, of: d}
	ticks := max(int(d/tick), 1)
	l.n = (ticks + every - 1) / every * rows
	l.first = b.next(l.n)
	requests := make([][]byte, ticks)
	person := l.first
	for at := 0; at < ticks; at += every {
		var body []byte
		for i := range rows {
			body = append(body, lines(channels()[0], "", person, 1, extra(i))...)
			person++
		}
		requests[at] = e.batch(body)
	}
	var err error
	l.start, err = b.schedule(ctx, []string{e.URL}, requests)
	return l, err
}

// randomly lets each of a number of writers send a message in one tick of so many, by chance and each for itself, until
// d has passed: as requests come from customers who know nothing of each other. The same seed draws the same load. Extra
// is what the messages of a writer have besides.
func (b *bench) randomly(
	ctx context.Context, e *served, d time.Duration, every, writers int, seed uint64, extra func(who int) string,
) (beat, error) {
	l := beat{every: every, rows: writers, of: d, draws: []draw{}}
	rnd := rand.New(rand.NewPCG(seed, 0))
	ticks := max(int(d/tick), 1)
	for at := range ticks {
		for who := range writers {
			if rnd.IntN(every) == 0 {
				l.draws = append(l.draws, draw{at, who})
			}
		}
	}
	l.n = len(l.draws)
	l.first = b.next(l.n)
	requests := make([][]byte, ticks)
	for i := 0; i < l.n; {
		at := l.draws[i].at
		var body []byte
		for ; i < l.n && l.draws[i].at == at; i++ {
			body = append(body, lines(channels()[0], "", l.first+i, 1, extra(l.draws[i].who))...)
		}
		requests[at] = e.batch(body)
	}
	var err error
	l.start, err = b.schedule(ctx, []string{e.URL}, requests)
	return l, err
}

// took is how long the recipients of a load for which want says so had to wait, from the moment at which their message
// was to be accepted.
func (l beat) took(s seen, want func(i int) bool) (took []time.Duration) {
	key, at := channels()[0].key, s.times()
	for i := range l.n {
		if arrived, ok := at[key(l.first+i)]; ok && want(i) {
			took = append(took, max(time.UnixMicro(arrived).Sub(l.due(i)), time.Microsecond))
		}
	}
	return took
}

func anyone(int) bool { return true }

// times are when each recipient's message was taken.
func (s seen) times() map[string]int64 {
	at := make(map[string]int64, len(s.To))
	for i, k := range s.To {
		at[k] = s.At[i]
	}
	return at
}

// check reports messages of a load that did not arrive, or more than once.
func (b *bench) check(what string, l beat, s seen) {
	c, own := channels()[0], map[string]bool{}
	for i := range l.n {
		own[c.key(l.first+i)] = true
	}
	var to []string
	for _, k := range s.To {
		if own[k] {
			to = append(to, k)
		}
	}
	for _, p := range compare(c, l.first, l.n, to) {
		b.wrong("%s: %s", what, p)
	}
}

// emptied waits until a tenant has no message that still has to be handed off.
func (e *served) emptied(ctx context.Context, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		left := sdk.Status("")
		for _, s := range []sdk.Status{sdk.Queued, sdk.Sending, sdk.Held, sdk.Deferred, sdk.Ambiguous} {
			page, err := e.client.Messages.Page(ctx, sdk.MessageQuery{Status: s, Limit: 1})
			if err != nil {
				return err
			}
			if len(page.Data) > 0 {
				left = s
			}
		}
		if left == "" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s, messages are still %s", patience, left)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * poll):
		}
	}
}

const (
	blast       = 1_000_000 // messages of the noisy tenant, unless -n says otherwise
	noisyTime   = 30 * time.Second
	noisyEvery  = 5 // ticks: 20 messages a second
	noisyAim    = 1.5
	noisyMargin = 50.0 // ms
)

// noisy measures what a tenant's urgent messages feel of another tenant's blast on the same account: while the blast is
// accepted, and while what is left of it is sent.
func (b *bench) noisy(ctx context.Context) error {
	n, d := blast, noisyTime
	if b.given["n"] {
		n = b.n
	}
	if b.given["time"] {
		d = b.time
	}
	t := table{
		title: fmt.Sprintf("noisy: 20 urgent messages a second beside a blast of %d, on one account", n),
		notes: []string{
			"ms from the moment at which a message was to be accepted to the provider's having it;",
			fmt.Sprintf("the aim for p99 is %g times alone, or %g ms more", noisyAim, noisyMargin),
		},
	}
	t.add("account", "load", "p50", "p99", "ratio p50", "ratio p99", "more p99", "verdict", "blast left")
	for _, rate := range []float64{0, 500} {
		if err := b.beside(ctx, &t, n, d, rate); err != nil {
			return err
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

func (b *bench) beside(ctx context.Context, t *table, n int, d time.Duration, rate float64) (err error) {
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
	operator, err := e.operator()
	if err != nil {
		return err
	}
	defer operator.Close()
	shared := sim.smppTo("shared")
	shared.Shared, shared.Rate = true, rate
	if _, err := operator.Connectors.Put(ctx, "shared", shared); err != nil {
		return err
	}
	bank, err := e.join(ctx, operator, "bank")
	if err != nil {
		return err
	}
	defer bank.client.Close()
	shop, err := e.join(ctx, operator, "shop")
	if err != nil {
		return err
	}
	defer shop.client.Close()

	urgent := func(int) string { return `,"lane":"urgent"` }
	send := func(d time.Duration) (beat, error) { return b.steadily(ctx, bank, d, noisyEvery, 1, urgent) }
	warm, err := send(min(d, time.Second)) // so that connections are there
	if err != nil {
		return err
	}
	alone, err := send(d)
	if err != nil {
		return err
	}
	first := b.next(n)
	flood := make(chan error, 1)
	go func() {
		done := 0
		_, err := pump(ctx, e.URL, 1, 200, func() []byte {
			rows := min(batchRows, n-done)
			if rows <= 0 {
				return nil
			}
			done += rows
			return shop.batch(lines(channels()[0], "", first+done-rows, rows, `,"lane":"bulk"`))
		})
		flood <- err
	}()
	accepting, err := send(d)
	if err := errors.Join(err, <-flood); err != nil {
		return err
	}
	before, err := sim.count()
	if err != nil {
		return err
	}
	sending, err := send(d)
	if err != nil {
		return err
	}
	if err := bank.emptied(ctx, patience); err != nil {
		b.wrong("noisy: of the urgent ones: %v", err)
	}
	sent, err := sim.count()
	if err != nil {
		return err
	}
	s, err := sim.entries(0)
	if err != nil {
		return err
	}
	account := "no limit"
	if rate > 0 {
		account = fmt.Sprintf("%g per second", rate)
	}
	before -= warm.n + alone.n + accepting.n
	sent -= warm.n + alone.n + accepting.n + sending.n
	b.say("noisy, %s: %d of the blast were sent before and %d while it was measured", account, before, sent-before)
	var p50, p99 float64
	for _, l := range []struct {
		name string
		beat beat
	}{{"alone", alone}, {"blast is accepted", accepting}, {"blast is sent", sending}} {
		b.check("noisy: "+l.name, l.beat, s)
		took := l.beat.took(s, anyone)
		half, slow := percentile(took, 50), percentile(took, 99)
		if l.name == "alone" {
			p50, p99 = half, slow
			t.add(account, l.name, half, slow, "", "", "", "", "")
			continue
		}
		verdict := "ok"
		if slow > p99*noisyAim && slow > p99+noisyMargin {
			verdict = "too slow"
		}
		left := ""
		if l.name == "blast is sent" {
			left = fmt.Sprint(n - sent)
		}
		t.add(account, l.name, half, slow, half/p50, slow/p99, slow-p99, verdict, left)
	}
	return nil
}
