package connectortest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// The numbers of messages that only the rules about queries use: the fake remembers what it has taken.
const (
	unsent  = 201 // never sent
	refused = 202
	lost    = 203 // taken, and the answer lost
)

// querier opens an account whose provider can be asked, or skips the rule.
func querier(t tb, h *Harness) (*account, connectors.Querier) {
	t.Helper()
	a := open(t, h)
	q, ok := a.Connector.(connectors.Querier)
	if !ok {
		t.Skipf("the provider cannot be asked about attempts")
	}
	return a, q
}

func askable(t tb, h *Harness) {
	_, ok := open(t, h).Connector.(connectors.Querier)
	switch {
	case h.Kind.Ambiguity != connectors.Query:
		t.Skipf("doubts of this kind are not settled by asking")
	case !ok:
		t.Errorf("doubts of this kind are settled by asking, and the connector has no Query")
	}
}

// ask makes one query that must end by itself well before the safety net.
func ask(t tb, h *Harness, q connectors.Querier, m *delivery.Outgoing) (delivery.Sent, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), h.patience())
	defer cancel()
	return awaitAnswer(ctx, t, h, q, m)
}

func awaitAnswer(
	ctx context.Context, t tb, h *Harness, q connectors.Querier, m *delivery.Outgoing,
) (delivery.Sent, error) {
	t.Helper()
	now := time.Now
	if h.Now != nil {
		now = h.Now
	}
	ch := make(chan result, 1)
	go func() {
		sent, err := q.Query(ctx, connectors.Doubt{Message: m.ID, Tenant: m.Tenant, Since: now()})
		ch <- result{sent, err}
	}()
	select {
	case r := <-ch:
		return r.sent, r.err
	case <-time.After(2 * h.patience()):
		t.Fatalf("Query never returned")
		return delivery.Sent{}, nil
	}
}

// doubtful makes the provider take a message whose answer is lost.
func doubtful(t tb, h *Harness, a *account) *delivery.Outgoing {
	t.Helper()
	set(t, h, LostAck)
	m, before := h.Message(lost), h.Provider.Seen()
	if r := send(t, a, m); r.err == nil {
		t.Fatalf("the answer was to be lost, and Send reports success: this proves nothing")
	}
	if h.Provider.Seen() == before {
		t.Fatalf("the fake saw nothing: this proves nothing")
	}
	return m
}

func queryFinds(t tb, h *Harness) {
	a, q := querier(t, h)
	m := doubtful(t, h, a)
	h.Provider.Set(Accept)
	before := h.Provider.Seen()
	for range 2 { // asking changes nothing
		sent, err := ask(t, h, q, m)
		switch {
		case err != nil:
			t.Errorf("the provider has the message, and Query says %v", err)
		case h.Kind.Receipts && sent.ProviderID == "":
			t.Errorf("the kind has receipts, and the answer has no provider id to find them by")
		case len(sent.Detail) > 200:
			t.Errorf("Sent.Detail has %d bytes, at most 200 may be shown", len(sent.Detail))
		}
	}
	if n := h.Provider.Seen() - before; n != 0 {
		t.Errorf("asking made %d submissions", n)
	}
}

func queryRulesOut(t tb, h *Harness) {
	a, q := querier(t, h)
	if _, err := ask(t, h, q, h.Message(unsent)); !errors.Is(err, connectors.ErrNotTaken) {
		t.Errorf("the provider never saw the message, and Query says %v, want ErrNotTaken", err)
	}
	if h.Provider.Set(Reject) {
		m := h.Message(refused)
		_ = send(t, a, m)
		h.Provider.Set(Accept)
		if _, err := ask(t, h, q, m); !errors.Is(err, connectors.ErrNotTaken) {
			t.Errorf("the provider refused the message, and Query says %v, want ErrNotTaken", err)
		}
	}
}

// queryFaults are the ways in which a provider that is asked may fail to answer.
var queryFaults = []Fault{Temporary, Throttle, BadLogin, Down, UnknownCode, LostAck, Garbage}

func queryAdmits(t tb, h *Harness) {
	a, q := querier(t, h)
	defer h.Provider.Set(Accept)
	taken, never := doubtful(t, h, a), h.Message(unsent)
	for _, f := range queryFaults {
		if !h.Provider.Set(f) {
			continue
		}
		for what, m := range map[string]*delivery.Outgoing{"has": taken, "never saw": never} {
			_, err := ask(t, h, q, m)
			switch {
			case err == nil:
				t.Errorf("under fault %q, of a message that the provider %s, Query says Sent", f, what)
			case errors.Is(err, connectors.ErrNotTaken):
				t.Errorf("under fault %q, of a message that the provider %s, Query says ErrNotTaken", f, what)
			}
		}
	}
}

// glance is how long a query that gets no answer is left alone before its context ends.
const glance = 50 * time.Millisecond

func queryEnds(t tb, h *Harness) {
	a, q := querier(t, h)
	defer h.Provider.Set(Accept)
	m := doubtful(t, h, a)
	for _, f := range []Fault{Accept, Hang, Drip} {
		if !h.Provider.Set(f) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), glance)
		if f == Accept {
			cancel() // before it begins
		}
		_, err := awaitAnswer(ctx, t, h, q, m)
		cancel()
		switch {
		case errors.Is(err, connectors.ErrNotTaken):
			t.Errorf("a query that was cut short (fault %q) says ErrNotTaken", f)
		case err == nil && f != Drip: // an answer that says enough in its first bytes may be taken
			t.Errorf("a query that was cut short (fault %q) says Sent", f)
		}
	}
}

func queryKeepsSecrets(t tb, h *Harness) {
	a, q := querier(t, h)
	defer h.Provider.Set(Accept)
	m := doubtful(t, h, a)
	check := h.canaries()
	for _, f := range append([]Fault{Accept}, queryFaults...) {
		if !h.Provider.Set(f) {
			continue
		}
		sent, err := ask(t, h, q, m)
		check(t, fmt.Sprintf("what Query gives under fault %q", f), fmt.Sprintf("%v %+v %+v", err, err, sent))
	}
	a.stop()
	check(t, "the log of queries", a.log.String())
}
