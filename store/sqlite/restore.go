package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// A backup shows a moment that has passed: the engine that it was taken from went on, until it was lost. So each
// message that waits in the backup and had its time before the restore may have been handed over meanwhile, and nothing
// in the file tells. Restore puts it in doubt, as an attempt whose answer was never heard, before anybody can open the
// database:
//
//   - what was under lease, or due, becomes ambiguous, and the tenant's policy for doubts decides: again as a possible
//     duplicate, held, failed; unknown where the sender wanted it at most once;
//   - what stands behind another message of its ordering key keeps its place and is marked as a possible duplicate; at
//     most once, it ends as unknown;
//   - what was not due until now cannot have gone, and is left alone;
//   - a campaign that was still being expanded is paused: for its next people there may be messages already, under ids
//     that the backup does not know.
//
// What was accepted after the backup is lost, with its idempotency keys.

// restoredBy is who holds the leases that put messages in doubt, and why they are in doubt.
const (
	restoredBy     = "restore"
	reasonRestored = "restored"
	detailRestored = "it waited in a backup that was restored, and may have been handed over since"
)

// RestoreOptions says what goes where. From and Dir are required.
type RestoreOptions struct {
	From string           // a file that Backup wrote
	Dir  string           // made when it is not there; it must not have a database
	Log  *slog.Logger     // nil = no log
	Now  func() time.Time // what is due by it may have gone; nil = time.Now
}

// Restored is what a restore has done.
type Restored struct {
	Backup
	InDoubt int      // messages that may have been handed over since the backup, and now are in doubt
	Marked  int      // of those that stand behind another one: marked as possible duplicates
	Unknown int      // of those that stand behind another one and may go at most once: ended as unknown
	Paused  []string // campaigns that were being expanded, as tenant/name
}

// Restore makes a database from a backup. The directory has all of it or, when the call fails, nothing: it may be
// called again. The backup is only read. The master key is not part of it: put master.key of the same engine beside the
// database before the engine starts, or it cannot open what is sealed.
func Restore(ctx context.Context, o RestoreOptions) (Restored, error) {
	if o.From == "" || o.Dir == "" {
		return Restored{}, errors.New("restore: a backup and a directory are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	out, err := restore(ctx, o)
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", o.From, err)
	}
	return out, nil
}

func restore(ctx context.Context, o RestoreOptions) (out Restored, err error) {
	if err := makeDir(o.Dir); err != nil {
		return out, err
	}
	lock, unclean, err := acquire(filepath.Join(o.Dir, lockName))
	if err != nil {
		return out, openError(o.Dir, err)
	}
	defer func() {
		if unclean { // whatever was not stopped cleanly here is not what has just been restored
			err = errors.Join(err, lock.abandon())
		} else {
			err = errors.Join(err, lock.release())
		}
	}()
	path := filepath.Join(o.Dir, databaseName)
	if err := absent(path); err != nil {
		return out, fmt.Errorf("%w: move the old database away first", err)
	}
	part := path + partSuffix
	if err := removeDatabase(part); err != nil { // left by a restore that was cut off; nobody else is here
		return out, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeDatabase(part))
		}
	}()
	if err := copyFile(ctx, o.From, part); err != nil {
		return out, err
	}
	if out, err = prepare(ctx, o, part); err != nil {
		return out, err
	}
	st, err := os.Stat(part)
	if err != nil {
		return out, err
	}
	out.Path, out.Bytes = path, st.Size()
	return out, moveIn(part, path)
}

