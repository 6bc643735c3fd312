package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// fill puts the blank database in place.
func (w *world) fill() error {
	return os.WriteFile(filepath.Join(w.dir, "msgctl.db"), w.opt.Blank, 0o600)
}

// perform does what an act says. What goes through the API waits at the gate in a goroutine of its own.
func (w *world) perform(a act) {
	if journal, ok := strings.CutPrefix(a.what, "launch "); ok {
		w.logf("launch %d", w.launched)
		w.launch(journal)
		return
	}
	switch a.what {
	case "heal":
		w.heal()
		return
	case "resume":
		w.pause(a, false)
		return
	case "turn":
		d := []time.Duration{-90 * time.Second, -3 * time.Second, 2 * time.Second, 10 * time.Minute}[w.rnd.IntN(4)]
		w.logf("the wall clock is turned by %s", d)
		w.clock.turn(d)
		w.turned, w.stretched = true, w.passed()
		return
	case "outage":
		w.logf("the store cannot be written for %s", a.take)
		w.outUntil = w.passed() + a.take
		return
	}
	p := w.now
	if p == nil || !p.up.Load() || p.hurry != nil {
		a.at = w.passed() + time.Second
		if a.what == "kill" && p != nil { // while it starts or drains is a good time too
			w.killIn = 1 + w.rnd.IntN(40)
			return
		}
		w.plan(a)
		return
	}
	switch a.what {
	case "accept":
		w.accept(p, a)
	case "kill":
		w.killIn = 1 + w.rnd.IntN(40)
	case "restart":
		w.logf("drain")
		p.drain()
	case "pause":
		w.pause(a, true)
	case "replace":
		w.logf("replace %s", w.accounts[a.n].name)
		p.setAccounts(w.accounts[a.n])
		w.wake(p)
	case "cancel":
		w.cancel(p, w.messages[a.n])
	case "suppress", "unsuppress":
		w.suppress(p, w.messages[a.n], a.what == "suppress")
	case "stop":
		w.personWrites(w.messages[a.n])
	case "tenant":
		w.changeTenant(p, a.n)
	case "stranger":
		at := w.clock.Now().Truncate(time.Second)
		w.plan(act{at: w.passed(), what: "receipt", receipt: &report{
			Ref: fmt.Sprintf("nobody-%d", w.rnd.IntN(3)), Status: "delivered", At: at, a: w.accounts[a.n], nth: -1,
		}})
	case "receipt":
		w.report(p, a)
	case "redrive", "drop":
		w.deadLetters(p, w.tenants[a.n].ID, a.what == "redrive")
	default:
		panic("sim: no such act: " + a.what)
	}
}

// heal ends everything that goes wrong. From now on whatever can go must go.
func (w *world) heal() {
	w.healed, w.busySince, w.outUntil = true, w.passed(), 0
	w.logf("healed")
	for _, a := range w.accounts {
		if a.paused {
			w.plan(act{at: w.passed(), what: "resume", n: a.n})
		}
	}
}

func (w *world) accept(p *process, a act) {
	req := store.Acceptance{Now: w.clock.Now(), Key: &store.IdempotencyKey{
		Route: "POST /v1/messages", Key: fmt.Sprintf("batch%d", a.n), Fingerprint: [32]byte{byte(a.n)},
		Expires: w.clock.Now().Add(72 * time.Hour),
	}}
	var batch []*message
	for _, m := range w.messages {
		if m.batch != a.n {
			continue
		}
		if m.id.IsZero() {
			m.id = messageID(w.seed, m.n, req.Now)
			m.due, m.expires = req.Now.Add(m.delay), req.Now.Add(m.ttl)
			w.byID[m.id] = m
		}
		batch = append(batch, m)
		req.Messages = append(req.Messages, m.stored())
	}
	go func() {
		done, err := p.pipe.Accept(w.ctx, batch[0].tenant, req)
		w.mu.Lock()
		w.write("accept batch %d of %d: replayed %t, %v", a.n, len(batch), done.Replayed, err)
		for _, m := range batch {
			m.accepted = m.accepted || err == nil
		}
		if err != nil && !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOutcomeUnknown) {
			w.broken("accept says %v", err)
		}
		w.mu.Unlock()
		if err != nil {
			a.at = w.passed() + 700*time.Millisecond
			w.plan(a)
		}
	}()
}

// pause takes an account out of use, or back into it.
func (w *world) pause(a act, paused bool) {
	acct := w.accounts[a.n]
	if w.now != nil && (!w.now.up.Load() || w.now.hurry != nil) {
		a.at = w.passed() + time.Second
		w.plan(a)
		return
	}
	acct.paused = paused && !w.healed
	w.logf("%s is paused: %t", acct.name, acct.paused)
	if w.now != nil {
		w.now.setAccounts(acct)
		w.wake(w.now)
	}
	if acct.paused {
		w.plan(act{at: w.passed() + a.take, what: "resume", n: a.n})
	}
}

