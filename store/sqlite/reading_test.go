package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

func TestExportReadsEverythingAndChangesNothing(t *testing.T) {
	k := newRig(t)
	k.accept()
	k.accept()
	k.accept(func(m *store.NewMessage) {
		m.Then = []store.NewLeg{{Channel: delivery.Email, To: "a@example.com", Payload: []byte("second")}}
	})
	before := audited(t, k.s)
	require.NoError(t, k.s.Close())
	files := func() (out map[string]string) {
		out = map[string]string{}
		list, err := os.ReadDir(k.dir)
		require.NoError(t, err)
		for _, f := range list {
			b, err := os.ReadFile(filepath.Join(k.dir, f.Name()))
			require.NoError(t, err)
			out[f.Name()] = string(b)
		}
		return out
	}
	was := files()

	e, err := sqlite.OpenExport(t.Context(), k.dir)
	require.NoError(t, err)
	_, err = sqlite.OpenExport(t.Context(), k.dir)
	var inUse *sqlite.InUseError
	require.ErrorAs(t, err, &inUse, "nobody else has it meanwhile")
	after, err := e.Audit(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, before, after)
	tenants, err := e.Tenants(t.Context())
	require.NoError(t, err)
	require.Equal(t, []delivery.TenantID{"acme"}, tenants)
	n, err := e.Rows(t.Context(), "messages")
	require.NoError(t, err)
	require.Equal(t, int64(3), n)
	tables, err := e.Tables(t.Context())
	require.NoError(t, err)
	require.Subset(t, tables, []string{"messages", "payloads", "ledger", "tenants", "parked", "clock"})
	var rows []string
	require.NoError(t, e.Table(t.Context(), "messages", []string{"status", "due", "campaign", "recipient", "facts"},
		func(r []any) error {
			rows = append(rows, fmt.Sprintf("%T %T %T %T %T", r...))
			return nil
		}))
	require.Equal(t, []string{"int64 int64 <nil> string []uint8", "int64 int64 <nil> string []uint8",
		"int64 int64 <nil> string []uint8"}, rows)
	var bodies [][]byte
	require.NoError(t, e.Table(t.Context(), "legs", []string{"body"}, func(r []any) error {
		bodies = append(bodies, r[0].([]byte))
		return nil
	}))
	require.Equal(t, [][]byte{{}, []byte("second")}, bodies, "empty is not NULL")
	require.ErrorContains(t, e.Table(t.Context(), "nothing", []string{"n"}, nil), `no table "nothing"`)
	require.NoError(t, e.Close())
	require.NoError(t, e.Close(), "twice")
	require.Equal(t, was, files())
}

func TestExportRefuses(t *testing.T) {
	k := newRig(t)
	_, err := sqlite.OpenExport(t.Context(), k.dir)
	require.ErrorContains(t, err, fmt.Sprintf("database in use by process %d", os.Getpid()))
	_, err = sqlite.OpenExport(t.Context(), "")
	require.ErrorContains(t, err, "no directory")
	empty := t.TempDir()
	_, err = sqlite.OpenExport(t.Context(), empty)
	require.ErrorContains(t, err, "there is no database in "+empty)
	left, err := os.ReadDir(empty)
	require.NoError(t, err)
	require.Empty(t, left)
	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "msgctl.db"), []byte("hello, this is no database"), 0o600))
	_, err = sqlite.OpenExport(t.Context(), foreign)
	require.ErrorContains(t, err, "the file is not a database")

	// What the last process left uncleanly is still to be looked at by the next engine.
	require.NoError(t, k.s.Close())
	lock := filepath.Join(k.dir, "msgctl.lock")
	require.NoError(t, os.WriteFile(lock, []byte("1\n"), 0o600))
	e, err := sqlite.OpenExport(t.Context(), k.dir)
	require.NoError(t, err)
	require.NoError(t, e.Close())
	b, err := os.ReadFile(lock)
	require.NoError(t, err)
	require.NotEmpty(t, b)
}
