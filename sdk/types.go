package sdk

import (
	"encoding/json"
	"time"
)

// Channel is a way to reach a person or a program.
type Channel string

// The channels.
const (
	ChannelSMS      Channel = "sms"
	ChannelWhatsApp Channel = "whatsapp"
	ChannelEmail    Channel = "email"
	ChannelWebhook  Channel = "webhook"
)

// Status is where a message is; docs/overview.md shows what leads where.
type Status string

// The statuses, in the order of a message's life.
const (
	Scheduled   Status = "scheduled"   // waits for its send_at
	Queued      Status = "queued"      // due, waits for its turn
	Held        Status = "held"        // due, but something must change first; see Reason and DueAt
	Deferred    Status = "deferred"    // an attempt failed for now; see Reason and DueAt
	Sending     Status = "sending"     // a worker has it
	Ambiguous   Status = "ambiguous"   // an attempt ended without a decisive answer
	Sent        Status = "sent"        // the provider took it
	Delivered   Status = "delivered"   // the provider reports that it arrived
	Read        Status = "read"        // the provider reports that it was read
	Undelivered Status = "undelivered" // the provider reports that it did not arrive
	Failed      Status = "failed"      // refused for good
	Suppressed  Status = "suppressed"  // the person must not be written to
	Expired     Status = "expired"     // its time ran out before a hand-off
	Canceled    Status = "canceled"    // stopped before a hand-off
	Unknown     Status = "unknown"     // at most once, and the one attempt has no decisive answer
)

// Waiting reports whether the engine still has something to do before the hand-off.
func (s Status) Waiting() bool {
	switch s {
	case Scheduled, Queued, Held, Deferred, Sending, Ambiguous:
		return true
	}
	return false
}

// Final reports whether nothing but a late receipt can move the message any more. Sent is not final: a receipt may
// follow where the channel has receipts.
func (s Status) Final() bool { return !s.Waiting() && s != Sent }

// Lane says how urgent a message is.
type Lane string

// The lanes.
const (
	Urgent Lane = "urgent"
	Normal Lane = "normal"
	Bulk   Lane = "bulk"
)

// Vars are a template's variables.
type Vars map[string]any

// Header is one e-mail header field.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Approved names a message template that WhatsApp has approved.
type Approved struct {
	Name     string   `json:"name"`
	Language string   `json:"language"`
	Params   []string `json:"params,omitempty"`
}

// MessageRequest is the body of POST /v1/messages and one line of POST /v1/messages/batch. Most programs use the typed
// forms SMS, WhatsApp, Email, Hook and Template instead.
type MessageRequest struct {
	Channel Channel  `json:"channel"`
	To      string   `json:"to"`                 // E.164 phone number, mailbox or https URL
	From    string   `json:"from,omitempty"`     // empty = the connector's own sender
	Text    string   `json:"text,omitempty"`     // SMS, WhatsApp, e-mail
	Subject string   `json:"subject,omitempty"`  // e-mail
	HTML    string   `json:"html,omitempty"`     // e-mail
	ReplyTo string   `json:"reply_to,omitempty"` // e-mail
	Headers []Header `json:"headers,omitempty"`  // e-mail: X-… and a short allow-list
	// UnsubscribeURL adds the one-click unsubscribe headers of RFC 8058 to an e-mail.
	UnsubscribeURL string          `json:"unsubscribe_url,omitempty"`
	Approved       *Approved       `json:"approved,omitempty"` // WhatsApp
	Event          string          `json:"event,omitempty"`    // webhook: event type such as order.paid
	Data           json.RawMessage `json:"data,omitempty"`     // webhook: any JSON
	Template       string          `json:"template,omitempty"` // instead of content: a stored template
	Vars           Vars            `json:"vars,omitempty"`
	Lane           Lane            `json:"lane,omitempty"`       // default normal
	SendAt         string          `json:"send_at,omitempty"`    // RFC 3339 with zone; or a local time with Zone
	Zone           string          `json:"zone,omitempty"`       // IANA zone for a SendAt without one
	ExpiresAt      string          `json:"expires_at,omitempty"` // RFC 3339; default 24 h after send_at
	TTL            string          `json:"ttl,omitempty"`        // duration instead of ExpiresAt, such as "10m"
	Connector      string          `json:"connector,omitempty"`  // a connector's name; empty = routing chooses
	Delivery       string          `json:"delivery,omitempty"`   // at_least_once (default) or at_most_once
	ClientRef      string          `json:"client_ref,omitempty"` // your own reference, at most 128 characters
	Category       string          `json:"category,omitempty"`   // what it is, such as otp or marketing; routing rules may ask for it
	Tag            string          `json:"tag,omitempty"`        // your own mark, for routing rules and lists
	// OrderingKey makes messages to the same recipient with the same key go one after the other, in the order in which
	// they were accepted.
	OrderingKey string `json:"ordering_key,omitempty"`
	// Within and Until belong to a message with a Fallback: how long this first way has to reach that status. Default:
	// no time limit (only a failure goes on), and delivered (for e-mail and webhooks sent).
	Within   string `json:"within,omitempty"` // duration, such as "5m"
	Until    Status `json:"until,omitempty"`  // sent, delivered or read
	Fallback []Leg  `json:"fallback,omitempty"`
}

