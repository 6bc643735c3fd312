package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	digestSize = 8
	// seenDigests is how many receipts a message remembers to tell a repeat; a message gets about three.
	seenDigests = 64
)

// Report stores receipts and moves the messages they belong to.
func (s *Store) Report(
	ctx context.Context, sys store.System, now time.Time, keep time.Duration, receipts []delivery.Receipt,
) ([]store.Reported, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	for i := range receipts {
		switch receipts[i].Status {
		case delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead, delivery.StatusUndelivered,
			delivery.StatusFailed:
		default:
			return nil, fmt.Errorf("report: receipt %d says %s", i, receipts[i].Status)
		}
	}
	if len(receipts) == 0 {
		return nil, nil
	}
	type result struct {
		reported []store.Reported
		refused  int
	}
	out, err := write(ctx, s, len(receipts), func(t *tx) (result, error) {
		r := result{reported: make([]store.Reported, len(receipts))}
		for i := range receipts {
			var err error
			r.reported[i], err = t.report(&receipts[i], now, keep)
			if errors.Is(err, store.ErrParkedFull) {
				r.refused++ // the others must not suffer, and are in this commit
				continue
			}
			if err != nil {
				return result{}, err
			}
		}
		return r, nil
	})
	if err == nil && out.refused > 0 {
		return nil, fmt.Errorf("%w: %d of %d receipts were refused", store.ErrParkedFull, out.refused, len(receipts))
	}
	return out.reported, err
}

func (t *tx) report(rc *delivery.Receipt, now time.Time, keep time.Duration) (out store.Reported, err error) {
	account, err := t.account(rc.Account)
	if err != nil {
		return out, err
	}
	r, err := t.findReported(rc, account)
	if err != nil {
		return out, err
	}
	if r == nil {
		return out, t.park(rc, account, now.Add(keep))
	}
	tn, err := t.tenantN(r.tenant)
	if err != nil {
		return out, err
	}
	changed, fresh, err := t.applyReceipt(tn, r, rc, now)
	if err == nil && fresh {
		err = t.save(r)
	}
	return store.Reported{Message: r.id, Tenant: tn.slug, Status: r.status, Changed: changed}, err
}

// findReported finds the message of a receipt: by our own id when the provider gave it back, else by the provider's. A
// receipt through one tenant's account never reaches another tenant's message.
func (t *tx) findReported(rc *delivery.Receipt, account int64) (r *row, err error) {
	if !rc.Message.IsZero() {
		r, err = t.load(rc.Message)
	}
	if err == nil && r == nil && rc.ProviderID != "" {
		var id delivery.MessageID
		var found bool
		found, err = one(t.conn, `SELECT id FROM provider_refs WHERE account = ? AND ref = ?`, func(s *sqlite.Stmt) error {
			s.ColumnBytes(0, id[:])
			return nil
		}, account, rc.ProviderID)
		if err == nil && found {
			r, err = t.load(id)
		}
	}
	if err != nil || r == nil {
		return nil, err
	}
	owner, err := t.accountOwner(rc.Account)
	if err != nil || (owner > 0 && owner != r.tenant) {
		return nil, err
	}
	return r, nil
}

// applyReceipt joins a receipt with a message that must be saved when it was fresh, which is: not an exact repeat.
func (t *tx) applyReceipt(tn *tenant, r *row, rc *delivery.Receipt, now time.Time) (changed, fresh bool, err error) {
	d := receiptDigest(rc)
	for b := r.seen; len(b) >= digestSize; b = b[digestSize:] {
		if bytes.Equal(b[:digestSize], d[:digestSize]) {
			return false, false, nil
		}
	}
	if len(r.seen) >= seenDigests*digestSize {
		r.seen = slices.Clone(r.seen[digestSize:])
	}
	r.seen = append(r.seen, d[:digestSize]...)

	to, changed := delivery.AfterReceipt(r.channel, r.status, rc.Status)
	if changed {
		if err := t.move(r, store.Millis(now), step{to, delivery.ByReceipt}); err != nil {
			return false, true, err
		}
		r.due, r.node, r.reason, r.detail = 0, "", "", ""
		if to == delivery.StatusUndelivered {
			r.reason, r.detail = rc.Code, rc.Detail
		}
	}
	at := rc.At
	if at.IsZero() {
		at = now
	}
	err = t.record(tn, r, delivery.Fact{Kind: delivery.FactReceipt, At: at, Status: rc.Status, Account: rc.Account,
		Code: rc.Code, Detail: rc.Detail})
	if err == nil && (rc.Class == delivery.BadRecipient || rc.Class == delivery.Consent) {
		err = t.suppress(tn, store.Suppression{Channel: r.channel, To: r.to, Reason: rc.Class.String(),
			Source: r.id.String(), At: now})
	}
	return changed, true, err
}

