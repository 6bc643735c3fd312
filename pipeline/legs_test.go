package pipeline_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// legRig has an account for SMS, whose answers the test decides, and one for e-mail, which takes everything.
func legRig(t *testing.T, f *fake, change func(*rig)) (r *rig, mail *fake, clock *clockwork.FakeClock) {
	clock, mail = clockwork.NewFakeClock(), &fake{}
	r = newRig(t, clock, f, func(r *rig) {
		kind := r.kind
		kind.Name, kind.Channel = "mail", delivery.Email
		b := *r.copyAccount()
		b.ID, b.Name, b.Channel, b.Connector, b.Kind = r.ids.Account(), "mail", delivery.Email, mail, &kind
		r.more = []*routing.Account{&b}
		r.tune = func(o *pipeline.Options) { o.Jitter, o.Retry = new(0.0), []time.Duration{time.Hour} }
		if change != nil {
			change(r)
		}
	})
	return r, mail, clock
}

// byMail gives a message a second leg by e-mail, after the first had within to be delivered.
func byMail(within time.Duration) func(int, *store.NewMessage) {
	return func(_ int, m *store.NewMessage) {
		m.Within, m.Success, m.ExpiresAt = within, delivery.StatusDelivered, m.DueAt.Add(24*time.Hour)
		m.Then = []store.NewLeg{{
			Channel: delivery.Email, To: "a@example.com", Payload: []byte(`{"content":{"text":"by mail"}}`), Segments: 1,
			Success: delivery.StatusSent,
		}}
	}
}

func failing(class delivery.Class) *fake {
	return &fake{answer: func(*delivery.Outgoing, int) (delivery.Sent, error) {
		return delivery.Sent{}, &delivery.Failure{Class: class, Code: "c", Known: true}
	}}
}

// A leg that is refused for good makes way at once: nobody has to turn the clock for it.
func TestARefusedLegMakesWayAtOnce(t *testing.T) {
	long := strings.Repeat("long text ", 500)
	for name, c := range map[string]struct {
		f       *fake
		payload string
		reason  string
		tries   int
	}{
		"rejected":          {f: failing(delivery.Rejected), reason: "c", tries: 1},
		"bad recipient":     {f: failing(delivery.BadRecipient), reason: "c", tries: 1},
		"consent":           {f: failing(delivery.Consent), reason: "c", tries: 1},
		"too many segments": {f: &fake{}, payload: `{"content":{"text":"` + long + `"}}`, reason: "too_many_segments"},
		"render failed":     {f: &fake{}, payload: `{"template":"gone","version":1}`, reason: "render_failed"},
	} {
		t.Run(name, func(t *testing.T) {
			r, mail, _ := legRig(t, c.f, nil)
			ids := r.accept(1, func(i int, m *store.NewMessage) {
				byMail(time.Minute)(i, m)
				if c.payload != "" {
					m.Payload = []byte(c.payload)
				}
			})
			r.await(ids, delivery.StatusSent)
			require.Len(t, c.f.sends(), c.tries)
			require.Len(t, mail.sends(), 1)
			require.Equal(t, "by mail", mail.sends()[0].Content.Text)
			require.Equal(t, 1, mail.sends()[0].Attempt, "attempts count per leg")
			require.False(t, mail.sends()[0].PossibleDuplicate)
			m := r.message(ids[0])
			require.Equal(t, 1, m.Leg)
			require.Equal(t, c.reason, m.Legs[0].Reason)
			require.True(t, m.Legs[1].Winner)
			r.audited()
		})
	}
}

func TestALegThatOnlyHasToWaitMakesWayWhenItsTimeIsOver(t *testing.T) {
	for name, class := range map[string]delivery.Class{
		"transient": delivery.Transient, "throttled": delivery.Throttled, "connector down": delivery.ConnectorDown,
	} {
		t.Run(name, func(t *testing.T) {
			r, mail, clock := legRig(t, failing(class), nil)
			begin := clock.Now()
			ids := r.accept(1, byMail(20*time.Second))
			turn(r, clock, func() bool { return len(mail.sends()) == 1 })
			require.InDelta(t, 20, clock.Since(begin).Seconds(), 1.5)
			r.await(ids, delivery.StatusSent)
			require.Equal(t, store.ReasonLegTimeout, r.message(ids[0]).Legs[0].Reason)
			r.audited()
		})
	}
}

// More legs than a batch run out of time together, after they were handed off; each goes on once, and soon.
func TestHandedOffLegsRunOutOfTime(t *testing.T) {
	r, mail, clock := legRig(t, &fake{}, nil)
	ids := r.accept(600, byMail(5*time.Minute))
	require.Eventually(t, func() bool { return r.count(delivery.StatusSent) == len(ids) }, patience, tick)
	require.NoError(t, r.pipe.Report(context.Background(), r.acct, []delivery.Receipt{{
		Message: ids[0], ProviderID: ids[0].String(), Status: delivery.StatusDelivered, At: clock.Now(),
	}}))
	begin := clock.Now()
	turn(r, clock, func() bool { return len(mail.sends()) == len(ids)-1 })
	require.GreaterOrEqual(t, clock.Since(begin), 5*time.Minute)
	require.LessOrEqual(t, clock.Since(begin), 5*time.Minute+2*time.Second, "they wait for nothing but their time")
	quiet(r)
	require.Len(t, mail.sends(), len(ids)-1)
	require.Len(t, r.fake.sends(), len(ids))
	require.Equal(t, delivery.StatusDelivered, r.message(ids[0]).Status)
	r.audited()
}