// Leg is one more way to reach the same person, on another channel, tried when the ways before it had no success. The
// message stays one message: it has one id, one history, and counts once.
type Leg struct {
	Channel        Channel         `json:"channel"`
	To             string          `json:"to"`
	From           string          `json:"from,omitempty"`
	Text           string          `json:"text,omitempty"`
	Subject        string          `json:"subject,omitempty"`
	HTML           string          `json:"html,omitempty"`
	ReplyTo        string          `json:"reply_to,omitempty"`
	Headers        []Header        `json:"headers,omitempty"`
	UnsubscribeURL string          `json:"unsubscribe_url,omitempty"`
	Approved       *Approved       `json:"approved,omitempty"`
	Event          string          `json:"event,omitempty"`
	Data           json.RawMessage `json:"data,omitempty"`
	Template       string          `json:"template,omitempty"`
	Vars           Vars            `json:"vars,omitempty"`
	Connector      string          `json:"connector,omitempty"`
	Within         string          `json:"within,omitempty"` // how long it has; the last leg has the rest of the message's time
	Until          Status          `json:"until,omitempty"`
}

// Message is a message as the API shows it.
type Message struct {
	ID                string     `json:"id"`
	Channel           Channel    `json:"channel"`
	Lane              Lane       `json:"lane,omitempty"`
	Status            Status     `json:"status"`
	Reason            string     `json:"reason,omitempty"`
	Detail            string     `json:"detail,omitempty"`
	To                string     `json:"to,omitempty"`
	Template          string     `json:"template,omitempty"`
	TemplateVersion   int        `json:"template_version,omitempty"`
	Segments          int        `json:"segments,omitempty"`
	Connector         string     `json:"connector,omitempty"`
	Campaign          string     `json:"campaign,omitempty"`
	ProviderID        string     `json:"provider_id,omitempty"`
	ClientRef         string     `json:"client_ref,omitempty"`
	Category          string     `json:"category,omitempty"`
	Tag               string     `json:"tag,omitempty"`
	OrderingKey       string     `json:"ordering_key,omitempty"`
	Leg               int        `json:"leg,omitempty"`     // which way it is on, from 0
	Legs              []LegState `json:"legs,omitempty"`    // of a message with a fallback
	Dropped           bool       `json:"dropped,omitempty"` // a dead letter that was put away
	Attempts          int        `json:"attempts,omitempty"`
	PossibleDuplicate bool       `json:"possible_duplicate,omitempty"`
	AcceptedAt        *time.Time `json:"accepted_at,omitempty"`
	UpdatedAt         *time.Time `json:"updated_at,omitempty"`
	DueAt             *time.Time `json:"due_at,omitempty"` // when something happens next
	ExpiresAt         *time.Time `json:"expires_at,omitempty"`
}

