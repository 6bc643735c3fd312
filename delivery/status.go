package delivery

import "fmt"

// Status is where a message is. The numbers are stored: never renumber.
type Status uint8

// Before the hand-off.
const (
	StatusScheduled Status = 1 // waits for its send_at
	StatusQueued    Status = 2 // due, waits for its turn
	StatusHeld      Status = 3 // due, but something must change first; carries a reason and the time of the next look
	StatusDeferred  Status = 4 // an attempt failed for now; carries a reason and the time of the next attempt
	StatusSending   Status = 5 // claimed by a worker under a lease
	StatusAmbiguous Status = 6 // an attempt ended without a decisive answer; carries the time at which that is settled
)

// After the hand-off.
const (
	StatusSent      Status = 10 // the provider took it
	StatusDelivered Status = 11
	StatusRead      Status = 12
)

// The ends without delivery.
const (
	StatusUndelivered Status = 20 // the provider took it and reports that it did not arrive
	StatusFailed      Status = 21 // refused for good, by a provider or by us
	StatusSuppressed  Status = 22 // the person must not be written to
	StatusExpired     Status = 23 // its time ran out before a hand-off
	StatusCanceled    Status = 24 // stopped before a hand-off
	StatusUnknown     Status = 25 // it ended without anybody knowing whether an attempt in doubt had arrived
)

// Statuses lists every status in the order of a message's life.
var Statuses = []Status{
	StatusScheduled, StatusQueued, StatusHeld, StatusDeferred, StatusSending, StatusAmbiguous, StatusSent, StatusDelivered, StatusRead,
	StatusUndelivered, StatusFailed, StatusSuppressed, StatusExpired, StatusCanceled, StatusUnknown,
}

