package simulator

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

func TestMagicRecipients(t *testing.T) {
	for _, c := range []struct {
		ch      delivery.Channel
		to      string
		outcome string
		faults  []Fault // of the first tries
	}{
		{delivery.SMS, "+12025550100", "delivered", []Fault{NoFault, NoFault}},
		{delivery.SMS, "+19495550110", "temporary_twice", []Fault{Temporary, Temporary, NoFault}},
		{delivery.WhatsApp, "+12025550111", "temporary_forever", []Fault{Temporary, Temporary, Temporary}},
		{delivery.SMS, "+12025550112", "throttled", []Fault{ThrottledFault, NoFault}},
		{delivery.SMS, "+12025550120", "unknown_subscriber", []Fault{UnknownSubscriber}},
		{delivery.WhatsApp, "+12025550121", "not_on_whatsapp", []Fault{NotOnWhatsApp}},
		{delivery.SMS, "+12025550121", "delivered", []Fault{NoFault}},
		{delivery.SMS, "+12025550130", "ack_lost", []Fault{LostAck, NoFault}},
		{delivery.SMS, "+442025550110", "delivered", []Fault{NoFault}},
		{delivery.SMS, "+12025550199", "delivered", []Fault{NoFault}},
		{delivery.Email, "delivered@sim.test", "delivered", []Fault{NoFault}},
		{delivery.Email, "hardbounce+42@sim.test", "unknown_subscriber", []Fault{UnknownSubscriber}},
		{delivery.Email, "softbounce@sim.test", "temporary_forever", []Fault{Temporary, Temporary}},
		{delivery.Email, "delayed@sim.test", "temporary_twice", []Fault{Temporary, Temporary, NoFault}},
		{delivery.Email, "42@sim.test", "temporary_forever", []Fault{Temporary}},
		{delivery.Email, "55@sim.test", "rejected", []Fault{RejectedFault}},
		{delivery.Email, "timeout@sim.test", "ack_lost", []Fault{LostAck, NoFault}},
		{delivery.Email, "hardbounce@example.com", "delivered", []Fault{NoFault}},
		{delivery.Webhook, "500/a", "temporary_forever", []Fault{Temporary, Temporary}},
		{delivery.Webhook, "gone", "unknown_subscriber", []Fault{UnknownSubscriber}},
		{delivery.Webhook, "flaky/x", "temporary_twice", []Fault{Temporary, Temporary, NoFault}},
		{delivery.Webhook, "anything", "delivered", []Fault{NoFault}},
	} {
		t.Run(c.ch.String()+" "+c.to, func(t *testing.T) {
			s := newScript(0)
			for i, want := range c.faults {
				v := s.decide(c.ch, "account", c.to)
				require.Equal(t, want, v.Fault, "try %d", i+1)
				require.Equal(t, c.outcome, v.Outcome)
			}
		})
	}
}

func TestReceiptsOfMagicRecipients(t *testing.T) {
	s := newScript(time.Second)
	require.Equal(t, []ScriptedReceipt{{Status: delivery.StatusDelivered, After: time.Second}}, s.decide(delivery.SMS, "a", "+12025550100").Receipts)
	require.Equal(t, 5*time.Minute, s.decide(delivery.SMS, "a", "+12025550101").Receipts[0].After, "its own time goes before the common one")
	require.Len(t, s.decide(delivery.SMS, "a", "+12025550131").Receipts, 2)
	require.Empty(t, s.decide(delivery.SMS, "a", "+12025550133").Receipts)
	require.True(t, s.decide(delivery.SMS, "a", "+12025550134").ReceiptFirst)
	require.Equal(t, "STOP", s.decide(delivery.SMS, "a", "+12025550140").Reply)
	require.Equal(t, time.Second, s.decide(delivery.SMS, "a", "+12025550100").Receipts[0].After, "a verdict does not change the script")
}

func TestFaultsOfAnAccount(t *testing.T) {
	s := newScript(0)
	s.fail("alpha", 2, Temporary)
	require.Equal(t, Temporary, s.decide(delivery.SMS, "alpha", "+12025550100").Fault)
	require.Equal(t, NoFault, s.decide(delivery.SMS, "beta", "+12025550100").Fault, "another account")
	require.Equal(t, Temporary, s.decide(delivery.SMS, "alpha", "+12025550100").Fault)
	require.Equal(t, NoFault, s.decide(delivery.SMS, "alpha", "+12025550100").Fault, "it recovers")
	s.fail("alpha", -1, Down)
	require.Equal(t, Down, s.broken("alpha"))
	require.Equal(t, NoFault, s.broken("beta"))
	s.slow("alpha", time.Second)
	s.heal("alpha")
	require.Equal(t, NoFault, s.broken("alpha"))
	require.Zero(t, s.decide(delivery.SMS, "alpha", "+12025550100").Latency)
}

func TestLedgerIsBounded(t *testing.T) {
	l := newLedger(10)
	for range 25 {
		l.add(Entry{Channel: "sms", To: "+1", Taken: true, Outcome: "delivered"})
	}
	require.Equal(t, 25, l.Len())
	got := l.Entries(20)
	require.Len(t, got, 5)
	require.Equal(t, 21, got[0].Seq)
	require.LessOrEqual(t, len(l.Entries(0)), 10)
	require.Empty(t, l.Entries(25))
	require.Equal(t, 25, l.Summary().Seen)
}
