package campaigns

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// How an expansion runs. Every round each tenant with running campaigns gets one slice of one of them, so that neither
// a tenant with many campaigns nor a campaign with many people keeps the others waiting. Nothing about an expansion is
// kept in memory but whose turn it is and why one stands still: each round reads the campaigns anew, and a slice that
// was stored by somebody else is found out by its cursor. A round without a step waits for a kick or for the next look.
const (
	sliceSize  = 500 // people; with maxVars this bounds a slice to 32 MiB in the worst case
	lookEvery  = 500 * time.Millisecond
	retryAfter = 5 * time.Second  // after an error of the store
	quotaEvery = 30 * time.Second // a used-up quota may be raised before it resets
	// patience is how many times MaxWaiting may wait when most of them wait for a later attempt: a few absent people must
	// not keep the expansion from going on.
	patience = 10
)

// Kick makes the loop of Run look at once.
func (s *Service) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run expands running campaigns until ctx ends; it returns the cause of that. Its work may be cut off anywhere.
func (s *Service) Run(ctx context.Context) error {
	turns := map[delivery.CampaignID]uint64{}
	for turn := uint64(1); ctx.Err() == nil; {
		active, moved := s.round(ctx, turns, &turn)
		if moved {
			continue
		}
		if err := s.wait(ctx, active > 0); err != nil {
			break
		}
	}
	return context.Cause(ctx)
}

// wait returns at a kick, or at the next look when there is something to look at.
func (s *Service) wait(ctx context.Context, looking bool) error {
	var look <-chan time.Time
	if looking {
		t := s.Clock.NewTimer(lookEvery)
		defer t.Stop()
		look = t.Chan()
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.kick:
	case <-look:
	}
	return nil
}

// round makes at most one step per tenant. It returns how many campaigns there are to look at again.
func (s *Service) round(ctx context.Context, turns map[delivery.CampaignID]uint64, turn *uint64) (
	active int, moved bool) {
	list, err := s.Store.ActiveCampaigns(ctx, store.AsSystem("campaign expansion"))
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("cannot list campaigns", "err", err)
		}
		return 1, false
	}
	tenants := map[delivery.TenantID][]store.Campaign{}
	running := make(map[delivery.CampaignID]bool, len(list))
	for _, c := range list {
		running[c.ID] = true
		if s.Mine(c.ID) {
			tenants[c.Tenant] = append(tenants[c.Tenant], c)
		}
	}
	for id := range turns {
		if !running[id] {
			delete(turns, id)
		}
	}
	s.releaseAllBut(running)
	for _, own := range tenants {
		// Those that have not had a turn for longest go first.
		for len(own) > 0 && ctx.Err() == nil {
			next := 0
			for i := range own {
				if turns[own[i].ID] < turns[own[next].ID] {
					next = i
				}
			}
			c := own[next]
			own = append(own[:next], own[next+1:]...)
			if s.step(ctx, c) {
				*turn++
				turns[c.ID] = *turn
				moved = true
				break
			}
		}
	}
	return len(list), moved
}

// step makes one slice of a campaign, or ends it. It reports whether anything was done.
func (s *Service) step(ctx context.Context, c store.Campaign) bool {
	now := s.Clock.Now()
	if h, ok := s.heldNow(c.ID); ok && now.Before(h.Until) {
		return false
	}
	done, err := s.advance(ctx, c, now)
	var quota *store.QuotaError
	switch {
	case err == nil:
		if done {
			s.release(c.ID)
		}
		return done
	case ctx.Err() != nil:
		return false
	case errors.Is(err, store.ErrConflict): // paused or stopped meanwhile, or the slice is stored already
		return false
	case errors.As(err, &quota):
		until := now.Add(quotaEvery)
		if quota.Resets.After(now) && quota.Resets.Before(until) {
			until = quota.Resets
		}
		s.hold(c, Held{"quota", until}, err)
	case errors.Is(err, store.ErrUnavailable):
		s.hold(c, Held{"storage_unavailable", now.Add(retryAfter)}, err)
	case errors.Is(err, store.ErrOutcomeUnknown):
		s.hold(c, Held{"storage_unavailable", now.Add(lookEvery)}, err)
	case errors.Is(err, errNoAccount):
		s.hold(c, Held{ProblemAccountMissing, now.Add(retryAfter)}, err)
	case errors.Is(err, errNoAudience):
		s.hold(c, Held{ProblemAudienceMissing, now.Add(retryAfter)}, err)
	default:
		s.hold(c, Held{"error", now.Add(retryAfter)}, err)
	}
	return false
}

