package storetest

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The machines draw calls at random and compare the store, after each, with a small model that knows only the promises.
// Each run has a tenant of its own in the one store, so that its books can be audited after every step.

// run is the tenant of one run of a machine.
type run struct {
	*rapid.T
	k      *kit
	tenant delivery.TenantID
	steps  *[]string
}

// machine runs a property with a new tenant for each run.
func (k *kit) machine(property func(r *run)) {
	k.accounts()
	n := 0
	rapid.Check(k.T, func(t *rapid.T) {
		n++
		r := &run{T: t, k: k, tenant: delivery.TenantID(fmt.Sprintf("run-%d", n)), steps: &[]string{}}
		r.ok(k.s.CreateTenant(k.ctx, k.sys, store.Tenant{ID: r.tenant, CreatedAt: k.now}))
		property(r)
	})
}

func (r *run) ok(err error) {
	if err != nil {
		r.fatal("unexpected error: %v", err)
	}
}

func (r *run) fatal(format string, args ...any) {
	r.Fatalf("%s\nafter %q", fmt.Sprintf(format, args...), *r.steps)
}

func (r *run) did(format string, args ...any) {
	*r.steps = append(*r.steps, fmt.Sprintf(format, args...))
}

// books wants a clean audit in which every accepted message is in exactly one place.
func (r *run) books(accepted int64) {
	a, err := r.k.s.Audit(r.k.ctx, r.tenant)
	r.ok(err)
	if len(a.Problems) > 0 || a.Accepted != accepted || a.Accepted != a.Live+a.HandedOn+a.Ended {
		r.fatal("the books are wrong: %+v", a)
	}
}

func (r *run) message(id delivery.MessageID) store.Message {
	m, err := r.k.s.Message(r.k.ctx, r.tenant, id)
	r.ok(err)
	return m
}

func (r *run) claim(id delivery.MessageID) []store.Claimed {
	got, err := r.k.s.Claim(r.k.ctx, r.k.sys, store.Claim{IDs: []delivery.MessageID{id}, Node: node, Now: r.k.now,
		Until: r.k.now.Add(time.Minute)})
	r.ok(err)
	return got
}

func (r *run) settle(o store.Outcome) store.Settled {
	got, err := r.k.s.Settle(r.k.ctx, r.k.sys, r.k.now, []store.Outcome{o})
	r.ok(err)
	return got[0]
}

// legModel is what a message with legs must be.
type legModel struct {
	id      delivery.MessageID
	expires time.Time
	cur     int
	legs    []modelLeg
	claim   *store.Claimed // under lease: its outcome is still to come
	lastly  []store.Claimed
	doubt   bool // the last claim ended in doubt, and waits to be settled
	receipt int
}

type modelLeg struct {
	channel delivery.Channel
	success delivery.Status
	within  time.Duration
	until   time.Time
	begun   bool
	tried   bool              // it was claimed
	handed  bool              // the provider has taken it
	maybe   bool              // an attempt of it is in doubt
	heard   []delivery.Status // what receipts say of it
}

// arrived reports what the leg's receipts come to, whatever their order.
func (l *modelLeg) says() delivery.Status {
	s := delivery.Status(0)
	if l.handed {
		s = delivery.StatusSent
	}
	for _, h := range l.heard {
		if s == 0 {
			s = delivery.StatusAmbiguous
		}
		s, _ = delivery.AfterReceipt(l.channel, s, h)
	}
	return s
}

var legMachine = sentence{
	"receipts, timers, attempts, doubts, cancels and redrives in any order: one count, one winner, never two legs at once",
	func(k *kit) {
		k.machine(func(r *run) {
			m := r.newLegs()
			r.books(1)
			for range rapid.IntRange(4, 40).Draw(r.T, "steps") {
				r.legStep(m)
				r.checkLegs(m)
				r.books(1)
			}
		})
	},
}

