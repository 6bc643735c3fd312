package news

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Subscription receives the news of one topic.
type Subscription struct {
	n     *News
	topic string
	c     chan Notice
	gap   bool // the next notice says that some are missing
}

// C is where the notices come. It is closed by Close, of the subscription or of the News. Up to 64 wait there; beyond
// that the oldest are dropped, and the next one says so.
func (s *Subscription) C() <-chan Notice { return s.c }

// Close ends the subscription. It is safe twice.
func (s *Subscription) Close() {
	n := s.n
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.topics[s.topic]
	if t == nil {
		return
	}
	if _, in := t.receivers[s]; !in {
		return
	}
	delete(t.receivers, s)
	close(s.c)
	n.change()
}

// Subscribe begins to receive a topic's news. It does not wait for Redis: the first notice comes when it has begun.
func (n *News) Subscribe(name string) *Subscription {
	s := &Subscription{n: n, topic: name, c: make(chan Notice, buffer)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		close(s.c)
		return s
	}
	t := n.topics[name]
	if t == nil {
		t = &topic{receivers: map[*Subscription]struct{}{}, live: n.client == nil}
		n.topics[name] = t
	}
	t.receivers[s] = struct{}{}
	if t.live {
		s.put(Notice{Gap: true})
	}
	n.change()
	return s
}

// put hands a notice over, and drops the oldest when the receiver is slow. The lock is held, so nobody else puts.
func (s *Subscription) put(x Notice) {
	for {
		x.Gap = x.Gap || s.gap
		select {
		case s.c <- x:
			s.gap = false
			return
		default:
		}
		select {
		case <-s.c:
			s.gap = true
		default:
		}
	}
}

// deliver gives a notice to everybody who receives the topic.
func (n *News) deliver(name string, x Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.topics[name]
	if t == nil {
		return
	}
	for s := range t.receivers {
		own := x
		if x.Payload != nil {
			own.Payload = append([]byte{}, x.Payload...)
		}
		s.put(own)
	}
}

// change has enrol look. The lock is held.
func (n *News) change() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// enrol tells Redis which topics are wanted, as that changes.
func (n *News) enrol(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.changed:
		}
		var more, less []string
		n.mu.Lock()
		ps := n.ps
		for name, t := range n.topics {
			if len(t.receivers) == 0 {
				delete(n.topics, name)
				less = append(less, n.prefix+name)
			} else if !t.asked {
				t.asked = true
				more = append(more, n.prefix+name)
			}
		}
		n.mu.Unlock()
		if ps == nil {
			continue // the next connection begins with all topics
		}
		// When this fails, so does the connection, and the next one begins with all topics.
		var err error
		if len(less) > 0 {
			err = ps.Unsubscribe(ctx, less...)
		}
		if len(more) > 0 {
			err = errors.Join(err, ps.Subscribe(ctx, more...))
		}
		if err != nil {
			_ = ps.Close()
		}
	}
}

// receive hands on what Redis sends, over one connection after the other.
func (n *News) receive(ctx context.Context) {
	wait, away := 20*time.Millisecond, false
	for ctx.Err() == nil {
		heard, err := n.listen(ctx)
		n.lost()
		if ctx.Err() != nil {
			return
		}
		if heard {
			wait, away = 20*time.Millisecond, false
		}
		if !away {
			n.log.Debug("no news: Redis is away", "err", err)
		}
		away = true
		wait = min(2*wait, slowest)
		pause(ctx, wait/2+rand.N(wait))
	}
}

// listen uses one connection until it fails, and tells whether anything came over it.
func (n *News) listen(ctx context.Context) (heard bool, err error) {
	ps := n.client.Subscribe(ctx)
	defer func() { _ = ps.Close() }()
	n.mu.Lock()
	n.ps = ps
	channels := []string{n.prefix} // there is always one
	for name, t := range n.topics {
		t.asked = true
		channels = append(channels, n.prefix+name)
	}
	n.mu.Unlock()
	if err := ps.Subscribe(ctx, channels...); err != nil {
		return false, err
	}
	for quiet := false; ; {
		m, err := ps.ReceiveTimeout(ctx, idle)
		var slow net.Error
		if errors.As(err, &slow) && slow.Timeout() && !quiet {
			quiet = true // no word after this either, and the connection is given up
			if err = ps.Ping(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			return heard, err
		}
		heard, quiet = true, false
		switch m := m.(type) {
		case *goredis.Subscription:
			if name, ours := strings.CutPrefix(m.Channel, n.prefix); ours && m.Kind == "subscribe" {
				n.begun(name)
			}
		case *goredis.Message:
			if name, ours := strings.CutPrefix(m.Channel, n.prefix); ours {
				n.deliver(name, Notice{Payload: []byte(m.Payload)})
			}
		}
	}
}

// begun tells the receivers of a topic that from here on they get everything.
func (n *News) begun(name string) {
	n.mu.Lock()
	if t := n.topics[name]; t != nil {
		t.live = true
	}
	n.mu.Unlock()
	n.deliver(name, Notice{Gap: true})
}

// lost notes that nothing comes until Redis has confirmed the topics again.
func (n *News) lost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ps = nil
	for _, t := range n.topics {
		t.live = false
	}
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