var (
	errNoAccount  = errors.New("a pinned connector is gone")
	errNoAudience = errors.New("the audience is gone")
)

// advance does the next thing for a running campaign, if there is anything to do now.
func (s *Service) advance(ctx context.Context, c store.Campaign, now time.Time) (bool, error) {
	tally, err := s.Store.Tally(ctx, c.Tenant, c.ID)
	if err != nil {
		return false, err
	}
	waiting, patient := countWaiting(tally)
	if c.Expanded {
		if waiting > 0 {
			return false, nil
		}
		c.EndedAt = now
		from := []store.CampaignState{store.CampaignRunning}
		_, err := s.Store.MoveCampaign(ctx, c.Tenant, c, from, store.CampaignCompleted, now)
		if err == nil {
			s.Log.Info("campaign completed", "tenant", c.Tenant, "campaign", c.ID.String())
		}
		return err == nil, err
	}
	room := min(sliceSize, s.MaxWaiting-(waiting-patient), patience*s.MaxWaiting-waiting)
	if room <= 0 || room < min(sliceSize, s.MaxWaiting)/2 { // no slices of a few people each
		return false, nil
	}
	if s.Yield() { // the next look tries again
		return false, nil
	}
	err = s.expand(ctx, c, room, now)
	var quota *store.QuotaError
	if errors.As(err, &quota) {
		if left := quota.Limit - quota.Used; left > 0 && left < quota.Asked {
			return true, s.expand(ctx, c, int(left), now) // the rest of the day's quota
		}
	}
	return err == nil, err
}

// expand makes the next slice of at most limit people durable.
func (s *Service) expand(ctx context.Context, c store.Campaign, limit int, now time.Time) error {
	people, err := s.Store.People(ctx, c.Tenant, c.Audience, c.Cursor, limit)
	if errors.Is(err, store.ErrNotFound) {
		return errNoAudience
	}
	if err != nil {
		return err
	}
	slice := store.Slice{Now: now, From: c.Cursor, To: c.Cursor, Done: len(people) < limit}
	if len(people) > 0 {
		slice.To = people[len(people)-1].Seq
		if slice.Messages, slice.Skipped, err = s.messages(ctx, c, people, now); err != nil {
			return err
		}
	}
	accepted, err := s.Store.Expand(ctx, c.Tenant, c.ID, slice)
	if err != nil {
		return err
	}
	s.hint(c, slice.Messages, accepted.Results)
	return nil
}

