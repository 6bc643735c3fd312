package storetest

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// inOrder makes a message of one line.
func inOrder(key string) func(*store.NewMessage) {
	return func(m *store.NewMessage) { m.To, m.OrderingKey = "+15558001", key }
}

var orderTests = []sentence{
	orderMachine,
	{"a message waits for the one before it with the same key, address, channel and tenant, and for no other",
		func(k *kit) {
			first := k.draft(inOrder("a"))
			second := k.draft(inOrder("a"))
			out := k.acceptAs(acme, first, second)
			k.is(out.Results, []store.AcceptResult{{ID: first.ID, Status: delivery.StatusQueued},
				{ID: second.ID, Status: delivery.StatusHeld, Reason: store.ReasonOrdered}}, "within one acceptance")
			k.reopen()
			third := k.accept(inOrder("a"))
			k.is(k.message(third).Status, delivery.StatusHeld, "in a later one")
			m := k.message(second.ID)
			k.is([]any{m.Reason, m.OrderingKey, m.DueAt}, []any{store.ReasonOrdered, "a", m.ExpiresAt}, "the message")
			for what, change := range map[string]func(*store.NewMessage){
				"another key": inOrder("b"), "no key": inOrder(""),
				"another address": func(m *store.NewMessage) { m.OrderingKey = "a" },
				"another channel": func(m *store.NewMessage) { inOrder("a")(m); m.Channel = delivery.WhatsApp },
			} {
				k.is(k.message(k.accept(change)).Status, delivery.StatusQueued, "%s", what)
			}
			k.is(k.acceptAs(other, k.draft(inOrder("a"))).Results[0].Status, delivery.StatusQueued, "another tenant")
			k.is(len(k.claim(second.ID, third)), 0, "they are not claimed")
		}},
	{"however the message before it ends, the next goes, in the same step", func(k *kit) {
		leave := map[string]func(c store.Claimed) []store.Ready{
			"sent": func(c store.Claimed) []store.Ready {
				return k.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Status: delivery.StatusSent, ProviderID: "x"}).Ready
			},
			"failed": func(c store.Claimed) []store.Ready {
				return k.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Status: delivery.StatusFailed, Reason: "r"}).Ready
			},
			"unknown": func(c store.Claimed) []store.Ready {
				k.is(len(k.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Status: delivery.StatusAmbiguous, Reason: "r",
					Until: k.now}).Ready), 0, "a doubt keeps the next waiting")
				return k.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusUnknown,
					Reason: "r"}).Ready
			},
			"a receipt that overtakes": func(c store.Claimed) []store.Ready {
				r := receipt("", delivery.StatusDelivered)
				r.Message = c.ID
				return k.report(r)[0].Ready
			},
			"canceled after a return": func(c store.Claimed) []store.Ready {
				k.is(len(k.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Status: delivery.StatusDeferred, Reason: "r",
					Until: k.now}).Ready), 0, "a deferral keeps the next waiting")
				_, err := k.s.Cancel(k.ctx, acme, c.ID, k.now)
				k.ok(err)
				return nil
			},
		}
		for what, f := range leave {
			key := inOrder(what)
			first := k.claimed(key)
			second, third := k.accept(key), k.accept(key)
			k.tick(time.Second)
			ready := f(first)
			if ready != nil || what != "canceled after a return" {
				k.is(ready, []store.Ready{{ID: second, Queue: acmeSMS}}, "%s: ready", what)
			}
			m := k.message(second)
			k.is([]any{m.Status, m.Reason, m.DueAt}, []any{delivery.StatusQueued, "", m.AcceptedAt},
				"%s: the next, at its place", what)
			k.is(len(k.claim(second)), 1, "%s: it can be claimed", what)
			k.status(third, delivery.StatusHeld, what+": and only it")
		}
	}},
	{"the next goes when the one before it is suppressed or expires at its claim, or its campaign is stopped",
		func(k *kit) {
			first := k.accept(inOrder("a"), func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(time.Minute) })
			second := k.accept(inOrder("a"))
			k.tick(time.Minute)
			k.claim(first)
			k.status(second, delivery.StatusQueued, "after an expiry")
			k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{To: "+15558001", Reason: "stop", At: k.now}}))
			third := k.accept(inOrder("a"))
			k.status(third, delivery.StatusSuppressed, "a suppressed message stands in no line")
			k.claim(second)
			k.ok(k.s.Unsuppress(k.ctx, acme, 0, "+15558001"))
			k.status(k.accept(inOrder("a")), delivery.StatusQueued, "after a suppression the line is empty")

			c := k.campaign("diwali", 2)
			ms := []store.NewMessage{k.draft(inOrder("c")), k.draft(inOrder("c"))}
			_, err := k.s.Expand(k.ctx, acme, c.ID, store.Slice{Now: k.now, To: 2, Messages: ms, Done: true})
			k.ok(err)
			after := k.accept(inOrder("c"))
			k.moved(c, running(store.CampaignRunning), store.CampaignStopped)
			k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusCanceled: 2}}, "the stopped campaign")
			k.status(after, delivery.StatusQueued, "the one behind it")
		}},
	{"a paused campaign keeps the order of its messages", func(k *kit) {
		c := k.campaign("diwali", 2)
		ms := []store.NewMessage{k.draft(inOrder("c")), k.draft(inOrder("c"))}
		_, err := k.s.Expand(k.ctx, acme, c.ID, store.Slice{Now: k.now, To: 2, Messages: ms, Done: true})
		k.ok(err)
		k.moved(c, running(store.CampaignRunning), store.CampaignPaused)
		k.is(k.message(ms[1].ID).Reason, store.ReasonOrdered, "the second waits for the first, not for the campaign")
		k.moved(c, running(store.CampaignPaused), store.CampaignRunning)
		k.is(len(k.claim(ms[1].ID)), 0, "claims of the second")
		k.is(len(k.claim(ms[0].ID)), 1, "claims of the first")
	}},
	{"a scheduled message keeps the next waiting, and a next that is not due yet becomes scheduled", func(k *kit) {
		first := k.accept(inOrder("a"), dueAt(k.now.Add(time.Hour)))
		k.status(first, delivery.StatusScheduled, "the first")
		second := k.accept(inOrder("a"), dueAt(k.now.Add(2*time.Hour)))
		k.tick(time.Hour)
		k.is(len(k.claim(first)), 1, "the first goes")
		got := k.settle(store.Outcome{ID: first, Epoch: 1, Status: delivery.StatusSent})
		k.is(len(got.Ready), 0, "nothing is due by that")
		m := k.message(second)
		k.is([]any{m.Status, m.DueAt}, []any{delivery.StatusScheduled, k.now.Add(time.Hour)}, "the second")
	}},
	{"a message in the middle of its line ends without moving it, by cancel and by expiry", func(k *kit) {
		first := k.accept(inOrder("a"))
		second := k.accept(inOrder("a"))
		third := k.accept(inOrder("a"), func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(time.Minute) })
		fourth := k.accept(inOrder("a"))
		_, err := k.s.Cancel(k.ctx, acme, second, k.now)
		k.ok(err)
		k.tick(time.Minute)
		k.is(len(k.claim(third)), 0, "it is due at its expiry")
		k.status(third, delivery.StatusExpired, "its expiry is noticed")
		k.status(fourth, delivery.StatusHeld, "the last waits on")
		k.claim(first)
		got := k.settle(store.Outcome{ID: first, Epoch: 1, Status: delivery.StatusSent})
		k.is(got.Ready, []store.Ready{{ID: fourth, Queue: acmeSMS}}, "the next that is left")
	}},
	{"a message that goes on with another leg lets the next one go", func(k *kit) {
		first := k.accept(twoLegs, func(m *store.NewMessage) { m.OrderingKey = "a" })
		second := k.accept(twoLegs, func(m *store.NewMessage) { m.OrderingKey = "a" })
		k.status(second, delivery.StatusHeld, "the second")
		k.claim(first)
		got := k.settle(store.Outcome{ID: first, Epoch: 1, Status: delivery.StatusFailed, Reason: "r", NextLeg: true})
		k.is(got.Ready, []store.Ready{{ID: second, Queue: k.queueOf(delivery.WhatsApp)}, {ID: first,
			Queue: k.queueOf(delivery.SMS)}},
			"both are ready")
		third := k.accept(twoLegs, func(m *store.NewMessage) { m.OrderingKey = "a" })
		k.is(k.message(third).DueAt, k.now.Add(5*time.Minute), "a held message is due at its leg's end")
		k.tick(5 * time.Minute)
		k.is(len(k.claim(third)), 0, "then its time on this leg is over")
		k.is(k.message(third).Leg, 1, "its leg")
	}},
	{"nobody else wakes a message that waits for its turn", func(k *kit) {
		k.accept(inOrder("a"))
		k.accept(inOrder("a"))
		_, err := k.s.Wake(k.ctx, k.sys, k.now, store.Held{Reason: store.ReasonOrdered})
		k.is(err != nil, true, "a wake for that reason is refused")
	}},
}

