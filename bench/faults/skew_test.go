//go:build faults && unix

package faults

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
)

// shifted is the real clock, wrong by a time.
type shifted struct {
	clockwork.Clock
	by time.Duration
}

func (s shifted) Now() time.Time                  { return s.Clock.Now().Add(s.by) }
func (s shifted) Since(t time.Time) time.Duration { return s.Now().Sub(t) }
func (s shifted) Until(t time.Time) time.Duration { return t.Sub(s.Now()) }

// skewedEngine is the engine as a process whose clock is wrong. The real program has no switch for that, and the tricks
// that give C programs another clock do not work for Go.
func skewedEngine(log io.Writer) int {
	by, err := time.ParseDuration(os.Getenv("FAULTS_SKEW"))
	if err != nil {
		fmt.Fprintln(log, err)
		return 2
	}
	listen := os.Getenv("FAULTS_LISTEN")
	e, err := engine.New(engine.Config{
		Dir: os.Getenv("FAULTS_DIR"), Listen: listen, PublicURL: "http://" + listen, Node: os.Getenv("FAULTS_NODE"),
		Store: os.Getenv("MSGCTL_STORE"), Broker: os.Getenv("MSGCTL_BROKER"), Limits: os.Getenv("MSGCTL_LIMITS"),
		AllowPrivate: true, Clock: shifted{clockwork.NewRealClock(), by},
		Logger: slog.New(slog.NewJSONHandler(log, nil)),
	}, all.Kinds()...)
	if err == nil {
		err = e.Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(log, err)
		return 1
	}
	end, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-end.Done()
	if err := e.Close(); err != nil {
		fmt.Fprintln(log, err)
		return 1
	}
	return 0
}
