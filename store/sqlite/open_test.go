package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	driver "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// edit changes the file of a closed store behind its back.
func edit(t *testing.T, dir, script string) {
	t.Helper()
	conn, err := driver.OpenConn(filepath.Join(dir, "msgctl.db"), driver.OpenReadWrite)
	require.NoError(t, err)
	require.NoError(t, sqlitex.ExecuteScript(conn, script, nil))
	require.NoError(t, conn.Close())
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := openAt(t, dir)
	require.NoError(t, s.Check(t.Context()))
	for name, mode := range map[string]os.FileMode{"": 0o700, "msgctl.db": 0o600, "msgctl.db-wal": 0o600,
		"msgctl.db-shm": 0o600,
		"msgctl.lock":   0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, st.Mode().Perm(), name)
	}
	require.NoError(t, s.Close())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 2, "a clean stop leaves the database and an empty lock file")
	st, err := os.Stat(filepath.Join(dir, "msgctl.lock"))
	require.NoError(t, err)
	require.Zero(t, st.Size())
}

func TestASecondOpenNamesTheProcess(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	_, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir})
	var inUse *sqlite.InUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, os.Getpid(), inUse.PID)
	require.Equal(t, filepath.Join(dir, "msgctl.lock"), inUse.Path)
	require.ErrorContains(t, err, "stop it or choose another directory")
	require.NoError(t, s.Check(t.Context()), "the first goes on")
}

func TestOpenRefusesWhatItCannotUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	prepared := func(script string) func(*testing.T) string {
		return func(t *testing.T) string {
			dir := t.TempDir()
			require.NoError(t, openAt(t, dir).Close())
			edit(t, dir, script)
			return dir
		}
	}
	for name, c := range map[string]struct {
		dir  func(*testing.T) string
		says string
	}{
		"no directory": {func(*testing.T) string { return "" }, "no directory"},
		"a file":       {func(*testing.T) string { return file }, "is a file"},
		"below a file": {func(*testing.T) string { return filepath.Join(file, "x") }, "not a directory"},
		"a newer schema": {prepared("PRAGMA user_version = 7"),
			"database has schema 7, this program knows up to 4: use a newer msgctl"},
		"another's file": {prepared("PRAGMA application_id = 5"), "database of another program"},
		"not a database": {func(t *testing.T) string {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "msgctl.db"), make([]byte, 9000), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "msgctl.db"),
				[]byte("a letter to my aunt, much longer than a header "+
					"of a database, which takes one hundred bytes"), 0o600))
			return dir
		}, "not a database"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sqlite.Open(t.Context(), sqlite.Options{Dir: c.dir(t)})
			require.ErrorContains(t, err, c.says)
		})
	}
	t.Run("no permission", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may write everywhere")
		}
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o500))
		_, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir})
		require.ErrorContains(t, err, "permission denied")
	})
}

