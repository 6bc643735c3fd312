package sdk

import (
	"context"
	"net/http"
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

func (s Campaigns) act(ctx context.Context, name, action string) (*Campaign, error) {
	return act[Campaign](ctx, s.c, "campaigns", name, action, nil)
}
