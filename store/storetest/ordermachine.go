package storetest

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var orderMachine = sentence{
	"sends, outcomes, cancels, expiries, redrives and drops at random: of each line only the first goes, the books are right",
	func(k *kit) {
		k.machine(func(r *run) {
			l := &lines{of: map[string][]delivery.MessageID{}}
			for range rapid.IntRange(5, 50).Draw(r.T, "steps") {
				r.lineStep(l)
				r.checkLines(l)
				r.books(l.accepted)
			}
		})
	},
}

// lines is what stands in each line, oldest first; free is what stands in none.
type lines struct {
	of       map[string][]delivery.MessageID
	free     []delivery.MessageID
	dead     []delivery.MessageID
	claims   []store.Claimed
	doubts   []store.Claimed
	accepted int64
}

var lineKeys = []string{"", "a", "b"}

func (r *run) lineStep(l *lines) {
	k := r.k
	pick := func(what string) (id delivery.MessageID, ok bool) {
		all := slices.Concat(l.of["a"], l.of["b"], l.free)
		if len(all) == 0 {
			return id, false
		}
		return rapid.SampledFrom(all).Draw(r.T, what), true
	}
	switch rapid.SampledFrom([]string{"accept", "accept", "claim", "claim", "claim", "settle", "settle", "settle",
		"decide", "wait",
		"cancel", "redrive", "drop"}).Draw(r.T, "step") {
	case "accept":
		r.acceptLines(l)
	case "claim":
		id, ok := pick("claim")
		if !ok {
			return
		}
		got := r.claim(id)
		r.did("claim %s: %d", id, len(got))
		if len(got) == 1 && !slices.Contains(l.free, id) && id != first(l.of["a"]) && id != first(l.of["b"]) {
			r.fatal("%s is claimed before those in front of it", id)
		}
		l.claims = append(l.claims, got...)
	case "settle":
		if len(l.claims) == 0 {
			return
		}
		n := rapid.IntRange(0, len(l.claims)-1).Draw(r.T, "of")
		c := l.claims[n]
		l.claims = slices.Delete(l.claims, n, n+1)
		o := store.Outcome{ID: c.ID, Epoch: c.Epoch, Writer: delivery.BySend, Reason: "r", Until: k.now.Add(time.Second),
			Attempted: true}
		o.Status = rapid.SampledFrom([]delivery.Status{delivery.StatusSent, delivery.StatusDeferred, delivery.StatusQueued,
			delivery.StatusHeld, delivery.StatusAmbiguous, delivery.StatusFailed, delivery.StatusExpired}).Draw(r.T, "outcome")
		got := r.settle(o)
		r.did("settle %s as %s: %v", c.ID, o.Status, got.Ready)
		r.readyIsNext(l, c.ID, got)
		if o.Status == delivery.StatusAmbiguous {
			l.doubts = append(l.doubts, c)
		}
	case "decide":
		if len(l.doubts) == 0 {
			return
		}
		c := l.doubts[0]
		l.doubts = l.doubts[1:]
		end := rapid.SampledFrom([]delivery.Status{delivery.StatusUnknown, delivery.StatusQueued,
			delivery.StatusSent}).Draw(r.T, "end")
		got := r.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Writer: delivery.ByPlan, Status: end, Reason: "r",
			Until:     k.now,
			Duplicate: true})
		r.did("doubt of %s ends %s: %v", c.ID, end, got.Ready)
		r.readyIsNext(l, c.ID, got)
	case "wait":
		d := rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second}).Draw(r.T, "d")
		k.tick(d)
		r.did("wait %v", d)
	case "cancel":
		if id, ok := pick("cancel"); ok {
			_, err := k.s.Cancel(k.ctx, r.tenant, id, k.now)
			r.did("cancel %s: %v", id, err == nil)
		}
	case "redrive":
		if len(l.dead) > 0 {
			id := rapid.SampledFrom(l.dead).Draw(r.T, "redrive")
			got, err := k.s.Redrive(k.ctx, r.tenant, []delivery.MessageID{id}, k.now, k.now.Add(time.Minute))
			r.ok(err)
			r.did("redrive %s: %v", id, got[0].Done)
			if got[0].Done {
				l.free = append(l.free, id)
			}
		}
	case "drop":
		if len(l.dead) > 0 {
			id := l.dead[0]
			_, err := k.s.Drop(k.ctx, r.tenant, []delivery.MessageID{id}, k.now)
			r.ok(err)
			r.did("drop %s", id)
		}
	}
}

func (r *run) acceptLines(l *lines) {
	k := r.k
	a := store.Acceptance{Now: k.now}
	var keys []string
	for range rapid.IntRange(1, 4).Draw(r.T, "batch") {
		key := rapid.SampledFrom(lineKeys).Draw(r.T, "key")
		keys = append(keys, key)
		m := k.draft(inOrder(key))
		m.ExpiresAt = k.now.Add(rapid.SampledFrom([]time.Duration{20 * time.Second, time.Hour}).Draw(r.T, "ttl"))
		m.DueAt = k.now.Add(rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(r.T, "due"))
		a.Messages = append(a.Messages, m)
	}
	_, err := k.s.Accept(k.ctx, r.tenant, a)
	r.ok(err)
	for i, m := range a.Messages {
		r.did("accept %s in %q", m.ID, keys[i])
		if keys[i] == "" {
			l.free = append(l.free, m.ID)
		} else {
			l.of[keys[i]] = append(l.of[keys[i]], m.ID)
		}
	}
	l.accepted += int64(len(a.Messages))
}

// readyIsNext wants the call that ended the first of a line to name the next one, if that is due.
func (r *run) readyIsNext(l *lines, id delivery.MessageID, got store.Settled) {
	var want []store.Ready
	for _, line := range l.of {
		if len(line) > 1 && line[0] == id && !got.Status.Waiting() && r.message(line[1]).Status == delivery.StatusQueued {
			q := acmeSMS
			q.Tenant = r.tenant
			want = append(want, store.Ready{ID: line[1], Queue: q})
		}
	}
	if fmt.Sprint(got.Ready) != fmt.Sprint(want) {
		r.fatal("ready is %v, it should be %v", got.Ready, want)
	}
}

// checkLines takes out what has ended, and looks at who waits for whom.
func (r *run) checkLines(l *lines) {
	ended := func(id delivery.MessageID) bool {
		m := r.message(id)
		switch m.Status {
		case delivery.StatusFailed, delivery.StatusExpired, delivery.StatusUnknown:
			if !slices.Contains(l.dead, id) {
				l.dead = append(l.dead, id)
			}
		}
		return !m.Status.Waiting()
	}
	l.free = slices.DeleteFunc(l.free, ended)
	for _, key := range lineKeys[1:] {
		l.of[key] = slices.DeleteFunc(l.of[key], ended)
		for place, id := range l.of[key] {
			m := r.message(id)
			blocked := m.Status == delivery.StatusHeld && m.Reason == store.ReasonOrdered
			if blocked != (place > 0) {
				r.fatal("place %d of line %q is %s %q", place, key, m.Status, m.Reason)
			}
		}
	}
	for _, id := range l.free {
		if m := r.message(id); m.Reason == store.ReasonOrdered {
			r.fatal("%s waits in no line", id)
		}
	}
}

func first(ids []delivery.MessageID) (id delivery.MessageID) {
	if len(ids) > 0 {
		return ids[0]
	}
	return id
}
