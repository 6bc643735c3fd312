package api

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// storeDeadline is how long the store may take to prove that it can be written.
const storeDeadline = 2 * time.Second

// healthz says that the process runs and answers. It looks at nothing else: a restart would mend nothing else.
func healthz(c *call) error {
	c.write(http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	return nil
}

// readyz says whether the engine can take messages now.
func readyz(c *call) error {
	h := sdk.Health{OK: true, Version: c.a.Version, Parts: map[string]string{"store": "ok"}}
	ctx, cancel := context.WithTimeout(c.ctx(), storeDeadline)
	defer cancel()
	if err := c.a.Store.Check(ctx); err != nil {
		c.a.Log.Warn("the store cannot be written", "err", err)
		h.Parts["store"] = "cannot be written"
	}
	if c.a.Parts != nil {
		maps.Copy(h.Parts, c.a.Parts(ctx))
	}
	status := http.StatusOK
	for _, state := range h.Parts {
		if state != "ok" {
			h.OK, status = false, http.StatusServiceUnavailable
		}
	}
	if c.a.Aids != nil {
		maps.Copy(h.Parts, c.a.Aids(ctx))
	}
	return c.json(status, h)
}

// build is the answer of GET /version.
type build struct {
	Version string `json:"version"`
}

func version(c *call) error { return c.json(http.StatusOK, build{c.a.Version}) }

func metrics(c *call) error {
	if c.a.Metrics == nil {
		return noRoute()
	}
	c.status = http.StatusOK
	c.a.Metrics.ServeHTTP(c.w, c.r)
	return nil
}

func openAPIDocument(c *call) error {
	c.write(http.StatusOK, "application/json", c.a.openapi)
	return nil
}

func docs(c *call) error {
	c.w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	c.write(http.StatusOK, "text/html; charset=utf-8", c.a.docs)
	return nil
}
