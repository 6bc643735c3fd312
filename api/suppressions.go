package api

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// suppressionIn is one address to suppress.
type suppressionIn struct {
	Channel string `json:"channel"`
	To      string `json:"to"`
	Reason  string `json:"reason"`
	Source  string `json:"source"`
	At      string `json:"at"` // given back by lists: taken so that a list can be sent as it came, and not used
}

const (
	maxSuppressions = 10_000
	defaultReason   = "manual"
)

// suppress adds one address, an array of them, or one in each line.
func suppress(c *call) error {
	media, err := c.checkMedia(append([]string{"application/json"}, batchMedia...)...)
	if err != nil {
		return err
	}
	buf := c.a.buffer()
	defer c.a.release(buf)
	if err := c.readBody(buf, c.a.Limits.BatchBody); err != nil {
		return err
	}
	var ins []suppressionIn
	single := false
	switch body := bytes.TrimSpace(buf.Bytes()); {
	case media != "application/json":
		lines := bufio.NewScanner(bytes.NewReader(body))
		lines.Buffer(nil, len(body)+1)
		for lines.Scan() {
			text := bytes.TrimSpace(lines.Bytes())
			if len(text) == 0 {
				continue
			}
			var in suppressionIn
			if err := decode(text, &in); err != nil {
				return atRow(err, len(ins))
			}
			ins = append(ins, in)
		}
	case len(body) > 0 && body[0] == '[':
		end, err := scan(body)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(body, &ins, strictOptions()); err != nil {
			return explainJSON(body, end, &ins, err)
		}
	default:
		ins, single = make([]suppressionIn, 1), true
		if err := decode(body, &ins[0]); err != nil {
			return err
		}
	}
	switch {
	case len(ins) == 0:
		return fail("body_required", "there is no address in the body")
	case len(ins) > maxSuppressions:
		return fail("batch_too_large", "one request takes at most %d addresses", maxSuppressions)
	}
	entries, err := c.a.entries(c, ins, single)
	if err != nil {
		return err
	}
	if err := c.a.Store.Suppress(c.ctx(), c.tenant, entries); err != nil {
		return err
	}
	if c.a.Operator != nil {
		c.a.Operator.Suppressed(c.tenant)
	}
	if single {
		return c.json(http.StatusCreated, showSuppression(entries[0]))
	}
	out := sdk.Page[sdk.Suppression]{Data: make([]sdk.Suppression, 0, len(entries))}
	for _, e := range entries {
		out.Data = append(out.Data, showSuppression(e))
	}
	return c.json(http.StatusCreated, out)
}

// atRow moves the places of a problem below the row it is in.
func atRow(err error, row int) error {
	var p *sdk.Error
	if !errors.As(err, &p) {
		return err
	}
	own := *p
	own.Detail = "row " + itoa(row+1) + ": " + p.Detail
	own.Fields = nil
	for _, f := range p.Fields {
		f.Pointer = "/" + itoa(row) + f.Pointer
		own.Fields = append(own.Fields, f)
	}
	return &own
}

func (a *api) entries(c *call, ins []suppressionIn, single bool) ([]store.Suppression, error) {
	k := a.checker(c)
	var f faults
	entries := make([]store.Suppression, 0, len(ins))
	for i, in := range ins {
		at := ""
		if !single {
			at = "/" + itoa(i)
		}
		e := store.Suppression{Reason: in.Reason, Source: in.Source, At: k.now}
		var err error
		if in.Channel != "" {
			if e.Channel, err = delivery.ParseChannel(in.Channel); err != nil {
				f.add(at+"/channel", "invalid_channel", "use sms, whatsapp, email or webhook, or leave it out for all")
				continue
			}
		}
		if e.Reason == "" {
			e.Reason = defaultReason
		}
		if e.Source == "" {
			e.Source = "api"
		}
		line(at+"/reason", e.Reason, 200, &f)
		line(at+"/source", e.Source, 200, &f)
		if e.To, err = k.address(e.Channel, in.To); err != nil {
			var bad *recipient.Invalid
			if !errors.As(err, &bad) {
				return nil, err
			}
			f.add(at+"/to", bad.Code, "%s", bad.Rule)
		}
		entries = append(entries, e)
		if len(f.list) >= 100 { // enough to see what is wrong
			break
		}
	}
	return entries, f.problem()
}

