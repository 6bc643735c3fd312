package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

// account is one account at a provider. It outlives the processes that use it.
type account struct {
	n        int
	id       delivery.AccountID
	name     string
	tenant   delivery.TenantID
	channel  delivery.Channel
	kind     connectors.Ambiguity
	window   time.Duration // to settle a doubt; 0 = the engine's own
	reports  bool          // it sends receipts
	byRef    bool          // which carry only its own id
	rate     float64
	burst    float64
	priority int
	parallel int
	timeout  time.Duration
	downs    []span

	paused bool
	tries  map[int]int // how often each message was handed over, by the message's number
	asked  map[int]int // and asked for
	ledger []*handover
}

type span struct{ from, to time.Duration }

func (a *account) usableBy(t delivery.TenantID) bool {
	return a.tenant == delivery.Shared || a.tenant == t
}

// handover is a line in a provider's ledger.
type handover struct {
	m       *message
	a       *account
	leg     int
	by      *process
	nth     int // of this message at this account
	at      time.Time
	cost    float64
	marked  bool // as a possible duplicate
	answer  string
	running bool
	reached bool // it left the process
	taken   bool // the person gets it
	again   bool // taken before, and dropped for that
	heard   bool // the process got the answer
	sure    bool // the answer left no doubt
	denied  bool // the provider has said that it never took it
	late    bool // the lease had ended before the answer was written
	epoch   int
	sent    time.Duration // after the start
	ended   time.Duration
}

// open makes the connector of a process.
func (a *account) open(p *process) *routing.Account {
	c := connector{p, a}
	k := &connectors.Kind{
		Name: "sim-" + string(a.kind), Channel: a.channel, Ambiguity: a.kind, ResolveWindow: a.window, Receipts: a.reports,
		ReceiptsByProviderID: a.reports && a.byRef,
		Open:                 func(*connectors.Account) (connectors.Connector, error) { return c, nil },
	}
	out := &routing.Account{
		ID: a.id, Tenant: a.tenant, Name: a.name, Channel: a.channel, Kind: k, Connector: c, Priority: a.priority,
		PerSecond: a.rate, Burst: a.burst, Timeout: a.timeout, Parallel: a.parallel, Paused: a.paused, Why: "by hand",
	}
	if a.kind == connectors.Query {
		out.Connector = querier{c}
	}
	return out
}

// connector hands messages to an account's provider.
type connector struct {
	p *process
	a *account
}

var errCut = errors.New("the process ended")

// conduct is what a provider does with one attempt.
type conduct struct {
	name   string
	taken  bool
	wait   time.Duration // until it answers; 0 = not before it is cut off
	err    error
	panics bool
}

func failure(c delivery.Class, code string, after time.Duration) error {
	return &delivery.Failure{Class: c, Code: code, Detail: "simulated", Known: true, RetryAfter: after}
}

