// Package connectors is the seam between the engine and the providers of messages.
//
// A connector makes one attempt and reports what came of it. Retries, limits, deadlines, metrics, tracing and redaction
// stand around it, once, in the engine. One method is required; everything else is an optional capability, found by
// type assertion once, when an account is opened.
package connectors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Connector makes one attempt to hand one message to a provider.
//
// Send is called from many goroutines, at most Kind.Concurrency of them at once. It must not retry and must not keep or
// change m. It returns when the provider has answered decisively, when ctx ends, or when it knows that no answer will
// come. For every failure whose cause it knows it returns a *delivery.Failure; in particular it returns class InDoubt
// whenever bytes that the provider could act on may have left and no decisive answer came.
type Connector interface {
	Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error)
}

// CallbackReader is the capability of a connector whose provider reports by HTTP. ReadCallback first verifies that the
// provider sent the request (ErrForged when not), then parses it. It does no I/O and may be called concurrently.
type CallbackReader interface {
	ReadCallback(c *Callback) (Report, error)
}

// Callback is one HTTP request from a provider, its body read whole and bounded.
type Callback struct {
	Method string
	URL    string // the public URL as the provider called it, query included
	Header http.Header
	Body   []byte
	Now    time.Time
}

// Report is what a callback said.
type Report struct {
	Receipts []delivery.Receipt // Account may be left zero: the caller fills it in
	Inbound  []delivery.Inbound
	Reply    []byte   // what to answer with 200; nil = an empty body
	Unknown  []string // statuses that the connector does not know, for counting; never silently dropped
}

// Streamer is the capability of a connector that receives reports over its own session (SMPP). Stream runs until ctx
// ends, keeps the session up, reconnects with backoff, and hands every report to sink before it acknowledges it to the
// provider. The engine calls it once, right after Open.
type Streamer interface {
	Stream(ctx context.Context, sink Sink) error
}

// Readier is the capability of saying whether a Send could hand over now, or would wait first: for a session, or for room
// in its window. Ready is asked before each message, from many goroutines and with locks held: it does not wait. While it
// is false the engine begins no Send beside those that are under way, and one if there is none, which learns what there
// is to learn. More would use up their permits waiting, and come to the provider together.
type Readier interface {
	Ready() bool
}

// Sink stores reports. It returns nil once they are durable; on an error the connector must not acknowledge them. It
// may be called concurrently and keeps nothing of its arguments.
type Sink interface {
	Receipts(ctx context.Context, receipts []delivery.Receipt) error
	Inbound(ctx context.Context, inbound []delivery.Inbound) error
}

// Checker is the capability of proving that an account works without sending a message: log in, bind, ask for the
// profile. A nil error means that a Send could work now.
type Checker interface {
	Check(ctx context.Context) error
}

// Querier is the capability of asking the provider what became of an attempt without an answer; a Kind whose Ambiguity
// is Query has it. Query may be called concurrently and makes one exchange.
type Querier interface {
	// Query returns Sent when the provider has the message, ErrNotTaken when it is certain that it never took it, and any
	// other error when it cannot tell now.
	Query(ctx context.Context, d Doubt) (delivery.Sent, error)
}

// Doubt names an attempt without an answer.
type Doubt struct {
	Message delivery.MessageID
	Tenant  delivery.TenantID
	Since   time.Time // when it ended without an answer
}

// ErrNotTaken is what Query returns when the provider says that it never took the message.
var ErrNotTaken = errors.New("the provider never took the message")

// Ambiguity is how a kind settles an attempt without a decisive answer.
type Ambiguity string

// The ways to settle an ambiguous attempt.
const (
	DedupeKey Ambiguity = "dedupe_key" // the provider drops a second attempt with the same key
	Correlate Ambiguity = "correlate"  // our token comes back in receipts: wait for one before trying again
	Query     Ambiguity = "query"      // the provider can be asked
	None      Ambiguity = "none"       // nobody can know: the tenant's policy decides
)

// SettingType is the form of a setting's value.
type SettingType string

// The setting types.
const (
	Text     SettingType = "text"
	Number   SettingType = "number"
	Bool     SettingType = "bool"     // true or false
	Duration SettingType = "duration" // 30s, 2m
	URL      SettingType = "url"
)

// Setting declares one configuration key of a kind.
type Setting struct {
	Key      string
	Type     SettingType
	Doc      string // one sentence
	Default  string
	Required bool
	Secret   bool // sealed at rest, never shown again
}

