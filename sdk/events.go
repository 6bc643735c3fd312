package sdk

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Events is the stream of what happened to messages. Events of one message come in order; each comes at least once.
type Events struct{ c *Client }

// followWait is how long the engine may hold a request that has nothing to tell: below the 30 s it allows.
const followWait = 20 * time.Second

// Page returns events after a sequence number, oldest first; limit 0 = the engine's default. When there are none, the
// engine waits for one, up to wait, at most 30 s.
func (s Events) Page(ctx context.Context, after int64, limit int, wait time.Duration) (*Page[Event], error) {
	v := url.Values{}
	setInt(v, "after", after)
	setInt(v, "limit", int64(limit))
	if wait > 0 {
		v.Set("wait", wait.String())
	}
	out := new(Page[Event])
	err := s.c.do(ctx, call{
		method: http.MethodGet, path: "/v1/events", query: v, timeout: s.c.tryTimeout + wait,
	}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Latest returns the sequence number at which the stream ends now: what Page and Follow take to begin with what comes
// next.
func (s Events) Latest(ctx context.Context) (int64, error) {
	out := new(Page[Event])
	v := url.Values{"after": {"latest"}, "limit": {"1"}}
	if err := s.c.do(ctx, call{method: http.MethodGet, path: "/v1/events", query: v}, out); err != nil {
		return 0, err
	}
	seq, err := strconv.ParseInt(out.NextCursor, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: the engine does not say where the stream of events ends", ErrUnavailable)
	}
	return seq, nil
}

// Follow yields events after a sequence number for ever: until the context ends, which is its last error, or a request
// fails in spite of its retries. Go on later with the Seq of the last event.
func (s Events) Follow(ctx context.Context, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			begin := s.c.now()
			p, err := s.Page(ctx, after, 0, followWait)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range p.Data {
				if after = max(after, e.Seq); !yield(e, nil) {
					return
				}
			}
			// An engine that answers "none" at once must not make a busy loop.
			if len(p.Data) == 0 && s.c.now().Sub(begin) < time.Second {
				if err := s.c.sleep(ctx, time.Second); err != nil {
					yield(Event{}, err)
					return
				}
			}
		}
	}
}