// LegState is what became of one way to reach the person.
type LegState struct {
	Channel    Channel    `json:"channel"`
	To         string     `json:"to"`
	Status     Status     `json:"status,omitempty"` // empty = not begun
	Reason     string     `json:"reason,omitempty"` // why it made way for the next
	Connector  string     `json:"connector,omitempty"`
	ProviderID string     `json:"provider_id,omitempty"`
	Within     string     `json:"within,omitempty"`
	Until      Status     `json:"until,omitempty"`    // what it must reach
	Deadline   *time.Time `json:"deadline,omitempty"` // by when
	Winner     bool       `json:"winner,omitempty"`   // the first to reach it: the message counts by this one
}

// BatchRow is one line of the answer to POST /v1/messages/batch, in the order of the request's lines.
type BatchRow struct {
	Row       int    `json:"row"` // from 1
	ID        string `json:"id,omitempty"`
	Status    Status `json:"status,omitempty"`
	Reason    string `json:"reason,omitempty"`
	ClientRef string `json:"client_ref,omitempty"`
	Error     *Error `json:"error,omitempty"` // this row was refused; the others were not
}

// Fact is one line of a message's history.
type Fact struct {
	At        time.Time  `json:"at"`
	Kind      string     `json:"kind"` // accepted, held, claimed, sent, deferred, ambiguous, ended, receipt, returned, late, redelivery, fallback, redriven, dropped
	Status    Status     `json:"status"`
	Attempt   int        `json:"attempt,omitempty"`
	Connector string     `json:"connector,omitempty"`
	Code      string     `json:"code,omitempty"`
	Detail    string     `json:"detail,omitempty"`
	Route     string     `json:"route,omitempty"`   // why this connector
	Content   string     `json:"content,omitempty"` // what was rendered, such as "otp v3"
	Leg       int        `json:"leg,omitempty"`     // of a message with a fallback, from 0
	Until     *time.Time `json:"until,omitempty"`
}

// Explanation says why a message is where it is, since when, until when, and what would change that.
type Explanation struct {
	ID          string     `json:"id"`
	Status      Status     `json:"status"`
	Reason      string     `json:"reason,omitempty"`
	Summary     string     `json:"summary"` // one sentence for a person
	Since       *time.Time `json:"since,omitempty"`
	Until       *time.Time `json:"until,omitempty"`
	Ahead       int        `json:"ahead,omitempty"` // messages of the same queue that go first, counted up to 10,000
	WouldChange []string   `json:"would_change,omitempty"`
}

// Event is a fact in a tenant's stream.
type Event struct {
	Seq     int64   `json:"seq"`  // continue a stream after this
	Type    string  `json:"type"` // message.<status>
	Message string  `json:"message"`
	Channel Channel `json:"channel"`
	Fact    Fact    `json:"fact"`
}

// Page is one page of a list.
type Page[T any] struct {
	Data       []T    `json:"data"`
	NextCursor string `json:"next_cursor,omitempty"`
	HasMore    bool   `json:"has_more"`
}

// CampaignLeg is what a campaign sends on one channel.
type CampaignLeg struct {
	Channel   Channel `json:"channel"`
	Template  string  `json:"template"`
	Version   int     `json:"version,omitempty"` // pinned at start
	Connector string  `json:"connector,omitempty"`
}

// CampaignRequest is the body of POST /v1/campaigns.
type CampaignRequest struct {
	Name      string        `json:"name"`
	Audience  string        `json:"audience"`
	Templates []string      `json:"templates,omitempty"` // one per channel; short form of Legs
	Legs      []CampaignLeg `json:"legs,omitempty"`
	Rate      float64       `json:"rate,omitempty"` // messages per second at most
	TTL       string        `json:"ttl,omitempty"`  // how long a message may wait; default 24h
}

