package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// scene is everything that a seed draws before the run begins: who is there, what is sent and done, and how bad the
// weather is.
type scene struct {
	seed     uint64
	retry    []time.Duration
	lease    time.Duration
	inFlight int
	chaos    time.Duration // how long messages come and things go wrong; afterwards everything is healed
	tenants  []store.Tenant
	accounts []*account
	messages []*message
	acts     []act
	weather  weather
}

// weather is how often things go wrong, each from 0 to 1.
type weather struct {
	provider float64 // of attempts
	store    float64 // of calls of the store
	held     float64 // of calls whose answer comes late
	hints    float64 // of hints that get lost, or come twice
	receipts float64 // of receipts that come in a strange way
	stall    float64 // of the driver's steps before which time passes though there is work
	late     bool    // receipts may come after everything has been given up
}

// act is one thing that people, other systems or fate do.
type act struct {
	at      time.Duration // after the start
	what    string
	n       int // of the message, account or tenant
	take    time.Duration
	receipt *report
}

// roll gives the same number in [0,1) for the same things of the same seed, whoever asks and when.
func (s *scene) roll(of string, n ...int) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, s.seed, of, n)
	// FNV leaves the high bits of short inputs alike: mix once more.
	return rand.New(rand.NewPCG(h.Sum64(), s.seed)).Float64()
}

type drawing struct {
	*rand.Rand
	*scene
}

func (d *drawing) often(p float64) bool { return d.Float64() < p }

func (d *drawing) between(a, b time.Duration) time.Duration {
	return a + time.Duration(d.Int64N(int64(b-a)+1)).Truncate(time.Millisecond)
}

func pick[T any](d *drawing, of ...T) T { return of[d.IntN(len(of))] }

// draw makes the scene of a seed.
func draw(seed uint64) *scene {
	d := &drawing{Rand: rand.New(rand.NewPCG(seed, 0x5ce7e)), scene: &scene{seed: seed}}
	d.chaos = d.between(20*time.Second, 3*time.Minute)
	d.lease = pick(d, 10*time.Second, 20*time.Second, time.Minute)
	d.inFlight = pick(d, 8, 64, 8192)
	d.retry = pick(d, []time.Duration{time.Second, 5 * time.Second, 20 * time.Second},
		[]time.Duration{5 * time.Second, 30 * time.Second, 5 * time.Minute}, []time.Duration{100 * time.Millisecond})
	d.weather = weather{
		provider: pick(d, 0, 0.1, 0.3, 0.6), store: pick(d, 0, 0, 0.02, 0.1), held: pick(d, 0, 0.1, 0.3),
		hints: pick(d, 0, 0, 0.1, 0.5, 1), receipts: pick(d, 0, 0.2, 0.6), stall: pick(d, 0, 0, 0.01, 0.03),
		late: d.often(0.3),
	}
	for n := range 1 + d.IntN(3) {
		d.tenants = append(d.tenants, d.tenant(n))
	}
	for n := range 1 + d.IntN(4) {
		d.accounts = append(d.accounts, d.account(n))
	}
	for n := range d.tenants {
		d.tenants[n].Routes = d.routes(d.tenants[n].ID)
	}
	d.drawMessages()
	d.drawActs()
	return d.scene
}

func (d *drawing) tenant(n int) store.Tenant {
	t := store.Tenant{
		ID: delivery.TenantID(fmt.Sprintf("tenant%d", n)), Name: fmt.Sprintf("Tenant %d", n), Region: "IN",
		OnAmbiguous: pick(d, "", "retry", "hold", "fail"), RerouteInDoubt: d.often(0.2), Weight: d.IntN(5),
	}
	if d.often(0.2) {
		t.Rates = []store.TenantRate{{PerSecond: pick(d, 0.5, 2, 10), Burst: float64(d.IntN(4))}}
	}
	if d.often(0.3) {
		t.Retry = []delivery.RetryRule{{
			Class: pick(d, 0, delivery.Transient, delivery.InDoubt), Delays: []time.Duration{time.Second, 7 * time.Second},
			GiveUpAfter: pick(d, 0, 0, 40*time.Second),
		}}
	}
	return t
}

func (d *drawing) account(n int) *account {
	a := &account{
		n: n, name: fmt.Sprintf("account%d", n), tenant: delivery.Shared,
		channel: pick(d, delivery.SMS, delivery.SMS, delivery.WhatsApp, delivery.Email, delivery.Webhook),
		kind: pick(d, connectors.DedupeKey, connectors.Correlate, connectors.Correlate, connectors.Query,
			connectors.None, connectors.None),
		reports: d.often(0.7), byRef: d.often(0.5), priority: d.IntN(3), parallel: pick(d, 1, 2, 4),
		timeout: pick(d, 2*time.Second, 4*time.Second),
	}
	if d.often(0.4) {
		a.tenant = d.tenants[d.IntN(len(d.tenants))].ID
	}
	if a.kind == connectors.Correlate { // its token comes back, or the word means nothing
		a.reports, a.byRef = true, false
		a.window = pick(d, 0, 30*time.Second)
	}
	if d.often(0.3) {
		a.rate, a.burst = pick(d, 0.5, 1, 5, 50), float64(d.IntN(3))
	}
	for range d.IntN(3) {
		if d.often(0.3) {
			from := d.between(0, d.chaos)
			a.downs = append(a.downs, span{from, from + d.between(time.Second, 40*time.Second)})
		}
	}
	a.id = accountID(d.seed, n)
	return a
}

