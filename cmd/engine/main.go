// Command engine serves the msgctl API. Without any argument it runs with good defaults: an embedded store in ./data and
// the API on loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // zones of recipients, on hosts without zone files

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/tracing"
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
	store, broker, limits, node, roles, heartbeat       string
	otlp, sample                                        string
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

With --store postgres://… any number of engines work together, each under a --node name of its own and all with the same
master key. --broker amqp://… makes them hear of work at once, --limits redis://… makes them share rate limits. URLs with
passwords are better given as MSGCTL_STORE, MSGCTL_BROKER and MSGCTL_LIMITS: other users of the host can read flags.

SIGTERM and Ctrl-C drain: new requests are refused, attempts under way may end, and nothing is lost or sent twice.
A second signal stops at once; attempts without an answer are then settled at the next start.`,
		Example: `  engine
  engine --dir /var/lib/msgctl --listen 0.0.0.0:8020 --public-url https://msg.example.com
  engine --config engine.yaml
  MSGCTL_STORE=postgres://msgctl:secret@db/msgctl engine --dir /var/lib/msgctl --node eu-1`,
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
	f.StringVar(&o.store, "store", "", "share the store at this `URL`, postgres://user@host/database (default a file in --dir)")
	f.StringVar(&o.broker, "broker", "", "carry hints by the RabbitMQ at this `URL`, amqp://user@host (default in process)")
	f.StringVar(&o.limits, "limits", "", "share rate limits through the Redis at this `URL`, redis://host (default alone)")
	f.StringVar(&o.node, "node", "", "the `name` of this engine among those that share the store (default the host's)")
	f.StringVar(&o.roles, "roles", "", "what this engine does for the others, `A,B` of api, deliver, schedule and webhook "+
		"(default all)")
	f.StringVar(&o.heartbeat, "heartbeat", "", "how long this engine's sign of life holds, a `duration` (default 3s)")
	f.StringVar(&o.publicURL, "public-url", "", "how providers reach the API for callbacks, as a `URL`")
	f.StringVar(&o.logLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&o.logFormat, "log-format", "", "json or text (default json)")
	f.StringVar(&o.otlp, "otlp", "", "send traces to the OTLP/HTTP receiver at this `URL` (default OTEL_EXPORTER_OTLP_ENDPOINT)")
	f.StringVar(&o.sample, "trace-sample", "", "the `share` of messages that are traced, 0 to 1 (default 1)")
	f.BoolVar(&o.allowPrivate, "allow-private", false, "let connectors reach loopback and private addresses; for development")
	root.AddCommand(
		&cobra.Command{Use: "serve", Short: "The same as engine alone", Args: noArgs, RunE: root.RunE},
		healthcheckCommand(&o),
		operatorKeyCommand(&o, stdout),
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
		{&cfg.Store, o.store, "STORE"}, {&cfg.Broker, o.broker, "BROKER"}, {&cfg.Limits, o.limits, "LIMITS"},
		{&cfg.Node, o.node, "NODE"},
		{&cfg.Telemetry.OTLP, o.otlp, "TELEMETRY__OTLP"},
		{&cfg.Log.Level, o.logLevel, "LOG__LEVEL"}, {&cfg.Log.Format, o.logFormat, "LOG__FORMAT"},
	} {
		if v := pick(s.flag, s.env); v != "" {
			*s.to = v
		}
	}
	if v := pick(o.roles, "ROLES"); v != "" {
		cfg.Roles = strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })
	}
	if v := pick(o.heartbeat, "HEARTBEAT"); v != "" {
		if cfg.Heartbeat, err = time.ParseDuration(v); err != nil {
			return cfg, usageError{fmt.Errorf("configuration: heartbeat: %q is not a duration: use a value such as 3s", v)}
		}
	}
	if v := pick(o.sample, "TELEMETRY__SAMPLE"); v != "" {
		share, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return cfg, usageError{fmt.Errorf("configuration: telemetry.sample: %q is not a share: use a number from 0 to 1", v)}
		}
		cfg.Telemetry.Sample = &share
	}
	if cfg.Telemetry.OTLP == "" { // the variable of all programs goes behind what is said to this one
		cfg.Telemetry.OTLP = tracing.EndpointOf(os.Getenv)
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
	if err := bringMasterKey(cfg.Dir, os.Getenv); err != nil {
		return err
	}
	e, err := engine.New(cfg, all.Kinds()...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if err := e.Start(ctx); err != nil {
		return errors.Join(err, e.Close())
	}
	sup := supervised(cfg.Logger)
	defer sup.close()
	sup.ready("serving on " + e.Addr())
	<-signals
	sup.stopping()
	cfg.Logger.Info("draining: a second signal stops at once")
	go func() {
		<-signals
		cancel()
	}()
	return e.Shutdown(ctx)
}