// Campaign is a campaign as the API shows it.
type Campaign struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	State     string         `json:"state"` // draft, running, paused, completed, stopped
	Audience  string         `json:"audience"`
	Legs      []CampaignLeg  `json:"legs"`
	Rate      float64        `json:"rate,omitempty"`
	TTL       string         `json:"ttl,omitempty"`
	People    int            `json:"people,omitempty"`
	Expanded  int            `json:"expanded"`
	Skipped   map[string]int `json:"skipped,omitempty"`
	CreatedAt *time.Time     `json:"created_at,omitempty"`
	StartedAt *time.Time     `json:"started_at,omitempty"`
	EndedAt   *time.Time     `json:"ended_at,omitempty"`
	Actions   []string       `json:"actions,omitempty"` // what can be done now
}

// CampaignCheck is the result of a dry run: nothing was sent.
type CampaignCheck struct {
	People     int               `json:"people"`   // who would get a message
	Segments   int               `json:"segments"` // SMS parts
	ByChannel  map[Channel]Count `json:"by_channel"`
	Skipped    map[string]int    `json:"skipped,omitempty"` // reason → people who would get nothing
	Missing    []MissingVariable `json:"missing,omitempty"`
	UCS2       int               `json:"ucs2,omitempty"` // SMS that need UCS-2
	UCS2Sample string            `json:"ucs2_sample,omitempty"`
	Seconds    float64           `json:"seconds"`            // estimated, at the limits in force now
	Problems   []string          `json:"problems,omitempty"` // each of them keeps the campaign from starting
}

// Count is a number of people and the segments they need.
type Count struct {
	People   int `json:"people"`
	Segments int `json:"segments"`
}

// MissingVariable is a template variable that some people lack.
type MissingVariable struct {
	Template string   `json:"template"`
	Variable string   `json:"variable"`
	People   int      `json:"people"`
	Examples []string `json:"examples,omitempty"` // at most five addresses
}

// CampaignReport adds up: People = Accepted + sum(Skipped) + ToExpand, and Accepted = the sum of ByStatus.
type CampaignReport struct {
	Campaign string `json:"campaign"`
	State    string `json:"state"`
	People   int    `json:"people"`
	Accepted int    `json:"accepted"`
	ToExpand int    `json:"to_expand"`
	Waiting  int    `json:"waiting"` // of ByStatus, those before their hand-off
	// AwaitingReceipt counts messages that their provider took and will still report on: sent, on a channel with receipts.
	AwaitingReceipt int                        `json:"awaiting_receipt"`
	Skipped         map[string]int             `json:"skipped,omitempty"`
	ByStatus        map[Status]int             `json:"by_status"`
	ByChannel       map[Channel]map[Status]int `json:"by_channel"`
	StartedAt       *time.Time                 `json:"started_at,omitempty"`
	EndedAt         *time.Time                 `json:"ended_at,omitempty"`
}

// Audience is a set of people.
type Audience struct {
	Name      string            `json:"name"`
	Ready     bool              `json:"ready"` // its import has ended
	Rows      int               `json:"rows"`
	People    int               `json:"people"`
	LeftOut   map[string]int    `json:"left_out,omitempty"` // reason → rows
	Columns   []string          `json:"columns,omitempty"`
	Mapping   map[string]string `json:"mapping,omitempty"`  // phone, email, url, channel → the column used
	Rejected  bool              `json:"rejected,omitempty"` // rejected rows can be read at /v1/audiences/{name}/rejected
	First     string            `json:"first,omitempty"`    // the first rejection, for a person
	CreatedAt *time.Time        `json:"created_at,omitempty"`
}

// TemplateRequest is the body of PUT /v1/templates/{name}: it makes the next version.
type TemplateRequest struct {
	Channel  Channel   `json:"channel"`
	Text     string    `json:"text,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	HTML     string    `json:"html,omitempty"`
	Approved *Approved `json:"approved,omitempty"` // WhatsApp; Params are Liquid texts
	Event    string    `json:"event,omitempty"`
	Data     string    `json:"data,omitempty"` // webhook: Liquid text that renders to JSON
}

// StoredTemplate is a version of a template as the API shows it.
type StoredTemplate struct {
	Name      string     `json:"name"`
	Version   int        `json:"version"`
	Channel   Channel    `json:"channel"`
	Text      string     `json:"text,omitempty"`
	Subject   string     `json:"subject,omitempty"`
	HTML      string     `json:"html,omitempty"`
	Approved  *Approved  `json:"approved,omitempty"`
	Event     string     `json:"event,omitempty"`
	Data      string     `json:"data,omitempty"`
	Variables []Variable `json:"variables,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
}

