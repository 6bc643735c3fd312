package sdk

import (
	"context"
	"net/http"
)

// Connectors holds the accounts at providers.
type Connectors struct{ c *Client }

// Types returns the kinds of connectors and their settings.
func (s Connectors) Types(ctx context.Context) ([]ConnectorType, error) {
	return listAll[ConnectorType](ctx, s.c, "connector-types")
}

// Put makes or replaces a connector. A secret setting that is left out keeps its value.
func (s Connectors) Put(ctx context.Context, name string, r ConnectorRequest) (*Connector, error) {
	return send[Connector](ctx, s.c, http.MethodPut, nil, r, "connectors", name)
}

// List returns the tenant's own connectors and those shared with it.
func (s Connectors) List(ctx context.Context) ([]Connector, error) {
	return listAll[Connector](ctx, s.c, "connectors")
}

// Get returns one.
func (s Connectors) Get(ctx context.Context, name string) (*Connector, error) {
	return send[Connector](ctx, s.c, http.MethodGet, nil, nil, "connectors", name)
}

// Test asks the provider whether a send could work now, without sending.
func (s Connectors) Test(ctx context.Context, name string) (*ConnectorTest, error) {
	return act[ConnectorTest](ctx, s.c, "connectors", name, "test", nil)
}

// Pause stops traffic through one.
func (s Connectors) Pause(ctx context.Context, name string) (*Connector, error) {
	return act[Connector](ctx, s.c, "connectors", name, "pause", nil)
}

// Resume lets traffic through again.
func (s Connectors) Resume(ctx context.Context, name string) (*Connector, error) {
	return act[Connector](ctx, s.c, "connectors", name, "resume", nil)
}

// Delete removes one.
func (s Connectors) Delete(ctx context.Context, name string) error {
	return s.c.delete(ctx, nil, "connectors", name)
}
