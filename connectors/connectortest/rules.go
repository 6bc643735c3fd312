package connectortest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// rules is the contract, in the order in which it is easiest to satisfy.
func rules() []rule {
	return []rule{
		{"the kind is complete and its secrets are marked", kindIsComplete},
		{"wrong settings are refused by name", settingsAreChecked},
		{"opening makes no traffic", openMakesNoTraffic},
		{"a taken message is Sent", takenIsSent},
		{"Send does not change the message", messageUnchanged},
		{"Send is safe from many goroutines", concurrentSend},
		{"Send makes one attempt and no retry", noRetry},
		{"every failure is classified", failuresAreClassified},
		{"an unknown code is transient and marked unknown", unknownCode},
		{"the wait that a provider asks for is passed on", retryAfter},
		{"a lost answer is in doubt", lostAnswer},
		{"a garbled answer is not taken for success", garbage},
		{"Send returns when its context ends and then is in doubt", cancellation},
		{"a context that ended before sends nothing", canceledBefore},
		{"a dripping answer ends with the context", drip},
		{"an endless answer is cut", huge},
		{"secrets stay out of errors and logs", noSecrets},
		{"a forged callback is refused", forgedCallbacks},
		{"a callback says the same each time it is read", callbacksAreRead},
		{"a kind that settles doubts by asking can be asked", askable},
		{"a query finds what the provider took", queryFinds},
		{"a query rules out what the provider never took", queryRulesOut},
		{"a query that cannot tell says so", queryAdmits},
		{"a query ends with its context", queryEnds},
		{"secrets stay out of what a query says", queryKeepsSecrets},
		{"Close ends every goroutine", closeEndsGoroutines},
	}
}

func kindIsComplete(t tb, h *Harness) {
	k := h.Kind
	if k.Name == "" || k.Doc == "" || k.Channel.String() == "" || k.Open == nil {
		t.Errorf("the kind needs a name, a doc, a channel and Open")
	}
	switch k.Ambiguity {
	case connectors.DedupeKey, connectors.Correlate, connectors.Query, connectors.None:
	default:
		t.Errorf("ambiguity %q is not one of the four ways", k.Ambiguity)
	}
	for _, s := range k.Settings {
		if s.Key == "" || s.Doc == "" || s.Type == "" {
			t.Errorf("setting %q needs a key, a type and a doc", s.Key)
		}
		for _, word := range []string{"secret", "password", "token", "api_key"} {
			if strings.Contains(s.Key, word) && !s.Secret {
				t.Errorf("setting %q looks like a secret and is not marked as one", s.Key)
			}
		}
		if s.Required && s.Default != "" {
			t.Errorf("setting %q is required and has a default", s.Key)
		}
	}
}

func settingsAreChecked(t tb, h *Harness) {
	without := func(key string) map[string]string {
		m := map[string]string{}
		for k, v := range h.Settings {
			if k != key {
				m[k] = v
			}
		}
		return m
	}
	var wrong *connectors.SettingError
	for _, s := range h.Kind.Settings {
		if !s.Required {
			continue
		}
		if _, err := h.Kind.Validate(without(s.Key)); !errors.As(err, &wrong) || wrong.Key != s.Key {
			t.Errorf("without %q: got %v, want a SettingError that names it", s.Key, err)
		}
	}
	with := without("")
	with["no_such_setting"] = "x"
	if _, err := h.Kind.Validate(with); !errors.As(err, &wrong) || wrong.Key != "no_such_setting" {
		t.Errorf("an unknown setting: got %v, want a SettingError that names it", err)
	}
	// Open itself must survive settings that are all empty, with an error or a connector but no panic.
	func() {
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("Open panics on empty settings: %v", p)
			}
		}()
		now := h.Now
		if now == nil {
			now = time.Now
		}
		c, err := h.Kind.Open(&connectors.Account{
			Settings: connectors.Settings{}, Now: now, Dial: h.Dial, HTTP: h.HTTP, Log: discardLog(),
		})
		if closer, ok := c.(interface{ Close() error }); ok && err == nil {
			_ = closer.Close()
		}
	}()
}

func openMakesNoTraffic(t tb, h *Harness) {
	before := h.Provider.Seen()
	open(t, h)
	if n := h.Provider.Seen() - before; n != 0 {
		t.Errorf("opening an account submitted %d messages", n)
	}
}

