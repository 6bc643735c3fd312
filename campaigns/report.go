package campaigns

import (
	"context"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Report says what became of every person of a campaign.
type Report struct {
	Campaign  store.Campaign
	People    int // of the audience, at start
	Accepted  int // messages made
	ToExpand  int // people without a message yet; of a stopped campaign: who never get one
	Waiting   int // of Accepted, those before their hand-off
	Skipped   map[string]int
	ByStatus  map[delivery.Status]int
	ByChannel store.Tally
	Held      Held // why the expansion stands still now; zero = it does not
	At        time.Time
}

// Report counts a campaign's people. What a campaign that completed has sent may still get receipts: completed means
// that every message has been handed off or has ended.
func (s *Service) Report(ctx context.Context, tenant delivery.TenantID, name string) (Report, error) {
	// The campaign is read before the tally: what is expanded between the two counts as accepted, so that the sums are
	// those of a moment in between.
	c, err := s.Store.Campaign(ctx, tenant, name)
	if err != nil {
		return Report{}, err
	}
	r := Report{Campaign: c, People: c.People, Skipped: c.Skipped, ByStatus: map[delivery.Status]int{}, At: s.Clock.Now()}
	if c.State == store.CampaignDraft {
		if a, err := s.Store.Audience(ctx, tenant, c.Audience); err == nil {
			r.People = a.People
		}
	}
	if r.ByChannel, err = s.Store.Tally(ctx, tenant, c.ID); err != nil {
		return Report{}, err
	}
	for _, statuses := range r.ByChannel {
		for status, n := range statuses {
			r.ByStatus[status] += n
			r.Accepted += n
		}
	}
	r.Waiting, _ = countWaiting(r.ByChannel)
	r.ToExpand = r.People - r.Accepted - sum(r.Skipped)
	if c.State == store.CampaignRunning {
		r.Held, _ = s.heldNow(c.ID)
	}
	return r, nil
}

// Sums proves that nobody is counted twice or not at all: People = Accepted + Skipped + ToExpand, Accepted = the sum by
// status, and nobody is left to expand once the expansion has ended.
func (r Report) Sums() error {
	accepted, waiting := 0, 0
	for status, n := range r.ByStatus {
		accepted += n
		if status.Waiting() {
			waiting += n
		}
	}
	skipped := sum(r.Skipped)
	switch {
	case accepted != r.Accepted:
		return fmt.Errorf("accepted is %d, the statuses add up to %d", r.Accepted, accepted)
	case waiting != r.Waiting:
		return fmt.Errorf("waiting is %d, the statuses add up to %d", r.Waiting, waiting)
	case r.ToExpand < 0:
		return fmt.Errorf("%d messages and %d skipped are more than %d people", r.Accepted, skipped, r.People)
	case r.People != r.Accepted+skipped+r.ToExpand:
		return fmt.Errorf("%d people are not %d messages, %d skipped and %d to expand",
			r.People, r.Accepted, skipped, r.ToExpand)
	case r.Campaign.Expanded && r.ToExpand != 0:
		return fmt.Errorf("the expansion has ended and %d people have no message", r.ToExpand)
	case r.Campaign.State == store.CampaignCompleted && r.Waiting != 0:
		return fmt.Errorf("the campaign has completed and %d messages wait", r.Waiting)
	}
	return nil
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
