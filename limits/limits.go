// Package limits decides when a message may go.
//
// A reservation covers every bound that applies to a message (tenant, channel, account) at once: either all of them
// give the permit and it is spent, or none does and the answer is the time before which asking again is useless.
package limits

import (
	"context"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Rate is a sustained rate with a burst. Over any window of w seconds at most PerSecond×w + Burst of cost passes.
type Rate struct {
	PerSecond float64 // cost per second, more than 0
	Burst     float64 // cost that may pass at once on top, at least 1
}

// Key names a bound. Zero fields mean "any": {Tenant: "acme"} bounds all of acme's traffic, {Account: x} one connector
// account for all tenants, {Tenant: "acme", Account: x} acme's part of it.
type Key struct {
	Tenant   delivery.TenantID
	Channel  delivery.Channel
	Account  delivery.AccountID
	Campaign delivery.CampaignID
}

// Bound is a key with its rate at the time of asking: a changed rate takes effect with the next reservation.
type Bound struct {
	Key  Key
	Rate Rate
}

// Decision answers a reservation.
type Decision struct {
	Go        bool
	NotBefore time.Time // when Go is false: the earliest time at which the same request could pass
	Blocking  int       // when Go is false: index of the bound that decided NotBefore; -1 = a penalty on its key
}

// Limiter grants reservations. It is safe for concurrent use.
//
// A Limiter that several processes share does not wait for the others: Reserve is called with locks held. It may refuse
// what could pass, with a NotBefore some milliseconds ahead, while it asks for more in the background; Blocking is then a
// bound that it has to ask for.
type Limiter interface {
	// Reserve takes cost from every bound, or from none. Cost is in the units of the rates: 1 for a message, the number
	// of segments for SMS. A cost above a bound's burst passes when the bound is full and is paid off before the next.
	// now is the caller's clock; a now that steps back never grants more than the rates allow.
	Reserve(ctx context.Context, now time.Time, bounds []Bound, cost float64) (Decision, error)

	// Pause refuses every reservation that names key until the given time: a provider asked us to slow down. A shorter
	// pause never cuts a longer one. It holds here at once, and at other processes that share the limits soon.
	Pause(ctx context.Context, key Key, until time.Time) error
}
