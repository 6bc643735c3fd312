package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/msgctl/msgctl/api"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// What is done to stores while no engine, or just this one, runs on them. These functions are here so that the command
// line needs to know no store.

// backupDir is where an engine puts its backups, in Config.Dir.
const backupDir = "backups"

// backup returns what makes a backup; nil when the store is not the engine's own.
func (e *Engine) backup() api.Backup {
	s, ok := e.store.(*sqlite.Store)
	if !ok {
		return nil
	}
	return func(ctx context.Context) (sdk.Backup, error) {
		dir := filepath.Join(e.cfg.Dir, backupDir)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return sdk.Backup{}, fmt.Errorf("backup: %w", err)
		}
		name := "msgctl-" + e.cfg.Clock.Now().UTC().Format("20060102T150405.000Z") + ".db"
		b, err := s.Backup(ctx, filepath.Join(dir, name))
		return shownBackup(b), err
	}
}

func shownBackup(b sqlite.Backup) sdk.Backup {
	return sdk.Backup{Path: b.Path, Bytes: b.Bytes, Taken: b.Taken.UTC(), Messages: b.Messages}
}

// Backup copies the database of a directory, on which no engine runs, into a file that must not be there yet. The master
// key is not in it.
func Backup(ctx context.Context, dir, to string, log *slog.Logger) (_ sdk.Backup, err error) {
	if err := isStore(dir); err != nil {
		return sdk.Backup{}, err
	}
	s, err := sqlite.Open(ctx, sqlite.Options{Dir: dir, Log: log, Now: time.Now})
	if err != nil {
		return sdk.Backup{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b, err := s.Backup(ctx, to)
	return shownBackup(b), err
}

// isStore refuses a directory without a database: opening it would make one.
func isStore(dir string) error {
	path := filepath.Join(dir, "msgctl.db")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s holds no database of an engine: %w", dir, err)
	}
	return nil
}

// Restored is what a restore has done.
type Restored struct {
	Messages int64    `json:"messages"` // ever accepted
	InDoubt  int      `json:"in_doubt"` // may have been handed over since the backup; their tenants' policies decide
	Marked   int      `json:"marked"`   // of those behind another one: possible duplicates
	Unknown  int      `json:"unknown"`  // of those behind another one that may go at most once: ended
	Paused   []string `json:"paused"`   // campaigns that were being expanded, as tenant/name
}

// Restore makes the database of a directory from a backup. The directory must have none.
func Restore(ctx context.Context, from, dir string, log *slog.Logger) (Restored, error) {
	r, err := sqlite.Restore(ctx, sqlite.RestoreOptions{From: from, Dir: dir, Log: log})
	if err != nil {
		return Restored{}, err
	}
	return Restored{
		Messages: r.Messages, InDoubt: r.InDoubt, Marked: r.Marked, Unknown: r.Unknown, Paused: r.Paused,
	}, nil
}

// InUse reports whether an error says that somebody else is at the store: an engine runs on the directory, or another
// retention on the shared store.
func InUse(err error) bool {
	var busy *sqlite.InUseError
	return errors.As(err, &busy) || errors.Is(err, store.ErrConflict)
}

// Unavailable reports whether an error says that a store cannot be reached now.
func Unavailable(err error) bool { return errors.Is(err, store.ErrUnavailable) }

// SchemaStatus is where the schema of a shared store is.
type SchemaStatus struct {
	Known   int64    `json:"known"` // newest version that this program knows
	Have    int64    `json:"have"`  // version of the database; 0 = none
	Pending []string `json:"pending"`
}

// Transferred is what ToCluster has done.
type Transferred struct {
	Tenants  int64 `json:"tenants"`
	Messages int64 `json:"messages"`
	Facts    int64 `json:"facts"`
}

// Retained is what Retain has removed, or would remove.
type Retained struct {
	Before     time.Time `json:"before"`     // whole days before it
	Partitions int       `json:"partitions"` // of a day each, most of the time
	Messages   int64     `json:"messages"`
	Ledger     int64     `json:"ledger"` // rows of the history
	Kept       string    `json:"kept"`   // why it stopped earlier; "" = it did not
	DryRun     bool      `json:"dry_run"`
}

// MinKeep is the shortest past that Retain leaves.
const MinKeep = 24 * time.Hour

// checkShared refuses a URL that names no shared store.
func checkShared(raw string) error {
	c := Config{Dir: ".", Store: raw}
	if raw == "" {
		return errors.New("no store is named: give --store postgres://user@host/database or MSGCTL_STORE")
	}
	if err := c.checkCluster(); err != nil {
		return err
	}
	if !c.shared() {
		return errors.New("an embedded store migrates by itself when its engine starts: give --store postgres://…")
	}
	return nil
}