func TestAuditFindsTampering(t *testing.T) {
	for name, c := range map[string]struct{ script, finds string }{
		"a changed status": {`UPDATE messages SET status = 21, due = NULL, q = 0 WHERE status = 2`,
			"status is not that of the last fact"},
		"a removed ledger row": {`DELETE FROM ledger WHERE seq = 1`, "ledger chain is broken"},
		"the last ledger row":  {`DELETE FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)`, "fact is missing"},
		"a changed ledger row": {`UPDATE ledger SET facts = (SELECT facts FROM ledger WHERE seq = 2) WHERE seq = 1`,
			"ledger row was changed"},
		"a changed time": {`UPDATE ledger SET at = at + 1 WHERE seq = 1`, "ledger row was changed"},
		"a hidden fact": {`UPDATE messages SET facts = x'01' WHERE status = 10`,
			"status is not that of the last fact"},
		"a changed tally":       {`UPDATE tally SET n = n + 1 WHERE status = 2`, "tally is not the rows"},
		"a removed tally":       {`DELETE FROM tally WHERE status = 2`, "tally is not the rows"},
		"a removed message":     {`DELETE FROM messages WHERE status = 2`, "accepted messages are not the rows"},
		"a lost due time":       {`UPDATE messages SET due = NULL WHERE status = 2`, "message without due time"},
		"a due time at the end": {`UPDATE messages SET due = 5 WHERE status = 10`, "ended message with due time"},
		"a wrong queue":         {`UPDATE messages SET q = 0 WHERE status = 2`, "message in the wrong queue"},
		"a leg that is gone":    {`DELETE FROM legs WHERE n = 1`, "legs are not those of the message"},
		"a second winner":       {`UPDATE legs SET winner = 1, status = 11`, "legs are not those of the message"},
		"a leg's address":       {`UPDATE legs SET recipient = 'x' WHERE n = 0`, "legs are not those of the message"},
		"a leg that goes on":    {`UPDATE legs SET status = 5 WHERE n = 1`, "legs are not those of the message"},
		"a wait beyond its leg": {`UPDATE legs SET until = 5 WHERE n = 0`, "legs are not those of the message"},
		"another leg": {`UPDATE messages SET flags = flags | 4096 WHERE id IN (SELECT id FROM legs)`,
			"leg is not that of the last fact"},
		"a dead letter unlisted": {`DELETE FROM dead`, "list of dead letters is wrong"},
		"an empty line":          {`DELETE FROM ordered`, "line of an ordering key is wrong"},
		"a line without a head":  {`DELETE FROM ordered WHERE place = 1`, "line of an ordering key is wrong"},
		"a line out of order":    {`UPDATE ordered SET place = 9 WHERE place = 1`, "line of an ordering key is wrong"},
		"a moved cursor":         {`UPDATE campaigns SET cursor = 3`, "people of a campaign do not add up"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir)
			ctx, sys := t.Context(), store.AsSystem("test")
			require.NoError(t, s.CreateTenant(ctx, sys, store.Tenant{ID: "acme"}))
			ids := delivery.NewIDs(benchTime.UTC)
			campaign := store.Campaign{ID: ids.Campaign(), Name: "c", CreatedAt: benchTime, People: 9}
			require.NoError(t, s.CreateCampaign(ctx, "acme", campaign))
			_, err := s.MoveCampaign(ctx, "acme", campaign, []store.CampaignState{store.CampaignDraft}, store.CampaignRunning,
				benchTime)
			require.NoError(t, err)
			ms := batchOf(ids, 4)
			for i := range ms {
				_, err := s.Accept(ctx, "acme", store.Acceptance{Now: benchTime, Messages: ms[i : i+1]})
				require.NoError(t, err)
			}
			more := batchOf(ids, 3)
			more[0].OrderingKey, more[1].OrderingKey, more[1].To = "k", "k", more[0].To
			more[2].Within, more[2].Then = time.Minute, []store.NewLeg{{Channel: delivery.Email, To: "a@example.com"}}
			_, err = s.Accept(ctx, "acme", store.Acceptance{Now: benchTime, Messages: more})
			require.NoError(t, err)
			got, err := s.Claim(ctx, sys, store.Claim{IDs: []delivery.MessageID{ms[0].ID, ms[1].ID}, Node: "n",
				Now: benchTime, Until: benchTime.Add(1e9)})
			require.NoError(t, err)
			require.Len(t, got, 2)
			_, err = s.Settle(ctx, sys, benchTime, []store.Outcome{
				{ID: ms[0].ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent},
				{ID: ms[1].ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusFailed, Reason: "r"}})
			require.NoError(t, err)
			r, err := s.Audit(ctx, "acme")
			require.NoError(t, err)
			require.Empty(t, r.Problems)
			require.NoError(t, s.Close())

			edit(t, dir, c.script)
			r, err = openAt(t, dir).Audit(context.Background(), "acme")
			require.NoError(t, err)
			var found []string
			for _, p := range r.Problems {
				found = append(found, p.What)
			}
			require.Contains(t, found, c.finds)
		})
	}
}
