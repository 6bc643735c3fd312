package campaigns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// onSQLite is a Service on the real store.
type onSQLite struct {
	*Service
	db    *sqlite.Store
	dir   string
	clock *clockwork.FakeClock
}

func openSQLite(t testing.TB) *onSQLite {
	t.Helper()
	o := &onSQLite{dir: t.TempDir(), clock: clockwork.NewFakeClockAt(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))}
	o.reopen(t)
	t.Cleanup(func() { _ = o.db.Close() })
	ids := delivery.NewIDs(o.clock.Now)
	sys := store.AsSystem("test")
	require.NoError(t, o.db.CreateTenant(t.Context(), sys, store.Tenant{ID: acme, Name: "Acme", Region: "IN", CreatedAt: o.clock.Now()}))
	require.NoError(t, o.db.PutAccount(t.Context(), acme, store.Account{ID: ids.Account(), Tenant: acme, Name: "sms-one", Kind: "smpp",
		Channel: delivery.SMS, CreatedAt: o.clock.Now(), UpdatedAt: o.clock.Now()}))
	_, err := o.db.PutTemplate(t.Context(), acme, store.Template{Name: "hi", Channel: delivery.SMS, Text: "Hi {{ name }}", CreatedAt: o.clock.Now()})
	require.NoError(t, err)
	return o
}

// reopen is the end of the process and its restart.
func (o *onSQLite) reopen(t require.TestingT) {
	if o.db != nil {
		require.NoError(t, o.db.Close())
	}
	db, err := sqlite.Open(context.Background(), sqlite.Options{Dir: o.dir, Now: o.clock.Now})
	require.NoError(t, err)
	o.db = db
	o.Service = New(Deps{Store: db, IDs: delivery.NewIDs(o.clock.Now), Clock: o.clock, Dir: o.dir})
}

func csvOf(n int) []byte {
	var file bytes.Buffer
	file.WriteString("mobile,name\n")
	for i := range n {
		fmt.Fprintf(&file, "%s,Name %d\n", phone(i), i)
	}
	return file.Bytes()
}

func (o *onSQLite) addCampaign(t require.TestingT, name string, n int) store.Campaign {
	ctx := context.Background()
	a, _, err := o.Import(ctx, acme, Import{Name: name + "-people", Source: bytes.NewReader(csvOf(n))})
	require.NoError(t, err)
	require.Equal(t, n, a.People)
	c := store.Campaign{ID: o.IDs.Campaign(), Tenant: acme, Name: name, State: store.CampaignDraft, Audience: a.Name,
		Legs: []store.Leg{{Channel: delivery.SMS, Template: "hi"}}, TTL: time.Hour, CreatedAt: o.clock.Now()}
	require.NoError(t, o.db.CreateCampaign(ctx, acme, c))
	return c
}

func (o *onSQLite) state(t require.TestingT, name string) store.Campaign {
	c, err := o.db.Campaign(context.Background(), acme, name)
	require.NoError(t, err)
	return c
}

// send hands off everything that is due, as the pipeline would.
func (o *onSQLite) send(t require.TestingT) {
	ctx, sys, now := context.Background(), store.AsSystem("test"), o.clock.Now()
	q := delivery.Queue{Tenant: acme, Channel: delivery.SMS, Lane: delivery.Bulk}
	for {
		ids, _, err := o.db.Due(ctx, sys, q, now, store.DueMark{}, 1000)
		require.NoError(t, err)
		if len(ids) == 0 {
			return
		}
		claimed, err := o.db.Claim(ctx, sys, store.Claim{IDs: ids, Node: "n", Now: now, Until: now.Add(time.Minute)})
		require.NoError(t, err)
		outcomes := make([]store.Outcome, len(claimed))
		for i, m := range claimed {
			outcomes[i] = store.Outcome{ID: m.ID, Epoch: m.Epoch, Writer: delivery.BySend, Status: delivery.StatusSent,
				ProviderID: m.ID.String(), Attempted: true}
		}
		if len(outcomes) > 0 {
			_, err = o.db.Settle(ctx, sys, now, outcomes)
			require.NoError(t, err)
		}
	}
}

func (o *onSQLite) drive(ctx context.Context) {
	turns, turn := map[delivery.CampaignID]uint64{}, uint64(0)
	for moved := true; moved; {
		_, moved = o.round(ctx, turns, &turn)
	}
}

func (o *onSQLite) requireOnce(t require.TestingT, c store.Campaign, n int) {
	seen := map[string]bool{}
	q := store.MessageQuery{Campaign: c.ID, Limit: 1000}
	for {
		page, err := o.db.Messages(context.Background(), acme, q)
		require.NoError(t, err)
		for _, m := range page {
			require.False(t, seen[m.To], "a person has two messages")
			seen[m.To] = true
		}
		if len(page) < q.Limit {
			break
		}
		q.Before = page[len(page)-1].ID
	}
	require.Len(t, seen, n)
	audit, err := o.db.Audit(context.Background(), acme)
	require.NoError(t, err)
	require.Empty(t, audit.Problems)
}

