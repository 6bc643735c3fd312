// Command embed runs a whole engine inside this program, with a connector of its own.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
)

type printer struct{} // a connector: one attempt, one answer

func (printer) Send(_ context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	_, err := fmt.Printf("to %s: %s\n", m.To, m.Content.Text)
	return delivery.Sent{ProviderID: m.ID.String()}, err
}

func main() {
	ctx, kind := context.Background(), connectors.Kind{Name: "print", Channel: delivery.SMS, Ambiguity: connectors.None}
	kind.Open = func(*connectors.Account) (connectors.Connector, error) { return printer{}, nil }
	dir := must(os.MkdirTemp("", "embed"))
	eng := must(engine.New(engine.Config{Dir: dir}, kind))
	must(0, eng.Start(ctx))
	c := must(eng.Client("acme")) // the SDK's client, without a socket; it makes the tenant
	must(c.Connectors.Put(ctx, "paper", sdk.ConnectorRequest{Kind: "print"}))
	m := must(c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"}))
	m = must(c.Messages.Wait(ctx, m.ID, sdk.Sent))
	must(fmt.Println(m.Status))
	must(0, eng.Close(), os.RemoveAll(dir))
}

func must[T any](v T, errs ...error) T {
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return v
}
