package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// ---- campaigns

// CampaignState is where a campaign is.
type CampaignState string

// The states of a campaign: draft → running ⇄ paused → completed, or stopped from any state before completed. A
// campaign completes when every person is expanded and none of its messages waits any more.
const (
	CampaignDraft     CampaignState = "draft"
	CampaignRunning   CampaignState = "running"
	CampaignPaused    CampaignState = "paused"
	CampaignCompleted CampaignState = "completed"
	CampaignStopped   CampaignState = "stopped"
)

// Campaign sends a template per channel to every person of a frozen audience.
type Campaign struct {
	ID        delivery.CampaignID
	Tenant    delivery.TenantID
	Name      string // unique in the tenant
	State     CampaignState
	Audience  string
	Legs      []Leg         // one per channel; a person goes by the channel they ask for, else the first with an address
	Rate      float64       // messages per second at most; 0 = as fast as the accounts allow
	TTL       time.Duration // how long after its expansion a message may wait
	People    int           // of the audience, at start
	Cursor    int64         // sequence of the last person expanded
	Expanded  bool          // no person is left
	Skipped   map[string]int
	CreatedAt time.Time
	StartedAt time.Time
	EndedAt   time.Time
}

// Leg is what a campaign sends on one channel.
type Leg struct {
	Channel  delivery.Channel `json:"channel"`
	Template string           `json:"template"`
	Version  int              `json:"version"` // pinned at start
	Account  string           `json:"account,omitempty"`
}

// Tally counts messages by where they are.
type Tally map[delivery.Channel]map[delivery.Status]int

// Slice is one step of an expansion.
type Slice struct {
	Now      time.Time
	From, To int64        // the cursor must be From and becomes To
	Messages []NewMessage // at most 1,000
	Skipped  map[string]int
	Done     bool // no person is left
}

// Campaigns keeps campaigns.
type Campaigns interface {
	// CreateCampaign stores a draft. ErrExists when the name is taken.
	CreateCampaign(ctx context.Context, tenant delivery.TenantID, c Campaign) error
	// Campaign returns one by name, or by id in its text form.
	Campaign(ctx context.Context, tenant delivery.TenantID, name string) (Campaign, error)
	// CampaignList returns all, newest first.
	CampaignList(ctx context.Context, tenant delivery.TenantID) ([]Campaign, error)
	// MoveCampaign changes the state from one of the given states to another, or returns ErrConflict with the campaign as
	// it is. Starting stores c's Legs (with pinned versions), People and StartedAt; pausing holds its waiting messages;
	// running again wakes them, each at its old place; stopping cancels them. Claims obey the new state at once; the
	// messages follow in transactions of bounded size, before the call returns. When the process stops in between, the
	// next one finishes that.
	MoveCampaign(ctx context.Context, tenant delivery.TenantID, c Campaign, from []CampaignState, to CampaignState, now time.Time) (Campaign, error)
	// Expand stores a slice's messages and moves the cursor in one transaction. ErrConflict when the campaign is not
	// running or its cursor is elsewhere. A message to a suppressed address is stored as suppressed. The tenant's daily
	// quota applies: *QuotaError stores nothing.
	Expand(ctx context.Context, tenant delivery.TenantID, id delivery.CampaignID, s Slice) (Accepted, error)
	// ActiveCampaigns lists running campaigns of all tenants.
	ActiveCampaigns(ctx context.Context, sys System) ([]Campaign, error)
	// Tally counts a campaign's messages by channel and status; with the zero id, all messages of the tenant.
	Tally(ctx context.Context, tenant delivery.TenantID, id delivery.CampaignID) (Tally, error)
}

// ---- audiences

// Audience is a set of people, frozen once its import has ended.
type Audience struct {
	Name       string
	Ready      bool // import has ended
	People     int
	Rows       int            // rows read
	LeftOut    map[string]int // reason → rows
	Columns    []string
	CreatedAt  time.Time
	RejectFile string // where the rejected rows are, "" = none
}

// Person is one member of an audience.
type Person struct {
	Seq     int64            // place in the audience, from 1, without order of its own
	Phone   string           // E.164 or ""
	Email   string           // or ""
	URL     string           // or ""
	Channel delivery.Channel // the one this person asks for; zero = the campaign's order
	Vars    json.RawMessage  // a JSON object: every column of the row
}

