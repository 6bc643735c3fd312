package storetest

import (
	"slices"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var claimTests = []sentence{
	{"a claim leases a due message with a new epoch", func(k *kit) {
		m := k.draft(func(m *store.NewMessage) { m.Account, m.AtMostOnce = account, true })
		k.acceptAs(acme, m)
		k.tick(time.Second)
		k.is(k.claim(m.ID), []store.Claimed{{ID: m.ID, Queue: delivery.Queue{Tenant: acme, Channel: delivery.SMS,
			Lane: delivery.Normal},
			To: m.To, Payload: m.Payload, Segments: 1, Account: account, Epoch: 1, AtMostOnce: true,
			AcceptedAt: k.now.Add(-time.Second), ExpiresAt: m.ExpiresAt}}, "what is claimed")
		got := k.message(m.ID)
		k.is(got.Status, delivery.StatusSending, "status")
		k.is(got.DueAt, k.now.Add(time.Minute), "end of the lease")
		f := k.facts(m.ID)[1]
		k.is(f, delivery.Fact{Message: m.ID, Kind: delivery.FactClaimed, At: k.now, Status: delivery.StatusSending,
			Attempt: 1,
			Epoch:   1, Code: node, Until: k.now.Add(time.Minute)}, "the fact of a claim")
	}},
	{"ids that are taken, not due or not there are not returned", func(k *kit) {
		taken := k.claimed().ID
		later := k.accept(func(m *store.NewMessage) { m.DueAt = k.now.Add(time.Hour) })
		due := k.accept()
		got := k.claim(taken, later, k.ids.Message(), due, due)
		k.is(len(got), 1, "how many are claimed")
		k.is(got[0].ID, due, "which is claimed")
	}},
	{"a scheduled message is claimed once it is due", func(k *kit) {
		id := k.accept(func(m *store.NewMessage) { m.DueAt = k.now.Add(time.Hour) })
		k.tick(time.Hour)
		k.is(len(k.claim(id)), 1, "claimed at its due time")
	}},
	{"no message is claimed twice by goroutines that claim at once", func(k *kit) {
		ids := k.several(300)
		var mu sync.Mutex
		seen := map[delivery.MessageID]int{}
		errs := make([]error, 8)
		together(8, func(i int) {
			mine := slices.Clone(ids)
			if i%2 == 1 {
				slices.Reverse(mine)
			}
			for chunk := range slices.Chunk(mine, 50) {
				got, err := k.s.Claim(k.ctx, k.sys, store.Claim{IDs: chunk, Node: node, Now: k.now, Until: k.now.Add(time.Minute)})
				if err != nil {
					errs[i] = err
					return
				}
				mu.Lock()
				for _, c := range got {
					seen[c.ID]++
				}
				mu.Unlock()
			}
		})
		for _, err := range errs {
			k.ok(err)
		}
		k.is(len(seen), len(ids), "every message is claimed")
		for id, n := range seen {
			k.is(n, 1, "claims of %s", id)
		}
	}},
	{"an expired message is ended by the claim and not returned", func(k *kit) {
		id := k.accept(func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(time.Minute) })
		k.tick(time.Minute + time.Millisecond)
		k.is(len(k.claim(id)), 0, "how many are claimed")
		m := k.message(id)
		k.is(m.Status, delivery.StatusExpired, "status")
		k.is(m.Reason, store.ReasonExpired, "reason")
		k.is(m.DueAt.IsZero(), true, "it has no due time any more")
		k.is(k.kinds(id), []delivery.FactKind{delivery.FactAccepted, delivery.FactEnded}, "facts")
	}},
	{"a message to an address that was suppressed meanwhile is ended by the claim", func(k *kit) {
		id := k.accept(func(m *store.NewMessage) { m.To = "+15550002" })
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{Channel: delivery.SMS, To: "+15550002", Reason: "opt_out",
			At: k.now}}))
		k.is(len(k.claim(id)), 0, "how many are claimed")
		m := k.message(id)
		k.is(m.Status, delivery.StatusSuppressed, "status")
		k.is(m.Reason, "opt_out", "reason")
	}},
	{"a cancel and a claim at once: exactly one of them wins", func(k *kit) {
		ids := k.several(60)
		canceled := make([]bool, len(ids))
		claims := make([][]store.Claimed, len(ids))
		errs := make([]error, 2*len(ids))
		together(2*len(ids), func(i int) {
			id := ids[i/2]
			if i%2 == 0 {
				_, err := k.s.Cancel(k.ctx, acme, id, k.now)
				canceled[i/2] = err == nil
				if err != nil && !errorIs(err, store.ErrConflict) {
					errs[i] = err
				}
				return
			}
			claims[i/2], errs[i] = k.s.Claim(k.ctx, k.sys,
				store.Claim{IDs: []delivery.MessageID{id}, Node: node, Now: k.now, Until: k.now.Add(time.Minute)})
		})
		for _, err := range errs {
			k.ok(err)
		}
		for i, id := range ids {
			k.is(canceled[i], len(claims[i]) == 0, "canceled or claimed, never both, never neither")
			want := delivery.StatusSending
			if canceled[i] {
				want = delivery.StatusCanceled
			}
			k.status(id, want, "the status says who won")
		}
	}},
	{"a claim without a node, without a lease or without a scope is refused", func(k *kit) {
		id := k.accept()
		good := store.Claim{IDs: []delivery.MessageID{id}, Node: node, Now: k.now, Until: k.now.Add(time.Minute)}
		_, err := k.s.Claim(k.ctx, store.System{}, good)
		k.is(err != nil, true, "the zero System is refused")
		bad := good
		bad.Node = ""
		_, err = k.s.Claim(k.ctx, k.sys, bad)
		k.is(err != nil, true, "no node is refused")
		bad = good
		bad.Until = k.now
		_, err = k.s.Claim(k.ctx, k.sys, bad)
		k.is(err != nil, true, "a lease that has ended is refused")
		k.is(len(k.claim(id)), 1, "the refused claims took nothing")
	}},
}
