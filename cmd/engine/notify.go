package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// notifyTimeout bounds how long telling the service manager may take. It reads its socket at once or not at all.
const notifyTimeout = time.Second

// supervisor tells the service manager what the program is doing, as in sd_notify(3): a datagram of KEY=VALUE lines to the
// socket that NOTIFY_SOCKET names. Without a manager it does nothing. Its methods are safe for concurrent use.
type supervisor struct {
	socket string        // "" = nobody listens; a leading @ = the abstract namespace
	every  time.Duration // between two signs of life; 0 = none are asked for
	log    *slog.Logger

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// newSupervisor reads what the service manager has put into the environment.
func newSupervisor(getenv func(string) string, pid int, log *slog.Logger) *supervisor {
	s := &supervisor{socket: getenv("NOTIFY_SOCKET"), log: log, stop: func() {}}
	if s.socket == "" {
		return s
	}
	if s.socket[0] != '/' && s.socket[0] != '@' {
		log.Warn("NOTIFY_SOCKET is not used: it names neither a path nor an abstract socket")
		s.socket = ""
		return s
	}
	// The watchdog is for one process: WATCHDOG_PID says which, when it is there.
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return s
	}
	text := getenv("WATCHDOG_USEC")
	if text == "" {
		return s
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		log.Warn("WATCHDOG_USEC is not used: it is no number of microseconds up to a day")
		return s
	}
	s.every = time.Duration(usec) * time.Microsecond / 2 // as sd_watchdog_enabled(3) advises
	return s
}

// supervised makes the supervisor of this process.
func supervised(log *slog.Logger) *supervisor { return newSupervisor(os.Getenv, os.Getpid(), log) }

// ready says that the start is over, and begins the signs of life if they are asked for. They go on during a drain, and
// end with close.
func (s *supervisor) ready(status string) {
	s.tell("READY=1\nSTATUS=" + status)
	if s.every == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.wg.Go(func() {
		t := time.NewTicker(s.every)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				s.tell("WATCHDOG=1")
			}
		}
	})
}

// stopping says that the drain has begun.
func (s *supervisor) stopping() { s.tell("STOPPING=1\nSTATUS=draining") }

// close ends the signs of life.
func (s *supervisor) close() {
	s.stop()
	s.wg.Wait()
}

// tell sends one datagram. A manager that cannot be told is no reason to stop: it will act by its own time limits.
func (s *supervisor) tell(lines string) {
	if s.socket == "" {
		return
	}
	if err := sendDatagram(s.socket, lines); err != nil {
		s.log.Warn("the service manager cannot be told", "err", err)
	}
}

func sendDatagram(socket, text string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}
