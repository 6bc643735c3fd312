package postgres

import (
	"bytes"
	"maps"
	"slices"
)

// What a transaction has gathered is written with its COMMIT, in one round trip: a statement per table for all rows.
// Rows of tables that others may write too are written in the order of their keys. While it goes on, the transaction
// has the heads of all its tenants: of those tenants nobody else writes.

const (
	updateRows = `UPDATE messages m SET status = u.status, q = u.q, due = nullif(u.due, 0), node = u.node,
		epoch = u.epoch, attempts = u.attempts, flags = u.flags, account = u.account, provider_id = u.provider,
		reason = u.reason, detail = u.detail, segments = u.segments, updated = u.updated, facts = u.facts, seen = u.seen,
		channel = u.channel, recipient = u.recipient, expires = u.expires
		FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::integer[], $7::integer[],
		$8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::bigint[], $15::bytea[],
		$16::bytea[], $17::smallint[], $18::text[], $19::bigint[]) AS u (id, status, q, due, node, epoch, attempts, flags,
		account, provider, reason, detail, segments, updated, facts, seen, channel, recipient, expires)
		WHERE m.id = u.id`
	updateLegs = `UPDATE legs l SET segments = u.segments, account = u.account, status = u.status, reason = u.reason,
		provider = u.provider, until = u.until, epoch = u.epoch, winner = u.winner
		FROM unnest($1::uuid[], $2::smallint[], $3::integer[], $4::bigint[], $5::smallint[], $6::text[], $7::text[],
		$8::bigint[], $9::integer[], $10::boolean[])
		AS u (id, n, segments, account, status, reason, provider, until, epoch, winner)
		WHERE l.id = u.id AND l.n = u.n`
	takePayload = `UPDATE payloads p SET body = l.body FROM unnest($1::uuid[], $2::smallint[]) AS u (id, n)
		JOIN legs l ON l.id = u.id AND l.n = u.n WHERE p.id = u.id`
	emptyLegs = `UPDATE legs l SET body = '' FROM unnest($1::uuid[], $2::smallint[]) AS u (id, n)
		WHERE l.id = u.id AND l.n <= u.n AND l.body <> ''`

	putDead = `INSERT INTO dead (tenant, id) SELECT * FROM unnest($1::bigint[], $2::uuid[]) AS u (tenant, id)
		ON CONFLICT DO NOTHING`
	dropDead = `DELETE FROM dead d USING unnest($1::bigint[], $2::uuid[]) AS u (tenant, id)
		WHERE d.tenant = u.tenant AND d.id = u.id`
	leaveLines = `DELETE FROM ordered WHERE id = ANY ($1)`
	joinLines  = `INSERT INTO ordered (tenant, channel, recipient, ordering_key, place, id, due, stripe)
		SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::bigint[], $6::uuid[], $7::bigint[],
		$8::integer[])`

	putLedger = `INSERT INTO ledger (tenant, seq, day, at, prev, hash, facts)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[],
		$7::bytea[])`
	moveHeads = `UPDATE ledger_heads h SET seq = u.seq, hash = u.hash, accepted = h.accepted + u.accepted
		FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[]) AS u (tenant, seq, hash, accepted)
		WHERE h.tenant = u.tenant`
	putTally = `INSERT INTO tally (tenant, campaign, channel, status, n)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::bigint[])
		AS u (tenant, campaign, channel, status, n) ORDER BY 1, 2, 3, 4
		ON CONFLICT (tenant, campaign, channel, status) DO UPDATE SET n = tally.n + excluded.n`
	putUsage = `INSERT INTO usage (tenant, day, n)
		SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS u (tenant, day, n) ORDER BY 1, 2
		ON CONFLICT (tenant, day) DO UPDATE SET n = usage.n + excluded.n`
)

// flush lists the statements that write what was gathered, in the order in which they are to run.
func (t *tx) flush() []stmt {
	for _, n := range slices.Sorted(maps.Keys(t.tenants)) {
		t.seal(t.tenants[n])
	}
	return slices.Concat(t.flushCreated(), t.flushRows(), t.flushLegs(), t.flushLines(), t.flushDead(),
		t.flushSuppressed(), t.flushReceipts(), t.flushing, t.flushKeys(), t.flushBooks(), t.last)
}

func (t *tx) flushRows() []stmt {
	n := len(t.dirty)
	if n == 0 {
		return nil
	}
	slices.SortFunc(t.dirty, func(a, b *row) int { return bytes.Compare(a.id[:], b.id[:]) })
	var (
		ids                                       = make([][16]byte, n)
		status, channel                           = make([]int16, n), make([]int16, n)
		q, due, flags, account, updated, expires  = int64s(n), int64s(n), int64s(n), int64s(n), int64s(n), int64s(n)
		node, provider, reason, detail, recipient = texts(n), texts(n), texts(n), texts(n), texts(n)
		epoch, attempts, segments                 = make([]int32, n), make([]int32, n), make([]int32, n)
		facts, seen                               = make([][]byte, n), make([][]byte, n)
		moved                                     [][16]byte
		leg                                       []int16
	)
	for i, r := range t.dirty {
		ids[i], status[i], channel[i] = r.id, int16(r.status), int16(r.channel)
		q[i], due[i], flags[i], account[i] = r.queue(), r.due, r.flags, r.account
		updated[i], expires[i] = r.updated, r.expires
		node[i], provider[i], reason[i], detail[i] = clean(r.node), clean(r.provider), clean(r.reason), clean(r.detail)
		recipient[i] = r.to
		epoch[i], attempts[i], segments[i] = int32(r.epoch), int32(r.attempts), int32(r.segments)
		facts[i], seen[i] = r.facts, r.seen
		if r.switched {
			moved, leg = append(moved, r.id), append(leg, int16(r.leg()))
		}
	}
	stmts := []stmt{{sql: updateRows, args: []any{ids, status, q, due, node, epoch, attempts, flags, account, provider,
		reason, detail, segments, updated, facts, seen, channel, recipient, expires}}}
	if len(moved) > 0 {
		stmts = append(stmts, stmt{sql: takePayload, args: []any{moved, leg}},
			stmt{sql: emptyLegs, args: []any{moved, leg}})
	}
	return stmts
}

