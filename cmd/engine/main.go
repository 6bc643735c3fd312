// Command engine serves the msgctl API. Without any argument it runs with good defaults: an embedded store in ./data and
// the API on loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // zones of recipients, on hosts without zone files

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/pipeline"
)

// version is set at build time with -ldflags "-X main.version=…".
var version = "dev"

// Exit codes: those of msgctl where they mean the same.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitUnanswered = 3 // the drain ended while attempts were without an answer
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// usageError marks a mistake in what was typed.
type usageError struct{ error }

func run(args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.Execute()
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		text := strings.TrimSpace(err.Error())
		see := ". See"
		if strings.Contains(text, "\n") { // an excerpt of a file
			see = "\nSee"
		}
		fmt.Fprintf(stderr, "engine: %s%s engine --help\n", text, see)
		return exitUsage
	case errors.Is(err, pipeline.ErrUnanswered):
		fmt.Fprintf(stderr, "engine: %v\n", err)
		return exitUnanswered
	}
	fmt.Fprintf(stderr, "engine: %v\n", err)
	return exitFailed
}

type options struct {
	config, dir, listen, publicURL, logLevel, logFormat string
	allowPrivate                                        bool
}

func command(stdout io.Writer) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "engine",
		Short: "Serve the msgctl delivery engine",
		Long: `engine serves the msgctl API and delivers what it accepts.

Without any argument it keeps everything in ./data (one SQLite file, no server to install) and listens on ` + engine.DefaultListen + `.
At its first start it makes an operator's key and writes it to DIR/` + engine.OperatorKeyFile + `.

SIGTERM and Ctrl-C drain: new requests are refused, attempts under way may end, and nothing is lost or sent twice.
A second signal stops at once; attempts without an answer are then settled at the next start.`,
		Example: `  engine
  engine --dir /var/lib/msgctl --listen 0.0.0.0:8020 --public-url https://msg.example.com
  engine --config engine.yaml`,
		Args:          noArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return serve(cmd, o) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&o.config, "config", "", "read settings from a YAML `file`; flags and MSGCTL_… variables go before it")
	f.StringVar(&o.dir, "dir", "", "keep everything in this `directory` (default ./data)")
	f.StringVar(&o.listen, "listen", "", "serve the API on this `address` (default "+engine.DefaultListen+")")
	f.StringVar(&o.publicURL, "public-url", "", "how providers reach the API for callbacks, as a `URL`")
	f.StringVar(&o.logLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&o.logFormat, "log-format", "", "json or text (default json)")
	f.BoolVar(&o.allowPrivate, "allow-private", false, "let connectors reach loopback and private addresses; for development")
	root.AddCommand(
		&cobra.Command{Use: "serve", Short: "The same as engine alone", Args: noArgs, RunE: root.RunE},
		&cobra.Command{
			Use: "healthcheck", Short: "Exit 0 when the engine at --listen is ready, for containers and scripts", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return healthcheck(o) },
		},
		&cobra.Command{
			Use: "config", Short: "Check the configuration and print it as it would be used", Args: noArgs,
			RunE: func(*cobra.Command, []string) error {
				cfg, err := o.read()
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(stdout, cfg.String())
				return err
			},
		},
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { _, err := fmt.Fprintln(stdout, "engine "+version); return err },
		},
	)
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown argument %q", args[0])}
	}
	return nil
}

// read joins flags, environment, file and defaults, in this order of weight.
func (o options) read() (engine.Config, error) {
	pick := func(flag, env string) string {
		if flag != "" {
			return flag
		}
		return os.Getenv("MSGCTL_" + env)
	}
	cfg, err := engine.ReadConfig(pick(o.config, "CONFIG"))
	if err != nil {
		return cfg, usageError{err}
	}
	for _, s := range []struct {
		to        *string
		flag, env string
	}{
		{&cfg.Dir, o.dir, "DIR"}, {&cfg.Listen, o.listen, "LISTEN"}, {&cfg.PublicURL, o.publicURL, "PUBLIC_URL"},
		{&cfg.Log.Level, o.logLevel, "LOG__LEVEL"}, {&cfg.Log.Format, o.logFormat, "LOG__FORMAT"},
	} {
		if v := pick(s.flag, s.env); v != "" {
			*s.to = v
		}
	}
	cfg.AllowPrivate = cfg.AllowPrivate || o.allowPrivate || os.Getenv("MSGCTL_ALLOW_PRIVATE") == "true"
	if err := cfg.Check(); err != nil {
		return cfg, usageError{err}
	}
	cfg.Version = version
	return cfg, nil
}

func serve(cmd *cobra.Command, o options) error {
	cfg, err := o.read()
	if err != nil {
		return err
	}
	cfg.Logger = cfg.ServerLog(os.Stderr)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	e, err := engine.New(cfg, all.Kinds()...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if err := e.Start(ctx); err != nil {
		return errors.Join(err, e.Close())
	}
	<-signals
	cfg.Logger.Info("draining: a second signal stops at once")
	go func() {
		<-signals
		cancel()
	}()
	return e.Shutdown(ctx)
}

func healthcheck(o options) error {
	cfg, err := o.read()
	if err != nil {
		return err
	}
	host := cfg.Listen
	if strings.HasPrefix(host, ":") || strings.HasPrefix(host, "0.0.0.0:") {
		host = "127.0.0.1" + host[strings.LastIndex(host, ":"):]
	}
	client := http.Client{Timeout: 3 * time.Second}
	resp, err := client.Get("http://" + host + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}