// park keeps a receipt for a message that is not known yet. A repeat changes nothing. It gives store.ErrParkedFull,
// having written nothing, when the account has as many parked receipts as it may have.
func (t *tx) park(rc *delivery.Receipt, account int64, until time.Time) error {
	n, err := t.countParked(account)
	if err != nil {
		return err
	}
	d := receiptDigest(rc)
	if n >= store.MaxParked {
		found, err := one(t.conn, `SELECT 1 FROM parked WHERE account = ? AND ref = ? AND digest = ?`,
			func(*sqlite.Stmt) error { return nil }, account, rc.ProviderID, d[:])
		if err == nil && !found {
			err = store.ErrParkedFull
		}
		return err
	}
	text, err := json.Marshal(rc)
	if err != nil {
		return err
	}
	t.anyParked = true
	err = t.exec(`INSERT INTO parked (account, ref, digest, until, receipt) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`,
		account, rc.ProviderID, d[:], until, string(text))
	if err == nil {
		t.parked[account] = n + t.conn.Changes()
	}
	return err
}

// countParked is how many receipts wait for messages of an account.
func (t *tx) countParked(account int64) (int, error) {
	if n, ok := t.parked[account]; ok {
		return n, nil
	}
	n := 0
	_, err := one(t.conn, `SELECT count(*) FROM parked WHERE account = ?`,
		func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil }, account)
	if err == nil {
		t.parked[account] = n
	}
	return n, err
}

// applyParked applies the receipts that wait for a provider id, in the order of their times.
func (t *tx) applyParked(tn *tenant, r *row, now time.Time) error {
	if !t.anyParked {
		return nil
	}
	var waiting []delivery.Receipt
	err := query(t.conn, `SELECT receipt FROM parked WHERE account = ? AND ref = ? AND until >= ?`,
		func(s *sqlite.Stmt) error {
			var rc delivery.Receipt
			err := json.Unmarshal(columnBytes(s, 0), &rc)
			waiting = append(waiting, rc)
			return err
		}, r.account, r.provider, now)
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		t.anyParked, err = one(t.conn, `SELECT 1 FROM parked LIMIT 1`, func(*sqlite.Stmt) error { return nil })
		return err
	}
	owner, err := t.accountOwner(waiting[0].Account)
	if err != nil || (owner > 0 && owner != r.tenant) {
		return err
	}
	slices.SortStableFunc(waiting, func(a, b delivery.Receipt) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Status, b.Status))
	})
	for i := range waiting {
		if _, _, err := t.applyReceipt(tn, r, &waiting[i], now); err != nil {
			return err
		}
	}
	err = t.exec(`DELETE FROM parked WHERE account = ? AND ref = ? AND until >= ?`, r.account, r.provider, now)
	if n, ok := t.parked[r.account]; ok && err == nil {
		t.parked[r.account] = n - t.conn.Changes()
	}
	return err
}

// receiptDigest is what makes two receipts the same: everything the provider said.
func receiptDigest(rc *delivery.Receipt) [sha256.Size]byte {
	b := make([]byte, 0, 128)
	b = append(b, rc.Account[:]...)
	b = append(b, byte(rc.Status), byte(rc.Class))
	b = binary.AppendVarint(b, store.Millis(rc.At))
	for _, s := range []string{rc.ProviderID, rc.Code, rc.Detail} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// Parked counts receipts that wait for their message.
func (s *Store) Parked(ctx context.Context, sys store.System) (int, error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (n int, err error) {
		_, err = one(c, `SELECT count(*) FROM parked`, func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil })
		return n, err
	})
}

// DropParked removes receipts that have waited long enough.
func (s *Store) DropParked(ctx context.Context, sys store.System, now time.Time) (int, error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	return write(ctx, s, 1, func(t *tx) (int, error) {
		err := t.exec(`DELETE FROM parked WHERE until < ?`, now)
		clear(t.parked)
		return t.conn.Changes(), err
	})
}
