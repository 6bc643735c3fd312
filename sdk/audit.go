package sdk

import (
	"context"
	"net/http"
	"net/url"
)

// Audits proves the books.
type Audits struct{ c *Client }

// Verify recounts everything of the client's tenant.
func (s Audits) Verify(ctx context.Context) (*Audit, error) {
	return send[Audit](ctx, s.c, http.MethodGet, nil, nil, "audit")
}

// VerifyTenant recounts everything of one tenant. Operators only.
func (s Audits) VerifyTenant(ctx context.Context, tenant string) (*Audit, error) {
	return send[Audit](ctx, s.c, http.MethodGet, url.Values{"tenant": {tenant}}, nil, "audit")
}

// Whoami says whom the client's key belongs to.
func (c *Client) Whoami(ctx context.Context) (*Identity, error) {
	return send[Identity](ctx, c, http.MethodGet, nil, nil, "whoami")
}

// Health says whether the engine and each of its parts work. An engine that does not is an answer, not an error.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	out := new(Health)
	if err := c.do(ctx, call{method: http.MethodGet, path: "/readyz", unready: true}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Version returns the engine's version.
func (c *Client) Version(ctx context.Context) (string, error) {
	var out struct {
		Version string `json:"version"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/version"}, &out)
	return out.Version, err
}
