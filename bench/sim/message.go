package sim

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// message is one that the scene sends, with what the simulation has seen of it.
type message struct {
	n, batch   int
	at         time.Duration
	tenant     delivery.TenantID
	lane       delivery.Lane
	delay, ttl time.Duration
	atMostOnce bool
	category   string
	tag        string
	key        string
	template   bool
	ways       []way

	id       delivery.MessageID
	due      time.Time // as it was asked for
	expires  time.Time // as it was asked for, or as a redrive set it
	order    int       // of the commit that made it durable, from 1; 0 = none has
	accepted bool      // its sender was told so
	canceled bool      // whoever canceled it was told so
	redriven bool      // a person has put it back, and accepts what comes of it

	epoch int            // the highest that a claim had
	lease *store.Claimed // the claim that is open
	by    *process       // who has it
	until time.Time      // its end
	ends  time.Duration  // the same after the start, whatever the wall clock says
	hands []*handover

	proven [store.MaxLegs]bool // a receipt for the leg has moved the message on
	said   []said              // receipts that the engine has taken
	known  bool                // a receipt came for it while it waited, and was only written down
	asked  bool                // its provider has said decisively what became of a doubt
}

// said is one receipt.
type said struct {
	ref    string
	status delivery.Status
}

// way is one leg.
type way struct {
	channel delivery.Channel
	to      string
	pinned  *account
	within  time.Duration
	success delivery.Status
}

func (m *message) String() string { return fmt.Sprintf("m%02d", m.n) }

// messageID is a UUIDv7 that carries the time and the message's number.
func messageID(seed uint64, n int, at time.Time) (id delivery.MessageID) {
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16|0x7000|uint64(n)&0xfff)
	binary.BigEndian.PutUint64(id[8:], seed<<16|uint64(n)&0xffff)
	id[8] = id[8]&0x3f | 0x80
	return id
}

func accountID(seed uint64, n int) (id delivery.AccountID) {
	copy(id[:], "account")
	binary.BigEndian.PutUint64(id[8:], seed<<8|uint64(n))
	return id
}

// text is what the person is to read.
func (m *message) text(leg int) string { return fmt.Sprintf("this is %s by way %d", m, leg) }

func (m *message) draft(leg int) []byte {
	text := m.text(leg)
	d := delivery.Draft{Content: &delivery.Content{Text: text}}
	switch m.ways[leg].channel {
	case delivery.Email:
		d.Content.Subject = text
	case delivery.Webhook:
		d.Content = &delivery.Content{Event: "sim", Data: json.RawMessage(fmt.Sprintf("%q", text))}
	case delivery.SMS:
		if m.template {
			d = delivery.Draft{Template: "sim", Version: 1, Vars: map[string]any{"who": m.String(), "way": leg}}
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // the draft is made above
	}
	return b
}

// stored is the message as it is handed to the store.
func (m *message) stored() store.NewMessage {
	first := m.ways[0]
	out := store.NewMessage{
		ID: m.id, Channel: first.channel, Lane: m.lane, To: first.to, Payload: m.draft(0), Segments: 1, DueAt: m.due,
		ExpiresAt: m.expires, AtMostOnce: m.atMostOnce, ClientRef: m.String(), Category: m.category, Tag: m.tag,
		OrderingKey: m.key,
	}
	if first.pinned != nil {
		out.Account = first.pinned.id
	}
	if len(m.ways) > 1 {
		out.Within, out.Success = first.within, first.success
	}
	for i, w := range m.ways[1:] {
		leg := store.NewLeg{
			Channel: w.channel, To: w.to, Payload: m.draft(i + 1), Segments: 1, Within: w.within, Success: w.success,
		}
		if w.pinned != nil {
			leg.Account = w.pinned.id
		}
		out.Then = append(out.Then, leg)
	}
	return out
}
