package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// statuses makes the body of a callback of Meta.
func statuses(list ...string) string {
	return `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"statuses":[` +
		strings.Join(list, ",") + `]}}]}]}`
}

func status(id, says, more string) string {
	return fmt.Sprintf(`{"id":%q,"status":%q,"timestamp":"1790000000"%s}`, id, says, more)
}

// Reports that a provider did not sign change nothing, whoever names whatever message.
func TestForgedReports(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	id := b.send(sdk.WhatsApp{To: "+12025550100", Text: "Hello"})
	b.until("it is read or delivered", func() bool {
		m, err := b.Client.Messages.Get(b.ctx, id)
		return err == nil && m.Status == sdk.Delivered
	})
	ours := b.connector("sim-whatsapp")
	globex, err := b.Engine.Client("globex")
	require.NoError(t, err)
	theirs, err := globex.Connectors.Put(b.ctx, "own", sdk.ConnectorRequest{Kind: "whatsapp", Settings: map[string]string{
		"base_url": b.Sim.URL(), "phone_number_id": "9", "token": "t", "app_secret": "secret of globex", "verify_token": "v",
	}})
	require.NoError(t, err)
	before, err := b.Client.Messages.Timeline(b.ctx, id)
	require.NoError(t, err)
	read := statuses(status("wamid.x", "read", `,"biz_opaque_callback_data":"`+id+`"`))
	for name, c := range map[string]struct {
		connector, body, secret string
		status                  int
	}{
		"another secret":           {ours, read, "secret of globex", 401},
		"no secret":                {ours, read, "", 401},
		"the right one elsewhere":  {theirs.ID, read, sandbox.WhatsAppSecret, 401},
		"another connector's path": {b.connector("sim-sms"), read, sandbox.WhatsAppSecret, 404},
		"nobody's path":            {"acc_0", read, sandbox.WhatsAppSecret, 404},
		"4 MB":                     {ours, read + strings.Repeat(" ", 4<<20), sandbox.WhatsAppSecret, 413},
		"no JSON":                  {ours, "hello", sandbox.WhatsAppSecret, 400},
		"another object":           {ours, `{"object":"page"}`, sandbox.WhatsAppSecret, 400},
		// Signed rightly by another tenant's provider, about a message of this tenant: kept as one of an unknown message.
		"another tenant's message": {theirs.ID, read, "secret of globex", 200},
	} {
		a := b.report(c.connector, c.body, c.secret)
		require.Equal(t, c.status, a.status, "%s: %s", name, a.body)
	}
	after, err := b.Client.Messages.Timeline(b.ctx, id)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Equal(t, 200, b.report(ours, read, sandbox.WhatsAppSecret).status)
	m, err := b.Client.Messages.Get(b.ctx, id)
	require.NoError(t, err)
	require.Equal(t, sdk.Read, m.Status, "the rightful report")
	// An old status once more, and a bad time, change nothing either.
	for _, body := range []string{
		statuses(status("wamid.x", "sent", `,"biz_opaque_callback_data":"`+id+`"`)),
		statuses(strings.Replace(status("wamid.x", "delivered", `,"biz_opaque_callback_data":"`+id+`"`), `"1790000000"`, `"NaN"`, 1)),
	} {
		require.Equal(t, 200, b.report(ours, body, sandbox.WhatsAppSecret).status)
		m, err = b.Client.Messages.Get(b.ctx, id)
		require.NoError(t, err)
		require.Equal(t, sdk.Read, m.Status)
	}
}

// Reports of messages that nobody knows are kept for a while, up to a bound; the others pass even then.
func TestFloodOfUnknownReports(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ours := b.connector("sim-whatsapp")
	id := b.send(sdk.WhatsApp{To: "+12025550100", Text: "Hello"})
	b.until("it is delivered", func() bool {
		m, err := b.Client.Messages.Get(b.ctx, id)
		return err == nil && m.Status == sdk.Delivered
	})
	for _, says := range []string{"DELIVERED ", "teleported", "", "Delivered"} {
		require.Equal(t, 200, b.report(ours, statuses(status("wamid.y", says, "")), sandbox.WhatsAppSecret).status, says)
	}
	require.Contains(t, b.metric("receipts_total", `"unknown_status"`), " 4")

	const each = 10_000
	for from := 0; from < store.MaxParked; from += each {
		list := make([]string, each)
		for i := range list {
			list[i] = status(fmt.Sprintf("wamid.%d", from+i), "delivered", "")
		}
		a := b.report(ours, statuses(list...), sandbox.WhatsAppSecret)
		require.Equal(t, 200, a.status, a.body)
	}
	mine := status("wamid.z", "read", `,"biz_opaque_callback_data":"`+id+`"`)
	a := b.report(ours, statuses(status("wamid.more", "delivered", ""), mine), sandbox.WhatsAppSecret)
	require.Equal(t, 503, a.status, a.body)
	require.Contains(t, a.body, `"code":"storage_unavailable"`)
	require.Equal(t, "60", a.header.Get("Retry-After"))
	m, err := b.Client.Messages.Get(b.ctx, id)
	require.NoError(t, err)
	require.Equal(t, sdk.Read, m.Status, "the report of a known message was lost in the flood")
	m = b.message(b.send(sdk.WhatsApp{To: "+12025550101", Text: "Hello"}))
	require.Contains(t, []sdk.Status{sdk.Sent, sdk.Delivered}, m.Status)
}

// An opt-out is one where the rules say so, and only for the tenant whose number it came to.
func TestOptOutBelongsToOneSender(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	globex, err := b.Engine.Client("globex")
	require.NoError(t, err)
	for system, c := range map[string]*sdk.Client{"acme-sms": b.Client, "globex-sms": globex} {
		_, err = c.Connectors.Put(b.ctx, "sim-sms", sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
			"addr": b.Sim.SMPPAddr(), "system_id": system, "password": sandbox.Password, "from": "msgctl",
		}})
		require.NoError(t, err)
		b.until("the session is up", func() bool { return b.Sim.Reply(delivery.SMS, system, "+12025550199", "msgctl", "hi") == nil })
	}
	suppressed := func(c *sdk.Client, who string) bool {
		_, err := c.Suppressions.Check(b.ctx, sdk.ChannelSMS, who)
		require.True(t, err == nil || errors.Is(err, sdk.ErrNotFound), "%v", err)
		return err == nil
	}
	yes := []string{"STOP", "Stop.", " STOP ALL", "ＳＴＯＰ", "arrêt", "stop!", "\"Stop\"", "QUIT", "unsubscribe"}
	no := []string{"please stop texting me", "don't stop", "stopp", "bus stop?", "ST0P", "", "stop\u200bx"}
	for i, text := range append(no, yes...) { // one session: what is answered later was read later
		who := fmt.Sprintf("+120255501%02d", i)
		require.NoError(t, b.Sim.Reply(delivery.SMS, "acme-sms", who, "msgctl", text))
	}
	for i, text := range append(no, yes...) {
		who := fmt.Sprintf("+120255501%02d", i)
		if i >= len(no) {
			b.until(text+" is an opt-out", func() bool { return suppressed(b.Client, who) })
		}
		require.False(t, suppressed(globex, who), "%q reached the other tenant", text)
	}
	for i, text := range no {
		require.False(t, suppressed(b.Client, fmt.Sprintf("+120255501%02d", i)), "%q is no opt-out", text)
	}
}