// Audiences keeps audiences.
type Audiences interface {
	// CreateAudience starts an import. ErrExists when the name is taken.
	CreateAudience(ctx context.Context, tenant delivery.TenantID, a Audience) error
	// AddPeople appends people that are not in the audience yet: no two share a phone, an email or a URL, whichever is
	// their first address. Seq is assigned. It returns, in order, which were added.
	AddPeople(ctx context.Context, tenant delivery.TenantID, name string, people []Person) (added []bool, err error)
	// FinishAudience freezes it with its counts.
	FinishAudience(ctx context.Context, tenant delivery.TenantID, a Audience) error
	// Audience returns one by name.
	Audience(ctx context.Context, tenant delivery.TenantID, name string) (Audience, error)
	// AudienceList returns all, by name.
	AudienceList(ctx context.Context, tenant delivery.TenantID) ([]Audience, error)
	// People returns people in order of Seq, after the given one.
	People(ctx context.Context, tenant delivery.TenantID, name string, after int64, limit int) ([]Person, error)
	// DeleteAudience removes it; ErrConflict while a running or paused campaign uses it.
	DeleteAudience(ctx context.Context, tenant delivery.TenantID, name string) error
}

// ---- templates

// Template is one version of a template. A version never changes.
type Template struct {
	Name      string
	Channel   delivery.Channel
	Version   int // from 1
	Text      string
	Subject   string
	HTML      string
	Approved  *delivery.ProviderTemplate // WhatsApp: provider's template; its Params are Liquid texts
	Event     string                     // webhook
	Data      string                     // webhook: a Liquid text that renders to JSON
	CreatedAt time.Time
}

// Templates keeps versioned templates.
type Templates interface {
	// PutTemplate stores t as the next version of its name and returns that version's number. A name keeps its channel:
	// another one is ErrConflict.
	PutTemplate(ctx context.Context, tenant delivery.TenantID, t Template) (int, error)
	// Template returns a version, 0 = the newest.
	Template(ctx context.Context, tenant delivery.TenantID, name string, version int) (Template, error)
	// TemplateList returns the newest version of each, by name.
	TemplateList(ctx context.Context, tenant delivery.TenantID) ([]Template, error)
	// TemplateVersions returns all versions of one, newest first.
	TemplateVersions(ctx context.Context, tenant delivery.TenantID, name string) ([]Template, error)
}

// ---- connector accounts

// Account is a configured connector.
type Account struct {
	ID          delivery.AccountID
	Tenant      delivery.TenantID // delivery.Shared = offered to every tenant
	Name        string            // unique in the tenant
	Kind        string
	Channel     delivery.Channel
	Settings    map[string]string // not secret
	Sealed      []byte            // secrets, sealed by the vault
	SecretNames []string          // which secrets are set
	Priority    int               // lower goes first
	Rate        float64           // cost per second for all who use it; 0 = no bound
	Burst       float64
	Paused      bool
	PauseReason string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Version     int64 // counts the writes of the row, from 1
}

// Accounts keeps connector accounts.
type Accounts interface {
	// PutAccount creates an account, or replaces the one with the same ID. ErrExists when another has the name. With a
	// Version it only replaces: ErrConflict when that is not the row's, which was written or deleted since it was read.
	PutAccount(ctx context.Context, tenant delivery.TenantID, a Account) error
	// Account returns one of the tenant's own accounts by name, else a shared one.
	Account(ctx context.Context, tenant delivery.TenantID, name string) (Account, error)
	// AccountList returns the tenant's own and the shared accounts, by channel, priority and name.
	AccountList(ctx context.Context, tenant delivery.TenantID) ([]Account, error)
	// AllAccounts returns every account of every tenant.
	AllAccounts(ctx context.Context, sys System) ([]Account, error)
	// DeleteAccount removes one.
	DeleteAccount(ctx context.Context, tenant delivery.TenantID, name string) error
}

// ---- tenants and keys

