package simulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk/webhook"
)

// maxRequest bounds a request to the HTTP side, in bytes.
const maxRequest = 1 << 20

// hooks is the webhook sink: POST /sim/hook/{path...}. The first segment names the account for faults and chooses the
// outcome; the whole path below /sim/hook/ is the endpoint.
type hooks struct {
	sim  *Sim
	bufs sync.Pool
}

func (s *Sim) hookRoutes(mux *http.ServeMux) {
	h := &hooks{sim: s}
	h.bufs.New = func() any { return new(bytes.Buffer) }
	mux.Handle("POST /sim/hook/", h)
}

func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	buf := h.bufs.Get().(*bytes.Buffer)
	defer h.bufs.Put(buf)
	buf.Reset()
	if !readBody(w, r, buf) {
		return
	}
	s, now := h.sim, h.sim.clock.Now()
	if s.opt.HookSecret != "" {
		if err := webhook.Verify(r.Header, buf.Bytes(), now, s.opt.HookSecret); err != nil {
			s.log.Warn("webhook refused", "error", err)
			http.Error(w, "the signature does not fit", http.StatusUnauthorized)
			return
		}
	}
	path := strings.TrimPrefix(r.URL.Path, "/sim/hook/")
	account, _, _ := strings.Cut(path, "/")
	v := s.script.decide(delivery.Webhook, account, path)
	// Before the wait: a sender that gives up on a slow endpoint has still been heard.
	s.ledger.add(Entry{
		At: now, Channel: delivery.Webhook.String(), Account: account, To: r.URL.Path, Ref: r.Header.Get(webhook.HeaderID),
		Taken: v.Fault == NoFault || v.Fault == LostAck, Outcome: v.Outcome, Text: string(buf.Bytes()[:min(buf.Len(), 1000)]),
	})
	if v.Fault != Down && !s.wait(r.Context(), s.opt.Latency+v.Latency) {
		return
	}
	switch v.Fault {
	case NoFault:
		w.WriteHeader(http.StatusOK)
	case LostAck, Down:
		hangUp(w)
	case UnknownSubscriber, NotOnWhatsApp:
		http.Error(w, "gone", http.StatusGone)
	case ThrottledFault:
		setRetryAfter(w, v.RetryAfter)
		http.Error(w, "slow down", http.StatusTooManyRequests)
	case RejectedFault, Blocked:
		http.Error(w, "not wanted", http.StatusBadRequest)
	case BadLogin:
		http.Error(w, "who are you?", http.StatusUnauthorized)
	default:
		http.Error(w, "try again", http.StatusInternalServerError)
	}
}

// readBody fills buf with the request's body; it answers and returns false when that cannot be done.
func readBody(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer) bool {
	_, err := buf.ReadFrom(io.LimitReader(r.Body, maxRequest+1))
	switch {
	case err != nil:
		http.Error(w, "the body did not arrive", http.StatusBadRequest)
	case buf.Len() > maxRequest:
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
	default:
		return true
	}
	return false
}

func setRetryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((d+time.Second-1)/time.Second)))
	}
}

// hangUp closes the connection without an answer: the request was read, and its sender cannot know what became of it.
func hangUp(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		err = c.Close()
	}
	if errors.Is(err, http.ErrNotSupported) {
		panic(http.ErrAbortHandler) // HTTP/2: reset the stream
	}
}

// wait takes d of the simulator's time; false when the request ended first.
func (s *Sim) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-s.clock.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
