package delivery

import (
	"errors"
	"fmt"
	"time"
)

// Class is what a failure asks of the engine. The set is closed; each class has one row in the table of effects. The
// numbers are stored: never renumber.
type Class uint8

// The classes.
const (
	Transient     Class = 1 // may work later: SMTP 4xx, HTTP 5xx, an absent subscriber
	Throttled     Class = 2 // the provider asks us to slow down
	ConnectorDown Class = 3 // the account cannot work as it is: credentials, bind, TLS, DNS
	Rejected      Class = 4 // this message will never be taken: content, policy, size
	BadRecipient  Class = 5 // this address will never work
	Consent       Class = 6 // the person does not want to be written to
	InDoubt       Class = 7 // bytes may have left and there is no decisive answer
)

// Classes lists every class.
var Classes = []Class{Transient, Throttled, ConnectorDown, Rejected, BadRecipient, Consent, InDoubt}

func (c Class) String() string {
	switch c {
	case Transient:
		return "transient"
	case Throttled:
		return "throttled"
	case ConnectorDown:
		return "connector_down"
	case Rejected:
		return "rejected"
	case BadRecipient:
		return "bad_recipient"
	case Consent:
		return "consent"
	case InDoubt:
		return "ambiguous"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Effect is what a class does to the message, to the account and to the address.
type Effect struct {
	Status       Status // where the message goes
	BurnsAttempt bool   // counts toward a bounded number of attempts
	SlowsAccount bool   // the account's limiter waits for RetryAfter
	PausesRoute  bool   // the account takes no more messages until a probe succeeds
	Suppresses   bool   // the address joins the tenant's suppression list
}

// effects is the one table that says what each class does.
var effects = map[Class]Effect{
	Transient:     {Status: StatusDeferred, BurnsAttempt: true},
	Throttled:     {Status: StatusDeferred, SlowsAccount: true},
	ConnectorDown: {Status: StatusHeld, PausesRoute: true},
	Rejected:      {Status: StatusFailed, BurnsAttempt: true},
	BadRecipient:  {Status: StatusFailed, BurnsAttempt: true, Suppresses: true},
	Consent:       {Status: StatusSuppressed, BurnsAttempt: true, Suppresses: true},
	InDoubt:       {Status: StatusAmbiguous, BurnsAttempt: true},
}

// EffectOf returns the row of the table for c; a class that is not in the table acts as Transient.
func EffectOf(c Class) Effect {
	if e, ok := effects[c]; ok {
		return e
	}
	return effects[Transient]
}

// Failure is a classified failure of one attempt. A connector returns it for every failure whose cause it knows.
type Failure struct {
	Class      Class
	Code       string        // the provider's own code, such as ESME_RTHROTTLED, 131026 or 550 5.1.1
	Detail     string        // one line that is safe to show: no secret, no address, no content
	RetryAfter time.Duration // how long the provider asks us to wait; 0 = it did not say
	Known      bool          // the code stands in the connector's table; an unknown code gets few attempts
	Err        error         // the cause, for logs; may be nil
}

func (f *Failure) Error() string {
	s := f.Class.String()
	if f.Code != "" {
		s += " (" + f.Code + ")"
	}
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

func (f *Failure) Unwrap() error { return f.Err }

// AsFailure returns err as a Failure. An error that no connector classified is Transient and not Known.
func AsFailure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Class: Transient, Code: "unclassified", Detail: "the connector gave no class for this error", Err: err}
}
