//go:build unix

package crash

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// campaign is one campaign over four channels on its way.
type campaign struct {
	l     *lab
	name  string
	asked []Request
	from  int // ledger entries before it
}

// newCampaign imports an audience of ordinary people, a quarter for each channel, and makes a campaign for it. n tells
// campaigns of one lab apart: no two write to the same person.
func (l *lab) newCampaign(n int) *campaign {
	l.t.Helper()
	c := &campaign{l: l, name: fmt.Sprintf("crash-%d", n), from: len(l.sim.seen())}
	for i := range *people {
		c.asked = append(c.asked, Request{Address: person(n**people + i)})
	}
	got, err := l.client.Audiences.Import(l.ctx, c.name, l.rows(c.asked), sdk.ImportOptions{})
	l.NoError(err)
	l.Equal(*people, got.People, "%+v", got)
	l.templates()
	_, err = l.client.Campaigns.Create(l.ctx, campaignRequest(c.name))
	l.NoError(err)
	return c
}

// rows writes people as CSV.
func (l *lab) rows(people []Request) io.Reader {
	var csv bytes.Buffer
	csv.WriteString("channel,phone,email,url,first_name\n")
	for i, p := range people {
		cells := map[string]string{p.Channel: p.To}
		if p.Channel == "webhook" {
			cells[p.Channel] = l.sim.at.HTTP + p.To
		}
		fmt.Fprintf(&csv, "%s,%s,%s,%s,Ada%d\n",
			p.Channel, cells["sms"]+cells["whatsapp"], cells["email"], cells["webhook"], i)
	}
	return &csv
}

// templates stores what the campaigns of a lab send, one for each channel.
func (l *lab) templates() {
	l.t.Helper()
	for name, t := range map[string]sdk.TemplateRequest{
		"crash-sms":   {Channel: sdk.ChannelSMS, Text: "Hello {{ first_name }}"},
		"crash-wa":    {Channel: sdk.ChannelWhatsApp, Text: "Hello {{ first_name }}"},
		"crash-email": {Channel: sdk.ChannelEmail, Subject: "Hello", Text: "Hello {{ first_name }}"},
		"crash-hook":  {Channel: sdk.ChannelWebhook, Event: "greeting", Data: `{"name": "{{ first_name }}"}`},
	} {
		_, err := l.client.Templates.Put(l.ctx, name, t)
		l.NoError(err)
	}
}

// campaignRequest makes a campaign over all four channels to the audience of the same name.
func campaignRequest(name string) sdk.CampaignRequest {
	return sdk.CampaignRequest{
		Name: name, Audience: name, Templates: []string{"crash-sms", "crash-wa", "crash-email", "crash-hook"},
	}
}

// person returns the address of the nth person, as the ledger names it. None of them is a magic recipient.
func person(n int) Address {
	switch n % 4 {
	case 0:
		return Address{"sms", fmt.Sprintf("+14152%06d", n/4)}
	case 1:
		return Address{"whatsapp", fmt.Sprintf("+16282%06d", n/4)}
	case 2:
		return Address{"email", fmt.Sprintf("person%d@example.com", n/4)}
	}
	return Address{"webhook", fmt.Sprintf("/sim/hook/200/person%d", n/4)}
}

func (c *campaign) start() {
	c.l.t.Helper()
	_, err := c.l.client.Campaigns.Start(c.l.ctx, c.name)
	c.l.NoError(err)
}

// entries returns what the providers saw since the campaign was made.
func (c *campaign) entries() []sighting { return c.l.sim.seen()[c.from:] }

// reach waits until the providers have seen n submissions of the campaign.
func (c *campaign) reach(n int) {
	c.l.t.Helper()
	what := fmt.Sprintf("the providers have seen %d", n)
	c.l.until(what, 5*time.Millisecond, func() bool { return len(c.entries()) >= n })
}

// moments chooses n moments of the campaign, in counts of submissions, between 2 % and 95 %.
func (c *campaign) moments(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = len(c.asked) * (2 + c.l.rnd.IntN(94)) / 100
	}
	slices.Sort(out)
	return out
}

// finish waits until the campaign is completed, nothing waits and every receipt is in.
func (c *campaign) finish() {
	c.l.t.Helper()
	var r *sdk.CampaignReport
	defer func() {
		if c.l.t.Failed() && r != nil {
			c.l.t.Logf("the last report: %+v", *r)
		}
	}()
	c.l.until("the campaign is completed and every receipt is in", 100*time.Millisecond, func() bool {
		got, err := c.l.client.Campaigns.Report(c.l.ctx, c.name)
		if err != nil {
			return false
		}
		r = got
		return r.State == "completed" && r.Waiting == 0 &&
			r.ByChannel[sdk.ChannelSMS][sdk.Sent]+r.ByChannel[sdk.ChannelWhatsApp][sdk.Sent] == 0
	})
	c.l.Equal(len(c.asked), r.People)
	c.l.Equal(len(c.asked), r.Accepted)
	c.l.Equal(len(c.asked), r.ByStatus[sdk.Sent]+r.ByStatus[sdk.Delivered], "%v", r.ByStatus)
}

// history is what the three witnesses say.
func (c *campaign) history() History {
	c.l.t.Helper()
	return History{
		Asked: c.asked, Taken: taken(c.entries()), Messages: c.l.records(sdk.MessageQuery{Campaign: c.name}),
	}
}

// records lists messages of the tenant, with the history of those that the engine owns up to.
func (l *lab) records(q sdk.MessageQuery) []Record {
	l.t.Helper()
	var out []Record
	q.Limit = 1000
	for m, err := range l.client.Messages.All(l.ctx, q) {
		l.NoError(err)
		if m.Status.Waiting() {
			l.FailNow("a message still waits", "%s is %s: %s", m.ID, m.Status, m.Detail)
		}
		r := Record{
			ID: m.ID, Address: Address{string(m.Channel), strings.TrimPrefix(m.To, l.sim.at.HTTP)},
			Status: string(m.Status), Flagged: m.PossibleDuplicate,
		}
		if r.Flagged {
			r.Doubts = l.facts(m.ID, "ambiguous")
		}
		out = append(out, r)
	}
	return out
}

// facts counts the facts of a kind in the history of a message.
func (l *lab) facts(id, kind string) (n int) {
	l.t.Helper()
	facts, err := l.client.Messages.Timeline(l.ctx, id)
	l.NoError(err)
	for _, f := range facts {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// judge checks the history of a completed campaign and the tenant's books.
func (c *campaign) judge(h History) Verdict {
	c.l.t.Helper()
	v := Check(h)
	c.l.True(v.OK(), "%s", v.Explain())
	c.l.Equal(len(c.asked), v.Acknowledged)
	c.l.audit()
	return v
}
