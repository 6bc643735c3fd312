package postgres_test

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/store/postgres"
)

// archivedRows reads what an archive has of some tables, as maps from column to value.
func archivedRows(t *testing.T, dir, parent string) (all []map[string]string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, parent+"_*.csv.gz"))
	require.NoError(t, err)
	for _, name := range files {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "it holds addresses and texts")
		f, err := os.Open(name)
		require.NoError(t, err)
		unpacked, err := gzip.NewReader(f)
		require.NoError(t, err)
		rows, err := csv.NewReader(unpacked).ReadAll()
		require.NoError(t, errors.Join(err, f.Close()))
		for _, row := range rows[1:] {
			m := map[string]string{}
			for i, column := range rows[0] {
				m[column] = row[i]
			}
			all = append(all, m)
		}
	}
	return all
}

func TestRetentionArchivesWhatItRemoves(t *testing.T) {
	p, dir := newPast(t), filepath.Join(t.TempDir(), "new", "archive")
	var gone []string
	for days := 5; days >= 1; days-- {
		for _, id := range p.lived("acme", p.back(days)) {
			if days >= 3 {
				gone = append(gone, fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
			}
		}
	}
	before := p.today.AddDate(0, 0, -2)
	r := postgres.Retention{Before: before, Archive: dir, DryRun: true}
	plan, err := postgres.Retain(bg, p.db.Owner, r)
	require.NoError(t, err)
	require.NoDirExists(t, dir, "a plan writes nothing")

	r.DryRun = false
	got, err := postgres.Retain(bg, p.db.Owner, r)
	require.NoError(t, err)
	require.Equal(t, plan, got)
	require.EqualValues(t, len(gone), got.Messages)
	var ids []string
	for _, m := range archivedRows(t, dir, "messages") {
		ids = append(ids, m["id"])
	}
	require.ElementsMatch(t, gone, ids)
	require.Len(t, archivedRows(t, dir, "payloads"), len(gone), "what is written to whom")
	require.Len(t, archivedRows(t, dir, "legs"), 3*2, "one message of each day has two")
	require.Len(t, archivedRows(t, dir, "ledger"), int(got.Ledger))
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, left, "nothing half done")
	p.audit("acme")
}

// A table is dropped only when its file is on the disk: when that fails, the next run goes on with it.
func TestRetentionDropsNothingThatItCannotArchive(t *testing.T) {
	p, dir := newPast(t), t.TempDir()
	p.lived("acme", p.back(5))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	r := postgres.Retention{Before: p.today, Archive: filepath.Join(file, "below")}
	_, err := postgres.Retain(bg, p.db.Owner, r)
	require.ErrorContains(t, err, "archive")

	// A directory where a file must go: the tables have been detached by then.
	day := p.back(5).Format("20060102")
	blocked := filepath.Join(dir, "messages_"+day+"_"+p.back(4).Format("20060102")+".csv.gz")
	require.NoError(t, os.MkdirAll(filepath.Join(blocked, "x"), 0o700))
	r.Archive = dir
	_, err = postgres.Retain(bg, p.db.Owner, r)
	require.ErrorContains(t, err, "archive of messages_"+day)
	require.NoError(t, os.RemoveAll(blocked))
	got, err := postgres.Retain(bg, p.db.Owner, r)
	require.NoError(t, err)
	require.EqualValues(t, 6, got.Messages)
	require.Len(t, archivedRows(t, dir, "messages"), 6)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, n := range names {
		require.False(t, strings.HasPrefix(n.Name(), "."), "nothing half done")
	}
	p.audit("acme")
}
