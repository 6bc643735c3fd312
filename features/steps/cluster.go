package steps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// Fleet is what a scenario with the tag @cluster runs on: several engines on one store, each a process of its own, that
// can be harmed. Time is real there: no step turns it.
type Fleet interface {
	URL() string                  // leads to the engines in turn, past those that are not there
	OperatorKey() (string, error) // for all of them
	Nodes() []string
	Kill(node string) error    // ends its engine at once, without a word
	Replace(node string) error // drains its engine, which must leave nothing open, and starts one of another version
	Cut(part string) error     // takes PostgreSQL, RabbitMQ or Redis away from all nodes
	Heal(part string) error    // gives it back
	Story() string             // what the engines have said, for whoever reads a failure
	Close() error
}

// answerWithin is how long the connectors of a fleet wait for the provider: what a killed node leaves behind is taken
// up after the double.
const answerWithin = 2 * time.Second

// steadily is how long what must not change is watched.
const steadily = 2 * time.Second

// gather starts a fleet and a simulator, and makes the tenant that scenarios begin with.
func (w *world) gather(ctx context.Context, nodes int) (err error) {
	if w.raise == nil {
		return errors.New("there is no cluster here: run it by TestFeaturesOnACluster")
	}
	w.box = &sandbox.Sandbox{Tenant: "acme"}
	if w.box.Sim, err = simulator.Start(ctx, sandbox.SimulatorOptions()); err != nil {
		return err
	}
	if w.fleet, err = w.raise(ctx, nodes); err != nil {
		return err
	}
	w.box.URL = w.fleet.URL()
	if w.box.Key, err = w.fleet.OperatorKey(); err != nil {
		return err
	}
	w.box.Client, err = w.client(w.box.Tenant)
	return err
}

// join returns the client of a fleet's tenant, which it makes.
func (w *world) join(ctx context.Context, tenant string) (*sdk.Client, error) {
	operator, err := w.operator()
	if err != nil {
		return nil, err
	}
	if _, err := operator.Tenants.Create(ctx, sdk.TenantRequest{ID: tenant, Name: tenant}); err != nil {
		return nil, err
	}
	c := w.as(tenant)
	return c, w.bindAs(ctx, c, 0)
}

// bindAs gives a fleet's tenant its connector. Binds is on how many nodes it may be bound at once; 0 = on all.
func (w *world) bindAs(ctx context.Context, c *sdk.Client, binds int) error {
	r := w.connector("SMS", accounts["SMS"])
	r.Settings["timeout"], r.Settings["response_timeout"] = answerWithin.String(), answerWithin.String()
	r.Settings["max_binds"] = strconv.Itoa(binds)
	_, err := c.Connectors.Put(ctx, accounts["SMS"], r)
	return err
}

// bound waits until the provider has had so many sessions for a while, and never more.
func (w *world) bound(n int) error {
	var since time.Time
	return w.watched(func() (done bool, err error) {
		switch have := w.box.Sim.Bound(accounts["SMS"]); {
		case have > n:
			return false, fmt.Errorf("%d nodes are bound", have)
		case have < n:
			since = time.Time{}
			return false, nil
		case since.IsZero():
			since = time.Now()
		}
		return time.Since(since) > steadily, nil
	})
}

// watched looks every millisecond until something is done or has gone wrong.
func (w *world) watched(look func() (done bool, err error)) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done, err := look(); done || err != nil {
			return err
		}
	}
	return errors.New("it has not come so far")
}

// as makes a client of a fleet's tenant.
func (w *world) as(tenant string, opts ...sdk.Option) *sdk.Client {
	own := []sdk.Option{sdk.WithURL(w.box.URL), sdk.WithKey(w.box.Key), sdk.WithTenant(tenant)}
	return sdk.New(append(own, opts...)...)
}

// operator returns the operator's client.
func (w *world) operator() (*sdk.Client, error) {
	if w.fleet == nil {
		return w.box.Operator()
	}
	return sdk.New(sdk.WithURL(w.box.URL), sdk.WithKey(w.box.Key)), nil
}

// underWay counts the messages that each node has under lease.
func (w *world) underWay(ctx context.Context) (map[string]int, error) {
	operator, err := w.operator()
	if err != nil {
		return nil, err
	}
	c, err := operator.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	n := map[string]int{}
	for _, x := range c.Nodes {
		n[x.Name] = x.Claims
	}
	return n, nil
}

