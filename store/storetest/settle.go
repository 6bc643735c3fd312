package storetest

import (
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var settleTests = []sentence{
	{"a hand-off stores account, provider id and attempt, and clears the due time", func(k *kit) {
		c := k.claimed()
		k.tick(time.Second)
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "p1",
			Detail: "250 ok", Attempted: true, Segments: 3})
		k.is(got, store.Settled{Applied: true, Status: delivery.StatusSent}, "the result")
		m := k.message(c.ID)
		k.is([]any{m.Status, m.Account, m.ProviderID, m.Attempts, m.Segments, m.DueAt.IsZero(), m.UpdatedAt},
			[]any{delivery.StatusSent, account, "p1", 1, 3, true, k.now}, "the message")
		f := k.facts(c.ID)[2]
		k.is(f, delivery.Fact{Message: c.ID, Kind: delivery.FactSent, At: k.now, Status: delivery.StatusSent, Attempt: 1,
			Epoch:   1,
			Account: account, Code: "p1", Detail: "250 ok"}, "the fact")
	}},
	{"every outcome of an attempt is kept with its reason, time and fact", func(k *kit) {
		for _, want := range []struct {
			status delivery.Status
			kind   delivery.FactKind
			waits  bool
		}{
			{delivery.StatusDeferred, delivery.FactDeferred, true},
			{delivery.StatusHeld, delivery.FactHeld, true},
			{delivery.StatusAmbiguous, delivery.FactAmbiguous, true},
			{delivery.StatusQueued, delivery.FactReturned, true},
			{delivery.StatusFailed, delivery.FactEnded, false},
			{delivery.StatusSuppressed, delivery.FactEnded, false},
			{delivery.StatusExpired, delivery.FactEnded, false},
			{delivery.StatusCanceled, delivery.FactEnded, false},
		} {
			c := k.claimed()
			o := store.Outcome{ID: c.ID, Epoch: 1, Status: want.status, Account: account, Reason: "why", Detail: "how"}
			if want.waits {
				o.Until = k.now.Add(5 * time.Minute)
			}
			k.is(k.settle(o), store.Settled{Applied: true, Status: want.status}, "result of %s", want.status)
			m := k.message(c.ID)
			k.is([]any{m.Status, m.Reason, m.Detail, m.DueAt, m.Attempts}, []any{want.status, "why", "how", o.Until, 0},
				"message that is %s", want.status)
			f := k.facts(c.ID)[2]
			k.is(f, delivery.Fact{Message: c.ID, Kind: want.kind, At: k.now, Status: want.status, Epoch: 1, Account: account,
				Code: "why", Detail: "how", Until: o.Until}, "fact of %s", want.status)
		}
	}},
	{"a deferred message is claimed again under a higher epoch, counting attempts", func(k *kit) {
		c := k.claimed()
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusDeferred, Account: account, Reason: "busy",
			Until: k.now.Add(time.Minute), Attempted: true})
		k.is(len(k.claim(c.ID)), 0, "claimed before it is due")
		k.tick(time.Minute)
		again := k.claim(c.ID)
		k.is(len(again), 1, "claimed when it is due")
		k.is([]any{again[0].Epoch, again[0].Attempts, again[0].Account}, []any{2, 1, delivery.AccountID{}},
			"epoch, attempts before this one, and no pinned account")
	}},
	{"an outcome of an older epoch changes nothing and is kept as a fact", func(k *kit) {
		c := k.claimed()
		k.tick(2 * time.Minute)
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: "lease",
			Until: k.now})
		second := k.claim(c.ID)
		k.is(len(second), 1, "claimed by another worker")
		before := k.message(c.ID)
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account,
			ProviderID: "late-1", Attempted: true})
		k.is(got, store.Settled{Status: delivery.StatusSending}, "the late result")
		k.is(k.message(c.ID), before, "the message")
		fs := k.facts(c.ID)
		last := fs[len(fs)-1]
		k.is([]any{last.Kind, last.Code, last.Epoch, last.Status}, []any{delivery.FactLate, "late-1", 1,
			delivery.StatusSending}, "the fact")
		k.is(strings.Contains(last.Detail, "sent"), true, "the fact tells the outcome that came too late")
	}},
	{"the same outcome twice is applied once", func(k *kit) {
		c := k.claimed()
		o := store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "p",
			Attempted: true}
		k.is(k.settle(o).Applied, true, "the first")
		k.is(k.settle(o), store.Settled{Status: delivery.StatusSent}, "the second")
		k.is(k.message(c.ID).Attempts, 1, "attempts")
		k.is(k.kinds(c.ID), []delivery.FactKind{delivery.FactAccepted, delivery.FactClaimed, delivery.FactSent},
			"facts: it is not late")
		for status, kind := range map[delivery.Status]delivery.FactKind{
			delivery.StatusDeferred: delivery.FactDeferred, delivery.StatusAmbiguous: delivery.FactAmbiguous,
			delivery.StatusQueued: delivery.FactReturned, delivery.StatusFailed: delivery.FactEnded,
		} {
			c := k.claimed()
			o := store.Outcome{ID: c.ID, Epoch: 1, Status: status, Account: account, Reason: "r",
				Until: k.now.Add(time.Minute)}
			k.is(k.settle(o).Applied, true, "%s the first time", status)
			k.is(k.settle(o), store.Settled{Status: status}, "%s the second time", status)
			k.is(k.kinds(c.ID), []delivery.FactKind{delivery.FactAccepted, delivery.FactClaimed, kind}, "facts of %s", status)
		}
	}},
	{"an ambiguous message is settled by plan, or by the answer that came after all while nobody has it", func(k *kit) {
		for _, end := range []delivery.Status{delivery.StatusSent, delivery.StatusFailed, delivery.StatusDeferred} {
			c := k.claimed()
			doubt := store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "lease_ended",
				Until: k.now.Add(time.Minute), Attempted: true, Writer: delivery.ByPlan}
			k.settle(doubt)
			answer := store.Outcome{ID: c.ID, Epoch: 1, Status: end, Account: account, ProviderID: "x", Reason: "r",
				Until: k.now.Add(time.Hour), Attempted: true}
			k.is(k.settle(answer), store.Settled{Applied: true, Status: end}, "the answer after all")
			m := k.message(c.ID)
			k.is([]any{m.Attempts, m.PossibleDuplicate}, []any{1, false}, "it counts once")
		}
	}},
	{"a doubt whose account nobody knows names no account, unless it is pinned", func(k *kit) {
		free, pinned := k.claimed(), k.claimed(func(m *store.NewMessage) { m.Account = account })
		for _, c := range []store.Claimed{free, pinned} {
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusDeferred, Account: account, Reason: "busy",
				Until: k.now, Attempted: true})
			k.is(len(k.claim(c.ID)), 1, "claimed again")
		}
		list := func() map[delivery.MessageID]store.Overdue {
			all, err := k.s.Overdue(k.ctx, k.sys, k.now.Add(time.Hour), "", 10)
			k.ok(err)
			by := map[delivery.MessageID]store.Overdue{}
			for _, o := range all {
				by[o.ID] = o
			}
			return by
		}
		k.is([]any{list()[free.ID].Pinned, list()[pinned.ID].Pinned}, []any{false, true}, "who is pinned")
		for _, c := range []store.Claimed{free, pinned} {
			k.settle(store.Outcome{ID: c.ID, Epoch: 2, Status: delivery.StatusAmbiguous, Reason: "lease_ended",
				Until: k.now, Attempted: true, Writer: delivery.ByPlan})
		}
		k.is([]any{list()[free.ID].Account, list()[pinned.ID].Account}, []any{delivery.AccountID{}, account},
			"not the account of the attempt before")
		for _, c := range []store.Claimed{free, pinned} {
			k.settle(store.Outcome{ID: c.ID, Epoch: 2, Status: delivery.StatusQueued, Reason: "again", Until: k.now,
				Duplicate: true, Writer: delivery.ByPlan})
		}
		k.is([]any{k.claim(free.ID)[0].Last, k.claim(pinned.ID)[0].Last}, []any{delivery.AccountID{}, account},
			"nor is the next attempt bound to it")
	}},
	{"an answer that came after its doubt was settled is kept as a fact", func(k *kit) {
		c := k.claimed()
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout",
			Until: k.now.Add(time.Minute), Attempted: true})
		k.is(k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusHeld, Reason: "r", Until: k.now}),
			store.Settled{Status: delivery.StatusAmbiguous}, "what says nothing of the attempt changes nothing")
		k.tick(time.Minute)
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued,
			Reason: "redelivery",
			Until:  k.now, Duplicate: true})
		k.is(got, store.Settled{Applied: true, Status: delivery.StatusQueued}, "plan queues it again")
		got = k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "x"})
		k.is(got, store.Settled{Status: delivery.StatusQueued}, "the worker's answer is late")
		again := k.claim(c.ID)
		k.is(again[0].PossibleDuplicate, true, "every later attempt is a possible duplicate")
		k.is(k.message(c.ID).PossibleDuplicate, true, "and so is the message")
		k.is(k.kinds(c.ID), []delivery.FactKind{delivery.FactAccepted, delivery.FactClaimed, delivery.FactAmbiguous,
			delivery.FactLate, delivery.FactRedelivery, delivery.FactLate, delivery.FactClaimed}, "facts")
	}},
	{"an ambiguous message may end as unknown or sent", func(k *kit) {
		for _, end := range []delivery.Status{delivery.StatusUnknown, delivery.StatusFailed, delivery.StatusSent} {
			c := k.claimed()
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout", Until: k.now,
				Attempted: true})
			got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.ByPlan, Status: end, Reason: "asked",
				ProviderID: "q"})
			k.is(got, store.Settled{Applied: true, Status: end}, "settled by plan")
			k.is(k.message(c.ID).DueAt.IsZero(), true, "no due time")
		}
	}},
	{"an outcome that is no legal move is an error naming id, from and to, and its batch is not applied", func(k *kit) {
		good, bad := k.claimed(), k.claimed()
		_, err := k.s.Settle(k.ctx, k.sys, k.now, []store.Outcome{
			{ID: good.ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent},
			{ID: bad.ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusDelivered, Reason: "r"},
		})
		k.is(err != nil, true, "a move that only a receipt may make")
		for _, part := range []string{bad.ID.String(), "sending", "delivered"} {
			k.is(strings.Contains(err.Error(), part), true, "the error %q names %s", err, part)
		}
		k.status(good.ID, delivery.StatusSending, "the rest of the batch")
	}},
	{"an outcome without what it needs is refused", func(k *kit) {
		c := k.claimed()
		for what, o := range map[string]store.Outcome{
			"no reason":   {Status: delivery.StatusFailed, Writer: delivery.BySend},
			"no due time": {Status: delivery.StatusDeferred, Writer: delivery.BySend, Reason: "r"},
			"no writer":   {Status: delivery.StatusSent},
			"bad writer":  {Status: delivery.StatusSent, Writer: delivery.ByOperator},
		} {
			o.ID, o.Epoch = c.ID, 1
			_, err := k.s.Settle(k.ctx, k.sys, k.now, []store.Outcome{o})
			k.is(err != nil, true, "%s", what)
		}
		k.status(c.ID, delivery.StatusSending, "nothing is applied")
	}},
	{"an outcome may suppress the address for the tenant and channel", func(k *kit) {
		c := k.claimed()
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusFailed, Reason: "bad_recipient", Attempted: true,
			Suppress: true})
		e, found, err := k.s.Suppressed(k.ctx, acme, delivery.SMS, c.To)
		k.ok(err)
		k.is(found, true, "the address is suppressed")
		k.is(e, store.Suppression{Channel: delivery.SMS, To: c.To, Reason: "bad_recipient", Source: c.ID.String(),
			At: k.now}, "the entry")
		out := k.acceptAs(acme, k.draft(func(m *store.NewMessage) { m.To = c.To }))
		k.is(out.Results[0].Status, delivery.StatusSuppressed, "the next message to it")
	}},
	{"outcomes are answered in their order, an unknown id with a zero result", func(k *kit) {
		a, b := k.claimed(), k.claimed()
		got, err := k.s.Settle(k.ctx, k.sys, k.now, []store.Outcome{
			{ID: b.ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent},
			{ID: k.ids.Message(), Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent},
			{ID: a.ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusFailed, Reason: "r"},
		})
		k.ok(err)
		k.is(got, []store.Settled{{Applied: true, Status: delivery.StatusSent}, {}, {Applied: true,
			Status: delivery.StatusFailed}}, "results")
	}},
}
