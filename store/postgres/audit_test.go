package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// manyMessages gives acme n messages in batches of 1,000, of which the first hundred of each have been sent.
func manyMessages(t testing.TB, s *postgres.Store, n int) {
	t.Helper()
	now := time.Now().Truncate(time.Millisecond)
	ids := idsAt(now)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme", CreatedAt: now}))
	for ; n > 0; n -= 1000 {
		ms := newMessages(ids, now, min(n, 1000), func(i int, m *store.NewMessage) {
			switch i % 100 {
			case 1:
				m.Then = []store.NewLeg{{Channel: delivery.Email, To: "a@example.com", Payload: []byte("{}")}}
			case 2, 3:
				m.To, m.OrderingKey = "+1", "k"
			}
		})
		_, err := s.Accept(bg, "acme", store.Acceptance{Now: now, Messages: ms})
		require.NoError(t, err)
		var first []delivery.MessageID
		for i := range min(len(ms), 100) {
			first = append(first, ms[i].ID)
		}
		claimed, err := s.Claim(bg, sys, store.Claim{IDs: first, Node: "n", Now: now, Until: now.Add(time.Minute)})
		require.NoError(t, err)
		var outcomes []store.Outcome
		for i, c := range claimed {
			o := store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent, Attempted: true}
			if i%10 == 5 {
				o.Status, o.Reason = delivery.StatusFailed, "r"
			}
			outcomes = append(outcomes, o)
		}
		_, err = s.Settle(bg, sys, now, outcomes)
		require.NoError(t, err)
	}
}

// Every kind of damage is found, wherever it is in a history of several pages, and nothing else is reported.
func TestAuditFindsDamage(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	manyMessages(t, s, 4300)
	clean(t, s, "acme")
	r, err := s.Audit(bg, "acme")
	require.NoError(t, err)
	require.EqualValues(t, 4300, r.Accepted)
	require.Greater(t, r.Facts, int64(4300))
	require.Equal(t, r.Accepted, r.Live+r.HandedOn+r.Ended)

	admin := connect(t, db.Admin)
	const (
		lastSent = `(SELECT id FROM messages WHERE status = 10 AND NOT EXISTS (SELECT FROM legs l WHERE l.id = messages.id)
			ORDER BY id DESC LIMIT 1)`
		queued = `(SELECT id FROM messages WHERE status = 2 ORDER BY id DESC LIMIT 1)`
	)
	for _, c := range []struct{ damage, what string }{
		{`DELETE FROM messages WHERE id = ` + queued, "accepted messages are not the rows"},
		{`UPDATE messages SET due = NULL WHERE id = ` + queued, "message without due time"},
		{`UPDATE messages SET due = 1 WHERE id = ` + lastSent, "ended message with due time"},
		{`UPDATE messages SET q = q + 256 WHERE id = ` + queued, "message in the wrong queue"},
		{`UPDATE messages SET status = 11 WHERE id = ` + lastSent, "status is not that of the last fact"},
		{`UPDATE messages SET status = 11 WHERE id = ` + lastSent, "tally is not the rows"},
		{`UPDATE messages SET facts = '\x01' WHERE id = ` + lastSent, "fact is missing"},
		{`UPDATE messages SET facts = '\x01' WHERE id = ` + lastSent, "facts without a message"},
		{`UPDATE legs SET status = 10 WHERE n = 1`, "legs are not those of the message"},
		{`DELETE FROM legs WHERE n = 1`, "legs are not those of the message"},
		{`DELETE FROM ordered WHERE place = 2`, "line of an ordering key is wrong"},
		{`DELETE FROM dead WHERE id = (SELECT id FROM dead LIMIT 1)`, "list of dead letters is wrong"},
		{`UPDATE tally SET n = n + 1 WHERE status = 2`, "tally is not the rows"},
		{`UPDATE ledger SET at = at + 1 WHERE seq = 3`, "ledger row was changed"},
		{`UPDATE ledger SET facts = facts || '\x00' WHERE seq = 3`, "ledger row was changed"},
		{`DELETE FROM ledger WHERE seq = 3`, "ledger chain is broken"},
		{`DELETE FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)`, "ledger chain is broken"},
		{`UPDATE ledger_heads SET accepted = accepted + 1`, "accepted messages are not the rows"},
		{`INSERT INTO campaigns (id, tenant, name, state, audience, legs, rate, ttl, people, cursor, expanded, skipped,
			created, started, ended) SELECT '00000000-0000-0000-0000-000000000001', n, 'c', 'running', '', '', 0, 0, 5, 5,
			true, '{}', 0, 0, 0 FROM tenants`, "people of a campaign do not add up"},
	} {
		// Rows are kept beside and put back.
		for _, table := range tampered {
			_, err := admin.Exec(bg, `CREATE TABLE kept_`+table+` AS TABLE `+table)
			require.NoError(t, err)
		}
		tag, err := admin.Exec(bg, c.damage)
		require.NoError(t, err, c.damage)
		require.Positive(t, tag.RowsAffected(), c.damage)
		r, err := s.Audit(bg, "acme")
		require.NoError(t, err)
		var found []string
		for _, p := range r.Problems {
			found = append(found, p.What)
		}
		require.Contains(t, found, c.what, c.damage)
		for _, table := range tampered {
			_, err := admin.Exec(bg, `DELETE FROM `+table+`; INSERT INTO `+table+` TABLE kept_`+table+`; DROP TABLE kept_`+table)
			require.NoError(t, err)
		}
	}
	clean(t, s, "acme")
	_, err = s.Audit(bg, "nobody")
	require.ErrorIs(t, err, store.ErrNotFound)
}

var tampered = []string{"messages", "legs", "ordered", "dead", "tally", "ledger", "ledger_heads", "campaigns"}

func BenchmarkAudit100k(b *testing.B) {
	s := openAt(b, database(b).App)
	manyMessages(b, s, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		r, err := s.Audit(bg, "acme")
		require.NoError(b, err)
		require.Empty(b, r.Problems)
	}
}