func copyFile(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if st, err := in.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, errors.New("it is not a file"))
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(f, in, 8<<20); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// prepare checks the copy, brings its schema up and puts in doubt what may have gone.
func prepare(ctx context.Context, o RestoreOptions, part string) (out Restored, err error) {
	conn, err := openWriter(part)
	if err != nil {
		return out, err
	}
	defer func() {
		if err == nil { // one file, without a log beside it
			err = exec(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
		}
		err = errors.Join(err, conn.Close())
	}()
	// Nothing counts before the file has its name, and moveIn syncs it before that.
	if err := exec(conn, "PRAGMA synchronous = OFF"); err != nil {
		return out, err
	}
	if err := checkCopy(ctx, conn); err != nil {
		return out, err
	}
	if err := migrate(conn); err != nil {
		return out, err
	}
	var taken latest
	if err := taken.load(conn); err != nil {
		return out, err
	}
	out.Taken = taken.at
	if _, err = one(conn, `SELECT coalesce(sum(accepted), 0) FROM tenants`, func(s *sqlite.Stmt) error {
		out.Messages = s.ColumnInt64(0)
		return nil
	}); err != nil {
		return out, err
	}
	if err := doubtAll(ctx, conn, o.Now(), &out); err != nil {
		return out, err
	}
	return out, pauseExpansions(conn, &out)
}

// checkCopy refuses a file that is no backup, or that is damaged.
func checkCopy(ctx context.Context, conn *sqlite.Conn) error {
	empty := true
	if err := query(conn, "SELECT 1 FROM sqlite_schema LIMIT 1", func(*sqlite.Stmt) error {
		empty = false
		return nil
	}); err != nil {
		return explain(err)
	}
	if empty {
		return errors.New("the file is empty: it is no backup")
	}
	conn.SetInterrupt(ctx.Done())
	defer conn.SetInterrupt(nil)
	var verdict string
	err := query(conn, "PRAGMA quick_check(1)", func(st *sqlite.Stmt) error {
		verdict = st.ColumnText(0)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return explain(err)
	case verdict != "ok":
		return fmt.Errorf("the backup is damaged: %s", verdict)
	}
	return nil
}

const waitingFrom = `SELECT id FROM messages WHERE id > ? AND status BETWEEN 1 AND 5 ORDER BY id LIMIT ?`

// doubtAll puts in doubt what may have been handed over since the backup, in transactions of bounded size.
func doubtAll(ctx context.Context, conn *sqlite.Conn, now time.Time, out *Restored) error {
	t := newTx(conn)
	var after delivery.MessageID
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var ids []delivery.MessageID
		if err := query(conn, waitingFrom, func(s *sqlite.Stmt) error {
			ids = append(ids, scan(s).id())
			return nil
		}, after[:], wakeChunk); err != nil {
			return err
		}
		if len(ids) == 0 {
			return nil
		}
		if err := exec(conn, "BEGIN IMMEDIATE"); err != nil {
			return err
		}
		for _, after = range ids {
			if err := t.doubt(after, now, out); err != nil {
				return err // closing the connection rolls back, and the file goes
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		if err := exec(conn, "COMMIT"); err != nil {
			return err
		}
	}
}

// pauseExpansions pauses the campaigns that were being expanded. The next Open holds their messages, as MoveCampaign
// does.
func pauseExpansions(conn *sqlite.Conn, out *Restored) error {
	err := query(conn, `UPDATE campaigns SET state = ?, moving = 1 WHERE state = ? AND expanded = 0
		RETURNING (SELECT slug FROM tenants t WHERE t.n = tenant) || '/' || name`, func(s *sqlite.Stmt) error {
		out.Paused = append(out.Paused, s.ColumnText(0))
		return nil
	}, string(store.CampaignPaused), string(store.CampaignRunning))
	slices.Sort(out.Paused)
	return err
}

// doubt puts one waiting message in doubt if it may have gone.
func (t *tx) doubt(id delivery.MessageID, now time.Time, out *Restored) error {
	r, err := t.load(id) // anew: one of those before it may have let it go
	if err != nil || r == nil {
		return err
	}
	tn, err := t.tenantN(r.tenant)
	if err != nil {
		return err
	}
	switch {
	case r.status == delivery.StatusSending:
	case !claimable(r.status) || r.status != delivery.StatusHeld && r.due > store.Millis(now):
		return nil // in doubt already, or not due before now
	case r.blocked() && r.flags&flagAtMostOnce != 0:
		out.Unknown++
		return t.end(tn, r, store.Millis(now), reasonRestored, detailRestored,
			step{delivery.StatusUnknown, delivery.ByPlan})
	case r.blocked():
		out.Marked++
		r.flags |= flagDuplicate
		return t.save(r)
	default:
		// A lease that nobody works on: its epoch fences whatever still runs from before the backup.
		c := store.Claim{Node: restoredBy, Now: now, Until: now}
		if _, err := t.lease(tn, r, c); err != nil {
			return err
		}
	}
	out.InDoubt++
	_, err = t.settle(&store.Outcome{ID: r.id, Epoch: r.epoch, Writer: delivery.ByPlan, Status: delivery.StatusAmbiguous,
		Reason: reasonRestored, Detail: detailRestored, Until: now, Attempted: r.node != restoredBy}, now)
	t.ready = nil // nobody listens yet
	return err
}