// wake does what the engine does when accounts have changed.
func (w *world) wake(p *process) {
	go func() {
		for _, reason := range []string{routing.ReasonNoConnector, routing.ReasonConnectorPaused, routing.ReasonConnectorDown} {
			for p.pipe.Wake(w.ctx, reason) != nil {
				select {
				case <-time.After(time.Second):
				case <-p.gone:
					return
				}
			}
		}
	}()
}

func (w *world) cancel(p *process, m *message) {
	if !m.accepted {
		return
	}
	go func() {
		s, err := (&calls{p.store, p}).Cancel(w.ctx, m.tenant, m.id, w.clock.Now())
		w.mu.Lock()
		defer w.mu.Unlock()
		w.write("cancel %s: %s, %v", m, s, err)
		switch {
		case err == nil && s == delivery.StatusCanceled:
			m.canceled = true
		case err == nil:
			w.broken("a cancel of %s is answered with %s and no error", m, s)
		case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOutcomeUnknown):
			w.broken("a cancel is answered with %v", err)
		}
	}()
}

func (w *world) suppress(p *process, m *message, on bool) {
	c, to := &calls{p.store, p}, m.ways[0]
	go func() {
		var err error
		if on {
			err = c.Suppress(w.ctx, m.tenant, []store.Suppression{{
				Channel: to.channel, To: to.to, Reason: "manual", Source: "api", At: w.clock.Now(),
			}})
		} else if err = c.Unsuppress(w.ctx, m.tenant, to.channel, to.to); errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		w.logf("suppress %s %s: %t, %v", m.tenant, to.to, on, err)
	}()
}

// personWrites makes the person of a message send STOP to an account of its channel.
func (w *world) personWrites(m *message) {
	for _, a := range w.accounts {
		if a.channel == m.ways[0].channel && a.usableBy(m.tenant) {
			w.plan(act{at: w.passed(), what: "receipt", receipt: &report{
				From: m.ways[0].to, Text: "STOP", Ref: "in-" + m.String(), At: w.clock.Now(), a: a, nth: -2,
			}})
			return
		}
	}
}

func (w *world) changeTenant(p *process, n int) {
	t := &w.tenants[n]
	t.OnAmbiguous = []string{"", "retry", "hold", "fail"}[w.rnd.IntN(4)]
	t.RerouteInDoubt, t.Weight = w.rnd.IntN(2) == 0, w.rnd.IntN(4)
	t.Rates = nil
	if w.rnd.IntN(3) == 0 {
		t.Rates = []store.TenantRate{{PerSecond: 1}}
	}
	w.logf("tenant %s: %q in doubt, reroute %t, rates %v", t.ID, t.OnAmbiguous, t.RerouteInDoubt, t.Rates)
	must(p.store.UpdateTenant(w.ctx, system, *t))
	p.pipe.TenantChanged(t.ID)
}

// report posts what a provider has to say, again and again until it is taken.
func (w *world) report(p *process, a act) {
	r := a.receipt
	body, err := json.Marshal(r)
	must(err)
	go func() {
		_, err := p.pipe.Callback(w.ctx, r.a.id, &connectors.Callback{Method: "POST", Body: body})
		w.logf("report %s %s%s: %v", r.Ref, r.Status, r.Text, err)
		if err != nil {
			if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOutcomeUnknown) {
				w.bad("a report is answered with %v", err)
			}
			r.attempts++
			a.at = w.passed() + 3*time.Second
			w.plan(a)
		}
	}()
}

func (w *world) deadLetters(p *process, t delivery.TenantID, redrive bool) {
	go func() {
		list, err := p.store.DeadLetters(w.ctx, t, store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 5}})
		must(err)
		if len(list) == 0 {
			return
		}
		ids := make([]delivery.MessageID, len(list))
		for i := range list {
			ids[i] = list[i].ID
		}
		expires := w.clock.Now().Add(time.Hour)
		what := "drop "
		if redrive {
			what = "redrive "
		}
		got, err := turn(w.ctx, &calls{p.store, p}, what+w.names(ids), func() ([]store.Redriven, error) {
			if !redrive {
				return p.store.Drop(w.ctx, t, ids, w.clock.Now())
			}
			got, err := p.store.Redrive(w.ctx, t, ids, w.clock.Now(), expires)
			if err == nil {
				w.redriven(ids, got, expires)
			}
			return got, err
		})
		w.logf("%s%s: %v", what, w.names(ids), err)
		for i := range got {
			if redrive && got[i].Done {
				p.pipe.Hint(got[i].Queue, ids[i:i+1])
			}
		}
	}()
}
