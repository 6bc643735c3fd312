package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
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

// startDev starts an engine and a simulator and returns when both answer.
func startDev(ctx context.Context, o devOptions) (devInfo, error) {
	if o.Reset {
		if err := resetDir(o.Dir); err != nil {
			return devInfo{}, err
		}
	}
	if err := free(o.Addr); err != nil {
		return devInfo{}, err
	}
	box, err := sandbox.Start(ctx, sandbox.Options{
		Dir: o.Dir, Listen: o.Addr, Logger: o.Log, Version: release(), ReceiptDelay: devReceipts,
	})
	if err != nil {
		return devInfo{}, err
	}
	return devInfo{
		URL: box.URL, Store: filepath.Join(o.Dir, "msgctl.db"), SMPP: box.Sim.SMPPAddr(), SMTP: box.Sim.SMTPAddr(),
		Sim: box.Sim.URL(), Tenant: box.Tenant, Key: box.Key,
		Close: func(context.Context) error { return box.Close() },
	}, nil
}

// resetDir removes a store, and nothing that is none: a mistyped --dir must not cost a home directory.
func resetDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return &usageError{what: "--reset", err: err}
	}
	if _, err := os.Stat(filepath.Join(dir, "master.key")); err != nil {
		return &usageError{
			what: dir + " holds something else than an engine's store: nothing was removed",
			fix:  "name another --dir",
		}
	}
	return os.RemoveAll(dir)
}

// free finds a port that is in use before anything else is started.
func free(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return &usageError{
			what: "cannot listen on " + addr + ": the port is in use, or may not be used",
			fix:  "another --port, or 0 for a free one",
		}
	}
	return ln.Close()
}
