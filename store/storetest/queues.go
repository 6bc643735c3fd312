package storetest

import (
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func dueAt(at time.Time) func(*store.NewMessage) { return func(m *store.NewMessage) { m.DueAt = at } }

var acmeSMS = delivery.Queue{Tenant: acme, Channel: delivery.SMS, Lane: delivery.Normal}

var queueTests = []sentence{
	{"due queues are those with a due message, with the due time of its first", func(k *kit) {
		k.accept(dueAt(k.now.Add(-time.Minute)))
		k.accept()
		k.accept(func(m *store.NewMessage) { m.Lane = delivery.Bulk })
		k.accept(func(m *store.NewMessage) { m.Channel, m.DueAt = delivery.Email, k.now.Add(time.Second) })
		k.acceptAs(other, k.draft(func(m *store.NewMessage) { m.Channel = delivery.Webhook }))
		k.claimed(func(m *store.NewMessage) { m.Lane = delivery.Urgent })
		got, err := k.s.DueQueues(k.ctx, k.sys, k.now)
		k.ok(err)
		slices.SortFunc(got, func(a, b store.DueQueue) int { return compareText(a.Queue.String(), b.Queue.String()) })
		k.is(got, []store.DueQueue{
			{Queue: delivery.Queue{Tenant: acme, Channel: delivery.SMS, Lane: delivery.Bulk}, Oldest: k.now},
			{Queue: acmeSMS, Oldest: k.now.Add(-time.Minute)},
			{Queue: delivery.Queue{Tenant: other, Channel: delivery.Webhook, Lane: delivery.Normal}, Oldest: k.now},
		}, "due queues")
	}},
	{"due ids come oldest due time first, page by page, each once", func(k *kit) {
		var want []delivery.MessageID
		byDue := map[int][]delivery.MessageID{}
		for i := range 20 {
			late := (i * 7) % 5
			byDue[late] = append(byDue[late], k.accept(dueAt(k.now.Add(-time.Duration(late)*time.Second))))
		}
		for late := 4; late >= 0; late-- {
			want = append(want, byDue[late]...)
		}
		k.accept(dueAt(k.now.Add(time.Second)))
		var got []delivery.MessageID
		var mark store.DueMark
		for {
			ids, next, err := k.s.Due(k.ctx, k.sys, acmeSMS, k.now, mark, 3)
			k.ok(err)
			if len(ids) == 0 {
				k.is(next, mark, "the mark stays at the end")
				break
			}
			got, mark = append(got, ids...), next
		}
		k.is(got, want, "all pages")
	}},
	{"due ids are those that a claim would take, of one queue", func(k *kit) {
		taken := k.claimed()
		deferred := k.claimed()
		k.settle(store.Outcome{ID: deferred.ID, Epoch: 1, Status: delivery.StatusDeferred, Reason: "r", Until: k.now})
		held := k.claimed()
		k.settle(store.Outcome{ID: held.ID, Epoch: 1, Status: delivery.StatusHeld, Reason: "r",
			Until: k.now.Add(time.Second)})
		k.sent("p")
		ids, _, err := k.s.Due(k.ctx, k.sys, acmeSMS, k.now, store.DueMark{}, 100)
		k.ok(err)
		k.is(ids, []delivery.MessageID{deferred.ID}, "due, without %s and %s", taken.ID, held.ID)
		ids, _, err = k.s.Due(k.ctx, k.sys, delivery.Queue{Tenant: "nobody", Channel: delivery.SMS, Lane: delivery.Normal},
			k.now, store.DueMark{}, 100)
		k.ok(err)
		k.is(len(ids), 0, "a queue of nobody")
	}},
	{"overdue are leases that have run out and ambiguous attempts that are due, oldest first", func(k *kit) {
		amb := k.claimed(func(m *store.NewMessage) { m.AtMostOnce = true })
		k.settle(store.Outcome{ID: amb.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Account: account, Reason: "timeout",
			Until: k.now.Add(30 * time.Second), Attempted: true})
		lease := k.claimed()
		got, err := k.s.Overdue(k.ctx, k.sys, k.now, "", 10)
		k.ok(err)
		k.is(len(got), 0, "before their time")
		k.tick(time.Minute)
		got, err = k.s.Overdue(k.ctx, k.sys, k.now, "", 10)
		k.ok(err)
		k.is(got, []store.Overdue{
			{ID: amb.ID, Queue: acmeSMS, Status: delivery.StatusAmbiguous, Epoch: 1, Account: account, Attempts: 1,
				AtMostOnce: true,
				DueAt:      k.now.Add(-30 * time.Second), ExpiresAt: amb.ExpiresAt},
			{ID: lease.ID, Queue: acmeSMS, Status: delivery.StatusSending, Epoch: 1, Node: node, DueAt: k.now,
				ExpiresAt: lease.ExpiresAt},
		}, "overdue")
		got, err = k.s.Overdue(k.ctx, k.sys, k.now, "", 1)
		k.ok(err)
		k.is(len(got), 1, "limit")
	}},
	{"overdue of a node is all it has under lease, run out or not", func(k *kit) {
		mine := k.claimed()
		theirs := k.accept()
		_, err := k.s.Claim(k.ctx, k.sys, store.Claim{IDs: []delivery.MessageID{theirs}, Node: "node-2", Now: k.now,
			Until: k.now.Add(time.Minute)})
		k.ok(err)
		amb := k.claimed()
		k.settle(store.Outcome{ID: amb.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "timeout", Until: k.now})
		k.reopen()
		got, err := k.s.Overdue(k.ctx, k.sys, k.now, node, 10)
		k.ok(err)
		k.is(len(got), 1, "how many")
		k.is(got[0].ID, mine.ID, "which")
	}},
	{"next due is the earliest due time, lease end or settle time after now", func(k *kit) {
		next := func() time.Time {
			at, err := k.s.NextDue(k.ctx, k.sys, k.now)
			k.ok(err)
			return at
		}
		k.is(next().IsZero(), true, "of an empty store")
		k.accept()
		k.is(next().IsZero(), true, "what is due now does not count")
		k.accept(dueAt(k.now.Add(3 * time.Minute)))
		k.is(next(), k.now.Add(3*time.Minute), "a scheduled message")
		c := k.claimed()
		k.is(next(), k.now.Add(time.Minute), "the end of a lease")
		k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "t",
			Until: k.now.Add(30 * time.Second)})
		k.is(next(), k.now.Add(30*time.Second), "a settle time")
	}},
	{"wake makes messages held for a reason due now, of one account", func(k *kit) {
		hold := func(reason string, by delivery.AccountID) delivery.MessageID {
			c := k.claimed()
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusHeld, Account: by, Reason: reason,
				Until: k.now.Add(time.Hour)})
			return c.ID
		}
		a, b := hold("connector_down", account), hold("connector_down", delivery.AccountID{8})
		c := hold("quiet_hours", account)
		n, err := k.s.Wake(k.ctx, k.sys, k.now, store.Held{Reason: "connector_down", Account: account})
		k.ok(err)
		k.is(n, 1, "how many")
		k.is(k.message(a).DueAt, k.now, "due time of the woken")
		k.is(len(k.claim(a, b, c)), 1, "only the woken one can be claimed")
		n, err = k.s.Wake(k.ctx, k.sys, k.now, store.Held{Reason: "connector_down"})
		k.ok(err)
		k.is(n, 1, "all that are held for the reason")
		k.status(c, delivery.StatusHeld, "held for another reason")
	}},
	{"wake wakes no more than it is asked to", func(k *kit) {
		var ids []delivery.MessageID
		for range 5 {
			c := k.claimed()
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusHeld, Account: account, Reason: "connector_down",
				Until: k.now.Add(time.Hour)})
			ids = append(ids, c.ID)
		}
		for _, h := range []store.Held{{Account: account}, {Tenant: acme}} {
			h.Reason, h.Limit = "connector_down", 2
			n, err := k.s.Wake(k.ctx, k.sys, k.now, h)
			k.ok(err)
			k.is(n, 2, "how many")
			k.is(len(k.claim(ids...)), 2, "can be claimed")
		}
		n, err := k.s.Wake(k.ctx, k.sys, k.now, store.Held{Reason: "connector_down", Account: account, Limit: 2})
		k.ok(err)
		k.is(n, 1, "the rest")
	}},
	{"ahead counts the waiting messages of the queue that are due before, at most max", func(k *kit) {
		ids := k.several(5)
		k.accept(func(m *store.NewMessage) { m.Lane = delivery.Urgent })
		first := k.accept(dueAt(k.now.Add(-time.Second)))
		for _, want := range []struct {
			id     delivery.MessageID
			max, n int
		}{{first, 10, 0}, {ids[0], 10, 1}, {ids[4], 10, 5}, {ids[4], 2, 2}} {
			n, err := k.s.Ahead(k.ctx, acme, want.id, want.max)
			k.ok(err)
			k.is(n, want.n, "ahead of %s, at most %d", want.id, want.max)
		}
		k.claim(ids[0])
		n, err := k.s.Ahead(k.ctx, acme, ids[0], 10)
		k.ok(err)
		k.is(n, 0, "ahead of a message that is being sent")
		_, err = k.s.Ahead(k.ctx, other, ids[1], 10)
		k.fails(err, store.ErrNotFound, "another tenant's message")
	}},
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
