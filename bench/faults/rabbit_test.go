//go:build faults && unix

package faults

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// broker is what a node says of RabbitMQ; "" = nothing.
func (n *node) broker() string {
	h, err := n.health()
	if err != nil {
		return ""
	}
	n.l.True(h.OK, "an engine is ready without RabbitMQ: %v", h.Parts)
	return h.Parts["broker"]
}

// flowed notes what was handed over in a span without RabbitMQ, and wants half of what is asked for.
func (l *lab) flowed(s span) {
	l.t.Helper()
	handed, gap := l.handed(s)
	l.note("in %s without it %.0f messages a second were handed over, with no pause above %s", round(s.to.Sub(s.from)),
		float64(handed)/s.seconds(), round(gap))
	l.GreaterOrEqual(float64(handed)/s.seconds(), usualRate/2., "messages a second")
}

// connected waits until both nodes have RabbitMQ again.
func (l *lab) connected() {
	l.t.Helper()
	back := time.Now()
	for _, n := range l.nodes {
		l.until(n.name+" has RabbitMQ again", func() bool { return n.broker() == "ok" })
	}
	l.note("both nodes used it again after %s", round(time.Since(back)))
}

func TestRabbitKill(t *testing.T) {
	l := begin(t, setup{rabbit: true})
	l.mq.Settle()
	gone := during(func() {
		l.mq.Kill()
		l.last(5 * time.Second)
		l.mq.Start()
	})
	l.flowed(gone)
	l.connected()
	l.finish(wanted{})
}

func TestRabbitWipe(t *testing.T) {
	l := begin(t, setup{rabbit: true})
	gone := during(func() {
		l.mq.Stop()
		l.mq.Start()
		l.mq.Wipe()
	})
	l.flowed(gone)
	l.connected()
	l.finish(wanted{})
}

func TestRabbitAlarm(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{rabbit: true})
	blocked := during(func() {
		l.mq.Alarm()
		began := time.Now()
		for _, n := range l.nodes {
			l.until(n.name+" says so", func() bool { s := n.broker(); return s != "ok" && s != "" })
		}
		l.within("both nodes said so", time.Since(began), 4*time.Second)
		l.last(8*time.Second - time.Since(began))
	})
	l.mq.Calm()
	l.flowed(blocked)
	l.connected()
	l.finish(wanted{})
}

func TestRabbitHang(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{rabbit: true})
	hung := during(func() {
		l.mq.Stall()
		l.last(15 * time.Second)
		for _, n := range l.nodes {
			v := n.vitals()
			l.t.Logf("%s meanwhile: %+v", n.name, v)
			l.LessOrEqual(v.goroutines, l.normal[0].goroutines+100, "goroutines of %s", n.name)
		}
	})
	l.mq.Resume()
	l.flowed(hung)
	l.connected()
	l.finish(wanted{})
}

func TestRabbitRedelivery(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{rabbit: true, mqQuery: "?prefetch=200&redeliver=20"})
	storm := during(func() {
		for range 25 {
			for _, n := range l.nodes {
				n.mq.Reset()
			}
			l.last(150 * time.Millisecond)
			for _, n := range l.nodes {
				l.until(n.name+" is connected", func() bool { return n.mq.Connections() > 0 })
			}
		}
	})
	l.flowed(storm)
	l.connected()
	l.note("%d hints were refused for good", l.refusedHints())
	l.finish(wanted{})
}

// refusedHints counts what lies in the queue for hints that came back too often.
func (l *lab) refusedHints() int {
	conn, err := amqp.Dial(l.mq.URL)
	l.NoError(err)
	defer conn.Close()
	ch, err := conn.Channel()
	l.NoError(err)
	q, err := ch.QueueDeclarePassive("msgctl.dead", true, false, false, false, nil)
	l.NoError(err)
	return q.Messages
}
