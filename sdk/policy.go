package sdk

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// rules is the form in which lists of rules travel.
type rules[T any] struct {
	Rules []T `json:"rules"`
}

// Routes are a tenant's routing rules.
type Routes struct{ c *Client }

// List returns the rules in their order.
func (s Routes) List(ctx context.Context) ([]Route, error) {
	return listRules[Route](ctx, s.c, "routes")
}

// Set replaces all rules; an empty list leaves routing to the connectors' priorities.
func (s Routes) Set(ctx context.Context, list []Route) ([]Route, error) {
	return setRules(ctx, s.c, list, "routes")
}

// Explain says by which connector a message would go now, and why.
func (s Routes) Explain(ctx context.Context, q RouteQuery) (*RouteExplanation, error) {
	return verb[RouteExplanation](ctx, s.c, "routes", "explain", q)
}

// Retries are a tenant's schedules after failures.
type Retries struct{ c *Client }

// List returns the rules in their order; none = the engine's own schedule.
func (s Retries) List(ctx context.Context) ([]RetryRule, error) {
	return listRules[RetryRule](ctx, s.c, "retries")
}

// Set replaces all rules.
func (s Retries) Set(ctx context.Context, list []RetryRule) ([]RetryRule, error) {
	return setRules(ctx, s.c, list, "retries")
}

func listRules[T any](ctx context.Context, c *Client, noun string) ([]T, error) {
	r, err := send[rules[T]](ctx, c, http.MethodGet, nil, nil, noun)
	if err != nil {
		return nil, err
	}
	return r.Rules, nil
}

func setRules[T any](ctx context.Context, c *Client, list []T, noun string) ([]T, error) {
	if list == nil {
		list = []T{}
	}
	r, err := send[rules[T]](ctx, c, http.MethodPut, nil, rules[T]{list}, noun)
	if err != nil {
		return nil, err
	}
	return r.Rules, nil
}

// Receipts shows what providers reported.
type Receipts struct{ c *Client }

// Unmatched yields the reports for which no message is known yet. An error ends it.
func (s Receipts) Unmatched(ctx context.Context) iter.Seq2[UnmatchedReceipt, error] {
	return all("", func(cursor string) (*Page[UnmatchedReceipt], error) {
		v := url.Values{}
		set(v, "cursor", cursor)
		return send[Page[UnmatchedReceipt]](ctx, s.c, http.MethodGet, v, nil, "receipts", "unmatched")
	})
}
