package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// intake is what a transaction that stores new messages of one tenant has to know: the quota that is used, the requests
// that were made before, the suppressed among the addresses, the ends of the lines. It is read under the lock of the
// tenant's head, so that it does not change until the commit.
type intake struct {
	tenant int64

	// What is asked for.
	days     map[int64]bool
	routes   []string
	keys     []string
	to       map[string]bool
	lines    map[lineKey]bool
	of       map[delivery.CampaignID]bool
	purge    time.Time // remove some of the keys that have expired by then
	purgeAny bool

	// What there is. reset forgets it, because a transaction may run more than once.
	used      map[int64]int64
	requests  map[requestKey]request
	campaigns map[delivery.CampaignID]int64
}

type requestKey struct{ route, key string }

// request is what is kept of an earlier request.
type request struct {
	fingerprint []byte
	expires     int64
	results     []byte
}

func newIntake(tenant int64) *intake {
	in := &intake{tenant: tenant, days: map[int64]bool{}, to: map[string]bool{}, lines: map[lineKey]bool{},
		of: map[delivery.CampaignID]bool{}}
	in.reset()
	return in
}

func (in *intake) reset() {
	in.used, in.requests, in.campaigns = map[int64]int64{}, map[requestKey]request{}, map[delivery.CampaignID]int64{}
}

// add asks for what an acceptance needs.
func (in *intake) add(a store.Acceptance) {
	in.days[day(a.Now)] = true
	if a.Key != nil {
		in.routes, in.keys = append(in.routes, a.Key.Route), append(in.keys, a.Key.Key)
	}
	for i := range a.Messages {
		m := &a.Messages[i]
		in.to[m.To] = true
		for l := range m.Then {
			in.to[m.Then[l].To] = true
		}
		if m.OrderingKey != "" {
			in.lines[lineKey{in.tenant, m.Channel, m.To, m.OrderingKey}] = true
		}
		if !m.Campaign.IsZero() {
			in.of[m.Campaign] = true
		}
	}
}

// need is what the transaction is to load.
func (in *intake) need() need {
	n := need{heads: []int64{in.tenant}, intake: in}
	for k := range in.lines {
		n.stripes = append(n.stripes, k.stripe())
	}
	return n
}

const (
	usedOn = `SELECT day, n FROM usage WHERE tenant = $1 AND day = ANY ($2)`
	keysOf = `SELECT i.route, i.key, i.fingerprint, i.expires, i.results
		FROM unnest($2::text[], $3::text[]) AS u (route, key)
		JOIN idempotency i ON i.tenant = $1 AND i.route = u.route AND i.key = u.key`
	campaignsOf = `SELECT id, n FROM campaigns WHERE tenant = $1 AND id = ANY ($2)`

	dropKeys = `DELETE FROM idempotency i USING unnest($2::text[], $3::text[]) AS u (route, key)
		WHERE i.tenant = $1 AND i.route = u.route AND i.key = u.key`
	putKeys = `INSERT INTO idempotency (tenant, route, key, fingerprint, expires, results)
		SELECT $1, u.* FROM unnest($2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[]) AS u`
	purgeKeys = `DELETE FROM idempotency WHERE (tenant, route, key) IN (SELECT tenant, route, key FROM idempotency
		WHERE tenant = $1 AND expires <= $2 ORDER BY expires LIMIT $3)`
)

// stmts read what is asked for. The heads are locked.
func (in *intake) stmts(t *tx) []stmt {
	var days []int32
	for d := range in.days {
		days = append(days, int32(d))
	}
	list := []stmt{{usedOn, []any{in.tenant, days}, func(rows pgx.Rows) error {
		var d, n int64
		err := rows.Scan(&d, &n)
		in.used[d] = n
		return err
	}}}
	if len(in.keys) > 0 {
		list = append(list, in.loadKeys())
	}
	if len(in.to) > 0 {
		var to []string
		for a := range in.to {
			to = append(to, a)
		}
		list = append(list, stmt{suppressedAmong, []any{in.tenant, to}, t.keepSuppressed})
	}
	if len(in.lines) > 0 {
		var keys []lineKey
		for k := range in.lines {
			keys = append(keys, k)
		}
		list = append(list, t.loadLineEnds(in.tenant, keys))
	}
	if len(in.of) > 0 {
		var ids [][16]byte
		for id := range in.of {
			ids = append(ids, id)
		}
		list = append(list, stmt{campaignsOf, []any{in.tenant, ids}, func(rows pgx.Rows) error {
			var id [16]byte
			var n int64
			err := rows.Scan(&id, &n)
			in.campaigns[id] = n
			return err
		}})
	}
	return list
}

