package smpp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/smpp"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// account makes an account with the given settings over those that every test needs.
func account(t testing.TB, settings map[string]string) *connectors.Account {
	t.Helper()
	given := map[string]string{"addr": "127.0.0.1:2775", "system_id": "acme", "password": "secret"}
	for k, v := range settings {
		given[k] = v
	}
	kind := smpp.Kind()
	full, err := kind.Validate(given)
	require.NoError(t, err)
	return &connectors.Account{
		ID: delivery.AccountID{1}, Name: "main", Settings: full, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Dial: (&net.Dialer{}).DialContext,
	}
}

// sink gathers what a connector delivers.
type sink struct {
	fail     atomic.Int32 // calls to refuse
	calls    atomic.Int32
	receipts chan delivery.Receipt
	inbound  chan delivery.Inbound
}

func newSink() *sink {
	return &sink{receipts: make(chan delivery.Receipt, 10_000), inbound: make(chan delivery.Inbound, 1000)}
}

var errSink = errors.New("the store is away")

func (s *sink) Receipts(_ context.Context, rs []delivery.Receipt) error {
	s.calls.Add(1)
	if s.fail.Add(-1) >= 0 {
		return errSink
	}
	for _, r := range rs {
		s.receipts <- r
	}
	return nil
}

func (s *sink) Inbound(_ context.Context, in []delivery.Inbound) error {
	s.calls.Add(1)
	if s.fail.Add(-1) >= 0 {
		return errSink
	}
	for _, m := range in {
		s.inbound <- m
	}
	return nil
}

// opened is a connector whose Stream runs until the test ends.
type opened struct {
	connectors.Connector
	sink *sink
}

func open(t testing.TB, a *connectors.Account) *opened {
	t.Helper()
	kind := smpp.Kind()
	c, err := kind.Open(a)
	require.NoError(t, err)
	o := &opened{Connector: c, sink: newSink()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.(connectors.Streamer).Stream(ctx, o.sink) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return o
}

func (o *opened) check(ctx context.Context) error { return o.Connector.(connectors.Checker).Check(ctx) }

func message(to, text string) *delivery.Outgoing {
	return &delivery.Outgoing{
		ID: delivery.MessageID{14: 0x12, 15: 0x34}, Channel: delivery.SMS, Attempt: 1, To: to, From: "ACME",
		Content: delivery.Content{Text: text},
	}
}

func failure(t testing.TB, err error) *delivery.Failure {
	t.Helper()
	var f *delivery.Failure
	require.ErrorAs(t, err, &f)
	return f
}

func startSim(t testing.TB, opt simulator.Options) *simulator.Sim {
	t.Helper()
	s, err := simulator.Start(context.Background(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// The magic recipients of the simulator, through the protocol and back.
func TestSimulator(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{Password: "secret"})
	o := open(t, account(t, map[string]string{"addr": sim.SMPPAddr(), "response_timeout": "1s"}))
	for _, tc := range []struct {
		to     string
		class  delivery.Class // 0 = taken
		code   string
		status []delivery.Status // receipts
		rclass delivery.Class
	}{
		{to: "+12025550100", status: []delivery.Status{delivery.StatusDelivered}},
		{to: "+12025550110", class: delivery.Transient, code: "ESME_RSYSERR"},
		{to: "+12025550112", class: delivery.Throttled, code: "ESME_RTHROTTLED"},
		{to: "+12025550120", class: delivery.BadRecipient, code: "ESME_RINVDSTADR"},
		{to: "+12025550122", status: []delivery.Status{delivery.StatusUndelivered}},
		{to: "+12025550123", status: []delivery.Status{delivery.StatusUndelivered}},
		{to: "+12025550130", class: delivery.InDoubt, code: "no_answer", status: []delivery.Status{delivery.StatusDelivered}},
		{to: "+12025550131", status: []delivery.Status{delivery.StatusDelivered, delivery.StatusDelivered}},
		{to: "+12025550133"},
		{to: "+12025550134", status: []delivery.Status{delivery.StatusDelivered}},
	} {
		sent, err := o.Send(t.Context(), message(tc.to, "hello"))
		if tc.class == 0 {
			require.NoError(t, err, tc.to)
			require.NotEmpty(t, sent.ProviderID)
		} else {
			f := failure(t, err)
			require.Equal(t, tc.class, f.Class, tc.to)
			require.Equal(t, tc.code, f.Code)
			require.True(t, f.Known)
		}
		for _, want := range tc.status {
			r := <-o.sink.receipts
			require.Equal(t, want, r.Status, tc.to)
			require.Equal(t, delivery.AccountID{1}, r.Account)
			if tc.class == 0 {
				require.Equal(t, sent.ProviderID, r.ProviderID)
			}
		}
	}
	require.Empty(t, o.sink.receipts)
	entries := sim.Ledger().To(delivery.SMS, "+12025550100")
	require.Len(t, entries, 1)
	require.Equal(t, "acme", entries[0].Account)
	require.Equal(t, "ACME", entries[0].From)
	require.Equal(t, "hello", entries[0].Text)
}

func TestLongMessages(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{})
	text := strings.Repeat("Grüße € ", 60)
	for _, long := range []string{"udh", "udh16", "payload"} {
		for i, text := range []string{text, text + "я\U0001F600"} {
			// A system_id of its own: the SMSC may send receipts over any session of the same one.
			o := open(t, account(t, map[string]string{
				"addr": sim.SMPPAddr(), "long_messages": long, "system_id": long + strconv.Itoa(i),
			}))
			before := sim.Ledger().Len()
			sent, err := o.Send(t.Context(), message("+4915112345678", text))
			require.NoError(t, err)
			require.Equal(t, sent.ProviderID, (<-o.sink.receipts).ProviderID)
			require.Empty(t, o.sink.receipts)
			e := sim.Ledger().Entries(before)
			require.Len(t, e, 1)
			require.Equal(t, text, e[0].Text)
			require.Greater(t, e[0].Parts, 2)
		}
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{})
	o := open(t, account(t, map[string]string{"addr": sim.SMPPAddr()}))
	_, err := o.Send(t.Context(), message("+12025550140", "hello"))
	require.NoError(t, err)
	in := <-o.sink.inbound
	require.Equal(t, "STOP", in.Text)
	require.Equal(t, "+12025550140", in.From)
	require.Equal(t, "ACME", in.To)
	require.Equal(t, delivery.SMS, in.Channel)
	long := strings.Repeat("я", 200)
	o.sink.fail.Store(1) // the last part comes again a second later
	require.NoError(t, sim.Reply(delivery.SMS, "acme", "+4915112345678", "+15550001", long))
	in = <-o.sink.inbound
	require.Equal(t, long, in.Text)
	require.Equal(t, "+15550001", in.To)
	require.Error(t, sim.Reply(delivery.SMS, "nobody", "+1", "+2", "x"))
}

// A receipt whose storing failed is not acknowledged, and comes again.
func TestReceiptComesAgain(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{})
	o := open(t, account(t, map[string]string{"addr": sim.SMPPAddr()}))
	o.sink.fail.Store(1)
	sent, err := o.Send(t.Context(), message("+12025550100", "hello"))
	require.NoError(t, err)
	require.Equal(t, sent.ProviderID, (<-o.sink.receipts).ProviderID)
	require.EqualValues(t, 2, o.sink.calls.Load())
}

func TestPasswordWrongThenRight(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{Password: "secret"})
	sim.Fail("acme", -1, simulator.BadLogin)
	o := open(t, account(t, map[string]string{"addr": sim.SMPPAddr()}))
	f := failure(t, o.check(t.Context()))
	require.Equal(t, delivery.ConnectorDown, f.Class)
	require.Equal(t, "ESME_RINVPASWD", f.Code)
	_, err := o.Send(t.Context(), message("+12025550100", "hello"))
	require.Equal(t, "ESME_RINVPASWD", failure(t, err).Code)
	require.Zero(t, sim.Ledger().Len())
	sim.Heal("acme")
	require.NoError(t, o.check(t.Context()))
	_, err = o.Send(t.Context(), message("+12025550100", "hello"))
	require.NoError(t, err)

	wrong := open(t, account(t, map[string]string{"addr": sim.SMPPAddr(), "password": "guess"}))
	require.Equal(t, "ESME_RINVPASWD", failure(t, wrong.check(t.Context())).Code)
}

