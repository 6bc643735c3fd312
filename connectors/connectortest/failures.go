package connectortest

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// wanted is the class that each fault must lead to.
func wanted(h *Harness, f Fault) delivery.Class {
	if c, ok := h.Want[f]; ok {
		return c
	}
	switch f {
	case Throttle:
		return delivery.Throttled
	case BadLogin, Down:
		return delivery.ConnectorDown
	case Reject:
		return delivery.Rejected
	case UnknownRecipient:
		return delivery.BadRecipient
	case LostAck, Hang, Drip:
		return delivery.InDoubt
	}
	return delivery.Transient
}

// failure returns err as a classified failure that is fit to be shown.
func failure(t tb, f Fault, err error) *delivery.Failure {
	t.Helper()
	var fl *delivery.Failure
	if err == nil {
		t.Errorf("under fault %q Send reports success", f)
		return nil
	}
	if !errors.As(err, &fl) {
		t.Errorf("under fault %q the error is not a *delivery.Failure: %v", f, err)
		return nil
	}
	if fl.Code == "" {
		t.Errorf("under fault %q the failure has no code", f)
	}
	if len(fl.Detail) > 200 || strings.ContainsAny(fl.Detail, "\r\n\x00\x1b") {
		t.Errorf("under fault %q the detail is not one line of at most 200 bytes: %q", f, fl.Detail)
	}
	return fl
}

func failuresAreClassified(t tb, h *Harness) {
	defer h.Provider.Set(Accept)
	for _, f := range []Fault{Temporary, Throttle, BadLogin, Reject, UnknownRecipient, Down} {
		if !h.Provider.Set(f) {
			continue
		}
		a := open(t, h)
		if fl := failure(t, f, send(t, a, h.Message(1)).err); fl != nil {
			if want := wanted(h, f); fl.Class != want {
				t.Errorf("fault %q is %v, want %v (%v)", f, fl.Class, want, fl)
			}
			if !fl.Known {
				t.Errorf("fault %q with code %q is not marked as known", f, fl.Code)
			}
		}
		a.stop()
	}
}

func unknownCode(t tb, h *Harness) {
	set(t, h, UnknownCode)
	if fl := failure(t, UnknownCode, send(t, open(t, h), h.Message(1)).err); fl != nil {
		if fl.Class != wanted(h, UnknownCode) || fl.Known {
			t.Errorf("a code that stands in no table gives class %v, known %v", fl.Class, fl.Known)
		}
	}
}

func retryAfter(t tb, h *Harness) {
	if h.RetryAfter == 0 {
		t.Skipf("the protocol cannot ask for a wait")
	}
	set(t, h, Throttle)
	if fl := failure(t, Throttle, send(t, open(t, h), h.Message(1)).err); fl != nil && fl.RetryAfter != h.RetryAfter {
		t.Errorf("the provider asked for %v, the failure says %v", h.RetryAfter, fl.RetryAfter)
	}
}

func lostAnswer(t tb, h *Harness) {
	set(t, h, LostAck)
	a, before := open(t, h), h.Provider.Seen()
	fl := failure(t, LostAck, send(t, a, h.Message(1)).err)
	if h.Provider.Seen() == before {
		t.Fatalf("the fake saw nothing: this proves nothing")
	}
	if fl != nil && fl.Class != delivery.InDoubt {
		t.Errorf("the provider has the message and its answer was lost: %v, want %v", fl.Class, delivery.InDoubt)
	}
}

func garbage(t tb, h *Harness) {
	set(t, h, Garbage)
	fl := failure(t, Garbage, send(t, open(t, h), h.Message(1)).err)
	if fl != nil && fl.Class != delivery.InDoubt && fl.Class != delivery.Transient {
		t.Errorf("an answer that makes no sense is %v, want %v", fl.Class, delivery.InDoubt)
	}
}

func cancellation(t tb, h *Harness) { endsWithContext(t, h, Hang) }
func drip(t tb, h *Harness)         { endsWithContext(t, h, Drip) }

// endsWithContext cancels once the provider has the message: it may act on it, so only InDoubt is true; and an answer
// that says enough in its first bytes may be taken.
func endsWithContext(t tb, h *Harness, f Fault) {
	set(t, h, f)
	a, before := open(t, h), h.Provider.Seen()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch := start(ctx, a, h.Message(1))
	wait, stop := context.WithTimeout(context.Background(), h.patience())
	defer stop()
	if err := h.Provider.Arrived(wait, before+1); err != nil {
		t.Fatalf("the message never arrived: %v", err)
	}
	cancel()
	select {
	case r := <-ch:
		if r.err == nil && f == Drip {
			return
		}
		if fl := failure(t, f, r.err); fl != nil && fl.Class != delivery.InDoubt {
			t.Errorf("ended while waiting for the answer: %v, want %v", fl.Class, delivery.InDoubt)
		}
	case <-time.After(h.patience()):
		t.Fatalf("Send did not return after its context ended")
	}
}

func canceledBefore(t tb, h *Harness) {
	set(t, h, Accept)
	a, before := open(t, h), h.Provider.Seen()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := await(t, a, start(ctx, a, h.Message(1)))
	var fl *delivery.Failure
	switch {
	case r.err == nil:
		t.Errorf("Send reports success under a context that had ended")
	case errors.As(r.err, &fl) && fl.Class == delivery.InDoubt:
		t.Errorf("nothing can have left, and the failure says %v", fl.Class)
	case !errors.Is(r.err, context.Canceled):
		t.Errorf("the error does not say that the context ended: %v", r.err)
	}
	a.stop()
	if n := h.Provider.Seen() - before; n != 0 {
		t.Errorf("a context that had ended still submitted %d messages", n)
	}
}

// maxGrowth is what one endless answer may cost in bytes, the fake's own share included.
const maxGrowth = 32 << 20

func huge(t tb, h *Harness) {
	set(t, h, Huge)
	a := open(t, h)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_ = send(t, a, h.Message(1)) // success, too, when the first bytes said so
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > maxGrowth {
		t.Errorf("an endless answer cost %d MiB", grown>>20)
	}
}
