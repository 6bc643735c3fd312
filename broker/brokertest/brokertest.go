// Package brokertest checks what the pipeline relies on in a broker.
//
// A broker passes with Run. Each subtest is a sentence of the contract, and its name says which.
package brokertest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Broker is what is checked: broker.Broker has these methods.
type Broker interface {
	message.Publisher
	Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error)
}

// patience is for a broker on a machine with much else to do.
const patience = 20 * time.Second

// Run checks the brokers that open makes. open is called once for each subtest and must give an open broker; Run closes
// it.
func Run(t *testing.T, open func(t *testing.T) Broker) {
	for _, c := range []struct {
		sentence string
		check    func(*kit)
	}{
		{"what is published on a topic reaches its subscription unchanged", unchanged},
		{"a subscription gets nothing of another topic", apart},
		{"the messages of one publisher come in order", inOrder},
		{"many publishers at once lose nothing", concurrent},
		{"a topic whose messages nobody answers does not hold up another", independent},
		{"a message that was refused comes again", again},
		{"the context of a message ends when it is acknowledged", contextEnds},
		{"a subscription ends with its context", subscriptionEnds},
		{"a new subscription goes on where the last one ended", resumes},
		{"Close ends every subscription and every call after it fails", closed},
		{"Close is safe twice, also at the same time", closedTwice},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			id := watermill.NewShortUUID() // a broker may keep what an earlier run left
			k := &kit{
				T: t, Broker: open(t),
				plan: "msgctl.plan." + id, urgent: "msgctl.urgent." + id, route: "msgctl.route." + id,
			}
			t.Cleanup(func() {
				if err := k.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			c.check(k)
		})
	}
}

type kit struct {
	*testing.T
	Broker
	plan, urgent, route string // topics
}

func (k *kit) subscribe(ctx context.Context, topic string) <-chan *message.Message {
	k.Helper()
	in, err := k.Subscribe(ctx, topic)
	if err != nil {
		k.Fatalf("Subscribe: %v", err)
	}
	return in
}

func (k *kit) next(in <-chan *message.Message) *message.Message {
	k.Helper()
	select {
	case m, ok := <-in:
		if !ok {
			k.Fatal("the subscription ended")
		}
		return m
	case <-time.After(patience):
		k.Fatal("no message came")
	}
	return nil
}

// publish publishes from beside: a broker may wait until the messages are acknowledged.
func (k *kit) publish(topic string, msgs ...*message.Message) (done <-chan error) {
	result := make(chan error, 1)
	go func() { result <- k.Publish(topic, msgs...) }()
	return result
}

func (k *kit) wait(done <-chan error) {
	k.Helper()
	select {
	case err := <-done:
		if err != nil {
			k.Fatalf("Publish: %v", err)
		}
	case <-time.After(patience):
		k.Fatal("Publish does not return")
	}
}

func text(s string) *message.Message { return message.NewMessage("id-"+s, []byte(s)) }

func unchanged(k *kit) {
	in := k.subscribe(k.Context(), k.plan)
	full := bytes.Repeat([]byte{0, 1, 0xfe, 0xff}, 1024) // a hint of 256 ids
	sent := []*message.Message{
		message.NewMessage("", nil),
		message.NewMessage("full", full),
		message.NewMessage("meta", []byte("x")),
	}
	sent[2].Metadata = message.Metadata{"tenant": "acme ü", "channel": "1", "lane": "", "odd key\x00": "\xff\x00"}
	done := k.publish(k.plan, sent...)
	for _, want := range sent {
		got := k.next(in)
		if got.UUID != want.UUID || !bytes.Equal(got.Payload, want.Payload) || !maps.Equal(got.Metadata, want.Metadata) {
			k.Errorf("sent %q %q %v, got %q %q %v", want.UUID, want.Payload, want.Metadata, got.UUID, got.Payload, got.Metadata)
		}
		got.Ack()
	}
	k.wait(done)
}

func apart(k *kit) {
	plan, urgent := k.subscribe(k.Context(), k.plan), k.subscribe(k.Context(), k.urgent)
	done := []<-chan error{k.publish(k.plan, text("1"), text("2")), k.publish(k.urgent, text("3"), text("4"))}
	for range 2 {
		for topic, in := range map[string]<-chan *message.Message{"12": plan, "34": urgent} {
			m := k.next(in)
			if !bytes.Contains([]byte(topic), m.Payload) {
				k.Errorf("%q came to the subscription of %q", m.Payload, topic)
			}
			m.Ack()
		}
	}
	for _, d := range done {
		k.wait(d)
	}
}

