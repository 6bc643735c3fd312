package broker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Health is how a broker is.
type Health struct {
	Connected bool      // messages can be published, and every subscription is listening
	Blocked   bool      // RabbitMQ takes no messages for now; subscriptions go on
	Since     time.Time // when the state of Connected and Blocked began
	Reason    string    // why not connected, or blocked; safe to show. "" when all is well
}

// status gathers what the parts of a broker say of themselves, and logs what changes.
type status struct {
	log *slog.Logger
	now func() time.Time

	mu       sync.Mutex
	troubles map[string]string    // by part; a part that is well has no entry
	told     map[string]bool      // parts whose trouble has been logged
	quiet    map[string]time.Time // parts that came back, and until when another trouble is no news
	blocked  string
	since    time.Time
}

func newStatus(cfg *config, log *slog.Logger) *status {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &status{
		log: log.With("part", "broker", "url", cfg.shown), now: cfg.now, since: cfg.now(),
		troubles: map[string]string{}, told: map[string]bool{}, quiet: map[string]time.Time{},
	}
}

// trouble says that a part cannot work, or can again with nil. Of an outage it logs the beginning and the end, not
// every attempt; of a part that comes and goes it logs about one of either a minute.
func (s *status) trouble(part string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.troubles) == 0
	level, now := slog.LevelDebug, s.now()
	_, known := s.troubles[part]
	switch {
	case err != nil:
		s.troubles[part] = err.Error()
		if !s.told[part] && !now.Before(s.quiet[part]) {
			level, s.told[part] = slog.LevelWarn, true
		}
		s.log.Log(context.Background(), level, "RabbitMQ is away; the sweeper finds the work meanwhile",
			"use", part, "err", err)
	case known:
		delete(s.troubles, part)
		if s.told[part] {
			level, s.told[part], s.quiet[part] = slog.LevelInfo, false, now.Add(time.Minute)
		}
		s.log.Log(context.Background(), level, "RabbitMQ is there", "use", part)
	}
	if before != (len(s.troubles) == 0) {
		s.since = now
	}
}

// block says that RabbitMQ takes no messages, or does again with "".
func (s *status) block(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (s.blocked == "") == (reason == "") {
		return
	}
	s.blocked, s.since = reason, s.now()
	if reason != "" {
		s.log.Warn("RabbitMQ takes no messages; the sweeper finds the work meanwhile", "reason", reason)
	} else {
		s.log.Info("RabbitMQ takes messages again")
	}
}

func (s *status) health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := Health{Connected: len(s.troubles) == 0, Blocked: s.blocked != "", Since: s.since}
	var why []string
	for _, part := range slices.Sorted(maps.Keys(s.troubles)) {
		why = append(why, part+": "+s.troubles[part])
	}
	if s.blocked != "" {
		why = append(why, ErrBlocked.Error()+" ("+s.blocked+")")
	}
	h.Reason = strings.Join(why, "; ")
	return h
}
