//go:build unix

package crash

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// request is one idempotent request of a client: a single message, or a run of several.
type request struct {
	key   string
	refs  []string // a client_ref for each message
	acked []string // their ids, as far as the client was told
}

// client makes requests one after the other, until it is told to stop.
type client struct {
	sdk      *sdk.Client
	name     string
	rows     int // of a request; 1 = a single message
	acked    *atomic.Int64
	requests []*request
}

// run never gives up over an error: an engine that dies is what it is here for.
func (c *client) run(ctx context.Context, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		default:
		}
		r := &request{key: fmt.Sprintf("%s-%d", c.name, n)}
		for i := range c.rows {
			r.refs = append(r.refs, fmt.Sprintf("%s-%d-%d", c.name, n, i))
		}
		c.requests = append(c.requests, r)
		if ids, err := c.send(ctx, r); err == nil {
			r.acked = ids
			c.acked.Add(1)
		}
	}
}

// send makes a request, or repeats it.
func (c *client) send(ctx context.Context, r *request) ([]string, error) {
	if c.rows == 1 {
		m, err := c.sdk.Send(ctx, message(r.refs[0]), sdk.IdempotencyKey(r.key))
		if err != nil {
			return nil, err
		}
		return []string{m.ID}, nil
	}
	rows := func(yield func(sdk.Sendable) bool) {
		for _, ref := range r.refs {
			if !yield(message(ref)) {
				return
			}
		}
	}
	var ids []string
	for row, err := range c.sdk.SendAll(ctx, rows, sdk.Resume(r.key)) {
		if err != nil {
			return nil, err
		}
		if row.Error != nil {
			return nil, row.Error
		}
		ids = append(ids, row.ID)
	}
	return ids, nil
}

// counter counts the tries that got no answer.
type counter struct {
	next http.RoundTripper
	n    *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		c.n.Add(1)
	}
	return resp, err
}

// message writes to a mailbox of its own.
func message(ref string) sdk.Sendable {
	return sdk.With(sdk.Email{To: ref + "@example.com", Subject: "Hello", Text: "Hello"}, sdk.Ref(ref))
}

// TestKillDuringAccepts takes the engine away while clients hand it messages. What was acknowledged is there, and a
// repeated request never makes a second message, whether or not the first had been answered.
func TestKillDuringAccepts(t *testing.T) {
	l := newLab(t, 2*time.Minute)
	var acked, broken atomic.Int64
	clients := make([]*client, 0, 6)
	for i := range 6 {
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		c := &client{name: fmt.Sprintf("single%d", i), rows: 1, acked: &acked}
		c.sdk = sdk.New(sdk.WithURL(l.url()), sdk.WithKey(l.key),
			sdk.WithHTTPClient(&http.Client{Transport: counter{transport, &broken}}))
		if i%3 == 0 {
			c.name, c.rows = fmt.Sprintf("batch%d", i), 50
		}
		clients = append(clients, c)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() { c.run(l.ctx, stop) })
	}
	for range 10 {
		enough := acked.Load() + 1 + l.rnd.Int64N(60)
		l.until("clients are answered", time.Millisecond, func() bool { return acked.Load() >= enough })
		l.engine.kill()
		l.start()
	}
	close(stop)
	wg.Wait()

	h := History{}
	unanswered := 0
	of := map[string]string{} // client_ref → id
	for _, c := range clients {
		for _, r := range c.requests {
			again, err := c.send(l.ctx, r)
			l.NoError(err)
			l.Len(again, len(r.refs))
			if r.acked != nil {
				l.Equal(r.acked, again, "the answer to %s has changed", r.key)
			} else {
				unanswered++
			}
			h.Acked = append(h.Acked, again...)
			for i, ref := range r.refs {
				h.Asked = append(h.Asked, Address{"email", ref + "@example.com"})
				of[ref] = again[i]
			}
		}
	}
	t.Logf("%d requests were answered, %d were not, %d tries got no answer; %d messages",
		acked.Load(), unanswered, broken.Load(), len(h.Asked))
	l.NotZero(broken.Load(), "no kill met a request")
	l.until("every message is sent", 100*time.Millisecond, func() bool {
		for _, s := range []sdk.Status{sdk.Queued, sdk.Sending, sdk.Deferred, sdk.Held, sdk.Ambiguous} {
			p, err := l.client.Messages.Page(l.ctx, sdk.MessageQuery{Status: s, Limit: 1})
			if err != nil || len(p.Data) > 0 {
				return false
			}
		}
		return true
	})
	for m, err := range l.client.Messages.All(l.ctx, sdk.MessageQuery{Limit: 1000}) {
		l.NoError(err)
		l.Equal(of[m.ClientRef], m.ID, "the message of %s", m.ClientRef)
	}
	h.Messages, h.Taken = l.records(sdk.MessageQuery{}), taken(l.sim.seen())
	v := Check(h)
	l.True(v.OK(), "%s", v.Explain())
	l.Equal(len(h.Asked), v.Acknowledged)
	slices.Sort(h.Acked)
	l.Len(slices.Compact(h.Acked), len(h.Asked), "an id was given twice")
	l.audit()
}
