package engine

import (
	"context"

	"github.com/msgctl/msgctl/api"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
)

// routes answers the API's questions about routing with what the pipeline would do.
type routes struct{ pipeline *pipeline.Pipeline }

// ExplainRoute implements api.Routes.
func (r routes) ExplainRoute(
	ctx context.Context, tenant delivery.TenantID, q api.RouteQuestion,
) (api.RouteAnswer, error) {
	e, err := r.pipeline.ExplainRoute(ctx, tenant, routing.Query{
		Channel: q.Channel, To: q.To, Category: q.Category, Tag: q.Tag,
	})
	if err != nil {
		return api.RouteAnswer{}, err
	}
	out := api.RouteAnswer{Rule: e.Rule}
	if e.Account != nil {
		out.Connector = e.Account.Name
	}
	for _, c := range e.Candidates {
		out.Candidates = append(out.Candidates, api.RouteCandidate{
			Connector: c.Connector, Weight: c.Weight, State: c.State, Detail: c.Detail, Until: c.Until, Failing: c.Failing,
		})
	}
	return out, nil
}
