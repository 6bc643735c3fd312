package engine

import (
	"context"
	"sync"

	"github.com/msgctl/msgctl/cluster"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// Some providers allow an account fewer sessions than a cluster has nodes. Then the nodes share them: who has one sends,
// the others leave the account's messages to it. A session is the store's to give, and ends with its node's life; so a
// node that cannot be sure that it counts as alive has none.

// maxBindsSetting is the setting of a kind with sessions that says how many nodes may have one.
const maxBindsSetting = "max_binds"

// sessions are those that this node has.
type sessions struct {
	mu   sync.Mutex
	held map[delivery.AccountID]bool
}

func (s *sessions) has(id delivery.AccountID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id]
}

// set says whether the node has a session, and reports whether that is news.
func (s *sessions) set(id delivery.AccountID, has bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[id] == has {
		return false
	}
	if s.held == nil {
		s.held = map[delivery.AccountID]bool{}
	}
	if has {
		s.held[id] = true
	} else {
		delete(s.held, id)
	}
	return true
}

// list returns the accounts of which the node has a session.
func (s *sessions) list() []delivery.AccountID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]delivery.AccountID, 0, len(s.held))
	for id := range s.held {
		ids = append(ids, id)
	}
	return ids
}

// sessionsOf is how many nodes may have a session of an account at once; 0 = each of them.
func (e *Engine) sessionsOf(kind *connectors.Kind, settings connectors.Settings) int {
	if _, has := kind.Setting(maxBindsSetting); !has || e.member == nil || !e.cfg.has(cluster.Deliver) {
		return 0
	}
	return max(0, settings.Int(maxBindsSetting))
}

// session asks for a session or renews it, and returns whether the node has one. While the store does not answer, it has
// what it had: a session lasts as long as the node counts as alive, and then heldBack says that it does not.
func (e *Engine) session(ctx context.Context, id delivery.AccountID, most int) (has, news bool) {
	has = false
	if e.heldBack() == "" {
		got, err := e.member.Session(ctx, id, most)
		if err != nil {
			return e.sessions.has(id), false
		}
		has = got
	}
	return has, e.sessions.set(id, has)
}

// renewSessions is called after each sign of life.
func (e *Engine) renewSessions(ctx context.Context) {
	a := &e.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := map[delivery.AccountID]bool{}
	changed := false
	for id, have := range a.open {
		if have.most == 0 {
			continue
		}
		wanted[id] = true
		has, _ := e.session(ctx, id, have.most)
		if has == !have.account.Elsewhere {
			continue
		}
		next, err := e.buildAccount(have.row, have.kind, have.settings, !has)
		if err != nil {
			e.log.Error("a connector account cannot be opened", "tenant", string(have.row.Tenant), "connector", have.row.Name,
				"err", err)
			continue
		}
		have.account, changed = next, true
		a.open[id] = have
		log := e.log.With("tenant", string(have.row.Tenant), "connector", have.row.Name)
		if has {
			log.Info("this node has a session of the connector and sends what goes by it")
		} else {
			log.Info("this node has no session of the connector any more; others send what goes by it")
		}
	}
	if changed {
		e.pipeline.SetAccounts(a.list())
	}
	for _, id := range e.sessions.list() {
		if !wanted[id] && e.member.Drop(ctx, id) == nil {
			e.sessions.set(id, false)
		}
	}
}
