package api

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sort"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

const maxRate = 1e6

func connectorTypes(c *call) error {
	return page(c, c.a.Registry.Kinds(), func(k connectors.Kind) string { return k.Name },
		func(k connectors.Kind) sdk.ConnectorType {
			t := sdk.ConnectorType{
				Name: k.Name, Channel: channel(k.Channel), Doc: k.Doc, Ambiguity: string(k.Ambiguity), Receipts: k.Receipts,
				Concurrency: k.Concurrency, Settings: []sdk.ConnectorSetting{},
			}
			if t.Concurrency == 0 {
				t.Concurrency = 16 // what 0 means to the engine
			}
			for _, s := range k.Settings {
				t.Settings = append(t.Settings, sdk.ConnectorSetting{
					Key: s.Key, Type: string(s.Type), Doc: s.Doc, Default: s.Default, Required: s.Required, Secret: s.Secret,
				})
			}
			return t
		})
}

func listConnectors(c *call) error {
	list, err := c.a.Store.AccountList(c.ctx(), c.tenant)
	if err != nil {
		return err
	}
	return page(c, list, func(a store.Account) string { return a.ID.String() }, c.connector)
}

// account reads the connector in the path: one of the caller's own, or a shared one.
func (c *call) account() (store.Account, error) {
	if !validName(c.vars[0]) {
		return store.Account{}, noConnector()
	}
	a, err := c.a.Store.Account(c.ctx(), c.tenant, c.vars[0])
	if errors.Is(err, store.ErrNotFound) {
		return a, noConnector()
	}
	return a, err
}

func noConnector() error { return fail("not_found", "there is no such connector") }

// own is account for changing it: a shared connector belongs to the operator.
func (c *call) own() (store.Account, error) {
	a, err := c.account()
	if err == nil && a.Tenant != c.tenant {
		return a, fail("forbidden", "the connector %s is shared: only the operator can change it", a.Name)
	}
	return a, err
}

func getConnector(c *call) error {
	a, err := c.account()
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, c.connector(a))
}

// putConnector makes a connector or replaces its settings. Secrets that are not given stay as they are: they cannot be
// read, so that nobody could give them again.
func putConnector(c *call) error {
	if err := checkName("", c.vars[0]); err != nil {
		return err
	}
	var in sdk.ConnectorRequest
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	if err := c.mayShare(in.Shared); err != nil {
		return err
	}
	kind, ok := c.a.Registry.Kind(in.Kind)
	if !ok {
		return failAt("/kind", "unknown_connector_type", "there is no kind %s of connector%s", quoted(in.Kind),
			c.a.kindHint(in.Kind))
	}
	var f faults
	if !(in.Rate >= 0 && in.Rate <= maxRate) {
		f.add("/rate", "invalid_value", "rate is 0 (no bound) to %g per second", maxRate)
	}
	if !(in.Burst >= 0 && in.Burst <= maxRate) {
		f.add("/burst", "invalid_value", "burst is 0 to %g", maxRate)
	}
	if in.Priority < math.MinInt32 || in.Priority > math.MaxInt32 {
		f.add("/priority", "invalid_value", "priority is a number of 32 bits")
	}
	if err := f.problem(); err != nil {
		return err
	}
	row, _, err := c.changeAccount(func() (store.Account, bool, error) {
		a, err := c.replacement(in, kind)
		return a, true, err
	})
	if err != nil {
		return err
	}
	c.a.changed(c)
	status := http.StatusOK
	if row.Version == 0 {
		status = http.StatusCreated
	}
	return c.json(status, c.connector(row))
}

// replacement is the row for what was asked, made of the row that there is; its Version is 0 when there is none.
func (c *call) replacement(in sdk.ConnectorRequest, kind *connectors.Kind) (row store.Account, err error) {
	old, err := c.a.Store.Account(c.ctx(), c.tenant, c.vars[0])
	exists := err == nil && old.Tenant == c.tenant
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return row, err
	case exists && old.Kind != kind.Name:
		return row, failAt("/kind", "conflict", "the connector %s is of kind %s: delete it first, or use another name",
			old.Name, old.Kind)
	}
	now := c.a.Now()
	row = store.Account{
		Tenant: c.tenant, Name: c.vars[0], Kind: kind.Name, Channel: kind.Channel, CreatedAt: now, UpdatedAt: now,
		Priority: in.Priority, Rate: in.Rate, Burst: in.Burst,
	}
	if exists {
		row.ID, row.CreatedAt, row.Version = old.ID, old.CreatedAt, old.Version
		row.Paused, row.PauseReason = old.Paused, old.PauseReason
	} else {
		row.ID = c.a.IDs.Account()
	}
	return row, c.settings(&row, old, kind, in.Settings)
}

// changeAccount stores the row that change makes of what it reads, one change at a time: a row is stored whole, and two
// changes at once must not undo each other. Those of this node take turns, those of other nodes are seen by the row's
// version. So change may be called several times. Where it says that nothing changed, nothing is stored.
func (c *call) changeAccount(
	change func() (row store.Account, changed bool, err error),
) (row store.Account, changed bool, err error) {
	c.a.accounts.Lock()
	defer c.a.accounts.Unlock()
	for range changeTries {
		row, changed, err = change()
		if err != nil || !changed {
			return row, false, err
		}
		err = c.a.Store.PutAccount(c.ctx(), c.tenant, row)
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) { // somebody was faster
			return row, true, err
		}
	}
	return row, false, fail("conflict", "the connector was changed by others all the time; nothing was changed: try again")
}

