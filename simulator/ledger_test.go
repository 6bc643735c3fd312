package simulator

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

func TestLedgerKeepsTheNewest(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 10, 2048, 5000} {
		l := newLedger(limit)
		total := 3*limit + 7
		for i := range total {
			l.add(Entry{Channel: "sms", To: strconv.Itoa(i + 1), Taken: i%2 == 0, Outcome: "delivered"})
		}
		all := l.Entries(0)
		kept := len(all)
		require.LessOrEqual(t, kept, limit)
		require.GreaterOrEqual(t, kept, max(limit/2, limit-ledgerPage), "limit %d", limit)
		taken := 0
		for i, e := range all {
			require.Equal(t, total-kept+i+1, e.Seq, "in order, the newest last")
			require.Equal(t, strconv.Itoa(e.Seq), e.To)
			if e.Taken {
				taken++
			}
			if i > 20 { // copies are long
				continue
			}
			if e.Taken {
				require.Equal(t, []Entry{e}, l.To(delivery.SMS, e.To))
			}
			require.Equal(t, all[i+1:], append([]Entry{}, l.Entries(e.Seq)...), "what comes after an entry")
		}
		require.Equal(t, total, l.Len())
		require.Equal(t, Summary{Seen: total, Taken: taken, Dropped: total - kept, Counts: map[string]int{"sms delivered": kept}},
			l.Summary())
		require.Empty(t, l.Entries(total))
		require.Empty(t, l.To(delivery.SMS, "1"), "dropped")
	}
}
