package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/vault"
)

// accounts are the connector accounts that are open, with the stored rows they were opened from.
type accounts struct {
	http *http.Client // shared by all; set once

	mu      sync.Mutex
	open    map[delivery.AccountID]openAccount
	unwoken bool // they have changed, and not everything that waited for that has been told
}

type openAccount struct {
	row      store.Account
	kind     *connectors.Kind
	settings connectors.Settings
	most     int // nodes that may have a session of it; 0 = each of them
	account  *routing.Account
}

// list returns the accounts for the pipeline. Callers hold mu.
func (a *accounts) list() []*routing.Account {
	list := make([]*routing.Account, 0, len(a.open))
	for _, o := range a.open {
		list = append(list, o.account)
	}
	return list
}

// ConnectorsChanged makes the running engine follow the stored accounts. It is called after each change, which is in the
// store by then: whoever asked for it may have gone meanwhile, and it takes effect all the same.
func (e *Engine) ConnectorsChanged(ctx context.Context) {
	if err := e.loadAccounts(context.WithoutCancel(ctx)); err != nil {
		e.log.Error("connector accounts cannot be read", "err", err)
	}
	e.settle(ctx)
}

// TenantChanged makes the running engine follow a tenant's limits, routes and policy.
func (e *Engine) TenantChanged(ctx context.Context, id delivery.TenantID) {
	e.pipeline.TenantChanged(id)
	e.settle(ctx)
}

// Suppressed makes the running engine refuse addresses that it has claimed messages for.
func (e *Engine) Suppressed(id delivery.TenantID) {
	e.pipeline.Suppressed(id)
	e.settle(context.Background())
}

// loadAccounts opens what is new or changed, keeps what is not, and lets the pipeline close the rest. An account that
// does not open is left out with a reason in the log: the others must not suffer. While the store cannot be read,
// everything stays as it is.
func (e *Engine) loadAccounts(ctx context.Context) error {
	a := &e.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	rows, err := e.store.AllAccounts(ctx, system)
	if err != nil {
		return err
	}
	next := make(map[delivery.AccountID]openAccount, len(rows))
	changed := false
	for _, row := range rows {
		have, ok := a.open[row.ID]
		if !ok || !reflect.DeepEqual(have.row, row) { // two changes may come within one tick of the clock
			opened, err := e.openAccount(ctx, row)
			if errors.Is(err, store.ErrUnavailable) || err != nil && ctx.Err() != nil {
				e.closeNew(next, a.open)
				return err
			}
			if err != nil {
				e.log.Error("a connector account cannot be opened", "tenant", string(row.Tenant), "connector", row.Name, "err", err)
				continue
			}
			have, changed = opened, true
		}
		next[row.ID] = have
	}
	changed = changed || len(next) != len(a.open)
	a.open = next
	if changed {
		e.pipeline.SetAccounts(a.list())
		a.unwoken = true
	}
	if !a.unwoken {
		return nil
	}
	// What waited for a connector to come or to come back may go now. Should the store be away, the next call does it.
	if err := e.wakeUnrouted(ctx); err != nil {
		return err
	}
	a.unwoken = false
	return nil
}

// wakeUnrouted makes every message look again that has found no connector to go by.
func (e *Engine) wakeUnrouted(ctx context.Context) error {
	for _, reason := range pipeline.Unrouted {
		if err := e.pipeline.Wake(ctx, reason); err != nil {
			return err
		}
	}
	return nil
}

// closeNew closes what was opened for nothing.
func (e *Engine) closeNew(next, open map[delivery.AccountID]openAccount) {
	for id, n := range next {
		c, ok := n.account.Connector.(io.Closer)
		if !ok || open[id].account == n.account {
			continue
		}
		if err := c.Close(); err != nil {
			e.log.Warn("connector did not close cleanly", "connector", n.row.Name, "err", err)
		}
	}
}

// openAccount opens one stored account, for sending when this node may.
func (e *Engine) openAccount(ctx context.Context, row store.Account) (openAccount, error) {
	o, err := e.readAccount(ctx, row)
	if err != nil {
		return o, err
	}
	elsewhere := false
	if o.most > 0 {
		has, _ := e.session(ctx, row.ID, o.most)
		elsewhere = !has
	}
	o.account, err = e.buildAccount(row, o.kind, o.settings, elsewhere)
	return o, err
}