func (in *intake) loadKeys() stmt {
	return stmt{keysOf, []any{in.tenant, in.routes, in.keys}, func(rows pgx.Rows) error {
		var k requestKey
		var r request
		err := rows.Scan(&k.route, &k.key, &r.fingerprint, &r.expires, &r.results)
		in.requests[k] = r
		return err
	}}
}

// replay answers a request whose key is known.
func (in *intake) replay(a store.Acceptance) (out store.Accepted, found bool, err error) {
	r, ok := in.requests[requestKey{a.Key.Route, a.Key.Key}]
	switch {
	case !ok || r.expires <= store.Millis(a.Now):
		return out, false, nil
	case !bytes.Equal(r.fingerprint, a.Key.Fingerprint[:]):
		return out, true, store.ErrKeyReused
	}
	out.Replayed = true
	out.Results, err = decodeResults(r.results)
	return out, true, err
}

const purgeRows = 128 // at most, so that a purge is never felt

// keep stores the results under the key. A key that has expired is replaced.
func (t *tx) keep(a store.Acceptance, out store.Accepted) {
	k := requestKey{a.Key.Route, a.Key.Key}
	if _, expired := t.in.requests[k]; expired {
		t.later(dropKeys, t.in.tenant, []string{k.route}, []string{k.key})
	}
	r := request{a.Key.Fingerprint[:], store.Millis(a.Key.Expires), encodeResults(out.Results)}
	t.in.requests[k] = r
	t.keyed.add(k, r)
}

// keyedRows are rows of idempotency, to be written.
type keyedRows struct {
	routes, keys          []string
	fingerprints, results [][]byte
	expires               []int64
}

func (k *keyedRows) add(key requestKey, r request) {
	k.routes, k.keys = append(k.routes, key.route), append(k.keys, key.key)
	k.fingerprints, k.results = append(k.fingerprints, r.fingerprint), append(k.results, r.results)
	k.expires = append(k.expires, r.expires)
}

// flushKeys writes the keys of requests, after those that they replace are gone.
func (t *tx) flushKeys() (stmts []stmt) {
	k := &t.keyed
	if len(k.keys) == 0 {
		return nil
	}
	if t.in.purgeAny {
		stmts = append(stmts, stmt{sql: purgeKeys, args: []any{t.in.tenant, store.Millis(t.in.purge), purgeRows}})
	}
	return append(stmts, stmt{sql: putKeys, args: []any{t.in.tenant, k.routes, k.keys, k.fingerprints, k.expires,
		k.results}})
}

// encodeResults writes id, status, length of the reason and reason of each result.
func encodeResults(results []store.AcceptResult) (b []byte) {
	for _, r := range results {
		b = append(b, r.ID[:]...)
		b = append(b, byte(r.Status))
		b = binary.AppendUvarint(b, uint64(len(r.Reason)))
		b = append(b, r.Reason...)
	}
	return b
}

func decodeResults(b []byte) (results []store.AcceptResult, err error) {
	bad := errors.New("idempotency: stored results are damaged")
	for len(b) > 0 {
		if len(b) < 18 {
			return nil, bad
		}
		r := store.AcceptResult{ID: delivery.MessageID(b[:16]), Status: delivery.Status(b[16])}
		n, used := binary.Uvarint(b[17:])
		if used <= 0 || n > uint64(len(b)-17-used) {
			return nil, bad
		}
		b = b[17+used:]
		r.Reason, b = string(b[:n]), b[n:]
		results = append(results, r)
	}
	return results, nil
}