// Variable is a name that a template uses.
type Variable struct {
	Name     string `json:"name"`
	Optional bool   `json:"optional,omitempty"` // it has a default or is only tested
}

// RenderRequest is the body of POST /v1/templates/{name}:render.
type RenderRequest struct {
	Version int  `json:"version,omitempty"`
	Vars    Vars `json:"vars,omitempty"`
}

// Rendered is a template rendered for one person.
type Rendered struct {
	Text     string          `json:"text,omitempty"`
	Subject  string          `json:"subject,omitempty"`
	HTML     string          `json:"html,omitempty"`
	Approved *Approved       `json:"approved,omitempty"`
	Event    string          `json:"event,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
	Segments int             `json:"segments,omitempty"`
	Encoding string          `json:"encoding,omitempty"` // GSM-7 or UCS-2
}

// ConnectorRequest is the body of PUT /v1/connectors/{name}.
type ConnectorRequest struct {
	Kind     string            `json:"kind"`
	Settings map[string]string `json:"settings,omitempty"` // secrets among them are sealed and never shown again
	Priority int               `json:"priority,omitempty"` // lower goes first
	Rate     float64           `json:"rate,omitempty"`     // messages (SMS: segments) per second for all who use it
	Burst    float64           `json:"burst,omitempty"`
	Shared   bool              `json:"shared,omitempty"` // operator only: offered to every tenant
}

// Connector is a connector account as the API shows it.
type Connector struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	Channel     Channel           `json:"channel"`
	Settings    map[string]string `json:"settings,omitempty"`
	Secrets     []string          `json:"secrets,omitempty"` // names of the secrets that are set
	Priority    int               `json:"priority"`
	Rate        float64           `json:"rate,omitempty"`
	Burst       float64           `json:"burst,omitempty"`
	Shared      bool              `json:"shared,omitempty"`
	State       string            `json:"state"` // ready, paused
	Reason      string            `json:"reason,omitempty"`
	CallbackURL string            `json:"callback_url,omitempty"` // give this to the provider
	CreatedAt   *time.Time        `json:"created_at,omitempty"`
	UpdatedAt   *time.Time        `json:"updated_at,omitempty"`
}

// ConnectorTest is the answer to POST /v1/connectors/{name}:test.
type ConnectorTest struct {
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail,omitempty"`
	Seconds float64 `json:"seconds"`
}

// ConnectorType describes a kind of connector.
type ConnectorType struct {
	Name        string             `json:"name"`
	Channel     Channel            `json:"channel"`
	Doc         string             `json:"doc"`
	Ambiguity   string             `json:"ambiguity"` // dedupe_key, correlate, query or none
	Receipts    bool               `json:"receipts"`
	Concurrency int                `json:"concurrency"`
	Settings    []ConnectorSetting `json:"settings"`
}

// ConnectorSetting describes one setting of a kind.
type ConnectorSetting struct {
	Key      string `json:"key"`
	Type     string `json:"type"`
	Doc      string `json:"doc"`
	Default  string `json:"default,omitempty"`
	Required bool   `json:"required,omitempty"`
	Secret   bool   `json:"secret,omitempty"`
}

// Rate is one of a tenant's limits.
type Rate struct {
	Channel   Channel `json:"channel,omitempty"`   // empty = all
	Connector string  `json:"connector,omitempty"` // empty = all
	PerSecond float64 `json:"per_second"`
	Burst     float64 `json:"burst,omitempty"`
}