// conduct is decided by the seed, the message and the number of the attempt: never by who came first.
func (a *account) conduct(w *world, h *handover) conduct {
	wait := time.Millisecond + time.Duration(w.roll("latency", h.m.n, a.n, h.nth)*400)*time.Millisecond
	fine := conduct{name: "taken", taken: true, wait: wait}
	if w.healed {
		return fine
	}
	for _, d := range a.downs {
		if now := w.passed(); now >= d.from && now < d.to {
			return conduct{name: "down", wait: wait, err: failure(delivery.ConnectorDown, "auth", 0)}
		}
	}
	if w.roll("fault", h.m.n, a.n, h.nth) >= w.weather.provider {
		return fine
	}
	kinds := []conduct{
		{name: "taken, answer lost", taken: true, wait: wait, err: failure(delivery.InDoubt, "reset", 0)},
		{name: "taken, no answer", taken: true},
		{name: "not taken, in doubt", wait: wait, err: failure(delivery.InDoubt, "reset", 0)},
		{name: "not taken, no answer"},
		{name: "transient", wait: wait, err: failure(delivery.Transient, "busy", 0)},
		{name: "transient, wait", wait: wait, err: failure(delivery.Transient, "greylisted", 17*time.Second)},
		{name: "transient, unknown code", wait: wait, err: &delivery.Failure{Class: delivery.Transient, Code: "9999"}},
		{name: "no class", wait: wait, err: errors.New("simulated")},
		{name: "throttled", wait: wait, err: failure(delivery.Throttled, "slow", 0)},
		{name: "throttled, wait", wait: wait, err: failure(delivery.Throttled, "slow", 11*time.Second)},
		{name: "throttled, wait long", wait: wait, err: failure(delivery.Throttled, "slow", 70*time.Second)},
		{name: "rejected", wait: wait, err: failure(delivery.Rejected, "content", 0)},
		{name: "bad recipient", wait: wait, err: failure(delivery.BadRecipient, "unknown_user", 0)},
		{name: "consent", wait: wait, err: failure(delivery.Consent, "opted_out", 0)},
		{name: "panic before", wait: wait, panics: true},
		{name: "panic after", wait: wait, taken: true, panics: true},
		{name: "taken, slow", taken: true, wait: a.timeout - 50*time.Millisecond},
	}
	// The weights stand in the number of chances: what leaves a doubt is what the engine has to be good at.
	likely := []int{0, 0, 0, 1, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16}
	return kinds[likely[int(w.roll("which", h.m.n, a.n, h.nth)*float64(len(likely)))]]
}

func (c connector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	w, a := c.p.w, c.a
	h, ok := w.enter(c, m)
	if !ok {
		return delivery.Sent{}, errCut
	}
	if w.gate.wait(c.p, "send "+h.name()) != pass {
		w.leave(h, "never left")
		return delivery.Sent{}, errCut
	}
	h.reached = true
	does := a.conduct(w, h)
	if does.taken {
		w.take(h)
	}
	err := does.err
	var wait <-chan time.Time
	if does.wait > 0 {
		t := time.NewTimer(does.wait)
		defer t.Stop()
		wait = t.C
	}
	select {
	case <-wait:
	case <-ctx.Done():
		does.name, err = does.name+", cut off", ctx.Err()
	case <-c.p.gone:
		w.leave(h, does.name+", process gone")
		return delivery.Sent{}, errCut
	}
	if w.gate.wait(c.p, "answer "+h.name()) != pass {
		w.leave(h, does.name+", answer to nobody")
		return delivery.Sent{}, errCut
	}
	h.heard = true
	f := new(delivery.Failure)
	// An error without a class says nothing once the attempt was cut off.
	h.sure = !does.panics && (err == nil || errors.As(err, &f) && f.Class != delivery.InDoubt ||
		does.name == "no class" && ctx.Err() == nil)
	w.leave(h, does.name)
	if does.panics {
		panic("simulated")
	}
	if err != nil {
		return delivery.Sent{}, err
	}
	return delivery.Sent{ProviderID: h.ref(), Detail: "ok"}, nil
}

func (h *handover) name() string { return fmt.Sprintf("%s %s #%d", h.m, h.a.name, h.nth) }

// ref is the provider's id of a message: the same for the same message where the provider deduplicates.
func (h *handover) ref() string {
	if h.a.kind == connectors.DedupeKey {
		return fmt.Sprintf("%s-%s", h.a.name, h.m)
	}
	return fmt.Sprintf("%s-%s-%d", h.a.name, h.m, h.nth)
}

// querier is a connector whose provider can be asked.
type querier struct{ connector }

func (q querier) Query(_ context.Context, d connectors.Doubt) (delivery.Sent, error) {
	w := q.p.w
	m := w.byID[d.Message]
	if m == nil || w.gate.wait(q.p, fmt.Sprintf("query %s %s", m, q.a.name)) != pass {
		return delivery.Sent{}, errCut
	}
	q.a.asked[m.n]++
	if !w.healed && w.roll("query", m.n, q.a.n, q.a.asked[m.n]) < w.weather.provider {
		w.logf("query %s at %s: no answer", m, q.a.name)
		return delivery.Sent{}, errors.New("simulated")
	}
	for _, h := range q.a.ledger {
		if h.m == m && h.taken {
			w.logf("query %s at %s: taken", m, q.a.name)
			m.asked = true
			return delivery.Sent{ProviderID: h.ref()}, nil
		}
	}
	w.logf("query %s at %s: never taken", m, q.a.name)
	m.asked = true
	for _, h := range q.a.ledger {
		h.denied = h.denied || h.m == m && !h.running
	}
	return delivery.Sent{}, connectors.ErrNotTaken
}

