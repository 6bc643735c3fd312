package postgres

import (
	"strings"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// replay goes through a message's facts and knows what its row must say after each. It follows the same rules as the
// writer from what the ledger says alone: that is what an audit compares.
type replay struct {
	status    delivery.Status
	leg       int
	legs      [store.MaxLegs]delivery.Status
	tried     [store.MaxLegs]bool // the leg has been claimed
	doubted   bool                // an attempt of this leg was in doubt
	overtaken bool                // earlier legs decide the status
}

func (p *replay) fact(e *store.Event) {
	f := &e.Fact
	if f.Leg < 0 || f.Leg >= len(p.legs) {
		return // chain says that the ledger was changed
	}
	switch f.Kind {
	case delivery.FactReceipt:
		p.receipt(e.Channel, f.Leg, f.Status)
		return
	case delivery.FactLate:
		p.status = f.Status
		p.late(f)
		return
	case delivery.FactFallback:
		p.legs[p.leg] = p.leaving()
		p.doubted = false
	case delivery.FactClaimed:
		p.tried[f.Leg] = true
	case delivery.FactAmbiguous:
		p.doubted = true
	case delivery.FactEnded:
		if f.Status == delivery.StatusSent || f.Status == delivery.StatusUndelivered {
			p.overtaken, p.legs[f.Leg] = true, delivery.StatusCanceled
		}
	case delivery.FactSent:
		if p.overtaken && p.legs[f.Leg].Waiting() {
			p.legs[f.Leg] = delivery.StatusSent
		}
	}
	p.status, p.leg = f.Status, f.Leg
	if !p.overtaken {
		p.legs[p.leg] = p.status
	}
}

// leaving is what the current leg is when it makes way. Why one that was not handed off did, is all the same here.
func (p *replay) leaving() delivery.Status {
	switch {
	case p.status == delivery.StatusSent || p.status == delivery.StatusUndelivered:
		return p.status
	case p.doubted:
		return delivery.StatusUnknown
	}
	return delivery.StatusFailed
}

func (p *replay) receipt(ch delivery.Channel, leg int, says delivery.Status) {
	current := leg == p.leg && !p.overtaken
	have := p.legs[leg]
	if current {
		have = p.status
	}
	if claimable(have) && !p.tried[leg] {
		return
	}
	to, changed := delivery.AfterReceipt(ch, have, says)
	if !changed {
		return
	}
	p.legs[leg] = to
	switch {
	case current:
		p.status = to
		return
	case !p.overtaken && !arrived(to):
		return
	case !p.overtaken:
		p.overtaken = true
		if claimable(p.legs[p.leg]) {
			p.legs[p.leg] = delivery.StatusCanceled
		}
	}
	if best := best(p.legs[:]); stepsToLeg(p.status, best) != nil {
		p.status = best
	}
}

// lateDetail is how the detail of a late fact begins: with the status that the outcome asked for.
const lateDetail = "late: "

// late follows lateLeg.
func (p *replay) late(f *delivery.Fact) {
	word, _, _ := strings.Cut(strings.TrimPrefix(f.Detail, lateDetail), ":")
	asked, err := delivery.ParseStatus(word)
	have := &p.legs[f.Leg]
	switch {
	case err != nil:
	case f.Leg < p.leg && asked == delivery.StatusSent &&
		(*have == delivery.StatusUnknown || *have == delivery.StatusFailed):
		*have = asked
	case f.Leg == p.leg && p.overtaken && *have == delivery.StatusSending:
		*have = afterOvertaken(asked)
	}
}
