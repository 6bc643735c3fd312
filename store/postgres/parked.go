package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// A receipt may come before its message is settled as sent. It is parked then, and the settlement applies it. Both look
// for each other: the receipt for the provider's id among those that are known, the settlement among the receipts that
// are parked. If both looked at the same moment, neither would see the other, and the message would stay without its
// receipt. So whoever parks holds a lock on the account, and looks again under it; whoever settles with a provider's id
// holds the same lock together with all others who settle, and looks under it (need.refs). Nearly every receipt finds
// its message, and takes no such lock.

// receiptWork is what a transaction that settles knows of parked receipts, and gathers for its end.
type receiptWork struct {
	asked  map[ref]bool // what parked was loaded for
	parked map[ref][]parkedReceipt
	gone   []parkedKey
	refs   map[ref]delivery.MessageID
}

type parkedKey struct {
	ref
	digest [sha256.Size]byte
}

type parkedReceipt struct {
	digest  [sha256.Size]byte
	until   int64
	receipt delivery.Receipt
}

// split makes columns of refs. A provider's id is bytes to the database.
func split(refs []ref) (accounts []int64, ids [][]byte) {
	accounts, ids = make([]int64, len(refs)), make([][]byte, len(refs))
	for i, r := range refs {
		accounts[i], ids[i] = r.account, []byte(r.id)
	}
	return accounts, ids
}

func compareRefs(a, b ref) int {
	return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.id, b.id))
}

// findRefs looks up which messages have these provider ids.
func findRefs(keys []ref, found map[ref]delivery.MessageID) stmt {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, compareRefs)
	accounts, ids := split(slices.Compact(keys))
	return stmt{`SELECT p.account, p.ref, p.id FROM unnest($1::bigint[], $2::bytea[]) AS u (account, ref)
		JOIN provider_refs p ON p.account = u.account AND p.ref = u.ref`, []any{accounts, ids},
		func(rows pgx.Rows) error {
			var r ref
			var text []byte
			var id [16]byte
			err := rows.Scan(&r.account, &text, &id)
			r.id = string(text)
			found[r] = id
			return err
		}}
}

// loadParked reads the receipts that wait for provider ids; begin runs it under the lock of their accounts.
func (t *tx) loadParked(refs []ref) stmt {
	refs = slices.Clone(refs)
	slices.SortFunc(refs, compareRefs)
	refs = slices.Compact(refs)
	if t.receipts.asked == nil {
		t.receipts.asked, t.receipts.parked = map[ref]bool{}, map[ref][]parkedReceipt{}
	}
	for _, r := range refs {
		t.receipts.asked[r] = true
	}
	accounts, ids := split(refs)
	return stmt{`SELECT p.account, p.ref, p.digest, p.until, p.receipt, coalesce(a.tenant, $3), coalesce(a.channel, 0)
		FROM unnest($1::bigint[], $2::bytea[]) AS u (account, ref)
		JOIN parked p ON p.account = u.account AND p.ref = u.ref
		LEFT JOIN account_ids i ON i.n = p.account LEFT JOIN accounts a ON a.id = i.id`,
		[]any{accounts, ids, int64(noOwner)}, t.keepParked}
}

func (t *tx) keepParked(rows pgx.Rows) error {
	var r ref
	var p parkedReceipt
	var text, digest, receipt []byte
	var o owner
	var ch int32
	if err := rows.Scan(&r.account, &text, &digest, &p.until, &receipt, &o.tenant, &ch); err != nil {
		return err
	}
	if err := json.Unmarshal(receipt, &p.receipt); err != nil {
		return fmt.Errorf("parked receipt of account number %d: %w", r.account, err)
	}
	r.id, o.channel = string(text), delivery.Channel(ch)
	copy(p.digest[:], digest)
	t.receipts.parked[r] = append(t.receipts.parked[r], p)
	t.owners[p.receipt.Account] = o
	return nil
}

// keepRef makes a message findable by the id that an account's provider has given it. A provider that uses an id again
// means its newest message.
func (t *tx) keepRef(account int64, id string, message delivery.MessageID) {
	t.wrote = true
	if t.receipts.refs == nil {
		t.receipts.refs = map[ref]delivery.MessageID{}
	}
	t.receipts.refs[ref{account, id}] = message
}

