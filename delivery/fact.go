package delivery

import "time"

// FactKind says what a fact reports. The numbers are stored: never renumber.
type FactKind uint8

// The kinds of facts, in the order in which a message usually meets them.
const (
	FactAccepted   FactKind = 1  // made durable; Code = the status it was given
	FactHeld       FactKind = 2  // may not go yet; Code = reason, Until = next look
	FactClaimed    FactKind = 3  // leased; Code = node, Epoch = fencing token, Until = end of the lease
	FactSent       FactKind = 4  // taken by the provider; Account, Code = provider id
	FactDeferred   FactKind = 5  // failed for now; Code, Detail = why, Until = next attempt
	FactAmbiguous  FactKind = 6  // no decisive answer; Until = when it is settled
	FactEnded      FactKind = 7  // failed, suppressed, expired, canceled or unknown; Code, Detail = why
	FactReceipt    FactKind = 8  // a provider's report; Status = what it says
	FactReturned   FactKind = 9  // back in the queue without an attempt; Code = why
	FactLate       FactKind = 10 // an outcome that came after its claim had been taken over; kept, not applied
	FactRedelivery FactKind = 11 // queued again after an ambiguous attempt: a possible duplicate
	FactFallback   FactKind = 12 // the next leg begins; Code = why, Leg = its number, Until = its deadline
	FactRedriven   FactKind = 13 // a dead letter queued again by a person; Until = its new expiry
	FactDropped    FactKind = 14 // a dead letter that a person has put away; its status stays
)

var factNames = map[FactKind]string{
	FactAccepted: "accepted", FactHeld: "held", FactClaimed: "claimed", FactSent: "sent", FactDeferred: "deferred",
	FactAmbiguous: "ambiguous", FactEnded: "ended", FactReceipt: "receipt", FactReturned: "returned", FactLate: "late",
	FactRedelivery: "redelivery", FactFallback: "fallback", FactRedriven: "redriven", FactDropped: "dropped",
}

func (k FactKind) String() string { return factNames[k] }

// Fact is one line of a message's history. Facts are only ever added.
type Fact struct {
	Message MessageID
	Kind    FactKind
	At      time.Time // to the millisecond
	Status  Status    // the message's status after the fact
	Attempt int       // number of the attempt it belongs to; 0 = none
	Epoch   int       // the claim's fencing token; 0 = none
	Account AccountID // the connector account, where one was chosen
	Code    string    // a stable word: reason, provider code or provider id
	Detail  string    // one line, safe to show
	Until   time.Time // when something happens next; zero = never
	Route   string    // why this account was chosen, such as "rule 2: +91"; "" = not chosen by this fact
	Content string    // what was rendered, such as "otp v3"; "" = literal content, or nothing was rendered
	Leg     int       // the leg it belongs to, from 1 for the first fallback; 0 = the first leg
}

// Standing is what the running pipeline knows about a queue's head beyond what is stored: why nothing of it goes now.
type Standing struct {
	Reason    string    // such as rate_limited or connector_paused; "" = nothing stands in the way
	Until     time.Time // when that ends; zero = not by itself
	Account   string    // the connector account it is about, "" = none
	PerSecond float64   // the rate that holds it back, 0 = none
}
