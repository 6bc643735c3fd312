package pipeline

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// optOutWords end a person's consent when they are the whole message. Sources: 47 CFR 64.1200(a)(10) as in force since
// 11 April 2025 (stop, quit, end, revoke, opt out, cancel, unsubscribe) and the words that carriers treat alike.
var optOutWords = map[string]bool{
	"stop": true, "quit": true, "end": true, "revoke": true, "opt out": true, "optout": true, "cancel": true,
	"unsubscribe": true, "stop all": true, "stopall": true, "arret": true, "arrêt": true,
}

// optInWords give it back. They lift only an opt-out, never another kind of suppression.
var optInWords = map[string]bool{"start": true, "unstop": true}

// ReasonOptOut is the reason of a suppression that the person asked for.
const ReasonOptOut = "opt_out"

// word brings an inbound text into the form of the lists: compatibility characters folded (full-width letters), lower
// case, punctuation and surrounding space gone, inner space single.
func word(text string) string {
	text = strings.ToLower(norm.NFKC.String(text))
	text = strings.Map(func(r rune) rune {
		if unicode.IsPunct(r) || unicode.IsSymbol(r) {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// optOut applies an opt-out or opt-in word to the tenant whose number it came to. A shared number speaks for every
// tenant: who of them wrote last is not known, and writing to somebody who said stop is the worse mistake.
func (p *Pipeline) optOut(ctx context.Context, a *routing.Account, in delivery.Inbound) error {
	w := word(in.Text)
	out, back := optOutWords[w], optInWords[w]
	if !out && !back {
		return nil
	}
	tenants := []delivery.TenantID{a.Tenant}
	if a.Tenant == delivery.Shared {
		all, err := p.store.TenantList(ctx, system)
		if err != nil {
			return err
		}
		tenants = tenants[:0]
		for _, t := range all {
			tenants = append(tenants, t.ID)
		}
	}
	for _, t := range tenants {
		if out {
			err := p.store.Suppress(ctx, t, []store.Suppression{{
				Channel: a.Channel, To: in.From, Reason: ReasonOptOut, Source: "inbound " + a.Name, At: p.clock.Now(),
			}})
			if err != nil {
				return err
			}
			p.Suppressed(t)
			continue
		}
		s, found, err := p.store.Suppressed(ctx, t, a.Channel, in.From)
		if err != nil {
			return err
		}
		if found && s.Reason == ReasonOptOut {
			if err := p.store.Unsuppress(ctx, t, a.Channel, in.From); err != nil {
				return err
			}
		}
	}
	if out && p.opt.Settle != nil {
		p.opt.Settle(ctx) // whoever is told that we have heard it is not written to by another process either
	}
	return nil
}

// refusals counts, for each tenant, how often its suppression list has grown in this process. A claim looks at the list,
// but a claimed message may wait for its turn: when the count has moved since, the list is read once more before the
// attempt. So an opt-out holds for the very next hand-off, and a list that rests costs nothing.
type refusals struct {
	counts sync.Map // delivery.TenantID → *atomic.Int64
}

func (r *refusals) of(t delivery.TenantID) int64 {
	if n, ok := r.counts.Load(t); ok {
		return n.(*atomic.Int64).Load()
	}
	return 0
}

// Suppressed tells that addresses of a tenant have joined its suppression list: no attempt for them starts after it
// returns, whatever has been claimed already.
func (p *Pipeline) Suppressed(t delivery.TenantID) {
	n, ok := p.refusals.counts.Load(t)
	if !ok {
		n, _ = p.refusals.counts.LoadOrStore(t, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

// refused reports whether m's address has, or may have, been suppressed since m was claimed. The next claim ends it.
func (p *Pipeline) refused(m *passage) bool {
	if p.refusals.of(m.Queue.Tenant) == m.refusals {
		return false
	}
	_, found, err := p.store.Suppressed(p.ctx, m.Queue.Tenant, m.Queue.Channel, m.To)
	return found || err != nil
}
