package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	maxProblems = 1000
	// auditPage bounds the memory of an audit: messages are looked at so many at a time, with the ledger rows that they
	// name.
	auditPage = 2000
	// auditLedger is how many rows of the ledger are read at a time; each has at most factsPerRow facts.
	auditLedger = 200
)

// auditor recounts one tenant in one read transaction, page by page.
type auditor struct {
	*reader
	tenant int64
	report store.AuditReport
	cut    cut // what retention has removed

	head    [32]byte // what the tenant's head says of the last ledger row
	headSeq int64

	tallies map[tallyKey]int64
	cited   int64 // facts found through the rows of messages
	orphans int64 // facts of messages that retention has removed
	trimmed bool  // a row does not list all of its facts
	ordered int   // messages that say that they stand in a line
	dead    int64 // messages that are dead letters
}

// cut is up to where a tenant's past has been removed; the zero cut removes nothing.
type cut struct {
	seq    int64
	hash   [32]byte
	day    int64
	before delivery.MessageID
}

// Audit recounts everything of a tenant from what is stored, as of one moment. It reads every row of the tenant; other
// calls go on meanwhile.
func (s *Store) Audit(ctx context.Context, slug delivery.TenantID) (store.AuditReport, error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return store.AuditReport{}, err
	}
	a := &auditor{tenant: n, tallies: map[tallyKey]int64{}}
	a.report.Tenant = slug
	err = s.reading(ctx, scope(n), func(r *reader) (err error) {
		a.reader = r
		for _, step := range []func() error{a.begin, a.messages, a.lines, a.deadLetters, a.tally, a.campaigns, a.chain} {
			if err == nil {
				err = step()
			}
		}
		return err
	})
	return a.report, err
}

func (a *auditor) problem(what, subject, detail string, args ...any) {
	if len(a.report.Problems) < maxProblems {
		a.report.Problems = append(a.report.Problems,
			store.AuditProblem{What: what, Subject: subject, Detail: fmt.Sprintf(detail, args...)})
	}
}

// begin reads what was counted by accept, and what retention has removed. From then on retention waits for the audit:
// partitions do not belong to the moment that a transaction sees, but to now.
func (a *auditor) begin() error {
	var whole bool
	err := a.query(
		stmt{sql: `LOCK TABLE messages, ledger IN ACCESS SHARE MODE`},
		stmt{`SELECT NOT EXISTS (SELECT FROM retired) AND (SELECT count(*) FROM pg_partition_tree('messages') WHERE isleaf)
			= (SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass)`, nil, into(&whole)},
		stmt{`SELECT seq, hash, accepted FROM ledger_heads WHERE tenant = $1`, []any{a.tenant},
			func(rows pgx.Rows) error {
				var hash []byte
				err := rows.Scan(&a.headSeq, &hash, &a.report.Accepted)
				copy(a.head[:], hash)
				return err
			}},
		stmt{`SELECT seq, hash, day, before FROM cuts WHERE tenant = $1`, []any{a.tenant}, func(rows pgx.Rows) error {
			var hash []byte
			err := rows.Scan(&a.cut.seq, &hash, &a.cut.day, (*[16]byte)(&a.cut.before))
			copy(a.cut.hash[:], hash)
			a.report.Since = time.Unix(a.cut.day*86400, 0).UTC()
			return err
		}},
		stmt{`SELECT campaign, channel, status, n FROM cut_tally WHERE tenant = $1`, []any{a.tenant},
			func(rows pgx.Rows) error {
				k, n, err := a.scanTally(rows)
				a.tallies[k] = n
				a.count(k.status, n)
				return err
			}})
	if err == nil && !whole {
		err = fmt.Errorf("%w: audit: old messages are being removed; ask again when that has ended", store.ErrUnavailable)
	}
	return err
}

// count counts n messages of a status.
func (a *auditor) count(s delivery.Status, n int64) {
	switch {
	case s.Waiting():
		a.report.Live += n
	case s >= delivery.StatusSent && s <= delivery.StatusUndelivered:
		a.report.HandedOn += n
	default:
		a.report.Ended += n
	}
}

func (a *auditor) scanTally(rows pgx.Rows) (k tallyKey, n int64, err error) {
	var ch, status int16
	k.tenant = a.tenant
	err = rows.Scan(&k.campaign, &ch, &status, &n)
	k.channel, k.status = delivery.Channel(ch), delivery.Status(status)
	return k, n, err
}

// audited is a row with what its facts have said so far.
type audited struct {
	row
	q     int64
	is    replay
	facts map[int64]int // ledger row → how many of its facts are of this message
	order []int64       // of facts
}

