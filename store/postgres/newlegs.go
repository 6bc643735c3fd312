package postgres

import (
	"cmp"
	"fmt"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// checkLegs refuses legs that no message may have.
func checkLegs(m *store.NewMessage) error {
	if len(m.Then) == 0 {
		return nil
	}
	if len(m.Then) >= store.MaxLegs {
		return fmt.Errorf("%d legs, at most %d", len(m.Then)+1, store.MaxLegs)
	}
	legs := append([]store.NewLeg{{Channel: m.Channel, To: m.To, Within: m.Within, Success: m.Success}}, m.Then...)
	seen := map[delivery.Channel]bool{}
	for n := range legs {
		l := &legs[n]
		switch {
		case l.Channel < delivery.SMS || l.Channel > delivery.Webhook:
			return fmt.Errorf("leg %d: unknown channel %d", n, l.Channel)
		case seen[l.Channel]:
			return fmt.Errorf("leg %d: a second leg on %s", n, l.Channel)
		case l.To == "":
			return fmt.Errorf("leg %d: no address", n)
		case l.Within < 0:
			return fmt.Errorf("leg %d: it has %s", n, l.Within)
		case l.Success != 0 && l.Success != delivery.StatusSent && !arrived(l.Success):
			return fmt.Errorf("leg %d: it cannot be sent for %s", n, l.Success)
		}
		seen[l.Channel] = true
	}
	return nil
}

// skipped is a leg that a new message does not begin with, because its address is suppressed.
type skipped struct{ reason string }

// firstLeg makes r begin with its first leg whose address is not suppressed, and returns those before it. When there is
// none the message is suppressed, on its last leg.
func (t *tx) firstLeg(tn *tenant, r *row, m *store.NewMessage) (before []skipped, err error) {
	if len(m.Then) > 0 {
		if err := t.newLegs(r, m); err != nil {
			return nil, err
		}
	}
	for {
		entry, suppressed := t.suppressed(tn, r.channel, r.to)
		if !suppressed {
			return before, nil
		}
		if r.leg() == r.lastLeg() {
			r.status, r.due, r.reason = delivery.StatusSuppressed, 0, entry.Reason
			return before, nil
		}
		before = append(before, skipped{entry.Reason})
		r.legs[r.leg()].status, r.legs[r.leg()].reason = delivery.StatusSuppressed, entry.Reason
		next := &r.legs[r.leg()+1]
		r.setLeg(r.leg() + 1)
		r.channel, r.to, r.segments, r.account = next.channel, next.to, next.segments, next.account
		r.flags &^= flagPinned
		if next.pinned {
			r.flags |= flagPinned
		}
	}
}

// newLegs gives a new message its legs.
func (t *tx) newLegs(r *row, m *store.NewMessage) error {
	r.flags |= int64(len(m.Then)) << lastLegShift
	r.legs = append(r.legs, leg{channel: r.channel, to: r.to, segments: r.segments, account: r.account,
		pinned: r.account != 0, within: m.Within.Milliseconds(), success: m.Success})
	for i := range m.Then {
		l := &m.Then[i]
		account, err := t.s.accountNumber(l.Account)
		if err != nil {
			return err
		}
		r.legs = append(r.legs, leg{channel: l.Channel, to: l.To, segments: l.Segments, account: account,
			pinned: account != 0, within: l.Within.Milliseconds(), success: l.Success})
	}
	for n := range r.legs {
		r.legs[n].success = cmp.Or(r.legs[n].success, delivery.StatusDelivered)
	}
	return nil
}