func (r *run) newLegs() *legModel {
	n := rapid.IntRange(2, 4).Draw(r.T, "legs")
	channels := rapid.Permutation(slices.Clone(delivery.Channels)).Draw(r.T, "channels")[:n]
	successes := []delivery.Status{delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead}
	m := &legModel{id: r.k.ids.Message(), expires: r.k.now.Add(rapid.SampledFrom([]time.Duration{12 * time.Minute,
		time.Hour}).Draw(r.T, "ttl"))}
	for _, ch := range channels {
		m.legs = append(m.legs, modelLeg{channel: ch, success: rapid.SampledFrom(successes).Draw(r.T, "success"),
			within: time.Duration(rapid.IntRange(0, 3).Draw(r.T, "minutes")) * time.Minute})
	}
	nm := store.NewMessage{ID: m.id, Channel: channels[0], Lane: delivery.Normal, To: legAddresses[channels[0]],
		Payload: []byte("{}"), DueAt: r.k.now, ExpiresAt: m.expires, Within: m.legs[0].within, Success: m.legs[0].success}
	for _, l := range m.legs[1:] {
		nm.Then = append(nm.Then, store.NewLeg{Channel: l.channel, To: legAddresses[l.channel],
			Payload: []byte(l.channel.String()),
			Within:  l.within, Success: l.success})
	}
	_, err := r.k.s.Accept(r.k.ctx, r.tenant, store.Acceptance{Now: r.k.now, Messages: []store.NewMessage{nm}})
	r.ok(err)
	r.did("%v expires %v", m.legs, m.expires.Sub(r.k.now))
	m.begin(0, r.k.now)
	return m
}

func (m *legModel) begin(n int, now time.Time) {
	m.cur = n
	l := &m.legs[n]
	l.begun = true
	if l.within > 0 && n < len(m.legs)-1 {
		l.until = now.Add(l.within)
	}
}

func (r *run) legStep(m *legModel) {
	k := r.k
	cur := &m.legs[m.cur]
	switch step := rapid.SampledFrom([]string{"wait", "claim", "claim", "answer", "answer", "answer", "sweep", "receipt",
		"receipt", "receipt", "late answer", "lease", "cancel", "redrive"}).Draw(r.T, "step"); step {
	case "wait":
		d := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 3 * time.Minute}).Draw(r.T, "d")
		k.tick(d)
		r.did("wait %v", d)
	case "claim":
		got := r.claim(m.id)
		r.did("claim: %d", len(got))
		if len(got) == 0 {
			return
		}
		c := got[0]
		switch {
		case m.claim != nil || m.doubt:
			r.fatal("claimed while an attempt is under way or in doubt")
		case c.Queue.Channel != cur.channel || c.Leg != m.cur || c.To != legAddresses[cur.channel]:
			r.fatal("claimed leg %d by %s, which is %d", c.Leg, c.Queue.Channel, m.cur)
		case m.success():
			r.fatal("claimed after a leg had arrived")
		case !k.now.Before(m.expires):
			r.fatal("claimed after it had expired")
		case !cur.until.IsZero() && !k.now.Before(cur.until) && !cur.maybe:
			r.fatal("claimed after its leg's time")
		}
		m.claim, cur.tried = &c, true
	case "answer":
		if m.claim != nil {
			r.answer(m, *m.claim)
		} else if m.doubt {
			r.decide(m)
		}
	case "lease":
		if m.claim != nil { // the lease runs out: nobody knows
			c := *m.claim
			r.did("lease lost")
			got := r.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusAmbiguous,
				Reason: "lease_ended", Until: k.now, Attempted: true})
			if got.Applied {
				cur.maybe, m.doubt = true, true
				m.lastly = append(m.lastly, c)
			}
			m.claim = nil
		}
	case "late answer":
		if len(m.lastly) > 0 {
			c := rapid.SampledFrom(m.lastly).Draw(r.T, "of")
			out := sentOf(c)
			out.Writer = delivery.BySend
			got := r.settle(out)
			r.did("late answer of epoch %d: %v", c.Epoch, got.Applied)
			if got.Applied || c.Leg < m.cur {
				m.legs[c.Leg].handed = true
			}
			if got.Applied {
				m.doubt, m.legs[c.Leg].maybe = false, false
			}
		}
	case "sweep":
		r.did("sweep")
		list, err := k.s.Overdue(k.ctx, k.sys, k.now, "", 1<<20)
		r.ok(err)
		for _, o := range list {
			if o.ID == m.id && o.Status == delivery.StatusSent {
				if cur.until.IsZero() || k.now.Before(cur.until) || cur.says() != delivery.StatusSent ||
					cur.success == delivery.StatusSent {
					r.fatal("leg %d is overdue", m.cur)
				}
				got := r.settle(store.Outcome{ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusQueued,
					NextLeg: true})
				if !got.Applied || (len(got.Ready) == 1) != k.now.Before(m.expires) {
					r.fatal("a timed-out leg: %+v", got)
				}
			}
		}
	case "receipt":
		n := rapid.IntRange(0, len(m.legs)-1).Draw(r.T, "leg")
		says := rapid.SampledFrom([]delivery.Status{delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead,
			delivery.StatusUndelivered}).Draw(r.T, "says")
		if !m.legs[n].tried { // a provider does not report of what it never saw; if it does, nothing comes of it
			r.did("stray receipt %s of leg %d", says, n)
		} else {
			r.did("receipt %s of leg %d", says, n)
		}
		m.receipt++
		rc := delivery.Receipt{Account: legAccounts[m.legs[n].channel], Message: m.id, Status: says,
			Code: fmt.Sprint(m.receipt), At: k.now}
		before := r.message(m.id)
		got, err := k.s.Report(k.ctx, k.sys, k.now, time.Hour, []delivery.Receipt{rc, rc})
		r.ok(err)
		if got[1].Changed {
			r.fatal("a repeat of a receipt changed something")
		}
		if m.counts(n, before) && !m.earlier(n, says) {
			m.legs[n].heard = append(m.legs[n].heard, says)
		}
		if now := r.message(m.id); m.claim != nil && now.Status != delivery.StatusSending {
			m.lastly = append(m.lastly, *m.claim) // the receipt has settled it, or found it
			m.claim = nil
		} else if m.doubt && now.Status != delivery.StatusAmbiguous {
			m.doubt = false
		}
	case "cancel":
		if rapid.IntRange(0, 3).Draw(r.T, "really") == 0 {
			st, err := k.s.Cancel(k.ctx, r.tenant, m.id, k.now)
			r.did("cancel: %s, %v", st, err != nil)
			if st == delivery.StatusCanceled {
				for n := range m.legs {
					if m.legs[n].handed || m.legs[n].maybe {
						r.fatal("canceled, and leg %d may have arrived", n)
					}
				}
			} else if !errorIs(err, store.ErrConflict) {
				r.fatal("cancel gave %s and %v", st, err)
			}
		}
	case "redrive":
		before := r.message(m.id)
		got, err := k.s.Redrive(k.ctx, r.tenant, []delivery.MessageID{m.id}, k.now, k.now.Add(time.Hour))
		r.ok(err)
		r.did("redrive: %v", got[0].Done)
		if got[0].Done {
			m.expires = k.now.Add(time.Hour)
			m.begin(m.cur, k.now)
			m.claim, m.doubt = nil, false
			if after := r.message(m.id); before.Status == delivery.StatusUnknown && !after.PossibleDuplicate {
				r.fatal("a doubtful redrive without a mark")
			}
		}
	}
}