// applyParked applies the receipts that wait for a provider id of an account, in the order of their times.
func (t *tx) applyParked(tn *tenant, r *row, account int64, id string, now time.Time) error {
	key := ref{account, id}
	if !t.receipts.asked[key] { // the outcome named no account, and the row does
		lock := stmt{sql: lockParked, args: []any{[]int32{int32(account)}}}
		if err := t.trip(lock, t.loadParked([]ref{key})); err != nil {
			return err
		}
	}
	waiting := slices.DeleteFunc(t.receipts.parked[key],
		func(p parkedReceipt) bool { return p.until < store.Millis(now) })
	if len(waiting) == 0 {
		return nil
	}
	if o := t.accountOwner(waiting[0].receipt.Account); o.tenant > 0 && o.tenant != r.tenant {
		return nil
	}
	delete(t.receipts.parked, key)
	t.wrote = true
	slices.SortStableFunc(waiting, func(a, b parkedReceipt) int {
		return cmp.Or(a.receipt.At.Compare(b.receipt.At), cmp.Compare(a.receipt.Status, b.receipt.Status))
	})
	for i := range waiting {
		_, _, err := t.applyReceipt(tn, r, &waiting[i].receipt, account, now)
		if err != nil && !errors.Is(err, errNoLeg) {
			return err
		}
		t.receipts.gone = append(t.receipts.gone, parkedKey{key, waiting[i].digest})
	}
	return nil
}

// flushReceipts writes what a settlement has gathered.
func (t *tx) flushReceipts() (out []stmt) {
	w := &t.receipts
	if len(w.refs) > 0 {
		refs := slices.SortedFunc(maps.Keys(w.refs), compareRefs)
		accounts, ids := split(refs)
		messages := make([][16]byte, len(refs))
		for i, r := range refs {
			messages[i] = w.refs[r]
		}
		out = append(out, stmt{sql: `INSERT INTO provider_refs (account, ref, id)
			SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::uuid[])
			ON CONFLICT (account, ref) DO UPDATE SET id = excluded.id`, args: []any{accounts, ids, messages}})
	}
	if len(w.gone) > 0 {
		refs, digests := make([]ref, len(w.gone)), make([][]byte, len(w.gone))
		for i := range w.gone {
			refs[i], digests[i] = w.gone[i].ref, w.gone[i].digest[:]
		}
		accounts, ids := split(refs)
		out = append(out, stmt{sql: `WITH gone AS (DELETE FROM parked p
				USING unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS u (account, ref, digest)
				WHERE p.account = u.account AND p.ref = u.ref AND p.digest = u.digest RETURNING p.account)
			UPDATE parked_counts c SET n = c.n - g.n
			FROM (SELECT account, count(*) AS n FROM gone GROUP BY account) AS g WHERE c.account = g.account`,
			args: []any{accounts, ids, digests}})
	}
	return out
}

// rowsPerStatement bounds a statement, which has a deadline, while a call may bring any number of receipts.
const rowsPerStatement = 5000

// parking is what a transaction that parks receipts knows, under the locks of their accounts.
type parking struct {
	keys    []parkedKey // what may have to be parked
	refs    map[ref]delivery.MessageID
	counts  map[int64]int64
	there   map[parkedKey]bool
	adds    []parkedReceipt
	addKeys []parkedKey
	since   int64
}

func (p *parking) want(r ref, digest [sha256.Size]byte) {
	p.keys = append(p.keys, parkedKey{r, digest})
}

// reset forgets what an earlier run of the transaction has seen.
func (p *parking) reset() {
	p.refs, p.counts, p.there = map[ref]delivery.MessageID{}, map[int64]int64{}, map[parkedKey]bool{}
	p.adds, p.addKeys = nil, nil
}

// stmts takes the locks and looks again. The lines of the messages ids come first, as in every transaction.
func (p *parking) stmts(ids []delivery.MessageID) (out []stmt) {
	if len(p.keys) == 0 {
		return nil
	}
	if len(ids) > 0 {
		out = append(out, stmt{sql: lockLines, args: []any{uuids(ids)}})
	}
	locks := make([]int32, len(p.keys))
	accounts := make([]int64, len(p.keys))
	for i := range p.keys {
		accounts[i], locks[i] = p.keys[i].account, int32(p.keys[i].account)
	}
	out = append(out,
		stmt{`SELECT pg_advisory_xact_lock(77202, a) FROM unnest($1::integer[]) AS u (a)`, []any{sortedUnique(locks)},
			func(pgx.Rows) error { p.reset(); return nil }},
		stmt{`SELECT account, n FROM parked_counts WHERE account = ANY ($1::bigint[])`, []any{sortedUnique(accounts)},
			func(rows pgx.Rows) error {
				var account, n int64
				err := rows.Scan(&account, &n)
				p.counts[account] = n
				return err
			}})
	for keys := range slices.Chunk(p.keys, rowsPerStatement) {
		out = append(out, p.look(keys)...)
	}
	return out
}

