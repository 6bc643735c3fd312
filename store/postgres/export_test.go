package postgres

import (
	"context"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Trips is how many round trips transactions have taken.
func (s *Store) Trips() int64 { return s.trips.Load() }

// Waiting is how many acceptances wait for the next transaction of their tenant.
func (s *Store) Waiting() (n int) {
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	for _, ops := range s.writer.waiting {
		n += len(ops)
	}
	return n
}

// Closing reports whether Close waits for the calls that run, or has ended.
func (s *Store) Closing() bool { return s.closed.Load() }

// StandStill takes the lock of a tenant's history and does nothing for a while, as a node that is stopped.
func (s *Store) StandStill(ctx context.Context, slug delivery.TenantID, began chan<- struct{}, d time.Duration) error {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(n), need{heads: []int64{n}}, func(t *tx) (int, error) {
		close(began)
		time.Sleep(d)
		return 0, t.trip(stmt{sql: "SELECT 1"})
	})
	return err
}

// FinishMoves is what a node does from time to time.
func (s *Store) FinishMoves() error {
	left, err := s.unfinished(s.stop)
	s.finish(left)
	return err
}

// Plan is a statement with the settings under which it runs.
type Plan struct {
	Settings, SQL string
	Types         string // of its parameters
}

// Plans are the statements of the daily work by name.
func Plans() map[string]Plan {
	const write = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
		set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)`
	read := byIndex.sql
	return map[string]Plan{
		"due queues":   {read, dueQueues, "bigint, bigint"},
		"next due":     {read, nextDue, "bigint, bigint"},
		"due":          {read, dueInQueue, "bigint, bigint, bigint, uuid, bigint"},
		"ahead":        {read, aheadInQueue, "bigint, bigint, uuid, bigint"},
		"overdue":      {read, overdueNow, "bigint, bigint"},
		"leases":       {read, leasesOf, "text, bigint, smallint"},
		"held":         {read, heldFor + " AND tenant = $2 LIMIT 512", "text, bigint"},
		"held account": {read, heldFor + " AND account = $2 LIMIT 512", "text, bigint"},
		"campaign":     {read, waitingOf, "bigint, uuid, bigint"},
		"lock rows":    {write, lockRows + " SKIP LOCKED", "uuid[]"},
		"legs":         {write, legsOf, "uuid[]"},
		"lines":        {write, linesOf, "uuid[]"},
		"payloads":     {write, bodiesOf, "uuid[]"},
		"labels":       {write, labelsOf, "uuid[]"},
		"suppressed":   {write, suppressedOf, "uuid[]"},
		"heads":        {write, lockHeads, "bigint[], uuid[]"},
	}
}