// An account that nothing has started is checked with a session of its own, which ends.
func TestCheckAlone(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{Password: "secret"})
	kind := smpp.Kind()
	c, err := kind.Open(account(t, map[string]string{"addr": sim.SMPPAddr()}))
	require.NoError(t, err)
	require.NoError(t, c.(connectors.Checker).Check(t.Context()))
	_ = sim.Close()
	f := failure(t, c.(connectors.Checker).Check(t.Context()))
	require.Equal(t, "connect_failed", f.Code)
	require.Equal(t, delivery.ConnectorDown, f.Class)
}

// Nothing is lost or doubled while the SMSC drops the connection again and again.
func TestConnectionsDrop(t *testing.T) {
	t.Parallel()
	sim := startSim(t, simulator.Options{})
	o := open(t, account(t, map[string]string{"addr": sim.SMPPAddr()}))
	var taken, doubtful atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 50 {
				if i == 0 && j%10 == 5 {
					sim.Fail("acme", 1, simulator.Down)
				}
				m := message(fmt.Sprintf("+4915100%02d%04d", i, j), "hello")
				_, err := o.Send(context.Background(), m)
				var f *delivery.Failure
				for errors.As(err, &f) && f.Class == delivery.ConnectorDown { // nothing left: once more
					_, err = o.Send(context.Background(), m)
				}
				switch {
				case err == nil:
					taken.Add(1)
				case errors.As(err, &f) && f.Class == delivery.InDoubt:
					doubtful.Add(1)
				default:
					t.Errorf("not taken and not in doubt: %v", err)
				}
			}
		})
	}
	wg.Wait()
	inLedger := sim.Ledger().Summary().Taken
	require.GreaterOrEqual(t, inLedger, int(taken.Load()))
	require.LessOrEqual(t, inLedger, int(taken.Load()+doubtful.Load()))
	require.Positive(t, doubtful.Load())
	seen := map[string]int{}
	for _, e := range sim.Ledger().Entries(0) {
		if e.Taken {
			seen[e.To]++
			require.Equal(t, 1, seen[e.To], e.To)
		}
	}
	for range inLedger { // every receipt arrives, over a later session where need be
		<-o.sink.receipts
	}
}

func BenchmarkSubmit(b *testing.B) {
	for _, window := range []int{1, 10, 50, 200, 1000} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			sim := startSim(b, simulator.Options{LedgerLimit: 10_000})
			o := open(b, account(b, map[string]string{"addr": sim.SMPPAddr(), "window": fmt.Sprint(window)}))
			require.NoError(b, o.check(context.Background()))
			o.sink.receipts = make(chan delivery.Receipt, b.N)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range 2 * window {
				wg.Go(func() {
					m := message("+4915112345678", "Your code is 123456. It is good for ten minutes.")
					for next.Add(1) <= int64(b.N) {
						if _, err := o.Send(context.Background(), m); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			for range b.N {
				<-o.sink.receipts
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(o.sink.calls.Load())/float64(b.N), "sinkcalls/msg")
		})
	}
}
