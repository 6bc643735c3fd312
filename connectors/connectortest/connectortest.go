// Package connectortest is the conformance kit for connectors: a subtest for each sentence of the contract.
//
// A connector's own test makes a Harness around a fake of its provider and calls Run. The kit knows nothing of
// protocols: it asks the fake to misbehave in one of the ways of the list of faults, sends, and looks at what the
// connector says. It uses the standard library only.
package connectortest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// Fault is how the fake provider meets submissions from now on.
type Fault string

// The faults. A fake need not know all of them: the kit skips what Provider.Set refuses.
const (
	Accept           Fault = "accept"            // take it and say so
	Temporary        Fault = "temporary"         // refuse for now
	Throttle         Fault = "throttle"          // ask to slow down, for Harness.RetryAfter where the protocol can say so
	BadLogin         Fault = "bad_login"         // refuse the credentials
	Reject           Fault = "reject"            // refuse this message for good: content, policy
	UnknownRecipient Fault = "unknown_recipient" // refuse the address for good
	UnknownCode      Fault = "unknown_code"      // refuse with a code that stands in no table
	Down             Fault = "down"              // not reachable: nothing can be sent
	LostAck          Fault = "lost_ack"          // take it and drop the connection without an answer
	Hang             Fault = "hang"              // take it and never answer
	Drip             Fault = "drip"              // take it and answer one byte at a time, for ever
	Huge             Fault = "huge"              // take it and answer without end, as fast as the connector reads
	Garbage          Fault = "garbage"           // take it and answer what is no answer in this protocol
)

// Provider is a fake provider under the kit's control.
type Provider interface {
	// Set chooses what happens to submissions from now on, and to queries, where the protocol has them (Accept: they are
	// answered truly); false when this fake or protocol has no such fault. What was taken before stays taken.
	Set(f Fault) bool
	// Seen counts the submissions that arrived whole, whatever was answered.
	Seen() int
	// Arrived blocks until Seen is at least n or ctx ends.
	Arrived(ctx context.Context, n int) error
}

// Harness is what a connector's test supplies.
type Harness struct {
	Kind     connectors.Kind
	Provider Provider
	// Settings open an account at the provider. The values of secret settings must be unlike anything else: the kit looks
	// for them in errors and logs.
	Settings map[string]string
	// Message makes the nth valid message, n from 1 to 255; each n has an id of its own. Recipients may repeat.
	Message func(n int) *delivery.Outgoing
	// Dial and HTTP are given to the account. HTTP may be nil for a connector that speaks no HTTP, Dial for one that does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	HTTP *http.Client
	// Now is the account's clock; nil means the wall clock.
	Now func() time.Time
	// RetryAfter is how long the fake asks to wait under Throttle; 0 when the protocol cannot say.
	RetryAfter time.Duration
	// Want overrides the class that a fault must lead to, where the protocol has good reason.
	Want map[Fault]delivery.Class
	// Callbacks are requests that the provider could send; empty without the CallbackReader capability.
	Callbacks []Callback
	// Patience is how long anything may take that should take no time; 0 means 20 s. It is a safety net against hanging
	// for ever, and no measurement.
	Patience time.Duration
	// Idle is called before goroutines are counted: close idle connections of HTTP, end sessions of the fake.
	Idle func()
}

// Callback is one rightly signed request and what it says.
type Callback struct {
	Name     string
	Request  func() *connectors.Callback // a fresh copy each time
	Receipts []delivery.Receipt          // Message, ProviderID, Status and Class are compared
	Inbound  int
	Unknown  int
	Reply    string
}

// Run checks a connector against the contract, one subtest per sentence.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, r := range rules() {
		t.Run(r.sentence, func(t *testing.T) { r.check(t, &h) })
	}
}

// tb is the part of testing.TB that rules use, so that the kit's own test can watch a rule fail.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(f func())
}

// rule is one sentence of the contract and its proof.
type rule struct {
	sentence string
	check    func(t tb, h *Harness)
}

func (h *Harness) patience() time.Duration {
	if h.Patience > 0 {
		return h.Patience
	}
	return 20 * time.Second
}

// account is an opened account with what it logged.
type account struct {
	connectors.Connector
	log      *logBuffer
	patience time.Duration
	stop     func()
}

// open opens an account and, for a Streamer, runs its stream as the engine does.
func open(t tb, h *Harness) *account {
	t.Helper()
	settings, err := h.Kind.Validate(h.Settings)
	if err != nil {
		t.Fatalf("the harness's settings are refused: %v", err)
	}
	a := &account{log: &logBuffer{}, patience: h.patience()}
	acc := &connectors.Account{
		ID: delivery.AccountID{1}, Tenant: "acme", Name: "conformance", Settings: settings,
		Log: slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: h.Now, Dial: h.Dial, HTTP: h.HTTP,
	}
	if acc.Now == nil {
		acc.Now = time.Now
	}
	if acc.Dial == nil {
		var d net.Dialer
		acc.Dial = d.DialContext
	}
	a.Connector, err = h.Kind.Open(acc)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	a.stop = func() {}
	if s, ok := a.Connector.(connectors.Streamer); ok {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Stream(ctx, discard{}) }()
		a.stop = func() {
			cancel()
			select {
			case <-done:
			case <-time.After(h.patience()):
				t.Errorf("Stream did not return after its context ended")
			}
		}
	}
	closed := false
	stop := a.stop
	a.stop = func() {
		if closed {
			return
		}
		closed = true
		stop()
		if c, ok := a.Connector.(interface{ Close() error }); ok {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	}
	t.Cleanup(a.stop)
	return a
}

// discard takes every report.
type discard struct{}

func (discard) Receipts(context.Context, []delivery.Receipt) error { return nil }
func (discard) Inbound(context.Context, []delivery.Inbound) error  { return nil }

// set asks the fake for a fault, or skips the rule.
func set(t tb, h *Harness, f Fault) {
	t.Helper()
	if !h.Provider.Set(f) {
		t.Skipf("the fake provider has no fault %q", f)
	}
	t.Cleanup(func() { h.Provider.Set(Accept) })
}

// result is what one Send gave.
type result struct {
	sent delivery.Sent
	err  error
}

// send makes one attempt that must end by itself well before the safety net.
func send(t tb, a *account, m *delivery.Outgoing) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), a.patience)
	defer cancel()
	return await(t, a, start(ctx, a, m))
}

func start(ctx context.Context, a *account, m *delivery.Outgoing) <-chan result {
	ch := make(chan result, 1)
	go func() {
		sent, err := a.Send(ctx, m)
		ch <- result{sent, err}
	}()
	return ch
}

func await(t tb, a *account, ch <-chan result) result {
	t.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(2 * a.patience):
		t.Fatalf("Send never returned")
		return result{}
	}
}
