package broker

import (
	"fmt"
	"log/slog"
	"sync"
)

// open connects to RabbitMQ: once for publishing and once for consuming, because a server that holds back whoever
// publishes too much does so by connection, and acknowledgements must not wait for that.
func open(cfg *config, log *slog.Logger) (*Broker, error) {
	st := newStatus(cfg, log)
	if cfg.exposed() {
		st.log.Warn("the password and the hints cross the network in clear: use amqps://")
	}
	pub, sub := newPublisher(cfg, st), newSubscriber(cfg, st)
	closing := sync.OnceValue(func() error {
		sub.Close()
		return pub.Close()
	})
	first := [...]<-chan error{pub.link.start(), sub.link.start()}
	var refusal error
	for _, outcome := range first {
		if err := <-outcome; hopeless(err) && refusal == nil {
			refusal = err
		}
	}
	if refusal != nil {
		_ = closing()
		return nil, fmt.Errorf("broker: %s does not let us in: %w; check user, password, vhost and TLS", cfg.shown, refusal)
	}
	return &Broker{Publisher: pub, Subscriber: sub, close: closing, health: st.health}, nil
}
