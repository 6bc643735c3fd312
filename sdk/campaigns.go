package sdk

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// Campaigns sends a template to every person of an audience. A campaign goes by its name or id.
type Campaigns struct{ c *Client }

// Create stores a draft: nothing is sent before Start.
func (s Campaigns) Create(ctx context.Context, r CampaignRequest) (*Campaign, error) {
	return send[Campaign](ctx, s.c, http.MethodPost, nil, r, "campaigns")
}

// List returns all, newest first.
func (s Campaigns) List(ctx context.Context) ([]Campaign, error) {
	return listAll[Campaign](ctx, s.c, "campaigns")
}

// Get returns one.
func (s Campaigns) Get(ctx context.Context, name string) (*Campaign, error) {
	return send[Campaign](ctx, s.c, http.MethodGet, nil, nil, "campaigns", name)
}

// Check plans a campaign without sending anything.
func (s Campaigns) Check(ctx context.Context, name string) (*CampaignCheck, error) {
	return act[CampaignCheck](ctx, s.c, "campaigns", name, "check", nil)
}

// Start begins to send.
func (s Campaigns) Start(ctx context.Context, name string) (*Campaign, error) {
	return s.act(ctx, name, "start")
}

// Pause holds what is not handed over yet.
func (s Campaigns) Pause(ctx context.Context, name string) (*Campaign, error) {
	return s.act(ctx, name, "pause")
}

// Resume goes on after Pause.
func (s Campaigns) Resume(ctx context.Context, name string) (*Campaign, error) {
	return s.act(ctx, name, "resume")
}

// Stop cancels what is not handed over yet, for good.
func (s Campaigns) Stop(ctx context.Context, name string) (*Campaign, error) {
	return s.act(ctx, name, "stop")
}

// Report counts where everyone is.
func (s Campaigns) Report(ctx context.Context, name string) (*CampaignReport, error) {
	return send[CampaignReport](ctx, s.c, http.MethodGet, nil, nil, "campaigns", name, "report")
}

// moved are the states in which a campaign is after an action.
var moved = map[string][]string{
	"start": {"running", "completed"}, "pause": {"paused"}, "resume": {"running", "completed"}, "stop": {"stopped"},
}

// act does an action. When the answer to a try was lost, the next one may be told that it cannot be done a second time:
// then the campaign's state says whether it was done.
func (s Campaigns) act(ctx context.Context, name, action string) (*Campaign, error) {
	path, err := pathTo("campaigns", name)
	if err != nil {
		return nil, err
	}
	out, repeated := new(Campaign), false
	err = s.c.do(ctx, call{method: http.MethodPost, path: path + ":" + action, repeated: &repeated}, out)
	if repeated && errors.Is(err, ErrConflict) {
		if now, look := s.Get(ctx, name); look == nil && slices.Contains(moved[action], now.State) {
			return now, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}
