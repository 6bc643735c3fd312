package engine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
	"github.com/msgctl/msgctl/store/transfer"
)

// openPostgres opens the store that several engines share.
func openPostgres(ctx context.Context, cfg *Config, now func() time.Time) (store.Store, error) {
	s, err := postgres.Open(ctx, postgres.Options{URL: cfg.Store, Log: cfg.Logger, Now: now})
	if err != nil {
		return nil, err // not the nil *postgres.Store, which would not be a nil store.Store
	}
	return s, nil
}

// Migrate brings the schema of a shared store up to what this program knows, by the URL of its owner, and lets the role
// work with it that the engines use; "" = its rights have been granted before.
func Migrate(ctx context.Context, owner, role string, log *slog.Logger) error {
	if err := checkShared(owner); err != nil {
		return err
	}
	return postgres.Migrate(ctx, postgres.MigrateOptions{URL: owner, Role: role, Log: log})
}

// MigrationStatus says where the schema of a shared store is. It writes nothing.
func MigrationStatus(ctx context.Context, url string) (SchemaStatus, error) {
	if err := checkShared(url); err != nil {
		return SchemaStatus{}, err
	}
	s, err := postgres.Status(ctx, url)
	return SchemaStatus{Known: s.Known, Have: s.Have, Pending: s.Pending}, err
}

// RetainOptions says what of the past to remove.
type RetainOptions struct {
	Keep    time.Duration // how much stays, at least MinKeep
	DryRun  bool          // only count
	Archive string        // a directory to which everything is written before it is removed; "" = none
	Log     *slog.Logger  // nil = no log
}

// Retain removes what is older than Keep from a shared store, by the URL of its owner: whole days whose messages have all
// ended, with their history. Nodes may run meanwhile.
func Retain(ctx context.Context, owner string, o RetainOptions) (Retained, error) {
	if err := checkShared(owner); err != nil {
		return Retained{}, err
	}
	if o.Keep < MinKeep {
		return Retained{}, fmt.Errorf("configuration: keep: %s is too short: days are removed whole, use at least 1d", o.Keep)
	}
	r, err := postgres.Retain(ctx, owner, postgres.Retention{Keep: o.Keep, DryRun: o.DryRun, Archive: o.Archive, Log: o.Log})
	return Retained{
		Before: r.Before, Partitions: r.Partitions, Messages: r.Messages, Ledger: r.Ledger, Kept: r.Kept, DryRun: o.DryRun,
	}, err
}

// ToCluster copies the store of a directory, on which no engine runs, into an empty shared store whose schema is there.
// The directory is not changed. Progress is told of rows; nil = nobody.
func ToCluster(
	ctx context.Context, dir, url string, log *slog.Logger, progress func(table string, done, total int64),
) (Transferred, error) {
	if err := checkShared(url); err != nil {
		return Transferred{}, err
	}
	if err := isStore(dir); err != nil {
		return Transferred{}, err
	}
	o := transfer.Options{From: dir, To: url, Log: log}
	if progress != nil {
		o.Progress = func(p transfer.Progress) { progress(p.Table, p.Done, p.Total) }
	}
	r, err := transfer.Run(ctx, o)
	return Transferred{Tenants: r.Tenants, Messages: r.Messages, Facts: r.Facts}, err
}
