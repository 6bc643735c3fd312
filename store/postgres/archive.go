package postgres

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5"
)

// What retention removes may be kept as files before it is dropped: one for each table, comma-separated values with a
// head line as PostgreSQL writes them (COPY, "CSV Format"), compressed. They hold what the tables held, addresses and
// texts too: only the owner of the files may read them.

// archived is the name of a table's file.
func archived(table string) string { return table + ".csv.gz" }

// checkArchive says early when nothing can be written to a directory, which is made when it is not there.
func checkArchive(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("retention: the archive: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("retention: the archive: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// archive writes detached tables to files. A file that a run before has written is replaced: its table has not changed
// since it was detached. When it returns, the files are on the disk.
func (k *keeper) archive(ctx context.Context, tables []string) error {
	if k.Archive == "" {
		return nil
	}
	for _, table := range slices.Sorted(slices.Values(tables)) {
		if err := k.archiveTable(ctx, table); err != nil {
			return fmt.Errorf("retention: the archive of %s: %w", table, err)
		}
	}
	dir, err := os.Open(k.Archive)
	if err != nil {
		return fmt.Errorf("retention: the archive: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (k *keeper) archiveTable(ctx context.Context, table string) (err error) {
	file, err := os.CreateTemp(k.Archive, "."+table+"-*")
	if err != nil {
		return err
	}
	open := true
	defer func() {
		if open {
			_ = file.Close()
		}
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	buffered := bufio.NewWriterSize(file, 1<<20)
	packed := gzip.NewWriter(buffered)
	err = k.inTx(ctx, retainTimeout, func(tx pgx.Tx) error {
		_, err := tx.Conn().PgConn().CopyTo(ctx, packed,
			`COPY (SELECT * FROM `+pgx.Identifier{table}.Sanitize()+`) TO STDOUT (FORMAT csv, HEADER)`)
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(packed.Close(), buffered.Flush(), file.Sync()); err != nil {
		return err
	}
	open = false
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(k.Archive, archived(table)))
}