// TenantRequest is the body of POST /v1/tenants (with ID) and PUT /v1/tenants/{id}.
type TenantRequest struct {
	ID          string `json:"id,omitempty"`
	Name        string `json:"name,omitempty"`
	DailyQuota  int64  `json:"daily_quota,omitempty"`
	Rates       []Rate `json:"rates,omitempty"`
	OnAmbiguous string `json:"on_ambiguous,omitempty"` // retry (default), hold or fail
	Region      string `json:"region,omitempty"`       // for phone numbers without +, such as IN
	// Weight is the tenant's share beside others when a connector is contended, 1 to 100; default 1.
	Weight int `json:"weight,omitempty"`
	// AcceptRate bounds how many messages a second the API takes from the tenant; 0 = no bound.
	AcceptRate float64 `json:"accept_rate,omitempty"`
	// RerouteInDoubt lets a message whose last attempt is in doubt be tried by another connector.
	RerouteInDoubt bool `json:"reroute_in_doubt,omitempty"`
}

// Tenant is a customer of the platform.
type Tenant struct {
	ID          string     `json:"id"`
	Name        string     `json:"name,omitempty"`
	DailyQuota  int64      `json:"daily_quota,omitempty"`
	UsedToday   int64      `json:"used_today"`
	Rates       []Rate     `json:"rates,omitempty"`
	OnAmbiguous string     `json:"on_ambiguous"`
	Region      string     `json:"region,omitempty"`
	Weight      int        `json:"weight"`
	AcceptRate  float64    `json:"accept_rate,omitempty"`
	CreatedAt   *time.Time `json:"created_at,omitempty"`

	RerouteInDoubt bool `json:"reroute_in_doubt,omitempty"`
}

// Route is one of a tenant's routing rules. The first that matches decides; empty fields match everything.
type Route struct {
	Channel  Channel       `json:"channel,omitempty"`
	Prefix   string        `json:"prefix,omitempty"` // of the phone number, such as +91; for e-mail the domain
	Category string        `json:"category,omitempty"`
	Tag      string        `json:"tag,omitempty"`
	Targets  []RouteTarget `json:"targets"`
}

// RouteTarget is one connector of a rule. Connectors share the messages by weight; one of weight 0 is a reserve.
type RouteTarget struct {
	Connector string `json:"connector"`
	Weight    int    `json:"weight"`
}

// RouteQuery asks by which connector a message would go now.
type RouteQuery struct {
	Channel  Channel `json:"channel"`
	To       string  `json:"to"`
	Category string  `json:"category,omitempty"`
	Tag      string  `json:"tag,omitempty"`
}

// RouteExplanation says by which connector a message would go now, and why.
type RouteExplanation struct {
	Rule       string           `json:"rule"`                // such as "rule 2: +91", or "priority" without a rule
	Connector  string           `json:"connector,omitempty"` // empty = none can take it now
	Candidates []RouteCandidate `json:"candidates"`          // in the order in which they are asked
}

// RouteCandidate is one connector that a message might go by.
type RouteCandidate struct {
	Connector string     `json:"connector"`
	Weight    int        `json:"weight,omitempty"`
	State     string     `json:"state"`             // ready, resting, paused, unhealthy or missing
	Detail    string     `json:"detail,omitempty"`  // why it is not ready
	Until     *time.Time `json:"until,omitempty"`   // when it is asked again
	Failing   float64    `json:"failing,omitempty"` // share of the last attempts to this destination that failed, 0 to 1
}

// RetryRule is a tenant's schedule after failures; empty fields match everything, the first that matches counts.
type RetryRule struct {
	Channel Channel  `json:"channel,omitempty"`
	Class   string   `json:"class,omitempty"` // transient or ambiguous
	Delays  []string `json:"delays"`          // such as ["5s","30s","5m"]; the last one repeats
	// GiveUpAfter ends a message as failed when its next attempt would come later than this after its acceptance; empty =
	// it is tried until it expires.
	GiveUpAfter string `json:"give_up_after,omitempty"`
}

// DeadLetterFilter selects dead letters. Zero fields do not filter.
type DeadLetterFilter struct {
	Status    Status     `json:"status,omitempty"` // failed, expired or unknown
	Reason    string     `json:"reason,omitempty"`
	Channel   Channel    `json:"channel,omitempty"`
	To        string     `json:"to,omitempty"`
	Connector string     `json:"connector,omitempty"`
	Campaign  string     `json:"campaign,omitempty"`
	Tag       string     `json:"tag,omitempty"`
	Since     *time.Time `json:"since,omitempty"` // accepted at or after
}

