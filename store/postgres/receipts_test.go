package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// claimedBy accepts and claims n messages of acme.
func claimedBy(t *testing.T, s *postgres.Store, c *client, request, n int) []store.Claimed {
	t.Helper()
	out, err := c.ask(s, request, n)
	require.NoError(t, err)
	ids := make([]delivery.MessageID, n)
	for i := range out.Results {
		ids[i] = out.Results[i].ID
	}
	claimed, err := s.Claim(t.Context(), faultSys, store.Claim{IDs: ids, Node: "n", Now: faultTime,
		Until: faultTime.Add(time.Hour)})
	require.NoError(t, err)
	require.Len(t, claimed, n)
	return claimed
}

// withTenant makes a database with the tenant acme and opens it as n nodes.
func withTenant(t *testing.T, n int) (url string, nodes []*postgres.Store) {
	t.Helper()
	db := database(t)
	for range n {
		nodes = append(nodes, openAt(t, db.App))
	}
	require.NoError(t, nodes[0].CreateTenant(t.Context(), faultSys, store.Tenant{ID: "acme", CreatedAt: faultTime}))
	return db.Admin, nodes
}

// A hand-off is recorded by one node while another one hears its receipts: whichever comes first, they meet.
func TestAReceiptAndItsHandOffAtTheSameMoment(t *testing.T) {
	t.Parallel()
	url, nodes := withTenant(t, 3)
	c := newClient(0)
	const rounds, size = 15, 6
	for round := range rounds {
		claimed := claimedBy(t, nodes[0], c, round, size)
		outcomes, receipts := make([]store.Outcome, size), make([]delivery.Receipt, size)
		for i := range claimed {
			outcomes[i] = sentOutcome(claimed[i])
			receipts[i] = delivery.Receipt{Account: outcomes[i].Account, ProviderID: outcomes[i].ProviderID,
				Status: delivery.StatusDelivered}
		}
		var group sync.WaitGroup
		group.Go(func() {
			for i := 0; i < size; i += 2 {
				if _, err := nodes[0].Settle(context.Background(), faultSys, faultTime, outcomes[i:i+2]); err != nil {
					t.Errorf("settle: %v", err)
				}
			}
		})
		for n := 1; n < 3; n++ {
			group.Go(func() {
				for i := 0; i < size; i += n { // the same receipts at two nodes
					_, err := nodes[n].Report(context.Background(), faultSys, faultTime, time.Hour, receipts[i:i+1])
					if err != nil {
						t.Errorf("report: %v", err)
					}
				}
			})
		}
		group.Wait()
		for i := range claimed {
			m, err := nodes[0].Message(t.Context(), "acme", claimed[i].ID)
			require.NoError(t, err)
			require.Equal(t, delivery.StatusDelivered, m.Status, "round %d, message %d", round, i)
		}
	}
	n, err := nodes[0].Parked(t.Context(), faultSys)
	require.NoError(t, err)
	require.Zero(t, n)
	parkedAreCounted(t, url)
	right(t, nodes[0])
}

// parkedAreCounted compares the counts of parked receipts with their rows.
func parkedAreCounted(t *testing.T, admin string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), admin)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	var wrong int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM (SELECT account, count(*) AS n FROM parked
		GROUP BY account) AS p FULL JOIN parked_counts c USING (account) WHERE coalesce(p.n, 0) <> coalesce(c.n, 0)`).
		Scan(&wrong))
	require.Zero(t, wrong, "accounts whose parked receipts are not counted right")
}

// Parked, applied and dropped at the same time by several nodes, the counts stay right.
func TestParkedReceiptsAreCountedRightByAllNodes(t *testing.T) {
	t.Parallel()
	url, nodes := withTenant(t, 3)
	claimed := claimedBy(t, nodes[0], newClient(0), 0, 40)
	var group sync.WaitGroup
	for n := range 2 {
		group.Go(func() {
			for i := range claimed {
				o := sentOutcome(claimed[i])
				rs := []delivery.Receipt{
					{Account: o.Account, ProviderID: o.ProviderID, Status: delivery.StatusDelivered},
					{Account: o.Account, ProviderID: fmt.Sprint("nobody ", i), Status: delivery.StatusSent},
					{Account: delivery.AccountID{byte(n), 9}, ProviderID: "nobody", Status: delivery.StatusDelivered,
						Code: fmt.Sprint(i)},
				}
				// Every other one has had its time when it comes.
				keep := time.Duration(i%2)*time.Hour - time.Minute
				_, err := nodes[n].Report(context.Background(), faultSys, faultTime, keep, rs)
				if err != nil {
					t.Errorf("report: %v", err)
				}
			}
		})
	}
	group.Go(func() {
		for i := range claimed {
			if _, err := nodes[2].Settle(context.Background(), faultSys, faultTime,
				[]store.Outcome{sentOutcome(claimed[i])}); err != nil {
				t.Errorf("settle: %v", err)
			}
			if _, err := nodes[2].DropParked(context.Background(), faultSys, faultTime); err != nil {
				t.Errorf("drop: %v", err)
			}
		}
	})
	group.Wait()
	parkedAreCounted(t, url)
	_, err := nodes[0].DropParked(t.Context(), faultSys, faultTime.Add(time.Hour))
	require.NoError(t, err)
	n, err := nodes[0].Parked(t.Context(), faultSys)
	require.NoError(t, err)
	require.Zero(t, n)
	parkedAreCounted(t, url)
	right(t, nodes[0])
}

// A provider may write bytes that are no text.
func TestAProviderMayWriteAnything(t *testing.T) {
	t.Parallel()
	_, nodes := withTenant(t, 1)
	s, ctx := nodes[0], t.Context()
	const ref, code, detail = "\x00\xff\xfe ref \x00", "c\x00de\xff", "d\xc3\x28tail\x00"
	acc := delivery.AccountID{7}
	require.NoError(t, s.PutAccount(ctx, "acme", store.Account{ID: acc, Tenant: "acme", Name: "a", Kind: "smpp",
		Channel: delivery.SMS, CreatedAt: faultTime, UpdatedAt: faultTime}))
	claimed := claimedBy(t, s, newClient(0), 0, 2)
	receipt := delivery.Receipt{Account: acc, ProviderID: ref, Status: delivery.StatusUndelivered, Code: code,
		Detail: detail}
	got, err := s.Report(ctx, faultSys, faultTime, time.Hour, []delivery.Receipt{receipt})
	require.NoError(t, err)
	require.True(t, got[0].Message.IsZero())
	list, err := s.Unmatched(ctx, "acme", "", 10)
	require.NoError(t, err)
	require.Len(t, list, 1)
	rest, err := s.Unmatched(ctx, "acme", list[0].Mark, 10)
	require.NoError(t, err)
	require.Empty(t, rest)
	o := sentOutcome(claimed[0])
	o.ProviderID, o.Route, o.Content = ref, detail, detail
	settled, err := s.Settle(ctx, faultSys, faultTime, []store.Outcome{o})
	require.NoError(t, err)
	require.Equal(t, delivery.StatusUndelivered, settled[0].Status)
	receipt.Code = "another\x00"
	got, err = s.Report(ctx, faultSys, faultTime, time.Hour, []delivery.Receipt{receipt})
	require.NoError(t, err)
	require.Equal(t, claimed[0].ID, got[0].Message, "found by the bytes that the provider gave")
	o = sentOutcome(claimed[1])
	o.Status, o.Reason, o.Detail, o.Suppress = delivery.StatusFailed, code, detail, true
	_, err = s.Settle(ctx, faultSys, faultTime, []store.Outcome{o})
	require.NoError(t, err)
	right(t, s)
}
