package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// rawStore is the limit of batched accepts: durable transactions of 500 rows, of 16 bytes and 400 bytes each, in a plain
// SQLite table, in the directory in which engines keep theirs.
func (b *bench) rawStore(ctx context.Context) (rate float64, err error) {
	dir, err := os.MkdirTemp(b.work, "raw-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conn, err := sqlite.OpenConn(filepath.Join(dir, "raw.db"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, q := range []string{
		"PRAGMA page_size = 8192", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL",
		"PRAGMA wal_autocheckpoint = 4000",
		"CREATE TABLE message (id BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID",
	} {
		if err := sqlitex.ExecuteTransient(conn, q, nil); err != nil {
			return 0, err
		}
	}
	insert, err := conn.Prepare("INSERT INTO message VALUES (?, ?)")
	if err != nil {
		return 0, err
	}
	body, id := []byte(strings.Repeat("x", 400)), make([]byte, 16)
	start, rows := time.Now(), uint64(0)
	for time.Since(start) < b.time/2 && ctx.Err() == nil {
		if err := transaction(conn, func() error {
			for range batchRows {
				rows++
				binary.BigEndian.PutUint64(id, rows)
				insert.BindBytes(1, id)
				insert.BindBytes(2, body)
				if _, err := insert.Step(); err != nil {
					return err
				}
				if err := insert.Reset(); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return float64(rows) / time.Since(start).Seconds(), ctx.Err()
}

func transaction(conn *sqlite.Conn, write func() error) (err error) {
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	return write()
}
