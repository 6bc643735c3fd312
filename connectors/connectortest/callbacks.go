package connectortest

import (
	"errors"
	"net/http"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

func reader(t tb, h *Harness) connectors.CallbackReader {
	t.Helper()
	r, ok := open(t, h).Connector.(connectors.CallbackReader)
	switch {
	case !ok && len(h.Callbacks) > 0:
		t.Fatalf("the harness has callbacks and the connector reads none")
	case !ok:
		t.Skipf("the connector reads no callbacks")
	case len(h.Callbacks) == 0:
		t.Fatalf("the connector reads callbacks and the harness has none to try")
	}
	return r
}

// forgedCallbacks changes rightly signed requests in every way in which they must not be taken any more.
func forgedCallbacks(t tb, h *Harness) {
	r := reader(t, h)
	for _, c := range h.Callbacks {
		try := func(what string, change func(cb *connectors.Callback)) {
			cb := c.Request()
			change(cb)
			rep, err := r.ReadCallback(cb)
			if !errors.Is(err, connectors.ErrForged) {
				t.Errorf("%s, %s: got %v, want ErrForged", c.Name, what, err)
			}
			if len(rep.Receipts)+len(rep.Inbound) > 0 {
				t.Errorf("%s, %s: a refused callback still reports something", c.Name, what)
			}
		}
		cb := c.Request()
		if cb.Method == http.MethodGet {
			try("no query", func(cb *connectors.Callback) { cb.URL = "https://example.com/" })
			continue
		}
		try("no headers", func(cb *connectors.Callback) { cb.Header = http.Header{} })
		try("empty body", func(cb *connectors.Callback) { cb.Body = nil })
		try("a longer body", func(cb *connectors.Callback) { cb.Body = append(cb.Body, ' ') })
		try("a shorter body", func(cb *connectors.Callback) { cb.Body = cb.Body[:len(cb.Body)-1] })
		step := max(1, len(cb.Body)/257)
		for i := 0; i < len(cb.Body); i += step {
			try("a flipped bit", func(cb *connectors.Callback) { cb.Body[i] ^= 1 << (i % 8) })
		}
	}
}

func callbacksAreRead(t tb, h *Harness) {
	r := reader(t, h)
	for _, c := range h.Callbacks {
		for range 2 { // the second time as well: reading keeps nothing
			rep, err := r.ReadCallback(c.Request())
			if err != nil {
				t.Errorf("%s: %v", c.Name, err)
				break
			}
			if !sameReceipts(rep.Receipts, c.Receipts) {
				t.Errorf("%s: receipts\n%+v\nwant\n%+v", c.Name, rep.Receipts, c.Receipts)
			}
			if len(rep.Inbound) != c.Inbound || len(rep.Unknown) != c.Unknown || string(rep.Reply) != c.Reply {
				t.Errorf("%s: %d inbound, %d unknown, reply %q; want %d, %d, %q",
					c.Name, len(rep.Inbound), len(rep.Unknown), rep.Reply, c.Inbound, c.Unknown, c.Reply)
			}
			for _, rc := range rep.Receipts {
				if rc.At.IsZero() {
					t.Errorf("%s: a receipt has no time", c.Name)
				}
			}
		}
	}
}

func sameReceipts(got, want []delivery.Receipt) bool {
	if len(got) != len(want) {
		return false
	}
	for i, g := range got {
		w := want[i]
		if g.Message != w.Message || g.ProviderID != w.ProviderID || g.Status != w.Status || g.Class != w.Class {
			return false
		}
	}
	return true
}
