package postgres

import (
	"bytes"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// What an audit compares beyond the rows of messages and their facts.

// legs compares the legs of a message that has them with its row.
func (a *auditor) legs(r *row) {
	if r.lastLeg() == 0 {
		return
	}
	wrong := func(detail string, args ...any) {
		a.problem("legs are not those of the message", r.id.String(), detail, args...)
	}
	if len(r.legs) != r.lastLeg()+1 || r.leg() > r.lastLeg() {
		wrong("%d legs, on leg %d of %d", len(r.legs), r.leg(), r.lastLeg()+1)
		r.legs = nil
		return
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
}

// lines checks that whoever waits for its turn stands in a line, and that the first of each line does not.
func (a *auditor) lines() error {
	wrong := func(id delivery.MessageID, detail string) {
		a.problem("line of an ordering key is wrong", id.String(), "%s", detail)
	}
	first := true
	var last string
	standing := 0
	err := a.query(stmt{`SELECT o.channel, o.recipient, o.ordering_key, o.id, coalesce(m.status, 0), coalesce(m.flags, 0),
		coalesce(m.reason, '') FROM ordered o LEFT JOIN messages m ON m.id = o.id WHERE o.tenant = $1
		ORDER BY o.channel, o.recipient, o.ordering_key, o.place`, []any{a.tenant}, func(rows pgx.Rows) error {
		var ch, status int16
		var to, key string
		var r row
		if err := rows.Scan(&ch, &to, &key, (*[16]byte)(&r.id), &status, &r.flags, &r.reason); err != nil {
			return err
		}
		r.status = delivery.Status(status)
		line := fmt.Sprintf("%d %q %q", ch, to, key)
		first, last = line != last, line
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
	}})
	if err == nil && standing != a.ordered {
		a.problem("line of an ordering key is wrong", string(a.report.Tenant), "%d messages stand in lines, %d should",
			standing, a.ordered)
	}
	return err
}

// deadLetters checks that those that are listed are those that there are.
func (a *auditor) deadLetters() error {
	var listed, wrong int64
	err := a.query(stmt{`SELECT coalesce(m.status, 0), coalesce(m.flags, 0) FROM dead d LEFT JOIN messages m ON m.id = d.id
		WHERE d.tenant = $1`, []any{a.tenant}, func(rows pgx.Rows) error {
		var status int16
		var r row
		err := rows.Scan(&status, &r.flags)
		r.status = delivery.Status(status)
		listed++
		if !dead(&r) {
			wrong++
		}
		return err
	}})
	if err == nil && (listed != a.dead || wrong > 0) {
		a.problem("list of dead letters is wrong", string(a.report.Tenant), "%d listed, %d of them wrongly, %d dead letters",
			listed, wrong, a.dead)
	}
	return err
}

// tally compares the counts that the engine keeps with the count of rows.
func (a *auditor) tally() error {
	subject := func(k tallyKey) string { return fmt.Sprintf("%s %s", k.channel, k.status) }
	err := a.query(stmt{`SELECT campaign, channel, status, n FROM tally WHERE tenant = $1`, []any{a.tenant},
		func(rows pgx.Rows) error {
			k, n, err := a.scanTally(rows)
			if rows := a.tallies[k]; n != rows && err == nil {
				a.problem("tally is not the rows", subject(k), "tally %d, rows %d", n, rows)
			}
			delete(a.tallies, k)
			return err
		}})
	for k, rows := range a.tallies {
		a.problem("tally is not the rows", subject(k), "tally 0, rows %d", rows)
	}
	return err
}

// campaigns checks that every person up to the cursor became a message or was skipped for a reason.
func (a *auditor) campaigns() error {
	return a.query(stmt{`SELECT ` + campaignColumns + `, (SELECT coalesce(sum(t.n), 0)::bigint FROM tally t
		WHERE t.tenant = c.tenant AND t.campaign = c.n) FROM campaigns c WHERE tenant = $1`, []any{a.tenant},
		func(rows pgx.Rows) error {
			var messages, skipped int64
			c, err := scanCampaign(rows, &messages)
			if err != nil {
				return err
			}
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
		}})
}

// chain walks the ledger from where it begins and hashes it again.
func (a *auditor) chain() error {
	prev, last := a.cut.hash, a.cut.seq
	for {
		got := 0
		err := a.query(stmt{`SELECT seq, at, prev, hash, facts FROM ledger WHERE tenant = $1 AND seq > $2
			ORDER BY seq LIMIT $3`,
			[]any{a.tenant, last, auditLedger}, func(rows pgx.Rows) error {
				var at int64
				var before, hash, facts []byte
				if err := rows.Scan(&last, &at, &before, &hash, &facts); err != nil {
					return err
				}
				got++
				if !bytes.Equal(before, prev[:]) {
					a.problem("ledger chain is broken", fmt.Sprint(last), "the row before it was changed or is missing")
				}
				copy(prev[:], before)
				if sum := chainHash(prev, a.tenant, last, at, facts); !bytes.Equal(sum[:], hash) {
					a.problem("ledger row was changed", fmt.Sprint(last), "its hash does not match")
				}
				events, err := store.DecodeFacts(facts)
				if err != nil {
					a.problem("ledger row was changed", fmt.Sprint(last), "%v", err)
				}
				a.report.Facts += int64(len(events))
				for i := range events {
					if bytes.Compare(events[i].Fact.Message[:], a.cut.before[:]) < 0 {
						a.orphans++
					}
				}
				copy(prev[:], hash)
				return nil
			}})
		if err != nil {
			return err
		}
		if got < auditLedger {
			break
		}
	}
	if last != a.headSeq || prev != a.head {
		a.problem("ledger chain is broken", fmt.Sprint(last), "it ends before row %d, which was the last one written",
			a.headSeq)
	}
	if a.trimmed || a.report.Facts-a.orphans == a.cited {
		return nil
	}
	a.problem("facts without a message", string(a.report.Tenant), "ledger has %d, messages list %d",
		a.report.Facts-a.orphans, a.cited)
	return nil
}
