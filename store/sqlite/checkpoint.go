package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// checkpointer moves what commits have appended to the write-ahead log into the database, beside the writer. Left to
// itself SQLite does that inside a commit, which then takes hundreds of milliseconds, and everybody waits.
//
// The log can only begin anew when all of it has been moved and nobody appends meanwhile. So most of it is moved by a
// connection of its own while commits go on, and the little that came meanwhile by the writer between two groups.
type checkpointer struct {
	conn  *sqlite.Conn
	index *os.File // of the log; see frames
	log   *slog.Logger

	wake    chan struct{}
	rest    chan struct{} // asks the writer to call finish
	done    chan struct{}
	end     chan struct{}
	busy    atomic.Bool // from wake until finish
	failing bool        // so that a full disk does not fill the log too; of whoever makes a pass
	next    int         // frames from which the next pass is worth while; the writer's, as last
	last    int         // frames after the group before
}

const (
	// checkpointAfter is how many frames of one page the log may have before they are moved: about 32 MB.
	checkpointAfter = 4000
	// finishBelow is how many frames the writer may be asked to move: some milliseconds.
	finishBelow = 400
	// passes bounds how often the log is gone after that commits keep filling.
	passes = 4
)

// startCheckpointer begins; the database is open already. Its stop comes after the writer's last write.
func startCheckpointer(path string, log *slog.Logger) (*checkpointer, error) {
	c := &checkpointer{
		log: log, next: checkpointAfter,
		wake: make(chan struct{}, 1), rest: make(chan struct{}, 1), done: make(chan struct{}), end: make(chan struct{}),
	}
	var err error
	// Closing any handle of this file would drop the locks that SQLite holds on it in this process (fcntl(2)): it stays
	// open as long as a connection is.
	if c.index, err = os.Open(path + "-shm"); err != nil {
		return nil, err
	}
	if c.conn, err = sqlite.OpenConn(path, sqlite.OpenReadWrite); err != nil {
		return nil, errors.Join(err, c.index.Close())
	}
	c.conn.SetBusyTimeout(busyTimeout)
	if err := exec(c.conn, "PRAGMA synchronous = FULL"); err != nil {
		return nil, errors.Join(err, c.conn.Close(), c.index.Close())
	}
	go c.run()
	return c, nil
}

// frames is how many frames the log has. They stand in the header of its index, 16 bytes after its beginning, in the
// machine's byte order: https://sqlite.org/walformat.html#the_wal_index_header. The number may be torn by a commit at
// the same moment, which a caller that asks again and again need not care about.
func (c *checkpointer) frames() int {
	var b [4]byte
	if _, err := c.index.ReadAt(b[:], 16); err != nil {
		return checkpointAfter // a needless pass does no harm
	}
	return int(binary.NativeEndian.Uint32(b[:]))
}

// wrote is told after each group.
func (c *checkpointer) wrote() {
	n := c.frames()
	if n < c.last { // the log has begun anew
		c.next = checkpointAfter
	}
	c.last = n
	if n < c.next || c.busy.Load() {
		return
	}
	c.busy.Store(true)
	c.wake <- struct{}{} // never waits: only one is under way
}

func (c *checkpointer) run() {
	defer close(c.done)
	for {
		select {
		case <-c.wake:
		case <-c.end:
			return
		}
		for range passes {
			moved, err := c.pass(c.conn)
			if err != nil || c.frames()-moved < finishBelow {
				break
			}
		}
		c.rest <- struct{}{}
	}
}

// finish moves what is left of the log. The writer calls it between two groups.
func (c *checkpointer) finish(conn *sqlite.Conn) {
	_, _ = c.pass(conn)
	// Where a reader keeps the log from beginning anew, there is no use in trying after each group.
	c.next = c.frames() + checkpointAfter/4
	c.busy.Store(false)
}

// pass moves what the log has now, as far as readers allow, and returns how many frames of it have been moved in all.
func (c *checkpointer) pass(conn *sqlite.Conn) (moved int, err error) {
	_, err = one(conn, "PRAGMA wal_checkpoint(PASSIVE)", func(s *sqlite.Stmt) error {
		moved = s.ColumnInt(2)
		return nil
	})
	if err != nil && !c.failing {
		c.log.Warn("the write-ahead log cannot be moved into the database; it grows meanwhile", "error", err)
	}
	c.failing = err != nil
	return moved, err
}

// stop ends the checkpointer; the writer has ended already. Close its index last: see closeIndex.
func (c *checkpointer) stop() error {
	close(c.end)
	<-c.done
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("the connection for checkpoints: %w", err)
	}
	return nil
}

// closeIndex comes after the last connection is closed.
func (c *checkpointer) closeIndex() error { return c.index.Close() }
