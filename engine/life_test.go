package engine_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
)

func TestStartAgainOnceThePortIsFree(t *testing.T) {
	ctx := context.Background()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e, err := engine.New(engine.Config{Dir: t.TempDir(), Listen: ln.Addr().String()}, kind())
	require.NoError(t, err)
	require.Error(t, e.Start(ctx))
	require.NoError(t, ln.Close())
	require.NoError(t, e.Start(ctx))
	require.Equal(t, ln.Addr().String(), e.Addr())
	require.NoError(t, e.Close(), "it ends, whatever failed before")
	require.ErrorIs(t, e.Start(ctx), engine.ErrClosed)
	_, err = e.Client("acme")
	require.ErrorIs(t, err, engine.ErrClosed)
}

func TestAStartThatFailsHalfWay(t *testing.T) {
	e, err := engine.New(engine.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}, kind())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Error(t, e.Start(ctx))
	require.Empty(t, e.Addr())
	_ = e.Start(context.Background()) // it may say no, but it must not leave anything running
	require.NoError(t, e.Close())
}

// closing is a connector that notes how many of it are open.
type closing struct {
	taker
	open *atomic.Int32
}

func (c closing) Close() error { c.open.Add(-1); return nil }

func TestAChangeTakesEffectThoughItsCallerHasGone(t *testing.T) {
	var open atomic.Int32
	k := kind()
	k.Open = func(*connectors.Account) (connectors.Connector, error) { open.Add(1); return closing{open: &open}, nil }
	e, err := engine.New(engine.Config{Dir: t.TempDir()}, k)
	require.NoError(t, err)
	ctx := context.Background()
	require.NoError(t, e.Start(ctx))
	c, err := e.Client("acme")
	require.NoError(t, err)
	_, err = c.Connectors.Put(ctx, "main", sdk.ConnectorRequest{Kind: "taker"})
	require.NoError(t, err)
	require.EqualValues(t, 1, open.Load())
	_, err = c.Connectors.Put(ctx, "main", sdk.ConnectorRequest{Kind: "taker", Settings: map[string]string{"password": "x"}})
	require.NoError(t, err)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	e.ConnectorsChanged(gone)
	m, err := c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)
	_, err = c.Messages.Wait(ctx, m.ID, sdk.Sent)
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.Zero(t, open.Load(), "every connector that was opened is closed")
	e.ConnectorsChanged(ctx)
	require.Zero(t, open.Load())
}

func TestInProcessAnswers(t *testing.T) {
	stop := make(chan struct{})
	started := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/panics", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half of it")
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one")
		close(started)
		<-r.Context().Done()
		close(stop)
	})
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	client := &http.Client{Transport: engine.InProcess(mux)}
	get := func(ctx context.Context, path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine.invalid"+path, nil)
		require.NoError(t, err)
		return client.Do(r)
	}
	ctx := context.Background()

	_, err := get(ctx, "/panics")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "no answer at all is no answer of 200")
	a, err := get(ctx, "/cut")
	require.NoError(t, err)
	b, err := io.ReadAll(a.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a cut answer is not whole")
	require.Equal(t, "half of it", string(b))
	a, err = get(ctx, "/empty")
	require.NoError(t, err)
	require.Equal(t, 200, a.StatusCode)
	b, err = io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Empty(t, b)
	require.NoError(t, a.Body.Close())

	cut, cancel := context.WithCancel(ctx)
	a, err = get(cut, "/stream")
	require.NoError(t, err)
	first := make([]byte, 3)
	_, err = io.ReadFull(a.Body, first)
	require.NoError(t, err)
	<-started
	cancel()
	_, err = io.ReadAll(a.Body)
	require.ErrorIs(t, err, context.Canceled, "the end of the caller is not the end of the stream")
	<-stop
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = get(gone, "/never")
	require.True(t, errors.Is(err, context.Canceled))
}

var _ connectors.Connector = closing{}
