// Package store says what the engine keeps and how: every message, its state, its due time and its history.
//
// The store is the truth. It is described as small roles, so that each consumer asks for what it uses; a Store has all
// of them. Implementations live below (store/sqlite) and prove themselves with the kit in store/storetest.
//
// A method that touches one tenant's data takes the tenant; the rows of another tenant do not exist for it. A method
// that works across tenants takes a System, which a reader can grep for. All times are UTC and kept to the millisecond;
// the caller passes "now" from the one injected clock. All methods are safe for concurrent use. Writes that run at the
// same time may share a commit; a method returns only after its own writes are durable.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// System is the explicit scope of work that belongs to no tenant: claims, sweeps, migrations. The zero System is refused.
type System struct{ reason string }

// AsSystem makes a system scope; reason names the caller, such as "sweeper".
func AsSystem(reason string) System { return System{reason} }

// Reason returns what the scope was made for; "" only for the zero System.
func (s System) Reason() string { return s.reason }

// Errors that every implementation returns, possibly wrapped.
var (
	// ErrNotFound: no such row for this tenant.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("already exists")
	// ErrConflict: the row is not in the state the caller expected.
	ErrConflict = errors.New("state has changed")
	// ErrKeyReused: the idempotency key was used with another request.
	ErrKeyReused = errors.New("idempotency key was used with another request")
	// ErrUnavailable: the store cannot be written now (disk full, closed); nothing was changed.
	ErrUnavailable = errors.New("storage unavailable")
	// ErrOutcomeUnknown: the commit may or may not have happened; ask again with the same idempotency key.
	ErrOutcomeUnknown = errors.New("outcome of the commit is unknown")
	// ErrParkedFull: an account has MaxParked receipts of unknown messages. It is an ErrUnavailable: later there may be room.
	ErrParkedFull = fmt.Errorf("%w: too many receipts wait for their message", ErrUnavailable)
)

// MaxParked is how many receipts of one account may wait for their messages. A receipt overtakes its hand-off by
// moments, so a busy account has some hundreds; more are forged, or those of other programs at the same provider.
const MaxParked = 100_000

// QuotaError refuses a whole acceptance: nothing of it was stored.
type QuotaError struct {
	Limit, Used, Asked int64
	Resets             time.Time
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("daily quota of %d messages: %d used, %d asked", e.Limit, e.Used, e.Asked)
}

// Store has every role.
type Store interface {
	Accepter
	Reader
	Work
	Receipts
	Suppressions
	Campaigns
	Audiences
	Templates
	Accounts
	Tenants
	Keys
	Auditor
	DeadLetters
	// Check proves in one cheap write that the store can take an acceptance now.
	Check(ctx context.Context) error
	// Close waits for running calls, refuses new ones with ErrUnavailable and leaves a clean file. Safe twice.
	Close() error
}

// ---- accept

// Accepter makes messages durable.
type Accepter interface {
	// Accept stores all messages of a, or none, in one transaction together with the idempotency row, the quota count
	// and the facts. A message to a suppressed address is stored as suppressed. The same idempotency key with the same
	// fingerprint returns the first results with Replayed set and stores nothing; with another fingerprint it is
	// ErrKeyReused. Which request came first is decided by a unique index. Errors: *QuotaError, ErrNotFound for an
	// unknown tenant, ErrUnavailable, ErrOutcomeUnknown.
	Accept(ctx context.Context, tenant delivery.TenantID, a Acceptance) (Accepted, error)
}

// Replayer is an optional capability of a Store: it answers a repeated request that could not be accepted any more, such
// as one whose send_at has passed since. Replay returns the first results of the key with Replayed set and stores
// nothing; ErrNotFound when the key is new or has expired, ErrKeyReused as Accept.
type Replayer interface {
	Replay(ctx context.Context, tenant delivery.TenantID, key IdempotencyKey, now time.Time) (Accepted, error)
}

// Acceptance is one request to accept messages.
type Acceptance struct {
	Now      time.Time
	Key      *IdempotencyKey // nil = the request may be repeated
	Messages []NewMessage    // at least one; ids strictly increasing
}

// IdempotencyKey makes a request repeatable. Its scope is (tenant, route, key).
type IdempotencyKey struct {
	Route       string // such as "POST /v1/messages"
	Key         string // 1–255 printable ASCII characters
	Fingerprint [32]byte
	Expires     time.Time // after this the key may be used anew
}