// address normalises an address of a channel; without a channel it takes the first one that the text fits.
func (k *checker) address(ch delivery.Channel, raw string) (string, error) {
	if ch == 0 {
		switch {
		case strings.Contains(raw, "://"):
			ch = delivery.Webhook
		case strings.Contains(raw, "@"):
			ch = delivery.Email
		default:
			ch = delivery.SMS
		}
	}
	return k.normalize(ch, raw)
}

// addressParam normalises an address in the query.
func (a *api) addressParam(c *call, ch delivery.Channel, raw string) (string, error) {
	to, err := a.checker(c).address(ch, raw)
	var bad *recipient.Invalid
	if errors.As(err, &bad) {
		return "", failAt("to", "invalid_parameter", "to is no address: %s", bad.Rule)
	}
	return to, err
}

func showSuppression(s store.Suppression) sdk.Suppression {
	return sdk.Suppression{Channel: channel(s.Channel), To: s.To, Reason: s.Reason, Source: s.Source, At: when(s.At)}
}

// listSuppressions returns a page in order of addresses. All entries of one address stand on one page, so that a page
// may be a few longer than asked.
func listSuppressions(c *call) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	after := ""
	if s := c.param("cursor"); s != "" {
		if after, err = c.a.cursors.open(c, s); err != nil {
			return err
		}
	}
	// An address has at most one entry for each channel and one for all: five more show where the page must end.
	entries, err := c.a.Store.SuppressionList(c.ctx(), c.tenant, after, limit+len(delivery.Channels)+1)
	if err != nil {
		return err
	}
	end := min(limit, len(entries))
	for end > 0 && end < len(entries) && entries[end].To == entries[end-1].To {
		end++
	}
	out := sdk.Page[sdk.Suppression]{Data: make([]sdk.Suppression, 0, end), HasMore: end < len(entries)}
	for _, e := range entries[:end] {
		out.Data = append(out.Data, showSuppression(e))
	}
	if out.HasMore {
		out.NextCursor = c.a.cursors.seal(c, entries[end-1].To)
	}
	return c.json(http.StatusOK, out)
}

// target reads ?channel= and ?to=.
func (c *call) target() (ch delivery.Channel, to string, err error) {
	if ch, err = c.channelParam(); err != nil {
		return ch, "", err
	}
	raw := c.param("to")
	if raw == "" {
		return ch, "", failAt("to", "invalid_parameter", "to is missing: ?to=%s", url.QueryEscape("+12025550100"))
	}
	if strings.HasPrefix(raw, " ") && !strings.Contains(raw, "@") {
		raw = "+" + raw[1:] // a + that was not escaped in a query reads as a space
	}
	to, err = c.a.addressParam(c, ch, raw)
	return ch, to, err
}

func checkSuppression(c *call) error {
	ch, to, err := c.target()
	if err != nil {
		return err
	}
	s, found, err := c.a.Store.Suppressed(c.ctx(), c.tenant, ch, to)
	if err != nil {
		return err
	}
	if !found {
		return fail("not_found", "the address is not suppressed")
	}
	return c.json(http.StatusOK, showSuppression(s))
}

func unsuppress(c *call) error {
	ch, to, err := c.target()
	if err != nil {
		return err
	}
	err = c.a.Store.Unsuppress(c.ctx(), c.tenant, ch, to)
	if errors.Is(err, store.ErrNotFound) {
		return fail("not_found", "the address is not suppressed for this channel")
	}
	if err != nil {
		return err
	}
	return c.empty()
}
