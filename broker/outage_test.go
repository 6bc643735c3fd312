package broker_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/internal/servers"
)

func errorIs(err, want error) bool { return errors.Is(err, want) }

// TestServerOutages does to a server of its own what happens to servers. Each time the same brokers and the same
// subscriptions go on by themselves, with quorum and with classic queues. RabbitMQ takes long to start, so that one
// server goes through all of it.
func TestServerOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of starting and killing RabbitMQ; run without -short")
	}
	t.Parallel()
	server := servers.NewRabbit(t)
	quorum := hasty(t, server.URL, broker.Waits{Confirm: 2 * time.Second})
	classic := hasty(t, server.URL+"?queues=classic", broker.Waits{Confirm: 2 * time.Second})
	in, inClassic := subscribe(t, quorum, "msgctl.plan"), subscribe(t, classic, "msgctl.classic")
	works := func(s string) {
		t.Helper()
		publish(t, classic, "msgctl.classic", s)
		until(t, inClassic, s)
		publish(t, quorum, "msgctl.plan", s)
		until(t, in, s)
		for _, b := range []*broker.Broker{quorum, classic} {
			eventually(t, "healthy: "+s, func() bool { return b.Health().Connected && !b.Health().Blocked })
		}
	}
	works("at first")

	server.Alarm()
	// RabbitMQ tells a connection so when it publishes the next time.
	eventually(t, "blocked", func() bool {
		return errorIs(quorum.Publish("msgctl.plan", hint("blocked")), broker.ErrBlocked)
	})
	for range 100 {
		require.ErrorIs(t, quorum.Publish("msgctl.plan", hint("blocked")), broker.ErrBlocked)
	}
	h := quorum.Health()
	require.True(t, h.Blocked)
	require.True(t, h.Connected, h.Reason)
	require.Contains(t, h.Reason, "memory")
	server.Calm()
	works("after the alarm")

	server.Stall()
	require.ErrorIs(t, quorum.Publish("msgctl.plan", hint("stalled")), broker.ErrUnconfirmed)
	require.ErrorIs(t, quorum.Publish("msgctl.plan", hint("stalled")), broker.ErrDisconnected)
	server.Resume()
	works("after the stall")

	server.Kill()
	eventually(t, "noticed", func() bool { return !quorum.Health().Connected })
	require.ErrorIs(t, quorum.Publish("msgctl.plan", hint("killed")), broker.ErrDisconnected)
	server.Start()
	// On a single node, RabbitMQ 3.10 sometimes forgets to let the only member of a quorum queue lead after a crash.
	server.Eval("[ra:trigger_election({Name, node()}) || {Name, follower} <- ets:tab2list(ra_state)]")
	works("after the kill")

	server.Wipe()
	works("after the wipe")
}
