package postgres

import (
	"cmp"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// What the life of messages does with suppression lists; the lists themselves are in suppressions.go.

const (
	suppressedAmong = `SELECT s.tenant, s.recipient, s.channel, s.reason FROM suppressions s
		JOIN (SELECT DISTINCT unnest($2::text[]) AS recipient) u ON s.recipient = u.recipient WHERE s.tenant = $1`
	suppressedOf = `SELECT s.tenant, s.recipient, s.channel, s.reason FROM unnest($1::uuid[]) AS u (id)
		JOIN messages m ON m.id = u.id JOIN suppressions s ON s.tenant = m.tenant AND s.recipient = m.recipient`
	putSuppressions = `INSERT INTO suppressions (tenant, recipient, channel, reason, source, at)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::bigint[])
		AS u (tenant, recipient, channel, reason, source, at) ORDER BY 1, 2, 3
		ON CONFLICT (tenant, recipient, channel) DO UPDATE SET reason = excluded.reason, source = excluded.source,
		at = excluded.at`
)

func (t *tx) keepSuppressed(rows pgx.Rows) error {
	var k suppressKey
	var ch int32
	var e store.Suppression
	err := rows.Scan(&k.tenant, &k.to, &ch, &e.Reason)
	k.channel = delivery.Channel(ch)
	t.listed[k] = e
	return err
}

// suppressed finds the entry that keeps a channel from an address, among those that were loaded: of the channel over one
// for every channel. An entry always has a reason.
func (t *tx) suppressed(tn *tenant, ch delivery.Channel, to string) (store.Suppression, bool) {
	for _, c := range []delivery.Channel{ch, 0} {
		if e, ok := t.listed[suppressKey{tn.n, c, to}]; ok {
			return e, true
		}
	}
	return store.Suppression{}, false
}

// suppress adds or replaces an entry, with the news of it.
func (t *tx) suppress(tn *tenant, e store.Suppression) {
	e.Reason = cmp.Or(e.Reason, store.ReasonSuppressed)
	k := suppressKey{tn.n, e.Channel, e.To}
	t.wrote, t.refused = true, true
	t.listed[k], t.refusals[k] = e, e
	t.changed(store.SuppressChange, tn.n, "")
}

// flushSuppressed writes the new entries.
func (t *tx) flushSuppressed() []stmt {
	if len(t.refusals) == 0 {
		return nil
	}
	var tenants, at []int64
	var channels []int32
	var tos, reasons, sources []string
	for k, e := range t.refusals {
		tenants, tos, channels = append(tenants, k.tenant), append(tos, clean(k.to)), append(channels, int32(k.channel))
		reasons, sources = append(reasons, clean(e.Reason)), append(sources, clean(e.Source))
		at = append(at, store.Millis(e.At))
	}
	return []stmt{{sql: putSuppressions, args: []any{tenants, tos, channels, reasons, sources, at}}}
}