func int64s(n int) []int64 { return make([]int64, n) }
func texts(n int) []string { return make([]string, n) }

func (t *tx) flushLegs() []stmt {
	var (
		ids              [][16]byte
		n, status        []int16
		segments, epoch  []int32
		account, until   []int64
		reason, provider []string
		winner           []bool
	)
	for _, r := range t.dirty {
		for i := range r.legs {
			l := &r.legs[i]
			if !l.changed {
				continue
			}
			ids, n, status = append(ids, r.id), append(n, int16(i)), append(status, int16(l.status))
			segments, epoch = append(segments, int32(l.segments)), append(epoch, int32(l.epoch))
			account, until, winner = append(account, l.account), append(until, l.until), append(winner, l.winner)
			reason, provider = append(reason, clean(l.reason)), append(provider, clean(l.provider))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return []stmt{{sql: updateLegs, args: []any{ids, n, segments, account, status, reason, provider, until, epoch,
		winner}}}
}

func (t *tx) flushLines() (stmts []stmt) {
	if len(t.left) > 0 {
		stmts = append(stmts, stmt{sql: leaveLines, args: []any{uuids(t.left)}})
	}
	if len(t.joined) == 0 {
		return stmts
	}
	var (
		tenant, place, due []int64
		channel            []int16
		to, key            []string
		ids                [][16]byte
		stripe             []int32
	)
	for _, j := range t.joined {
		tenant, place, due = append(tenant, j.tenant), append(place, j.n), append(due, j.due)
		channel, to, key = append(channel, int16(j.channel)), append(to, j.to), append(key, j.key)
		ids, stripe = append(ids, j.id), append(stripe, j.stripe())
	}
	return append(stmts, stmt{sql: joinLines, args: []any{tenant, channel, to, key, place, ids, due, stripe}})
}

func (t *tx) flushDead() (stmts []stmt) {
	var in, out [][16]byte
	var inOf, outOf []int64
	for id, is := range t.dead {
		if of := t.rows[id].tenant; is {
			in, inOf = append(in, id), append(inOf, of)
		} else {
			out, outOf = append(out, id), append(outOf, of)
		}
	}
	if len(in) > 0 {
		stmts = append(stmts, stmt{sql: putDead, args: []any{inOf, in}})
	}
	if len(out) > 0 {
		stmts = append(stmts, stmt{sql: dropDead, args: []any{outOf, out}})
	}
	return stmts
}

// flushBooks writes the ledger, the heads and the counts.
func (t *tx) flushBooks() (stmts []stmt) {
	if n := len(t.sealed); n > 0 {
		tenant, seq, at, day := int64s(n), int64s(n), int64s(n), make([]int32, n)
		prev, hash, facts := make([][]byte, n), make([][]byte, n), make([][]byte, n)
		for i := range t.sealed {
			l := &t.sealed[i]
			tenant[i], seq[i], at[i], day[i] = l.tenant, l.seq, l.at, int32(l.day)
			prev[i], hash[i], facts[i] = l.prev[:], l.hash[:], l.facts
		}
		stmts = append(stmts, stmt{sql: putLedger, args: []any{tenant, seq, day, at, prev, hash, facts}})
	}
	var tenant, seq, accepted []int64
	var hash [][]byte
	for _, n := range slices.Sorted(maps.Keys(t.tenants)) {
		if tn := t.tenants[n]; tn.moved {
			tenant, seq, hash = append(tenant, n), append(seq, tn.seq), append(hash, tn.head[:])
			accepted = append(accepted, t.accepted[n])
		}
	}
	if len(tenant) > 0 {
		stmts = append(stmts, stmt{sql: moveHeads, args: []any{tenant, seq, hash, accepted}})
	}
	return slices.Concat(stmts, t.flushTally(), t.flushUsage())
}

func (t *tx) flushTally() []stmt {
	var tenant, campaign, by []int64
	var channel, status []int16
	for k, n := range t.tallies {
		if n != 0 {
			tenant, campaign, by = append(tenant, k.tenant), append(campaign, k.campaign), append(by, n)
			channel, status = append(channel, int16(k.channel)), append(status, int16(k.status))
		}
	}
	if len(tenant) == 0 {
		return nil
	}
	return []stmt{{sql: putTally, args: []any{tenant, campaign, channel, status, by}}}
}

func (t *tx) flushUsage() []stmt {
	var tenant, by []int64
	var days []int32
	for k, n := range t.usage {
		tenant, days, by = append(tenant, k.tenant), append(days, int32(k.day)), append(by, n)
	}
	if len(tenant) == 0 {
		return nil
	}
	return []stmt{{sql: putUsage, args: []any{tenant, days, by}}}
}
