package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// world is a tenant that sends.
type world struct {
	testing.TB
	ctx context.Context
	s   store.Store
	sys store.System
	ids *delivery.IDs
	now time.Time
}

func newWorld(t testing.TB, s store.Store) *world {
	l := &world{TB: t, ctx: context.Background(), s: s, sys: store.AsSystem("test"),
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	l.ids = delivery.NewIDs(func() time.Time { return l.now })
	return l
}

func (l *world) tenant(id delivery.TenantID) {
	l.Helper()
	require.NoError(l, l.s.CreateTenant(l.ctx, l.sys, store.Tenant{ID: id, Name: string(id), CreatedAt: l.now}))
}

func (l *world) batch(n int, change ...func(*store.NewMessage)) (ms []store.NewMessage) {
	for range n {
		id := l.ids.Message()
		m := store.NewMessage{ID: id, Channel: delivery.SMS, Lane: delivery.Normal, To: fmt.Sprintf("+9198%08x", id[8:12]),
			Payload: []byte(`{"content":{"text":"your parcel arrives today between two and four"}}`), Segments: 1,
			DueAt: l.now, ExpiresAt: l.now.Add(24 * time.Hour)}
		for _, f := range change {
			f(&m)
		}
		ms = append(ms, m)
	}
	return ms
}

func (l *world) accept(tenant delivery.TenantID, ms []store.NewMessage) (ids []delivery.MessageID) {
	l.Helper()
	_, err := l.s.Accept(l.ctx, tenant, store.Acceptance{Now: l.now, Messages: ms})
	require.NoError(l, err)
	for i := range ms {
		ids = append(ids, ms[i].ID)
	}
	return ids
}

func (l *world) claim(node string, ids []delivery.MessageID) []store.Claimed {
	l.Helper()
	got, err := l.s.Claim(l.ctx, l.sys, store.Claim{IDs: ids, Node: node, Now: l.now, Until: l.now.Add(time.Minute)})
	require.NoError(l, err)
	return got
}

var provider = delivery.AccountID{7}

// sent are the outcomes of hand-offs.
func sent(claimed []store.Claimed) (out []store.Outcome) {
	for i := range claimed {
		out = append(out, store.Outcome{ID: claimed[i].ID, Epoch: claimed[i].Epoch, Writer: delivery.BySend,
			Status: delivery.StatusSent, Account: provider, ProviderID: claimed[i].ID.String(), IndexProviderID: true,
			Attempted: true})
	}
	return out
}

func (l *world) settle(out []store.Outcome) []store.Settled {
	l.Helper()
	got, err := l.s.Settle(l.ctx, l.sys, l.now, out)
	require.NoError(l, err)
	return got
}

func BenchmarkLife(b *testing.B) {
	for _, size := range []int{1, 256} {
		s := openAt(b, smallDatabase(b).App)
		l := newWorld(b, s)
		l.tenant("acme")
		var ids []delivery.MessageID
		var claimed []store.Claimed
		for _, step := range []struct {
			name string
			run  func()
		}{
			{"accept", func() { ids = l.accept("acme", l.batch(size)) }},
			{"claim", func() { claimed = l.claim("node-1", ids) }},
			{"settle", func() { l.settle(sent(claimed)) }},
		} {
			b.Run(fmt.Sprintf("%s-%d", step.name, size), func(b *testing.B) {
				b.StopTimer()
				var trips int64
				for range b.N {
					for _, before := range []func(){
						func() { ids = l.accept("acme", l.batch(size)) },
						func() { claimed = l.claim("node-1", ids) },
					} {
						if step.name == "accept" || step.name == "claim" && claimed != nil {
							break
						}
						before()
						if step.name == "claim" {
							break
						}
					}
					was := s.Trips()
					b.StartTimer()
					step.run()
					b.StopTimer()
					trips += s.Trips() - was
					claimed = nil
				}
				b.ReportMetric(float64(trips)/float64(b.N), "trips/op")
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "µs/msg")
			})
		}
	}
}

// BenchmarkRaw is what the server does with 256 bare rows of the same table and indexes: the floor under BenchmarkLife.
func BenchmarkRaw(b *testing.B) {
	db := smallDatabase(b)
	s := openAt(b, db.App)
	w := newWorld(b, s)
	w.tenant("acme")
	w.accept("acme", w.batch(1))
	conn := connect(b, db.Admin)
	_, err := conn.Exec(bg, `CREATE TABLE raw (LIKE messages INCLUDING ALL) WITH (fillfactor = 70)`)
	require.NoError(b, err)
	rows, err := conn.Query(bg, `SELECT * FROM messages LIMIT 1`)
	require.NoError(b, err)
	names := make([]string, len(rows.FieldDescriptions()))
	for i, f := range rows.FieldDescriptions() {
		names[i] = f.Name
	}
	require.True(b, rows.Next())
	one, err := rows.Values()
	require.NoError(b, err)
	rows.Close()
	var ids [][16]byte
	fill := func() {
		ids = ids[:0]
		_, err := conn.CopyFrom(bg, pgx.Identifier{"raw"}, names, pgx.CopyFromSlice(256, func(int) ([]any, error) {
			row := slices.Clone(one)
			id := w.ids.Message()
			ids = append(ids, id)
			row[0] = [16]byte(id)
			return row, nil
		}))
		require.NoError(b, err)
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*256), "µs/msg")
	}
	b.Run("copy-256", func(b *testing.B) {
		for range b.N {
			fill()
		}
		report(b)
	})
	b.Run("update-256", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			fill()
			b.StartTimer()
			_, err := conn.Exec(bg, `UPDATE raw r SET status = 10, q = 0, due = due + 1, epoch = epoch + 1, node = 'node-1'
				FROM unnest($1::uuid[]) AS u (id) WHERE r.id = u.id`, ids)
			require.NoError(b, err)
		}
		report(b)
	})
}
