package pipeline_test

import (
	"context"
	"testing"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// An opt-out holds for what has been claimed already and waits for its turn, by whichever way it comes.
func TestAnOptOutAfterTheClaim(t *testing.T) {
	for name, refuse := range map[string]func(r *rig, to string){
		"by the API": func(r *rig, to string) {
			require.NoError(t, r.store.Suppress(context.Background(), tenant, []store.Suppression{{
				Channel: delivery.SMS, To: to, Reason: "manual", At: r.clock.Now(),
			}}))
			r.pipe.Suppressed(tenant)
		},
		"by the person": func(r *rig, to string) {
			require.NoError(t, r.pipe.Heard(context.Background(), r.acct, []delivery.Inbound{{
				Account: r.acct.ID, Channel: delivery.SMS, From: to, Text: "Stop!", At: r.clock.Now(),
			}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun, gate := make(chan struct{}), make(chan struct{})
			f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
				if m.To == "+12026000000" {
					close(begun)
					<-gate
				}
				return delivery.Sent{ProviderID: m.ID.String()}, nil
			}}
			r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.acct.Parallel = 1 })
			ids := r.accept(3, nil)
			<-begun
			r.await(ids, delivery.StatusSending) // all three are claimed
			refuse(r, "+12026000002")
			close(gate)
			r.await(ids[:2], delivery.StatusSent)
			r.await(ids[2:], delivery.StatusSuppressed)
			require.Len(t, f.sends(), 2)
			r.audited()
		})
	}
}