// messages makes one message for each person that a leg reaches.
func (s *Service) messages(ctx context.Context, c store.Campaign, people []store.Person, now time.Time) (
	[]store.NewMessage, map[string]int, error) {
	accounts, err := s.pinned(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	heads := make([][]byte, len(c.Legs))
	for i, leg := range c.Legs {
		heads[i] = draftHead(leg)
	}
	ttl := c.TTL
	if ttl <= 0 {
		ttl = defaultTTL
	}
	out := make([]store.NewMessage, 0, len(people))
	var skipped map[string]int
	for i := range people {
		p := &people[i]
		at, to, ok := legFor(p, c.Legs)
		if !ok {
			if skipped == nil {
				skipped = map[string]int{}
			}
			skipped[skipNoAddress]++
			continue
		}
		m := store.NewMessage{
			ID: s.IDs.Message(), Channel: c.Legs[at].Channel, Lane: delivery.Bulk, To: to,
			Payload: draft(heads[at], p.Vars), Segments: 1, Account: accounts[at], Campaign: c.ID,
			DueAt: now, ExpiresAt: now.Add(ttl),
		}
		if m.Channel == delivery.SMS {
			m.Segments = s.segments(ctx, c.Tenant, c.Legs[at], p)
		}
		out = append(out, m)
	}
	return out, skipped, nil
}

// pinned returns the account of each leg; zero where routing chooses.
func (s *Service) pinned(ctx context.Context, c store.Campaign) ([]delivery.AccountID, error) {
	ids := make([]delivery.AccountID, len(c.Legs))
	var accounts []store.Account
	for i, leg := range c.Legs {
		if leg.Account == "" {
			continue
		}
		if accounts == nil {
			var err error
			if accounts, err = s.Store.AccountList(ctx, c.Tenant); err != nil {
				return nil, err
			}
		}
		a, ok := findAccount(accounts, leg.Account)
		if !ok {
			return nil, errNoAccount
		}
		ids[i] = a.ID
	}
	return ids, nil
}

// draftHead is the JSON of a leg's delivery.Draft without the variables and the closing brace.
func draftHead(leg store.Leg) []byte {
	b := append([]byte(nil), `{"template":`...)
	b = strconv.AppendQuote(b, leg.Template) // a template's name has only letters, digits and dashes
	b = append(b, `,"version":`...)
	return strconv.AppendInt(b, int64(leg.Version), 10)
}

// draft puts a person's variables, which are JSON already, behind a head.
func draft(head, vars []byte) []byte {
	if len(vars) == 0 {
		return append(append(make([]byte, 0, len(head)+1), head...), '}')
	}
	b := make([]byte, 0, len(head)+len(`,"vars":}`)+len(vars))
	b = append(b, head...)
	b = append(b, `,"vars":`...)
	b = append(b, vars...)
	return append(b, '}')
}

// hint tells the pipeline what can go now, queue by queue.
func (s *Service) hint(c store.Campaign, messages []store.NewMessage, results []store.AcceptResult) {
	if len(results) != len(messages) {
		return // the sweeper finds them
	}
	queues := map[delivery.Channel][]store.AcceptResult{}
	for i, r := range results {
		if r.Status == delivery.StatusQueued {
			queues[messages[i].Channel] = append(queues[messages[i].Channel], r)
		}
	}
	for ch, ready := range queues {
		s.Accepted(ready, delivery.Queue{Tenant: c.Tenant, Channel: ch, Lane: delivery.Bulk})
	}
}

// countWaiting counts the messages before their hand-off, and those among them that wait for a later attempt.
func countWaiting(t store.Tally) (waiting, patient int) {
	for _, statuses := range t {
		for status, n := range statuses {
			if status.Waiting() {
				waiting += n
			}
		}
		patient += statuses[delivery.StatusDeferred] + statuses[delivery.StatusAmbiguous]
	}
	return waiting, patient
}

func (s *Service) heldNow(id delivery.CampaignID) (Held, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[id]
	return h, ok
}

// hold keeps a campaign from being looked at for a while. It logs each reason once.
func (s *Service) hold(c store.Campaign, h Held, err error) {
	s.mu.Lock()
	was := s.held[c.ID]
	s.held[c.ID] = h
	s.mu.Unlock()
	if was.Reason != h.Reason {
		s.Log.Warn("campaign is held", "tenant", c.Tenant, "campaign", c.ID.String(), "reason", h.Reason, "until", h.Until,
			"err", err)
	}
}

func (s *Service) release(id delivery.CampaignID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, id)
}

// releaseAllBut forgets why campaigns stood still that do not run any more.
func (s *Service) releaseAllBut(running map[delivery.CampaignID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.held {
		if !running[id] {
			delete(s.held, id)
		}
	}
}
