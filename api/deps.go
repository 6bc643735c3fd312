package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/admission"
	"github.com/msgctl/msgctl/campaigns"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/vault"
)

// Deps is what the API is made of. Store, Registry, Vault, IDs and Now are required; what else is nil is left out: its
// routes answer 404, its part of an explanation is missing.
type Deps struct {
	Store    store.Store
	Accept   store.Accepter // nil = Store. The pipeline's own also hints that there is work
	Registry *connectors.Registry
	Vault    *vault.Vault
	IDs      *delivery.IDs
	Now      func() time.Time
	Log      *slog.Logger // nil = silent

	Campaigns Campaigns
	Traffic   Traffic
	Operator  Operator
	Callbacks Callbacks
	Hints     Hints
	Routes    Routes
	Cluster   Cluster
	Backup    Backup
	Tracing   Tracing

	// NoAPI and NoCallbacks say, for people, why this node serves no routes with a key or takes no reports of providers;
	// "" = it does.
	NoAPI, NoCallbacks string

	// URLAllowed says whether a webhook may be sent to a URL; nil = every URL that is well formed.
	URLAllowed func(rawURL string) error
	// Parts names what else must work for the engine to be ready: part → "ok" or what is wrong. It answers at once.
	Parts func(ctx context.Context) map[string]string
	// Aids names what the engine works without, only slower, in the same way. It is shown and does not count.
	Aids func(ctx context.Context) map[string]string

	// Admission decides what is taken on; nil = one with defaults, without a check of the disk.
	Admission *admission.Gate

	Metrics   http.Handler
	Version   string
	PublicURL string // how providers and browsers reach the engine, without a slash at the end; "" = unknown
	Limits    Limits
}

// Limits bounds what one request may ask for. Zero fields take the defaults.
type Limits struct {
	Body      int64         // bytes of an ordinary body; default 1 MiB
	BatchBody int64         // bytes of a batch; default 10 MiB
	BatchRows int           // default 10,000, at most 65,535
	Wait      time.Duration // the longest a long poll waits; default 30 s
	KeyWait   time.Duration // how long a request waits for a running one with the same key; default 5 s
}

func (l Limits) withDefaults() Limits {
	if l.Body <= 0 {
		l.Body = 1 << 20
	}
	if l.BatchBody <= 0 {
		l.BatchBody = 10 << 20
	}
	if l.BatchRows <= 0 {
		l.BatchRows = 10_000
	}
	l.BatchRows = min(l.BatchRows, 1<<16-1)
	if l.Wait <= 0 {
		l.Wait = 30 * time.Second
	}
	if l.KeyWait <= 0 {
		l.KeyWait = 5 * time.Second
	}
	return l
}

// Campaigns is what the API asks of the campaigns service.
type Campaigns interface {
	Import(ctx context.Context, tenant delivery.TenantID, in campaigns.Import) (store.Audience, campaigns.Outcome, error)
	Rejected(ctx context.Context, tenant delivery.TenantID, audience string) (io.ReadCloser, error)
	Check(ctx context.Context, tenant delivery.TenantID, name string) (campaigns.Check, error)
	Start(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error)
	Pause(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error)
	Resume(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error)
	Stop(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error)
	Report(ctx context.Context, tenant delivery.TenantID, name string) (campaigns.Report, error)
	DeleteAudience(ctx context.Context, tenant delivery.TenantID, name string) error
}

// Traffic tells what the running pipeline knows and the store does not.
type Traffic interface {
	// Standing says why nothing of a queue goes now; false when the pipeline knows nothing about it.
	Standing(q delivery.Queue) (delivery.Standing, bool)
}

// Operator is told of changes that the running engine must follow, and tries connectors.
type Operator interface {
	// TestConnector proves that an account works, without a message.
	TestConnector(ctx context.Context, tenant delivery.TenantID, name string) error
	// ConnectorsChanged is called after accounts were stored, changed, paused, resumed or deleted.
	ConnectorsChanged(ctx context.Context)
	// TenantChanged is called after a tenant was made or its limits changed.
	TenantChanged(ctx context.Context, tenant delivery.TenantID)
	// Suppressed is called after addresses have joined a tenant's suppression list.
	Suppressed(tenant delivery.TenantID)
}

// Callbacks takes what providers report.
type Callbacks interface {
	// Callback verifies and stores one request of a provider. It returns nil only once everything is durable. Errors:
	// connectors.ErrForged, connectors.ErrMalformed, store.ErrNotFound for an account that does not exist or takes no
	// callbacks, store.ErrUnavailable.
	Callback(ctx context.Context, account delivery.AccountID, c *connectors.Callback) (reply []byte, err error)
}

// Hints is told what has become due by a change of the API, so that nobody has to wait for the next look at the store.
type Hints interface {
	Hint(q delivery.Queue, ids []delivery.MessageID)
}

// Routes tells by which connector a message would go now.
type Routes interface {
	// ExplainRoute decides as the running engine would, without a message: nothing is counted, no probe is used up.
	ExplainRoute(ctx context.Context, tenant delivery.TenantID, q RouteQuestion) (RouteAnswer, error)
}

// RouteQuestion is a message that might be sent. To is normalised.
type RouteQuestion struct {
	Channel       delivery.Channel
	To            string
	Category, Tag string
}

// RouteAnswer is where it would go.
type RouteAnswer struct {
	Rule       string           // such as "rule 2: +91"; "priority" without a rule
	Connector  string           // "" = none can take it now
	Candidates []RouteCandidate // in the order in which they are asked
}

// RouteCandidate is one connector that it might go by.
type RouteCandidate struct {
	Connector string
	Weight    int
	State     string    // ready, resting, paused, unhealthy or missing
	Detail    string    // why it is not ready, safe to show
	Until     time.Time // when it is asked again; zero = when somebody changes something, or it is ready
	Failing   float64   // share of the last attempts to this destination that failed, 0 to 1
}