func TestCampaignOnSQLite(t *testing.T) {
	o := openSQLite(t)
	o.MaxWaiting = 1000
	ctx := t.Context()
	a, out, err := o.Import(ctx, acme, Import{Name: "people", Source: bytes.NewReader([]byte(
		"mobile,name\n9876543210,Asha\n9876543210,again\n98x,bad\n9876543211,\n"))})
	require.NoError(t, err)
	require.Equal(t, 2, a.People)
	require.Contains(t, out.First, "line 3, mobile")
	stored, err := o.db.Audience(ctx, acme, "people")
	require.NoError(t, err)
	a.CreatedAt = stored.CreatedAt
	require.Equal(t, a, stored)

	c := o.addCampaign(t, "diwali", 2600)
	check, err := o.Check(ctx, acme, "diwali")
	require.NoError(t, err)
	require.Empty(t, check.Problems)
	require.Equal(t, 2600, check.People)
	_, err = o.Start(ctx, acme, "diwali")
	require.NoError(t, err)
	for o.state(t, "diwali").State == store.CampaignRunning {
		o.drive(ctx)
		r, err := o.Report(ctx, acme, "diwali")
		require.NoError(t, err)
		require.NoError(t, r.Sums())
		require.LessOrEqual(t, r.Waiting, 1000)
		o.send(t)
	}
	r, err := o.Report(ctx, acme, "diwali")
	require.NoError(t, err)
	require.NoError(t, r.Sums())
	require.Equal(t, store.CampaignCompleted, r.Campaign.State)
	require.Equal(t, map[delivery.Status]int{delivery.StatusSent: 2600}, r.ByStatus)
	o.requireOnce(t, c, 2600)
	require.NoError(t, o.DeleteAudience(ctx, acme, c.Audience))
}

func TestOfManyStartsOneWinsOnSQLite(t *testing.T) {
	o := openSQLite(t)
	o.addCampaign(t, "c", 5)
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { _, err := o.Start(context.Background(), acme, "c"); errs <- err }()
	}
	won := 0
	for range cap(errs) {
		var state *StateError
		if err := <-errs; err == nil {
			won++
		} else {
			require.ErrorAs(t, err, &state)
		}
	}
	require.Equal(t, 1, won)
}

// cutting breaks writes off before or after they are durable.
type cutting struct {
	Store
	fault func(after bool) error
}

func (c *cutting) Expand(ctx context.Context, t delivery.TenantID, id delivery.CampaignID, s store.Slice) (store.Accepted, error) {
	if err := c.fault(false); err != nil {
		return store.Accepted{}, err
	}
	out, err := c.Store.Expand(ctx, t, id, s)
	if err == nil {
		err = c.fault(true)
	}
	return out, err
}

func TestNobodyIsLostOrDoubledOnSQLite(t *testing.T) {
	o := openSQLite(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		if run++; run > 8 { // each costs a real store; more are run on the fake
			return
		}
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 2))
		n := rapid.IntRange(1, 1700).Draw(rt, "people")
		name := fmt.Sprintf("c%d", run)
		c := o.addCampaign(rt, name, n)
		_, err := o.Start(t.Context(), acme, name)
		require.NoError(rt, err)
		for life := 0; o.state(rt, name).State != store.CampaignCompleted; life++ {
			require.Less(rt, life, 100, "no progress")
			if rnd.IntN(3) == 0 {
				o.reopen(rt)
			} else {
				o.Service = New(Deps{Store: o.db, IDs: o.IDs, Clock: o.clock, Dir: o.dir})
			}
			o.MaxWaiting = 500 + rnd.IntN(2000)
			ctx, kill := context.WithCancelCause(t.Context())
			o.Store = &cutting{o.db, func(after bool) error {
				switch rnd.IntN(6) {
				case 0:
					kill(errors.New("killed"))
					return context.Canceled
				case 1:
					return store.ErrOutcomeUnknown
				}
				return nil
			}}
			turns, turn := map[delivery.CampaignID]uint64{}, uint64(0)
			for range 1 + rnd.IntN(5) {
				o.round(ctx, turns, &turn)
				switch rnd.IntN(6) {
				case 0:
					_, _ = o.Pause(ctx, acme, name)
				case 1, 2, 3:
					_, _ = o.Resume(ctx, acme, name)
				case 4:
					o.send(rt)
				}
				o.clock.Advance(time.Duration(rnd.IntN(2000)) * time.Millisecond)
				r, err := o.Report(t.Context(), acme, name)
				require.NoError(rt, err)
				require.NoError(rt, r.Sums())
			}
			_, _ = o.Resume(t.Context(), acme, name)
			o.send(rt)
			kill(nil)
		}
		o.requireOnce(rt, c, n)
	})
}

func BenchmarkImportOnSQLite(b *testing.B) {
	const rows = 50_000
	o, file := openSQLite(b), csvOf(rows)
	for i := 0; b.Loop(); i++ {
		if _, _, err := o.Import(b.Context(), acme, Import{Name: fmt.Sprint("a", i), Source: bytes.NewReader(file)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkExpandOnSQLite(b *testing.B) {
	const rows = 50_000
	o := openSQLite(b)
	o.MaxWaiting = 1 << 30
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		name := fmt.Sprint("c", i)
		o.addCampaign(b, name, rows)
		_, err := o.Start(b.Context(), acme, name)
		require.NoError(b, err)
		b.StartTimer()
		o.drive(b.Context())
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "messages/s")
}