// DeadLetterRequest is the body of POST /v1/dlq:retry and /v1/dlq:drop: ids, or a filter.
type DeadLetterRequest struct {
	IDs    []string          `json:"ids,omitempty"` // at most 1000
	Filter *DeadLetterFilter `json:"filter,omitempty"`
	TTL    string            `json:"ttl,omitempty"` // retry: how long the messages may wait now; default 24h
	// Before, with a filter, leaves out this id and all newer ones: the Next of the call before. Without it a message that
	// fails again at once would be met again by each call.
	Before string `json:"before,omitempty"`
}

// DeadLetterResult says what one call did. A filter may match more than one call takes: repeat with Before = Next while
// More is true.
type DeadLetterResult struct {
	Done    int                `json:"done"`
	Skipped []DeadLetterNoMove `json:"skipped,omitempty"`
	More    bool               `json:"more,omitempty"`
	Next    string             `json:"next,omitempty"`
}

// DeadLetterNoMove is an id that is no dead letter.
type DeadLetterNoMove struct {
	ID     string `json:"id"`
	Status Status `json:"status,omitempty"` // empty = no such message
}

// UnmatchedReceipt is a provider's report for which no message is known yet.
type UnmatchedReceipt struct {
	Connector  string     `json:"connector"`
	ProviderID string     `json:"provider_id,omitempty"`
	Status     Status     `json:"status"`
	Code       string     `json:"code,omitempty"`
	Detail     string     `json:"detail,omitempty"`
	At         *time.Time `json:"at,omitempty"`    // as the provider says
	Since      *time.Time `json:"since,omitempty"` // when it came
	Until      *time.Time `json:"until,omitempty"` // when it is dropped
}

// KeyRequest is the body of POST /v1/keys. An operator names the tenant; a tenant's key makes keys of its own tenant.
type KeyRequest struct {
	Name   string `json:"name,omitempty"`
	Mode   string `json:"mode,omitempty"`   // live or test (default)
	Tenant string `json:"tenant,omitempty"` // operator only
	Admin  bool   `json:"admin,omitempty"`  // operator only: an operator's key
}

// Key is an API key. Secret is shown once, in the answer that made it.
type Key struct {
	ID        string     `json:"id"`
	Name      string     `json:"name,omitempty"`
	Tenant    string     `json:"tenant,omitempty"`
	Mode      string     `json:"mode"`
	Admin     bool       `json:"admin,omitempty"`
	Secret    string     `json:"secret,omitempty"`
	Hint      string     `json:"hint"` // last four characters
	CreatedAt *time.Time `json:"created_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

// Suppression keeps an address from being written to.
type Suppression struct {
	Channel Channel    `json:"channel,omitempty"` // empty = every channel
	To      string     `json:"to"`
	Reason  string     `json:"reason,omitempty"`
	Source  string     `json:"source,omitempty"`
	At      *time.Time `json:"at,omitempty"`
}

// Audit says whether a tenant's books are right: Accepted = Live + HandedOn + Ended, and no problems.
type Audit struct {
	Tenant   string         `json:"tenant"`
	OK       bool           `json:"ok"`
	Accepted int64          `json:"accepted"`
	Live     int64          `json:"live"`
	HandedOn int64          `json:"handed_on"`
	Ended    int64          `json:"ended"`
	Facts    int64          `json:"facts"`
	Problems []AuditProblem `json:"problems,omitempty"`
}

// AuditProblem is one thing that does not add up.
type AuditProblem struct {
	What    string `json:"what"`
	Subject string `json:"subject,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// Identity says whom a key belongs to.
type Identity struct {
	Tenant string `json:"tenant,omitempty"`
	Mode   string `json:"mode"`
	Admin  bool   `json:"admin,omitempty"`
	Key    string `json:"key"`
}

// Health is the answer of GET /readyz.
type Health struct {
	OK      bool              `json:"ok"`
	Version string            `json:"version"`
	Parts   map[string]string `json:"parts"` // part → "ok" or what is wrong
}