func (s Status) String() string {
	switch s {
	case StatusScheduled:
		return "scheduled"
	case StatusQueued:
		return "queued"
	case StatusHeld:
		return "held"
	case StatusDeferred:
		return "deferred"
	case StatusSending:
		return "sending"
	case StatusAmbiguous:
		return "ambiguous"
	case StatusSent:
		return "sent"
	case StatusDelivered:
		return "delivered"
	case StatusRead:
		return "read"
	case StatusUndelivered:
		return "undelivered"
	case StatusFailed:
		return "failed"
	case StatusSuppressed:
		return "suppressed"
	case StatusExpired:
		return "expired"
	case StatusCanceled:
		return "canceled"
	case StatusUnknown:
		return "unknown"
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// ParseStatus reads a status as String writes it.
func ParseStatus(s string) (Status, error) {
	for _, st := range Statuses {
		if st.String() == s {
			return st, nil
		}
	}
	return 0, fmt.Errorf("unknown status %q", s)
}

// Waiting reports whether the engine still has something to do before the hand-off: such a message has a due time.
func (s Status) Waiting() bool { return s >= StatusScheduled && s <= StatusAmbiguous }

// Terminal reports whether nothing but a late receipt can move the message any more. StatusSent is terminal for a channel
// without receipts; whether a receipt is still hoped for is not a state.
func (s Status) Terminal() bool { return s >= StatusDelivered }

// Writer says who asks for a move. Each legal move names its one writer.
type Writer uint8

// The writers.
const (
	ByAccept   Writer = 1 // the accept transaction
	ByPlan     Writer = 2 // the plan stage and its sweeper: time has come, a lease has run out
	ByClaim    Writer = 3 // a worker taking a batch under a lease
	BySend     Writer = 4 // the same worker, with the claim's epoch: outcome of an attempt, or what was found before it
	ByReceipt  Writer = 5 // a provider's report
	ByOperator Writer = 6 // a person or a program through the API: cancel, resume
)

func (w Writer) String() string {
	switch w {
	case ByAccept:
		return "accept"
	case ByPlan:
		return "plan"
	case ByClaim:
		return "claim"
	case BySend:
		return "send"
	case ByReceipt:
		return "receipt"
	case ByOperator:
		return "operator"
	}
	return fmt.Sprintf("writer(%d)", uint8(w))
}

// moves is the one table of legal moves: from → to → writers. The zero Status is "not there yet".
var moves = map[Status]map[Status][]Writer{
	0:               {StatusScheduled: {ByAccept}, StatusQueued: {ByAccept}, StatusHeld: {ByAccept}, StatusSuppressed: {ByAccept}},
	StatusScheduled: {StatusQueued: {ByPlan}, StatusSending: {ByClaim}, StatusCanceled: {ByOperator}, StatusExpired: {ByPlan}},
	// A message that is stopped or expires after an attempt in doubt ends as unknown: canceled and expired say that nobody
	// has it. A receipt that comes while the next attempt is still to be made proves that the one in doubt arrived, or, for
	// a message with several legs, that an earlier one did. Such a message that is stopped or expires before its present
	// leg goes, after an earlier one was handed off, ends as sent: that is what is true of it.
	StatusQueued: {
		StatusSending: {ByClaim}, StatusHeld: {ByPlan, ByOperator}, StatusCanceled: {ByOperator}, StatusExpired: {ByPlan},
		StatusUnknown: {ByPlan, ByOperator}, StatusSent: {ByReceipt, ByPlan, ByOperator},
		StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt},
	},
	StatusHeld: {
		StatusQueued: {ByPlan, ByOperator}, StatusSending: {ByClaim}, StatusCanceled: {ByOperator}, StatusExpired: {ByPlan},
		StatusScheduled: {ByPlan}, // its turn in an order has come, and its own time has not
		StatusUnknown:   {ByPlan, ByOperator}, StatusSent: {ByReceipt, ByPlan, ByOperator},
		StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt},
	},
	StatusDeferred: {
		StatusQueued: {ByPlan, ByOperator}, StatusSending: {ByClaim}, StatusHeld: {ByPlan, ByOperator},
		StatusCanceled: {ByOperator}, StatusExpired: {ByPlan}, StatusUnknown: {ByPlan, ByOperator},
		StatusSent:      {ByReceipt, ByPlan, ByOperator},
		StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt},
	},
	StatusSending: {
		StatusQueued:     {BySend, ByPlan}, // returned unstarted: drain, lease run out before the first byte
		StatusHeld:       {BySend},
		StatusDeferred:   {BySend},
		StatusAmbiguous:  {BySend, ByPlan},
		StatusSent:       {BySend, ByReceipt},
		StatusFailed:     {BySend},
		StatusSuppressed: {BySend},
		StatusExpired:    {BySend},
		StatusCanceled:   {BySend}, // a cancel that came between claim and first byte
		StatusUnknown:    {BySend},
		// A receipt may overtake our own record of the answer; it proves the hand-off.
		StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt},
	},
	StatusAmbiguous: {
		// BySend: a worker whose lease had run out brings the answer after all, and nobody has claimed the message since.
		StatusSent: {BySend, ByReceipt, ByPlan}, StatusFailed: {BySend, ByPlan}, StatusDeferred: {BySend},
		StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt},
		StatusQueued: {ByPlan}, StatusHeld: {ByPlan}, StatusUnknown: {ByPlan}, StatusExpired: {ByPlan},
	},
	// A leg that has run out of time makes way for the next one: only a message with legs left goes back to queued here.
	StatusSent:      {StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt}, StatusQueued: {ByPlan}},
	StatusDelivered: {StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt}}, // e-mail only: an asynchronous bounce wins
	StatusRead:      {StatusUndelivered: {ByReceipt}},                          // e-mail only, for the same reason
	// Phone channels only: late success corrects. ByPlan begins the next leg.
	StatusUndelivered: {StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusQueued: {ByPlan}},
	StatusUnknown: {
		StatusSent: {ByReceipt}, StatusDelivered: {ByReceipt}, StatusRead: {ByReceipt}, StatusUndelivered: {ByReceipt},
		StatusQueued: {ByOperator}, // redriven by a person who accepts a possible duplicate
	},
	StatusFailed:     {StatusQueued: {ByPlan, ByOperator}}, // the next leg; a redrive
	StatusSuppressed: {StatusQueued: {ByPlan}},             // the next leg, on another channel
	StatusExpired:    {StatusQueued: {ByOperator}},         // a redrive
}

// CanMove reports whether w may move a message from one status to another.
func CanMove(from, to Status, w Writer) bool {
	for _, ok := range moves[from][to] {
		if ok == w {
			return true
		}
	}
	return false
}

// receiptRank orders what receipts may say, per channel; a receipt never moves a message down its channel's order.
// Applying a set of receipts in any order, any number of times, therefore ends in the same status.
var receiptRank = map[Channel]map[Status]int{
	SMS:      {StatusSent: 1, StatusUndelivered: 2, StatusDelivered: 3},
	WhatsApp: {StatusSent: 1, StatusUndelivered: 2, StatusDelivered: 3, StatusRead: 4},
	Email:    {StatusSent: 1, StatusDelivered: 2, StatusRead: 3, StatusUndelivered: 4},
	Webhook:  {StatusSent: 1, StatusUndelivered: 2, StatusDelivered: 3},
}

// AfterReceipt joins a message's status with what a receipt says. It returns the status to store, and whether that is a
// change. A receipt that says less than is known, or that its channel does not know, changes nothing.
func AfterReceipt(ch Channel, have, says Status) (Status, bool) {
	rank := receiptRank[ch]
	to, known := rank[says]
	if !known {
		return have, false
	}
	from, ranked := rank[have]
	switch {
	case ranked && to > from:
		return says, true
	case ranked:
		return have, false
	}
	switch have { // before a hand-off that we know of: the receipt proves it
	case StatusQueued, StatusHeld, StatusDeferred, StatusSending, StatusAmbiguous, StatusUnknown:
		return says, true
	}
	return have, false
}
