package store

import (
	"context"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Nodes is the role of a store that several processes share: who is alive, what has been changed by whom, and which of
// them may have a session with a provider that allows few. An embedded store has one process and need not have it.
//
// A node is a name; a run is one process under that name. At most one run of a name lives at a time.
type Nodes interface {
	// Beat says that a run lives, until TTL from now by the store's own clock, and returns what the store knows of all.
	// The first beat joins. ErrConflict when another run of the same name lives, or has taken the name over since.
	Beat(ctx context.Context, sys System, b Beat) (Roster, error)
	// Leave ends a run at once. A run that is gone already is no error.
	Leave(ctx context.Context, sys System, name string, run RunID) error
	// Roster is what Beat returns, for somebody who is no node.
	Roster(ctx context.Context, sys System) (Roster, error)
	// Claims is how many messages each node has under lease, by name: claimed as name, or as name#run by any of its runs.
	// Nodes that have none may be left out. It costs a look at all that is under lease.
	Claims(ctx context.Context, sys System) (map[string]int, error)

	// Changes lists what was changed after the given sequence, in order, at most limit, and the sequence up to which the
	// answer is complete: no change with a sequence at or below it appears later. Each change is written by the
	// transaction that makes it. Changes older than an hour may be gone: Gap is then set, and the caller reads all anew.
	Changes(ctx context.Context, sys System, after int64, limit int) (Changes, error)

	// Session asks for one of the max sessions that an account allows over all nodes, or renews the one that this run has.
	// A session ends with EndSession, with its run's life, or by Leave. ErrConflict when the run does not live.
	Session(ctx context.Context, sys System, account delivery.AccountID, name string, run RunID, max int) (bool, error)
	// EndSession gives a session back; one that has ended already is no error.
	EndSession(ctx context.Context, sys System, account delivery.AccountID, name string, run RunID) error
}

// RunID tells apart the processes that have had a node's name.
type RunID [16]byte

// Beat is a sign of life.
type Beat struct {
	Name    string
	Run     RunID
	TTL     time.Duration // how long the sign holds
	Roles   []string      // what the node does: api, deliver, schedule, webhook
	Version string        // of the program
	Address string        // where its API listens; "" = nowhere
	Started time.Time
	Applied int64 // the sequence of the changes that it goes by
	// Draining says that the node takes on nothing new.
	Draining bool
}

// Node is a node as the store knows it.
type Node struct {
	Beat
	Seen  time.Time // of its last beat, by the store's clock
	Until time.Time // it counts as alive until then
	Alive bool
}

// Roster is who there is.
type Roster struct {
	Now     time.Time // the store's own clock, with its full precision
	Nodes   []Node    // by name; those that have been gone for an hour are left out
	Changed int64     // the sequence of the newest change that is complete, as in Changes
}

// ChangeKind says what kind of thing a change is about.
type ChangeKind string

// What can be changed so that other nodes have to know.
const (
	TenantChange   ChangeKind = "tenant"      // limits, routes, policy
	AccountChange  ChangeKind = "account"     // a connector account
	KeyChange      ChangeKind = "key"         // a revoked API key
	CampaignChange ChangeKind = "campaign"    // started, paused, resumed or stopped
	SuppressChange ChangeKind = "suppression" // an address joined or left a tenant's list
	TemplateChange ChangeKind = "template"    // a new version
)

// Change is one thing that was changed. Changes of one transaction that say the same are one.
type Change struct {
	Seq    int64
	Kind   ChangeKind
	Tenant delivery.TenantID // delivery.Shared for the operator's
	ID     string            // of the campaign, account or key in its text form; else ""
}

// Changes is a part of the list.
type Changes struct {
	List []Change
	Upto int64 // complete up to here, at least the sequence asked for
	Gap  bool  // some changes after the sequence asked for are gone
}