// NewMessage is a message before it is stored.
type NewMessage struct {
	ID         delivery.MessageID
	Channel    delivery.Channel
	Lane       delivery.Lane
	To         string              // normalised
	Payload    []byte              // a delivery.Draft in JSON; opaque to the store
	Segments   int                 // SMS parts as known at accept; 1 where it is not SMS; 0 = known only after rendering
	Account    delivery.AccountID  // a pinned account; zero = routing chooses
	Campaign   delivery.CampaignID // zero = not of a campaign
	DueAt      time.Time           // later than now = stored as scheduled, else as queued
	ExpiresAt  time.Time           // no hand-off starts after this
	AtMostOnce bool                // an ambiguous attempt ends the message as unknown
	ClientRef  string              // the sender's own reference, at most 128 characters, given back in answers
	Category   string              // what it is, such as otp or marketing, for routing; at most 64 characters
	Tag        string              // the sender's own mark, for routing and lists; at most 64 characters
	// OrderingKey, when not empty, makes the messages of (tenant, channel, To, key) go one after the other, in the order
	// of acceptance: each is held until the one before it is handed off or has ended. At most 128 characters.
	OrderingKey string
	// Within and Success belong to the first leg of a message that has more of them; see NewLeg.
	Within  time.Duration
	Success delivery.Status
	Then    []NewLeg // what follows when a leg has no success, at most MaxLegs-1
}

// MaxLegs is how many legs a message may have.
const MaxLegs = 4

// NewLeg is one way to reach the person, tried after the ones before it had no success. No two legs of a message share
// a channel: a receipt finds its leg by the channel of its account.
type NewLeg struct {
	Channel  delivery.Channel
	To       string
	Payload  []byte
	Segments int
	Account  delivery.AccountID // pinned; zero = routing chooses
	// Within is how long the leg has, from the moment it begins (acceptance or send_at for the first, the switch for the
	// others). When it is over without success, the next leg begins, unless an attempt is under way or in doubt: then
	// as soon as that is settled. 0 = no time limit: only a failure begins the next leg. Ignored for the last leg. A leg
	// that was delivered makes no way any more, also when Success is Read.
	Within time.Duration
	// Success is what the leg must reach: Sent, Delivered or Read; 0 = Delivered.
	Success delivery.Status
}

// Accepted is the result of an acceptance, in the order of its messages.
type Accepted struct {
	Replayed bool
	Results  []AcceptResult
}

// AcceptResult is what became of one message at accept.
type AcceptResult struct {
	ID     delivery.MessageID
	Status delivery.Status // scheduled, queued, held (behind another message of its ordering key) or suppressed
	Reason string          // for suppressed: the suppression's reason; for held: ReasonOrdered
}

// ---- read

// Reader shows a tenant its messages.
type Reader interface {
	// Message returns one message. ErrNotFound also for another tenant's id.
	Message(ctx context.Context, tenant delivery.TenantID, id delivery.MessageID) (Message, error)
	// Messages returns a page, newest first, of what matches q.
	Messages(ctx context.Context, tenant delivery.TenantID, q MessageQuery) ([]Message, error)
	// Facts returns a message's history, oldest first.
	Facts(ctx context.Context, tenant delivery.TenantID, id delivery.MessageID) ([]delivery.Fact, error)
	// Events returns facts of all messages of the tenant with a sequence above after, oldest first. The sequence only
	// grows; it may have gaps. latest is the highest sequence there is for the tenant, even when no event is returned.
	Events(ctx context.Context, tenant delivery.TenantID, after int64, limit int) (events []Event, latest int64, err error)
	// Ahead counts the waiting messages of the same queue that are due before the message, at most max.
	Ahead(ctx context.Context, tenant delivery.TenantID, id delivery.MessageID, max int) (int, error)
	// Cancel moves a waiting message to canceled. It returns the status after the call: canceled, or the status that made
	// it too late, with ErrConflict. Canceled says that nobody has the message: one of which an attempt is in doubt, or of
	// which an earlier leg was handed off, is stopped as well, but becomes unknown or what became of that leg.
	Cancel(ctx context.Context, tenant delivery.TenantID, id delivery.MessageID, now time.Time) (delivery.Status, error)
	// Usage returns how many messages the tenant had accepted on the UTC day of now.
	Usage(ctx context.Context, tenant delivery.TenantID, now time.Time) (int64, error)
}

