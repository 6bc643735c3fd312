package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
)

func env(list map[string]string) func(string) string { return func(k string) string { return list[k] } }

func TestTheGivenMasterKeyIsUsed(t *testing.T) {
	key, err := os.ReadFile(filepath.Join(prepared(t), masterKeyName))
	require.NoError(t, err)
	given := filepath.Join(t.TempDir(), masterKeyName)
	require.NoError(t, os.WriteFile(given, key, 0o444)) // as platforms hand out secrets
	for name, from := range map[string]map[string]string{
		"named":      {"MSGCTL_MASTER_KEY_FILE": given},
		"credential": {"CREDENTIALS_DIRECTORY": filepath.Dir(given)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "data")
			for range 2 { // the second start finds it
				require.NoError(t, bringMasterKey(dir, env(from)))
				got, err := os.ReadFile(filepath.Join(dir, masterKeyName))
				require.NoError(t, err)
				require.Equal(t, key, got)
			}
			info, err := os.Stat(filepath.Join(dir, masterKeyName))
			require.NoError(t, err)
			require.EqualValues(t, 0o600, info.Mode().Perm())
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "something was left behind")
			e, err := engine.New(engine.Config{Dir: dir}) // reads the key
			require.NoError(t, err)
			require.NoError(t, e.Close())
		})
	}
}

func TestAWrongMasterKeyIsRefused(t *testing.T) {
	dir := prepared(t)
	before, err := os.ReadFile(filepath.Join(dir, masterKeyName))
	require.NoError(t, err)
	other := filepath.Join(prepared(t), masterKeyName)
	empty, long := filepath.Join(t.TempDir(), "empty"), filepath.Join(t.TempDir(), "long")
	require.NoError(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	require.NoError(t, os.WriteFile(long, []byte(strings.Repeat("x", masterKeyMax+1)), 0o600))
	for _, c := range []struct{ name, file, says string }{
		{"of another cluster", other, "is not the master key that was given"},
		{"missing", filepath.Join(t.TempDir(), "no"), "MSGCTL_MASTER_KEY_FILE"},
		{"a directory", t.TempDir(), "not a regular file"},
		{"empty", empty, "is empty"},
		{"long", long, "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := bringMasterKey(dir, env(map[string]string{"MSGCTL_MASTER_KEY_FILE": c.file}))
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), strings.TrimSpace(string(before)))
			after, err := os.ReadFile(filepath.Join(dir, masterKeyName))
			require.NoError(t, err)
			require.Equal(t, before, after)
		})
	}
}

func TestWithoutAGivenMasterKeyNothingHappens(t *testing.T) {
	for _, from := range []map[string]string{nil, {"CREDENTIALS_DIRECTORY": t.TempDir()}} {
		dir := filepath.Join(t.TempDir(), "data")
		require.NoError(t, bringMasterKey(dir, env(from)))
		require.NoDirExists(t, dir)
	}
}