func TestAReceiptThatSaysNoBeginsTheNextLegAtOnce(t *testing.T) {
	r, mail, clock := legRig(t, &fake{}, nil)
	ids := r.accept(1, byMail(time.Hour))
	r.await(ids, delivery.StatusSent)
	require.NoError(t, r.pipe.Report(context.Background(), r.acct, []delivery.Receipt{{
		Message: ids[0], ProviderID: ids[0].String(), Status: delivery.StatusUndelivered, Code: "absent", At: clock.Now(),
	}}))
	require.Eventually(t, func() bool { return len(mail.sends()) == 1 }, patience, tick, "without a turn of the clock")
	r.await(ids, delivery.StatusSent)
	r.audited()
}

// While an attempt is in doubt the next leg never begins, however late it is.
func TestADoubtNeverMakesWay(t *testing.T) {
	doubtful := func(then delivery.Class) *fake {
		return &fake{answer: func(_ *delivery.Outgoing, nth int) (delivery.Sent, error) {
			class := then
			if nth == 1 {
				class = delivery.InDoubt
			}
			return delivery.Sent{}, &delivery.Failure{Class: class, Code: "c", Known: true}
		}}
	}
	for name, c := range map[string]struct {
		policy string
		once   bool
		then   delivery.Class // of what follows the doubt
		want   delivery.Status
		mails  int
		sends  int
	}{
		"ends as failed":               {policy: "fail", then: delivery.InDoubt, want: delivery.StatusFailed, sends: 1},
		"ends as unknown":              {once: true, then: delivery.InDoubt, want: delivery.StatusUnknown, sends: 1},
		"settled by a refusal":         {then: delivery.Rejected, want: delivery.StatusSent, mails: 1, sends: 2},
		"not settled by a failure yet": {then: delivery.Transient, want: delivery.StatusDeferred, sends: 2},
	} {
		t.Run(name, func(t *testing.T) {
			r, mail, clock := legRig(t, doubtful(c.then), func(r *rig) {
				r.kind.Ambiguity = connectors.Correlate
				tune := r.tune
				r.tune = func(o *pipeline.Options) { tune(o); o.Retry = []time.Duration{10 * time.Second, time.Hour} }
			})
			require.NoError(t, r.store.UpdateTenant(context.Background(), sys, store.Tenant{ID: tenant, OnAmbiguous: c.policy}))
			r.pipe.TenantChanged(tenant)
			ids := r.accept(1, func(i int, m *store.NewMessage) { byMail(30*time.Second)(i, m); m.AtMostOnce = c.once })
			begin := clock.Now()
			turn(r, clock, func() bool { return clock.Since(begin) >= 80*time.Second })
			require.Equal(t, delivery.StatusAmbiguous, r.message(ids[0]).Status)
			require.Empty(t, mail.sends())
			turn(r, clock, func() bool { return clock.Since(begin) >= 3*time.Minute })
			require.Equal(t, c.want, r.message(ids[0]).Status)
			require.Len(t, mail.sends(), c.mails)
			require.Len(t, r.fake.sends(), c.sends, "and it is not tried again and again")
			if c.mails > 0 {
				require.True(t, mail.sends()[0].PossibleDuplicate, "the person may have it by the leg before")
			}
			r.audited()
		})
	}
}

// A tenant's rule gives a message up: a dead letter, or the next leg where there is one.
func TestGivenUpByTheTenantsRule(t *testing.T) {
	for name, legs := range map[string]bool{"a dead letter": false, "the next leg": true} {
		t.Run(name, func(t *testing.T) {
			r, mail, clock := legRig(t, failing(delivery.Transient), nil)
			require.NoError(t, r.store.UpdateTenant(context.Background(), sys, store.Tenant{ID: tenant, Retry: []delivery.RetryRule{
				{Class: delivery.Transient, Delays: []time.Duration{20 * time.Second}, GiveUpAfter: 70 * time.Second},
			}}))
			r.pipe.TenantChanged(tenant)
			begin := clock.Now()
			ids := r.accept(1, func(i int, m *store.NewMessage) {
				if legs {
					byMail(time.Hour)(i, m)
				}
			})
			turn(r, clock, func() bool { return len(r.fake.sends()) == 4 }) // after 0, 20, 40 and 60 seconds
			require.InDelta(t, 60, clock.Since(begin).Seconds(), 1.5)
			if legs {
				r.await(ids, delivery.StatusSent)
				require.Len(t, mail.sends(), 1)
				require.Equal(t, pipeline.ReasonRetriesExhausted, r.message(ids[0]).Legs[0].Reason)
			} else {
				r.await(ids, delivery.StatusFailed)
				require.Equal(t, pipeline.ReasonRetriesExhausted, r.message(ids[0]).Reason)
				require.Contains(t, r.message(ids[0]).Detail, "4 attempts")
			}
			r.audited()
		})
	}
}

// What was rendered is part of the history.
func TestTheHistorySaysWhatWasRendered(t *testing.T) {
	r := newRig(t, clockwork.NewFakeClock(), &fake{}, nil)
	otp := store.Template{Name: "otp", Channel: delivery.SMS, Version: 1, Text: "Code {{ code }}"}
	_, err := r.store.PutTemplate(context.Background(), tenant, otp)
	require.NoError(t, err)
	ids := r.accept(2, func(i int, m *store.NewMessage) {
		if i == 0 {
			m.Payload = []byte(`{"template":"otp","version":1,"vars":{"code":"123"}}`)
		}
	})
	r.await(ids, delivery.StatusSent)
	for i, want := range []string{"otp v1", ""} {
		facts, err := r.store.Facts(context.Background(), tenant, ids[i])
		require.NoError(t, err)
		last := facts[len(facts)-1]
		require.Equal(t, delivery.FactSent, last.Kind)
		require.Equal(t, want, last.Content)
		require.NotEmpty(t, last.Route)
	}
}
