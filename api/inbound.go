package api

import (
	"bytes"
	"errors"
	"mime"
	"net/http"
	"net/url"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// inbound takes a provider's report. There is no API key: the connector verifies the request. The answer is 200 only
// when everything in it is durable, so that a provider repeats what was lost.
func inbound(c *call) error {
	if c.a.Callbacks == nil {
		return noRoute()
	}
	id, err := delivery.ParseAccountID(c.vars[0])
	if err != nil {
		return noRoute()
	}
	buf := c.a.buffer()
	defer c.a.release(buf)
	if err := c.readBody(buf, c.a.Limits.Body); err != nil {
		return err
	}
	if err := singleParameters(c.r, buf.Bytes()); err != nil {
		return err
	}
	reply, err := c.a.Callbacks.Callback(c.ctx(), id, &connectors.Callback{
		Method: c.r.Method, URL: c.publicURL(), Header: c.r.Header, Body: bytes.Clone(buf.Bytes()), Now: c.a.Now(),
	})
	switch {
	case errors.Is(err, connectors.ErrForged):
		return fail("callback_forged", "the request is not signed by the provider with this connector's secret")
	case errors.Is(err, connectors.ErrMalformed):
		return fail("invalid_callback", "the report is signed rightly and cannot be read")
	case errors.Is(err, store.ErrNotFound):
		return noRoute()
	case err != nil:
		return err
	}
	kind := "text/plain; charset=utf-8"
	if len(reply) > 0 && (reply[0] == '{' || reply[0] == '[') {
		kind = "application/json"
	}
	c.write(http.StatusOK, kind, reply)
	return nil
}

// singleParameters refuses a parameter that is given twice, in the query or in a form: two readers could take two
// different values, and a signature over the sorted parameters would fit both.
func singleParameters(r *http.Request, body []byte) error {
	twice := func(v url.Values) error {
		for name, values := range v {
			if len(values) > 1 {
				return failAt(clip(name, 80), "duplicate_parameter", "the parameter %s is given %d times", quoted(name),
					len(values))
			}
		}
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fail("invalid_callback", "the query cannot be read")
	}
	if err := twice(query); err != nil {
		return err
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/x-www-form-urlencoded" {
		return nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return fail("invalid_callback", "the form cannot be read")
	}
	return twice(form)
}

// publicURL is the URL as the provider called it.
func (c *call) publicURL() string {
	if c.a.PublicURL != "" {
		return c.a.PublicURL + c.r.URL.RequestURI()
	}
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.r.Host + c.r.URL.RequestURI()
}
