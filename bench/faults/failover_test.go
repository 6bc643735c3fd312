//go:build faults && unix

package faults

import (
	"testing"
	"time"
)

// promote loses the primary for good and makes one of the replica.
func (l *lab) promote() {
	l.pg.Kill()
	l.replica.Promote()
	l.db = l.replica.Of(l.db)
}

func TestPostgresFailoverSynchronous(t *testing.T) {
	l := begin(t, setup{postgres: true, replica: "synchronous"})
	for _, n := range l.nodes {
		l.False(n.logged(asynchronous), "%s warns of a synchronous replica", n.name)
	}
	gone := time.Now()
	l.promote()
	up := time.Now()
	l.note("the promotion took %s", round(up.Sub(gone)))
	l.within("the first hand-off came", l.firstAfter(up), 2*time.Second)
	l.flows()
	// The last outcomes may not have reached anybody.
	l.finish(wanted{})
}

// asynchronous is what an engine logs at its start when replicas follow that may lack what was acknowledged.
const asynchronous = "replicas follow asynchronously"

func TestPostgresFailoverAsynchronous(t *testing.T) {
	l := begin(t, setup{postgres: true, replica: "asynchronous"})
	for _, n := range l.nodes {
		l.True(n.logged(asynchronous), "%s does not warn", n.name)
	}
	l.replica.Stall() // it lags
	l.last(2 * time.Second)
	l.pg.Kill()
	l.replica.Kill() // what the network has for it is lost too
	l.replica.Start()
	l.replica.Promote()
	l.db = l.replica.Of(l.db)
	up := time.Now()
	l.within("the first hand-off came", l.firstAfter(up), 2*time.Second)
	l.flows()
	l.finish(wanted{lost: true})
}
