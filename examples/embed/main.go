// Command embed runs a whole engine inside a program, with a connector of its own: go run ./examples/embed DIR.
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

type printer struct{} // a connector: it makes one attempt and says what came of it

func (printer) Send(_ context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	_, err := fmt.Printf("to %s: %s\n", m.To, m.Content.Text)
	return delivery.Sent{ProviderID: m.ID.String()}, err
}

func main() {
	kind := connectors.Kind{Name: "print", Channel: delivery.SMS, Ambiguity: connectors.None}
	kind.Open = func(*connectors.Account) (connectors.Connector, error) { return printer{}, nil }
	eng := must(engine.New(engine.Config{Dir: os.Args[1]}, kind))
	ctx := context.Background()
	must(eng, eng.Start(ctx))
	c := must(eng.Client("acme")) // the SDK's client without a socket; makes the tenant
	must(c.Connectors.Put(ctx, "paper", sdk.ConnectorRequest{Kind: "print"}))
	m := must(c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"}))
	fmt.Println(must(c.Messages.Wait(ctx, m.ID, sdk.Sent)).Status)
	must(eng, eng.Close()) // drains, then closes the store
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
