package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/simulator"
)

// The roles in which the program starts itself. Each writes one line of JSON on its standard output when it is ready,
// and one for each command that it reads; it ends in good order when its standard input does.
const (
	roleEngine = "engine"
	roleSim    = "sim"
	roleBare   = "bare" // an HTTP server that does nothing
)

// The environment of a node of a cluster.
const (
	envStore  = "MSGCTL_STORE"
	envBroker = "MSGCTL_BROKER"
	envLimits = "MSGCTL_LIMITS"
)

// hello is the first line of a role.
type hello struct {
	URL  string `json:"url"`
	SMPP string `json:"smpp,omitempty"`
	SMTP string `json:"smtp,omitempty"`
}

// usage is the answer to the command "usage".
type usage struct {
	CPU float64 `json:"cpu"` // seconds, of all threads, user and system
	RSS float64 `json:"rss"` // the most that was resident so far, in MiB
}

// seen is the simulator's answer to "entries N": what its ledger has after entry N.
type seen struct {
	Taken int      `json:"taken"`
	To    []string `json:"to"` // of those taken; phone numbers without +, webhooks as paths
	At    []int64  `json:"at"` // Unix time in µs
}

func role(name string, args []string) int {
	signal.Ignore(os.Interrupt) // the parent hears it and closes the input
	var err error
	switch name {
	case roleEngine:
		err = engineRole(args, os.Stdin, os.Stdout)
	case roleSim:
		err = simRole(os.Stdin, os.Stdout)
	case roleBare:
		err = bareRole(os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("no role %q", name)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", name, err)
		return 1
	}
	return 0
}

// obey says hello and answers commands until the input ends.
func obey(in io.Reader, out io.Writer, h hello, answer func(command, arg string) (any, error)) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(h); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		command, arg, _ := strings.Cut(lines.Text(), " ")
		var v any = ownUsage()
		var err error
		if command != "usage" {
			v, err = answer(command, arg)
		}
		if err == nil {
			err = enc.Encode(v)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func unknown(command, _ string) (any, error) { return nil, fmt.Errorf("no command %q", command) }

// engineRole runs an engine as cmd/engine would, on a free port. One with a node's name works with the servers that the
// environment names.
func engineRole(args []string, in io.Reader, out io.Writer) (err error) {
	f := flag.NewFlagSet(roleEngine, flag.ContinueOnError)
	dir := f.String("dir", "", "")
	profile := f.String("cpuprofile", "", "")
	node := f.String("node", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := engine.Config{Dir: *dir, Listen: "127.0.0.1:0", AllowPrivate: true, Logger: log}
	if cfg.Node = *node; cfg.Node != "" {
		cfg.Store, cfg.Broker, cfg.Limits = os.Getenv(envStore), os.Getenv(envBroker), os.Getenv(envLimits)
	}
	e, err := engine.New(cfg, all.Kinds()...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Start(context.Background()); err != nil {
		return err
	}
	if *profile != "" {
		w, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = w.Close() }()
		if err := pprof.StartCPUProfile(w); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return obey(in, out, hello{URL: "http://" + e.Addr()}, func(command, arg string) (any, error) {
		if command != "profiled" {
			return unknown(command, arg)
		}
		pprof.StopCPUProfile() // what follows is not the load; safe twice
		return struct{}{}, nil
	})
}

func simRole(in io.Reader, out io.Writer) error {
	sim, err := simulator.Start(context.Background(), sandbox.SimulatorOptions())
	if err != nil {
		return err
	}
	defer func() { _ = sim.Close() }()
	h := hello{URL: sim.URL(), SMPP: sim.SMPPAddr(), SMTP: sim.SMTPAddr()}
	return obey(in, out, h, func(command, arg string) (any, error) {
		switch command {
		case "callback":
			sim.SetWhatsAppCallback(arg)
			return struct{}{}, nil
		case "count":
			return sim.Ledger().Len(), nil
		case "entries":
			after, err := strconv.Atoi(arg)
			return entries(sim.Ledger(), after), err
		}
		return unknown(command, arg)
	})
}

func entries(l *simulator.Ledger, after int) seen {
	var s seen
	for _, e := range l.Entries(after) {
		if e.Taken {
			s.Taken++
			s.To = append(s.To, strings.TrimPrefix(e.To, "+"))
			s.At = append(s.At, e.At.UnixMicro())
		}
	}
	return s
}

// bareRole is the limit of single accepts: net/http that reads a body and answers 202.
func bareRole(in io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := []byte(`{"id":"msg_0000000000000000000000000","channel":"sms","status":"scheduled"}`)
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(answer)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	err = obey(in, out, hello{URL: "http://" + ln.Addr().String()}, unknown)
	_ = srv.Close()
	<-done
	return err
}
