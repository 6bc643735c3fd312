package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestInterruptible(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	text := strings.Repeat("one line\n", 5000)
	require.NoError(t, iotest.TestReader(&interruptible{ctx: ctx, r: strings.NewReader(text)}, []byte(text)))
	broken := errors.New("broken")
	_, err := io.ReadAll(&interruptible{ctx: ctx, r: iotest.ErrReader(broken)})
	require.ErrorIs(t, err, broken)

	// A read that would never end does so with the context, and what it was given stays the caller's.
	stuck := &stuckReader{began: make(chan struct{}), release: make(chan struct{}), done: make(chan struct{})}
	in := &interruptible{ctx: ctx, r: stuck}
	got := make(chan error)
	p := make([]byte, 4)
	go func() {
		_, err := in.Read(p)
		got <- err
	}()
	<-stuck.began
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	close(stuck.release)
	<-stuck.done
	require.Equal(t, make([]byte, 4), p)
	_, err = in.Read(p)
	require.ErrorIs(t, err, context.Canceled)
}

// stuckReader reads "late" when it is released. It can be read once.
type stuckReader struct{ began, release, done chan struct{} }

func (s *stuckReader) Read(p []byte) (int, error) {
	close(s.began)
	<-s.release
	defer close(s.done)
	return copy(p, "late"), nil
}
