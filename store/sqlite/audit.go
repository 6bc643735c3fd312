package sqlite

import (
	"context"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	maxProblems = 1000
	// cachedLedgerRows bounds the memory of an audit: messages that were written together share ledger rows, so a few
	// recent ones serve nearly every look-up.
	cachedLedgerRows = 64
)

// auditor recounts one tenant in one read transaction, streaming.
type auditor struct {
	conn   *sqlite.Conn
	tenant int64
	report store.AuditReport

	tallies map[tallyKey]int64
	cited   int64 // facts found through the rows of messages
	trimmed bool  // a row does not list all of its facts
	ordered int   // messages that say that they stand in a line
	dead    int64 // messages that are dead letters
	cache   map[int64][]store.Event
	order   []int64 // of cache, oldest first
}

// Audit recounts everything of a tenant from what is stored, as of one moment. It reads every row of the tenant; other
// calls go on meanwhile.
func (s *Store) Audit(ctx context.Context, tenant delivery.TenantID) (store.AuditReport, error) {
	return read(ctx, s, func(c *sqlite.Conn) (store.AuditReport, error) {
		a := &auditor{conn: c, tallies: map[tallyKey]int64{}, cache: map[int64][]store.Event{}}
		a.report.Tenant = tenant
		found, err := one(c, `SELECT n, accepted FROM tenants WHERE slug = ?`, func(s *sqlite.Stmt) error {
			a.tenant, a.report.Accepted = s.ColumnInt64(0), s.ColumnInt64(1)
			return nil
		}, string(tenant))
		if err == nil && !found {
			err = fmt.Errorf("tenant %q: %w", tenant, store.ErrNotFound)
		}
		for _, step := range []func() error{a.messages, a.lines, a.deadLetters, a.tally, a.campaigns, a.chain} {
			if err == nil {
				err = step()
			}
		}
		return a.report, err
	})
}

func (a *auditor) problem(what, subject, detail string, args ...any) {
	if len(a.report.Problems) < maxProblems {
		a.report.Problems = append(a.report.Problems,
			store.AuditProblem{What: what, Subject: subject, Detail: fmt.Sprintf(detail, args...)})
	}
}

// messages looks at every row, and at the facts it lists.
func (a *auditor) messages() error {
	var rows int64
	err := query(a.conn, `SELECT `+rowColumns+`, q FROM messages WHERE tenant = ? ORDER BY id`,
		func(s *sqlite.Stmt) error {
			var r row
			scanRow(s, &r)
			rows++
			a.tallies[tallyKey{a.tenant, r.campaign, r.channel, r.status}]++
			switch {
			case r.status.Waiting():
				a.report.Live++
			case r.status >= delivery.StatusSent && r.status <= delivery.StatusUndelivered:
				a.report.HandedOn++
			default:
				a.report.Ended++
			}
			if err := a.legs(&r); err != nil {
				return err
			}
			deadline := r.status == delivery.StatusSent && len(r.legs) > 0 && r.legs[r.leg()].until == r.due
			if r.status.Waiting() != (r.due != 0) && !deadline {
				what := "message without due time"
				if r.due != 0 {
					what = "ended message with due time"
				}
				a.problem(what, r.id.String(), "status %s", r.status)
			}
			if q := s.ColumnInt64(22); q != r.queue() {
				a.problem("message in the wrong queue", r.id.String(), "%d instead of %d", q, r.queue())
			}
			if r.flags&flagTrimmed != 0 {
				a.trimmed = true
			}
			if r.flags&flagOrdered != 0 {
				a.ordered++
			}
			if dead(&r) {
				a.dead++
			}
			return a.history(&r)
		}, a.tenant)
	if err == nil && rows != a.report.Accepted {
		a.problem("accepted messages are not the rows", string(a.report.Tenant), "accepted %d, rows %d", a.report.Accepted,
			rows)
	}
	return err
}

// history replays a message's facts: they must end in the status of its row.
func (a *auditor) history(r *row) error {
	var is replay
	facts := 0
	for _, seq := range decodeSeqs(r.facts) {
		events, err := a.ledgerRow(seq)
		if err != nil {
			return err
		}
		before := facts
		for i := range events {
			if events[i].Fact.Message == r.id {
				facts++
				is.fact(&events[i])
			}
		}
		if facts == before {
			a.problem("fact is missing", r.id.String(), "ledger row %d has none of this message", seq)
		}
	}
	a.cited += int64(facts)
	if is.status != r.status {
		a.problem("status is not that of the last fact", r.id.String(), "row says %s, facts say %s", r.status, is.status)
	}
	if is.leg != r.leg() {
		a.problem("leg is not that of the last fact", r.id.String(), "row says %d, facts say %d", r.leg(), is.leg)
	}
	return nil
}