// Message is a stored message.
type Message struct {
	ID                delivery.MessageID
	Tenant            delivery.TenantID
	Channel           delivery.Channel
	Lane              delivery.Lane
	Status            delivery.Status
	Reason            string // why it is held, deferred, failed, suppressed …; "" when the status says it all
	Detail            string // one line, safe to show
	To                string
	Payload           []byte
	Segments          int
	Account           delivery.AccountID // pinned, or last chosen
	Campaign          delivery.CampaignID
	ProviderID        string
	ClientRef         string
	Attempts          int // attempts that count
	Epoch             int
	PossibleDuplicate bool
	AtMostOnce        bool
	Category          string
	Tag               string
	OrderingKey       string
	Dropped           bool // a dead letter that a person has put away
	AcceptedAt        time.Time
	UpdatedAt         time.Time
	DueAt             time.Time // waiting: when something happens next; sending: end of the lease; sent: end of a leg; else zero
	ExpiresAt         time.Time
	Leg               int          // the leg it is on, from 0. Channel, To, Payload, Account and ProviderID are this leg's
	Legs              []MessageLeg // all legs of a message that has more than one; only from Reader.Message
}

// MessageLeg is what became of one leg.
type MessageLeg struct {
	Channel    delivery.Channel
	To         string
	Status     delivery.Status // 0 = not begun; else where the leg itself got to, late receipts included
	Reason     string          // why it made way for the next one
	Account    delivery.AccountID
	ProviderID string
	Within     time.Duration
	Success    delivery.Status
	Until      time.Time // its deadline; zero = none, or not begun
	Winner     bool      // the first leg to reach its Success: the message counts once, by this one
}

// MessageQuery selects messages. Zero fields do not filter.
type MessageQuery struct {
	Status   delivery.Status
	Channel  delivery.Channel
	To       string
	Account  delivery.AccountID
	Campaign delivery.CampaignID
	Tag      string
	Since    time.Time          // accepted at or after
	Before   delivery.MessageID // continue below this id
	Limit    int                // 1–1,000
}

// Event is a fact with its place in the tenant's ledger.
type Event struct {
	Seq     int64
	Channel delivery.Channel
	Fact    delivery.Fact
}

// ---- work

// Work is what the pipeline does to messages, across tenants.
type Work interface {
	// Claim, Settle and Report go on with a message's next leg by themselves where the rules of NewLeg say so, and put the
	// successor of an ordered message into its queue; what becomes due by that is named in Ready.

	// DueQueues lists the queues that have a due message: status scheduled, queued, held or deferred with a due time at
	// or before now. Oldest is the due time of its first.
	DueQueues(ctx context.Context, sys System, now time.Time) ([]DueQueue, error)
	// Due lists ids of due messages of one queue, oldest due time first, at most limit, that come after the given mark.
	// The zero mark is the beginning; the returned mark continues behind the last id.
	Due(ctx context.Context, sys System, q delivery.Queue, now time.Time, after DueMark, limit int) ([]delivery.MessageID, DueMark, error)
	// Claim leases those of c.IDs that are waiting and due, in one step: status sending, epoch+1, lease until c.Until.
	// In the same transaction it ends what may not go any more: expired messages, messages to an address that has been
	// suppressed meanwhile; and holds messages of a paused campaign. These are not returned, nor are ids that somebody
	// else has, that are not due or do not exist.
	Claim(ctx context.Context, sys System, c Claim) ([]Claimed, error)
	// Settle applies outcomes, each guarded by status and epoch: it applies only to a message that is sending with that
	// epoch; or ambiguous with it, for Writer ByPlan and for a worker's decisive answer that comes after all; or sent with
	// it, for a leg that has run out of time. An outcome that comes too late changes no state and is kept as a fact. One
	// that ends as expired or canceled while the message may have been handed off ends as unknown, or as what became of
	// the leg that was.
	// Sent applies parked receipts of the same provider id in the same transaction. Results are in the order of outcomes.
	Settle(ctx context.Context, sys System, now time.Time, outcomes []Outcome) ([]Settled, error)
	// Overdue lists messages whose lease has run out, whose ambiguous attempt is due to be settled, or whose handed-off
	// leg (status sent) has run out of time, oldest first.
	// With node set it lists, instead, every message that this node has under lease, run out or not: what a restarted
	// node must settle first.
	Overdue(ctx context.Context, sys System, now time.Time, node string, limit int) ([]Overdue, error)
	// NextDue returns the earliest due time, lease end or settle time after now, or the zero time.
	NextDue(ctx context.Context, sys System, now time.Time) (time.Time, error)
	// Seen keeps the latest time that anybody has told it, and returns that: a clock that lies behind it has been set back.
	Seen(ctx context.Context, sys System, now time.Time) (time.Time, error)
	// Wake makes the messages that h names due, each at the place in its queue that its acceptance gives it. A reason that
	// only the store ends (ordered) is refused. It works in transactions of bounded size and may be called again after a
	// failure.
	Wake(ctx context.Context, sys System, now time.Time, h Held) (int, error)
}

