package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// finish checks what became of everything, and ends the last process.
func (w *world) finish() {
	if w.now != nil {
		w.books()
		for _, m := range w.messages {
			w.history(m)
		}
	}
	w.limits()
	if w.now != nil {
		must(os.RemoveAll(w.kill()))
	}
	left, err := filepath.Glob(filepath.Join(w.dir, "msgctl.*"))
	must(err)
	for _, f := range left {
		must(os.Remove(f))
	}
}

// books audits every tenant, and counts.
func (w *world) books() {
	there := map[delivery.TenantID]int64{}
	for _, m := range w.messages {
		if m.order > 0 {
			there[m.tenant]++
		}
	}
	for _, t := range w.tenants {
		a, err := w.now.store.Audit(w.ctx, t.ID)
		must(err)
		for _, p := range a.Problems {
			w.bad("audit of %s: %s: %s: %s", t.ID, p.What, w.nameOf(p.Subject), p.Detail)
		}
		if a.Accepted != there[t.ID] {
			w.bad("%s has %d messages; %d were stored", t.ID, a.Accepted, there[t.ID])
		}
	}
}

// nameOf is a message's name for the log, given its id as text.
func (w *world) nameOf(id string) string {
	if parsed, err := delivery.ParseMessageID(id); err == nil {
		return w.name(parsed)
	}
	return id
}