// legs reads the legs of a message that has them, and compares them with its row.
func (a *auditor) legs(r *row) error {
	if r.lastLeg() == 0 {
		return nil
	}
	if err := query(a.conn, `SELECT `+legColumns+` FROM legs WHERE id = ? ORDER BY n`, func(s *sqlite.Stmt) error {
		r.legs = append(r.legs, scanLeg(s))
		return nil
	}, r.id[:]); err != nil {
		return err
	}
	wrong := func(detail string, args ...any) {
		a.problem("legs are not those of the message", r.id.String(), detail, args...)
	}
	if len(r.legs) != r.lastLeg()+1 || r.leg() > r.lastLeg() {
		wrong("%d legs, on leg %d of %d", len(r.legs), r.leg(), r.lastLeg()+1)
		r.legs = nil
		return nil
	}
	winners := 0
	for n := range r.legs {
		l := &r.legs[n]
		if l.winner {
			winners++
		}
		if l.winner && !l.reached() {
			wrong("leg %d won and is %s", n, l.status)
		}
		if (l.status == 0) != (n > r.leg()) {
			wrong("on leg %d, and leg %d is %s", r.leg(), n, l.status)
		}
		if n != r.leg() && (l.status == delivery.StatusSending || l.status == delivery.StatusAmbiguous) {
			wrong("on leg %d, and leg %d is %s", r.leg(), n, l.status)
		}
	}
	l := &r.legs[r.leg()]
	switch {
	case winners > 1:
		wrong("%d winners", winners)
	case l.channel != r.channel || l.to != r.to:
		wrong("leg %d has another address", r.leg())
	case r.flags&flagOvertaken == 0 && l.status != r.status:
		wrong("leg %d is %s, the message %s", r.leg(), l.status, r.status)
	case l.until != 0 && claimable(r.status) && r.mayTimeOut() && r.due > l.until:
		wrong("it waits beyond the end of leg %d", r.leg())
	}
	return nil
}

// lines checks that whoever waits for its turn stands in a line, and that the first of each line does not.
func (a *auditor) lines() error {
	wrong := func(id delivery.MessageID, detail string) {
		a.problem("line of an ordering key is wrong", id.String(), "%s", detail)
	}
	first := true
	var last string
	standing := 0
	err := query(a.conn, `SELECT o.channel, o.recipient, o.ordering_key, o.id, m.status, m.flags, m.reason FROM ordered o
		LEFT JOIN messages m ON m.id = o.id WHERE o.tenant = ?
		ORDER BY o.channel, o.recipient, o.ordering_key, o.place`,
		func(s *sqlite.Stmt) error {
			c := scan(s)
			line := fmt.Sprintf("%d %q %q", c.int64(), c.text(), c.text())
			first, last = line != last, line
			r := row{id: c.id(), status: delivery.Status(c.int64()), flags: c.int64(), reason: c.text()}
			standing++
			switch {
			case r.flags&flagOrdered == 0 || !r.status.Waiting():
				wrong(r.id, "it stands in the line and does not wait")
			case first && r.blocked():
				wrong(r.id, "it is the first and waits for nobody")
			case !first && !r.blocked():
				wrong(r.id, "it does not wait for the one before it")
			}
			return nil
		}, a.tenant)
	if err == nil && standing != a.ordered {
		a.problem("line of an ordering key is wrong", string(a.report.Tenant), "%d messages stand in lines, %d should",
			standing, a.ordered)
	}
	return err
}

// deadLetters checks that those that are listed are those that there are.
func (a *auditor) deadLetters() error {
	var listed, wrong int64
	err := query(a.conn, `SELECT m.status, m.flags FROM dead d LEFT JOIN messages m ON m.id = d.id WHERE d.tenant = ?`,
		func(s *sqlite.Stmt) error {
			listed++
			if !dead(&row{status: delivery.Status(s.ColumnInt64(0)), flags: s.ColumnInt64(1)}) {
				wrong++
			}
			return nil
		}, a.tenant)
	if err == nil && (listed != a.dead || wrong > 0) {
		a.problem("list of dead letters is wrong", string(a.report.Tenant), "%d listed, %d of them wrongly, %d dead letters",
			listed, wrong, a.dead)
	}
	return err
}

