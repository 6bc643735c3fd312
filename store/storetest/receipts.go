package storetest

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func receipt(ref string, says delivery.Status) delivery.Receipt {
	return delivery.Receipt{Account: account, ProviderID: ref, Status: says, At: time.UnixMilli(1_772_366_400_000).UTC()}
}

var receiptTests = []sentence{
	{"a receipt moves the message that has its provider id", func(k *kit) {
		id := k.sent("p1")
		k.is(k.report(receipt("p1", delivery.StatusDelivered)),
			[]store.Reported{{Message: id, Tenant: acme, Status: delivery.StatusDelivered, Changed: true}}, "result")
		k.status(id, delivery.StatusDelivered, "status")
	}},
	{"a receipt that carries our id needs no provider id", func(k *kit) {
		c := k.claimed()
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "not-indexed",
			Attempted: true})
		r := receipt("", delivery.StatusUndelivered)
		r.Message, r.Code, r.Detail = c.ID, "30005", "no such number"
		k.is(k.report(r)[0].Status, delivery.StatusUndelivered, "status")
		m := k.message(c.ID)
		k.is([]string{m.Reason, m.Detail}, []string{"30005", "no such number"}, "why it did not arrive")
	}},
	{"any order and any number of repeats of receipts end in the same status and the same facts", func(k *kit) {
		rnd := rand.New(rand.NewPCG(1, 2))
		for n, ch := range delivery.Channels {
			all := []delivery.Status{delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead,
				delivery.StatusUndelivered}
			best := delivery.StatusSent
			for _, s := range all {
				if to, changed := delivery.AfterReceipt(ch, best, s); changed {
					best = to
				}
			}
			for round := range 12 {
				ref := fmt.Sprintf("shuffle-%d-%d", n, round)
				id := k.sent(ref, func(m *store.NewMessage) { m.Channel = ch })
				rs := []delivery.Receipt{}
				for _, s := range all {
					rs = append(rs, receipt(ref, s), receipt(ref, s), receipt(ref, s))
				}
				rnd.Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
				for len(rs) > 0 {
					cut := 1 + rnd.IntN(len(rs))
					k.report(rs[:cut]...)
					rs = rs[cut:]
				}
				k.status(id, best, "status after all receipts of "+ch.String())
				facts := 0
				for _, f := range k.facts(id) {
					if f.Kind == delivery.FactReceipt {
						facts++
					}
				}
				k.is(facts, len(all), "a fact for each different receipt, none for a repeat")
			}
		}
	}},
	{"an exact repeat changes nothing and adds no fact, after a restart too", func(k *kit) {
		id := k.sent("p1")
		k.report(receipt("p1", delivery.StatusDelivered))
		before, facts := k.message(id), k.facts(id)
		k.reopen()
		k.tick(time.Hour)
		k.is(k.report(receipt("p1", delivery.StatusDelivered))[0].Changed, false, "a repeat")
		k.is(k.message(id), before, "the message")
		k.is(k.facts(id), facts, "the facts")
	}},
	{"a receipt that comes before its message is settled is parked, then applied with the hand-off", func(k *kit) {
		c := k.claimed()
		k.is(k.report(receipt("early", delivery.StatusDelivered), receipt("early", delivery.StatusDelivered)),
			make([]store.Reported, 2), "parked")
		n, err := k.s.Parked(k.ctx, k.sys)
		k.ok(err)
		k.is(n, 1, "a repeat is parked once")
		k.reopen()
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account,
			ProviderID: "early", Attempted: true})
		k.is(got, store.Settled{Applied: true, Status: delivery.StatusDelivered}, "hand-off and receipt in one step")
		k.is(k.kinds(c.ID), []delivery.FactKind{delivery.FactAccepted, delivery.FactClaimed, delivery.FactSent,
			delivery.FactReceipt}, "facts")
		n, err = k.s.Parked(k.ctx, k.sys)
		k.ok(err)
		k.is(n, 0, "nothing is parked any more")
	}},
	{"a parked receipt belongs to its account", func(k *kit) {
		c := k.claimed()
		r := receipt("same", delivery.StatusDelivered)
		r.Account = delivery.AccountID{99}
		k.report(r)
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "same",
			Attempted: true})
		k.is(got.Status, delivery.StatusSent, "another account's receipt is not applied")
	}},
	{"parked receipts are dropped after their time, not before", func(k *kit) {
		k.report(receipt("nobody", delivery.StatusDelivered))
		n, err := k.s.DropParked(k.ctx, k.sys, k.now.Add(72*time.Hour))
		k.ok(err)
		k.is(n, 0, "at the end of their time")
		n, err = k.s.DropParked(k.ctx, k.sys, k.now.Add(72*time.Hour+time.Millisecond))
		k.ok(err)
		k.is(n, 1, "after it")
	}},
	{"an account parks at most MaxParked receipts, and what belongs to a message is stored even then", func(k *kit) {
		id := k.sent("known")
		var flood []delivery.Receipt
		for i := range store.MaxParked - 1 {
			flood = append(flood, receipt("flood "+strconv.Itoa(i), delivery.StatusDelivered))
		}
		k.report(flood...)
		report := func(rs ...delivery.Receipt) error {
			_, err := k.s.Report(k.ctx, k.sys, k.now, 72*time.Hour, rs)
			return err
		}
		last := receipt("last", delivery.StatusDelivered)
		k.ok(report(last))
		err := report(receipt("too many", delivery.StatusDelivered), receipt("known", delivery.StatusDelivered))
		k.fails(err, store.ErrParkedFull, "full")
		k.fails(err, store.ErrUnavailable, "full")
		k.is(k.message(id).Status, delivery.StatusDelivered, "the message of the other receipt")
		k.ok(report(last)) // a repeat needs no room
		c := k.claimed()
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "flood 7",
			Attempted: true})
		k.is(got.Status, delivery.StatusDelivered, "a parked receipt is applied")
		k.ok(report(receipt("in its place", delivery.StatusDelivered)))
		k.fails(report(receipt("too many", delivery.StatusDelivered)), store.ErrParkedFull, "full again")
		other := receipt("other", delivery.StatusDelivered)
		other.Account = delivery.AccountID{99}
		k.ok(report(other))
		k.reopen()
		k.fails(report(receipt("too many", delivery.StatusDelivered)), store.ErrParkedFull, "full after a restart")
		n, err := k.s.DropParked(k.ctx, k.sys, k.now.Add(80*time.Hour))
		k.ok(err)
		k.is(n, store.MaxParked+1, "dropped after their time")
		k.ok(report(receipt("too many", delivery.StatusDelivered)))
	}},
	{"a receipt that overtakes the answer moves the message, and the answer still adds what it knows", func(k *kit) {
		c := k.claimed()
		r := receipt("over", delivery.StatusDelivered)
		r.Message = c.ID
		k.is(k.report(r)[0], store.Reported{Message: c.ID, Tenant: acme, Status: delivery.StatusDelivered, Changed: true},
			"while sending")
		k.is(k.message(c.ID).DueAt.IsZero(), true, "the lease is over")
		got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "over",
			IndexProviderID: true, Attempted: true})
		k.is(got, store.Settled{Applied: true, Status: delivery.StatusDelivered},
			"the answer is applied, the better status stays")
		m := k.message(c.ID)
		k.is([]any{m.ProviderID, m.Account, m.Attempts}, []any{"over", account, 1}, "what the answer knew")
		k.is(k.kinds(c.ID), []delivery.FactKind{delivery.FactAccepted, delivery.FactClaimed, delivery.FactReceipt,
			delivery.FactSent}, "facts")
		got = k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusSent, Account: account, ProviderID: "over",
			Attempted: true})
		k.is(got, store.Settled{Status: delivery.StatusDelivered}, "the answer a second time is late")
		k.is(k.report(receipt("over", delivery.StatusRead))[0].Message, c.ID, "its provider id is known")
	}},
	{"a receipt settles an ambiguous message", func(k *kit) {
		for _, says := range []delivery.Status{delivery.StatusSent, delivery.StatusDelivered, delivery.StatusUndelivered} {
			c := k.claimed()
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout",
				Until: k.now.Add(time.Minute), Attempted: true})
			r := receipt("", says)
			r.Message = c.ID
			k.is(k.report(r)[0].Status, says, "status")
			k.is(k.message(c.ID).DueAt.IsZero(), true, "nothing is left to settle")
			got := k.settle(store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued,
				Reason: "r", Until: k.now})
			k.is(got, store.Settled{Status: says}, "plan comes too late")
		}
	}},
	{"a receipt for a message that is not on its way is kept as a fact only", func(k *kit) {
		id := k.accept()
		r := receipt("", delivery.StatusDelivered)
		r.Message = id
		k.is(k.report(r)[0], store.Reported{Message: id, Tenant: acme, Status: delivery.StatusQueued}, "result")
		k.is(k.kinds(id), []delivery.FactKind{delivery.FactAccepted, delivery.FactReceipt}, "facts")
	}},
	{"a receipt with class bad recipient or consent suppresses the address", func(k *kit) {
		for i, class := range []delivery.Class{delivery.BadRecipient, delivery.Consent} {
			ref := fmt.Sprint("bad-", i)
			to := k.message(k.sent(ref)).To
			r := receipt(ref, delivery.StatusUndelivered)
			r.Class = class
			k.report(r)
			e, found, err := k.s.Suppressed(k.ctx, acme, delivery.SMS, to)
			k.ok(err)
			k.is([]any{found, e.Reason}, []any{true, class.String()}, "the entry")
			_, found, err = k.s.Suppressed(k.ctx, other, delivery.SMS, to)
			k.ok(err)
			k.is(found, false, "another tenant's list")
		}
	}},
	{"a receipt through one tenant's account never reaches another tenant's message", func(k *kit) {
		theirs := delivery.AccountID{42}
		k.ok(k.s.PutAccount(k.ctx, other, store.Account{ID: theirs, Name: "sms", Kind: "x", Channel: delivery.SMS,
			CreatedAt: k.now, UpdatedAt: k.now}))
		id := k.sent("p1")
		r := receipt("p1", delivery.StatusDelivered)
		r.Account, r.Message = theirs, id
		k.is(k.report(r)[0], store.Reported{}, "parked, as if the message were not there")
		k.status(id, delivery.StatusSent, "status")
	}},
	{"a receipt that says something else is refused", func(k *kit) {
		_, err := k.s.Report(k.ctx, k.sys, k.now, time.Hour, []delivery.Receipt{receipt("p", delivery.StatusQueued)})
		k.is(err != nil, true, "a provider cannot queue a message")
	}},
}