// readAccount reads what a stored account is opened with.
func (e *Engine) readAccount(ctx context.Context, row store.Account) (openAccount, error) {
	o := openAccount{row: row}
	var ok bool
	if o.kind, ok = e.registry.Kind(row.Kind); !ok {
		return o, fmt.Errorf("kind %q is not part of this program", row.Kind)
	}
	var err error
	if o.settings, err = e.settings(ctx, o.kind, row); err != nil {
		return o, err
	}
	o.most = e.sessionsOf(o.kind, o.settings)
	return o, nil
}

// buildAccount makes the account that route and send go by. Elsewhere says that other nodes have its sessions.
func (e *Engine) buildAccount(
	row store.Account, kind *connectors.Kind, settings connectors.Settings, elsewhere bool,
) (*routing.Account, error) {
	conn, err := kind.Open(&connectors.Account{
		ID: row.ID, Tenant: row.Tenant, Name: row.Name, Settings: settings, Now: e.cfg.Clock.Now,
		Log:  e.log.With("connector", row.Name, slog.String("tenant", string(row.Tenant))),
		Dial: e.guard.Dial, HTTP: e.accounts.http,
	})
	if err != nil {
		return nil, err
	}
	if window := settings.Duration("resolve_window"); window > 0 {
		own := *kind
		own.ResolveWindow = window
		kind = &own
	}
	a := &routing.Account{
		ID: row.ID, Tenant: row.Tenant, Name: row.Name, Channel: row.Channel, Kind: kind, Connector: conn,
		Priority: row.Priority, PerSecond: row.Rate, Burst: row.Burst, Paused: row.Paused, Why: row.PauseReason,
		Elsewhere: elsewhere,
		Timeout:   orDefault(settings.Duration("timeout"), orDefault(kind.SendTimeout, 30*time.Second)),
	}
	a.Parallel = settings.Int("concurrency")
	if a.Parallel <= 0 {
		a.Parallel = orDefault(kind.Concurrency, 16)
	}
	return a, nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// settings returns an account's settings with the secrets opened and the defaults filled in.
func (e *Engine) settings(ctx context.Context, kind *connectors.Kind, row store.Account) (connectors.Settings, error) {
	given := make(map[string]string, len(row.Settings)+len(row.SecretNames))
	for k, v := range row.Settings {
		given[k] = v
	}
	if len(row.Sealed) > 0 {
		owner := vault.Owner{Tenant: string(row.Tenant)}
		if row.Tenant != delivery.Shared {
			t, err := e.store.Tenant(ctx, system, row.Tenant)
			if err != nil {
				return nil, err
			}
			owner.DataKey = t.DataKey
		}
		plain, err := e.vault.Open(owner, vault.Place{Table: "connectors", Column: "secrets", ID: row.ID.String()}, row.Sealed)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(plain, &given); err != nil {
			return nil, errors.New("sealed settings cannot be read")
		}
	}
	return kind.Validate(given)
}

// TestConnector proves that an account works, by logging in without sending a message.
func (e *Engine) TestConnector(ctx context.Context, tenant delivery.TenantID, name string) error {
	row, err := e.store.Account(ctx, tenant, name)
	if err != nil {
		return err
	}
	o, err := e.readAccount(ctx, row)
	if err != nil {
		return err
	}
	a, err := e.buildAccount(row, o.kind, o.settings, false)
	if err != nil {
		return err
	}
	if c, ok := a.Connector.(interface{ Close() error }); ok {
		defer func() { _ = c.Close() }()
	}
	check, ok := a.Connector.(connectors.Checker)
	if !ok {
		return nil // there is nothing to log in to; that it opens is all that can be known
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	return check.Check(ctx)
}

// rateInForce is what a tenant can send on a channel per second, for estimates; 0 = no bound.
func (e *Engine) rateInForce(tenant delivery.TenantID, ch delivery.Channel) float64 {
	bound := 0.0
	tighten := func(r float64) {
		if r > 0 && (bound == 0 || r < bound) {
			bound = r
		}
	}
	t, err := e.store.Tenant(context.Background(), system, tenant)
	if err == nil {
		for _, r := range t.Rates {
			if (r.Channel == 0 || r.Channel == ch) && r.Account == "" {
				tighten(r.PerSecond)
			}
		}
	}
	q := routing.Query{Tenant: tenant, Channel: ch, Rules: t.Routes}
	for _, s := range e.pipeline.Accounts.Explain(&q, e.cfg.Clock.Now()).Shares() {
		tighten(s.Account.PerSecond / s.Part)
	}
	return bound
}