func takenIsSent(t tb, h *Harness) {
	set(t, h, Accept)
	a, before := open(t, h), h.Provider.Seen()
	r := send(t, a, h.Message(1))
	if r.err != nil {
		t.Fatalf("a message that the provider takes gives %v", r.err)
	}
	if h.Kind.Receipts && r.sent.ProviderID == "" {
		t.Errorf("the kind has receipts, and Sent has no provider id to find them by")
	}
	if len(r.sent.Detail) > 200 {
		t.Errorf("Sent.Detail has %d bytes, at most 200 may be shown", len(r.sent.Detail))
	}
	if n := h.Provider.Seen() - before; n != 1 {
		t.Errorf("the provider saw %d submissions of one message", n)
	}
}

func messageUnchanged(t tb, h *Harness) {
	for _, f := range []Fault{Accept, Reject} {
		if !h.Provider.Set(f) {
			continue
		}
		a := open(t, h)
		m, same := h.Message(1), h.Message(1)
		_ = send(t, a, m)
		if !reflect.DeepEqual(m, same) {
			t.Errorf("Send changed the message (fault %q)", f)
		}
	}
	h.Provider.Set(Accept)
}

func concurrentSend(t tb, h *Harness) {
	set(t, h, Accept)
	a, before := open(t, h), h.Provider.Seen()
	const n = 64
	ctx, cancel := context.WithTimeout(context.Background(), h.patience())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]int{}
	limit := h.Kind.Concurrency
	if limit <= 0 {
		limit = 16
	}
	slots := make(chan struct{}, min(limit, n))
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			sent, err := a.Send(ctx, h.Message(i+1))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("message %d: %v", i+1, err)
			}
			ids[sent.ProviderID]++
		})
	}
	wg.Wait()
	if seen := h.Provider.Seen() - before; seen != n {
		t.Errorf("%d concurrent messages became %d submissions", n, seen)
	}
	for id, times := range ids {
		if id != "" && times > 1 {
			t.Errorf("%d messages were given the same provider id", times)
		}
	}
}

func noRetry(t tb, h *Harness) {
	defer h.Provider.Set(Accept)
	for _, f := range []Fault{Temporary, Throttle, Reject, UnknownRecipient, UnknownCode, LostAck, Garbage} {
		if !h.Provider.Set(f) {
			continue
		}
		a, before := open(t, h), h.Provider.Seen()
		_ = send(t, a, h.Message(1))
		a.stop() // whatever it does in the background has ended
		if n := h.Provider.Seen() - before; n > 1 {
			t.Errorf("one Send under fault %q made %d submissions", f, n)
		}
	}
}

// canaries returns a check that none of the harness's secrets stands in a text.
func (h *Harness) canaries() func(t tb, where, text string) {
	var secrets []string
	for _, s := range h.Kind.Settings {
		if v := h.Settings[s.Key]; s.Secret && len(v) >= 8 {
			secrets = append(secrets, v)
		}
	}
	return func(t tb, where, text string) {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("a secret stands in %s", where)
			}
		}
	}
}

func noSecrets(t tb, h *Harness) {
	defer h.Provider.Set(Accept)
	canaries := h.canaries()
	check := func(where, text string) { canaries(t, where, text) }
	faults := []Fault{Accept, Temporary, Throttle, BadLogin, Reject, UnknownRecipient, UnknownCode, Down, LostAck, Garbage}
	for _, f := range faults {
		if !h.Provider.Set(f) {
			continue
		}
		a := open(t, h)
		r := send(t, a, h.Message(1))
		a.stop()
		check(fmt.Sprintf("what Send gives under fault %q", f), fmt.Sprintf("%v %+v %+v", r.err, r.err, r.sent))
		var fl *delivery.Failure
		if errors.As(r.err, &fl) {
			check(fmt.Sprintf("the failure's fields under fault %q", f), fmt.Sprintf("%+v", *fl))
		}
		check(fmt.Sprintf("the log under fault %q", f), a.log.String())
		if m := h.Message(1); m.To != "" && strings.Contains(a.log.String(), m.To) {
			t.Errorf("the recipient stands in the log under fault %q", f)
		}
	}
}

// closeEndsGoroutines opens, sends and closes, and waits for the number of goroutines to come back.
func closeEndsGoroutines(t tb, h *Harness) {
	idle := func() {
		if h.Idle != nil {
			h.Idle()
		}
	}
	set(t, h, Accept)
	open(t, h).stop()
	idle()
	before := runtime.NumGoroutine()
	for range 3 {
		a := open(t, h)
		_ = send(t, a, h.Message(1))
		a.stop()
	}
	deadline := time.After(h.patience())
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		idle()
		if runtime.NumGoroutine() <= before {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("%d goroutines before, %d after Close", before, runtime.NumGoroutine())
			return
		}
	}
}
