package acmesms

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msgctl/msgctl/connectors/connectortest"
	"github.com/msgctl/msgctl/connectors/connectortest/httpprovider"
	"github.com/msgctl/msgctl/delivery"
)

// answers is how the provider refuses: status, body.
var answers = map[connectortest.Fault]struct {
	status int
	body   string
}{
	connectortest.Accept:           {200, `{"id":"p-%d"}`},
	connectortest.Temporary:        {503, `{}`},
	connectortest.Throttle:         {429, `{}`},
	connectortest.BadLogin:         {401, `{}`},
	connectortest.Reject:           {422, `{"code":"content_blocked"}`},
	connectortest.UnknownRecipient: {422, `{"code":"unknown_subscriber"}`},
}

func TestConformance(t *testing.T) {
	var (
		knows []connectortest.Fault
		ids   atomic.Int64
	)
	for f := range answers {
		knows = append(knows, f)
	}
	p := httpprovider.New(knows, func(f connectortest.Fault, w http.ResponseWriter, _ *http.Request) {
		if f == connectortest.Throttle {
			w.Header().Set("Retry-After", "3")
		}
		w.WriteHeader(answers[f].status)
		_, _ = w.Write([]byte(strings.ReplaceAll(answers[f].body, "%d", strconv.FormatInt(ids.Add(1), 10))))
	})
	defer p.Close()
	connectortest.Run(t, connectortest.Harness{
		Kind: Kind(), Provider: p, HTTP: p.Client(), Idle: p.Idle, RetryAfter: 3 * time.Second,
		Settings: map[string]string{"url": p.URL(), "token": "canary-token-5f1c"},
		Message: func(n int) *delivery.Outgoing {
			return &delivery.Outgoing{
				ID: delivery.MessageID{1, byte(n)}, Channel: delivery.SMS, To: "+12025550100", Attempt: 1, Segments: 1,
				Content: delivery.Content{Text: "Hello"},
			}
		},
	})
}
