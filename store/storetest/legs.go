package storetest

import (
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The accounts of the legs, one a channel, shared by all tenants.
var legAccounts = map[delivery.Channel]delivery.AccountID{
	delivery.SMS: {11}, delivery.WhatsApp: {12}, delivery.Email: {13}, delivery.Webhook: {14},
}

var legAddresses = map[delivery.Channel]string{
	delivery.SMS: "+15557001", delivery.WhatsApp: "+15557002", delivery.Email: "a@example.com",
	delivery.Webhook: "https://example.com/hook",
}

// legs makes a message of a first leg and those that follow, each with five minutes to be delivered.
func legs(first delivery.Channel, then ...delivery.Channel) func(*store.NewMessage) {
	return func(m *store.NewMessage) {
		m.Channel, m.To, m.Payload = first, legAddresses[first], []byte(`{"leg":"`+first.String()+`"}`)
		m.Within, m.Success = 5*time.Minute, delivery.StatusDelivered
		for _, ch := range then {
			m.Then = append(m.Then, store.NewLeg{Channel: ch, To: legAddresses[ch],
				Payload:  []byte(`{"leg":"` + ch.String() + `"}`),
				Segments: 2, Within: 5 * time.Minute, Success: delivery.StatusDelivered})
		}
	}
}

var twoLegs = legs(delivery.WhatsApp, delivery.SMS)

func (k *kit) accounts() {
	k.Helper()
	for ch, id := range legAccounts {
		k.ok(k.s.PutAccount(k.ctx, delivery.Shared, store.Account{ID: id, Name: ch.String(), Kind: "x", Channel: ch,
			CreatedAt: k.now, UpdatedAt: k.now}))
	}
}

// handOff claims a message and settles it as sent by the account of its leg, under the leg's name as provider id.
func (k *kit) handOff(id delivery.MessageID) store.Settled {
	k.Helper()
	got := k.claim(id)
	k.is(len(got), 1, "the leg is claimed")
	return k.settle(sentOf(got[0]))
}

func sentOf(c store.Claimed) store.Outcome {
	return store.Outcome{ID: c.ID, Epoch: c.Epoch, Status: delivery.StatusSent, Account: legAccounts[c.Queue.Channel],
		ProviderID: c.Queue.Channel.String() + c.ID.String(), IndexProviderID: true, Attempted: true}
}

// says reports about the leg of a channel.
func (k *kit) says(id delivery.MessageID, ch delivery.Channel, status delivery.Status) store.Reported {
	k.Helper()
	k.tick(time.Millisecond) // no two receipts are the same
	return k.report(delivery.Receipt{Account: legAccounts[ch], ProviderID: ch.String() + id.String(), Status: status,
		At: k.now})[0]
}

func (k *kit) queueOf(ch delivery.Channel) delivery.Queue {
	return delivery.Queue{Tenant: acme, Channel: ch, Lane: delivery.Normal}
}

// statuses lists where the legs are.
func (k *kit) statuses(id delivery.MessageID) (of []delivery.Status) {
	k.Helper()
	for _, l := range k.message(id).Legs {
		of = append(of, l.Status)
	}
	return of
}

func (k *kit) winner(id delivery.MessageID) int {
	k.Helper()
	for n, l := range k.message(id).Legs {
		if l.Winner {
			return n
		}
	}
	return -1
}

// sweep settles what has run out of time, as a sweeper does, and returns what became ready.
func (k *kit) sweep() (ready []store.Ready) {
	k.Helper()
	list, err := k.s.Overdue(k.ctx, k.sys, k.now, "", 100)
	k.ok(err)
	for _, o := range list {
		if o.Status == delivery.StatusSent {
			got := k.settle(store.Outcome{ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusQueued,
				Reason: store.ReasonLegTimeout, NextLeg: true})
			k.is(got.Applied, true, "a leg that has run out of time")
			ready = append(ready, got.Ready...)
		}
	}
	return ready
}

var legTests = []sentence{
	legMachine,
	{"legs are kept as they were given, and the message is its first", func(k *kit) {
		k.accounts()
		id := k.accept(legs(delivery.WhatsApp, delivery.SMS, delivery.Email), func(m *store.NewMessage) {
			m.Then[0].Account, m.Then[1].Success, m.Then[1].Within = legAccounts[delivery.SMS], delivery.StatusSent, 0
		})
		k.reopen()
		m := k.message(id)
		k.is([]any{m.Channel, m.To, m.Leg, string(m.Payload)},
			[]any{delivery.WhatsApp, legAddresses[delivery.WhatsApp], 0, `{"leg":"whatsapp"}`}, "the message")
		k.is(m.Legs, []store.MessageLeg{
			{Channel: delivery.WhatsApp, To: legAddresses[delivery.WhatsApp], Status: delivery.StatusQueued,
				Within: 5 * time.Minute, Success: delivery.StatusDelivered, Until: k.now.Add(5 * time.Minute)},
			{Channel: delivery.SMS, To: legAddresses[delivery.SMS], Account: legAccounts[delivery.SMS],
				Within: 5 * time.Minute, Success: delivery.StatusDelivered},
			{Channel: delivery.Email, To: legAddresses[delivery.Email], Success: delivery.StatusSent},
		}, "its legs")
		list, err := k.s.Messages(k.ctx, acme, store.MessageQuery{Limit: 10})
		k.ok(err)
		k.is(len(list[0].Legs), 0, "legs in a list")
		c := k.claim(id)[0]
		k.is([]any{c.Leg, c.MoreLegs, c.LegUntil}, []any{0, true, k.now.Add(5 * time.Minute)}, "the claim knows its leg")
	}},
	{"legs that cannot be are refused", func(k *kit) {
		for what, change := range map[string]func(*store.NewMessage){
			"fifth leg":      legs(delivery.SMS, delivery.WhatsApp, delivery.Email, delivery.Webhook, delivery.SMS),
			"second leg on":  legs(delivery.SMS, delivery.SMS),
			"no address":     func(m *store.NewMessage) { twoLegs(m); m.Then[0].To = "" },
			"channel":        func(m *store.NewMessage) { twoLegs(m); m.Then[0].Channel = 9 },
			"-1s":            func(m *store.NewMessage) { twoLegs(m); m.Then[0].Within = -time.Second },
			"sent for":       func(m *store.NewMessage) { twoLegs(m); m.Success = delivery.StatusUndelivered },
			"a category has": func(m *store.NewMessage) { m.Category = strings.Repeat("x", 65) },
			"a tag has":      func(m *store.NewMessage) { m.Tag = strings.Repeat("x", 65) },
			"ordering key":   func(m *store.NewMessage) { m.OrderingKey = strings.Repeat("x", 129) },
		} {
			_, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: []store.NewMessage{k.draft(change)}})
			if err == nil || what != "fifth leg" && !strings.Contains(err.Error(), what) {
				k.Fatalf("%s: %v", what, err)
			}
		}
	}},
	{"a leg that is refused for good makes way in the same step, and the message counts once", func(k *kit) {
		k.accounts()
		for _, end := range []delivery.Status{delivery.StatusFailed, delivery.StatusSuppressed} {
			id := k.accept(twoLegs)
			c := k.claim(id)[0]
			got := k.settle(store.Outcome{ID: id, Epoch: 1, Status: end, Account: legAccounts[delivery.WhatsApp],
				Reason: "131026", Detail: "not on WhatsApp", Attempted: true, NextLeg: true, Route: "rule 1", Content: "otp v3"})
			k.is(got, store.Settled{Applied: true, Status: delivery.StatusQueued,
				Ready: []store.Ready{{ID: id, Queue: k.queueOf(delivery.SMS)}}}, "the result")
			m := k.message(id)
			k.is([]any{m.Channel, m.To, string(m.Payload), m.Segments, m.Attempts, m.DueAt, m.Leg, m.Account},
				[]any{delivery.SMS, legAddresses[delivery.SMS], `{"leg":"sms"}`, 2, 0, k.now, 1, delivery.AccountID{}},
				"the message is its second leg")
			k.is([]any{m.Legs[0].Status, m.Legs[0].Reason, m.Legs[0].Account}, []any{end, "131026",
				legAccounts[delivery.WhatsApp]}, "what the first left")
			fs := k.facts(id)
			k.is(fs[len(fs)-1], delivery.Fact{Message: id, Kind: delivery.FactFallback, At: k.now,
				Status: delivery.StatusQueued, Attempt: 1, Epoch: c.Epoch, Account: legAccounts[delivery.WhatsApp],
				Code: "131026", Detail: "not on WhatsApp", Route: "rule 1", Content: "otp v3", Leg: 1}, "the fact")
			k.is(k.settle(store.Outcome{ID: id, Epoch: 1, Status: delivery.StatusFailed, Reason: "r", NextLeg: true}).Applied,
				false, "the same outcome again")
			again := k.claim(id)
			k.is([]any{len(again), again[0].Leg, again[0].MoreLegs, again[0].Attempts, again[0].Epoch, again[0].LegUntil},
				[]any{1, 1, false, 0, 2, time.Time{}}, "the second leg's claim")
			got = k.settle(store.Outcome{ID: id, Epoch: 2, Status: end, Reason: "r", Attempted: true, NextLeg: true})
			k.is(got, store.Settled{Applied: true, Status: end}, "the last leg ends the message")
		}
		k.is(k.tally(delivery.CampaignID{}), store.Tally{delivery.SMS: {delivery.StatusFailed: 1,
			delivery.StatusSuppressed: 1}},
			"the tally")
	}},
	{"a failure for now makes no way, and a leg's wait ends with its time", func(k *kit) {
		id := k.accept(twoLegs)
		k.claim(id)
		got := k.settle(store.Outcome{ID: id, Epoch: 1, Status: delivery.StatusDeferred, Reason: "busy", Attempted: true,
			Until: k.now.Add(time.Hour)})
		k.is(got, store.Settled{Applied: true, Status: delivery.StatusDeferred}, "deferred")
		k.is(k.message(id).DueAt, k.now.Add(5*time.Minute), "it never waits beyond its leg's end")
		k.tick(5*time.Minute - time.Millisecond)
		k.is(len(k.claim(id)), 0, "before")
		k.tick(time.Millisecond)
		k.is(len(k.claim(id)), 0, "the claim lets the next leg begin")
		m := k.message(id)
		k.is([]any{m.Leg, m.Status, m.DueAt, m.Legs[0].Status, m.Legs[0].Reason},
			[]any{1, delivery.StatusQueued, k.now, delivery.StatusExpired, store.ReasonLegTimeout}, "the message")
		ids, _, err := k.s.Due(k.ctx, k.sys, k.queueOf(delivery.SMS), k.now, store.DueMark{}, 10)
		k.ok(err)
		k.is(ids, []delivery.MessageID{id}, "it is due in the other queue")
	}},
	{"an attempt that ends after its leg's time begins the next leg at once", func(k *kit) {
		id := k.accept(twoLegs)
		k.claim(id)
		k.tick(6 * time.Minute)
		k.is(len(k.sweep()), 0, "while the attempt is under way")
		got := k.settle(store.Outcome{ID: id, Epoch: 1, Status: delivery.StatusDeferred, Reason: "busy", Attempted: true,
			Until: k.now.Add(time.Hour)})
		k.is([]any{got.Status, len(got.Ready)}, []any{delivery.StatusQueued, 1}, "the result")
		k.is(k.kinds(id), []delivery.FactKind{delivery.FactAccepted, delivery.FactClaimed, delivery.FactDeferred,
			delivery.FactFallback}, "facts")
	}},
	{"a handed-off leg is overdue at the end of its time, and makes way once", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		k.tick(time.Minute)
		k.handOff(id)
		until := k.now.Add(4 * time.Minute)
		m := k.message(id)
		k.is([]any{m.Status, m.DueAt}, []any{delivery.StatusSent, until}, "it keeps its deadline")
		next, err := k.s.NextDue(k.ctx, k.sys, k.now)
		k.ok(err)
		k.is(next, until, "the next due time")
		early := k.settle(store.Outcome{ID: id, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued,
			NextLeg: true})
		k.is(early.Applied, false, "before its time")
		k.tick(4 * time.Minute)
		list, err := k.s.Overdue(k.ctx, k.sys, k.now, "", 10)
		k.ok(err)
		k.is(list, []store.Overdue{{ID: id, Queue: k.queueOf(delivery.WhatsApp), Status: delivery.StatusSent, Epoch: 1,
			Account: legAccounts[delivery.WhatsApp], Attempts: 1, DueAt: until, ExpiresAt: m.ExpiresAt}}, "overdue")
		k.is(k.sweep(), []store.Ready{{ID: id, Queue: k.queueOf(delivery.SMS)}}, "ready")
		k.is(k.statuses(id), []delivery.Status{delivery.StatusSent, delivery.StatusQueued}, "legs")
		k.is(len(k.sweep()), 0, "a second sweep")
		k.handOff(id)
		k.is(k.message(id).DueAt.IsZero(), true, "the last leg has no deadline")
		k.is(k.tally(delivery.CampaignID{}), store.Tally{delivery.SMS: {delivery.StatusSent: 1}}, "it counts once")
	}},
	{"a leg that is sent for no more than a hand-off has no deadline after it", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs, func(m *store.NewMessage) { m.Success = delivery.StatusSent })
		k.handOff(id)
		k.is([]any{k.message(id).DueAt.IsZero(), k.winner(id)}, []any{true, 0}, "no deadline, and it has won")
	}},
	{"a success in time ends the wait", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		k.handOff(id)
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusDelivered).Status, delivery.StatusDelivered, "status")
		k.tick(time.Hour)
		k.is([]any{len(k.sweep()), k.winner(id), k.message(id).DueAt.IsZero()}, []any{0, 0, true}, "no next leg")
	}},
	{"a leg that did not arrive makes way in the same step", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		k.handOff(id)
		got := k.says(id, delivery.WhatsApp, delivery.StatusUndelivered)
		k.is(got, store.Reported{Message: id, Tenant: acme, Status: delivery.StatusQueued, Changed: true,
			Ready: []store.Ready{{ID: id, Queue: k.queueOf(delivery.SMS)}}}, "the result")
		k.is(k.statuses(id), []delivery.Status{delivery.StatusUndelivered, delivery.StatusQueued}, "legs")
		k.handOff(id)
		k.is(k.says(id, delivery.SMS, delivery.StatusUndelivered).Status, delivery.StatusUndelivered,
			"the last one did not either")
	}},
	{"a receipt that overtakes the answer makes way, and the answer is kept at its leg", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		c := k.claim(id)[0]
		r := delivery.Receipt{Account: legAccounts[delivery.WhatsApp], Message: id, Status: delivery.StatusUndelivered,
			At: k.now}
		k.is(k.report(r)[0].Status, delivery.StatusQueued, "while sending")
		k.is(k.settle(sentOf(c)), store.Settled{Status: delivery.StatusQueued}, "the answer")
		l := k.message(id).Legs[0]
		k.is([]any{l.Status, l.ProviderID, l.Account}, []any{delivery.StatusUndelivered, sentOf(c).ProviderID,
			legAccounts[delivery.WhatsApp]}, "the leg")
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusDelivered).Status, delivery.StatusDelivered,
			"its receipts are found")
	}},
	{"a suppressed leg is left out, at accept and at claim", func(k *kit) {
		k.accounts()
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{Channel: delivery.WhatsApp, To: legAddresses[delivery.WhatsApp],
			Reason: "opt_out", At: k.now}}))
		three := k.draft(legs(delivery.WhatsApp, delivery.SMS, delivery.Email))
		out := k.acceptAs(acme, three)
		k.is(out.Results[0].Status, delivery.StatusQueued, "it begins with the next leg")
		m := k.message(three.ID)
		k.is([]any{m.Leg, m.Channel, string(m.Payload), m.Legs[0].Status, m.Legs[0].Reason, m.Legs[1].Until},
			[]any{1, delivery.SMS, `{"leg":"sms"}`, delivery.StatusSuppressed, "opt_out", k.now.Add(5 * time.Minute)},
			"the message")
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{To: legAddresses[delivery.SMS], Reason: "stop", At: k.now}}))
		k.is(len(k.claim(three.ID)), 0, "the claim goes on")
		m = k.message(three.ID)
		k.is([]any{m.Leg, m.Channel, m.Legs[1].Status, m.Legs[1].Reason}, []any{2, delivery.Email,
			delivery.StatusSuppressed, "stop"}, "the message")
		k.is(len(k.claim(three.ID)), 1, "the third leg goes")
		none := k.draft(twoLegs)
		out = k.acceptAs(acme, none)
		k.is(out.Results[0], store.AcceptResult{ID: none.ID, Status: delivery.StatusSuppressed, Reason: "stop"},
			"none is left")
		k.is(k.statuses(none.ID), []delivery.Status{delivery.StatusSuppressed, delivery.StatusSuppressed}, "its legs")
	}},
	{"a late winner stops a leg that has not gone", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		k.handOff(id)
		k.tick(5 * time.Minute)
		k.sweep()
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusDelivered).Status, delivery.StatusDelivered, "the receipt")
		k.is(len(k.claim(id)), 0, "the second leg never goes")
		m := k.message(id)
		k.is([]any{m.Status, m.DueAt.IsZero(), m.Legs[1].Status, m.Legs[1].Reason, k.winner(id)},
			[]any{delivery.StatusDelivered, true, delivery.StatusCanceled, store.ReasonOvertaken, 0}, "the message")
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusRead).Status, delivery.StatusRead, "and it was read")
		k.is(k.tally(delivery.CampaignID{}), store.Tally{delivery.SMS: {delivery.StatusRead: 1}}, "it counts once")
	}},
	{"a late winner while the next leg is under way: both are recorded, the message counts once", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		k.handOff(id)
		k.tick(5 * time.Minute)
		k.sweep()
		c := k.claim(id)[0]
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusDelivered).Status, delivery.StatusDelivered, "the receipt")
		k.is(k.settle(sentOf(c)), store.Settled{Applied: true, Status: delivery.StatusDelivered}, "the answer")
		m := k.message(id)
		k.is([]any{m.Legs[1].Status, m.Legs[1].ProviderID, k.winner(id)}, []any{delivery.StatusSent, sentOf(c).ProviderID, 0},
			"the second leg")
		k.is(k.says(id, delivery.SMS, delivery.StatusUndelivered).Changed, false, "its receipt")
		k.is(k.statuses(id), []delivery.Status{delivery.StatusDelivered, delivery.StatusUndelivered}, "legs")
		k.says(id, delivery.SMS, delivery.StatusDelivered)
		k.is([]any{k.winner(id), k.message(id).Status}, []any{0, delivery.StatusDelivered}, "the first winner stays")
	}},
	{"a winner that turns out not to have arrived leaves it to the leg that came second", func(k *kit) {
		k.accounts()
		id := k.accept(legs(delivery.WhatsApp, delivery.SMS), func(m *store.NewMessage) {
			m.Then[0].Success = delivery.StatusSent
		})
		k.handOff(id)
		k.says(id, delivery.WhatsApp, delivery.StatusUndelivered)
		k.handOff(id)
		k.is(k.winner(id), 1, "to be handed over is its success")
		k.says(id, delivery.WhatsApp, delivery.StatusDelivered)
		k.is(k.winner(id), 1, "the first to have its success")
		k.says(id, delivery.SMS, delivery.StatusUndelivered)
		k.is(k.winner(id), 0, "the one that arrived after all")
	}},
	{"a late winner after the last leg was refused moves the message all the same", func(k *kit) {
		k.accounts()
		id := k.accept(twoLegs)
		k.handOff(id)
		k.tick(5 * time.Minute)
		k.sweep()
		k.claim(id)
		k.settle(store.Outcome{ID: id, Epoch: 2, Status: delivery.StatusFailed, Reason: "no", Attempted: true, NextLeg: true})
		k.status(id, delivery.StatusFailed, "the last leg is refused")
		k.says(id, delivery.WhatsApp, delivery.StatusUndelivered)
		k.status(id, delivery.StatusFailed, "what is no success is only recorded")
		k.says(id, delivery.SMS, delivery.StatusSent)
		k.report(delivery.Receipt{Account: legAccounts[delivery.Email], Message: id, Status: delivery.StatusDelivered,
			At: k.now})
		k.status(id, delivery.StatusFailed, "a receipt of a channel that it has no leg on")
		id = k.accept(twoLegs)
		k.handOff(id)
		k.tick(5 * time.Minute)
		k.sweep()
		k.claim(id)
		k.settle(store.Outcome{ID: id, Epoch: 2, Status: delivery.StatusFailed, Reason: "no", Attempted: true, NextLeg: true})
		k.says(id, delivery.WhatsApp, delivery.StatusRead)
		k.status(id, delivery.StatusRead, "a late winner")
	}},
	{"a leg in doubt makes no way, whatever its time, and a doubt that ends ends the message", func(k *kit) {
		k.accounts()
		doubt := store.Outcome{Status: delivery.StatusAmbiguous, Reason: "timeout", Attempted: true, Until: k.now}
		for _, end := range []delivery.Status{delivery.StatusUnknown, delivery.StatusFailed} {
			id := k.accept(twoLegs)
			k.claim(id)
			doubt.ID, doubt.Epoch = id, 1
			k.settle(doubt)
			k.tick(10 * time.Minute)
			k.sweep()
			k.is(k.message(id).Leg, 0, "while it is in doubt")
			got := k.settle(store.Outcome{ID: id, Epoch: 1, Writer: delivery.ByPlan, Status: end, Reason: "policy",
				NextLeg: end == delivery.StatusFailed})
			k.is(got, store.Settled{Applied: true, Status: end}, "the person may have it")
		}
		id := k.accept(twoLegs)
		k.claim(id)
		doubt.ID = id
		k.settle(doubt)
		k.tick(10 * time.Minute)
		k.settle(store.Outcome{ID: id, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: "retry",
			Until: k.now, Duplicate: true})
		got := k.claim(id)
		k.is([]any{len(got), got[0].Leg, got[0].PossibleDuplicate, got[0].Last}, []any{1, 0, true, delivery.AccountID{}},
			"its retry goes by the same leg, though its time is over")
		ready := k.settle(store.Outcome{ID: id, Epoch: 2, Status: delivery.StatusFailed, Reason: "no", Attempted: true,
			NextLeg: true})
		k.is(ready.Status, delivery.StatusQueued, "a refusal settles the doubt")
		k.is([]any{k.statuses(id)[0], k.message(id).PossibleDuplicate}, []any{delivery.StatusUnknown, true},
			"the first attempt may have arrived all the same")
	}},
	{"a doubt belongs to its leg, and an answer of any of its attempts that comes later is kept there", func(k *kit) {
		k.accounts()
		id := k.accept(legs(delivery.WhatsApp, delivery.SMS, delivery.Email))
		first := k.claim(id)[0]
		k.settle(store.Outcome{ID: id, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout", Attempted: true,
			Until: k.now})
		k.settle(store.Outcome{ID: id, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: "retry",
			Until: k.now, Duplicate: true})
		k.claim(id)
		k.settle(store.Outcome{ID: id, Epoch: 2, Status: delivery.StatusFailed, Reason: "no", Attempted: true, NextLeg: true})
		k.is(k.statuses(id)[0], delivery.StatusUnknown, "the first leg")
		k.is(k.settle(sentOf(first)).Applied, false, "the answer of its first attempt is late")
		k.is(k.statuses(id)[0], delivery.StatusSent, "and is kept at the leg")
		k.tick(5 * time.Minute)
		k.is(len(k.claim(id)), 0, "the second leg's time is over")
		k.is(k.statuses(id), []delivery.Status{delivery.StatusSent, delivery.StatusExpired, delivery.StatusQueued},
			"the second leg was never in doubt")
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusDelivered).Status, delivery.StatusDelivered,
			"the first leg's receipts are found")
	}},
	{"a doubt that the provider denies lets the leg's end count again", func(k *kit) {
		id := k.accept(twoLegs)
		k.claim(id)
		k.settle(store.Outcome{ID: id, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout", Attempted: true,
			Until: k.now})
		k.tick(10 * time.Minute)
		got := k.settle(store.Outcome{ID: id, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued,
			Reason: "not_taken", Until: k.now})
		k.is([]any{got.Status, len(got.Ready), k.message(id).Leg}, []any{delivery.StatusQueued, 1, 1}, "the next leg")
	}},
	{"no next leg begins after the message's own end", func(k *kit) {
		k.accounts()
		short := func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(4 * time.Minute) }
		sent, waiting := k.accept(twoLegs, short), k.accept(twoLegs, short)
		k.handOff(sent)
		k.tick(5 * time.Minute)
		k.is(len(k.sweep()), 0, "of a handed-off leg")
		m := k.message(sent)
		k.is([]any{m.Status, m.Leg, m.DueAt.IsZero()}, []any{delivery.StatusSent, 0, true}, "it only loses its deadline")
		k.is(k.says(sent, delivery.WhatsApp, delivery.StatusUndelivered).Status, delivery.StatusUndelivered,
			"nor by a receipt")
		k.is(len(k.claim(waiting)), 0, "of a waiting one")
		k.status(waiting, delivery.StatusExpired, "it expires")
	}},
	{"a message that is stopped or expires says whether an earlier leg was handed off", func(k *kit) {
		k.accounts()
		after := func(change ...func(*store.NewMessage)) delivery.MessageID {
			id := k.accept(append([]func(*store.NewMessage){twoLegs}, change...)...)
			k.handOff(id)
			k.tick(5 * time.Minute)
			k.sweep()
			k.is(k.message(id).Leg, 1, "it waits on its second leg")
			return id
		}
		id := after()
		st, err := k.s.Cancel(k.ctx, acme, id, k.now)
		k.fails(err, store.ErrConflict, "a cancel that is too late for one leg")
		k.is(st, delivery.StatusSent, "the status after it")
		k.is([]any{k.statuses(id), len(k.claim(id))}, []any{[]delivery.Status{delivery.StatusSent, delivery.StatusCanceled},
			0},
			"the second leg is stopped")
		k.is(k.says(id, delivery.WhatsApp, delivery.StatusDelivered).Status, delivery.StatusDelivered,
			"what came of the first")
		id = after()
		k.says(id, delivery.WhatsApp, delivery.StatusUndelivered)
		st, err = k.s.Cancel(k.ctx, acme, id, k.now)
		k.fails(err, store.ErrConflict, "a cancel")
		k.is(st, delivery.StatusUndelivered, "the first did not arrive")
		id = after(func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(6 * time.Minute) })
		k.tick(time.Minute)
		k.is(len(k.claim(id)), 0, "it has expired")
		k.status(id, delivery.StatusSent, "and was handed off")
		id = k.accept(twoLegs)
		st, err = k.s.Cancel(k.ctx, acme, id, k.now)
		k.ok(err)
		k.is(st, delivery.StatusCanceled, "nobody has it")
		id = k.claimed().ID
		k.settle(store.Outcome{ID: id, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout", Attempted: true,
			Until: k.now})
		k.settle(store.Outcome{ID: id, Epoch: 1, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: "r",
			Until: k.now, Duplicate: true})
		st, err = k.s.Cancel(k.ctx, acme, id, k.now)
		k.fails(err, store.ErrConflict, "a cancel of a message in doubt")
		k.is(st, delivery.StatusUnknown, "nobody knows")
	}},
	{"a scheduled message's first leg begins at its time", func(k *kit) {
		id := k.accept(twoLegs, dueAt(k.now.Add(time.Hour)))
		m := k.message(id)
		k.is([]any{m.Status, m.DueAt, m.Legs[0].Until}, []any{delivery.StatusScheduled, k.now.Add(time.Hour),
			k.now.Add(65 * time.Minute)}, "the message")
	}},
	{"a paused campaign stops its messages' legs too", func(k *kit) {
		c := k.campaign("diwali", 1)
		m := k.draft(twoLegs)
		_, err := k.s.Expand(k.ctx, acme, c.ID, store.Slice{Now: k.now, To: 1, Messages: []store.NewMessage{m}, Done: true})
		k.ok(err)
		k.moved(c, running(store.CampaignRunning), store.CampaignPaused)
		k.tick(time.Hour)
		k.is(len(k.claim(m.ID)), 0, "a claim")
		k.is(k.message(m.ID).Leg, 0, "its leg")
		k.is(k.message(m.ID).DueAt.After(k.now), true, "nothing looks at it until the campaign moves on")
		k.moved(c, running(store.CampaignPaused), store.CampaignRunning)
		k.is(len(k.claim(m.ID)), 0, "its time was over meanwhile")
		k.is(k.message(m.ID).Leg, 1, "its leg")
		k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusQueued: 1}}, "the campaign's tally")
	}},
}