// ledgerRow reads a ledger row through the cache; a row that is missing or damaged has no facts, and chain says so.
func (a *auditor) ledgerRow(seq int64) ([]store.Event, error) {
	if events, ok := a.cache[seq]; ok {
		return events, nil
	}
	var events []store.Event
	_, err := one(a.conn, `SELECT facts FROM ledger WHERE seq = ? AND tenant = ?`, func(s *sqlite.Stmt) error {
		events, _ = store.DecodeFacts(columnBytes(s, 0))
		return nil
	}, seq, a.tenant)
	if err != nil {
		return nil, err
	}
	if len(a.order) >= cachedLedgerRows {
		delete(a.cache, a.order[0])
		a.order = a.order[1:]
	}
	a.cache[seq] = events
	a.order = append(a.order, seq)
	return events, nil
}

// tally compares the counts that the engine keeps with the count of rows.
func (a *auditor) tally() error {
	subject := func(k tallyKey) string { return fmt.Sprintf("%s %s", k.channel, k.status) }
	err := query(a.conn, `SELECT campaign, channel, status, n FROM tally WHERE tenant = ?`, func(s *sqlite.Stmt) error {
		r := scan(s)
		k := tallyKey{a.tenant, r.int64(), delivery.Channel(r.int64()), delivery.Status(r.int64())}
		if n, rows := r.int64(), a.tallies[k]; n != rows {
			a.problem("tally is not the rows", subject(k), "tally %d, rows %d", n, rows)
		}
		delete(a.tallies, k)
		return nil
	}, a.tenant)
	for k, rows := range a.tallies {
		a.problem("tally is not the rows", subject(k), "tally 0, rows %d", rows)
	}
	return err
}

// campaigns checks that every person up to the cursor became a message or was skipped for a reason.
func (a *auditor) campaigns() error {
	return query(a.conn, `SELECT `+campaignColumns+`, (SELECT coalesce(sum(t.n), 0) FROM tally t
		WHERE t.tenant = c.tenant AND t.campaign = c.n) FROM campaigns c WHERE tenant = ?`, func(s *sqlite.Stmt) error {
		c, err := scanCampaign(s, a.report.Tenant)
		if err != nil {
			return err
		}
		messages, skipped := s.ColumnInt64(14), int64(0)
		for _, n := range c.Skipped {
			skipped += int64(n)
		}
		left := int64(c.People) - c.Cursor
		if c.State != store.CampaignDraft && messages+skipped+left != int64(c.People) {
			a.problem("people of a campaign do not add up", c.Name, "%d people, %d messages, %d skipped, %d to come",
				c.People, messages, skipped, left)
		}
		if c.Expanded && left != 0 {
			a.problem("people of a campaign do not add up", c.Name, "expanded, and %d people to come", left)
		}
		return nil
	}, a.tenant)
}

// chain walks the ledger and hashes it again.
func (a *auditor) chain() error {
	var prev [32]byte
	err := query(a.conn, `SELECT seq, at, prev, hash, facts FROM ledger WHERE tenant = ? ORDER BY seq`,
		func(s *sqlite.Stmt) error {
			r := scan(s)
			seq, at, before, hash, facts := r.int64(), r.int64(), r.bytes(), r.bytes(), r.bytes()
			if string(before) != string(prev[:]) {
				a.problem("ledger chain is broken", fmt.Sprint(seq), "the row before it was changed or is missing")
			}
			copy(prev[:], before)
			if sum := chainHash(prev, a.tenant, seq, at, facts); string(sum[:]) != string(hash) {
				a.problem("ledger row was changed", fmt.Sprint(seq), "its hash does not match")
			}
			events, err := store.DecodeFacts(facts)
			if err != nil {
				a.problem("ledger row was changed", fmt.Sprint(seq), "%v", err)
			}
			a.report.Facts += int64(len(events))
			copy(prev[:], hash)
			return nil
		}, a.tenant)
	if err == nil && !a.trimmed && a.report.Facts != a.cited {
		a.problem("facts without a message", string(a.report.Tenant), "ledger has %d, messages list %d", a.report.Facts,
			a.cited)
	}
	return err
}
