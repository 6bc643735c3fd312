// Command shop sends one text message and waits until it is delivered.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

func main() {
	to := "+12025550100" // fictional: the simulator delivers it
	if len(os.Args) > 1 {
		to = os.Args[1]
	}
	if err := run(to); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(to string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// New reads MSGCTL_URL and MSGCTL_API_KEY. One client serves the whole program.
	c := sdk.New()
	defer c.Close()

	// The key makes it safe to run this twice: the same order sends one message.
	m, err := c.Send(ctx, sdk.SMS{To: to, Text: "Order #1042 is on its way."},
		sdk.IdempotencyKey("order-1042-"+to), sdk.TTL(10*time.Minute))
	var refused *sdk.Error
	switch {
	case errors.Is(err, sdk.ErrUnauthorized):
		return fmt.Errorf("set MSGCTL_API_KEY: %w", err)
	case errors.As(err, &refused) && refused.Code == "invalid_phone":
		return fmt.Errorf("%s is not a phone number", to)
	case err != nil:
		return err // the client has tried again by itself where that could help
	}
	fmt.Println(m.ID, m.Status)

	if m, err = c.Messages.Wait(ctx, m.ID, sdk.Delivered); err != nil {
		return err
	}
	fmt.Println(m.ID, m.Status, "by", m.Connector)
	return nil
}