// Held names messages that are held for Reason, which is required: of one campaign, or else of one tenant, of one account
// or of both; zero fields mean any.
type Held struct {
	Reason   string
	Tenant   delivery.TenantID
	Campaign delivery.CampaignID
	Account  delivery.AccountID
	// Limit is how many of a reason, tenant or account are woken, 1–512; 0 = all. Which they are is not said.
	Limit int
}

// DueQueue is a queue with due work.
type DueQueue struct {
	Queue  delivery.Queue
	Oldest time.Time
}

// DueMark is a place in a queue's order of due times.
type DueMark struct {
	At time.Time
	ID delivery.MessageID
}

// Claim asks for leases.
type Claim struct {
	IDs   []delivery.MessageID
	Node  string
	Now   time.Time
	Until time.Time
}

// Claimed is a message under this node's lease.
type Claimed struct {
	ID                delivery.MessageID
	Queue             delivery.Queue
	To                string
	Payload           []byte
	Segments          int
	Account           delivery.AccountID // pinned; zero = routing chooses
	Last              delivery.AccountID // of the attempt before this one; zero = none
	Category          string
	Tag               string
	Leg               int       // from 0
	LegUntil          time.Time // deadline of a leg that another one follows; zero = none
	MoreLegs          bool      // another leg follows
	Campaign          delivery.CampaignID
	Attempts          int // counted attempts of this leg before this one
	Epoch             int
	PossibleDuplicate bool
	InDoubt           bool // an attempt of this leg may have been handed over
	AtMostOnce        bool
	AcceptedAt        time.Time
	ExpiresAt         time.Time
}

// Outcome is what became of a claim.
type Outcome struct {
	ID     delivery.MessageID
	Epoch  int
	Writer delivery.Writer // BySend or ByPlan
	From   delivery.Status // what the decision was made from: it applies to no other; 0 = whatever the writer may move
	Status delivery.Status // must be a legal move for Writer
	// Account made the attempt; zero = the one before stays. With Ambiguous, zero says that nobody knows: then no account
	// is named any more, unless it is pinned.
	Account delivery.AccountID
	// ProviderID is kept with Sent. IndexProviderID makes it findable for receipts that carry nothing else.
	ProviderID      string
	IndexProviderID bool
	Reason          string    // stable word or provider code; required for every status but Sent and Queued
	Detail          string    // one line, safe to show
	Until           time.Time // required for held, deferred, ambiguous and queued: the new due time
	Attempted       bool      // an attempt was made that counts
	Duplicate       bool      // sets PossibleDuplicate for every later attempt
	Suppress        bool      // adds the address to the tenant's suppression list with Reason
	Segments        int       // 0 = leave as it is
	// NextLeg makes the message go on with its next leg, if it has one, instead of ending as Status: which is then failed,
	// suppressed, or, from a leg that was sent and ran out of time (Writer ByPlan), queued. Without a next leg a timed-out
	// leg just loses its deadline.
	NextLeg bool
	Route   string // for the fact: why the account was chosen
	Content string // for the fact: what was rendered
}

// Settled says whether an outcome was applied.
type Settled struct {
	Applied bool
	Status  delivery.Status // the message's status after the call
	Ready   []Ready         // what became due by this: a next leg, the successor of an ordered message
	// Suppressed is set when the message's address joined the suppression list by this, also by a receipt that waited.
	Suppressed bool
}

// Ready is a message that has just become due.
type Ready struct {
	ID    delivery.MessageID
	Queue delivery.Queue
}

// Overdue is a message whose lease or settle time has passed.
type Overdue struct {
	ID         delivery.MessageID
	Queue      delivery.Queue
	Status     delivery.Status // sending, ambiguous, or sent for a leg that has run out of time
	Epoch      int
	Node       string             // who has it under lease; "" = nobody
	Account    delivery.AccountID // of the last attempt that is settled or in doubt: of the one under way only where pinned
	Pinned     bool               // no other account may have made any attempt of this leg
	Attempts   int
	AtMostOnce bool
	DueAt      time.Time
	ExpiresAt  time.Time
}

// Reasons that the store itself writes.
const (
	ReasonExpired        = "expired"
	ReasonCanceled       = "canceled"
	ReasonSuppressed     = "suppressed"
	ReasonCampaignPaused = "campaign_paused"
	ReasonOrdered        = "ordered"     // held until the message before it with the same ordering key is done
	ReasonLegTimeout     = "leg_timeout" // a leg had no success in its time
	ReasonRedriven       = "redriven"    // a dead letter queued again
	ReasonOvertaken      = "overtaken"   // a leg that did not go any more: the one before it had its success after all
)

