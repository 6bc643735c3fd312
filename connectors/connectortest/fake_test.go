package connectortest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// memoryProvider is a provider without a protocol: the connector calls submit.
type memoryProvider struct {
	mu    sync.Mutex
	fault Fault
	seen  int
	taken map[delivery.MessageID]string // provider ids
	wake  chan struct{}                 // closed and replaced at each submission
}

func newMemoryProvider() *memoryProvider {
	return &memoryProvider{fault: Accept, taken: map[delivery.MessageID]string{}, wake: make(chan struct{})}
}

func (p *memoryProvider) Set(f Fault) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	return true
}

func (p *memoryProvider) Seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *memoryProvider) Arrived(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		seen, wake := p.seen, p.wake
		p.mu.Unlock()
		if seen >= n {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// submit hands a message over; it returns the fault to play and the number of the submission.
func (p *memoryProvider) submit(id delivery.MessageID) (Fault, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == Down {
		return Down, p.seen
	}
	p.seen++
	switch p.fault {
	case Accept, LostAck, Hang, Drip, Huge, Garbage:
		p.taken[id] = "id-" + strconv.Itoa(p.seen)
	}
	close(p.wake)
	p.wake = make(chan struct{})
	return p.fault, p.seen
}

// find answers a query: the fault to play, and what is known of the message.
func (p *memoryProvider) find(id delivery.MessageID) (f Fault, providerID string, taken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	providerID, taken = p.taken[id]
	return p.fault, providerID, taken
}

// bug is one way to break the contract.
type bug string

// fakeConnector keeps the contract, except for its bug.
type fakeConnector struct {
	provider *memoryProvider
	bug      bug
	acc      *connectors.Account
	secret   string
	stop     chan struct{}
	last     string // only for the bug "stateful reading"
}

func (c *fakeConnector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	if c.bug == "changes message" {
		m.To += "x"
	}
	if err := ctx.Err(); err != nil && c.bug != "ignores ended context" {
		class := delivery.Transient
		if c.bug == "always in doubt" {
			class = delivery.InDoubt
		}
		return delivery.Sent{}, &delivery.Failure{Class: class, Code: "canceled", Known: true, Err: err}
	}
	if c.bug == "logs the recipient" {
		c.acc.Log.Info("sending", "to", m.To)
	}
	if c.bug == "leaks a goroutine" {
		go func() { <-c.stop }()
	}
	f, n := c.provider.submit(m.ID)
	if c.bug == "retries" && (f == Temporary || f == LostAck) {
		f, n = c.provider.submit(m.ID)
	}
	return c.answer(ctx, f, n)
}

func (c *fakeConnector) answer(ctx context.Context, f Fault, n int) (delivery.Sent, error) {
	fail := func(class delivery.Class, code string) (delivery.Sent, error) {
		if c.bug == "secret in error" {
			code = c.secret
		}
		if c.bug == "plain errors" {
			return delivery.Sent{}, errors.New(code)
		}
		if c.bug == "everything transient" {
			class = delivery.Transient
		}
		return delivery.Sent{}, &delivery.Failure{Class: class, Code: code, Known: c.bug != "nothing known"}
	}
	switch f {
	case Temporary:
		return fail(delivery.Transient, "500")
	case Throttle:
		_, err := fail(delivery.Throttled, "429")
		var fl *delivery.Failure
		if errors.As(err, &fl) && c.bug != "no retry-after" {
			fl.RetryAfter = 7 * time.Second
		}
		return delivery.Sent{}, err
	case BadLogin, Down:
		return fail(delivery.ConnectorDown, "401")
	case Reject:
		return fail(delivery.Rejected, "400")
	case UnknownRecipient:
		return fail(delivery.BadRecipient, "404")
	case UnknownCode:
		return delivery.Sent{}, &delivery.Failure{Class: delivery.Transient, Code: "9999", Known: c.bug == "knows every code"}
	case LostAck:
		if c.bug == "lost means transient" {
			return fail(delivery.Transient, "eof")
		}
		return fail(delivery.InDoubt, "eof")
	case Garbage:
		if c.bug == "garbage is success" {
			return delivery.Sent{ProviderID: "?"}, nil
		}
		return fail(delivery.InDoubt, "garbage")
	case Hang, Drip:
		<-ctx.Done()
		if c.bug == "gives up in doubt as transient" {
			return fail(delivery.Transient, "canceled")
		}
		return fail(delivery.InDoubt, "canceled")
	case Huge:
		if c.bug == "reads everything" {
			all := make([]byte, 0, 1)
			for len(all) < 64<<20 {
				all = append(all, make([]byte, 1<<20)...)
			}
			return delivery.Sent{ProviderID: strconv.Itoa(len(all))}, nil
		}
	}
	id := "id-" + strconv.Itoa(n)
	switch c.bug {
	case "no provider id":
		id = ""
	case "mixes up answers":
		id = "id-1"
	case "long detail":
		return delivery.Sent{ProviderID: id, Detail: string(make([]byte, 300))}, nil
	}
	return delivery.Sent{ProviderID: id}, nil
}

// Query asks the provider about a message.
func (c *fakeConnector) Query(ctx context.Context, d connectors.Doubt) (delivery.Sent, error) {
	if err := ctx.Err(); err != nil {
		return delivery.Sent{}, err
	}
	if c.bug == "asks by sending" {
		c.provider.submit(d.Message)
	}
	if c.bug == "logs the secret" {
		c.acc.Log.Info("asking", "with", c.secret)
	}
	f, id, taken := c.provider.find(d.Message)
	switch f {
	case Accept:
	case Hang, Drip:
		if c.bug == "asks without end" {
			<-c.stop
		}
		<-ctx.Done()
		if c.bug == "takes an end for no" {
			return delivery.Sent{}, connectors.ErrNotTaken
		}
		return delivery.Sent{}, ctx.Err()
	default:
		switch c.bug {
		case "takes silence for no":
			return delivery.Sent{}, fmt.Errorf("%s: %w", f, connectors.ErrNotTaken)
		case "takes silence for yes":
			return delivery.Sent{ProviderID: "?"}, nil
		case "secret in a query":
			return delivery.Sent{}, errors.New("asked with " + c.secret)
		}
		return delivery.Sent{}, errors.New("the provider cannot tell: " + string(f))
	}
	switch {
	case c.bug == "finds what was refused" || c.bug == "finds no id" && taken:
		return delivery.Sent{}, nil
	case !taken && c.bug == "never rules out":
		return delivery.Sent{}, errors.New("no such message")
	case !taken || c.bug == "finds nothing":
		return delivery.Sent{}, connectors.ErrNotTaken
	}
	return delivery.Sent{ProviderID: id}, nil
}

func (c *fakeConnector) Close() error {
	if c.bug != "leaks a goroutine" {
		close(c.stop)
	}
	return nil
}

func (c *fakeConnector) ReadCallback(cb *connectors.Callback) (connectors.Report, error) {
	if c.bug != "trusts everybody" && cb.Header.Get("X-Sig") != signFake(cb.Body) {
		if c.bug == "reports forgeries" {
			return connectors.Report{Inbound: []delivery.Inbound{{}}}, connectors.ErrForged
		}
		return connectors.Report{}, connectors.ErrForged
	}
	status := delivery.StatusDelivered
	if c.bug == "misreads receipts" {
		status = delivery.StatusSent
	}
	r := connectors.Report{Receipts: []delivery.Receipt{{ProviderID: string(cb.Body), Status: status, At: cb.Now}}}
	if c.bug == "stateful reading" {
		c.last += "x"
		if len(c.last) > 1 {
			r.Receipts = nil
		}
	}
	return r, nil
}

func signFake(body []byte) string {
	mac := hmac.New(sha256.New, []byte("fake"))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// fakeHarness is a harness around a connector with one bug; no bug, no complaint.
func fakeHarness(b bug) *Harness {
	p := newMemoryProvider()
	kind := connectors.Kind{
		Name: "fake", Channel: delivery.SMS, Doc: "A fake.", Ambiguity: connectors.Query, Receipts: true,
		Settings: []connectors.Setting{
			{Key: "secret", Type: connectors.Text, Doc: "A secret.", Required: true, Secret: b != "unmarked secret"},
			{Key: "region", Type: connectors.Text, Doc: "A region.", Required: b != "forgets required", Default: ""},
		},
		Open: func(a *connectors.Account) (connectors.Connector, error) {
			if b == "panics on empty settings" && a.Settings.Text("secret") == "" {
				panic("no secret")
			}
			c := &fakeConnector{provider: p, bug: b, acc: a, secret: a.Settings.Text("secret"), stop: make(chan struct{})}
			if b == "sends at open" {
				p.submit(delivery.MessageID{})
			}
			if b == "cannot be asked" {
				return struct {
					connectors.Connector
					connectors.CallbackReader
				}{c, c}, nil
			}
			return c, nil
		},
	}
	if b == "no doc" {
		kind.Doc = ""
	}
	return &Harness{
		Kind: kind, Provider: p, Settings: map[string]string{"secret": "canary-7781-secret", "region": "eu"},
		Message: func(n int) *delivery.Outgoing {
			return &delivery.Outgoing{ID: delivery.MessageID{byte(n)}, Channel: delivery.SMS, To: fmt.Sprintf("+1202555%04d", n), Attempt: 1}
		},
		RetryAfter: 7 * time.Second,
		Callbacks: []Callback{{
			Name: "delivered",
			Request: func() *connectors.Callback {
				body := []byte("id-1")
				return &connectors.Callback{Method: http.MethodPost, Header: http.Header{"X-Sig": {signFake(body)}}, Body: body, Now: time.Unix(1, 0)}
			},
			Receipts: []delivery.Receipt{{ProviderID: "id-1", Status: delivery.StatusDelivered}},
		}},
	}
}
