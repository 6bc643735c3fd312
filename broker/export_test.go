package broker

import (
	"log/slog"
	"net/url"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Waits are the deadlines that a test shortens; zero leaves them.
type Waits struct{ Dial, Confirm, Backoff, BackoffMax, Renew time.Duration }

// OpenHasty is Open with other deadlines.
func OpenHasty(rawURL string, log *slog.Logger, w Waits) (*Broker, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	cfg, err := parse(u)
	if err != nil {
		return nil, err
	}
	for to, d := range map[*time.Duration]time.Duration{
		&cfg.dialWait: w.Dial, &cfg.confirmWait: w.Confirm, &cfg.backoff: w.Backoff, &cfg.backoffMax: w.BackoffMax,
		&cfg.renew: w.Renew,
	} {
		if d > 0 {
			*to = d
		}
	}
	return open(cfg, log)
}

const (
	DeliveryLimit = deliveryLimit
	DeadName      = deadName
)

func Pack(m *message.Message, tag uint64) amqp.Publishing { return pack(m, tag) }
func Unpack(d *amqp.Delivery) *message.Message            { return unpack(d) }
func Returns(d *amqp.Delivery) int                        { return returns(d) }
func Check(topic string, m ...*message.Message) error     { return check(topic, m) }
func QueueArgs() amqp.Table                               { return queueArgs(false) }
