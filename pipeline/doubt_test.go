package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The whole table: what becomes of an attempt without an answer.
func TestTheTableOfDoubts(t *testing.T) {
	const (
		again   = "queued, possible duplicate"
		clean   = "queued"
		sent    = "sent"
		held    = "held"
		failed  = "failed"
		unknown = "unknown"
	)
	want := map[string]string{
		// kind, answer: retry, hold, fail; at most once
		"dedupe_key no answer":  again + "|" + again + "|" + again + "|" + unknown,
		"correlate no answer":   again + "|" + held + "|" + failed + "|" + unknown,
		"query no answer":       again + "|" + held + "|" + failed + "|" + unknown,
		"query taken":           sent + "|" + sent + "|" + sent + "|" + sent,
		"query never took":      clean + "|" + clean + "|" + clean + "|" + clean,
		"none no answer":        again + "|" + held + "|" + failed + "|" + unknown,
		"(gone) no answer":      again + "|" + held + "|" + failed + "|" + unknown,
		"after expiry":          unknown + "|" + unknown + "|" + failed + "|" + unknown,
		"after expiry, deduped": unknown + "|" + unknown + "|" + unknown + "|" + unknown,
		"given up by rule":      unknown + "|" + unknown + "|" + failed + "|" + unknown,
		"the fifth":             unknown + "|" + held + "|" + failed + "|" + unknown,
		"the fifth, deduped":    again + "|" + again + "|" + again + "|" + unknown,
		"after expiry, taken":   sent + "|" + sent + "|" + sent + "|" + sent,
	}
	rows := []struct {
		name string
		d    doubt
	}{
		{"dedupe_key no answer", doubt{kind: connectors.DedupeKey}},
		{"correlate no answer", doubt{kind: connectors.Correlate}},
		{"query no answer", doubt{kind: connectors.Query}},
		{"query taken", doubt{kind: connectors.Query, answer: taken}},
		{"query never took", doubt{kind: connectors.Query, answer: neverTook}},
		{"none no answer", doubt{kind: connectors.None}},
		{"(gone) no answer", doubt{}},
		{"after expiry", doubt{kind: connectors.None, expired: true}},
		{"after expiry, deduped", doubt{kind: connectors.DedupeKey, expired: true}},
		{"given up by rule", doubt{kind: connectors.Correlate, gaveUp: true}},
		{"the fifth", doubt{kind: connectors.None, attempts: doubtfulAttempts}},
		{"the fifth, deduped", doubt{kind: connectors.DedupeKey, attempts: doubtfulAttempts}},
		{"after expiry, taken", doubt{kind: connectors.Query, answer: taken, expired: true}},
	}
	require.Len(t, rows, len(want))
	var table strings.Builder
	fmt.Fprintf(&table, "%-22s | %-26s | %-26s | %-26s | %s\n", "what becomes of a doubt", "retry", "hold", "fail", "at most once")
	for _, row := range rows {
		var got []string
		for _, c := range []struct {
			policy string
			once   bool
		}{{"retry", false}, {"hold", false}, {"fail", false}, {"retry", true}} {
			d := row.d
			d.policy, d.atMostOnce = c.policy, c.once
			o := decideDoubt(d)
			require.True(t, delivery.CanMove(delivery.StatusAmbiguous, o.Status, delivery.ByPlan), "%s: %v", row.name, o.Status)
			require.False(t, o.NextLeg, "a doubt never makes way by itself")
			require.False(t, o.Attempted, "it was counted when it began")
			if o.Status != delivery.StatusSent {
				require.NotEmpty(t, o.Reason)
			}
			word := o.Status.String()
			if o.Status == delivery.StatusQueued && o.Duplicate {
				word = again
			}
			got = append(got, word)
			if c.policy == "retry" && !c.once {
				d.policy = ""
				require.Equal(t, o, decideDoubt(d), "retry is the default")
			}
			for _, policy := range []string{"hold", "fail"} { // at most once is the sender's wish; the tenant's does not matter
				d.policy = policy
				if c.once {
					require.Equal(t, o, decideDoubt(d))
				}
			}
		}
		fmt.Fprintf(&table, "%-22s | %-26s | %-26s | %-26s | %s\n", row.name, got[0], got[1], got[2], got[3])
		require.Equal(t, want[row.name], strings.Join(got, "|"), row.name)
	}
	t.Log("\n" + table.String())
}

func TestHowLongADoubtIsWaitedFor(t *testing.T) {
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	at := func(kind connectors.Kind, policy string, change func(*passage)) time.Duration {
		p := retrier(0, 0)
		p.tenants.load = func(delivery.TenantID) (*store.Tenant, error) { return &store.Tenant{OnAmbiguous: policy}, nil }
		m := &passage{Claimed: store.Claimed{AcceptedAt: now, ExpiresAt: now.Add(time.Hour)}, account: account(&kind)}
		if change != nil {
			change(m)
		}
		return p.doubtUntil(m, &delivery.Failure{Class: delivery.InDoubt}, now).Sub(now)
	}
	none, dedupe := connectors.Kind{Ambiguity: connectors.None}, connectors.Kind{Ambiguity: connectors.DedupeKey}
	correlate := connectors.Kind{Ambiguity: connectors.Correlate}
	short := func(m *passage) { m.ExpiresAt = now.Add(2 * time.Second) }
	require.Equal(t, 4*time.Second, at(none, "", nil), "as any other failure")
	require.Zero(t, at(none, "fail", nil), "there is nothing to wait for")
	require.Zero(t, at(none, "", func(m *passage) { m.AtMostOnce = true }))
	require.Equal(t, 4*time.Second, at(dedupe, "fail", nil), "it is tried again whatever the policy")
	require.Equal(t, 90*time.Second, at(correlate, "", nil))
	require.Equal(t, 90*time.Second, at(correlate, "hold", nil))
	require.Equal(t, 90*time.Second, at(correlate, "", short), "a receipt counts after the expiry too")
	require.Equal(t, time.Minute, at(connectors.Kind{Ambiguity: connectors.Correlate, ResolveWindow: time.Second}, "",
		func(m *passage) { m.Attempts = 3 }), "the schedule is longer than the window")
	require.Equal(t, 2*time.Second, at(none, "", short), "nothing is tried after it")
}
