package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// stored notes that an acceptance is durable, whoever knows of it.
func (w *world) stored(a store.Acceptance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range a.Messages {
		if m := w.byID[a.Messages[i].ID]; m.order == 0 {
			w.order++
			m.order = w.order
		}
	}
}

// claimed checks what a claim has given out.
func (w *world) claimed(p *process, q store.Claim, got []store.Claimed) {
	for i := range got {
		c := &got[i]
		m := w.byID[c.ID]
		if m == nil || m.order == 0 {
			w.bad("%s is claimed, and was never accepted", c.ID)
			continue
		}
		at := m.ways[min(c.Leg, len(m.ways)-1)]
		if w.stopped(p, m.tenant, at) {
			w.bad("%s is claimed, and its address is suppressed", m)
		}
		if m.key != "" && !m.redriven {
			w.inOrder(p, m)
		}
		w.mu.Lock()
		switch {
		case c.Epoch <= m.epoch:
			w.broken("%s is claimed with epoch %d after %d", m, c.Epoch, m.epoch)
		case m.canceled:
			w.broken("%s is claimed after it was canceled", m)
		case !c.ExpiresAt.After(q.Now):
			w.broken("%s is claimed after it has expired", m)
		case m.epoch == 0 && !m.redriven && q.Now.Before(m.due.Truncate(time.Millisecond)):
			w.broken("%s is claimed before its time", m)
		case m.lease != nil && m.until.After(q.Now) && !w.told(m, m.lease.Leg):
			w.broken("%s is claimed while a lease is open", m)
		case c.Queue.Tenant != m.tenant || c.Queue.Channel != at.channel || c.To != at.to:
			w.broken("%s is claimed for %s to %s on leg %d", m, c.Queue, c.To, c.Leg)
		case m.proven[min(c.Leg, store.MaxLegs-1)] && !m.redriven:
			w.broken("%s is claimed, and a receipt has said already that it was taken", m)
		case c.AtMostOnce != m.atMostOnce:
			w.broken("%s has lost its wish to be sent at most once", m)
		}
		m.epoch, m.lease, m.by, m.until, m.ends = c.Epoch, c, p, q.Until, w.passed()+q.Until.Sub(w.clock.Now())
		w.mu.Unlock()
	}
}

// stopped reports whether an address is suppressed.
func (w *world) stopped(p *process, t delivery.TenantID, to way) bool {
	if !w.anyStop.Load() { // which saves a look for most claims of most seeds
		return false
	}
	_, no, err := p.store.Suppressed(w.ctx, t, to.channel, to.to)
	return err == nil && no
}

// inOrder checks that nothing before m with the same ordering key still waits.
func (w *world) inOrder(p *process, m *message) {
	for _, o := range w.messages {
		if o == m || o.key != m.key || o.tenant != m.tenant || o.order == 0 || o.order > m.order ||
			o.ways[0].channel != m.ways[0].channel || o.ways[0].to != m.ways[0].to || o.redriven {
			continue
		}
		if before, err := p.store.Message(w.ctx, o.tenant, o.id); err == nil && before.Status.Waiting() {
			w.bad("%s is claimed, and %s before it is %s", m, o, before.Status)
		}
	}
}

// settled notes which claims are closed.
func (w *world) settled(now time.Time, outcomes []store.Outcome, got []store.Settled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, o := range outcomes {
		m := w.byID[o.ID]
		if m == nil || i >= len(got) || !got[i].Applied {
			continue
		}
		if o.Suppress {
			w.anyStop.Store(true)
		}
		if o.Epoch != m.epoch {
			w.broken("an outcome of %s with epoch %d is applied, and its claim is %d", m, o.Epoch, m.epoch)
		}
		if o.Status == delivery.StatusAmbiguous {
			w.sum.Doubts++
		}
		if o.Reason == "lease_ended" {
			if m.until.Sub(now) > time.Millisecond && w.passed() < m.ends {
				w.broken("the lease of %s is said to have ended, and lasts until %s", m, m.until.Sub(now))
			}
		}
		for _, h := range m.hands {
			if h.epoch == o.Epoch { // an answer that comes after all counts after all
				h.late = o.Reason == "lease_ended" || h.late && o.Writer != delivery.BySend
			}
		}
		m.lease = nil
	}
}

// reported notes which messages a receipt has moved on.
func (w *world) reported(receipts []delivery.Receipt, got []store.Reported) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range got {
		if receipts[i].Class != 0 {
			w.anyStop.Store(true)
		}
		if m := w.byRef[receipts[i].ProviderID]; m != nil {
			m.said = append(m.said, said{receipts[i].ProviderID, receipts[i].Status})
		}
		if m := w.byID[got[i].Message]; m != nil {
			if leg := w.legOf(m, receipts[i].Account); leg >= 0 && got[i].Changed {
				m.proven[leg] = true
			}
			m.known = m.known || !got[i].Changed && got[i].Status.Waiting()
		}
	}
}

// legOf finds the leg that an account has to do with, by its channel; -1 = none.
func (w *world) legOf(m *message, id delivery.AccountID) int {
	for _, a := range w.accounts {
		if a.id == id {
			return slices.IndexFunc(m.ways, func(to way) bool { return to.channel == a.channel })
		}
	}
	return -1
}