var suppressionTests = []sentence{
	{"a message to a suppressed address is accepted as suppressed", func(k *kit) {
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{
			{To: "+1555", Reason: "manual", Source: "api", At: k.now},
			{Channel: delivery.Email, To: "a@example.com", Reason: "complaint", At: k.now},
		}))
		out := k.acceptAs(acme, k.draft(func(m *store.NewMessage) { m.To = "+1555" }),
			k.draft(func(m *store.NewMessage) { m.To = "a@example.com" }),
			k.draft(func(m *store.NewMessage) { m.Channel, m.To = delivery.Email, "a@example.com" }))
		k.is([]delivery.Status{out.Results[0].Status, out.Results[1].Status, out.Results[2].Status},
			[]delivery.Status{delivery.StatusSuppressed, delivery.StatusQueued, delivery.StatusSuppressed}, "by channel")
		k.is(out.Results[2].Reason, "complaint", "the suppression's reason")
		fs := k.facts(out.Results[0].ID)
		k.is(fs[len(fs)-1].Status, delivery.StatusSuppressed, "the last fact")
		k.is(k.acceptAs(other, k.draft(func(m *store.NewMessage) { m.To = "+1555" })).Results[0].Status,
			delivery.StatusQueued, "another tenant")
	}},
	{"an entry is replaced, removed, and missing when it is removed again", func(k *kit) {
		e := store.Suppression{Channel: delivery.SMS, To: "+1", Reason: "a", Source: "s", At: k.now}
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{e}))
		e.Reason = "b"
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{e}))
		got, found, err := k.s.Suppressed(k.ctx, acme, delivery.SMS, "+1")
		k.ok(err)
		k.is([]any{got, found}, []any{e, true}, "the entry")
		k.ok(k.s.Unsuppress(k.ctx, acme, delivery.SMS, "+1"))
		_, found, err = k.s.Suppressed(k.ctx, acme, delivery.SMS, "+1")
		k.ok(err)
		k.is(found, false, "after its removal")
		k.fails(k.s.Unsuppress(k.ctx, acme, delivery.SMS, "+1"), store.ErrNotFound, "removed again")
		k.is(k.acceptAs(acme, k.draft(func(m *store.NewMessage) { m.To = "+1" })).Results[0].Status, delivery.StatusQueued,
			"the next message")
	}},
	{"the list is paged in order of address, and a page never tears an address", func(k *kit) {
		want := []store.Suppression{}
		for _, to := range []string{"a", "b", "c", "d"} {
			for _, ch := range []delivery.Channel{0, delivery.SMS, delivery.Email} {
				want = append(want, store.Suppression{Channel: ch, To: to, Reason: "r", At: k.now})
			}
		}
		k.ok(k.s.Suppress(k.ctx, acme, want))
		var got []store.Suppression
		for after := ""; ; after = got[len(got)-1].To {
			page, err := k.s.SuppressionList(k.ctx, acme, after, 2)
			k.ok(err)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
		}
		k.is(got, want, "all pages")
	}},
}
