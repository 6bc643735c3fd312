package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

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
) (list []store.Unmatched, err error) {
	if limit < 1 || limit > maxPage {
		return nil, fmt.Errorf("unmatched receipts: limit %d is not between 1 and %d", limit, maxPage)
	}
	from, err := readMark(after)
	if err != nil {
		return nil, err
	}
	n, err := s.ownerNumber(ctx, tenant)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	digest := from.digest[:]
	if after == "" {
		digest = nil
	}
	err = s.read(ctx, scope(n), stmt{`SELECT a.id, p.ref, p.digest, p.receipt, p.since, p.until
		FROM accounts a JOIN account_ids i ON i.id = a.id
		CROSS JOIN LATERAL (SELECT ref, digest, receipt, since, until FROM parked
			WHERE account = i.n AND (ref, digest) > (CASE WHEN a.id = $2 THEN $3::bytea ELSE '' END,
				CASE WHEN a.id = $2 THEN $4::bytea ELSE '' END) ORDER BY ref, digest LIMIT $5) AS p
		WHERE a.tenant = $1 AND a.id >= $2 ORDER BY a.id, p.ref, p.digest LIMIT $5`,
		[]any{n, [16]byte(from.account), []byte(from.ref), nonNilOf(digest), limit},
		func(rows pgx.Rows) error {
			var place unmatchedPlace
			var ref, digest, receipt []byte
			var since, until int64
			if err := rows.Scan((*[16]byte)(&place.account), &ref, &digest, &receipt, &since, &until); err != nil {
				return err
			}
			place.ref = string(ref)
			copy(place.digest[:], digest)
			u := store.Unmatched{Mark: place.mark(), Since: store.FromMillis(since), Until: store.FromMillis(until)}
			err := json.Unmarshal(receipt, &u.Receipt)
			list = append(list, u)
			return err
		}})
	return list, err
}