// counts reports whether a receipt of a leg can be about an attempt of it: one that was taken, is in doubt or under
// way, or was answered otherwise a moment ago.
func (m *legModel) counts(n int, before store.Message) bool {
	l := &m.legs[n]
	switch before.Legs[n].Status {
	case delivery.StatusFailed, delivery.StatusSuppressed, delivery.StatusExpired, delivery.StatusCanceled:
		return false // decided otherwise: a receipt is only recorded
	case delivery.StatusSending, delivery.StatusAmbiguous, delivery.StatusUnknown:
		return true
	}
	return l.handed || l.maybe || len(l.heard) > 0 || m.under(n) || l.tried && n == m.cur && before.Status.Waiting()
}

// earlier reports whether a receipt is taken to be about an attempt in doubt before the one under way, which decides: of
// a leg that another one follows, so that there are never two under way.
func (m *legModel) earlier(n int, says delivery.Status) bool {
	return m.claim != nil && m.claim.Leg == n && m.claim.InDoubt && m.claim.MoreLegs &&
		(says == delivery.StatusUndelivered || says == delivery.StatusSent)
}

// under reports whether an attempt of a leg is under way.
func (m *legModel) under(n int) bool {
	return m.claim != nil && m.claim.Leg == n || m.doubt && m.cur == n
}

// answer settles an attempt that is under way.
func (r *run) answer(m *legModel, c store.Claimed) {
	k := r.k
	o := sentOf(c)
	o.Writer, o.Until, o.Reason = delivery.BySend, k.now.Add(time.Minute), "r"
	o.Status = rapid.SampledFrom([]delivery.Status{delivery.StatusSent, delivery.StatusSent, delivery.StatusDeferred,
		delivery.StatusQueued, delivery.StatusHeld, delivery.StatusAmbiguous, delivery.StatusFailed,
		delivery.StatusSuppressed, delivery.StatusExpired}).Draw(r.T, "outcome")
	o.Attempted = o.Status != delivery.StatusQueued && o.Status != delivery.StatusHeld
	o.NextLeg = o.Status == delivery.StatusFailed || o.Status == delivery.StatusSuppressed
	got := r.settle(o)
	r.did("answer of leg %d %s: %v", c.Leg, o.Status, got.Applied)
	m.claim = nil
	l := &m.legs[c.Leg]
	switch {
	case o.Status == delivery.StatusSent:
		l.handed, l.maybe = true, false
	case o.Status == delivery.StatusAmbiguous && got.Applied:
		l.maybe, m.doubt = true, true
		m.lastly = append(m.lastly, c)
	case o.NextLeg && got.Applied:
		l.maybe = false
	}
	if m.cur == c.Leg && o.NextLeg && got.Applied && m.cur < len(m.legs)-1 && k.now.Before(m.expires) &&
		got.Status != delivery.StatusQueued {
		r.fatal("refused, and no next leg")
	}
}

// decide settles a doubt.
func (r *run) decide(m *legModel) {
	k, c := r.k, m.lastly[len(m.lastly)-1]
	o := store.Outcome{ID: m.id, Epoch: c.Epoch, Writer: delivery.ByPlan, Reason: "r", Until: k.now}
	o.Status = rapid.SampledFrom([]delivery.Status{delivery.StatusSent, delivery.StatusQueued, delivery.StatusHeld,
		delivery.StatusUnknown, delivery.StatusFailed, delivery.StatusExpired}).Draw(r.T, "decision")
	o.Duplicate = o.Status == delivery.StatusHeld || o.Status == delivery.StatusQueued && rapid.Bool().Draw(r.T,
		"duplicate")
	leg := m.cur
	got := r.settle(o)
	r.did("doubt of leg %d ends %s (duplicate %v): %v", leg, o.Status, o.Duplicate, got.Applied)
	if !got.Applied {
		r.fatal("a doubt is not settled")
	}
	m.doubt = false
	l := &m.legs[leg]
	if o.Status == delivery.StatusSent {
		l.handed, l.maybe = true, false
	}
	if o.Status == delivery.StatusQueued && !o.Duplicate && !r.message(m.id).PossibleDuplicate {
		l.maybe = false
	}
	if o.Status != delivery.StatusQueued && r.message(m.id).Leg != leg {
		r.fatal("a doubt made way")
	}
}

func (m *legModel) success() bool {
	for n := range m.legs {
		if arrived(m.legs[n].says()) {
			return true
		}
	}
	return false
}

func arrived(s delivery.Status) bool {
	return s == delivery.StatusDelivered || s == delivery.StatusRead
}

// checkLegs compares the message with what the model knows.
func (r *run) checkLegs(m *legModel) {
	is := r.message(m.id)
	if is.Leg < m.cur || is.Leg > m.cur+1 {
		r.fatal("from leg %d to %d", m.cur, is.Leg)
	}
	if is.Leg == m.cur+1 {
		if m.claim != nil || m.doubt {
			r.fatal("a leg begins while another is under way or in doubt")
		}
		if !r.k.now.Before(m.expires) {
			r.fatal("a leg begins after the message's end")
		}
		m.begin(is.Leg, r.k.now)
	}
	winners := 0
	for n, l := range is.Legs {
		want := &m.legs[n]
		if l.Winner {
			winners++
		}
		if (l.Status != 0) != want.begun || l.Channel != want.channel || !l.Until.Equal(want.until) {
			r.fatal("leg %d is %+v, the model %+v", n, l, want)
		}
		if want.handed && l.Status != want.says() {
			r.fatal("leg %d is %s, its receipts come to %s", n, l.Status, want.says())
		}
	}
	if winners > 1 {
		r.fatal("%d winners", winners)
	}
	won := slices.ContainsFunc(m.legs, func(l modelLeg) bool {
		s := l.says()
		return l.handed && s >= l.success && (s == delivery.StatusSent || arrived(s))
	})
	if won && winners == 0 {
		r.fatal("a leg has its success, and none has won")
	}
	if m.success() && !arrived(is.Status) && is.Status != delivery.StatusCanceled {
		r.fatal("a leg has arrived, the message is %s", is.Status)
	}
	if arrived(is.Status) && !m.success() && !slices.ContainsFunc(m.legs,
		func(l modelLeg) bool { return arrived(l.best()) }) {
		r.fatal("the message is %s, and no leg has arrived", is.Status)
	}
	if m.claim != nil && is.Status != delivery.StatusSending {
		r.fatal("under lease, and %s", is.Status)
	}
	total := 0
	t, err := r.k.s.Tally(r.k.ctx, r.tenant, delivery.CampaignID{})
	r.ok(err)
	for _, of := range t {
		for _, n := range of {
			total += n
		}
	}
	if total != 1 || t[is.Channel][is.Status] != 1 {
		r.fatal("the tally is %v for a message that is %s on %s", t, is.Status, is.Channel)
	}
}

// best is the best that was ever heard of the leg: an e-mail that had arrived may bounce later.
func (l *modelLeg) best() (s delivery.Status) {
	for _, h := range l.heard {
		if arrived(h) {
			s = h
		}
	}
	return s
}
