package engine_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// Words that stand nowhere but in what the test hands over.
const (
	canaryPhone = "83155501" // of +1 831 555 01NN; the last two digits are the outcome at the simulator
	canaryEmail = "kumquat"
	canaryHook  = "loquat"
	canaryText  = "mirabelle"
)

// canarySecrets are credentials of providers.
var canarySecrets = map[string]string{
	"password": "medlar-9c1f", "token": "EAAquince7741", "app_secret": "persimmon-app-5520", "verify_token": "tamarillo-verify-3",
	"hook": "c2FwdS1zYXBvZGlsbGEtY2FuYXJ5LTMx",
}

// TestCanary puts marked secrets, addresses and texts through everything that can be done with them and looks for them
// where they must not be.
func TestCanary(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(o *sandbox.Options) { o.Retry = []time.Duration{time.Hour} })
	sim, err := simulator.Start(b.ctx, simulator.Options{
		Password: canarySecrets["password"], WhatsAppToken: canarySecrets["token"], WhatsAppSecret: canarySecrets["app_secret"],
		HookSecret: "whsec_" + canarySecrets["hook"],
	})
	require.NoError(t, err)
	defer sim.Close()
	operator, err := b.Operator()
	require.NoError(t, err)
	_, err = operator.Tenants.Set(b.ctx, "acme", sdk.TenantRequest{OnAmbiguous: "hold"})
	require.NoError(t, err)
	connect := func(name, kind string, settings map[string]string) *sdk.Connector {
		c, err := b.Client.Connectors.Put(b.ctx, name, sdk.ConnectorRequest{Kind: kind, Settings: settings})
		require.NoError(t, err)
		return c
	}
	connect("sms", "smpp", map[string]string{"addr": sim.SMPPAddr(), "system_id": "a", "password": canarySecrets["password"], "from": "msgctl",
		"response_timeout": "1s"})
	connect("mail", "smtp", map[string]string{
		"addr": sim.SMTPAddr(), "from": "news@sim.test", "tls": "none", "username": "a", "password": canarySecrets["password"],
	})
	wa := connect("wa", "whatsapp", map[string]string{
		"base_url": sim.URL(), "phone_number_id": "1", "token": canarySecrets["token"], "app_secret": canarySecrets["app_secret"],
		"verify_token": canarySecrets["verify_token"],
	})
	sim.SetWhatsAppCallback(b.URL + "/v1/inbound/" + wa.ID)
	connect("hook", "webhook", map[string]string{"secret": "whsec_" + canarySecrets["hook"]})
	// Connectors that cannot log in: what they say of it must not hold the password.
	connect("sms-bad", "smpp", map[string]string{"addr": sim.SMPPAddr(), "system_id": "b", "password": "wrong-" + canarySecrets["verify_token"], "from": "x"})
	connect("mail-bad", "smtp", map[string]string{
		"addr": sim.SMTPAddr(), "from": "news@sim.test", "tls": "none", "username": "b", "password": "wrong-" + canarySecrets["verify_token"],
	})
	var shown strings.Builder // what is answered and must be clean
	for _, name := range []string{"sms", "mail", "wa", "hook", "sms-bad", "mail-bad"} {
		shown.WriteString(b.do("POST", "/v1/connectors/"+name+":test", "", nil, nil).body)
		shown.WriteString(b.get("/v1/connectors/" + name).body)
	}

	// Every outcome on every channel.
	_, err = b.Client.Templates.Put(b.ctx, "t", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hi {{ x }}, " + canaryText})
	require.NoError(t, err)
	var ids []string
	for _, nn := range []int{0, 2, 10, 11, 20, 21, 22, 23, 30, 31, 32, 33, 34, 40, 41} {
		phone := fmt.Sprintf("+1%s%02d", canaryPhone, nn)
		for _, via := range []string{"sms", "sms-bad"} {
			ids = append(ids, b.send(sdk.SMS{To: phone, Text: canaryText}, sdk.Via(via)))
		}
		ids = append(ids, b.send(sdk.WhatsApp{To: phone, Text: canaryText}, sdk.Via("wa")),
			b.send(sdk.Template{Name: "t", Channel: sdk.ChannelSMS, To: phone, Vars: sdk.Vars{"x": canaryText}}, sdk.Via("sms")))
	}
	for _, local := range []string{"delivered", "delayed", "softbounce", "hardbounce", "complaint", "timeout"} {
		to := local + "+" + canaryEmail + "@sim.test"
		for _, via := range []string{"mail", "mail-bad"} {
			ids = append(ids, b.send(sdk.Email{To: to, Subject: canaryText, Text: canaryText, HTML: "<p>" + canaryText}, sdk.Via(via)))
		}
	}
	for _, what := range []string{"200", "500", "timeout", "gone", "flaky"} {
		url := sim.URL() + "/sim/hook/" + what + "/" + canaryHook
		ids = append(ids, b.send(sdk.Hook{URL: url, Event: "a", Data: map[string]string{"x": canaryText}}, sdk.Via("hook")))
	}
	var csv strings.Builder
	csv.WriteString("phone,email,name\n")
	for i := range 50 {
		fmt.Fprintf(&csv, "+1%s%02d,p%d.%s@sim.test,%s\n", canaryPhone, i, i, canaryEmail, canaryText)
	}
	fmt.Fprintf(&csv, "+1%s,x,%s\n", canaryPhone, canaryText)
	require.Equal(t, 201, b.do("POST", "/v1/audiences/a/import", "text/csv", strings.NewReader(csv.String()), nil).status)
	_, err = b.Client.Campaigns.Create(b.ctx, sdk.CampaignRequest{Name: "c", Audience: "a", Templates: []string{"t"}})
	require.NoError(t, err)
	b.do("POST", "/v1/campaigns/c:start", "", nil, nil)
	for _, id := range ids {
		b.until("every message has come so far", func() bool {
			m, err := b.Client.Messages.Get(b.ctx, id)
			return err == nil && (m.Attempts > 0 || m.Status != sdk.Queued && m.Status != sdk.Sending)
		})
	}

	// Requests that fail.
	key, err := b.Client.Keys.Create(b.ctx, sdk.KeyRequest{Name: "canary", Mode: "test"})
	require.NoError(t, err)
	bad := []string{
		`{"channel":"sms","to":"+1` + canaryPhone + `","text":"` + canaryText + `"}`,
		`{"channel":"sms","to":"` + canaryPhone + `00","text":"` + canaryText + `"}`,
		`{"channel":"email","to":"` + canaryEmail + `@","subject":"` + canaryText + `\n","text":"` + canaryText + `"}`,
		`{"channel":"email","to":"` + canaryEmail + `@sim.test","subject":"S","text":"` + canaryText + `","lane":"x"}`,
		`{"channel":"webhook","to":"ftp://user:` + canaryText + `@example.com/` + canaryHook + `","data":{}}`,
		`{"channel":"sms","to":"+1` + canaryPhone + `00","text":"` + canaryText,
		`{"channel":"sms","to":"+1` + canaryPhone + `00","template":"t","vars":{"y":"` + canaryText + `"}}`,
	}
	for _, body := range bad {
		a := b.do("POST", "/v1/messages", "application/json", strings.NewReader(body), nil)
		require.GreaterOrEqual(t, a.status, 400, body)
		shown.WriteString(a.body)
	}
	for _, settings := range []string{
		`{"kind":"webhook","settings":{"secret":"` + canarySecrets["hook"] + `"}}`, `{"kind":"smpp","settings":{"password":"` + canarySecrets["password"] + `"}}`,
		`{"kind":"nokind","settings":{"password":"` + canarySecrets["password"] + `"}}`,
	} {
		shown.WriteString(b.do("PUT", "/v1/connectors/refused", "application/json", strings.NewReader(settings), nil).body)
	}
	shown.WriteString(b.do("GET", "/v1/whoami", "", nil, http.Header{"Authorization": {"Bearer " + key.Secret + "x"}}).body)
	shown.WriteString(b.do("GET", "/v1/messages", "", nil, http.Header{"X-Msgctl-Tenant": {key.Secret}}).body)
	shown.WriteString(b.do("GET", "/v1/messages?cursor="+key.Secret, "", nil, nil).body)
	shown.WriteString(b.report(wa.ID, "{}", canarySecrets["token"]).body)
	for _, path := range []string{"/metrics", "/openapi.json", "/docs", "/readyz", "/version", "/healthz"} {
		shown.WriteString(b.get(path).body)
	}
	operatorKey, err := os.ReadFile(filepath.Join(b.Dir, engine.OperatorKeyFile))
	require.NoError(t, err)

	secrets := map[string]string{"API key": b.Key, "new key": key.Secret, "operator's key": strings.TrimSpace(string(operatorKey))}
	for name, s := range canarySecrets {
		secrets[name] = s
	}
	personal := map[string]string{"phone": canaryPhone, "e-mail": canaryEmail, "URL": canaryHook, "text": canaryText}
	clean := func(where, text string, words map[string]string) {
		t.Helper()
		for name, w := range words {
			if i := strings.Index(text, w); i >= 0 {
				t.Errorf("%s holds the %s: …%s…", where, name, text[max(0, i-200):min(len(text), i+len(w)+100)])
			}
		}
	}
	journal := files(t, filepath.Join(b.Dir, "journal"))
	require.NotEmpty(t, journal, "the journal was looked for in the wrong place")
	require.NoError(t, b.Close())
	log := b.log.String()
	require.Contains(t, log, `"level":"DEBUG"`)
	for where, text := range map[string]string{"an answer": shown.String(), "the log": log, "the journal": journal} {
		clean(where, text, secrets)
		clean(where, text, personal)
	}
	require.NoError(t, os.Remove(filepath.Join(b.Dir, engine.OperatorKeyFile)))
	require.NoError(t, os.Remove(filepath.Join(b.Dir, "acme.tenant.key"))) // the sandbox's own copy
	rest := files(t, b.Dir)
	require.Contains(t, rest, canaryText, "the database was looked for in the wrong place")
	clean("the directory", rest, secrets)
}

// files joins all files below a directory.
func files(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	}))
	return all.String()
}
