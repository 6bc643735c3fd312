package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOperatorKey(t *testing.T) {
	dir := prepared(t)
	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"operator-key", "--dir", dir}, &out, &errs), errs.String())
	require.Regexp(t, `^mk_live_\w+\n$`, out.String())
	out.Reset()
	require.Equal(t, exitFailed, run([]string{"operator-key", "--dir", t.TempDir()}, &out, &errs))
	require.Contains(t, errs.String(), "another node made the key")
	require.Empty(t, out.String())
}