// routes sometimes names accounts for some of a tenant's messages.
func (d *drawing) routes(t delivery.TenantID) (rules []delivery.RouteRule) {
	if !d.often(0.25) {
		return nil
	}
	for range 1 + d.IntN(2) {
		a := pick(d, d.accounts...)
		r := delivery.RouteRule{Channel: a.channel, Category: pick(d, "", "otp"), Tag: pick(d, "", "", "blue")}
		for _, other := range d.accounts {
			if other.channel == a.channel && other.usableBy(t) {
				r.Targets = append(r.Targets, delivery.RouteTarget{Connector: other.name, Weight: d.IntN(3)})
			}
		}
		if len(r.Targets) > 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

func (d *drawing) drawMessages() {
	count := 3 + d.IntN(25)
	for len(d.messages) < count {
		at := d.between(0, d.chaos*7/10)
		tenant, batch := d.IntN(len(d.tenants)), len(d.messages)
		for range 1 + d.IntN(4)*d.IntN(2) {
			m := &message{n: len(d.messages), batch: batch, at: at, tenant: d.tenants[tenant].ID}
			m.lane = pick(d, delivery.Urgent, delivery.Normal, delivery.Normal, delivery.Bulk)
			m.ttl = pick(d, 3*time.Second, 20*time.Second, 2*time.Minute, 10*time.Minute, 20*time.Minute, time.Hour)
			if d.often(0.2) {
				m.delay = d.between(time.Second, time.Minute)
				m.ttl += m.delay
			}
			m.atMostOnce = d.often(0.15)
			m.category, m.tag = pick(d, "", "otp", "marketing"), pick(d, "", "blue")
			m.template = d.often(0.2)
			d.ways(m)
			if len(m.ways) == 1 && d.often(0.3) {
				m.key = pick(d, "a", "b")
			}
			d.messages = append(d.messages, m)
		}
	}
}

// ways draws the legs of a message. Most go where there is an account.
func (d *drawing) ways(m *message) {
	legs := 1
	if d.often(0.35) {
		legs += 1 + d.IntN(store.MaxLegs-1)
	}
	used := map[delivery.Channel]bool{}
	for range legs {
		a := pick(d, d.accounts...)
		w := way{channel: a.channel}
		if d.often(0.05) {
			w.channel = pick(d, delivery.Channels...)
		}
		if used[w.channel] {
			continue
		}
		used[w.channel] = true
		if a.channel == w.channel && a.usableBy(m.tenant) && d.often(0.1) {
			w.pinned = a
		}
		person := d.IntN(4)
		switch w.channel {
		case delivery.Email:
			w.to = fmt.Sprintf("person%d@example.com", person)
		case delivery.Webhook:
			w.to = fmt.Sprintf("https://example.com/hook/%d", person)
		default:
			w.to = fmt.Sprintf("+1202555010%d", person)
		}
		w.success = pick(d, delivery.StatusSent, delivery.StatusDelivered, delivery.StatusDelivered, delivery.StatusRead)
		w.within = pick(d, 0, 5*time.Second, 30*time.Second, 2*time.Minute)
		m.ways = append(m.ways, w)
	}
}

func (d *drawing) drawActs() {
	add := func(p float64, most int, what string, n int, take time.Duration) {
		for range most {
			if d.often(p) {
				a := act{at: d.between(0, d.chaos), what: what, take: d.between(0, take)}
				if n > 0 {
					a.n = d.IntN(n)
				}
				d.acts = append(d.acts, a)
			}
		}
	}
	busy := pick(d, 0.1, 0.3, 0.6)
	add(busy, 4, "cancel", len(d.messages), 0)
	add(busy/2, 2, "pause", len(d.accounts), 40*time.Second)
	add(busy/3, 1, "replace", len(d.accounts), 0)
	add(busy/2, 3, "suppress", len(d.messages), 0)
	add(busy/3, 1, "unsuppress", len(d.messages), 0)
	add(busy/2, 2, "stop", len(d.messages), 0)
	add(busy/2, 2, "tenant", len(d.tenants), 0)
	add(busy/2, 2, "stranger", len(d.accounts), 0)
	add(pick(d, 0, 0, 0.4), 2, "outage", 0, 10*time.Second)
	add(pick(d, 0, 0, 0.5), 4, "kill", 0, 20*time.Second)
	add(pick(d, 0, 0, 0.4), 2, "restart", 0, 2*time.Second)
	add(pick(d, 0, 0, 0, 0.5), 2, "turn", 0, 0)
	add(busy/2, 3, "redrive", len(d.tenants), 0)
	add(busy/4, 1, "drop", len(d.tenants), 0)
}