// report is what a provider posts to the engine.
type report struct {
	Message  string `json:",omitempty"` // our id, where the provider gives it back
	Ref      string
	Status   string
	Class    delivery.Class
	At       time.Time
	From     string `json:",omitempty"` // of a person who writes to us
	Text     string `json:",omitempty"`
	m        *message
	a        *account
	nth      int
	attempts int
}

func (c connector) ReadCallback(cb *connectors.Callback) (connectors.Report, error) {
	var r report
	if err := json.Unmarshal(cb.Body, &r); err != nil {
		return connectors.Report{}, fmt.Errorf("%w: %w", connectors.ErrMalformed, err)
	}
	if r.Text != "" {
		in := delivery.Inbound{Channel: c.a.channel, From: r.From, Text: r.Text, ID: r.Ref, At: r.At}
		return connectors.Report{Inbound: []delivery.Inbound{in}}, nil
	}
	status, err := delivery.ParseStatus(r.Status)
	if err != nil {
		return connectors.Report{}, fmt.Errorf("%w: %w", connectors.ErrMalformed, err)
	}
	out := delivery.Receipt{ProviderID: r.Ref, Status: status, Class: r.Class, Code: "sim", At: r.At}
	if r.Message != "" {
		if out.Message, err = delivery.ParseMessageID(r.Message); err != nil {
			return connectors.Report{}, fmt.Errorf("%w: %w", connectors.ErrMalformed, err)
		}
	}
	return connectors.Report{Receipts: []delivery.Receipt{out}}, nil
}

// receipts are what a provider will say about a message that it took.
func (w *world) receipts(h *handover) {
	a, m := h.a, h.m
	if !a.reports {
		return
	}
	roll := func(of string, n ...int) float64 { return w.roll("receipt "+of, append(n, m.n, a.n, h.nth)...) }
	says := []string{"delivered"}
	switch x := roll("end"); {
	case x < 0.1:
		says = []string{"undelivered"}
	case x < 0.15 && a.kind != connectors.Correlate:
		says = nil
	case x < 0.2:
		says = []string{"undelivered", "delivered"}
	case x < 0.25:
		says = []string{"delivered", "undelivered"}
	case x < 0.5:
		says = []string{"sent", "delivered", "read"}
	case x < 0.55:
		says = []string{"sent"}
	}
	at := w.passed() + time.Duration(roll("first")*float64(20*time.Second))
	if roll("early") < 0.2 {
		at = w.passed()
	}
	stamp := w.clock.Now()
	for i, status := range says {
		r := &report{Ref: h.ref(), Status: status, At: stamp.Add(time.Duration(i) * time.Second).Truncate(time.Second), m: m, a: a}
		if !a.byRef {
			r.Message = m.id.String()
		}
		if status == "undelivered" && roll("class", i) < 0.3 {
			r.Class = delivery.BadRecipient
		}
		times, when := 1, at
		if roll("strange", i) < w.weather.receipts {
			times = 1 + int(roll("times", i)*3)
			when += time.Duration(roll("late", i) * float64(time.Minute))
			if w.weather.late && i > 0 {
				when += time.Duration(roll("very late", i) * float64(time.Hour))
			}
		}
		for n := range times {
			again := *r
			again.nth = w.reports
			w.reports++
			w.plan(act{at: when + time.Duration(n)*300*time.Millisecond, what: "receipt", receipt: &again})
		}
		at += time.Duration(roll("next", i) * float64(10*time.Second))
	}
}
