package postgres_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// plan is a node of an executed plan.
type plan struct {
	Type   string `json:"Node Type"`
	Table  string `json:"Relation Name"`
	Hit    int    `json:"Shared Hit Blocks"`
	Read   int    `json:"Shared Read Blocks"`
	Plans  []plan `json:"Plans"`
	Actual int    `json:"Actual Loops"`
}

func (p *plan) scans(of string) bool {
	if p.Type == "Seq Scan" && strings.HasPrefix(p.Table, of) && p.Actual > 0 {
		return true
	}
	for i := range p.Plans {
		if p.Plans[i].scans(of) {
			return true
		}
	}
	return false
}

// The cost of looking for work must not grow with the messages that there are. These statements run, as the engine runs
// them, on a table of many messages: none reads a table from end to end, and each touches few pages.
func TestWorkIsFoundByIndex(t *testing.T) {
	db := smallDatabase(t)
	s := openAt(t, db.App)
	w := newWorld(t, s)
	for i := range 3 {
		w.tenant(delivery.TenantID(fmt.Sprint("tenant-", i+1)))
	}
	ids := w.accept("tenant-1", w.batch(256))
	w.claim("node-1", ids[:20])

	// 20,000 more, most of them done, with the rights of the superuser and by copying one.
	admin := connect(t, db.Admin)
	const more = `INSERT INTO messages SELECT (lpad(to_hex(x), 12, '0') || '00000000000000000000')::uuid, 1 + x % 3,
		CASE WHEN x % 10 = 0 THEN ((1 + x % 3) << 8) | (m.channel << 4) | (1 + x % 2) ELSE 0 END,
		CASE WHEN x % 10 = 0 THEN m.due + x % 1000 END, m.flags, m.account, 1 + x % 50, m.accepted, m.updated, m.expires,
		0, 0, 1, m.channel, m.lane, CASE WHEN x % 10 > 0 THEN 12 WHEN x % 100 = 0 THEN 3 ELSE 2 END, '', m.recipient, '', '',
		CASE WHEN x % 10 = 0 THEN 'paused' ELSE '' END, '', m.facts, NULL
		FROM (SELECT * FROM messages LIMIT 1) AS m, generate_series(1, 20000) AS x`
	_, err := admin.Exec(bg, more)
	require.NoError(t, err)
	_, err = admin.Exec(bg, `INSERT INTO payloads SELECT id, tenant, '{}' FROM messages ON CONFLICT DO NOTHING`)
	require.NoError(t, err)

	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf("%x", id[:]))
	}
	batch := "'{" + strings.Join(list, ",") + "}'"
	none := "'00000000-0000-0000-0000-000000000000'"
	now := store.Millis(w.now.Add(500 * time.Millisecond))
	q := 1<<8 | int(delivery.SMS)<<4 | int(delivery.Normal)
	statements := map[string]struct {
		scope, args string
		pages       int
	}{
		"due queues":   {"-1", fmt.Sprintf("0, %d", now), 200},
		"next due":     {"-1", fmt.Sprintf("-1, %d", now), 200},
		"due":          {"1", fmt.Sprintf("%d, %d, 0, %s, 256", q, now, none), 600},
		"ahead":        {"1", fmt.Sprintf("%d, %d, %s, 100", q, now, none), 400},
		"overdue":      {"-1", fmt.Sprintf("%d, 100", now), 200},
		"leases":       {"-1", "'node-1', 100, 10", 300},
		"held":         {"-1", "'paused', 1", 700},
		"held account": {"-1", "'paused', 0", 700},
		"campaign":     {"-1", fmt.Sprintf("7, %s, 256", none), 300},
		"lock rows":    {"-1", batch, 4000},
		"legs":         {"-1", batch, 4000},
		"lines":        {"-1", batch, 4000},
		"payloads":     {"-1", batch, 4000},
		"labels":       {"-1", batch, 4000},
		"suppressed":   {"-1", batch, 4000},
		"heads":        {"-1", "'{}', " + batch, 4000},
	}
	conn := connect(t, db.App)
	for _, analyzed := range []bool{false, true} {
		if analyzed { // before, the planner knows nothing of what the table holds
			_, err := admin.Exec(bg, "ANALYZE messages, payloads")
			require.NoError(t, err)
		}
		for name, args := range statements {
			p := explain(t, conn, postgres.Plans()[name], args.scope, args.args)
			for _, table := range []string{"messages", "payloads", "labels", "legs", "ordered"} {
				require.False(t, p.scans(table), "%s reads all of %s", name, table)
			}
			require.Less(t, p.Hit+p.Read, args.pages, "pages that %s touches", name)
		}
	}
}

func explain(t *testing.T, conn *pgx.Conn, of postgres.Plan, scope, args string) plan {
	t.Helper()
	require.NotEmpty(t, of.SQL)
	tx, err := conn.Begin(bg)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(bg) }()
	_, err = tx.Exec(bg, "SELECT set_config('msgctl.tenant', $1, true)", scope)
	require.NoError(t, err)
	_, err = tx.Exec(bg, of.Settings)
	require.NoError(t, err)
	_, err = tx.Exec(bg, "PREPARE it ("+of.Types+") AS "+of.SQL)
	require.NoError(t, err, of.SQL)
	var text []byte
	err = tx.QueryRow(bg, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE it ("+args+")",
		pgx.QueryExecModeSimpleProtocol).Scan(&text)
	require.NoError(t, err)
	_, err = tx.Exec(bg, "DEALLOCATE it")
	require.NoError(t, err)
	var out []struct{ Plan plan }
	require.NoError(t, json.Unmarshal(text, &out))
	return out[0].Plan
}
