package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const unmatchedOf = `SELECT ref, digest, receipt, since, until FROM parked
	WHERE account = ? AND (ref, digest) > (?, ?) ORDER BY ref, digest LIMIT ?`

// unmatchedPlace is what a store.UnmatchedMark says: a key of the table parked.
type unmatchedPlace struct {
	account delivery.AccountID
	digest  [sha256.Size]byte
	ref     string
}

func (p unmatchedPlace) mark() store.UnmatchedMark {
	b := append(append(append([]byte{}, p.account[:]...), p.digest[:]...), p.ref...)
	return store.UnmatchedMark(base64.RawURLEncoding.EncodeToString(b))
}

func readMark(m store.UnmatchedMark) (p unmatchedPlace, err error) {
	if m == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(string(m))
	if err != nil || len(b) < len(p.account)+len(p.digest) {
		return p, fmt.Errorf("unmatched receipts: %q is no mark of this list", m)
	}
	b = b[copy(p.account[:], b):]
	p.ref = string(b[copy(p.digest[:], b):])
	return p, nil
}

// Unmatched lists receipts that wait for a message, of accounts that the tenant owns.
func (s *Store) Unmatched(
	ctx context.Context, tenant delivery.TenantID, after store.UnmatchedMark, limit int,
) ([]store.Unmatched, error) {
	if limit < 1 || limit > maxPage {
		return nil, fmt.Errorf("unmatched receipts: limit %d is not between 1 and %d", limit, maxPage)
	}
	from, err := readMark(after)
	if err != nil {
		return nil, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Unmatched, err error) {
		n, err := tenantNumber(c, tenant)
		if err != nil || n == 0 && tenant != delivery.Shared {
			return nil, err
		}
		type account struct {
			id delivery.AccountID
			n  int64
		}
		var accounts []account
		err = query(c, `SELECT a.id, i.n FROM accounts a JOIN account_ids i ON i.id = a.id
			WHERE a.tenant = ? AND a.id >= ? ORDER BY a.id`, func(s *sqlite.Stmt) error {
			r := scan(s)
			accounts = append(accounts, account{r.id(), r.int64()})
			return nil
		}, n, from.account[:])
		for _, a := range accounts {
			place := unmatchedPlace{account: a.id}
			ref, digest := "", []byte{}
			if a.id == from.account && after != "" {
				ref, digest = from.ref, from.digest[:]
			}
			if err == nil && len(list) < limit {
				err = query(c, unmatchedOf, func(s *sqlite.Stmt) error {
					r := scan(s)
					place.ref = r.text()
					copy(place.digest[:], r.bytes())
					u := store.Unmatched{Mark: place.mark()}
					bad := json.Unmarshal(r.bytes(), &u.Receipt)
					u.Since, u.Until = r.time(), r.time()
					list = append(list, u)
					return bad
				}, a.n, ref, digest, limit-len(list))
			}
		}
		return list, err
	})
}