var deadLetterTests = []sentence{
	{"dead letters are what ended without a hand-off that anybody knows of, newest first", func(k *kit) {
		dead := map[delivery.Status]delivery.MessageID{}
		for _, end := range []delivery.Status{delivery.StatusFailed, delivery.StatusExpired, delivery.StatusUnknown,
			delivery.StatusSuppressed, delivery.StatusCanceled, delivery.StatusSent} {
			c := k.claimed(func(m *store.NewMessage) { m.Tag = end.String() })
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: end, Reason: "r-" + end.String()})
			dead[end] = c.ID
		}
		k.accept()
		for what, want := range map[string]struct {
			q   store.DeadLetterQuery
			ids []delivery.MessageID
		}{
			"all": {store.DeadLetterQuery{}, []delivery.MessageID{dead[delivery.StatusUnknown],
				dead[delivery.StatusExpired], dead[delivery.StatusFailed]}},
			"status": {store.DeadLetterQuery{MessageQuery: store.MessageQuery{Status: delivery.StatusExpired}},
				[]delivery.MessageID{dead[delivery.StatusExpired]}},
			"reason": {store.DeadLetterQuery{Reason: "r-failed"}, []delivery.MessageID{dead[delivery.StatusFailed]}},
			"tag": {store.DeadLetterQuery{MessageQuery: store.MessageQuery{Tag: "unknown"}},
				[]delivery.MessageID{dead[delivery.StatusUnknown]}},
			"before": {store.DeadLetterQuery{MessageQuery: store.MessageQuery{Before: dead[delivery.StatusExpired]}},
				[]delivery.MessageID{dead[delivery.StatusFailed]}},
			"channel": {store.DeadLetterQuery{MessageQuery: store.MessageQuery{Channel: delivery.Email}}, nil},
		} {
			want.q.Limit = 10
			page, err := k.s.DeadLetters(k.ctx, acme, want.q)
			k.ok(err)
			var ids []delivery.MessageID
			for _, m := range page {
				ids = append(ids, m.ID)
			}
			k.is(ids, want.ids, "by %s", what)
		}
		page, err := k.s.DeadLetters(k.ctx, other, store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 10}})
		k.ok(err)
		k.is(len(page), 0, "another tenant's")
		_, err = k.s.DeadLetters(k.ctx, acme, store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 10,
			Status: delivery.StatusSent}})
		k.is(err != nil, true, "a status that no dead letter has")
		_, err = k.s.DeadLetters(k.ctx, acme, store.DeadLetterQuery{})
		k.is(err != nil, true, "no limit")
	}},
	{"a redriven message goes again under its id, with new time and no attempts", func(k *kit) {
		c := k.claimed(func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(time.Hour) })
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusFailed, Account: account, Reason: "r",
			Attempted: true})
		alive := k.accept()
		k.tick(24 * time.Hour)
		nobody := k.ids.Message()
		got, err := k.s.Redrive(k.ctx, acme, []delivery.MessageID{c.ID, alive, nobody, c.ID}, k.now, k.now.Add(time.Hour))
		k.ok(err)
		k.is(got, []store.Redriven{{Done: true, Status: delivery.StatusQueued, Queue: acmeSMS},
			{Status: delivery.StatusQueued}, {}, {Status: delivery.StatusQueued}}, "results")
		k.reopen()
		m := k.message(c.ID)
		k.is([]any{m.Status, m.DueAt, m.ExpiresAt, m.Attempts, m.PossibleDuplicate},
			[]any{delivery.StatusQueued, k.now, k.now.Add(time.Hour), 0, false}, "the message")
		fs := k.facts(c.ID)
		k.is(fs[len(fs)-1], delivery.Fact{Message: c.ID, Kind: delivery.FactRedriven, At: k.now,
			Status: delivery.StatusQueued,
			Code:   store.ReasonRedriven, Until: k.now.Add(time.Hour)}, "the fact")
		again := k.claim(c.ID)
		k.is([]any{len(again), again[0].Epoch, again[0].Attempts, again[0].Last}, []any{1, 2, 0, account}, "its claim")
		_, err = k.s.Redrive(k.ctx, acme, []delivery.MessageID{c.ID}, k.now, k.now)
		k.is(err != nil, true, "an expiry that is over")
		_, err = k.s.Redrive(k.ctx, acme, make([]delivery.MessageID, 1001), k.now, k.now.Add(time.Hour))
		k.is(err != nil, true, "too many ids")
		got, err = k.s.Redrive(k.ctx, other, []delivery.MessageID{alive}, k.now, k.now.Add(time.Hour))
		k.ok(err)
		k.is(got, []store.Redriven{{}}, "another tenant's message")
		n, err := k.s.Usage(k.ctx, acme, k.now)
		k.ok(err)
		k.is(n, int64(0), "a redrive is no acceptance")
	}},
	{"a redriven message that may have arrived is marked as a possible duplicate", func(k *kit) {
		doubt := func(end delivery.Status) delivery.MessageID {
			c := k.claimed()
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "r", Until: k.now,
				Attempted: true})
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.ByPlan, Status: end, Reason: "r"})
			return c.ID
		}
		ids := []delivery.MessageID{doubt(delivery.StatusUnknown), doubt(delivery.StatusFailed),
			doubt(delivery.StatusExpired)}
		k.status(ids[2], delivery.StatusUnknown, "an expiry in doubt")
		_, err := k.s.Redrive(k.ctx, acme, ids, k.now, k.now.Add(time.Hour))
		k.ok(err)
		for _, c := range k.claim(ids...) {
			k.is(c.PossibleDuplicate, true, "the mark")
		}
	}},
	{"a leg of a redriven message begins its time anew", func(k *kit) {
		id := k.accept(twoLegs, func(m *store.NewMessage) { m.ExpiresAt = k.now.Add(time.Minute) })
		k.tick(time.Hour)
		k.claim(id)
		k.status(id, delivery.StatusExpired, "it expired on its first leg")
		_, err := k.s.Redrive(k.ctx, acme, []delivery.MessageID{id}, k.now, k.now.Add(time.Hour))
		k.ok(err)
		got := k.claim(id)
		k.is([]any{len(got), got[0].Leg, got[0].LegUntil}, []any{1, 0, k.now.Add(5 * time.Minute)}, "its claim")
	}},
	{"a redriven message of a line neither waits in it nor holds it up", func(k *kit) {
		first := k.claimed(inOrder("a"))
		second := k.accept(inOrder("a"))
		k.settle(store.Outcome{ID: first.ID, Epoch: 1, Status: delivery.StatusFailed, Reason: "r"})
		third := k.accept(inOrder("a"))
		_, err := k.s.Redrive(k.ctx, acme, []delivery.MessageID{first.ID}, k.now, k.now.Add(time.Hour))
		k.ok(err)
		k.is(len(k.claim(first.ID, second, third)), 2, "it and the first of the line")
		k.settle(store.Outcome{ID: first.ID, Epoch: 2, Status: delivery.StatusSent})
		k.status(third, delivery.StatusHeld, "its end lets nobody go")
	}},
	{"a dropped dead letter keeps its status and is listed no more", func(k *kit) {
		c := k.claimed()
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusFailed, Reason: "r"})
		got, err := k.s.Drop(k.ctx, acme, []delivery.MessageID{c.ID, c.ID}, k.now)
		k.ok(err)
		k.is(got, []store.Redriven{{Done: true, Status: delivery.StatusFailed}, {Status: delivery.StatusFailed}}, "results")
		k.reopen()
		m := k.message(c.ID)
		k.is([]any{m.Status, m.Reason, m.Dropped}, []any{delivery.StatusFailed, "r", true}, "the message")
		page, err := k.s.DeadLetters(k.ctx, acme, store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 10}})
		k.ok(err)
		k.is(len(page), 0, "listed")
		got, err = k.s.Redrive(k.ctx, acme, []delivery.MessageID{c.ID}, k.now, k.now.Add(time.Hour))
		k.ok(err)
		k.is(got[0].Done, false, "it is not redriven")
		k.is(k.kinds(c.ID)[3], delivery.FactDropped, "the fact")
	}},
}
