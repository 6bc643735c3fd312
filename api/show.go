package api

import (
	"time"

	"github.com/go-json-experiment/json"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// names knows what people call the accounts and campaigns that rows name by id.
type names struct {
	c         *call
	accounts  map[delivery.AccountID]string
	campaigns map[delivery.CampaignID]string
}

// names reads the accounts of the caller's tenant.
func (c *call) names() (*names, error) {
	list, err := c.a.Store.AccountList(c.ctx(), c.tenant)
	if err != nil {
		return nil, err
	}
	n := &names{c: c, accounts: make(map[delivery.AccountID]string, len(list)),
		campaigns: map[delivery.CampaignID]string{}}
	for _, a := range list {
		n.accounts[a.ID] = a.Name
	}
	return n, nil
}

// account returns an account's name, or its id when it was deleted.
func (n *names) account(id delivery.AccountID) string {
	if id == (delivery.AccountID{}) {
		return ""
	}
	if name, ok := n.accounts[id]; ok {
		return name
	}
	return id.String()
}

func (n *names) campaign(id delivery.CampaignID) string {
	if id.IsZero() {
		return ""
	}
	name, ok := n.campaigns[id]
	if !ok {
		name = id.String()
		if cmp, err := n.c.a.Store.Campaign(n.c.ctx(), n.c.tenant, name); err == nil {
			name = cmp.Name
		}
		n.campaigns[id] = name
	}
	return name
}

// message is a stored message as the API shows it.
func (n *names) message(m store.Message) sdk.Message {
	var draft struct {
		Template string `json:"template"`
		Version  int    `json:"version"`
	}
	_ = json.Unmarshal(m.Payload, &draft) // the engine wrote it; without it only the template's name is missing
	return sdk.Message{
		ID: m.ID.String(), Channel: channel(m.Channel), Lane: sdk.Lane(m.Lane.String()),
		Status: sdk.Status(m.Status.String()), Reason: m.Reason, Detail: m.Detail, To: m.To,
		Template: draft.Template, TemplateVersion: draft.Version, Segments: m.Segments,
		Connector: n.account(m.Account), Campaign: n.campaign(m.Campaign), ProviderID: m.ProviderID,
		ClientRef: m.ClientRef, Category: m.Category, Tag: m.Tag, OrderingKey: m.OrderingKey,
		Leg: m.Leg, Legs: n.legs(m.Legs), Dropped: m.Dropped, Attempts: m.Attempts, PossibleDuplicate: m.PossibleDuplicate,
		AcceptedAt: when(m.AcceptedAt), UpdatedAt: when(m.UpdatedAt), DueAt: when(m.DueAt), ExpiresAt: when(m.ExpiresAt),
	}
}

// legs shows what became of each leg, of a message that has more than one.
func (n *names) legs(legs []store.MessageLeg) []sdk.LegState {
	out := make([]sdk.LegState, 0, len(legs))
	for _, l := range legs {
		s := legState(l.Channel, l.To, l.Within, l.Success)
		if l.Status != 0 {
			s.Status = sdk.Status(l.Status.String())
		}
		s.Reason, s.Connector, s.ProviderID = l.Reason, n.account(l.Account), l.ProviderID
		s.Deadline, s.Winner = when(l.Until), l.Winner
		out = append(out, s)
	}
	return out
}

// legState is what a leg was asked to be.
func legState(ch delivery.Channel, to string, within time.Duration, success delivery.Status) sdk.LegState {
	s := sdk.LegState{Channel: channel(ch), To: to}
	if within > 0 {
		s.Within = short(within)
	}
	if success != 0 {
		s.Until = sdk.Status(success.String())
	}
	return s
}

func (n *names) fact(f delivery.Fact) sdk.Fact {
	return sdk.Fact{
		At: f.At.UTC(), Kind: f.Kind.String(), Status: sdk.Status(f.Status.String()), Attempt: f.Attempt,
		Connector: n.account(f.Account), Code: f.Code, Detail: f.Detail, Route: f.Route, Content: f.Content, Leg: f.Leg,
		Until: when(f.Until),
	}
}

// when is an instant as the API shows it: nil when it never was.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// channel is a channel as the API shows it: "" for all of them.
func channel(ch delivery.Channel) sdk.Channel {
	if ch == 0 {
		return ""
	}
	return sdk.Channel(ch.String())
}
