// Package campaigns turns one template and a file of people into messages that are sent once to each person.
//
// An audience is imported row by row in bounded memory (Import). A campaign on it can be tried without sending (Check),
// is started, paused, resumed and stopped (control.go), and is expanded into messages by one loop (Run). The cursor of
// an expansion moves in the same transaction that stores the messages, so that a process killed anywhere neither skips
// nor repeats a person.
package campaigns

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// Store is what campaigns need of the store.
type Store interface {
	Campaign(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error)
	MoveCampaign(ctx context.Context, tenant delivery.TenantID, c store.Campaign, from []store.CampaignState,
		to store.CampaignState, now time.Time) (store.Campaign, error)
	Expand(ctx context.Context, tenant delivery.TenantID, id delivery.CampaignID, s store.Slice) (store.Accepted, error)
	ActiveCampaigns(ctx context.Context, sys store.System) ([]store.Campaign, error)
	Tally(ctx context.Context, tenant delivery.TenantID, id delivery.CampaignID) (store.Tally, error)
	store.Audiences
	Template(ctx context.Context, tenant delivery.TenantID, name string, version int) (store.Template, error)
	Suppressed(ctx context.Context, tenant delivery.TenantID, ch delivery.Channel, to string) (
		store.Suppression, bool, error)
	SuppressionList(ctx context.Context, tenant delivery.TenantID, after string, limit int) ([]store.Suppression, error)
	AccountList(ctx context.Context, tenant delivery.TenantID) ([]store.Account, error)
	Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (store.Tenant, error)
}

// Deps is what a Service is made of. Store, IDs, Clock and Dir are required.
type Deps struct {
	Store Store
	IDs   *delivery.IDs
	Clock clockwork.Clock
	Log   *slog.Logger // nil = silent
	Dir   string       // rejected rows are kept in Dir/rejected/<tenant>/<audience>.csv, readable by the owner only
	// Accepted is told of messages of one queue that are durable now; nil = nobody.
	Accepted func(results []store.AcceptResult, queue delivery.Queue)
	// PausedChanged is told when a campaign's pause, stop (both true) or resume (false) is durable; nil = nobody.
	PausedChanged func(id delivery.CampaignID, paused bool)
	// Rates returns how many messages (SMS: segments) per second may leave on a channel, for estimates; 0 = no bound.
	Rates func(tenant delivery.TenantID, ch delivery.Channel) float64
	// MaxWaiting is how many messages of one campaign may wait in the store before its expansion stands still; ten times
	// as many when they wait for a later attempt. 0 = 20,000.
	MaxWaiting int
	// Yield reports whether expansions should stand still for a while, because the store has more to do than it can; nil =
	// never.
	Yield func() bool
	// Mine reports whether this process is to expand a campaign, where several could; nil = always. Two that think so
	// waste work and do no harm.
	Mine func(id delivery.CampaignID) bool
}

// Service imports, checks, controls, expands and reports. Its methods may be called from many goroutines, Run from one.
type Service struct {
	Deps
	kick chan struct{}
	sets *templates.Cache // of SMS templates, to count segments

	mu        sync.Mutex
	importing map[audienceKey]bool
	held      map[delivery.CampaignID]Held // why an expansion stands still; only of running campaigns
}

type audienceKey struct {
	tenant delivery.TenantID
	name   string
}

// Held says why a running campaign is not expanded at the moment.
type Held struct {
	Reason string    // quota, storage_unavailable, audience_missing, account_missing or error
	Until  time.Time // when the next try is made
}

// New makes a Service. It does nothing by itself until Run is called.
func New(d Deps) *Service {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Accepted == nil {
		d.Accepted = func([]store.AcceptResult, delivery.Queue) {}
	}
	if d.PausedChanged == nil {
		d.PausedChanged = func(delivery.CampaignID, bool) {}
	}
	if d.Rates == nil {
		d.Rates = func(delivery.TenantID, delivery.Channel) float64 { return 0 }
	}
	if d.Yield == nil {
		d.Yield = func() bool { return false }
	}
	if d.Mine == nil {
		d.Mine = func(delivery.CampaignID) bool { return true }
	}
	if d.MaxWaiting <= 0 {
		d.MaxWaiting = 20_000
	}
	return &Service{
		Deps:      d,
		kick:      make(chan struct{}, 1),
		sets:      templates.NewCache(256),
		importing: map[audienceKey]bool{},
		held:      map[delivery.CampaignID]Held{},
	}
}