// mayShare checks who may make a shared connector, and that an operator says so.
func (c *call) mayShare(asked bool) error {
	switch {
	case asked && !c.id.admin:
		return failAt("/shared", "forbidden", "only the operator can share a connector with every tenant")
	case asked && !shared(c.tenant):
		return failAt("/shared", "invalid_value", "a shared connector belongs to no tenant: leave the %s header out",
			TenantHeader)
	case !asked && shared(c.tenant):
		return fail("tenant_required", "name the tenant in the %s header, or set shared to true", TenantHeader)
	}
	return nil
}

func (a *api) kindHint(typed string) string {
	var names []string
	for _, k := range a.Registry.Kinds() {
		names = append(names, k.Name)
	}
	if near := nearest(typed, names); near != "" {
		return "; did you mean " + near + "?"
	}
	return "; see msgctl connector types"
}

// settings checks what was given together with the secrets that are kept, and seals all secrets anew.
func (c *call) settings(row *store.Account, old store.Account, kind *connectors.Kind, given map[string]string) error {
	owner, err := c.a.owner(c.ctx(), c.tenant)
	if err != nil {
		return err
	}
	kept := map[string]string{}
	if len(old.Sealed) > 0 && old.ID == row.ID {
		if kept, err = OpenSecrets(c.a.Vault, owner, old); err != nil {
			return err
		}
	}
	all := map[string]string{}
	for key, v := range kept {
		if s, ok := kind.Setting(key); ok && s.Secret {
			all[key] = v
		}
	}
	for key, v := range given {
		all[key] = v
	}
	if _, err := kind.Validate(all); err != nil {
		var bad *connectors.SettingError
		if errors.As(err, &bad) {
			return failAt("/settings/"+jsonPointer(bad.Key), "invalid_setting", "%s", bad.Error())
		}
		return err
	}
	row.Settings = map[string]string{}
	secrets := map[string]string{}
	for key, v := range all {
		s, _ := kind.Setting(key)
		switch {
		case v == "":
		case s.Secret:
			secrets[key] = v
			row.SecretNames = append(row.SecretNames, key)
		default:
			row.Settings[key] = v
		}
	}
	sort.Strings(row.SecretNames)
	row.Sealed, err = sealSecrets(c.a.Vault, owner, *row, secrets)
	return err
}

func deleteConnector(c *call) error {
	a, err := c.own()
	if err != nil {
		return err
	}
	if err := c.a.Store.DeleteAccount(c.ctx(), c.tenant, a.Name); err != nil {
		return err
	}
	c.a.changed(c)
	return c.empty()
}

func pauseConnector(c *call) error  { return c.setPaused(true) }
func resumeConnector(c *call) error { return c.setPaused(false) }

func (c *call) setPaused(paused bool) error {
	a, changed, err := c.changeAccount(func() (a store.Account, changed bool, err error) {
		a, err = c.own()
		if err != nil || a.Paused == paused {
			return a, false, err
		}
		a.Paused, a.PauseReason, a.UpdatedAt = paused, "", c.a.Now()
		if paused {
			a.PauseReason = "paused by " + c.id.key.String()
		}
		return a, true, nil
	})
	if err != nil {
		return err
	}
	if changed {
		c.a.changed(c)
	}
	return c.json(http.StatusOK, c.connector(a))
}

// testConnector proves that a connector works, or says why not. That it does not is an answer, not an error.
func testConnector(c *call) error {
	a, err := c.account()
	if err != nil {
		return err
	}
	if c.a.Operator == nil {
		return noRoute()
	}
	ctx, cancel := context.WithTimeout(c.ctx(), 30*time.Second)
	defer cancel()
	began := time.Now()
	err = c.a.Operator.TestConnector(ctx, c.tenant, a.Name)
	out := sdk.ConnectorTest{OK: err == nil, Detail: "it works", Seconds: time.Since(began).Seconds()}
	if err != nil {
		out.Detail = testDetail(err)
	}
	return c.json(http.StatusOK, out)
}

// testDetail is what may be shown of a failed test: a connector's own words, which hold no secret, and not its cause.
func testDetail(err error) string {
	var f *delivery.Failure
	var bad *connectors.SettingError
	switch {
	case errors.As(err, &f):
		own := *f
		own.Err = nil
		return own.Error()
	case errors.As(err, &bad):
		return bad.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "the provider did not answer within 30 s"
	}
	return clip(err.Error(), 300)
}

func (c *call) connector(a store.Account) sdk.Connector {
	out := sdk.Connector{
		ID: a.ID.String(), Name: a.Name, Kind: a.Kind, Channel: channel(a.Channel), Settings: a.Settings,
		Secrets: a.SecretNames, Priority: a.Priority, Rate: a.Rate, Burst: a.Burst, Shared: shared(a.Tenant), State: "ready",
		CreatedAt: when(a.CreatedAt), UpdatedAt: when(a.UpdatedAt),
	}
	if a.Paused {
		out.State, out.Reason = "paused", a.PauseReason
	}
	if shared(a.Tenant) && !c.id.admin {
		out.Settings, out.Secrets = nil, nil // how the operator reaches a provider is not the tenants' business
		return out
	}
	if kind, ok := c.a.Registry.Kind(a.Kind); ok && kind.Receipts && c.a.PublicURL != "" {
		out.CallbackURL = c.a.PublicURL + "/v1/inbound/" + a.ID.String()
	}
	return out
}
