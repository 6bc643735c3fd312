package webhook

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Option changes a Handler.
type Option func(*handler)

// WithClock sets what the Handler takes for now; without it the wall clock.
func WithClock(now func() time.Time) Option { return func(h *handler) { h.now = now } }

// Store remembers the ids of the events that were handled, for as long as deliveries may repeat (three days are
// enough). It is used from many goroutines.
type Store interface {
	// Seen reports whether Done was called for id.
	Seen(ctx context.Context, id string) (bool, error)
	// Done remembers id.
	Done(ctx context.Context, id string) error
}

// WithStore makes the Handler pass over events that were handled before. Two copies that arrive at the same instant may
// still both be handled: for exactly-once effects, write the id in the transaction of the effect itself.
func WithStore(s Store) Option { return func(h *handler) { h.store = s } }

type handler struct {
	secrets []string
	handle  func(context.Context, Event) error
	now     func() time.Time
	store   Store
}

// Handler serves deliveries: it verifies each, calls handle and answers 204, or 500 when handle returns an error, so
// that the delivery comes again. handle is called from many goroutines; answer within 15 seconds or the attempt counts
// as failed.
func Handler(secrets []string, handle func(context.Context, Event) error, opts ...Option) http.Handler {
	h := &handler{secrets: secrets, handle: handle, now: time.Now}
	for _, o := range opts {
		o(h)
	}
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks come by POST", http.StatusMethodNotAllowed)
		return
	}
	e, err := unwrap(r, h.now(), h.secrets)
	if err != nil {
		http.Error(w, statusText(err), status(err))
		return
	}
	if err := h.once(r.Context(), e); err != nil {
		http.Error(w, "the event was not handled", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) once(ctx context.Context, e Event) error {
	if h.store == nil {
		return h.handle(ctx, e)
	}
	if seen, err := h.store.Seen(ctx, e.ID); err != nil || seen {
		return err
	}
	if err := h.handle(ctx, e); err != nil {
		return err
	}
	return h.store.Done(ctx, e.ID)
}

func status(err error) int {
	switch {
	case errors.Is(err, ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrMalformed):
		return http.StatusBadRequest
	case errors.Is(err, ErrSecret):
		return http.StatusInternalServerError
	}
	return http.StatusUnauthorized
}

// statusText tells the sender no more than it needs: which check failed stays here.
func statusText(err error) string {
	switch status(err) {
	case http.StatusRequestEntityTooLarge:
		return "the body is too large"
	case http.StatusBadRequest:
		return "the body is not an event"
	case http.StatusInternalServerError:
		return "the receiver is not set up"
	}
	return "the signature does not fit"
}