// redriven notes that a person has put messages back, before anything can become of it.
func (w *world) redriven(ids []delivery.MessageID, got []store.Redriven, expires time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range got {
		if m := w.byID[ids[i]]; got[i].Done {
			m.redriven, m.expires = true, expires
		}
	}
}

// enter begins a hand-over: the moment before the first byte leaves. It returns false for a process that is gone.
func (w *world) enter(c connector, x *delivery.Outgoing) (*handover, bool) {
	p, a, m, now := c.p, c.a, w.byID[x.ID], w.clock.Now()
	stopped := w.stopped(p, x.Tenant, way{channel: x.Channel, to: x.To})
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead.Load() {
		return nil, false
	}
	if m == nil || m.lease == nil || m.by != p {
		w.broken("%s is handed over by %s without a claim", w.name(x.ID), a.name)
		return nil, false
	}
	a.tries[m.n]++
	h := &handover{
		m: m, a: a, leg: m.lease.Leg, by: p, nth: a.tries[m.n], at: now, cost: float64(max(x.Segments, 1)), running: true,
		marked: x.PossibleDuplicate, epoch: m.epoch, sent: w.passed(),
	}
	if w.opt.plant == plantUnmarked {
		h.marked = false
	}
	to := m.ways[min(h.leg, len(m.ways)-1)]
	text := x.Content.Text
	switch to.channel {
	case delivery.Email:
		text = x.Content.Subject
	case delivery.Webhook:
		text = string(x.Content.Data[1 : len(x.Content.Data)-1])
	}
	switch {
	case !now.Before(m.expires):
		w.broken("%s starts %s after it has expired", h.name(), now.Sub(m.expires))
	case now.Add(a.timeout).After(m.until) || w.passed()+a.timeout > m.ends:
		w.broken("%s may outlive its lease", h.name())
	case a.paused:
		w.broken("%s starts while the account is paused", h.name())
	case m.canceled:
		w.broken("%s starts after the message was canceled", h.name())
	case !a.usableBy(m.tenant):
		w.broken("%s goes through an account of another tenant", h.name())
	case a.channel != to.channel || x.To != to.to || x.Tenant != m.tenant:
		w.broken("%s goes to the wrong address on leg %d", h.name(), h.leg)
	case to.pinned != nil && to.pinned != a:
		w.broken("%s does not go through %s, which was asked for", h.name(), to.pinned.name)
	case text != m.text(h.leg):
		w.broken("%s carries %q", h.name(), text)
	}
	if no := w.again(h); no != "" {
		w.broken("%s: %s", h.name(), no)
	}
	if stopped {
		w.sum.AfterStop++
	}
	if (m.known || m.proven[h.leg]) && len(m.hands) > 0 {
		w.sum.AfterProof++
	}
	m.hands = append(m.hands, h)
	a.ledger = append(a.ledger, h)
	w.ledger = append(w.ledger, h)
	w.sum.HandOvers++
	return h, true
}

// again says what is wrong with another hand-over of the same message, or "".
func (w *world) again(h *handover) string {
	m := h.m
	for i, o := range m.hands {
		doubt := o.reached && (!o.heard || !o.sure || o.late) && !o.denied
		switch {
		case o.running && o.by == h.by && w.stretched < o.sent && !w.told(m, o.leg):
			return "another hand-over is under way: " + o.name()
		case o.leg != h.leg:
			// Of the earlier leg's attempts the last one counts: it settled the doubts before it.
			if doubt && i == len(m.hands)-1 && !m.proven[o.leg] && !m.asked {
				return "another leg is in doubt: " + o.name()
			}
		case m.redriven && m.atMostOnce: // a person wanted it
		case m.atMostOnce && (o.taken || doubt):
			return "it was to be handed over at most once, and may have been before"
		case (o.taken || doubt) && !h.marked:
			return "not marked as a possible duplicate, and it may have been taken before"
		case o.taken && o.heard && o.sure && !o.late && !w.torn:
			return "the provider took it before, and its answer was heard"
		}
	}
	return ""
}

// told reports whether a receipt has said what became of a leg's only attempt, before its own answer came.
func (w *world) told(m *message, leg int) bool {
	n := 0
	for _, h := range m.hands {
		if h.leg == leg && h.reached && !h.denied && (!h.heard || !h.sure || h.taken) {
			n++
		}
	}
	return n <= 1 && m.proven[leg]
}

// take notes that a provider takes a message, and plans what it will report.
func (w *world) take(h *handover) {
	if h.a.kind == "dedupe_key" {
		for _, o := range h.a.ledger {
			h.again = h.again || o.m == h.m && o.taken
		}
		if h.again {
			return
		}
	}
	w.mu.Lock()
	h.taken, w.byRef[h.ref()] = true, h.m
	w.sum.Taken++
	w.mu.Unlock()
	w.receipts(h)
}

// leave ends a hand-over.
func (w *world) leave(h *handover, answer string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.running, h.answer, h.ended = false, answer, w.passed()
	mark := ""
	if h.marked {
		mark = ", marked"
	}
	if h.again {
		mark += ", dropped as a repeat"
	}
	w.write("hand-over %s: leg %d, epoch %d, %s%s", h.name(), h.leg, h.epoch, answer, mark)
}

func (h *handover) String() string {
	return fmt.Sprintf("%s at %.3f: %s", h.name(), h.sent.Seconds(), h.answer)
}
