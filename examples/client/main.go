// Command client sends one message through the engine that MSGCTL_URL and MSGCTL_API_KEY name.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/msgctl/msgctl/sdk"
)

func main() {
	ctx, c := context.Background(), sdk.New()
	m, err := c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"})
	if err == nil {
		m, err = c.Messages.Wait(ctx, m.ID, sdk.Delivered)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(m.ID, m.Status)
}
