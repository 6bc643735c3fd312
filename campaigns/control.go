package campaigns

import (
	"context"
	"errors"
	"fmt"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The actions on a campaign.
const (
	ActionStart  = "start"
	ActionPause  = "pause"
	ActionResume = "resume"
	ActionStop   = "stop"
)

// Actions lists what can be done with a campaign in a state.
func Actions(state store.CampaignState) []string {
	switch state {
	case store.CampaignDraft:
		return []string{ActionStart, ActionStop}
	case store.CampaignRunning:
		return []string{ActionPause, ActionStop}
	case store.CampaignPaused:
		return []string{ActionResume, ActionStop}
	}
	return nil
}

// Start pins the newest version of every template that has none pinned, and lets the expansion begin. Of several
// starts at once one wins; the others get a *StateError, as does a start of a campaign that is no draft. What would
// keep it from sending is a *BlockedError; people are not looked at one by one, that is what Check does.
func (s *Service) Start(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error) {
	c, err := s.Store.Campaign(ctx, tenant, name)
	if err != nil {
		return store.Campaign{}, err
	}
	if c.State != store.CampaignDraft {
		return c, refused(ActionStart, c)
	}
	p, err := s.lookUp(ctx, tenant, c)
	if err != nil {
		return c, err
	}
	if len(p.problems) > 0 {
		return c, &BlockedError{p.problems}
	}
	c.Legs = p.legs
	c.People = p.audience.People
	c.StartedAt = s.Clock.Now()
	c, err = s.move(ctx, ActionStart, c, store.CampaignRunning, store.CampaignDraft)
	if err == nil {
		s.Kick()
	}
	return c, err
}

// Pause keeps every message of the campaign that waits from its hand-off, and the expansion from going on. Messages
// that are with a provider by then end as they do. *StateError when the campaign does not run.
func (s *Service) Pause(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error) {
	c, err := s.act(ctx, tenant, name, ActionPause, store.CampaignPaused, store.CampaignRunning)
	if err == nil {
		s.PausedChanged(c.ID, true)
	}
	return c, err
}

// Resume goes on where Pause stopped. *StateError when the campaign is not paused.
func (s *Service) Resume(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error) {
	c, err := s.act(ctx, tenant, name, ActionResume, store.CampaignRunning, store.CampaignPaused)
	if err == nil {
		s.PausedChanged(c.ID, false)
		s.Kick()
	}
	return c, err
}

// Stop ends a campaign for good: messages that wait are canceled, people not yet expanded get none. *StateError when
// it has completed or been stopped before.
func (s *Service) Stop(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error) {
	c, err := s.act(ctx, tenant, name, ActionStop, store.CampaignStopped,
		store.CampaignDraft, store.CampaignRunning, store.CampaignPaused)
	if err == nil {
		s.PausedChanged(c.ID, true)
	}
	return c, err
}

func (s *Service) act(ctx context.Context, tenant delivery.TenantID, name, action string, to store.CampaignState,
	from ...store.CampaignState) (store.Campaign, error) {
	c, err := s.Store.Campaign(ctx, tenant, name)
	if err != nil {
		return store.Campaign{}, err
	}
	return s.move(ctx, action, c, to, from...)
}

func (s *Service) move(ctx context.Context, action string, c store.Campaign, to store.CampaignState,
	from ...store.CampaignState) (store.Campaign, error) {
	was := c.State
	moved, err := s.Store.MoveCampaign(ctx, c.Tenant, c, from, to, s.Clock.Now())
	switch {
	case errors.Is(err, store.ErrConflict):
		return moved, refused(action, moved)
	case err != nil:
		return c, err
	}
	if to != store.CampaignRunning {
		s.release(c.ID)
	}
	s.Log.Info("campaign moved", "action", action, "tenant", c.Tenant, "campaign", c.ID.String(), "from", was, "to", to)
	return moved, nil
}

func refused(action string, c store.Campaign) error {
	return &StateError{Action: action, State: c.State, Actions: Actions(c.State)}
}

// DeleteAudience removes an audience together with the list of its rejected rows. Errors: store.ErrNotFound,
// store.ErrConflict while a running or paused campaign uses it, ErrImporting.
func (s *Service) DeleteAudience(ctx context.Context, tenant delivery.TenantID, name string) error {
	if err := checkName(tenant, name); err != nil {
		return fmt.Errorf("audience: %w", store.ErrNotFound)
	}
	release, err := s.claimName(tenant, name)
	if err != nil {
		return err
	}
	defer release()
	if err := s.Store.DeleteAudience(ctx, tenant, name); err != nil {
		return err
	}
	return removeRejected(s.Dir, tenant, name)
}