// Tenant is a customer of the platform.
type Tenant struct {
	ID         delivery.TenantID
	Name       string // shown to people
	DailyQuota int64  // messages per UTC day; 0 = no bound
	// Rates bounds the tenant's traffic: by channel (zero Channel = all) and account name ("" = all).
	Rates       []TenantRate
	OnAmbiguous string // retry, hold or fail; "" = retry
	DataKey     []byte // sealed by the vault's master key; never leaves the engine
	Region      string // default region for phone numbers without +, such as IN; "" = none
	Weight      int    // its share beside other tenants when an account is contended, 1–100; 0 = 1
	// AcceptRate bounds how many messages a second the API takes from it; 0 = no bound.
	AcceptRate float64
	Retry      []delivery.RetryRule // the first that matches; none = the engine's schedule
	Routes     []delivery.RouteRule
	// RerouteInDoubt lets a message whose last attempt is in doubt be tried by another account. Otherwise it waits for
	// the one that may have taken it.
	RerouteInDoubt bool
	// Version counts the writes of the row, from 1. The store counts: CreateTenant does not look at it.
	Version   int64
	CreatedAt time.Time
}

// TenantRate is one of a tenant's limits.
type TenantRate struct {
	Channel   delivery.Channel `json:"channel,omitempty"`
	Account   string           `json:"account,omitempty"`
	PerSecond float64          `json:"per_second"`
	Burst     float64          `json:"burst,omitempty"`
}

// Tenants keeps tenants.
type Tenants interface {
	// CreateTenant stores a tenant. ErrExists when the id is taken.
	CreateTenant(ctx context.Context, sys System, t Tenant) error
	// UpdateTenant replaces everything but ID, CreatedAt and DataKey. ErrConflict when Version is not the row's, which was
	// then written since it was read; 0 = whatever it is.
	UpdateTenant(ctx context.Context, sys System, t Tenant) error
	// Tenant returns one.
	Tenant(ctx context.Context, sys System, id delivery.TenantID) (Tenant, error)
	// TenantList returns all, by id.
	TenantList(ctx context.Context, sys System) ([]Tenant, error)
}

// Key is an API key as it is stored: without the key itself.
type Key struct {
	ID        delivery.KeyID
	Tenant    delivery.TenantID // delivery.Shared for an operator's key
	Name      string
	Mode      string // live or test
	Admin     bool   // may use the operator's routes
	Hash      [32]byte
	Hint      string // the key's last four characters
	CreatedAt time.Time
	RevokedAt time.Time // zero = valid
}

// Keys keeps API keys.
type Keys interface {
	PutKey(ctx context.Context, sys System, k Key) error
	// KeyByHash finds a key, revoked or not.
	KeyByHash(ctx context.Context, sys System, hash [32]byte) (Key, error)
	// KeyList returns a tenant's keys, newest first.
	KeyList(ctx context.Context, sys System, tenant delivery.TenantID) ([]Key, error)
	// RevokeKey ends a key of the tenant; again is no error.
	RevokeKey(ctx context.Context, sys System, tenant delivery.TenantID, id delivery.KeyID, now time.Time) error
}

// ---- audit

// AuditReport says whether a tenant's books are right.
type AuditReport struct {
	Tenant   delivery.TenantID
	Accepted int64 // as counted by accept
	Live     int64 // messages that still wait or are being sent
	HandedOn int64 // sent, delivered, read, undelivered
	Ended    int64 // failed, suppressed, expired, canceled, unknown
	Facts    int64
	// Since is from when on the past is kept: what is older has been removed for good, and is in the counts above but not
	// in Facts. Zero = nothing has been removed.
	Since    time.Time
	Problems []AuditProblem // none = right; at most 1,000 are listed
}

// AuditProblem is one thing that does not add up.
type AuditProblem struct {
	What    string // such as "message without due time"
	Subject string // a message id, a campaign's name or a ledger sequence
	Detail  string
}

// Auditor proves the books from what is stored.
type Auditor interface {
	// Audit recounts everything of a tenant: accepted = rows, tallies = rows by status, every waiting row has a due time
	// and no other row has one, every campaign's people = messages + skipped + not yet expanded, every row's status is
	// the status of its last fact, and the hash chain of the ledger is whole.
	Audit(ctx context.Context, tenant delivery.TenantID) (AuditReport, error)
}