// ---- receipts

// Receipts keeps what providers report.
type Receipts interface {
	// Report stores receipts and moves the messages they belong to, by delivery.AfterReceipt, in one transaction.
	// A receipt that matches no message yet is parked until its message is settled as sent, at most keep long. Receipts
	// with Class BadRecipient or Consent add the address to the suppression list. Exact repeats change nothing and add no
	// fact. Results are in the order of receipts. When an account may park no more, those receipts alone are refused: the
	// others are stored, and the call gives ErrParkedFull so that the provider reports again.
	Report(ctx context.Context, sys System, now time.Time, keep time.Duration, receipts []delivery.Receipt) ([]Reported, error)
	// Parked counts receipts that wait for their message.
	Parked(ctx context.Context, sys System) (int, error)
	// DropParked removes receipts parked until before now and returns how many.
	DropParked(ctx context.Context, sys System, now time.Time) (int, error)
	// Unmatched lists receipts that wait for a message, of accounts that the tenant owns (delivery.Shared: the operator's),
	// in the order of (Account, ProviderID), after the given mark; the zero mark is the beginning.
	Unmatched(ctx context.Context, tenant delivery.TenantID, after UnmatchedMark, limit int) ([]Unmatched, error)
}

// Unmatched is a receipt that waits for its message.
type Unmatched struct {
	Receipt delivery.Receipt
	Since   time.Time // when it came
	Until   time.Time // when it is dropped
	Mark    UnmatchedMark
}

// UnmatchedMark is a place in the list of unmatched receipts; a store gives it a meaning.
type UnmatchedMark string

// Reported is what became of a receipt.
type Reported struct {
	Message delivery.MessageID // zero = parked
	Tenant  delivery.TenantID
	Status  delivery.Status // after the call
	Changed bool
	Ready   []Ready // as in Settled
	// Until is the deadline of a leg that the receipt has proved to be handed off, when another one follows; else zero.
	Until time.Time
}

// ---- dead letters

// DeadLetters are messages that ended without a hand-off that anybody knows of (failed, expired or unknown) and that
// nobody has put away. They stay what they are until a person decides.
type DeadLetters interface {
	// DeadLetters returns a page, newest first. Status in q, when set, is one of the three.
	DeadLetters(ctx context.Context, tenant delivery.TenantID, q DeadLetterQuery) ([]Message, error)
	// Redrive puts dead letters back into their queues, due now: the same id on the same leg, attempts counted from 0,
	// expiring at the given time; a leg begins its time anew. One that ended as unknown, or ever had an attempt in doubt,
	// is marked as a possible duplicate. One with an ordering key goes when it can: it neither waits for its line nor
	// holds it up. Results are in the order of ids; at most 1,000.
	Redrive(ctx context.Context, tenant delivery.TenantID, ids []delivery.MessageID, now, expires time.Time) ([]Redriven, error)
	// Drop puts dead letters away: they keep their status and history, and are listed no more.
	Drop(ctx context.Context, tenant delivery.TenantID, ids []delivery.MessageID, now time.Time) ([]Redriven, error)
}

// DeadLetterQuery selects dead letters. Zero fields do not filter.
type DeadLetterQuery struct {
	MessageQuery
	Reason string
}

// Redriven is what became of one id.
type Redriven struct {
	Done   bool
	Status delivery.Status // after the call; 0 = no such message
	Queue  delivery.Queue  // of a redriven message
}

// ---- suppressions

// Suppression keeps an address from being written to.
type Suppression struct {
	Channel delivery.Channel // zero = every channel
	To      string           // normalised
	Reason  string           // such as opt_out, bad_recipient, complaint, manual
	Source  string           // what caused it, such as a message id or "api"
	At      time.Time
}

// Suppressions is a tenant's list of addresses that must not be written to. It is read again in each claim.
type Suppressions interface {
	// Suppress adds or replaces entries.
	Suppress(ctx context.Context, tenant delivery.TenantID, entries []Suppression) error
	// Unsuppress removes an entry; ErrNotFound when there is none.
	Unsuppress(ctx context.Context, tenant delivery.TenantID, ch delivery.Channel, to string) error
	// Suppressed returns the entry that keeps ch from to, if any.
	Suppressed(ctx context.Context, tenant delivery.TenantID, ch delivery.Channel, to string) (Suppression, bool, error)
	// SuppressionList returns a page in order of (To, Channel), after the given address; "" is the beginning.
	SuppressionList(ctx context.Context, tenant delivery.TenantID, after string, limit int) ([]Suppression, error)
}
