package api

import (
	"net/http"

	"github.com/msgctl/msgctl/sdk"
)

// scope says who may use a route.
type scope uint8

const (
	public   scope = iota // no key
	provider              // no key: the connector verifies the request
	tenant                // a tenant's key, or an operator's that names a tenant
	either                // also an operator's key that names no tenant
	operator              // an operator's key
)

// anyMethod is the method of a route that takes every method.
const anyMethod = "*"

// route is one row of the table. Its types are zero values of what is sent: nil = nothing.
type route struct {
	method, path string
	id           string // operationId
	doc          string // one sentence
	scope        scope
	query        []param
	media        []string // of the body, beside JSON
	in           any
	status       int
	out          any
	outMedia     string // of the answer, when it is not JSON
	handle       func(*call) error

	segments []segment
	intake   intake
}

// param is a query parameter.
type param struct{ name, kind, doc string }

var (
	limitParam  = param{"limit", "integer", "Most rows of a page, 1 to 1,000; default 100."}
	cursorParam = param{"cursor", "string", "Where to go on: next_cursor of the page before."}
	paging      = []param{limitParam, cursorParam}
)

// routes is the one list of what the API has: it registers the handlers, and GET /openapi.json and GET /docs show it.
func routes() []*route {
	ndjson := batchMedia[:1]
	return []*route{
		// Messages.
		{
			method: "POST", path: "/v1/messages", id: "sendMessage", scope: tenant, handle: send,
			doc: "Accepts one message. 202 says that it is stored.", in: sdk.MessageRequest{}, status: 202, out: sdk.Message{},
		},
		{
			method: "POST", path: "/v1/messages/batch", id: "sendBatch", scope: tenant, handle: sendBatch,
			doc:   "Accepts up to 10,000 messages, one in each line; a bad line is refused alone.",
			media: ndjson, in: sdk.MessageRequest{}, status: 200, out: sdk.BatchRow{}, outMedia: ndjson[0],
		},
		{
			method: "GET", path: "/v1/messages", id: "listMessages", scope: tenant, handle: listMessages,
			doc: "Lists messages, newest first.", status: 200, out: sdk.Page[sdk.Message]{},
			query: []param{
				{"status", "string", "Only messages in this status."},
				{"channel", "string", "sms, whatsapp, email or webhook."},
				{"to", "string", "Only messages to this recipient."},
				{"connector", "string", "Only messages by the connector of this name."},
				{"campaign", "string", "Only messages of the campaign with this name or id."},
				{"tag", "string", "Only messages with this tag."},
				{"since", "string", "Only messages accepted at or after this instant (RFC 3339)."},
				limitParam, cursorParam,
			},
		},
		{
			method: "GET", path: "/v1/messages/{id}", id: "getMessage", scope: tenant, handle: getMessage,
			doc: "Shows a message.", status: 200, out: sdk.Message{},
		},
		{
			method: "GET", path: "/v1/messages/{id}/timeline", id: "messageTimeline", scope: tenant, handle: timeline,
			doc: "Shows everything that happened to a message, oldest first.", status: 200, out: sdk.Page[sdk.Fact]{},
		},
		{
			method: "GET", path: "/v1/messages/{id}/explain", id: "explainMessage", scope: tenant, handle: explainMessage,
			doc: "Says why a message is where it is and what would change that.", status: 200, out: sdk.Explanation{},
		},
		{
			method: "POST", path: "/v1/messages/{id}:cancel", id: "cancelMessage", scope: tenant, handle: cancelMessage,
			doc: "Stops a message that still waits.", status: 200, out: sdk.Message{},
		},
		{
			method: "GET", path: "/v1/events", id: "listEvents", scope: tenant, handle: events,
			doc: "Lists what happened to messages after a place in the stream, oldest first.", status: 200,
			out: sdk.Page[sdk.Event]{},
			query: []param{
				{"after", "string", "Sequence number after which to go on; default 0, latest = the end of the stream."},
				limitParam,
				{"wait", "string", "Wait this long, at most 30s, when there is no event yet."},
			},
		},

		// Dead letters and receipts.
		{
			method: "GET", path: "/v1/dlq", id: "listDeadLetters", scope: tenant, handle: listDeadLetters,
			doc:    "Lists messages that ended without a known hand-off and that nobody has put away, newest first.",
			status: 200, out: sdk.Page[sdk.Message]{},
			query: []param{
				{"status", "string", "failed, expired or unknown."},
				{"reason", "string", "Only dead letters with this reason."},
				{"channel", "string", "sms, whatsapp, email or webhook."},
				{"to", "string", "Only dead letters to this recipient."},
				{"connector", "string", "Only dead letters of the connector of this name."},
				{"campaign", "string", "Only dead letters of the campaign with this name or id."},
				{"tag", "string", "Only dead letters with this tag."},
				{"since", "string", "Only dead letters accepted at or after this instant (RFC 3339)."},
				limitParam, cursorParam,
			},
		},
		{
			method: "POST", path: "/v1/dlq:retry", id: "retryDeadLetters", scope: tenant, handle: retryDeadLetters,
			doc: "Sends up to 1,000 dead letters again under their own ids. Repeat while more is true.",
			in:  sdk.DeadLetterRequest{}, status: 200, out: sdk.DeadLetterResult{},
		},
		{
			method: "POST", path: "/v1/dlq:drop", id: "dropDeadLetters", scope: tenant, handle: dropDeadLetters,
			doc: "Puts up to 1,000 dead letters away: they keep their status and are listed no more. Repeat while more is true.",
			in:  sdk.DeadLetterRequest{}, status: 200, out: sdk.DeadLetterResult{},
		},
		{
			method: "GET", path: "/v1/receipts/unmatched", id: "unmatchedReceipts", scope: either, handle: unmatchedReceipts,
			doc: "Lists providers' reports for which no message is known yet: of the tenant's connectors, or of the shared " +
				"ones.",
			query: paging, status: 200, out: sdk.Page[sdk.UnmatchedReceipt]{},
		},

		// Routing and retries.
		{
			method: "GET", path: "/v1/routes", id: "getRoutes", scope: tenant, handle: getRoutes,
			doc: "Shows the tenant's routing rules in their order.", status: 200, out: routeRules{},
		},
		{
			method: "PUT", path: "/v1/routes", id: "putRoutes", scope: tenant, handle: putRoutes,
			doc: "Replaces all routing rules. Without rules the connectors' priorities decide.", in: routeRules{}, status: 200,
			out: routeRules{},
		},
		{
			method: "POST", path: "/v1/routes:explain", id: "explainRoute", scope: tenant, handle: explainRoute,
			doc: "Says by which connector a message would go now, and why.", in: sdk.RouteQuery{}, status: 200,
			out: sdk.RouteExplanation{},
		},
		{
			method: "GET", path: "/v1/retries", id: "getRetries", scope: tenant, handle: getRetries,
			doc: "Shows the tenant's schedules after failures in their order.", status: 200, out: retryRules{},
		},
		{
			method: "PUT", path: "/v1/retries", id: "putRetries", scope: tenant, handle: putRetries,
			doc: "Replaces all schedules after failures. Without rules the engine's own schedule counts.", in: retryRules{},
			status: 200, out: retryRules{},
		},

		// Campaigns and audiences.
		{
			method: "POST", path: "/v1/campaigns", id: "createCampaign", scope: tenant, handle: createCampaign,
			doc: "Makes a campaign. Nothing is sent before it is started.", in: sdk.CampaignRequest{}, status: 201,
			out: sdk.Campaign{},
		},
		{
			method: "GET", path: "/v1/campaigns", id: "listCampaigns", scope: tenant, handle: listCampaigns, query: paging,
			doc: "Lists campaigns, newest first.", status: 200, out: sdk.Page[sdk.Campaign]{},
		},
		{
			method: "GET", path: "/v1/campaigns/{name}", id: "getCampaign", scope: tenant, handle: getCampaign,
			doc: "Shows a campaign.", status: 200, out: sdk.Campaign{},
		},
		{
			method: "POST", path: "/v1/campaigns/{name}:check", id: "checkCampaign", scope: tenant, handle: checkCampaign,
			doc: "Tries a campaign on every person without sending anything.", status: 200, out: sdk.CampaignCheck{},
		},
		{
			method: "POST", path: "/v1/campaigns/{name}:start", id: "startCampaign", scope: tenant, handle: act(startCampaign),
			doc: "Starts a campaign: pins its templates and begins to send.", status: 200, out: sdk.Campaign{},
		},
		{
			method: "POST", path: "/v1/campaigns/{name}:pause", id: "pauseCampaign", scope: tenant, handle: act(pauseCampaign),
			doc: "Holds everything of a campaign that has not left.", status: 200, out: sdk.Campaign{},
		},
		{
			method: "POST", path: "/v1/campaigns/{name}:resume", id: "resumeCampaign", scope: tenant,
			handle: act(resumeCampaign),
			doc:    "Goes on after a pause.", status: 200, out: sdk.Campaign{},
		},
		{
			method: "POST", path: "/v1/campaigns/{name}:stop", id: "stopCampaign", scope: tenant, handle: act(stopCampaign),
			doc: "Ends a campaign for good and cancels what waits.", status: 200, out: sdk.Campaign{},
		},
		{
			method: "GET", path: "/v1/campaigns/{name}/report", id: "campaignReport", scope: tenant, handle: campaignReport,
			doc: "Accounts for every person of a campaign.", status: 200, out: sdk.CampaignReport{},
		},
		{
			method: "POST", path: "/v1/audiences/{name}/import", id: "importAudience", scope: tenant, handle: importAudience,
			doc:   "Imports a file of people, CSV with a header or one JSON object in each line.",
			media: []string{"text/csv", ndjson[0]}, in: "", status: 201, out: sdk.Audience{},
			query: []param{
				{"phone", "string", "Column of the phone number."}, {"email", "string", "Column of the e-mail address."},
				{"url", "string", "Column of the webhook URL."}, {"channel", "string", "Column of the preferred channel."},
				{"region", "string", "Country of phone numbers without +, such as IN."},
			},
		},
		{
			method: "GET", path: "/v1/audiences", id: "listAudiences", scope: tenant, handle: listAudiences, query: paging,
			doc: "Lists audiences by name.", status: 200, out: sdk.Page[sdk.Audience]{},
		},
		{
			method: "GET", path: "/v1/audiences/{name}", id: "getAudience", scope: tenant, handle: getAudience,
			doc: "Shows an audience.", status: 200, out: sdk.Audience{},
		},
		{
			method: "GET", path: "/v1/audiences/{name}/people", id: "audiencePeople", scope: tenant, handle: audiencePeople,
			query: paging, doc: "Lists people of an audience.", status: 200, out: sdk.Page[person]{},
		},
		{
			method: "GET", path: "/v1/audiences/{name}/rejected", id: "rejectedRows", scope: tenant, handle: rejectedRows,
			doc: "Returns the rows that were left out, with the reasons.", status: 200, outMedia: "text/csv", out: "",
		},
		{
			method: "DELETE", path: "/v1/audiences/{name}", id: "deleteAudience", scope: tenant, handle: deleteAudience,
			doc: "Deletes an audience that no running campaign uses.", status: 204,
		},

		// Templates.
		{
			method: "PUT", path: "/v1/templates/{name}", id: "putTemplate", scope: tenant, handle: putTemplate,
			doc: "Stores the next version of a template.", in: sdk.TemplateRequest{}, status: 201, out: sdk.StoredTemplate{},
		},
		{
			method: "GET", path: "/v1/templates", id: "listTemplates", scope: tenant, handle: listTemplates, query: paging,
			doc: "Lists the newest version of each template.", status: 200, out: sdk.Page[sdk.StoredTemplate]{},
		},
		{
			method: "GET", path: "/v1/templates/{name}", id: "getTemplate", scope: tenant, handle: getTemplate,
			doc: "Shows a version of a template.", status: 200, out: sdk.StoredTemplate{},
			query: []param{{"version", "integer", "Default: the newest."}},
		},
		{
			method: "GET", path: "/v1/templates/{name}/versions", id: "templateVersions", scope: tenant,
			handle: templateVersions,
			query:  paging, doc: "Lists all versions of a template, newest first.", status: 200,
			out: sdk.Page[sdk.StoredTemplate]{},
		},
		{
			method: "POST", path: "/v1/templates/{name}:render", id: "renderTemplate", scope: tenant, handle: renderTemplate,
			doc: "Shows what a template makes of variables; nothing is sent.", in: sdk.RenderRequest{}, status: 200,
			out: sdk.Rendered{},
		},

		// Connectors.
		{
			method: "GET", path: "/v1/connector-types", id: "listConnectorTypes", scope: either, handle: connectorTypes,
			query: paging,
			doc:   "Lists the kinds of connectors and their settings.", status: 200, out: sdk.Page[sdk.ConnectorType]{},
		},
		{
			method: "PUT", path: "/v1/connectors/{name}", id: "putConnector", scope: either, handle: putConnector,
			doc: "Makes a connector or replaces its settings; secrets not given stay.", in: sdk.ConnectorRequest{}, status: 200,
			out: sdk.Connector{},
		},
		{
			method: "GET", path: "/v1/connectors", id: "listConnectors", scope: either, handle: listConnectors, query: paging,
			doc: "Lists one's own and the shared connectors.", status: 200, out: sdk.Page[sdk.Connector]{},
		},
		{
			method: "GET", path: "/v1/connectors/{name}", id: "getConnector", scope: either, handle: getConnector,
			doc: "Shows a connector, without its secrets.", status: 200, out: sdk.Connector{},
		},
		{
			method: "DELETE", path: "/v1/connectors/{name}", id: "deleteConnector", scope: either, handle: deleteConnector,
			doc: "Deletes a connector.", status: 204,
		},
		{
			method: "POST", path: "/v1/connectors/{name}:test", id: "testConnector", scope: either, handle: testConnector,
			doc: "Proves that a connector works, without sending a message.", status: 200, out: sdk.ConnectorTest{},
		},
		{
			method: "POST", path: "/v1/connectors/{name}:pause", id: "pauseConnector", scope: either, handle: pauseConnector,
			doc: "Takes a connector out of use.", status: 200, out: sdk.Connector{},
		},
		{
			method: "POST", path: "/v1/connectors/{name}:resume", id: "resumeConnector", scope: either, handle: resumeConnector,
			doc: "Takes a connector into use again.", status: 200, out: sdk.Connector{},
		},

		// Tenants and keys.
		{
			method: "POST", path: "/v1/tenants", id: "createTenant", scope: operator, handle: createTenant,
			doc: "Makes a tenant.", in: sdk.TenantRequest{}, status: 201, out: sdk.Tenant{},
		},
		{
			method: "GET", path: "/v1/tenants", id: "listTenants", scope: operator, handle: listTenants, query: paging,
			doc: "Lists tenants by id.", status: 200, out: sdk.Page[sdk.Tenant]{},
		},
		{
			method: "GET", path: "/v1/tenants/{id}", id: "getTenant", scope: operator, handle: getTenant,
			doc: "Shows a tenant.", status: 200, out: sdk.Tenant{},
		},
		{
			method: "PUT", path: "/v1/tenants/{id}", id: "updateTenant", scope: operator, handle: updateTenant,
			doc: "Replaces a tenant's settings and limits.", in: sdk.TenantRequest{}, status: 200, out: sdk.Tenant{},
		},
		{
			method: "POST", path: "/v1/keys", id: "createKey", scope: either, handle: createKey,
			doc: "Makes an API key. It is shown in this answer and never again.", in: sdk.KeyRequest{}, status: 201,
			out: sdk.Key{},
		},
		{
			method: "GET", path: "/v1/keys", id: "listKeys", scope: either, handle: listKeys, query: paging,
			doc: "Lists keys, newest first.", status: 200, out: sdk.Page[sdk.Key]{},
		},
		{
			method: "DELETE", path: "/v1/keys/{id}", id: "revokeKey", scope: either, handle: revokeKey,
			doc: "Revokes a key.", status: 204,
		},
		{
			method: "GET", path: "/v1/whoami", id: "whoami", scope: either, handle: whoami,
			doc: "Says whom the key belongs to.", status: 200, out: sdk.Identity{},
		},

		// Suppressions and audit.
		{
			method: "POST", path: "/v1/suppressions", id: "suppress", scope: tenant, handle: suppress,
			doc:   "Suppresses one address, an array of them, or one in each line.",
			media: []string{"application/json", ndjson[0]}, in: sdk.Suppression{}, status: 201, out: sdk.Suppression{},
		},
		{
			method: "GET", path: "/v1/suppressions", id: "listSuppressions", scope: tenant, handle: listSuppressions,
			query: paging,
			doc:   "Lists suppressed addresses in order.", status: 200, out: sdk.Page[sdk.Suppression]{},
		},
		{
			method: "GET", path: "/v1/suppressions/check", id: "checkSuppression", scope: tenant, handle: checkSuppression,
			query: suppressionTarget(), doc: "Says what keeps a channel from an address; 404 when nothing does.", status: 200,
			out: sdk.Suppression{},
		},
		{
			method: "DELETE", path: "/v1/suppressions", id: "unsuppress", scope: tenant, handle: unsuppress,
			query: suppressionTarget(), doc: "Takes an address off the list.", status: 204,
		},
		{
			method: "GET", path: "/v1/audit", id: "audit", scope: either, handle: audit,
			query: []param{{"tenant", "string", "Operator only: whose books; default all."}},
			doc:   "Recounts the books: accepted = live + handed on + ended.", status: 200, out: sdk.Audit{},
		},

		{
			method: "GET", path: "/v1/cluster", id: "cluster", scope: operator, handle: cluster,
			doc: "Shows the engines that work together and how they are.", status: 200, out: sdk.Cluster{},
		},
		{
			method: "POST", path: "/v1/backup", id: "backup", scope: operator, handle: backup,
			doc:    "Copies the database of an embedded engine into a new file of its directory, while everything goes on.",
			status: 201, out: sdk.Backup{},
		},

		// Providers and operations.
		{
			method: anyMethod, path: "/v1/inbound/{account}", id: "inbound", scope: provider, handle: inbound,
			doc: "Takes a provider's report. The connector verifies its signature.", status: 200, out: "",
			outMedia: "text/plain",
		},
		{
			method: "GET", path: "/healthz", id: "healthz", scope: public, handle: healthz,
			doc: "Says that the process answers.", status: 200, out: "", outMedia: "text/plain",
		},
		{
			method: "GET", path: "/readyz", id: "readyz", scope: public, handle: readyz,
			doc: "Says whether the engine can take messages now; 503 when not.", status: 200, out: sdk.Health{},
		},
		{
			method: "GET", path: "/metrics", id: "metrics", scope: public, handle: metrics,
			doc: "Returns metrics in the Prometheus text format.", status: 200, out: "", outMedia: "text/plain",
		},
		{
			method: "GET", path: "/version", id: "version", scope: public, handle: version,
			doc: "Says which version runs.", status: 200, out: build{},
		},
		{
			method: "GET", path: "/openapi.json", id: "openapi", scope: public, handle: openAPIDocument,
			doc: "Returns this description.", status: 200, out: map[string]any{},
		},
		{
			method: http.MethodGet, path: "/docs", id: "docs", scope: public, handle: docs,
			doc: "Shows routes and problems to a person.", status: 200, out: "", outMedia: "text/html",
		},
	}
}

func suppressionTarget() []param {
	return []param{
		{"channel", "string", "sms, whatsapp, email or webhook; default: the entry for all channels."},
		{"to", "string", "The address. A + is written %2B."},
	}
}
