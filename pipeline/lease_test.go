package pipeline

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// slowDisk is a journal file that takes its time.
type slowDisk struct {
	segmentFile
	write func()
}

func (d slowDisk) Write(b []byte) (int, error) {
	d.write()
	return d.segmentFile.Write(b)
}

// A process that stands still between the claim and the first byte, wherever it is, sends nothing when its lease no
// longer covers the attempt; what it gives back is not in doubt, not even after a kill.
func TestNoFirstByteAfterTheLease(t *testing.T) {
	const lease, timeout = time.Minute, 10 * time.Second
	for name, c := range map[string]struct {
		before, inJournal time.Duration // how long it stands still
		sends             bool
	}{
		"not at all":              {0, 0, true},
		"within what is left":     {30 * time.Second, 19 * time.Second, true},
		"before the attempt":      {51 * time.Second, 0, false},
		"as the journal is told":  {0, 51 * time.Second, false},
		"twice, a little":         {26 * time.Second, 25 * time.Second, false},
		"for long":                {0, 24 * time.Hour, false},
		"to the very end of time": {50 * time.Second, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clockwork.NewFakeClock()
			frozen := clock.Now() // the wall clock is set back by as much as goes by: it does not show
			sends := 0
			conn := sendFunc(func(*delivery.Outgoing) { sends++ })
			p := &Pipeline{
				log: slog.New(slog.DiscardHandler), clock: clockwork.NewFakeClockAt(frozen), metrics: newMetrics(prometheus.NewRegistry()),
				elapsed: func() time.Duration { return clock.Since(frozen) }, stations: map[*routing.Account]*station{},
			}
			a := account(&connectors.Kind{Name: "k", Ambiguity: connectors.None})
			a.Timeout, a.Connector = timeout, conn
			s := &station{p: p, acct: a, ctx: t.Context()}
			p.stations[a] = s
			var err error
			p.journal, err = openJournal(t.TempDir())
			require.NoError(t, err)
			m := &passage{
				Claimed: store.Claimed{ID: delivery.MessageID{1}, Epoch: 1, ExpiresAt: frozen.Add(time.Hour)}, account: a, until: frozen.Add(lease),
			}
			require.NoError(t, p.journal.begin(&passage{Claimed: store.Claimed{ID: delivery.MessageID{9}}, account: a}))
			p.journal.cur.file = slowDisk{p.journal.cur.file, func() { clock.Advance(c.inJournal); c.inJournal = 0 }}
			p.claims.add([]store.Claimed{m.Claimed}, lease)
			clock.Advance(c.before)
			p.send(m, p.clock.Now())
			require.True(t, m.ended)
			past, err := p.journal.read()
			require.NoError(t, err)
			if c.sends {
				require.Equal(t, 1, sends)
				require.Equal(t, delivery.StatusSent, m.outcome.Status)
			} else {
				require.Zero(t, sends)
				require.Equal(t, delivery.StatusQueued, m.outcome.Status)
				require.Equal(t, reasonLeaseShort, m.outcome.Reason)
				require.False(t, m.outcome.Duplicate)
				_, begun := past.begun[m.key()]
				require.Equal(t, begun, past.ended[m.key()].Status == delivery.StatusQueued, "a begun attempt that was not made is ended")
			}
			require.NoError(t, p.journal.close())
		})
	}
}

type sendFunc func(*delivery.Outgoing)

func (f sendFunc) Send(_ context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	f(m)
	return delivery.Sent{ProviderID: "p"}, nil
}
