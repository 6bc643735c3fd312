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
		for _, step := range []func() error{a.messages, a.tally, a.campaigns, a.chain} {
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
			if r.status.Waiting() != (r.due != 0) {
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
	status, facts := delivery.Status(0), 0
	for _, seq := range decodeSeqs(r.facts) {
		events, err := a.ledgerRow(seq)
		if err != nil {
			return err
		}
		before := facts
		for i := range events {
			f := &events[i].Fact
			if f.Message != r.id {
				continue
			}
			facts++
			if f.Kind != delivery.FactReceipt {
				status = f.Status
			} else if to, changed := delivery.AfterReceipt(r.channel, status, f.Status); changed {
				status = to
			}
		}
		if facts == before {
			a.problem("fact is missing", r.id.String(), "ledger row %d has none of this message", seq)
		}
	}
	a.cited += int64(facts)
	if status != r.status {
		a.problem("status is not that of the last fact", r.id.String(), "row says %s, facts say %s", r.status, status)
	}
	return nil
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
