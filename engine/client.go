package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// embedded names the keys of clients inside the process. They end with it.
const embedded = "embedded client"

func (e *Engine) newKey(ctx context.Context, tenant delivery.TenantID, name string, admin bool) (string, delivery.KeyID, error) {
	k, row := e.makeKey(e.ids.Key(), tenant, name, admin)
	return k.Reveal(), row.ID, e.store.PutKey(ctx, system, row)
}

// makeKey makes a key and the row that the store is to have of it.
func (e *Engine) makeKey(id delivery.KeyID, tenant delivery.TenantID, name string, admin bool) (apikey.Key, store.Key) {
	k := apikey.New(apikey.Live)
	return k, store.Key{
		ID: id, Tenant: tenant, Name: name, Mode: "live", Admin: admin,
		Hash: apikey.Hash(e.vault.Pepper(), k), Hint: k.Hint(), CreatedAt: e.cfg.Clock.Now(),
	}
}

type clientKey struct {
	secret string
	id     delivery.KeyID
}

// Client returns the SDK's client for a tenant, talking to the engine without a socket. The tenant is made when it is not
// there. Client("") is the operator's.
func (e *Engine) Client(tenant string) (*sdk.Client, error) {
	id := delivery.TenantID(tenant)
	ctx := context.Background()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	k, ok := e.clients[id]
	if !ok {
		if id != delivery.Shared {
			if _, err := e.store.Tenant(ctx, system, id); errors.Is(err, store.ErrNotFound) {
				t := store.Tenant{ID: id, Name: tenant, DataKey: e.vault.NewDataKey(tenant), CreatedAt: e.cfg.Clock.Now()}
				if err := e.store.CreateTenant(ctx, system, t); err != nil && !errors.Is(err, store.ErrExists) {
					return nil, err
				}
			} else if err != nil {
				return nil, err
			}
		}
		var err error
		if k.secret, k.id, err = e.newKey(ctx, id, embedded, id == delivery.Shared); err != nil {
			return nil, err
		}
		e.clients[id] = k
	}
	return sdk.New(sdk.WithURL("http://engine.invalid"), sdk.WithKey(k.secret),
		sdk.WithHTTPClient(&http.Client{Transport: inProcess{e.handler}})), nil
}

// dropClients ends the keys of clients inside the process.
func (e *Engine) dropClients() error {
	var errs []error
	for tenant, k := range e.clients {
		errs = append(errs, e.store.RevokeKey(context.Background(), system, tenant, k.id, e.cfg.Clock.Now()))
	}
	return errors.Join(errs...)
}

// inProcess is an http.RoundTripper that calls a handler.
type inProcess struct{ handler http.Handler }

// RoundTrip runs the handler and returns once it has written its header; the body streams.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	in := r.Clone(ctx)
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	body, out := io.Pipe()
	w := &pipeWriter{header: http.Header{}, out: out, ready: make(chan struct{})}
	go func() {
		defer func() {
			broken := recover() != nil // http.ErrAbortHandler: the answer ends here, as a socket's would
			if broken {
				_ = out.CloseWithError(io.ErrUnexpectedEOF)
			}
			if broken && w.status == 0 {
				close(w.ready) // there is no answer at all
			} else {
				w.WriteHeader(http.StatusOK)
			}
			_ = out.CloseWithError(ctx.Err()) // nil = the end
			_ = in.Body.Close()
		}()
		t.handler.ServeHTTP(w, in)
	}()
	// A caller that goes away must not take the end of a cut answer for its whole, nor keep the handler writing.
	stop := context.AfterFunc(ctx, func() { _ = out.CloseWithError(ctx.Err()) })
	select {
	case <-w.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if w.status == 0 {
		stop()
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1",
		ProtoMajor: 1, ProtoMinor: 1, Header: w.sent, Body: answerBody{body, stop}, ContentLength: -1, Request: r,
	}, nil
}

// answerBody ends the watch over its request's context when it is closed.
type answerBody struct {
	*io.PipeReader
	stop func() bool
}

func (b answerBody) Close() error {
	b.stop()
	return b.PipeReader.Close()
}

// pipeWriter is the handler's side of an exchange. One goroutine uses it.
type pipeWriter struct {
	header, sent http.Header
	status       int
	out          *io.PipeWriter
	ready        chan struct{}
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status, w.sent = status, w.header.Clone()
	close(w.ready)
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.out.Write(b)
}

// Flush implements http.Flusher: what is written is seen at once anyway.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }
