package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// After a time in which nobody could reach the store, every lease is over, and every process is about to write down what
// it has heard: nobody calls the claims of others a doubt before they had the time to.
func TestOwnersComeFirstWhenTheStoreIsBack(t *testing.T) {
	p := &Pipeline{opt: Options{Run: "r"}, Accounts: &routing.Table{}}
	now := time.Now()
	o := store.Overdue{Status: delivery.StatusSending, Epoch: 1, DueAt: now.Add(-time.Minute)}
	decided := func(elapsed time.Duration) bool {
		_, decided := p.settleOne(o, false, now, elapsed)
		return decided
	}
	require.False(t, decided(time.Hour), "it has just begun to look")
	p.sight.saw(time.Hour, nil)
	require.False(t, decided(time.Hour+ownersReturn-1))
	p.sight.saw(time.Hour+ownersReturn, nil)
	require.True(t, decided(time.Hour+ownersReturn))
	p.sight.saw(2*time.Hour, store.ErrUnavailable)
	require.False(t, decided(2*time.Hour))
	p.sight.saw(3*time.Hour, nil)
	require.False(t, decided(3*time.Hour), "the store was away for an hour")
	require.True(t, decided(3*time.Hour+ownersReturn))
	o.DueAt = now.Add(-ownersGrace + 1)
	require.False(t, decided(3*time.Hour+ownersReturn), "a moment is theirs at any time")

	// One that lives ends its leases itself, if it can.
	alive := "two#1"
	p.opt.Lives = func(name string) bool { return name == alive }
	o.Node, o.DueAt = "two#1", now.Add(-ownersLife+1)
	require.False(t, decided(3*time.Hour+ownersReturn))
	o.Node = "two#0"
	require.True(t, decided(3*time.Hour+ownersReturn), "of an earlier process of its name")
	o.Node, o.DueAt = "two#1", now.Add(-ownersLife)
	require.True(t, decided(3*time.Hour+ownersReturn), "it lives and cannot write")
}

// What the store names as the account of a message under lease is that of an attempt before: to ask its provider would
// be to be told that it never took what another one has.
func TestALostClaimNamesNoAccountOfAnEarlierAttempt(t *testing.T) {
	slow := account(&connectors.Kind{Name: "slow", Ambiguity: connectors.Correlate})
	slow.ID, slow.Channel, slow.Tenant = delivery.AccountID{1}, delivery.SMS, "acme"
	p := &Pipeline{Accounts: &routing.Table{}}
	p.Accounts.Set([]*routing.Account{slow})
	now := time.Now()
	o := store.Overdue{Account: delivery.AccountID{2}, Queue: delivery.Queue{Tenant: "acme", Channel: delivery.SMS}}
	out := p.lostDoubt(o, now)
	require.Zero(t, out.Account)
	require.Equal(t, now.Add(resolveWindow(slow.Kind)), out.Until, "any account is given its time")
	o.Pinned = true
	require.Equal(t, o.Account, p.lostDoubt(o, now).Account)
}
