package campaigns

import (
	"context"
	"encoding/json"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sms"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// segments counts the SMS parts that a person's message will have. Limits count parts, and they are asked before the
// message is rendered for good; so it is rendered once here, to be counted. A message that cannot be rendered counts as
// one: it will end with that reason, and in its own place.
func (s *Service) segments(ctx context.Context, tenant delivery.TenantID, leg store.Leg, p *store.Person) int {
	set, err := s.sets.Get(ctx, tenant, leg.Template, leg.Version, func(ctx context.Context) (templates.Source, error) {
		t, err := s.Store.Template(ctx, tenant, leg.Template, leg.Version)
		return source(t), err
	})
	if err != nil {
		return 1
	}
	var vars map[string]any
	if json.Unmarshal(p.Vars, &vars) != nil {
		return 1
	}
	content, err := set.Render(vars)
	if err != nil {
		return 1
	}
	n, _ := sms.Count(content.Text)
	return max(n, 1)
}
