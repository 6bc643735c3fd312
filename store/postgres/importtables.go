package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// ofMessage looks up each row's tenant. A join would be planned for tables that are still empty, and take for ever.
const ofMessage = "tenant = (SELECT tenant FROM messages m WHERE m.id = r.id)"

// importTables lists the tables in the order in which they are to be filled: what a row is checked against, or looks
// up, comes before it. A column is "name type".
var importTables = []struct {
	name    string
	columns string
	extra   string // a further column = its expression, over the row r
}{
	{name: "tenants", columns: `n bigint, slug text, name text, daily_quota bigint, rates text, on_ambiguous text,
		data_key bytea, region text, created bigint, policy text,
		version bigint`},
	{name: "api_keys", columns: `id uuid, tenant bigint, name text, mode text, admin boolean, hash bytea, hint text,
		created bigint, revoked bigint`},
	{name: "account_ids", columns: `n bigint, id uuid`},
	{name: "accounts", columns: `id uuid, tenant bigint, name text, kind text, channel integer, settings text,
		sealed bytea, secret_names text, priority integer, rate double precision, burst double precision, paused boolean,
		pause_reason text, created bigint, updated bigint, version bigint`},
	{name: "templates", columns: `tenant bigint, name text, version integer, channel integer, text text, subject text,
		html text, approved text, event text, data text, created bigint`},
	{name: "audiences", columns: `n bigint, tenant bigint, name text, ready boolean, people bigint, rows bigint,
		left_out text, columns text, created bigint, reject_file text`},
	{name: "people", columns: `audience bigint, seq bigint, address text, phone text, email text, url text,
		channel integer, vars text`, extra: "tenant = (SELECT tenant FROM audiences WHERE n = r.audience)"},
	{name: "campaigns", columns: `n bigint, id uuid, tenant bigint, name text, state text, audience text, legs text,
		rate double precision, ttl bigint, people bigint, cursor bigint, expanded boolean, skipped text, created bigint,
		started bigint, ended bigint, moving boolean`},
	{name: "suppressions", columns: `tenant bigint, recipient text, channel integer, reason text, source text,
		at bigint`},
	{name: "messages", columns: `id uuid, tenant bigint, channel smallint, lane smallint, status smallint, q bigint,
		due bigint, node text, epoch integer, attempts integer, flags bigint, account bigint, campaign bigint,
		recipient text, provider_id text, client_ref text, reason text, detail text, segments integer, accepted bigint,
		updated bigint, expires bigint, facts bytea, seen bytea`},
	{name: "payloads", columns: `id uuid, body bytea`, extra: ofMessage},
	{name: "labels", columns: `id uuid, category text, tag text, ordering_key text`, extra: ofMessage},
	{name: "legs", columns: `id uuid, n smallint, channel smallint, recipient text, body bytea, segments integer,
		account bigint, pinned boolean, within bigint, success smallint, status smallint, reason text, provider text,
		until bigint, epoch integer, winner boolean`, extra: ofMessage},
	{name: "ordered", columns: `tenant bigint, channel smallint, recipient text, ordering_key text, place bigint, id uuid,
		due bigint`},
	{name: "dead", columns: `tenant bigint, id uuid`},
	{name: "ledger", columns: `tenant bigint, seq bigint, at bigint, prev bytea, hash bytea, facts bytea`},
	{name: "tally", columns: `tenant bigint, campaign bigint, channel smallint, status smallint, n bigint`},
	{name: "usage", columns: `tenant bigint, day integer, n bigint`},
	{name: "idempotency", columns: `tenant bigint, route text, key text, fingerprint bytea, expires bigint,
		results bytea`},
	{name: "provider_refs", columns: `account bigint, ref bytea, id uuid`},
	{name: "parked", columns: `account bigint, ref bytea, digest bytea, until bigint, receipt text, since bigint`},
	{name: "clock", columns: `n integer, seen bigint`},
}

// emptyIsNull are the columns in which nothing may stand as no bytes, and here stands as NULL.
var emptyIsNull = []string{"data_key", "sealed", "seen"}

// columnsOf splits a list of "name type".
func columnsOf(list string) (names, types []string) {
	for _, c := range strings.Split(list, ",") {
		name, typ, _ := strings.Cut(strings.TrimSpace(c), " ")
		names, types = append(names, name), append(types, typ)
	}
	return names, types
}

// dayOf is the day of a ledger row: that of its writing. The source does not keep it. The time of the row's last fact
// is it, except for what a provider reports, who may say any time; but days never go back in a ledger, and none lies
// ahead.
func (im *Import) dayOf(r []any) any {
	tenant, _ := r[0].(int64)
	at, _ := r[2].(int64)
	d := max(im.days[tenant], min(day(store.FromMillis(at)), im.now))
	im.days[tenant] = d
	return d
}

// stripeOf is the lock of the line in which a message stands.
func stripeOf(r []any) (any, error) {
	tenant, ok1 := r[0].(int64)
	ch, ok2 := r[1].(int64)
	to, ok3 := r[2].(string)
	key, ok4 := r[3].(string)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, errors.New("not the key of a line")
	}
	return int64(lineKey{tenant, delivery.Channel(ch), to, key}.stripe()), nil
}

// column makes an array of one type out of values.
func column(typ string, values []any) (any, error) {
	bad := func(v any) error { return fmt.Errorf("a %T is no %s", v, typ) }
	switch typ {
	case "bigint", "integer", "smallint":
		out := make([]pgtype.Int8, len(values))
		for i, v := range values {
			n, ok := v.(int64)
			if !ok && v != nil {
				return nil, bad(v)
			}
			out[i] = pgtype.Int8{Int64: n, Valid: v != nil}
		}
		return out, nil
	case "boolean":
		out := make([]bool, len(values))
		for i, v := range values {
			n, ok := v.(int64)
			if !ok {
				return nil, bad(v)
			}
			out[i] = n != 0
		}
		return out, nil
	case "double precision":
		out := make([]float64, len(values))
		for i, v := range values {
			switch n := v.(type) {
			case float64:
				out[i] = n
			case int64: // SQLite keeps whole numbers so
				out[i] = float64(n)
			default:
				return nil, bad(v)
			}
		}
		return out, nil
	case "text":
		out := make([]string, len(values))
		for i, v := range values {
			s, ok := v.(string)
			if !ok {
				return nil, bad(v)
			}
			out[i] = clean(s)
		}
		return out, nil
	case "bytea":
		out := make([][]byte, len(values))
		for i, v := range values {
			switch b := v.(type) {
			case nil:
			case []byte:
				out[i] = b
			case string: // a provider's id
				out[i] = []byte(b)
			default:
				return nil, bad(v)
			}
		}
		return out, nil
	case "uuid":
		out := make([][16]byte, len(values))
		for i, v := range values {
			b, ok := v.([]byte)
			if !ok || len(b) != 16 {
				return nil, bad(v)
			}
			out[i] = [16]byte(b)
		}
		return out, nil
	}
	return nil, fmt.Errorf("no type %q", typ)
}