// history checks what became of a message, and writes it to the log.
func (w *world) history(m *message) {
	if m.order == 0 {
		if m.accepted {
			w.bad("%s is lost: its sender was told that it is accepted", m)
		}
		return
	}
	now, err := w.now.store.Message(w.ctx, m.tenant, m.id)
	if err != nil {
		w.bad("%s is lost: %v", m, err)
		return
	}
	facts, err := w.now.store.Facts(w.ctx, m.tenant, m.id)
	must(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sum.Messages++
	w.sum.Ends[now.Status]++
	w.write("%s of %s by %s: %s %s, %d attempts, leg %d, possible duplicate %t", m, m.tenant, now.Channel, now.Status,
		now.Reason, now.Attempts, now.Leg, now.PossibleDuplicate)
	for i := range facts {
		w.write("%s   %s", m, w.line(&facts[i]))
	}
	for i, leg := range now.Legs {
		w.write("%s   leg %d by %s: %s %s, winner %t", m, i, leg.Channel, leg.Status, leg.Reason, leg.Winner)
	}
	w.explained(m, &now, facts)
	w.steps(m, facts)
}

// line is a fact as the log has it: without ids, which name the process or the moment.
func (w *world) line(f *delivery.Fact) string {
	account := ""
	for _, a := range w.accounts {
		if a.id == f.Account {
			account = a.name
		}
	}
	until := ""
	if !f.Until.IsZero() {
		until = fmt.Sprintf("until +%.3f", f.Until.Sub(w.began).Seconds())
	}
	return strings.Join(strings.Fields(fmt.Sprintf("+%.3f %s %s leg %d attempt %d epoch %d %s %s %q %s %q %q",
		f.At.Sub(w.began).Seconds(), f.Kind, f.Status, f.Leg, f.Attempt, f.Epoch, account, f.Code, f.Detail, until, f.Route,
		f.Content)), " ")
}

// explained checks that a message's end is one that what happened to it explains.
func (w *world) explained(m *message, now *store.Message, facts []delivery.Fact) {
	taken, sure, doubt, marked := 0, false, false, false
	for _, h := range m.hands {
		if h.taken {
			taken++
			if taken > 1 {
				w.sum.Doubled++
			}
			sure = sure || h.heard && h.sure && !h.late
		}
		doubt = doubt || !h.heard || !h.sure || h.late
		marked = marked || h.marked
	}
	s := now.Status
	switch {
	case s.Waiting():
		w.broken("%s waits for ever: %s %s %s, due +%.3f", m, s, now.Reason, now.Detail, now.DueAt.Sub(w.began).Seconds())
	case m.canceled && s != delivery.StatusCanceled:
		w.broken("%s was canceled, and is %s", m, s)
	case s >= delivery.StatusSent && s <= delivery.StatusUndelivered && taken == 0:
		w.broken("%s is %s, and no provider has taken it", m, s)
	case sure && len(m.ways) == 1 && !w.torn && !m.redriven && (s < delivery.StatusSent || s > delivery.StatusUndelivered):
		w.broken("%s was taken, and is %s %s", m, s, now.Reason)
	case s == delivery.StatusExpired && ended(facts).Before(now.ExpiresAt):
		w.broken("%s has expired before its time", m)
	case s == delivery.StatusUnknown && !doubt && !w.torn:
		w.broken("%s is unknown, and no attempt was in doubt", m)
	case (s == delivery.StatusFailed || s == delivery.StatusExpired) && now.Reason == "":
		w.broken("%s is %s without a reason", m, s)
	case taken > 1 && len(m.ways) == 1 && !now.PossibleDuplicate:
		w.broken("%s was taken %d times, and is not marked", m, taken)
	case now.Attempts > 0 && len(m.hands) == 0 && !w.torn:
		w.broken("%s counts %d attempts, and none was made", m, now.Attempts)
	}
	if s == delivery.StatusCanceled && taken > 0 {
		w.sum.CanceledTaken++
		if !now.PossibleDuplicate {
			w.broken("%s is canceled, was taken, and nothing says that it may have been", m)
		}
	}
	if len(m.ways) > 1 {
		w.winner(m, now)
	} else {
		w.believed(m, now)
	}
}

// believed checks that a message's status is no worse than what receipts have said of the attempt that it was sent with.
func (w *world) believed(m *message, now *store.Message) {
	if now.Status < delivery.StatusSent || now.Status > delivery.StatusUndelivered || m.known {
		return
	}
	status := delivery.StatusSent
	for range m.said { // whatever their order was
		for _, s := range m.said {
			if s.ref == now.ProviderID {
				status, _ = delivery.AfterReceipt(now.Channel, status, s.status)
			}
		}
	}
	if to, more := delivery.AfterReceipt(now.Channel, now.Status, status); more {
		w.broken("%s is %s, and its provider has said %s", m, now.Status, to)
	}
}

// winner checks the legs of a message that has more than one.
func (w *world) winner(m *message, now *store.Message) {
	winners := 0
	for i, leg := range now.Legs {
		if leg.Winner {
			winners++
		}
		if leg.Status == 0 && i <= now.Leg {
			w.broken("%s is on leg %d, and leg %d has not begun", m, now.Leg, i)
		}
		for _, h := range m.hands {
			if h.leg == i && leg.Status == 0 {
				w.broken("%s was handed over on leg %d, which has not begun", m, i)
			}
		}
	}
	if len(now.Legs) != len(m.ways) {
		w.broken("%s has %d legs of %d", m, len(now.Legs), len(m.ways))
	}
	if winners > 1 {
		w.broken("%s counts %d times", m, winners)
	}
}

// steps replays a message's facts: every step must be a legal move by somebody.
func (w *world) steps(m *message, facts []delivery.Fact) {
	var status delivery.Status
	epoch, leg, free, doubted := 0, 0, false, false
	var notBefore time.Time
	ch := m.ways[0].channel
	for i := range facts {
		f := &facts[i]
		switch {
		case f.Kind == delivery.FactReceipt:
			if doubted && status == delivery.StatusSending {
				free = true // it may be about an attempt before the one that is under way
			} else if f.Leg == leg {
				if to, changed := delivery.AfterReceipt(ch, status, f.Status); changed {
					status = to
				}
			} else {
				free = true // what it did to the message depends on all legs
			}
			continue
		case f.Status != status && !free && !legal(status, f.Status):
			w.broken("%s goes from %s to %s: %s", m, status, f.Status, w.line(f))
		case f.Kind == delivery.FactClaimed && f.Epoch <= epoch:
			w.broken("%s is claimed with epoch %d after %d", m, f.Epoch, epoch)
		case f.Kind == delivery.FactClaimed && f.At.Before(notBefore):
			w.broken("%s is tried again %s before its time", m, notBefore.Sub(f.At))
		case f.Status.Waiting() && f.Until.IsZero() && f.Kind != delivery.FactAccepted && f.Kind != delivery.FactLate &&
			f.Kind != delivery.FactFallback: // it has its leg's deadline
			w.broken("%s waits without a time: %s", m, w.line(f))
		case f.Code == "" && (f.Kind == delivery.FactHeld || f.Kind == delivery.FactDeferred ||
			f.Kind == delivery.FactAmbiguous || f.Kind == delivery.FactEnded):
			w.broken("%s is %s without a reason", m, f.Status)
		}
		if f.Kind == delivery.FactFallback {
			leg, ch = f.Leg, m.ways[min(f.Leg, len(m.ways)-1)].channel
		}
		notBefore = time.Time{}
		if f.Kind == delivery.FactDeferred {
			notBefore = f.Until
		}
		if f.Kind == delivery.FactClaimed {
			epoch = f.Epoch
		}
		status, free = f.Status, false
		doubted = doubted || f.Kind == delivery.FactAmbiguous
	}
}

// legal reports whether anybody may make the move. A claim that ends a message makes two at once.
func legal(from, to delivery.Status) bool {
	for by := delivery.ByAccept; by <= delivery.ByOperator; by++ {
		if delivery.CanMove(from, to, by) {
			return true
		}
	}
	return delivery.CanMove(from, delivery.StatusSending, delivery.ByClaim) &&
		delivery.CanMove(delivery.StatusSending, to, delivery.BySend)
}

// limits checks that no account was given more than its rate, nor anything while it had asked to wait.
func (w *world) limits() {
	for _, a := range w.accounts {
		var debt float64
		var last *handover
		burst := a.burst
		if burst < 1 {
			burst = max(1, a.rate/20)
		}
		for _, h := range a.ledger {
			if a.rate == 0 {
				break
			}
			if last != nil && last.by == h.by {
				// The wall clock may have been turned: the limiter counts by the time that passed, or by what it was told.
				debt = max(0, debt-a.rate*max(h.sent-last.sent, h.at.Sub(last.at)).Seconds())
			} else {
				debt = 0
			}
			if debt += h.cost; debt > burst+1e-6 {
				w.bad("%s: %.3f above the rate of %s", h, debt-burst, a.name)
			}
			last = h
		}
		for i, h := range a.ledger {
			wait := time.Duration(0)
			if h.heard && h.answer == "throttled, wait" {
				wait = 11 * time.Second
			}
			for _, o := range a.ledger[i+1:] {
				if d := o.sent - h.ended; wait > 0 && d > 0 && d < wait && o.by == h.by && !w.turned {
					w.bad("%s: %s after %s had asked for %s", o, d, h, wait)
				}
			}
		}
	}
}

// ended is when a message came to its last end; a late outcome may be written after it, by a clock that was set back.
func ended(facts []delivery.Fact) (at time.Time) {
	for _, f := range facts {
		if f.Kind == delivery.FactEnded {
			at = f.At
		}
	}
	return at
}
