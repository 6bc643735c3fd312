package api

import (
	"net/http"

	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// unmatchedReceipts lists reports that wait for their message: of the tenant's own connectors, or, for an operator who
// names no tenant, of the shared ones.
func unmatchedReceipts(c *call) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	var from store.UnmatchedMark
	if s := c.param("cursor"); s != "" {
		place, err := c.a.cursors.open(c, s)
		if err != nil {
			return err
		}
		from = store.UnmatchedMark(place)
	}
	rows, more, err := slice(limit, func(n int, last *store.Unmatched) ([]store.Unmatched, error) {
		at := from
		if last != nil {
			at = last.Mark
		}
		return c.a.Store.Unmatched(c.ctx(), c.tenant, at, n)
	})
	if err != nil {
		return err
	}
	n, err := c.names()
	if err != nil {
		return err
	}
	out := sdk.Page[sdk.UnmatchedReceipt]{Data: make([]sdk.UnmatchedReceipt, 0, len(rows)), HasMore: more}
	for _, u := range rows {
		r := u.Receipt
		out.Data = append(out.Data, sdk.UnmatchedReceipt{
			Connector: n.account(r.Account), ProviderID: r.ProviderID, Status: sdk.Status(r.Status.String()), Code: r.Code,
			Detail: r.Detail, At: when(r.At), Since: when(u.Since), Until: when(u.Until),
		})
	}
	if more {
		out.NextCursor = c.a.cursors.seal(c, string(rows[len(rows)-1].Mark))
	}
	return c.json(http.StatusOK, out)
}