// killBusiest kills the node that has most to lose.
func (w *world) killBusiest(ctx context.Context) error {
	busiest := ""
	err := eventually(func() error {
		n, err := w.underWay(ctx)
		if err != nil {
			return err
		}
		busiest = slices.MaxFunc(slices.Sorted(maps.Keys(n)), func(a, b string) int { return n[a] - n[b] })
		if n[busiest] < 2 {
			return fmt.Errorf("nobody has much under way: %v", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.fleet.Kill(busiest)
}

// claimants are the nodes that have claimed the messages of the scenario.
func (w *world) claimants(ctx context.Context) (map[string]bool, error) {
	nodes := map[string]bool{}
	for _, id := range w.sent {
		facts, err := w.tenants[w.tenant].Messages.Timeline(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, f := range facts {
			if node, _, ok := strings.Cut(f.Code, "#"); ok && f.Kind == "claimed" {
				nodes[node] = true
			}
		}
	}
	return nodes, nil
}

// copies counts what each person got.
func (w *world) copies() map[string]int {
	n := map[string]int{}
	for _, e := range w.box.Sim.Ledger().Entries(0) {
		if e.Taken {
			n[e.To]++
		}
	}
	return n
}

// atOnce makes n requests from several goroutines, so that they meet, and returns what went wrong with each of them.
func atOnce(n int, request func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = request(i) })
	}
	wg.Wait()
	return errs
}

func registerCluster(sc *godog.ScenarioContext) {
	sc.Step(`^a cluster of (\d+) nodes$`, func(ctx context.Context, n int) error { return of(ctx).gather(ctx, n) })
	sc.Step(`^the SMS connector answers (?:after (\d+) seconds|at once)$`,
		func(ctx context.Context, seconds string) error {
			of(ctx).box.Sim.Slow(accounts["SMS"], time.Duration(number(seconds))*time.Second)
			return nil
		})
	sc.Step(`^the SMS connector of "([^"]*)" may have (\d+) binds$`, func(ctx context.Context, tenant string, n int) error {
		w := of(ctx)
		c, err := w.client(tenant)
		if err != nil {
			return err
		}
		if err := w.bindAs(ctx, c, n); err != nil {
			return err
		}
		return eventually(func() error { // what was bound before is bound anew
			if have := w.box.Sim.Bound(accounts["SMS"]); have > n {
				return fmt.Errorf("%d nodes are bound", have)
			}
			return nil
		})
	})
	sc.Step(`^exactly (\d+) nodes are bound$`, func(ctx context.Context, n int) error { return of(ctx).bound(n) })
	sc.Step(`^the node with the most messages under way is killed$`, func(ctx context.Context) error {
		return of(ctx).killBusiest(ctx)
	})
	sc.Step(`^each node is replaced in turn while "([^"]*)" keeps sending$`, replaceAll)
	sc.Step(`^(PostgreSQL|RabbitMQ|Redis) (is taken away|comes back)$`,
		func(ctx context.Context, part, what string) error {
			w := of(ctx)
			if what == "comes back" {
				return w.fleet.Heal(part)
			}
			return w.fleet.Cut(part)
		})
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by SMS and does not ask again$`,
		func(ctx context.Context, tenant, text, to string) error {
			w := of(ctx)
			_, w.err = w.as(tenant, sdk.WithMaxRetries(0)).Send(ctx, sdk.SMS{To: to, Text: text})
			return nil
		})
	sc.Step(`^"([^"]*)" sends the same message (\d+) times at once using idempotency key "([^"]*)"$`,
		func(ctx context.Context, tenant string, n int, key string) error {
			w := of(ctx)
			ids := make([]string, n)
			w.tenant = tenant
			w.err = errors.Join(atOnce(n, func(i int) error {
				m, err := w.tenants[tenant].Send(ctx, sdk.SMS{To: recipient(0), Text: "Hello"}, sdk.IdempotencyKey(key))
				if err == nil {
					ids[i] = m.ID
				}
				return err
			})...)
			w.sent = append(w.sent, ids...)
			return w.err
		})
	sc.Step(`^"([^"]*)" hands in (\d+) messages to all nodes at once$`,
		func(ctx context.Context, tenant string, n int) error {
			w := of(ctx)
			c, err := w.client(tenant)
			if err != nil {
				return err
			}
			errs := atOnce(n, func(i int) error {
				_, err := c.Send(ctx, sdk.SMS{To: recipient(i), Text: "Hello"})
				return err
			})
			w.refused = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
			return nil
		})
	sc.Step(`^(\d+) keys of "([^"]*)" that all nodes have seen$`, func(ctx context.Context, n int, tenant string) error {
		w := of(ctx)
		operator, err := w.operator()
		for i := 0; i < n && err == nil; i++ {
			var k *sdk.Key
			if k, err = operator.Keys.Create(ctx, sdk.KeyRequest{Tenant: tenant, Name: fmt.Sprintf("key %d", i+1)}); err == nil {
				w.keys = append(w.keys, k)
				err = w.onEachNode(ctx, k)
			}
		}
		return err
	})
	sc.Step(`^they are revoked$`, func(ctx context.Context) error {
		w := of(ctx)
		operator, err := w.operator()
		if err != nil {
			return err
		}
		w.refused = nil
		for _, k := range w.keys {
			if err := operator.Keys.Revoke(ctx, k.ID); err != nil {
				return err
			}
			w.refused = append(w.refused, w.onEachNode(ctx, k))
		}
		return nil
	})
	sc.Step(`^from that moment each of them opened nothing on any node$`, func(ctx context.Context) error {
		for i, err := range of(ctx).refused {
			refusals, _ := err.(interface{ Unwrap() []error })
			if refusals == nil || len(refusals.Unwrap()) != len(of(ctx).fleet.Nodes()) {
				return fmt.Errorf("key %d: not all nodes refuse it: %w", i+1, err)
			}
			for _, one := range refusals.Unwrap() {
				if !errors.Is(one, sdk.ErrUnauthorized) {
					return fmt.Errorf("key %d: %w", i+1, one)
				}
			}
		}
		return nil
	})
	sc.Step(`^for (\d+) seconds nobody else gets it$`, func(ctx context.Context, seconds int) error {
		return of(ctx).nobodyElse(ctx, time.Duration(seconds)*time.Second)
	})
	sc.Step(`^each of the nodes has had a part in it$`, func(ctx context.Context) error {
		w := of(ctx)
		nodes, err := w.claimants(ctx)
		if err == nil && len(nodes) != len(w.fleet.Nodes()) {
			err = fmt.Errorf("only %v had", nodes)
		}
		return err
	})
	sc.Step(`^all messages are delivered$`, func(ctx context.Context) error {
		w := of(ctx)
		return w.deliveredAll(ctx, len(w.sent))
	})
	sc.Step(`^some got it twice, of messages that are marked as possible duplicates$`, func(ctx context.Context) error {
		twice, err := of(ctx).marked(ctx)
		if err == nil && twice == 0 {
			err = errors.New("nobody got it twice: the killed node had handed over nothing")
		}
		return err
	})
	sc.Step(`^nobody got it twice without a mark$`, func(ctx context.Context) error {
		_, err := of(ctx).marked(ctx)
		return err
	})
	sc.Step(`^"([^"]*)" has never got "([^"]*)"$`, func(ctx context.Context, to, text string) error {
		for _, e := range of(ctx).shown(to, "") {
			if e.Text == text {
				return fmt.Errorf("%s got it", to)
			}
		}
		return nil
	})
}