// messages looks at every row, and at the facts it lists.
func (a *auditor) messages() error {
	rows := a.report.HandedOn + a.report.Ended // those that are gone
	var last delivery.MessageID
	for {
		page := make([]*audited, 0, auditPage)
		byID := make(map[delivery.MessageID]*audited, auditPage)
		err := a.query(
			stmt{`SELECT ` + rowColumns + `, m.q FROM messages m WHERE m.tenant = $1 AND m.id > $2 ORDER BY m.id LIMIT $3`,
				[]any{a.tenant, [16]byte(last), auditPage}, func(rows pgx.Rows) error {
					r := &audited{}
					err := scanRow(rows, &r.row, &r.q)
					page, byID[r.id] = append(page, r), r
					return err
				}})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		if err := a.loadLegs(page[0].id, page[len(page)-1].id, byID); err != nil {
			return err
		}
		if err := a.histories(page, byID); err != nil {
			return err
		}
		for _, r := range page {
			a.message(r)
		}
		rows += int64(len(page))
		last = page[len(page)-1].id
	}
	if rows != a.report.Accepted {
		a.problem("accepted messages are not the rows", string(a.report.Tenant), "accepted %d, rows %d", a.report.Accepted,
			rows)
	}
	return nil
}

func (a *auditor) loadLegs(first, last delivery.MessageID, byID map[delivery.MessageID]*audited) error {
	return a.query(stmt{`SELECT id, ` + legColumns + ` FROM legs WHERE tenant = $1 AND id BETWEEN $2 AND $3
		ORDER BY id, n`,
		[]any{a.tenant, [16]byte(first), [16]byte(last)}, func(rows pgx.Rows) error {
			var id delivery.MessageID
			l, err := scanLeg(rows, (*[16]byte)(&id))
			if r := byID[id]; r != nil {
				r.legs = append(r.legs, l)
			}
			return err
		}})
}

// message checks one row against itself and against what its facts have said.
func (a *auditor) message(r *audited) {
	a.tallies[tallyKey{a.tenant, r.campaign, r.channel, r.status}]++
	a.count(r.status, 1)
	a.legs(&r.row)
	deadline := r.status == delivery.StatusSent && len(r.legs) > 0 && r.legs[r.leg()].until == r.due
	if r.status.Waiting() != (r.due != 0) && !deadline {
		what := "message without due time"
		if r.due != 0 {
			what = "ended message with due time"
		}
		a.problem(what, r.id.String(), "status %s", r.status)
	}
	if r.q != r.queue() {
		a.problem("message in the wrong queue", r.id.String(), "%d instead of %d", r.q, r.queue())
	}
	if r.flags&flagTrimmed != 0 {
		a.trimmed = true
	}
	if r.flags&flagOrdered != 0 {
		a.ordered++
	}
	if dead(&r.row) {
		a.dead++
	}
	for _, seq := range r.order {
		if r.facts[seq] == 0 {
			a.problem("fact is missing", r.id.String(), "ledger row %d has none of this message", seq)
		}
		a.cited += int64(r.facts[seq])
	}
	if r.is.status != r.status {
		a.problem("status is not that of the last fact", r.id.String(), "row says %s, facts say %s", r.status, r.is.status)
	}
	if r.is.leg != r.leg() {
		a.problem("leg is not that of the last fact", r.id.String(), "row says %d, facts say %d", r.leg(), r.is.leg)
	}
}

// histories replays the facts of a page of messages: the ledger rows that they name are read once, in their order.
func (a *auditor) histories(page []*audited, byID map[delivery.MessageID]*audited) error {
	from, to := int64(1<<62), int64(0)
	named := map[int64]bool{}
	for _, r := range page {
		r.order = decodeSeqs(r.row.facts)
		r.facts = make(map[int64]int, len(r.order))
		for _, seq := range r.order {
			r.facts[seq] = 0
			named[seq] = true
		}
		from, to = min(from, r.accepted), max(to, r.updated)
	}
	seqs := slices.Sorted(maps.Keys(named))
	// The days spare a look into every partition; see Facts.
	first, last := day(store.FromMillis(from))-1, day(store.FromMillis(to))+1
	for part := range slices.Chunk(seqs, auditLedger) {
		events := make(map[int64][]store.Event, len(part))
		collect := func(rows pgx.Rows) error {
			var seq int64
			var blob []byte
			err := rows.Scan(&seq, &blob)
			events[seq], _ = store.DecodeFacts(blob) // chain says what is wrong with it
			return err
		}
		if err := a.query(stmt{ledgerRowsNear, []any{a.tenant, part, first, last}, collect}); err != nil {
			return err
		}
		if len(events) < len(part) {
			if err := a.query(stmt{ledgerRows, []any{a.tenant, part}, collect}); err != nil {
				return err
			}
		}
		for _, seq := range part {
			for i := range events[seq] {
				e := &events[seq][i]
				r := byID[e.Fact.Message]
				if r == nil {
					continue
				}
				if n, ok := r.facts[seq]; ok {
					r.facts[seq] = n + 1
					r.is.fact(e)
				}
			}
		}
	}
	return nil
}
