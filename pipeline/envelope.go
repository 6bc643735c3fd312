package pipeline

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/msgctl/msgctl/delivery"
)

// maxHint is how many ids one hint carries.
const maxHint = 256

// hint names due messages of one queue. A hint without ids says that the queue has work which did not fit into hints:
// look into the store.
type hint struct {
	queue delivery.Queue
	ids   []delivery.MessageID
}

// Metadata keys of a hint's Watermill message; its payload is the ids, 16 bytes each.
const (
	metaTenant  = "tenant"
	metaChannel = "channel"
	metaLane    = "lane"
)

func (h hint) pack() *message.Message {
	payload := make([]byte, 0, 16*len(h.ids))
	for _, id := range h.ids {
		payload = append(payload, id[:]...)
	}
	m := message.NewMessage(watermill.NewShortUUID(), payload)
	m.Metadata[metaTenant] = string(h.queue.Tenant)
	m.Metadata[metaChannel] = strconv.Itoa(int(h.queue.Channel))
	m.Metadata[metaLane] = strconv.Itoa(int(h.queue.Lane))
	return m
}

func unpack(m *message.Message) (hint, error) {
	ch, err1 := strconv.ParseUint(m.Metadata[metaChannel], 10, 8)
	lane, err2 := strconv.ParseUint(m.Metadata[metaLane], 10, 8)
	if err1 != nil || err2 != nil || len(m.Payload)%16 != 0 || len(m.Payload) > 16*maxHint {
		return hint{}, fmt.Errorf("hint %s cannot be read: %d bytes, metadata %v", m.UUID, len(m.Payload), m.Metadata)
	}
	h := hint{
		queue: delivery.Queue{
			Tenant: delivery.TenantID(m.Metadata[metaTenant]), Channel: delivery.Channel(ch), Lane: delivery.Lane(lane),
		},
		ids: make([]delivery.MessageID, len(m.Payload)/16),
	}
	for i := range h.ids {
		copy(h.ids[i][:], m.Payload[16*i:])
	}
	return h, nil
}

// consume adapts a stage to Watermill. It always acknowledges: a hint is not the only copy of anything, so a failure is
// logged and the sweeper finds the work again. A Nack would bring the same hint back at once, without end.
func (p *Pipeline) consume(s stage) message.NoPublishHandlerFunc {
	return func(m *message.Message) error {
		h, err := unpack(m)
		if err == nil {
			err = s.onHint(m.Context(), h)
		}
		if err != nil && p.ctx.Err() == nil {
			p.metrics.hintErrors.WithLabelValues(s.name).Inc()
			p.log.Warn("a hint came to nothing; the sweeper will find its messages", "stage", s.name, "err", err)
		}
		return nil
	}
}

// publish sends a hint to a stage.
func (p *Pipeline) publish(ctx context.Context, stage string, h hint) error {
	m := h.pack()
	m.SetContext(ctx)
	return p.opt.Publish.Publish(topicOf(stage, h.queue.Lane == delivery.Urgent), m)
}