// replaceAll replaces all nodes, one after the other, while messages are handed in all the time.
func replaceAll(ctx context.Context, tenant string) error {
	w := of(ctx)
	c, err := w.client(tenant)
	if err != nil {
		return err
	}
	w.tenant = tenant
	stop, sent := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			m, err := c.Send(ctx, sdk.SMS{To: recipient(i), Text: "Hello"})
			if err != nil {
				sent <- fmt.Errorf("the message %d was refused: %w", i+1, err)
				return
			}
			w.sent = append(w.sent, m.ID)
			select {
			case <-stop:
				sent <- nil
				return
			default:
			}
		}
	}()
	for _, node := range w.fleet.Nodes() {
		if err = w.fleet.Replace(node); err != nil {
			break
		}
	}
	close(stop)
	return errors.Join(err, <-sent)
}

// onEachNode asks each node who a key belongs to, and joins the refusals.
func (w *world) onEachNode(ctx context.Context, k *sdk.Key) error {
	c := sdk.New(sdk.WithURL(w.box.URL), sdk.WithKey(k.Secret), sdk.WithMaxRetries(0))
	defer c.Close()
	var errs []error
	for range w.fleet.Nodes() { // which take turns
		_, err := c.Whoami(ctx)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// nobodyElse watches that nothing goes any more once what was under way has ended.
func (w *world) nobodyElse(ctx context.Context, d time.Duration) error {
	err := eventually(func() error {
		n, err := w.underWay(ctx)
		for node, c := range n {
			if c > 0 {
				err = fmt.Errorf("%s has %d messages under way", node, c)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	before := w.box.Sim.Ledger().Len()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if n := w.box.Sim.Ledger().Len() - before; n > 0 {
			return fmt.Errorf("%d more people got it", n)
		}
	}
	return nil
}

// marked counts who got a message twice, and checks that each of those messages says so.
func (w *world) marked(ctx context.Context) (twice int, err error) {
	copies := w.copies()
	for m, err := range w.tenants[w.tenant].Messages.All(ctx, sdk.MessageQuery{}) {
		if err != nil {
			return twice, err
		}
		if copies[m.To] < 2 {
			continue
		}
		twice++
		if !m.PossibleDuplicate {
			return twice, fmt.Errorf("%s has %d copies of %s, which is not marked", m.To, copies[m.To], m.ID)
		}
	}
	return twice, nil
}
