package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sandbox"
)

// devOptions says how the engine of msgctl dev is to run.
type devOptions struct {
	Addr  string // host:port of the API, on loopback
	Dir   string // where the store is
	Reset bool   // begin with an empty store
	Key   string // of an earlier run: kept when it still opens the store's tenant
	Log   *slog.Logger
	Log   *slog.Logger
}

// devInfo is a running engine with a simulator beside it.
type devInfo struct {
	URL, Store      string
	SMPP, SMTP, Sim string // addresses of the simulator
	Tenant, Key     string // a tenant with simulator connectors, and its key
	Close           func(ctx context.Context) error
}

// devReceipts is how long the simulator of msgctl dev takes to report a delivery: long enough to be seen.
const devReceipts = 200 * time.Millisecond

// devWait bounds how long dev waits for an orderly end.
const devWait = 30 * time.Second

func (a *app) devCmd() *cobra.Command {
	var (
		o    devOptions
		port int
	)
	cmd := &cobra.Command{
		Use: "dev", Short: "Run an engine and a simulator here, on loopback only", Args: a.args(),
		Long: "Run an engine and a simulator of the providers in one process, on loopback only.\n\n" +
			"It makes a tenant \"demo\" with connectors to the simulator, and the context \"dev\"\n" +
			"with its key. Nothing leaves this machine. Ctrl-C ends it; the store stays.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port < 0 || port > 65535 {
				return &usageError{what: fmt.Sprintf("--port %d: 0 to 65535", port)}
			}
			o.Addr = fmt.Sprintf("127.0.0.1:%d", port)
			if o.Reset {
				if err := a.confirm("Remove all that is in " + o.Dir + "?"); err != nil {
					return err
				}
			}
			if a.flags.verbose {
				o.Log = slog.New(slog.NewTextHandler(a.err, nil))
			}
			level := slog.LevelError
			if a.flags.verbose {
				level = slog.LevelInfo
			}
			o.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			if old := c.find("dev"); old != nil {
				o.Key = old.Key
			}
			info, err := startDev(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := a.devContext(info); err != nil {
				return errors.Join(err, info.Close(context.WithoutCancel(cmd.Context())))
			}
			_, err = fmt.Fprintf(a.out, "✓ engine     %s   store %s\n✓ simulator  SMPP %s · SMTP %s · WhatsApp and hooks %s\n"+
				"  (nothing leaves this machine)\n  context \"dev\" selected, tenant %q.   Next, in another window:\n"+
				"  msgctl send sms +12025550100 \"Hello\" --wait\n", info.URL, info.Store, info.SMPP, info.SMTP, info.Sim, info.Tenant)
			if err == nil {
				<-cmd.Context().Done()
			}
			a.say("ending")
			ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), devWait)
			defer cancel()
			return errors.Join(err, info.Close(ctx))
		},
	}
	cmd.Flags().IntVar(&port, "port", 8020, "the API's `PORT`; 0 = a free one")
	cmd.Flags().StringVar(&o.Dir, "dir", filepath.Join(".msgctl", "dev"), "keep the store in `DIR`")
	cmd.Flags().BoolVar(&o.Reset, "reset", false, "begin with an empty store")
	return cmd
}

// devContext writes the context "dev" and makes it the current one.
func (a *app) devContext(info devInfo) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	x := contact{Name: "dev", URL: info.URL, Key: info.Key}
	if old := c.find("dev"); old != nil {
		*old = x
	} else {
		c.Contexts = append(c.Contexts, x)
	}
	c.Current = "dev"
	return a.saveConfig(c)
}