// look asks which messages there are meanwhile, and which receipts are parked already.
func (p *parking) look(keys []parkedKey) []stmt {
	refs, digests := make([]ref, len(keys)), make([][]byte, len(keys))
	for i := range keys {
		refs[i], digests[i] = keys[i].ref, keys[i].digest[:]
	}
	accounts, texts := split(refs)
	// The map of refs is made anew by each run, after this statement is made.
	find := findRefs(refs, nil)
	find.each = func(rows pgx.Rows) error { return findRefs(nil, p.refs).each(rows) }
	return []stmt{find, {`SELECT p.account, p.ref, p.digest
		FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS u (account, ref, digest)
		JOIN parked p ON p.account = u.account AND p.ref = u.ref AND p.digest = u.digest`,
		[]any{accounts, texts, digests}, func(rows pgx.Rows) error {
			var k parkedKey
			var text, digest []byte
			err := rows.Scan(&k.account, &text, &digest)
			k.id = string(text)
			copy(k.digest[:], digest)
			p.there[k] = true
			return err
		}}}
}

// knows reports whether the provider's id has become known since it was looked up.
func (p *parking) knows(r ref) bool {
	_, known := p.refs[r]
	return known
}

// add keeps a receipt for a message that is not known yet. A repeat changes nothing. It gives store.ErrParkedFull when
// the account has as many parked receipts as it may have.
func (p *parking) add(rc *delivery.Receipt, r ref, now, until time.Time) error {
	k := parkedKey{r, receiptDigest(rc)}
	switch {
	case p.there[k]:
		return nil
	case p.counts[r.account] >= store.MaxParked:
		return store.ErrParkedFull
	}
	p.there[k] = true
	p.counts[r.account]++
	p.since = store.Millis(now)
	p.adds = append(p.adds, parkedReceipt{until: store.Millis(until), receipt: *rc})
	p.addKeys = append(p.addKeys, k)
	return nil
}

// flush writes what add has gathered.
func (p *parking) flush(t *tx) error {
	for i := 0; i < len(p.adds); i += rowsPerStatement {
		end := min(i+rowsPerStatement, len(p.adds))
		if err := p.flushSome(t, p.adds[i:end], p.addKeys[i:end]); err != nil {
			return err
		}
	}
	return nil
}

func (p *parking) flushSome(t *tx, adds []parkedReceipt, keys []parkedKey) error {
	refs, digests := make([]ref, len(adds)), make([][]byte, len(adds))
	untils, texts := make([]int64, len(adds)), make([]string, len(adds))
	for i := range adds {
		text, err := json.Marshal(&adds[i].receipt)
		if err != nil {
			return err
		}
		refs[i], digests[i] = keys[i].ref, keys[i].digest[:]
		untils[i], texts[i] = adds[i].until, string(text)
	}
	accounts, ids := split(refs)
	t.later(`WITH new AS (INSERT INTO parked (account, ref, digest, until, receipt, since)
			SELECT u.*, $6 FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::text[]) AS u
			ON CONFLICT DO NOTHING RETURNING account)
		INSERT INTO parked_counts AS c (account, n) SELECT account, count(*) FROM new GROUP BY account ORDER BY account
		ON CONFLICT (account) DO UPDATE SET n = c.n + excluded.n`,
		accounts, ids, digests, untils, texts, p.since)
	return nil
}

// Parked counts receipts that wait for their message.
func (s *Store) Parked(ctx context.Context, sys store.System) (n int, err error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	err = s.read(ctx, everyTenant, stmt{sql: `SELECT coalesce(sum(n), 0)::bigint FROM parked_counts`, each: into(&n)})
	return n, err
}

// dropRows is how many parked receipts one transaction drops at most.
const dropRows = 5000

// DropParked removes receipts that have waited long enough, in transactions of bounded size.
func (s *Store) DropParked(ctx context.Context, sys store.System, now time.Time) (n int, err error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	for {
		dropped, err := write(ctx, s, everyTenant, need{}, func(t *tx) (dropped int, err error) {
			t.wrote = true
			_, err = t.one([]any{&dropped}, `WITH gone AS (DELETE FROM parked p
					USING (SELECT account, ref, digest FROM parked WHERE until < $1 ORDER BY until LIMIT $2
						FOR UPDATE SKIP LOCKED) AS o
					WHERE p.account = o.account AND p.ref = o.ref AND p.digest = o.digest RETURNING p.account),
				fewer AS (UPDATE parked_counts c SET n = c.n - g.n
					FROM (SELECT account, count(*) AS n FROM gone GROUP BY account) AS g WHERE c.account = g.account)
				SELECT count(*) FROM gone`, store.Millis(now), dropRows)
			return dropped, err
		})
		n += dropped
		if err != nil || dropped < dropRows {
			return n, err
		}
	}
}