// Kind is a type of connector: what it is called, what it needs and how to open an account of it. A Kind is a value;
// register it by putting it into a list.
type Kind struct {
	Name     string // such as smpp
	Channel  delivery.Channel
	Doc      string // one sentence, shown by "msgctl connector types"
	Settings []Setting
	// Ambiguity says how an attempt without an answer is settled.
	Ambiguity Ambiguity
	// ResolveWindow is how long to wait for a receipt or query before an ambiguous attempt counts as unanswered. Zero:
	// 90 s for Correlate and Query, at once for DedupeKey and None. A setting named "resolve_window" overrides it.
	ResolveWindow time.Duration
	// Concurrency bounds simultaneous Sends on one account; 0 means 16. A setting named "concurrency" overrides it.
	Concurrency int
	// SendTimeout bounds one Send; 0 means 30 s. A setting named "timeout" overrides it.
	SendTimeout time.Duration
	// Receipts reports whether the provider reports delivery after the hand-off. Without it, sent is as far as a message
	// gets and counts as its success.
	Receipts bool
	// ReceiptsByProviderID is set when receipts carry only the provider's id, so that the engine must index it.
	ReceiptsByProviderID bool
	// Peers is set when each recipient is a server of its own (webhooks): that many of them fail says nothing about the
	// account, which then never rests for it.
	Peers bool
	// Open makes a connector for one account. It checks its settings but makes no network traffic: an account opens even
	// while its provider is away. The engine calls Close, where the connector has it, when the account goes.
	Open func(a *Account) (Connector, error)
}

// Setting returns the declaration of key, if the kind has one.
func (k *Kind) Setting(key string) (Setting, bool) {
	i := slices.IndexFunc(k.Settings, func(s Setting) bool { return s.Key == key })
	if i < 0 {
		return Setting{}, false
	}
	return k.Settings[i], true
}

// Account is what a kind gets to open a connector with.
type Account struct {
	ID       delivery.AccountID
	Tenant   delivery.TenantID // the owner; delivery.Shared for an operator's account
	Name     string
	Settings Settings
	Log      *slog.Logger
	Now      func() time.Time
	// Dial is the only way out for raw connections: it refuses addresses that the egress policy forbids, after DNS.
	// A refusal has the method EgressBlocked() string, to be found with errors.As.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// HTTP is the only way out for HTTP: same policy, no redirects, no proxy from the environment. Its Timeout is unset;
	// the context of Send bounds a request.
	HTTP *http.Client
}

// Settings are an account's values by key, secrets opened. Missing keys read as the kind's default: the engine fills
// defaults in before Open, so a connector never repeats them.
type Settings map[string]string

// Text returns the value of key.
func (s Settings) Text(key string) string { return s[key] }

// Int returns the value of key as a whole number; an unreadable or missing value is 0 (Validate has refused it before).
func (s Settings) Int(key string) int {
	n, _ := strconv.Atoi(s[key])
	return n
}

// Bool returns whether the value of key is true.
func (s Settings) Bool(key string) bool { return s[key] == "true" }

// Duration returns the value of key as a duration; an unreadable or missing value is 0.
func (s Settings) Duration(key string) time.Duration {
	d, _ := time.ParseDuration(s[key])
	return d
}

// SettingError says which setting is wrong and why.
type SettingError struct {
	Key    string
	Reason string
}

func (e *SettingError) Error() string { return fmt.Sprintf("setting %q %s", e.Key, e.Reason) }

// Registry is a set of kinds by name. It is immutable after NewRegistry and safe for concurrent use.
type Registry struct{ kinds []Kind }

// NewRegistry makes a registry. It panics when two kinds share a name or a kind is incomplete: that is a mistake in the
// program, found at its first start.
func NewRegistry(kinds ...Kind) *Registry {
	for i, k := range kinds {
		if k.Name == "" || k.Channel == 0 || k.Open == nil || k.Ambiguity == "" {
			panic(fmt.Sprintf("connectors: kind %q is incomplete", k.Name))
		}
		if slices.ContainsFunc(kinds[:i], func(o Kind) bool { return o.Name == k.Name }) {
			panic(fmt.Sprintf("connectors: kind %q is listed twice", k.Name))
		}
	}
	return &Registry{kinds: slices.Clone(kinds)}
}

// Kind returns the kind called name.
func (r *Registry) Kind(name string) (*Kind, bool) {
	for i := range r.kinds {
		if r.kinds[i].Name == name {
			return &r.kinds[i], true
		}
	}
	return nil, false
}

// Kinds returns every kind, in the order of registration. The caller must not change it.
func (r *Registry) Kinds() []Kind { return r.kinds }

// ErrForged is what ReadCallback returns for a request that the provider cannot have sent: a missing or wrong signature,
// a stale timestamp. The caller answers 401 and stores nothing.
var ErrForged = errors.New("callback is not from the provider")

// ErrMalformed is what ReadCallback returns, wrapped with the reason, for a request that is signed rightly and makes no
// sense. The caller answers 400 and stores nothing.
var ErrMalformed = errors.New("callback cannot be read")