func inOrder(k *kit) {
	in := k.subscribe(k.Context(), k.plan)
	const n = 200
	done := make(chan error, 1)
	go func() {
		for i := range n / 2 { // one by one, then all at once
			if err := k.Publish(k.plan, text(fmt.Sprint(i))); err != nil {
				done <- err
				return
			}
		}
		var rest []*message.Message
		for i := n / 2; i < n; i++ {
			rest = append(rest, text(fmt.Sprint(i)))
		}
		done <- k.Publish(k.plan, rest...)
	}()
	for i := range n {
		m := k.next(in)
		if string(m.Payload) != fmt.Sprint(i) {
			k.Fatalf("%q came as number %d", m.Payload, i)
		}
		m.Ack()
	}
	k.wait(done)
}

func concurrent(k *kit) {
	in := k.subscribe(k.Context(), k.plan)
	const publishers, each = 20, 25
	var done []<-chan error
	for p := range publishers {
		result := make(chan error, 1)
		done = append(done, result)
		go func() {
			for i := range each {
				if err := k.Publish(k.plan, text(fmt.Sprintf("%d/%d", p, i))); err != nil {
					result <- err
					return
				}
			}
			result <- nil
		}()
	}
	seen := map[string]bool{}
	for len(seen) < publishers*each {
		m := k.next(in)
		seen[string(m.Payload)] = true
		m.Ack()
	}
	for _, d := range done {
		k.wait(d)
	}
}

func independent(k *kit) {
	plan, urgent := k.subscribe(k.Context(), k.plan), k.subscribe(k.Context(), k.urgent)
	slow := k.publish(k.plan, text("slow"))
	held := k.next(plan)
	fast := k.publish(k.urgent, text("fast"))
	k.next(urgent).Ack()
	k.wait(fast)
	held.Ack()
	k.wait(slow)
}

func again(k *kit) {
	in := k.subscribe(k.Context(), k.plan)
	done := k.publish(k.plan, text("twice"))
	k.next(in).Nack()
	m := k.next(in)
	if string(m.Payload) != "twice" {
		k.Errorf("%q came", m.Payload)
	}
	m.Ack()
	k.wait(done)
}

func contextEnds(k *kit) {
	in := k.subscribe(k.Context(), k.plan)
	done := k.publish(k.plan, text("1"))
	m := k.next(in)
	if err := m.Context().Err(); err != nil {
		k.Errorf("the context has ended before: %v", err)
	}
	m.Ack()
	select {
	case <-m.Context().Done():
	case <-time.After(patience):
		k.Error("it has not ended")
	}
	k.wait(done)
}

func (k *kit) ends(in <-chan *message.Message) {
	k.Helper()
	end := time.After(patience)
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return
			}
			m.Nack()
		case <-end:
			k.Fatal("the channel is not closed")
		}
	}
}

func subscriptionEnds(k *kit) {
	ctx, cancel := context.WithCancel(k.Context())
	in, other := k.subscribe(ctx, k.plan), k.subscribe(k.Context(), k.route)
	cancel()
	k.ends(in)
	done := k.publish(k.route, text("goes on"))
	k.next(other).Ack()
	k.wait(done)
}

func resumes(k *kit) {
	ctx, cancel := context.WithCancel(k.Context())
	in := k.subscribe(ctx, k.plan)
	done := k.publish(k.plan, text("1"))
	k.next(in).Ack()
	k.wait(done)
	cancel()
	k.ends(in)
	in = k.subscribe(k.Context(), k.plan)
	done = k.publish(k.plan, text("2"))
	if m := k.next(in); string(m.Payload) != "2" || !m.Ack() {
		k.Errorf("%q came", m.Payload)
	}
	k.wait(done)
}

func closed(k *kit) {
	idle, busy := k.subscribe(k.Context(), k.plan), k.subscribe(k.Context(), k.route)
	done := k.publish(k.route, text("nobody answers"))
	m := k.next(busy)
	if err := k.Close(); err != nil {
		k.Errorf("Close: %v", err)
	}
	k.ends(idle)
	k.ends(busy)
	select {
	case <-m.Context().Done():
	case <-time.After(patience):
		k.Error("the context of a message lives on")
	}
	select {
	case err := <-done: // with or without an error: it was given out
		k.Logf("the Publish under way at Close gave %v", err)
	case <-time.After(patience):
		k.Error("a Publish does not return")
	}
	if err := k.Publish(k.plan, text("late")); err == nil {
		k.Error("Publish succeeded")
	}
	if _, err := k.Subscribe(context.Background(), k.plan); err == nil {
		k.Error("Subscribe succeeded")
	}
}

func closedTwice(k *kit) {
	k.subscribe(k.Context(), k.plan)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := k.Close(); err != nil {
				k.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
}
